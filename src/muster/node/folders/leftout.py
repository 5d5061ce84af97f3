"""What one folder leaves out, as its file says now.

Rule: while that file is being written, or has just gone, no less is left out than before: what it
said and what it says.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Final

from muster.context.ignore import IGNORE_FILE, Ignore
from muster.limits import CONTEXT_INLINE_BYTES_MAX
from muster.node.folders.reader import Reader
from muster.node.folders.signature import Signature

_REMEMBERED_MAX: Final = 50_000


class LeftOut:
    """See the rule at the top of this file; `leaves_out` says whether a path is left out."""

    def __init__(self, reader: Reader, only: tuple[str, ...]) -> None:
        self._reader, self._only, self._above = reader, only, reader.disk.top.parts
        # Of the last time that nobody was writing it.
        self._lines, self._whole = list[str](), Ignore((), only, self._above)
        self._seen: Signature | None = None
        # What it says while somebody writes it.
        self._half: list[str] | None = None
        # It is asked of each file, again and again: it remembers what it found.
        self.leaves_out: Callable[[str], bool] = lru_cache(_REMEMBERED_MAX)(self._whole.leaves_out)

    def read(self, *, ours: bool = False) -> bool:
        """Take in what the file says; whether that is all. Raises: InTheWay, OSError.

        What is `ours` was put there whole by us a moment ago.
        """
        # Before it is read: what is written meanwhile makes it another one.
        self._seen = self._reader.disk.signature(IGNORE_FILE)
        lines, is_sure = self._reader.lines(IGNORE_FILE, CONTEXT_INLINE_BYTES_MAX, ours=ours)
        if is_sure and (self._half is not None or lines != self._lines):
            self._lines, self._half = lines, None
            self._whole = Ignore(lines, self._only, self._above)
            self.leaves_out = lru_cache(_REMEMBERED_MAX)(self._whole.leaves_out)
        elif not is_sure and lines not in ([], self._half):
            # An editor that has just emptied it said more a moment ago.
            was, half = self._whole, Ignore(lines, self._only, self._above)
            self._half = lines
            self.leaves_out = lru_cache(_REMEMBERED_MAX)(
                lambda path: was.leaves_out(path) or half.leaves_out(path)
            )
        return is_sure or not (lines or self._lines)

    @property
    def is_stale(self) -> bool:
        """Whether the file is another one than was read. Raises: InTheWay, OSError."""
        return self._reader.disk.signature(IGNORE_FILE) != self._seen

    @property
    def unread(self) -> dict[str, str]:
        """The file, and which of its lines leave nothing out; none where all are patterns."""
        return {IGNORE_FILE: self._whole.unread} if self._whole.unread else {}
