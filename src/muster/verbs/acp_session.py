"""What is kept of an editor's session on this machine: what was asked, what was planned, which run.

Rule 1: the runs themselves are the fleet's, and stand in its log; here is only what leads to them.
It is enough to go on after a restart of the editor, of `muster acp` and of the daemon.
Rule 2: the file is the person's alone (mode 600), bounded, and written whole or not at all. One
that cannot be read is a session that nobody knows.
"""

import re
import uuid
from pathlib import Path
from typing import Final

import msgspec

from muster.errors import NotFound
from muster.node.host.home import Home

FOLDER: Final = "acp"
# Of a session; the oldest are forgotten.
TURNS_MAX: Final = 50
# Sessions that are kept; the one that was idle longest goes.
SESSIONS_MAX: Final = 200
ASKED_CHARS_MAX: Final = 4_000
_FILE_BYTES_MAX: Final = 16 * 1024 * 1024
_ID: Final = re.compile(r"[0-9a-f]{32}")


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


def opened(cwd: str) -> Session:
    """A new one."""
    return Session(uuid.uuid4().hex, cwd, [])


def keep(home: Home, session: Session) -> None:
    """Write it down."""
    folder = home.path / FOLDER
    folder.mkdir(mode=0o700, exist_ok=True)
    session.turns = session.turns[-TURNS_MAX:]
    home.put(f"{FOLDER}/{session.id}.json", msgspec.json.encode(session))
    files = sorted(folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    for old in files[:-SESSIONS_MAX]:
        old.unlink(missing_ok=True)


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
