"""What one folder leaves out, as its file says now.

Rule: while that file is being written, or has just gone, no less is left out than before.
"""

from muster.context.ignore import IGNORE_FILE, Ignore
from muster.limits import CONTEXT_INLINE_BYTES_MAX
from muster.node.folders.reader import Reader


class LeftOut:
    """See the rule at the top of this file."""

    def __init__(self, reader: Reader, only: tuple[str, ...]) -> None:
        self._reader, self._only, self._above = reader, only, reader.disk.top.parts
        self._lines = list[str]()
        self._ignore = Ignore(only=only, above=self._above)

    def read(self) -> bool:
        """Take in what the file says; whether that is all. Raises: InTheWay, OSError."""
        lines, is_sure = self._reader.lines(IGNORE_FILE, CONTEXT_INLINE_BYTES_MAX)
        if is_sure or len(lines) >= len(self._lines):
            self._lines = lines
            self._ignore = Ignore(lines, self._only, self._above)
        return is_sure or not (lines or self._lines)

    def leaves_out(self, path: str) -> bool:
        """Whether a path, or a folder above it, is left out."""
        return self._ignore.leaves_out(path)
