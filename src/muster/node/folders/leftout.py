"""What one folder leaves out, as its file says now.

Rule: while that file is being written, or has just gone, no less is left out than before.
"""

from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Final

from muster.context.ignore import IGNORE_FILE, Ignore
from muster.limits import CONTEXT_INLINE_BYTES_MAX
from muster.node.folders.reader import Reader

_REMEMBERED_MAX: Final = 50_000


class LeftOut:
    """See the rule at the top of this file; `leaves_out` says whether a path is left out."""

    def __init__(self, reader: Reader, only: tuple[str, ...]) -> None:
        self._reader, self._only, self._above = reader, only, reader.disk.top.parts
        self._lines = list[str]()
        # It is asked of each file, again and again: it remembers what it found.
        self.leaves_out: Callable[[str], bool] = self._of([])

    def read(self) -> bool:
        """Take in what the file says; whether that is all. Raises: InTheWay, OSError."""
        lines, is_sure = self._reader.lines(IGNORE_FILE, CONTEXT_INLINE_BYTES_MAX)
        if is_sure or len(lines) >= len(self._lines):
            self._lines = lines
            self.leaves_out = self._of(lines)
        return is_sure or not (lines or self._lines)

    def _of(self, lines: Iterable[str]) -> Callable[[str], bool]:
        ignore = Ignore(lines, self._only, self._above)
        return lru_cache(_REMEMBERED_MAX)(ignore.leaves_out)
