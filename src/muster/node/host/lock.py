"""One program at a time writes in a home.

Rule 1: the lock lies in the home itself, so that it is the same one for every session, whatever
its environment says about runtime folders; the kernel lets it go when the process ends.
Rule 2: a number in a file proves nothing. A process is this home's daemon when it holds the lock,
and the number is that of a process which has this very file open.
"""

import contextlib
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from muster.errors import Broken, Conflict

if sys.platform != "win32":
    import fcntl

_PROCESSES: Final = Path("/proc")


@contextlib.contextmanager
def held(path: Path) -> Iterator[None]:
    """Hold the lock. Raises: Conflict where another process does; Broken."""
    handle = _open(path)
    try:
        if not _take(handle):
            pid = _number(handle)
            raise Conflict(
                f"a daemon of {path.parent} runs already{f' (process {pid})' if pid else ''}; "
                "`muster status` shows it, `muster down` stops it"
            )
        os.ftruncate(handle, 0)
        os.pwrite(handle, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(handle)


def holder(path: Path) -> int | None:
    """The process that holds the lock: None for nobody, 0 where it cannot be told which."""
    try:
        # Nothing is made by looking, and no link is followed: root looks at homes of others.
        handle = _open(path, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        if _take(handle):
            return None
        pid = _number(handle)
        return pid if pid and _has_open(pid, handle) else 0
    finally:
        os.close(handle)


def user_of(pid: int) -> int | None:
    """The uid that a process runs as; None where it is gone or no system tells."""
    # It is gone, or no such system: None says so.
    with contextlib.suppress(OSError):
        for line in _PROCESSES.joinpath(str(pid), "status").read_text().splitlines():
            if line.startswith("Uid:"):
                return int(line.split()[1])
    return None


def _open(path: Path, how: int = os.O_RDWR | os.O_CREAT) -> int:
    try:
        return os.open(path, how | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC, 0o600)
    except OSError as error:
        if isinstance(error, FileNotFoundError) and not how & os.O_CREAT:
            raise
        raise Broken(f"{path} cannot be opened ({error.strerror}); check the home") from error


def _take(handle: int) -> bool:
    if sys.platform == "win32":
        return True
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise Broken(
            f"the home cannot be locked ({error.strerror}): move it to a disk of this computer"
        ) from error
    return True


def _number(handle: int) -> int:
    raw = os.pread(handle, 32, 0).strip()
    return int(raw) if raw.isdigit() else 0


def _has_open(pid: int, handle: int) -> bool:
    """Whether a process has this file open; where no system tells, the number is believed."""
    if not _PROCESSES.joinpath("self", "fd").is_dir():
        return True
    ours = os.fstat(handle)
    # A process that ended meanwhile, or of somebody else, has not our file.
    with contextlib.suppress(OSError):
        for each in _PROCESSES.joinpath(str(pid), "fd").iterdir():
            # It was closed meanwhile, so it was not this one.
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(each), ours):
                    return True
    return False
