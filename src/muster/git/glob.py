"""What an `each:` glob matches among the files of a commit.

Rule: the time for one name grows with its parts times the pattern's, whatever both are: they come
from others, and a pattern of many `**` must not stand still over a deep folder.
"""

import fnmatch
import re
from collections.abc import Iterable
from itertools import accumulate
from operator import or_


def matching(files: Iterable[str], glob: str) -> tuple[str, ...]:
    """The files, or for a glob that ends in `/` the folders, that `glob` matches, in order.

    `*` and `?` stay within one name, `**` crosses folders; as in a shell.
    """
    folders = glob.endswith("/")
    # What each part of the pattern matches; None for `**`.
    pattern = [
        None if part == "**" else re.compile(fnmatch.translate(part))
        for part in glob.rstrip("/").split("/")
    ]
    names = set[str]()
    for file in files:
        above = file.split("/")[:-1]
        names |= {"/".join(above[: i + 1]) for i in range(len(above))} if folders else {file}
    return tuple(sorted(name for name in names if _fits(name.split("/"), pattern)))


def matched(listed: bytes, glob: str) -> tuple[tuple[str, ...], str]:
    """What a glob matches in a listing of git, and why that is nothing, where a reason is seen."""
    # Names that are no UTF-8 are told as they are, so that they can be refused by name.
    files = [raw.decode("utf-8", "surrogateescape") for raw in listed.split(b"\0") if raw]
    found = matching(files, glob)
    if found or glob.endswith("/"):
        return found, ""
    folders = matching(files, f"{glob}/")
    some = f"{len(folders)} folder{'s' * (len(folders) > 1)}"
    why = f"{glob} matches no file, but {some}; if those are meant, write {glob}/"
    return found, why if folders else ""


def _fits(parts: list[str], pattern: list[re.Pattern[str] | None]) -> bool:
    # Of each number of parts, whether so many are what the pattern up to here matches.
    fits = [True] + [False] * len(parts)
    for wanted in pattern:
        if wanted is None:
            # Whatever fitted before `**` fits with any number of parts more.
            fits = list(accumulate(fits, or_))
        else:
            pairs = zip(fits, parts, strict=False)
            fits = [False, *(before and bool(wanted.match(part)) for before, part in pairs)]
    return fits[-1]
