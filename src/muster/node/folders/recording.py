"""Versions that are being written, while the next files are read already."""

from collections.abc import Callable

from muster.errors import Refused
from muster.node.folders.reader import Change


class Recording:
    """One batch at a time; `write` begins to write, and what it returns waits and remembers.

    `left` are the paths that are no versions, and why.
    """

    def __init__(
        self, write: Callable[[list[Change]], Callable[[], None]], left: dict[str, str]
    ) -> None:
        self._write, self._left = write, left
        self._part: list[Change] = []
        self._written: Callable[[], None] | None = None

    def begin(self, part: list[Change]) -> None:
        """Write these, after those that were begun before. Raises: MusterError."""
        self.end()
        self._part, self._written = part, self._write(part)

    def end(self) -> None:
        """Wait until all that was begun is written, and remembered. Raises: MusterError."""
        if self._written is None:
            return
        written, self._written = self._written, None
        try:
            written()
        except Refused:
            # One of them is no version: the others are.
            for each in self._part:
                try:
                    self._write([each])()
                except Refused as error:
                    self._left[each.path] = str(error)
