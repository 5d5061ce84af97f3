"""A work folder as it lies there: what git would not see, wait at for ever, or read for hours.

Rule: what git would leave out or choke on without a word is refused by name, before git looks.
"""

import os
import stat
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Refused
from muster.git import command as git
from muster.git import filtered

_ATTRIBUTES: Final = b".gitattributes"
_READ_BY_GIT: Final = frozenset({b".gitignore", _ATTRIBUTES, b".gitmodules", b".mailmap"})
# Of a path that git is asked about; longer ones no system opens.
_ASKED_BYTES_MAX: Final = 3_000


class Folders(NamedTuple):
    """What is special about the folders below the work folder, by name."""

    nested: list[bytes]
    """Repositories themselves."""
    closed: list[bytes]
    """Nobody here can look into them: of another user, without rights, too deep."""
    heavy: list[bytes]
    """Files that git would read for hours, and no push carries."""
    attributes: bool
    """Whether there is a file that could give one a filter."""


def look(root: Path) -> Folders:
    """Look through the work folder; without recursion."""
    found, closed, heavy, attributes = [], list[bytes](), list[bytes](), False
    top = os.fsencode(root)
    waiting = [top]
    while waiting:
        folder, large = waiting.pop(), list[bytes]()
        try:
            known, inner = set[bytes](), list[bytes]()
            with os.scandir(folder) as entries:
                for entry in entries:
                    known.add(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        inner += [entry.path] if entry.name != b".git" else []
                    elif entry.is_file(follow_symlinks=False):
                        size = entry.stat(follow_symlinks=False).st_size
                        large += [entry.path] if size > limits.GIT_FILE_BYTES_MAX else []
            attributes |= _ATTRIBUTES in known
            for name in _READ_BY_GIT & known:
                _refuse_trap(os.path.join(folder, name), top)
        except OSError:
            # It is told by its name, and whoever looks decides what that means.
            closed.append(os.path.relpath(folder, top))
            continue
        if folder != top and b".git" in known:
            found.append(os.path.relpath(folder, top))
            continue
        heavy += [os.path.relpath(path, top) for path in large]
        waiting += inner
    # Nobody knows what is in a folder that nobody can read.
    return Folders(sorted(found), sorted(closed), sorted(heavy), attributes or bool(closed))


async def refuse(inside: git.Git, found: Folders, deliver: list[str], base: str) -> None:
    """Raises: Refused for what the commit could not hold as it is there."""
    # Git would leave out what it cannot read, with exit code 0; what is ignored may be closed.
    if left := await _not_ignored(inside, found.closed):
        raise Refused(
            f"The folder {git.shown(min(left))!r} cannot be read: it is another user's, "
            "without rights, or too deep; git would leave it out without a word."
        )
    # What is ignored may be of any size, unless it was promised.
    known = await filtered.leave_large(inside, base, found.heavy)
    heavy = [path for path in found.heavy if path not in known]
    wanted = {path for path in heavy for d in deliver if Path(os.fsdecode(path)).is_relative_to(d)}
    if left := wanted | await _not_ignored(inside, heavy):
        raise Refused(
            f"The file {git.shown(min(left))!r} has more than {limits.GIT_FILE_BYTES_MAX >> 30} "
            "GiB, which no push carries; remove it, or name it in .gitignore, or put back what was "
            "there if it is in the repository."
        )


async def _not_ignored(inside: git.Git, paths: list[bytes]) -> set[bytes]:
    """Those of these paths that git would not leave out."""
    # With a dot in front no name is more than a name; this command knows no other way to say so.
    asked = {b"./" + path[:_ASKED_BYTES_MAX].rstrip(b"/") for path in paths}
    if not asked:
        return set()
    inside = inside._replace(env={**inside.env, "GIT_LITERAL_PATHSPECS": "0"})
    answer = await inside.run("check-ignore", "-z", "--stdin", paths=asked, codes=(0, 1))
    return {path[2:] for path in asked.difference(answer.out.split(b"\0"))}


def _refuse_trap(path: bytes, top: bytes) -> None:
    """Git would read it, and wait for ever at a pipe that nobody writes to."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        # A link to nowhere, which git does not follow.
        return
    if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
        raise Refused(f"{git.shown(os.path.relpath(path, top))} must be a file that git can read.")
