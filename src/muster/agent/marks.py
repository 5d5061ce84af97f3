"""Which attempts a daemon left behind that died: they are over before the next one begins.

Rule 1: the mark of an attempt is on the disk before its shim is started, and is removed when
nothing of the attempt is left.
Rule 2: the shim holds a lock on it as long as it lives. The kernel lets it go, however a shim ends,
and no other process inherits it; a number of a process in a file would prove nothing.
Rule 3: a shim whose daemon died still gives its agent the grace. Whoever comes next waits a little
for that, then ends what carries the mark: no two agents work in one folder and one session.
"""

import contextlib
import json
import os
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from muster.agent import process_tree, started

if sys.platform != "win32":
    import fcntl

SUFFIX: Final = ".attempt"
# Most agents end when they are told to; a daemon that starts anew does not wait longer for others.
GRACE_S: Final = 3.0
# A shim asks, tells and kills, each for its own grace, and says goodbye to nobody.
SHIM_S_MAX: Final = 25.0
LOOK_S: Final = 0.05
MARK_BYTES_MAX: Final = 16 * 1024
# What `release` needs of an order.
_LENT: Final = ("program", "user", "home", "notes")


class Marks:
    """The marks of one daemon's attempts, in a folder of its home."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, marker: str, cwd: str, sandbox: Mapping[str, Any] = {}) -> int:
        """The mark of an attempt that begins, locked: a handle for its shim, to be closed here.

        It says what is to be taken back when both its shim and its daemon died.

        Raises: OSError.
        """
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle = os.open(self._path(marker), os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
        # Whoever holds it looks whether we live, and lets go at once: we are marked by our number.
        with contextlib.suppress(BlockingIOError):
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        lent = {name: sandbox[name] for name in _LENT if name in sandbox}
        said = b"\0" + json.dumps(lent).encode() if lent else b""
        os.write(handle, os.fsencode(cwd) + said)
        return handle

    def remove(self, marker: str) -> None:
        """Nothing of the attempt is left."""
        # A mark that stays is looked at by the next daemon, which finds that nothing of it runs.
        with contextlib.suppress(OSError):
            self._path(marker).unlink()

    def end_all(self, grace_s: float = GRACE_S, shim_s_max: float = SHIM_S_MAX) -> list[Path]:
        """End what a daemon before us left; the folders of what cannot be ended. Blocks."""
        found = sorted(self._folder.glob(f"*{SUFFIX}")) if self._folder.is_dir() else []
        _wait(found, grace_s)
        stuck = {mark for mark in found if process_tree.sweep(mark.name.removesuffix(SUFFIX))}
        stuck |= _wait(found, shim_s_max)
        for mark in set(found) - stuck:
            cwd, sandbox = _content(mark)
            started.release(str(cwd), sandbox)
            self.remove(mark.name.removesuffix(SUFFIX))
        return [_content(mark)[0] for mark in sorted(stuck)]

    def _path(self, marker: str) -> Path:
        return self._folder / f"{marker}{SUFFIX}"


def _wait(marks: list[Path], seconds: float) -> set[Path]:
    """Until no shim holds one of the marks; those that are held after so long."""
    held = set(marks)
    for _ in range(max(1, round(seconds / LOOK_S))):
        held = {mark for mark in held if _is_held(mark)}
        if not held:
            break
        time.sleep(LOOK_S)
    return held


def _is_held(mark: Path) -> bool:
    try:
        handle = os.open(mark, os.O_RDWR | os.O_NOFOLLOW)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(handle)
    return False


def _content(mark: Path) -> tuple[Path, dict[str, Any]]:
    """Where the attempt worked, and what it was lent."""
    # It was removed meanwhile, by whoever ended the attempt.
    with contextlib.suppress(OSError), open(mark, "rb") as file:
        cwd, _, lent = file.read(MARK_BYTES_MAX).partition(b"\0")
        sandbox: dict[str, Any] = {}
        # It was cut off while it was written: nothing had been lent yet.
        with contextlib.suppress(ValueError):
            sandbox = json.loads(lent)
        return Path(os.fsdecode(cwd)), sandbox
    return mark, {}
