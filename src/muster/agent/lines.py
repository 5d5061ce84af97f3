"""Text that others wrote, cut to bounds before anyone keeps it.

Rule 1: memory is bounded whatever the other side writes; a cut leaves a mark that says how much.
Rule 2: only the standard library and limits.py, because the shim imports this file on every start.
"""

import re
import signal
from collections.abc import Iterator
from typing import Any, Final

from muster.limits import ATTEMPT_JOURNAL_BYTES_MAX, VALUE_BYTES_MAX

LINE_BYTES_MAX: Final = 8 * 1024
TAIL_BYTES_MAX: Final = 4 * 1024
# An order is a prompt and an environment at their bounds; a quote or a line end takes two bytes.
ORDER_BYTES_MAX: Final = 4 * 1024 * 1024
# The outcome holds what a phase hands on, of which a character may take six bytes in JSON.
OUTCOME_BYTES_MAX: Final = 6 * VALUE_BYTES_MAX + 1024 * 1024
# What an entry of the journal costs beside its fields: a header, a salt, its place in the tree.
EVENT_FRAME_BYTES: Final = 512
# So many events fill the journal of an attempt, however small they are; a shim tells no more.
EVENTS_MAX: Final = ATTEMPT_JOURNAL_BYTES_MAX // EVENT_FRAME_BYTES + 1
# The journal shows what was asked; the order itself is in the task.
PROMPT_BYTES_MAX: Final = 24 * 1024
# Values in one message: so many are read in a fraction of a second, into tens of megabytes. What
# agents send whole is text, and that is one value.
VALUES_MAX: Final = 250_000
# Deeper nesting than any message has; whoever walks through a message may recurse.
DEPTH_MAX: Final = 64


# What `cut`, `middle` and a list of paths (transcript.py) leave where something is missing.
_MARK: Final = re.compile(r"…\[\d+ (?:bytes cut|more)\]")
# What colours a terminal, moves its cursor or names its window.
_ESCAPE: Final = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[ -/]*[0-~])"
)


def last_line(text: str) -> str:
    """The last line in which something can be read, without what a terminal would obey."""
    lines = (_ESCAPE.sub("", line).strip() for line in reversed(text.splitlines()))
    return next((line for line in lines if any(map(str.isprintable, line))), "")


def ended_by(code: int | None) -> str:
    """How a program ended: by itself, or by a signal, of which not every one has a name."""
    if code is None or code >= 0:
        return f"exit code {code}"
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"signal {-code}"


def cut(text: str, bytes_max: int) -> str:
    """The text itself, or its beginning with a mark saying how many bytes were left out."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= bytes_max:
        return raw.decode("utf-8")
    kept = raw[:bytes_max].decode("utf-8", "ignore")
    return f"{kept} …[{len(raw) - bytes_max} bytes cut]"


def middle(text: str, bytes_max: int) -> str:
    """The text itself, or both its ends: what a person agrees to hides nothing behind a cut."""
    raw = text.encode("utf-8", "replace")
    if len(raw) <= bytes_max:
        return raw.decode("utf-8")
    half = bytes_max // 2
    first, last = raw[:half].decode("utf-8", "ignore"), raw[-half:].decode("utf-8", "ignore")
    return f"{first} …[{len(raw) - 2 * half} bytes cut]… {last}"


def is_cut(text: str) -> bool:
    """Whether a mark says that something is missing: ours, or one that whoever wrote it made up."""
    return _MARK.search(text) is not None


def is_shallow(value: Any) -> bool:
    """Whether it nests no deeper than DEPTH_MAX; found without recursion."""
    level = [value]
    for _ in range(DEPTH_MAX):
        below: list[Any] = []
        for each in level:
            below += each.values() if isinstance(each, dict) else each
        level = [each for each in below if isinstance(each, dict | list)]
        if not level:
            return True
    return False


def is_small(line: bytes) -> bool:
    """Whether JSON holds no more than VALUES_MAX values; found without reading it."""
    if _values(line) <= VALUES_MAX:
        return True
    # Most of what looks like values may stand in its strings: source code, a table.
    plain = line.replace(b"\\\\", b"").replace(b'\\"', b"")
    if plain.count(b'"') > 4 * VALUES_MAX:
        return False
    return _values(b"".join(plain.split(b'"')[::2])) <= VALUES_MAX


def _values(text: bytes) -> int:
    return text.count(b",") + text.count(b"[") + text.count(b"{")


class Splitter:
    """Bytes in, whole lines out; what exceeds the bound of a line is counted, not kept."""

    def __init__(self, line_bytes_max: int = LINE_BYTES_MAX) -> None:
        self._max = line_bytes_max
        self._part = bytearray()
        self._dropped = 0

    def feed(self, data: bytes) -> Iterator[tuple[bytes, int]]:
        """Each completed line without its newline, and how many bytes of it were dropped."""
        pieces = data.split(b"\n")
        for number, piece in enumerate(pieces, 1):
            room = self._max - len(self._part)
            self._part += piece[:room]
            self._dropped += max(0, len(piece) - room)
            if number < len(pieces):
                yield self._take()

    def rest(self) -> Iterator[tuple[bytes, int]]:
        """The unfinished last line, if there is one; call it once the stream has ended."""
        if self._part or self._dropped:
            yield self._take()

    def _take(self) -> tuple[bytes, int]:
        line, dropped = bytes(self._part), self._dropped
        self._part.clear()
        self._dropped = 0
        return line, dropped


class Tail:
    """The last bytes of a stream, for the report of an attempt."""

    def __init__(self, bytes_max: int = TAIL_BYTES_MAX) -> None:
        self._max = bytes_max
        self._kept = bytearray()
        self.total = 0

    def feed(self, data: bytes) -> None:
        self.total += len(data)
        self._kept += data[-self._max :]
        del self._kept[: -self._max]

    def text(self) -> str:
        left_out = self.total - len(self._kept)
        if not left_out:
            return bytes(self._kept).decode("utf-8", "replace")
        # The rest of a character that the cut went through says nothing.
        kept = bytes(self._kept).lstrip(bytes(range(0x80, 0xC0))).decode("utf-8", "replace")
        return f"[{left_out} bytes cut]… {kept}"
