"""Folders that a root daemon lends to the user of an attempt, and takes back.

Rule 1: no link is followed, and no step is taken by a path: each folder is opened in the one before
it, so that whoever may rename inside cannot lead root elsewhere.
Rule 2: a file that has a second name is not lent: the other name may be somebody else's, as with
the objects that a local clone shares. It is taken back with any number of names.
Rule 3: only what belongs to the one is given to the other; what others own stays theirs.
Rule 4: however deep the tree, two folders are open at a time.

A file that changes its owner loses the bits that let it run as its owner: the kernel sees to that.
"""

import os
import stat
from collections.abc import Iterator
from typing import Final

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def lend(path: str, user: int) -> None:
    """Everything of root's in this folder, itself included, is the user's. Raises: OSError."""
    _change(path, 0, user, lends=True)


def take_back(path: str, user: int) -> None:
    """The reverse; a folder that is gone is nobody's. Raises: OSError."""
    _change(path, user, 0, lends=False)


def _change(path: str, old: int, new: int, *, lends: bool) -> None:
    try:
        top = os.open(path, _FOLDER)
    except FileNotFoundError:
        # Where there is no folder there is nothing to own.
        return
    if os.fstat(top).st_uid == old:
        os.fchown(top, new, new)
    for folder, name, found in _entries(top):
        linked = not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1
        if found.st_uid == old and not (lends and linked):
            os.chown(name, new, new, dir_fd=folder, follow_symlinks=False)


def _entries(folder: int) -> Iterator[tuple[int, str, os.stat_result]]:
    """Every entry below the folder, which is closed; not what is mounted there."""
    device = os.fstat(folder).st_dev
    waiting, above = [os.listdir(folder)], list[tuple[int, int]]()
    try:
        while True:
            if not waiting[-1]:
                waiting.pop()
                if not waiting:
                    return
                up = os.open("..", _FOLDER, dir_fd=folder)
                os.close(folder)
                folder = up
                if _identity(os.fstat(folder)) != above.pop():
                    raise OSError(f"a folder was moved while it was walked: {waiting[-1][:1]}")
                continue
            name = waiting[-1].pop()
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
            except FileNotFoundError:
                # It went meanwhile: what is gone has no owner.
                continue
            yield folder, name, found
            if stat.S_ISDIR(found.st_mode) and found.st_dev == device:
                below = os.open(name, _FOLDER, dir_fd=folder)
                above.append(_identity(os.fstat(folder)))
                os.close(folder)
                folder = below
                waiting.append(os.listdir(folder))
    finally:
        os.close(folder)


def _identity(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino
