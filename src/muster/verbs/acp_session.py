"""What is kept of an editor's session on this machine: what was asked, what was planned, which run.

Rule 1: the runs themselves are the fleet's, and stand in its log; here is only what leads to them.
It is enough to go on after a restart of the editor, of `muster acp` and of the daemon.
Rule 2: the file is the person's alone (mode 600), bounded, and written whole or not at all. One
that cannot be read is a session that nobody knows.
Rule 3: one `muster acp` at a time has a session open, for each writes it whole.
"""

import contextlib
import os
import re
import sys
import uuid
from pathlib import Path
from typing import Final

import msgspec

from muster.errors import Conflict, NotFound, unable
from muster.node.host.home import Home

if sys.platform != "win32":
    import fcntl

FOLDER: Final = "acp"
# Of a session; the oldest are forgotten.
TURNS_MAX: Final = 50
# Sessions that are kept; the one that was idle longest goes.
SESSIONS_MAX: Final = 200
ASKED_CHARS_MAX: Final = 4_000
_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_ID: Final = re.compile(r"[0-9a-f]{32}")
# One byte of this file for each session that is open, locked by who has it open.
_OPEN: Final = "open"
_PLACE_DIGITS: Final = 15


class Turn(msgspec.Struct):
    """One prompt: the plan that came of it, and its run where the person said yes."""

    asked: str
    spec: str = ""
    name: str = ""
    repo: str = ""
    run: str = ""
    owner: str = ""
    """The machine that owns the run, "" where it is this one."""
    said: str = ""
    """How it ended, as it was told; "" of a run that nobody followed to its end."""


class Session(msgspec.Struct):
    """A conversation of an editor."""

    id: str
    cwd: str
    turns: list[Turn] = []


class Held:
    """The sessions that this process has open. The system frees them where it ends, however."""

    def __init__(self, home: Home) -> None:
        self._home, self._file = home, -1

    def take(self, id: str) -> None:
        """Ours until it is left, also where it is ours already.

        Raises: Conflict where another process has it; Broken, Exhausted.
        """
        try:
            if self._file < 0:
                how = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | os.O_CLOEXEC
                self._file = os.open(_folder(self._home) / _OPEN, how, 0o600)
        except OSError as error:
            raise unable(f"the sessions of editors cannot be locked: {error}", error) from error
        if sys.platform == "win32":
            return
        try:
            fcntl.lockf(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _place(id))
        except (BlockingIOError, PermissionError) as error:
            raise Conflict(
                f"session {id[:12]} is open in another editor; close it there, or begin a new one"
            ) from error
        except OSError as error:
            raise unable(f"the sessions of editors cannot be locked: {error}", error) from error

    def leave(self, id: str) -> None:
        """Another process may have it."""
        if sys.platform == "win32":
            return
        # Closing the file, which follows, gives it up as well.
        with contextlib.suppress(OSError):
            fcntl.lockf(self._file, fcntl.LOCK_UN, 1, _place(id))


def _place(id: str) -> int:
    return int(id[:_PLACE_DIGITS], 16)


def _folder(home: Home) -> Path:
    """Raises: OSError."""
    folder = Path(home.path) / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def opened(cwd: str) -> Session:
    """A new one."""
    return Session(uuid.uuid4().hex, cwd, [])


def keep(home: Home, session: Session) -> None:
    """Write it down. Raises: Broken, Exhausted."""
    session.turns = session.turns[-TURNS_MAX:]
    try:
        folder = _folder(home)
        home.put(f"{FOLDER}/{session.id}.json", msgspec.json.encode(session))
        files = sorted(folder.glob("*.json"), key=_written_ns)
        for old in files[:-SESSIONS_MAX]:
            old.unlink(missing_ok=True)
    except OSError as error:
        raise unable(f"{FOLDER} in the home cannot be written: {error}", error) from error


def _written_ns(file: Path) -> int:
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        # Another editor's session took its place a moment ago.
        return 0


def known(home: Home, id: str) -> Session:
    """The session of this id. Raises: NotFound."""
    file = Path(home.path) / FOLDER / f"{id}.json"
    try:
        # An id is the name of a file here, and nothing else.
        if not _ID.fullmatch(id):
            raise ValueError(id)
        with file.open("rb") as found:
            return msgspec.json.decode(found.read(_FILE_BYTES_MAX), type=Session)
    except (OSError, ValueError, RecursionError) as error:
        raise NotFound(f"no session {id[:40]!r} is known here; begin a new one") from error
