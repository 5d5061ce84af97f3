"""The table of verbs: the one place that says what can be asked of Muster, and by whom.

Rule 1: a verb that is not in this table cannot be called; nothing is looked up by reflection.
Rule 2: `table.json` is written by `make table` out of what the modules of verbs declare, and read
here alone: every command reads it, and none of those modules, before it does anything.
"""

import json
import os
from collections.abc import Mapping
from typing import Any, Final

from muster.node.verb import Arg, Column, Line, Loss, Verb

_PARTS: Final = {
    "args": Arg,
    "data": Arg,
    "columns": Column,
    "says": Line,
    "destroys": Loss,
    "then": Line,
}


def _row(sort: Any, found: Mapping[str, Any]) -> Any:
    return sort(
        **{
            name: tuple(_row(_PARTS[name], each) for each in value)
            if name in _PARTS
            else tuple(value)
            if isinstance(value, list)
            else value
            for name, value in found.items()
        }
    )


with open(os.path.join(os.path.dirname(__file__), "table.json"), encoding="utf-8") as _file:
    VERBS: Final[dict[str, Verb]] = {row["name"]: _row(Verb, row) for row in json.load(_file)}
