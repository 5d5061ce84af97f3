"""What a folder holds, for who copies all of it: plain files, and what is passed over.

Rule 1: no link is followed, and no device opened: links, pipes, devices, and folders of another
file system are named as passed over, and so is what is shut.
Rule 2: it is bounded, in entries and in depth: more than that is refused, never cut.
"""

import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final, NamedTuple

from muster.errors import Exhausted, NotFound, Refused, unable
from muster.node.host import within
from muster.printable import visible

ENTRIES_MAX: Final = 20_000
DEPTH_MAX: Final = 32
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Held(NamedTuple):
    """A plain file below the folder, with its size; or what is passed over, and why."""

    path: str
    size: int = 0
    passed: str = ""


def held(at: within.Spot, shut: Sequence[str]) -> Iterator[Held]:
    """All of it, in the order of names. Raises: NotFound, Refused, Exhausted."""
    said = visible(at.path)[:200]
    try:
        top = os.open(at.name, _FOLDER, dir_fd=at.folder)
    except FileNotFoundError as error:
        raise NotFound(f"there is no {said}") from error
    except NotADirectoryError as error:
        raise Refused(f"{said} is no folder: copy it without -r") from error
    except OSError as error:
        raise unable(f"{said} cannot be read: {error.strerror}", error) from error
    closed = {(each.st_dev, each.st_ino) for each in map(os.stat, filter(os.path.isdir, shut))}
    try:
        if _mark(top) in closed:
            raise Refused(f"{said} is Muster's own home, which holds its keys: it is never copied")
        for count, each in enumerate(_below(top, "", 1, closed, os.fstat(top).st_dev)):
            if count >= ENTRIES_MAX:
                raise Exhausted(
                    f"{said} holds more than {ENTRIES_MAX} files: copy the folders below it, or "
                    "use tar behind `muster exec`"
                )
            yield each
    finally:
        os.close(top)


def _mark(folder: int) -> tuple[int, int]:
    found = os.fstat(folder)
    return found.st_dev, found.st_ino


def _below(
    at: int, before: str, depth: int, closed: set[tuple[int, int]], disk: int
) -> Iterator[Held]:
    with os.scandir(at) as found:
        names = sorted(each.name for each in found)
    for name in names:
        path = before + name
        if not name.isprintable() or name.startswith(".muster-"):
            # A part of ours is no file yet, and some names cannot be said.
            yield Held(visible(path), passed="its name")
            continue
        try:
            seen = os.stat(name, dir_fd=at, follow_symlinks=False)
            is_folder = stat.S_ISDIR(seen.st_mode)
            if is_folder and seen.st_dev != disk:
                yield Held(path, passed="another file system")
                continue
            folder = os.open(name, _FOLDER, dir_fd=at) if is_folder else None
        except OSError as error:
            yield Held(path, passed=error.strerror or "it cannot be read")
            continue
        if folder is None:
            plain = stat.S_ISREG(seen.st_mode)
            what = "a link" if stat.S_ISLNK(seen.st_mode) else "a pipe, socket or device"
            yield Held(path, seen.st_size) if plain else Held(path, passed=what)
            continue
        try:
            if _mark(folder) in closed:
                yield Held(path, passed="Muster's own home")
            elif depth >= DEPTH_MAX:
                yield Held(path, passed=f"more than {DEPTH_MAX} folders deep")
            else:
                yield from _below(folder, f"{path}/", depth + 1, closed, disk)
        finally:
            os.close(folder)
