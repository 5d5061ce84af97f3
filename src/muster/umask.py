"""Who else may read what is written: of ours nobody, of an attempt's what its person is used to.

Rule 1: every program of Muster narrows its umask before it makes a file, whatever it was started
with: homes, logs, sockets, exports and what is fetched are for their owner alone.
Rule 2: a program in an attempt, and the files checked out for it, get the umask of the person
back, since builds copy modes into what they make; but what all may write is never made.
"""

import os
from typing import Final

VARIABLE: Final = "MUSTER_UMASK"
OURS: Final = 0o077
_USUAL: Final = 0o022


def narrow() -> None:
    """From here on this process, and what it starts, makes files for their owner alone."""
    before = os.umask(OURS)
    os.environ.setdefault(VARIABLE, f"{before | _USUAL:03o}")


def of_attempts() -> int:
    """The umask of the programs in an attempt."""
    text = os.environ.get(VARIABLE, "")
    usual = int(text, 8) if text.isascii() and text.isdigit() and not set(text) & {*"89"} else 0
    return (usual | _USUAL) & 0o777


def as_person(command: list[str]) -> list[str]:
    """The command, started with the umask of attempts."""
    # A loop's subprocesses take no umask of their own (uvloop), and ours is shared by all threads.
    return ["/bin/sh", "-c", f'umask {of_attempts():03o}; exec "$@"', "sh", *command]
