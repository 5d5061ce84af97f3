"""How long a list is, and what is said where it was cut.

Rule 1: a list is filtered before it is cut, and a cut is said: what is not shown looks as if it
were not there.
Rule 2: an answer has room for so many bytes, whatever members wrote: a list that would be longer
than any answer can be is cut as one of too many rows is, and does not fail.
"""

from collections.abc import Sequence
from itertools import takewhile
from typing import Annotated, Final

import msgspec

from muster.limits import ANSWER_BYTES_MAX
from muster.message.fold import Message
from muster.verbs.declaration import Call

# An answer of so many rows is a few megabytes, below what an answer may be.
LIMIT_MAX: Final = 5_000
# Ids, names and times of a row, beside what somebody wrote.
_ROW_BYTES: Final = 600

Rows = Annotated[int, msgspec.Meta(ge=1, le=LIMIT_MAX)] | None
"""How many rows are asked for; None: as many as is usual."""


class Room:
    """What an answer may still hold: so many bytes, and of what is dear to show so many rows."""

    def __init__(self, rows: int = LIMIT_MAX) -> None:
        self._left = ANSWER_BYTES_MAX
        self._rows = rows

    def has(self, value: object) -> bool:
        """Whether there is room for this as well; it is taken, then."""
        # As it will be written: a control character takes six bytes.
        self._left -= len(msgspec.json.encode(value)) + _ROW_BYTES
        self._rows -= 1
        return self._left >= 0 and self._rows >= 0


def oldest_fitting(messages: Sequence[Message], room: Room) -> list[Message]:
    """The first messages, as many as there is room for."""
    return list(takewhile(lambda message: room.has(message.text), messages))


def newest_fitting(messages: Sequence[Message], room: Room) -> list[Message]:
    """The last messages, as many as there is room for."""
    return oldest_fitting(messages[::-1], room)[::-1]


def say_cut(call: Call, limit: int, what: str, more: str) -> None:
    """Tell, before the list itself, that there is more of it."""
    if call.channel:
        call.more({"note": f"there are more {what} than the {limit} shown: {more}"})
