"""A file with secrets: read where it is its owner's alone, and is a plain file that lies there.

Rule: no link is followed and no pipe waited for; what is wrong is said without any of its text.
"""

import os
import stat
import sys
from pathlib import Path
from typing import Final

from muster.errors import Broken, NotFound, unable

_FLAGS: Final = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)


def check_owner(path: Path, found: os.stat_result, home: Path, mode: str, advice: str) -> None:
    """Raises: Broken where others own it or can read it. `home` is of whoever may own it, too."""
    if sys.platform == "win32":
        return
    if found.st_uid not in {os.geteuid(), home.stat().st_uid}:
        raise Broken(f"{path} belongs to another user: remove it, and {advice}")
    if found.st_mode & 0o077:
        raise Broken(f"others can read {path}: run `chmod {mode} {path}`, and ask who saw it")


def read_private(path: Path, most: int, home: Path, advice: str, *, foreign: bool = False) -> bytes:
    """All of it. `advice` is how it is made anew; `foreign`: systemd placed it.

    Raises: NotFound; Broken where it is not so, or longer.
    """
    try:
        handle = os.open(path, _FLAGS)
    except FileNotFoundError as error:
        raise NotFound(f"{path} is not there: {advice}") from error
    except OSError as error:
        raise unable(f"{path} cannot be read: {error.strerror}", error) from error
    try:
        found = os.fstat(handle)
        if not stat.S_ISREG(found.st_mode):
            raise Broken(f"{path} is no plain file: remove it, and {advice}")
        if not foreign:
            check_owner(path, found, home, "600", advice)
        elif found.st_mode & 0o007:
            raise Broken(f"everybody can read {path}, a credential: mend the daemon's unit")
        raw = os.read(handle, most + 1)
    finally:
        os.close(handle)
    if len(raw) > most:
        raise Broken(f"{path} has more than {most} bytes: {advice}")
    return raw
