"""Files that others wrote, read as data: nothing here follows, waits or runs.

Rule 1: only plain files are read, up to a bound; a pipe would wait, a device would never end.
Rule 2: folders are walked without recursion, so no depth is too much.
"""

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_FLAGS: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC


def read(path: Path | bytes, most: int, *, follow: bool = False) -> bytes | None:
    """The first bytes of a plain file; None where there is none that can be read."""
    try:
        descriptor = os.open(path, _FLAGS | (0 if follow else os.O_NOFOLLOW))
    except OSError:
        return None
    try:
        # Looked at before there is a file of it: `fdopen` refuses a folder and leaves it open.
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            return None
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            return file.read(most)
    except OSError:
        return None
    finally:
        os.close(descriptor)


def files(top: Path) -> Iterator[bytes]:
    """The paths of all that is no folder below `top`, as bytes and relative to it."""
    root, waiting = os.fsencode(top), [b""]
    while waiting:
        below = waiting.pop()
        try:
            with os.scandir(os.path.join(root, below)) as entries:
                for entry in entries:
                    path = os.path.join(below, entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(path)
                    else:
                        yield path
        except OSError:
            # A folder that is gone, or shut to us, names nothing for us, as to git itself.
            continue
