"""This program's own terminal, given to a far shell: every key goes there, and nothing acts here.

Rule: whatever ends it, the terminal is as it was.
"""

import contextlib
import os
import termios
import tty
from collections.abc import Callable, Iterator

from muster.channel import strand


@contextlib.contextmanager
def raw() -> Iterator[Callable[[], bytes]]:
    """The terminal passes every key on; what is given says its size now, as a piece."""
    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield _size
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


def _size() -> bytes:
    columns, rows = os.get_terminal_size(0)
    return strand.size(rows, columns)
