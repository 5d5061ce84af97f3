"""What tells without reading that a file is as it was."""

import os
import stat
from typing import Final, NamedTuple

from muster.node.folders.onestep import InTheWay

# The executable bits.
X: Final = 0o111


class Signature(NamedTuple):
    """What tells without reading that a file is as it was; `x` are its executable bits."""

    mtime_ns: int
    size: int
    inode: int
    x: int


def signature_in(name: str, folder: int) -> Signature | None:
    """Of a file in an open folder, None of a folder. Raises: InTheWay, OSError."""
    found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    if stat.S_ISDIR(found.st_mode):
        return None
    if not stat.S_ISREG(found.st_mode):
        raise InTheWay(f"{name} is a link, or no plain file")
    return signature_of(found)


def signature_of(found: os.stat_result) -> Signature | None:
    """Of what the system says of it; None where it is no plain file."""
    if not stat.S_ISREG(found.st_mode):
        return None
    mtime, inode = in_64_bits(found.st_mtime_ns), in_64_bits(found.st_ino)
    return Signature(mtime, found.st_size, inode, found.st_mode & X)


def in_64_bits(number: int) -> int:
    """A number of the system's as a database holds it: equal where the lowest 64 bits are."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)
