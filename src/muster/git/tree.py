"""What a commit holds, read without a checkout.

Rule: what is read is bounded in number and size before it is read, for others wrote it.
"""

from collections.abc import Callable
from pathlib import Path

from muster import limits
from muster.git import command as git


async def texts(where: Path, commit: str, wanted: Callable[[str], bool]) -> dict[str, str]:
    """The names of the files of a commit, with the text of those that are wanted, "" for others.

    A link, a file that is too large and what is no UTF-8 count as "" too.
    """
    listed = await git.run_async(["ls-tree", "-r", "-l", "-z", "--end-of-options", commit], where)
    found, read = dict[str, str](), dict[str, str]()
    for line in listed.out.split(b"\0")[: limits.PROJECT_FILES_MAX]:
        about, _, raw = line.partition(b"\t")
        mode, _, id, size = (about.decode().split() + [""] * 4)[:4]
        name = raw.decode("utf-8", "replace")
        found[name] = ""
        small = size.isdigit() and int(size) <= limits.PROJECT_FILE_BYTES_MAX
        if mode.startswith("100") and small and len(read) < limits.PROJECT_READ_MAX:
            read |= {name: id} if wanted(name) else {}
    for name, id in read.items():
        blob = await git.run_async(["cat-file", "blob", id], where)
        found[name] = blob.out.decode("utf-8", "replace")
    found.pop("", None)
    return found
