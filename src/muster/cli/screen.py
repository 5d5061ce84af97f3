"""Lines of a terminal that are drawn anew in their place.

Rule 1: nothing above our own lines is touched, and nothing is left below them.
Rule 2: no line reaches the terminal's edge, so each takes one row, until somebody makes the
terminal narrower than one of them. Some terminals then wrap what is there and some cut it: where
the first line is by now nobody knows, so the next lines begin below.
"""

import os
import shutil
from collections.abc import Sequence
from typing import TextIO

from muster.cli.text import clipped, drawn_width, safe


class Screen:
    """Our lines at the end of what a terminal shows."""

    def __init__(self, out: TextIO) -> None:
        self._out = out
        self._widths: list[int] = []

    def size(self) -> tuple[int, int]:
        """Columns and rows."""
        try:
            # Not what the environment says: that is as old as the shell.
            found = os.get_terminal_size(self._out.fileno())
        except (OSError, ValueError):
            found = shutil.get_terminal_size()
        return max(1, found.columns or 80), max(1, found.lines or 24)

    def draw(self, lines: Sequence[str]) -> None:
        """Show these in the place of those before."""
        columns, shown, widths = self.size()[0], "", list[int]()
        for line in map(safe, lines):
            widths.append(min(drawn_width(line), columns - 1))
            shown += f"{clipped(line, columns - 1)}\x1b[K\n"
        self._out.write(f"{self._back()}{shown}\x1b[J")
        self._out.flush()
        self._widths = widths

    def wipe(self) -> None:
        """Show nothing in their place."""
        self._out.write(f"{self._back()}\x1b[J")
        self._out.flush()
        self._widths = []

    def _back(self) -> str:
        columns, rows = self.size()
        if max(self._widths, default=0) >= columns:
            return "\r\n"
        # What has scrolled away cannot be drawn anew.
        up = min(len(self._widths), rows - 1)
        return f"\r\x1b[{up}A" if up else "\r"
