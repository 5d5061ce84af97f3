"""A Stop in an editor that no machine has heard yet: noted down, and said again until one has.

Rule 1: it is noted down before it is said, and struck out when it was heard; so it outlives the
editor, `muster acp` and the daemon.
Rule 2: one process of its own says what is left, for a day at most. Whatever `muster acp` starts
later begins it again, and `muster doctor` names what is left meanwhile.
Rule 3: what is refused is not said again: why stands with it, for `muster doctor`.

    acp/stops/RUN.json ── deliver ── cancel, to the machine that owns the run
"""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from muster.errors import Conflict, Exhausted, MusterError, Unreachable, Unsettled
from muster.node.host import clock
from muster.node.host.home import Home
from muster.verbs.acp_session import FOLDER
from muster.verbs.client import Context

if sys.platform != "win32":
    import fcntl

_STOPS: Final = "stops"
_LOCK: Final = "lock"
_RUN: Final = re.compile(r"[0-9a-f]{32,64}")
_FILE_BYTES_MAX: Final = 64 * 1024
_DAY_MS: Final = 24 * 60 * 60 * 1000
_AGAIN_S: Final = 0.5
_AGAIN_S_MAX: Final = 30.0


class Stop(msgspec.Struct, frozen=True):
    """A run that is to end: the machine that owns it, "" for this one, and why it is to.

    `refused` says why it cannot be told so, "" where it can.
    """

    run: str
    owner: str
    reason: str
    refused: str = ""


def note(home: Home, stop: Stop) -> None:
    """Durable on return. Raises: Broken, Exhausted."""
    folder = Path(home.path) / FOLDER / _STOPS
    try:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, exist_ok=True)
    except OSError as error:
        raise Exhausted(f"a Stop cannot be noted down: {error}") from error
    home.put(f"{FOLDER}/{_STOPS}/{stop.run}.json", msgspec.json.encode(stop))


def heard(home: Home, run: str) -> None:
    """It was heard, or there is nothing to hear any more."""
    (Path(home.path) / FOLDER / _STOPS / f"{run}.json").unlink(missing_ok=True)


def left(home: Home) -> Iterator[Stop]:
    """Those that nobody has heard; what cannot be read is none."""
    folder = Path(home.path) / FOLDER / _STOPS
    for file in sorted(folder.glob("*.json")):
        try:
            with file.open("rb") as found:
                stop = msgspec.json.decode(found.read(_FILE_BYTES_MAX), type=Stop)
        except (OSError, msgspec.MsgspecError, RecursionError):
            # Whoever wrote it replaces it as a whole: what cannot be read was no Stop of ours.
            continue
        if _RUN.fullmatch(stop.run) and file.stem == stop.run:
            yield stop


def begin(home: Home) -> None:
    """Have what is left said again, by a process that outlives this one and its editor."""
    if not any(not stop.refused for stop in left(home)):
        return
    child = subprocess.Popen(
        [sys.executable, "-P", "-m", "muster", "--home", str(home.path), "acp", "--stops"],
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        cwd="/", start_new_session=True,
    )  # fmt: skip
    # It outlives us on purpose; without this the interpreter warns of it.
    child.returncode = 0


def deliver(context: Context) -> None:
    """Say what is left until it is heard, and once what was refused; at once back where another
    process does so.

    Raises: Exhausted where it cannot be noted down what was refused.
    """
    until_ms, wait_s = clock.read().boot_ms + _DAY_MS, _AGAIN_S
    said = list(left(context.home))
    while said:
        lock = _locked(context.home)
        if lock < 0:
            return
        try:
            for stop in said:
                _say(context, stop)
        finally:
            os.close(lock)
        # What was noted down while the lock was ours is looked for before this ends.
        if clock.read().boot_ms > until_ms:
            return
        said = [stop for stop in left(context.home) if not stop.refused]
        if said:
            time.sleep(wait_s)
            wait_s = min(wait_s * 2, _AGAIN_S_MAX)


def _say(context: Context, stop: Stop) -> None:
    wish = {"what": stop.run, "reason": stop.reason}
    try:
        context.ask("cancel", wish, on=stop.owner)
    except (Unreachable, Exhausted, Unsettled):
        # It stays noted down, and `deliver` says it again.
        return
    except Conflict:
        # It has ended by itself.
        pass
    except MusterError as error:
        note(context.home, msgspec.structs.replace(stop, refused=str(error)))
        return
    heard(context.home, stop.run)


def _locked(home: Home) -> int:
    """The lock, as a file that is open; -1 where another process has it."""
    path = Path(home.path) / FOLDER / _STOPS / _LOCK
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    if sys.platform == "win32":
        return handle
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        return -1
    return handle
