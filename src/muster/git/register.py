"""The register of a schedule as a ref: `refs/muster/schedule/<id>`, whose blob says the slot.

Rule 1: it moves by compare-and-set on what was read; at a remote that is `--force-with-lease`, so a
        remote that has none of our hooks does as well.
Rule 2: what is read is the ref as it was fetched to a name of ours: between looking for the object
        of a ref and fetching that object another one may have moved it.
"""

from pathlib import Path
from typing import NamedTuple

from muster.errors import Conflict, Damaged
from muster.git import command as git
from muster.git import ref
from muster.git.fence import schedule_ref
from muster.limits import REGISTER_BYTES_MAX

_SEEN = "refs/muster-seen/schedule/"


class Register(NamedTuple):
    """What it holds; nothing of both where nobody ever moved it."""

    revision: str = ""
    raw: bytes = b""


async def read(repo: Path, url: str, schedule: str) -> Register:
    """The register as it is now, here or at a remote. Raises: Unreachable, Damaged."""
    name = at = schedule_ref(schedule)
    if url:
        if await ref.read_remote(repo, url, name) is None:
            return Register()
        at = _SEEN + schedule
        fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
        await git.run_async([*fetch, "--end-of-options", url, f"+{name}:{at}"], repo)
    found = await ref.read(repo, at)
    if found is None:
        return Register()
    size = (await git.run_async(["cat-file", "-s", found], repo)).text
    if not size.isdigit() or int(size) > REGISTER_BYTES_MAX:
        raise Damaged(f"the register {name} holds more than any keeper writes")
    return Register(found, (await git.run_async(["cat-file", "blob", found], repo)).out)


async def move(repo: Path, url: str, schedule: str, before: str, raw: bytes) -> Register:
    """Move it from a revision; what it holds then, which is another one's where that was first.

    Raises: Unreachable, Refused, Damaged.
    """
    written = await git.run_async(["hash-object", "-w", "--stdin"], repo, stdin=raw)
    blob = git.object_id(written.text, "The register's object")
    name, old = schedule_ref(schedule), before or None
    try:
        if url:
            await ref.swap_remote(repo, url, name, old, blob)
        else:
            await ref.swap(repo, [(name, old, blob)])
    except Conflict:
        return await read(repo, url, schedule)
    return Register(blob, raw)
