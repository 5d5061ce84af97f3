"""What a file in a context folder may be called: the same rules on every machine, whoever says it.

Rule 1: a path leads into the folder, on every disk: nothing in it is a way up, a device, a stream
        beside a file, or git's own.
Rule 2: a path has one spelling (NFC), and of two that some disk takes for one only the earlier is
        on any disk (state.py).
Rule 3: a `…_refusal` returns the sentence that tells what is wrong, or "" when nothing is.
"""

import re
import unicodedata
from functools import lru_cache
from typing import Final

from muster import limits

# The beginning of the names under which files are written before they are whole.
TEMPORARY: Final = ".~muster-"

# As Windows reads them, with whatever stands behind a dot.
_DEVICE: Final = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³])", re.IGNORECASE)
# Control characters, line ends, halves of characters; what turns the direction of a line round.
_REFUSED: Final = frozenset({"Cc", "Cs", "Zl", "Zp"})
_TURNING: Final = frozenset("\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_GIT: Final = frozenset({".git", "git~1"})
# Names are asked for again and again: of many files the one of their folder.
_REMEMBERED_MAX: Final = 4_096


def path_refusal(path: str) -> str:
    """Why this is no path in a context folder, or ""."""
    try:
        raw = path.encode()
    except UnicodeEncodeError:
        return "is no UTF-8"
    if len(raw) > limits.CONTEXT_PATH_BYTES_MAX:
        return f"has more than {limits.CONTEXT_PATH_BYTES_MAX} bytes"
    if unicodedata.normalize("NFC", path) != path:
        return "is not in the composed form of Unicode (NFC)"
    parts = path.split("/")
    if len(parts) > limits.CONTEXT_PATH_DEPTH_MAX:
        return f"is more than {limits.CONTEXT_PATH_DEPTH_MAX} folders deep"
    return next((why for each in parts if (why := _part_refusal(each))), "")


@lru_cache(_REMEMBERED_MAX)
def _part_refusal(part: str) -> str:
    if part in ("", ".", ".."):
        return "leads out of the folder, or nowhere"
    if len(part.encode()) > limits.CONTEXT_NAME_BYTES_MAX:
        return f"has a name of more than {limits.CONTEXT_NAME_BYTES_MAX} bytes"
    if any(c in _TURNING or unicodedata.category(c) in _REFUSED for c in part):
        return "has a character that nobody sees"
    if ":" in part or "\\" in part:
        return "has a `:` or a `\\`, which other systems read as more than a name"
    if part[-1] in ". ":
        return "has a name that ends with a dot or a blank, which other systems leave out"
    if _DEVICE.fullmatch(part.partition(".")[0].rstrip()):
        return "is the name of a device on other systems"
    if _plain(part) in _GIT:
        return "is git's own"
    if _plain(part).startswith(TEMPORARY):
        return "is how files are named that are not whole yet"
    return ""


def _plain(part: str) -> str:
    """A name as a disk may read it that leaves out what nobody sees."""
    seen = (c for c in unicodedata.normalize("NFKC", part) if unicodedata.category(c) != "Cf")
    return "".join(seen).casefold()


def folded(path: str) -> str:
    """Equal for paths that a disk without case, or with another Unicode, takes for one."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
