"""Answers for people: plain text, aligned, with colour only on a terminal.

Rule 1: `--json` prints the answer as it came; everything here is for eyes and may change.
Rule 2: an answer is shown by the lines and columns that its verb declares; what needs more has a
function of the verb's name in the file of its noun here, loaded on use.
Rule 3: what no file knows is shown as an indented list of its fields, never dropped.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from importlib import import_module
from typing import Any, Final, NamedTuple

from muster.cli.table import room, table
from muster.cli.text import (
    abbreviated,
    ago,
    clean,
    clock,
    paint,
    safe,
    short,
    span,
    state,
    tell_apart,
)
from muster.errors import Malformed
from muster.node.verb import Column, Verb
from muster.printable import escaped, named
from muster.verbs.table import VERBS

_FORMS: Final[dict[str, Callable[[Any], str]]] = {
    "": lambda value: clean(", ".join(value) if isinstance(value, list) else value),
    "named": lambda value: clean(named(", ".join(value) if isinstance(value, list) else value)),
    "words": lambda value: clean(" ".join(value)),
    "bold": lambda value: paint(clean(value), "bold"),
    "id": short, "ago": ago, "clock": clock, "state": state, "span": span,
}  # fmt: skip


def text(verb: str, value: Any, files: Mapping[str, str] | None = None) -> str:
    """What a person reads; `files`: names of arguments that were files, and `verbose`."""
    if isinstance(value, str):
        return safe(value.rstrip("\n"))
    tell_apart(value)
    row, page = VERBS[verb], None
    # A noun whose answers are shown in the common way has no page of its own.
    with contextlib.suppress(ModuleNotFoundError):
        page = import_module(f"muster.cli.show.{row.handler.partition(':')[0].rpartition('.')[2]}")
    known = getattr(page, verb, None)
    try:
        return safe(known(value, files or {}) if known else declared(row, value))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise Malformed(
            f"the daemon's answer to {verb} is not as this version of Muster knows it: restart the "
            "daemon (`muster down`, `muster up --detach`), or see it as it came with --json"
        ) from error


def names(verb: Verb, value: Any) -> list[str]:
    """The names in a list, or of the one thing that was asked about, whole."""
    rows = value.get(verb.rows, value) if isinstance(value, dict) else value
    found = [row.get(verb.names) for row in (rows if isinstance(rows, list) else [rows])]
    return [safe(str(each)) for each in found if each]


class _Word(NamedTuple):
    value: Any

    def __format__(self, form: str) -> str:
        return clean(self.value, int(form)) if form.isdigit() else _FORMS[form](self.value)


def declared(verb: Verb, value: Any) -> str:
    """An answer by the lines and columns that its verb declares, else by its fields."""
    rows = value.get(verb.rows) if isinstance(value, dict) else value
    if verb.columns and rows is not None:
        return listed(verb.columns, rows, verb.nothing)
    if not verb.says:
        return fields(value)
    lines = []
    for row in [value] if rows is None else rows:
        lines += [line(each.text, row) for each in verb.says if holds(row, each.when)]
    return "\n".join(lines)


def line(text: str, value: Mapping[str, Any]) -> str:
    """A line of a declaration with the fields of a value; see `Line` in `node/verb.py`."""
    return text.format_map({name: _Word(each) for name, each in value.items()})


def listed(columns: Sequence[Column], rows: Iterable[Any], nothing: str) -> str:
    """Rows as a table of these columns."""
    return table(columns, [[_cell(row, each) for each in columns] for row in rows], nothing)


def _cell(row: Any, column: Column) -> str:
    if not holds(row, column.when):
        return ""
    # A machine of an older version does not say it.
    shown = f"{_Word(row.get(column.field)):{column.form.removeprefix('text')}}"
    return clean(shown, column.width) if column.width and room() else shown


def holds(value: Mapping[str, Any], when: str) -> bool:
    """Whether all words of a condition hold; see `node/verb.py`."""
    for word in when.split():
        name, _, wanted = word.removeprefix("!").partition("=")
        found = str(value.get(name)) == wanted if wanted else bool(value.get(name))
        if found == word.startswith("!"):
            return False
    return True


def put_json(value: Any) -> None:
    """One answer as JSON: a line of its own, so that several can be read one by one."""
    indent = 2 if sys.stdout.isatty() else None
    # Where a letter cannot be written it is escaped: a script gets the value that was said.
    narrow = (sys.stdout.encoding or "ascii").lower().replace("-", "") != "utf8"
    raw = json.dumps(value, ensure_ascii=narrow, indent=indent)
    # JSON itself escapes only what is below a space; a terminal obeys more than that.
    print(escaped(raw), flush=True)


def fields(value: Any, indent: str = "") -> str:
    """Any JSON value as an indented list."""
    if isinstance(value, dict):
        return "\n".join(
            f"{indent}{key}:\n{fields(each, indent + '  ')}"
            if isinstance(each, dict | list) and each
            else f"{indent}{key}: {_plain(each)}"
            for key, each in value.items()
        )
    if isinstance(value, list):
        return "\n".join(
            fields(each, indent + "  ").replace(indent + "  ", indent + "- ", 1) for each in value
        )
    return f"{indent}{_plain(value)}"


def _plain(value: Any) -> str:
    if value in (None, "", [], {}):
        return "-"
    return abbreviated(value) if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
