"""What one end of a stream may send, what may come, and how it ends: the rules without the waiting.

Rule 1: nobody's memory grows because somebody else is slow: each direction has a window, and what
        was dealt with at the far end, not what arrived there, gives it back.
Rule 2: who sends more than was granted ends the stream, and only that.
Rule 3: nothing heavy is imported: git starts a program that uses this for every fetch.

A stream is the rest of a call: on its channel, after the answer that accepts it, come

    DATA    bytes; empty means that this direction has ended
    CREDIT  u32: so many more bytes may come
    CLOSE   both directions have ended; JSON {"code": 0} or {"code": 1, "error": "…"}, or nothing,
            which is no end but a cut

`stream.py` waits, `relay.py` and the command line have loops of their own; all obey this file.
docs/spec/frames.md is the normative text.
"""

import json
from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple

from muster import limits
from muster.channel.frame import Type
from muster.errors import Malformed

Put = Callable[[Type, bytes], None]

TYPES: Final = frozenset({Type.DATA, Type.CREDIT, Type.CLOSE})
CUT: Final = "the other side hung up"


class Terms(NamedTuple):
    """What both ends of a kind of stream know beforehand; a frame may cost more than its bytes."""

    window: int
    data_min: int
    data_max: int
    frame_cost: int
    grant_min: int


PLAIN: Final = Terms(limits.STREAM_WINDOW_BYTES, 0, limits.STREAM_DATA_BYTES_MAX, 0, 1)
# A machine in the middle keeps these windows, and the far ends may be anybody's.
RELAYED: Final = Terms(
    limits.RELAY_WINDOW_BYTES,
    1,
    limits.RELAY_DATA_BYTES_MAX,
    limits.RELAY_FRAME_BYTES,
    limits.RELAY_GRANT_BYTES_MIN,
)


class Flow:
    """One end of a stream. `moved` is called after each frame that came."""

    def __init__(self, put: Put, terms: Terms = PLAIN) -> None:
        self.moved: Callable[[], None] = lambda: None
        # The far end sends no more data.
        self.ended = False
        # Why it is over, "" where it ended well, None while it is not; and how the far end said so.
        self.closed: str | None = None
        self.last = b""
        # The far end broke a rule; only `closed` says which.
        self.broken = False
        # What there is to take. Bytes, not frames: a million frames of one byte each must cost a
        # million bytes.
        self.waiting = bytearray()
        # How many bytes of data were taken so far.
        self.taken = 0
        self._put, self._terms = put, terms
        self._sendable = self._granted = terms.window
        # What the bytes cost that wait, and those that were taken and are not granted again yet.
        self._cost = self._owed = 0

    def feed(self, type: Type, payload: bytes) -> None:
        """Take one frame in; never waits, never raises."""
        if self.closed is not None:
            return
        try:
            if type is Type.DATA:
                cost = len(payload) + self._terms.frame_cost
                fits = self._terms.data_min <= len(payload) <= self._terms.data_max
                if self.ended or not fits or cost > self._granted:
                    raise Malformed("the other side sent what it was not granted")
                self._granted -= cost
                self._cost += cost
                self.waiting += payload
                self.ended = not payload
            elif type is Type.CREDIT:
                count = int.from_bytes(payload, "big") if len(payload) == 4 else 0
                if not self._terms.grant_min <= count <= self._terms.window - self._sendable:
                    raise Malformed("the other side granted a crumb, or more than it was sent")
                self._sendable += count
            else:
                self.closed, self.last = CUT, payload
                # An end without a form is one that was cut off, as `closed` says already.
                with suppress(ValueError, AttributeError, RecursionError):
                    how = json.loads(payload or b"{}")
                    text = str(how.get("error", ""))[: limits.SENTENCE_CHARS_MAX]
                    self.closed = "" if how.get("code") == 0 else text or CUT
        except Malformed as error:
            self.closed, self.broken = str(error), True
            self.waiting.clear()
        self.moved()

    def take(self) -> bytes:
        """What came, all of it."""
        data, self.waiting = bytes(self.waiting), bytearray()
        self.taken += len(data)
        self._owed, self._cost = self._owed + self._cost, 0
        return data

    def give_back(self) -> None:
        """All that was taken is dealt with: grant it again, a quarter of the window at a time."""
        if self._owed >= self._terms.window // 4 and not self.ended and self.closed is None:
            self._granted += self._owed
            self._put(Type.CREDIT, self._owed.to_bytes(4, "big"))
            self._owed = 0

    @property
    def room(self) -> int:
        """How many bytes the next frame may hold."""
        if self.closed is not None:
            return 0
        return max(0, min(self._sendable - self._terms.frame_cost, self._terms.data_max))

    def put(self, data: bytes) -> None:
        """Send data, for which there is room; b"" says that no more follows. Not after the end."""
        if self.closed is None:
            self._sendable -= len(data) + self._terms.frame_cost
            self._put(Type.DATA, data)

    def close(self, error: str | None = None, *, last: bytes = b"") -> None:
        """End both directions; with an `error`, "" for none, as an end and not as a cut."""
        if self.closed is None or self.broken:
            self.broken = False
            if error is not None:
                how = {"code": 1, "error": error} if error else {"code": 0}
                last = json.dumps(how).encode()
            self.closed = self.closed or "it was closed here"
            self._put(Type.CLOSE, last)
