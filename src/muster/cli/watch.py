"""`--watch`: a list that is shown anew whenever something it shows has changed, until Ctrl-C.

Rule 1: nobody is asked whether something changed: the daemon tells it, and is asked for the list
then. Between that only clocks run, here.
Rule 2: a terminal gets one picture that stays in its place, everything else the list anew, where it
differs; with --json each is a line.
"""

import contextlib
import sys
from collections.abc import Sequence
from typing import Any

from muster.cli import table
from muster.cli.context import CommandContext
from muster.cli.news import changed, listening
from muster.cli.screen import Screen
from muster.cli.show.run import line
from muster.cli.text import clipped, cut, now_ms, obeys


def watch(context: CommandContext) -> int:
    """Show what the command asks for, and again; Ctrl-C is how it ends well."""
    sorts = list(context.command.verb.watches)
    screen = Screen(sys.stdout) if obeys() and not context.json else None
    table.Shape.spare = 1 if screen else 0
    before: Any = None
    # The person ends it so: that is how it ends.
    with (
        contextlib.suppress(KeyboardInterrupt),
        listening(context.stream("changes", {"sorts": sorts}, on=context.on)) as news,
    ):
        value, asked_ms = None, 0
        while True:
            moved = changed(news, wait_s=1 - now_ms() % 1000 / 1000 if screen else None)
            if moved is None:
                return 0
            if moved:
                value, asked_ms = context.answer(), now_ms()
            if screen is not None and value is not None:
                page = context.page(aged(value, now_ms() - asked_ms))
                screen.draw(picture(page.splitlines(), *screen.size()))
            elif value != before:
                context.show(value)
                before = value
    return 0


def runs(context: CommandContext) -> int:
    """The runs of `--follow`: at a terminal as with `--watch`, else a line for each change."""
    if obeys() and context.alone and not context.json:
        return watch(context)
    shown: dict[str, Any] = {}
    sorts = list(context.command.verb.watches)
    # The person ends it so: that is how it ends.
    with (
        contextlib.suppress(KeyboardInterrupt),
        listening(context.stream("changes", {"sorts": sorts}, on=context.on)) as news,
    ):
        while (moved := changed(news, wait_s=None)) is not None:
            for each in reversed(context.answer() if moved else ()):
                if shown.get(each["run"]) == each:
                    continue
                shown[each["run"]] = each
                if context.json:
                    context.show(each)
                else:
                    context.put(line(each))
    return 0


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
    shown = [clipped(line, columns - 1) for line in lines]
    if len(shown) > room:
        left = len(shown) - room + 1
        shown = [*shown[: room - 1], cut(f"and {left} lines more", columns - 1)]
    return shown
