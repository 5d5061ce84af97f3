"""What is asked of every file of settings before something is put into it (pure)."""

from pathlib import Path
from typing import Final

from muster.errors import Conflict, Malformed

# A settings file of a person is some kilobytes.
SETTINGS_BYTES_MAX: Final = 4 * 1024 * 1024


def read_text(path: Path, now: bytes | None) -> str:
    """The text of a file, "" where there is none. Raises: Malformed."""
    if now is None:
        return ""
    if len(now) > SETTINGS_BYTES_MAX:
        raise Malformed(f"{path} is larger than any settings are; nothing was changed")
    try:
        return now.decode()
    except UnicodeDecodeError as error:
        raise Malformed(f"{path} is no UTF-8 text; nothing was changed") from error


def check_free(path: Path, name: str, free: bool) -> None:
    """Raises: Conflict where something else stands under a name of ours."""
    if not free:
        raise Conflict(f"{path} has a {name} of its own, which is not Muster's; rename it")
