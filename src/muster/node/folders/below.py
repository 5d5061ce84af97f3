"""What a hint of the watch may be about: the files at a path, or below it."""

from collections.abc import Callable

from muster.node.folders.disk import Disk, unread
from muster.node.folders.onestep import InTheWay


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


def is_file(disk: Disk, path: str) -> bool:
    """Whether nobody is to look below a path. Raises: NotThisFolder, OSError."""
    try:
        return disk.signature(path) is not None
    except InTheWay:
        return True
    except OSError as error:
        unread(error)
        return True
