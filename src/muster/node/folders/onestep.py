"""What is done on a disk in one step: two files change names, a folder is opened and no mount.

Rule: where the system has no such step it is done in several, and what a crash leaves between them
is found by its name (`ASIDE`).
"""

import ctypes
import errno
import os
import sys
from collections.abc import Callable
from typing import Final

from muster.errors import Refused

FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# A file that is not there yet.
NEW: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
# Of renameat2 (Linux 3.15).
_NOREPLACE: Final = 1
_EXCHANGE: Final = 2
# What a file system says that knows no such thing.
_UNKNOWN: Final = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP})
# What one says that has no links, and none of a file's modes, as FAT has none.
_NO_LINKS: Final = _UNKNOWN | {errno.EPERM, errno.EMLINK}
# Behind the name of a new file: what has its place, while the two change names in three steps.
ASIDE: Final = "-aside"
libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
# Of openat2 (Linux 5.6): its number everywhere, and what keeps a step from leading into a mount.
_OPENAT2: Final = 437
_NO_XDEV: Final = 1
_FAILS: Final = -1
# What a kernel says that has no such call, or a jail that allows none.
_NO_CALL: Final = frozenset({errno.ENOSYS, errno.EPERM, errno.EINVAL, errno.E2BIG})


class InTheWay(Refused):
    """Something stands at a path, or above it, that is no plain file or folder."""


class _How(ctypes.Structure):
    """What openat2 is to do."""

    _fields_ = (
        ("flags", ctypes.c_uint64),
        ("mode", ctypes.c_uint64),
        ("resolve", ctypes.c_uint64),
    )


def step_into(name: str, folder: int) -> int:
    """Open a folder in another one. Raises: InTheWay where something is mounted there, OSError."""
    file = _by_call(name, folder)
    if file is None:
        file = os.open(name, FOLDER, dir_fd=folder)
        if os.fstat(file).st_dev != os.fstat(folder).st_dev:
            os.close(file)
            raise InTheWay(f"another disk is mounted at {name}")
    return file


def _by_call(name: str, folder: int) -> int | None:
    """As `step_into`, also where the same disk is mounted; None where the system cannot tell."""
    if libc is None:
        return None
    how = _How(FOLDER, 0, _NO_XDEV)
    file = libc.syscall(
        _OPENAT2, folder, os.fsencode(name), ctypes.byref(how), ctypes.c_size_t(ctypes.sizeof(how))
    )
    if file != _FAILS:
        return int(file)
    number = ctypes.get_errno()
    if number == errno.EXDEV:
        raise InTheWay(f"another disk is mounted at {name}")
    if number in _NO_CALL:
        return None
    raise OSError(number, os.strerror(number), name)


def exchange(name: str, own: str, folder: int) -> bool:
    """Let two files change their names in one step; False where one is not there.

    Where the file system cannot, the place is emptied first: for a moment the file is not there.
    """
    done = _renamed(name, own, folder, _EXCHANGE, unless=errno.ENOENT)
    if done is not None:
        return done
    aside = name + ASIDE
    try:
        os.rename(own, aside, src_dir_fd=folder, dst_dir_fd=folder)
    except FileNotFoundError:
        return False
    try:
        os.rename(name, own, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.rename(aside, own, src_dir_fd=folder, dst_dir_fd=folder)
        raise
    os.rename(aside, name, src_dir_fd=folder, dst_dir_fd=folder)
    return True


def move(name: str, to: str, folder: int) -> bool:
    """Give a file a name that is free; False where it is not. Raises: OSError."""
    done = _renamed(name, to, folder, _NOREPLACE, unless=errno.EEXIST)
    if done is not None:
        return done
    # A link is made only where nothing is.
    try:
        os.link(name, to, src_dir_fd=folder, dst_dir_fd=folder, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        return _taken(name, to, folder)
    os.unlink(name, dir_fd=folder)
    return True


def _taken(name: str, to: str, folder: int) -> bool:
    """As `move`, where the disk knows no links: the name is taken by an empty file before."""
    try:
        os.close(os.open(to, NEW, 0o600, dir_fd=folder))
    except FileExistsError:
        return False
    try:
        os.rename(name, to, src_dir_fd=folder, dst_dir_fd=folder)
    except OSError:
        os.unlink(to, dir_fd=folder)
        raise
    return True


def make_last(file: int, sync: Callable[[int], None] | None = None) -> None:
    """What was done to a file, or in a folder, outlasts the power, where the disk can promise that.

    Raises: OSError.
    """
    try:
        (sync or os.fsync)(file)
    except OSError as error:
        if error.errno not in _UNKNOWN:
            raise


def give_mode(file: int, mode: int) -> None:
    """Say who may do what with a file, where the disk keeps that. Raises: OSError."""
    try:
        os.fchmod(file, mode)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise


def _renamed(name: str, to: str, folder: int, how: int, *, unless: int) -> bool | None:
    """Whether the kernel did it, False where it is `unless` that kept it; None where it cannot."""
    if libc is None:
        return None
    if not libc.renameat2(folder, os.fsencode(name), folder, os.fsencode(to), how):
        return True
    number = ctypes.get_errno()
    if number == unless:
        return False
    if number in _UNKNOWN:
        return None
    raise OSError(number, os.strerror(number), to)
