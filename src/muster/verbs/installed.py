"""What Muster put into agent programs from this home, and where: the record of each install."""

import base64
import hashlib
import os
import stat
import sys
from pathlib import Path
from typing import Final

import msgspec
from msgspec import Struct

from muster.agent.plugin.edit import Edit
from muster.agent.plugin.place import Place
from muster.agent.plugin.settings import SETTINGS_BYTES_MAX
from muster.errors import Malformed, unable
from muster.node.host.home import Home, default_home

_BINARY: Final = getattr(os, "O_BINARY", 0)
RECORD: Final = "installed.json"
# Not the one of an environment that may be gone tomorrow, where the system has one.
_PYTHONS: Final = ("/usr/bin/python3",)


class Record(Struct, frozen=True, forbid_unknown_fields=True):
    """What one install wrote: by file, for which project alone, and the Python that it starts."""

    files: dict[str, "Kept"] = {}
    project: str = ""
    python: str = ""


class Kept(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What a file was before, what was written over it (its sha256), and what of that is ours.

    `mode` is what rights it had, which older versions gave it again; `made` the outermost folder
    that was made for it, "" for none; `older` the sha256 of what an
    older version wrote, where that stood there when this was noted down: it may stand there still.
    """

    before: str | None
    written: str
    edit: Edit
    mode: int = 0o600
    made: str = ""
    older: str = ""

    def is_as_written(self, now: bytes | None) -> bool:
        """Whether what stands there is what we wrote, and nobody since."""
        return now is not None and sha(now) in (self.written, self.older)


def place_of(home: Home, name: str, project: Path | None) -> Place:
    """The person's programs, and our files for the one of this name; all folders or a project."""
    python = next((each for each in _PYTHONS if os.access(each, os.X_OK)), sys.executable)
    # Two homes of one person are two in each program.
    usual = home.path == default_home()
    called = "muster" if usual else f"muster-{sha(os.fsencode(home.path))[:6]}"
    own = home.path / "plugins" / name
    return Place(
        Path.home(), os.environ, own, called, python, home.socket, read_file, project
    )  # fmt: skip


def read_file(path: Path) -> bytes | None:
    """Raises: Malformed: it is no file of settings; Broken: it cannot be read."""
    try:
        # Nobody waits for the other end of what is no file.
        handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | _BINARY)
        try:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise Malformed(f"{path} is no file, and nothing was changed; take it away first")
            with open(handle, "rb", closefd=False) as file:
                found = file.read(SETTINGS_BYTES_MAX + 1)
        finally:
            os.close(handle)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise unable(f"{path} cannot be read ({error.strerror}); mend it first", error) from error
    if len(found) > SETTINGS_BYTES_MAX:
        raise Malformed(f"{path} is larger than any settings are; nothing was changed")
    return found


def read_record(folder: Path) -> Record:
    raw = read_file(folder / RECORD)
    if raw is None:
        return Record()
    try:
        return msgspec.json.decode(raw, type=Record, dec_hook=lambda kind, text: kind(text))
    except msgspec.DecodeError as error:
        raise Malformed(
            f"{folder / RECORD} cannot be read ({error}): take Muster's lines out by hand, then "
            "remove that file"
        ) from error


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def as_text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()


def as_bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)
