"""Who may do what with a file, as far as the disk keeps that: FAT keeps nothing of it."""

import os
import stat

from muster.node.folders.onestep import NEW, give_mode
from muster.node.folders.signature import X


def keeps_modes(folder: int, name: str) -> bool:
    """Whether a disk can tell what can be executed; a file of this name is made to see it."""
    try:
        file = os.open(name, NEW, 0o600, dir_fd=folder)
    except OSError:
        # Where nothing can be written nothing is to be given.
        return True
    try:
        give_mode(file, 0o600)
        return not os.fstat(file).st_mode & X
    finally:
        os.close(file)
        os.unlink(name, dir_fd=folder)


def mode_of(name: str, folder: int, *, x: bool) -> int | None:
    """Who may do what with the file there, which stays so; None without one."""
    try:
        found = os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return None
    if not stat.S_ISREG(found.st_mode):
        return None
    mode = found.st_mode & 0o777 & ~X
    # Whoever may read it may run it.
    return mode | (mode & 0o444) >> 2 if x else mode
