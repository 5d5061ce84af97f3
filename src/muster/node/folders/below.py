"""What a hint of the watch may be about: the files at a path, or below it; so many at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Final

from muster.node.folders.disk import Disk, unread
from muster.node.folders.onestep import InTheWay

# Files in one question to the core, and versions in one step: neither may take longer than 50 ms.
ASKED_MAX: Final = 100


def in_parts(paths: Iterable[str]) -> list[list[str]]:
    """So many at a time, in order: those that lie in one folder come one after the other."""
    rest = sorted(paths)
    return [rest[at : at + ASKED_MAX] for at in range(0, len(rest), ASKED_MAX)]


def to_look_below(
    disk: Disk, hints: Iterable[str], leaves_out: Callable[[str], bool]
) -> Iterator[str]:
    """Those of these hints that may be about what lies below them.

    Raises: NotThisFolder, OSError.
    """
    for part in in_parts(hints):
        with disk.near():
            for hint in part:
                if not hint or not (leaves_out(hint) or _is_file(disk, hint)):
                    yield hint


def files_below(
    disk: Disk, path: str, leaves_out: Callable[[str], bool]
) -> tuple[set[str], dict[str, str]]:
    """The files at or below a path, and what can be none, with its reason.

    Raises: NotThisFolder, OSError.
    """
    found, left = set[str](), dict[str, str]()
    for each, signature in disk.walk(path, leaves_out):
        if isinstance(signature, str):
            left[each] = signature
        else:
            found.add(each)
    return found, left


def freed(disk: Disk, path: str, left: Mapping[str, str]) -> list[str]:
    """Files that waited for the place of a folder in which one is gone now."""
    parts = path.split("/")
    above = ("/".join(parts[:n]) for n in range(1, len(parts)))
    return [each for each in above if left.get(each) and not disk.is_folder(each)]


def _is_file(disk: Disk, path: str) -> bool:
    """Whether nobody is to look below a path. Raises: NotThisFolder, OSError."""
    try:
        return disk.signature(path) is not None
    except InTheWay:
        return True
    except OSError as error:
        unread(error)
        return True
