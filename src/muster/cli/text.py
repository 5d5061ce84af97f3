"""Texts, times and colours for a terminal, without any library.

Rule: colour never carries meaning alone, and only a terminal gets any (https://no-color.org).
What machines and agents wrote is shown as `printable.py` says: text must not move the cursor.
"""

import itertools
import os
import re
import sys
import time
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, Final

from muster.printable import undrawn, visible

# What an answer does not hold: names of arguments that were files, and how it is to be shown.
Files = Mapping[str, str]

_COLOURS: Final = {"bold": "1", "dim": "2", "red": "31", "green": "32", "yellow": "33"}
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")
# Our own colours, and nothing else that begins with an escape.
_OURS: Final = re.compile(r"(\x1b\[(?:0|1|2|31|32|33)m)")

# An id, a key, a hash, a commit: digits that nobody reads to their end.
_ID: Final = re.compile(r"\b[0-9a-f]{32,64}\b")
_ID_CHARS: Final = 12
# Beginnings that two ids of the answer have in common, and how much of such ids is shown.
_alike: dict[str, int] = {}

_STATES: Final = {
    "done": "green", "up": "green", "here": "green", "stored": "green", "acted": "green",
    "running": "yellow", "waiting": "yellow", "waiting for you": "yellow", "checking": "yellow",
    "retrying": "yellow", "taken over": "yellow", "skipped": "dim", "failed": "red", "lost": "red",
    "cancelled": "red", "revoked": "red", "critical": "red", "warning": "yellow", "away": "dim",
    "left": "dim", "rejected": "yellow", "ready": "green", "not logged in": "red",
    "does not answer": "red",
}  # fmt: skip


def paint(text: str, colour: str) -> str:
    """The text in a colour, on a terminal."""
    if not text or not obeys() or os.environ.get("NO_COLOR"):
        return text
    return f"\x1b[{_COLOURS[colour]}m{text}\x1b[0m"


def state(name: Any) -> str:
    """The word for a state in its colour; `--json` keeps the one of the log."""
    # What machines call it, and what people do: a lease is how a machine comes to run a task.
    text = "running" if name == "leased" else clean(name)
    return paint(text, _STATES[text]) if text in _STATES else text


def obeys() -> bool:
    """Whether what we print goes to a terminal that knows colours and how to draw a line anew.

    An editor's shell and some CI are terminals that show every escape as it is.
    """
    return sys.stdout.isatty() and os.environ.get("TERM", "") not in ("", "dumb", "unknown")


def clean(value: Any, width: int = 0) -> str:
    """Foreign text on one line, without control characters, cut to `width`."""
    text = visible(" ".join(_plain("" if value is None else value).split()))
    return cut(text, width) if width else text


def _plain(value: Any) -> str:
    return _CONTROL.sub(" ", undrawn(str(value)))


def safe(text: str) -> str:
    """A whole page as it may be printed: the last gate behind every `clean`."""
    pieces = _OURS.split(text)
    pieces[::2] = map(visible, pieces[::2])
    return "".join(pieces)


def block(value: Any, indent: str = "  ") -> str:
    """Foreign text on as many lines as it has."""
    lines = str("" if value is None else value).rstrip().splitlines()
    return "\n".join(indent + visible(_plain(line)) for line in lines)


def width_of(text: str) -> int:
    """How many columns a text takes: a letter of East Asia and most emojis take two."""
    if text.isascii():
        return len(text)
    return sum(_columns(mark) for mark in text)


def _columns(mark: str) -> int:
    if unicodedata.category(mark) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(mark) in ("W", "F") else 1


def drawn_width(line: str) -> int:
    """How many columns a line with colours takes; they take none."""
    return width_of(_OURS.sub("", line) if "\x1b" in line else line)


def clipped(line: str, width: int) -> str:
    """A line with colours in so many columns."""
    pieces, left, shown = _OURS.split(line), width, ""
    for at, piece in enumerate(pieces):
        if at % 2:
            shown += piece
        elif width_of(piece) > left:
            return f"{shown}{cut(piece, left)}" + ("\x1b[0m" if at else "")
        else:
            shown, left = shown + piece, left - width_of(piece)
    return shown


def cut(text: str, width: int) -> str:
    """A text in so many columns; where something is missing, a sign says so."""
    if width_of(text) <= width:
        return text
    kept, left = "", width - 1
    for mark in text:
        left -= _columns(mark)
        if left < 0:
            break
        kept += mark
    utf8 = (sys.stdout.encoding or "ascii").lower().replace("-", "") == "utf8"
    return kept + ("…" if utf8 else "~") if width > 0 else ""


def short(identifier: Any) -> str:
    """As much of an id as a person types, and as tells it from the others of its answer."""
    text = clean(identifier)
    return text[: _alike.get(text[:_ID_CHARS], _ID_CHARS)]


def tell_apart(value: Any) -> None:
    """From now on the ids of this answer that begin alike are shown as long as it takes."""
    found: dict[str, set[str]] = {}
    left = [value]
    while left:
        each = left.pop()
        if isinstance(each, dict):
            left += each.values()
        elif isinstance(each, list):
            left += each
        elif isinstance(each, str) and _ID.fullmatch(each):
            found.setdefault(each[:_ID_CHARS], set()).add(each)
    _alike.clear()
    for prefix, ids in found.items():
        if len(ids) > 1:
            # Of those in order, neighbours have most in common.
            pairs = itertools.pairwise(sorted(ids))
            # One that is the other's beginning is the same one.
            _alike[prefix] = 1 + max(
                _ID_CHARS - 1,
                *(
                    next((at for at, (a, b) in enumerate(zip(*pair, strict=False)) if a != b), 0)
                    for pair in pairs
                ),
            )


def abbreviated(text: str) -> str:
    """A sentence with the beginnings of the ids in it."""
    return _ID.sub(lambda found: found[0][:_ID_CHARS], text)


def pairs(items: Iterable[tuple[str, Any]]) -> str:
    """Names and values, aligned; empty values are left out."""
    found = [(name, each if isinstance(each, str) else clean(each)) for name, each in items]
    found = [(name, each) for name, each in found if each]
    width = max((len(name) for name, _ in found), default=0)
    return "\n".join(f"{paint(f'{name:<{width}}', 'dim')}  {each}" for name, each in found)


def now_ms() -> int:
    """This moment, as people's clocks have it."""
    return time.time_ns() // 1_000_000


def ago(then_ms: Any) -> str:
    """How long ago a moment was, or how soon it will be."""
    if not isinstance(then_ms, int) or not then_ms:
        return ""
    past = now_ms() - then_ms
    return f"{span(past)} ago" if past >= 0 else f"in {span(-past)}"


def span(ms: int) -> str:
    """A duration in its one or two largest units."""
    seconds = ms // 1000
    if seconds < 1:
        return f"{ms} ms"
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    if seconds < 2 * 86_400:
        return f"{seconds // 3600} h {seconds % 3600 // 60} min"
    return f"{seconds // 86_400} days"


def seconds(ms: int) -> str:
    """A duration that goes on, in whole seconds: nobody reads how its milliseconds change."""
    return span(ms // 1000 * 1000) if ms >= 1000 else "0 s"


def clock(then_ms: Any) -> str:
    """A moment as local time."""
    if not isinstance(then_ms, int):
        return ""
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(then_ms / 1000))


def nearest(name: str, known: Iterable[str], most: int, cutoff: float) -> str:
    """Which of the known words a mistyped one may have been, as a sentence names them."""
    import difflib  # noqa: PLC0415 - only for a mistake

    near = difflib.get_close_matches(name, list(known), n=most, cutoff=cutoff)
    return f"`{'` or `'.join(near)}`" if near else ""
