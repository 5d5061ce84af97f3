"""`--watch`: a list that is shown anew whenever something it shows has changed, until Ctrl-C.

Rule 1: nobody is asked whether something changed: the daemon tells it, and is asked for the list
then. Between that only clocks run, here.
Rule 2: a terminal gets one picture that stays in its place, everything else the list anew, where it
differs; with --json each is a line.
"""

import contextlib
import queue
import re
import sys
import time
from collections.abc import Sequence
from typing import Any, Final

from muster.cli import table
from muster.cli.context import CommandContext
from muster.cli.follow import told
from muster.cli.screen import Screen
from muster.cli.text import cut, now_ms, obeys, width_of

# Many changes at once are one picture.
_PAUSE_S: Final = 0.05
_COLOUR: Final = re.compile(r"(\x1b\[[0-9;]*m)")


def watch(context: CommandContext) -> int:
    """Show what the command asks for, and again; Ctrl-C is how it ends well."""
    sorts = list(context.command.verb.watches)
    screen = Screen(sys.stdout) if obeys() and not context.json else None
    table.Shape.spare = 1 if screen else 0
    before: Any = None
    with (
        contextlib.suppress(KeyboardInterrupt),
        told(context.stream("changes", {"sorts": sorts}, on=context.on)) as news,
    ):
        value, asked_ms = None, 0
        while True:
            changed = _changed(news, wait_s=1 - now_ms() % 1000 / 1000 if screen else None)
            if changed is None:
                return 0
            if changed:
                value, asked_ms = context.answer(), now_ms()
            if screen is not None and value is not None:
                page = context.page(aged(value, now_ms() - asked_ms))
                screen.draw(picture(page.splitlines(), *screen.size()))
            elif value != before:
                context.show(value)
                before = value
    return 0


def _changed(news: "queue.SimpleQueue[Any]", wait_s: float | None) -> bool | None:
    """Whether something did, within this time; None where nothing more is told. Raises: why."""
    found, heard = False, []
    with contextlib.suppress(queue.Empty):
        heard.append(news.get(timeout=wait_s))
        time.sleep(_PAUSE_S)
        while True:
            heard.append(news.get_nowait())
    for each in heard:
        if isinstance(each, BaseException):
            raise each
        if each is None:
            return None
        # {}: the terminal has another size, and nothing else is new.
        found = found or bool(each)
    return found


def aged(value: Any, ms: int) -> Any:
    """An answer so much later: what it says to be so long ago is longer ago by now."""
    if isinstance(value, list):
        return [aged(each, ms) for each in value]
    if isinstance(value, dict):
        return {
            name: each + ms
            if name.endswith("_ms_ago") and isinstance(each, int)
            else aged(each, ms)
            for name, each in value.items()
        }
    return value


def picture(lines: Sequence[str], columns: int, rows: int) -> list[str]:
    """As much of a page as a terminal has room for, and how much there is below it."""
    room = max(1, rows - 1)
    shown = [_clipped(line, columns - 1) for line in lines]
    if len(shown) > room:
        left = len(shown) - room + 1
        shown = [*shown[: room - 1], cut(f"and {left} lines more", columns - 1)]
    return shown


def _clipped(line: str, width: int) -> str:
    """A line in so many columns, with its colours, which take none."""
    pieces, left, shown = _COLOUR.split(line), width, ""
    for at, piece in enumerate(pieces):
        if at % 2:
            shown += piece
        elif width_of(piece) > left:
            return f"{shown}{cut(piece, left)}" + ("\x1b[0m" if at else "")
        else:
            shown, left = shown + piece, left - width_of(piece)
    return shown
