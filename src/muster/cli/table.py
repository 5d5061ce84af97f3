"""Lists as columns, for as wide a terminal as there is.

Rule 1: no line of a list is wider than its terminal, so none is wrapped: first the columns of the
highest rank are left out (`WIDE` always), then long texts are cut, and a sign says so.
Rule 2: what is no terminal, and whoever asks for `-o wide`, gets every column, whole; an empty cell
is `-` then, so that a column is the same one in each line.
"""

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from muster.cli.text import clean, clipped, drawn_width, paint
from muster.node.verb import WIDE, Column

_GAP: Final = 2
# Where a terminal does not say how wide it is.
_COLUMNS: Final = 80
# Narrower than this nothing can be read, and something is shown all the same.
_COLUMNS_MIN: Final = 20
# A part of these says nothing, so they are cut when nothing else is left to cut.
_WHOLE: Final = frozenset({"id", "ago", "clock", "span", "state"})
Line = list[str]


class Shape:
    """How the lists of this command are shown: `wide` is what the person asked for."""

    wide = False
    # Columns that are left free at the edge, where lines are drawn anew in their place.
    spare = 0


def room() -> int:
    """How many columns of a terminal there are for a list; 0: as many as it needs."""
    if Shape.wide or not sys.stdout.isatty():
        return 0
    try:
        found = os.get_terminal_size(sys.stdout.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return max((found or _COLUMNS) - Shape.spare, _COLUMNS_MIN)


def table(head: Sequence[str | Column], rows: Iterable[Sequence[Any]], empty: str = "none") -> str:
    """Columns as wide as they need to be, and as there is room for."""
    body = [[c if isinstance(c, str) else clean(c) for c in row] for row in rows]
    if not body:
        return empty
    columns = [Column(each) if isinstance(each, str) else each for each in head]
    most = room()
    if most:
        used = [i for i, c in enumerate(columns) if c.rank < WIDE and any(row[i] for row in body)]
        columns = [columns[i] for i in used]
        body = [[row[i] for i in used] for row in body]
    else:
        body = [[cell or "-" for cell in row] for row in body]
    lines = [[paint((each.head or each.field).upper(), "dim") for each in columns], *body]
    widths = {i: max(drawn_width(line[i]) for line in lines) for i in range(len(columns))}
    if most:
        widths = _fitting(columns, widths, most)
    return "\n".join(_line(line, widths) for line in lines)


def _fitting(columns: Sequence[Column], widths: Mapping[int, int], most: int) -> dict[int, int]:
    """The columns for which there is room, and how wide each is."""
    kept = dict(widths)
    least = {
        i: width if columns[i].form in _WHOLE else min(width, columns[i].least)
        for i, width in kept.items()
    }
    while sum(least[i] for i in kept) + _GAP * (len(kept) - 1) > most and len(kept) > 1:
        gone = max(kept, key=lambda i: (columns[i].rank, i))
        if not columns[gone].rank:
            break
        del kept[gone]
    while (over := sum(kept.values()) + _GAP * (len(kept) - 1) - most) > 0:
        # The widest that may give something, else the widest.
        giving = [i for i in kept if kept[i] > least[i]] or [i for i in kept if kept[i] > 1]
        if not giving:
            break
        widest = max(giving, key=lambda i: (kept[i], i))
        others = [kept[i] for i in giving if i != widest]
        floor = least[widest] if kept[widest] > least[widest] else 1
        # At once down to the next widest, not a letter at a time.
        step = max(1, kept[widest] - max([*others, floor]))
        kept[widest] -= min(over, step, kept[widest] - floor)
    return kept


def _line(cells: Line, widths: Mapping[int, int]) -> str:
    shown = []
    for i, width in widths.items():
        cell = cells[i]
        cell = clipped(cell, width)
        shown.append(cell + " " * (width - drawn_width(cell)))
    return (" " * _GAP).join(shown).rstrip()
