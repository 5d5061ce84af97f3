"""Where the daemon's own words go, and how much of them is kept.

Rule 1: what systemd started writes into the journal, which has bounds of its own; every other
daemon without a terminal into `daemon.log` of its home.
Rule 2: that file is renamed at a size, never cut: nothing that was said is lost between two files.
"""

import contextlib
import os
import re
from typing import Final

from muster.limits import DAEMON_LOG_BYTES_MAX

OLDER: Final = ".1"
_NEWER: Final = ".new"


def reader(path: str) -> str:
    """How a person reads what this process says; "" where nobody keeps it."""
    try:
        here = os.fstat(2)
    except OSError:
        return ""
    if os.environ.get("JOURNAL_STREAM") == f"{here.st_dev}:{here.st_ino}":
        # Without it the journal is named by our name in it.
        with contextlib.suppress(OSError), open("/proc/self/cgroup", encoding="utf-8") as file:
            if found := re.search(r"([^/\n]+\.service)$", file.read(), re.MULTILINE):
                own = "--user " if f"user@{os.getuid()}.service" in found.string else ""
                return f"journalctl {own}--unit {found[1]}"
        return "journalctl -t muster"
    return path if _is(path, here) else ""


def bound(path: str) -> None:
    """Begin a new `daemon.log` where the one that this process writes has grown too large."""
    # Where no new one can be begun, this one goes on: a log that grows beats none.
    with contextlib.suppress(OSError):
        here = os.fstat(2)
        if here.st_size <= DAEMON_LOG_BYTES_MAX or not _is(path, here):
            return
        # Made before anything moves: what cannot begin anew goes on in the file that is there.
        fresh = os.open(path + _NEWER, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND, 0o600)
        try:
            os.replace(path, path + OLDER)
            try:
                os.replace(path + _NEWER, path)
            except OSError:
                # One that nobody finds any more would also have no bound any more.
                os.replace(path + OLDER, path)
                raise
            for number in (1, 2):
                if os.path.samestat(os.fstat(number), here):
                    os.dup2(fresh, number)
        finally:
            os.close(fresh)


def _is(path: str, here: os.stat_result) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(os.stat(path), here)
    return False
