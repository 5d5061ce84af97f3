"""Answers for people: plain text, aligned, with colour only on a terminal.

Rule 1: `--json` prints the answer as it came; everything here is for eyes and may change.
Rule 2: a list is shown by the columns that its verb declares; what needs more has a function of
the verb's name in the file of its noun here, loaded on use.
Rule 3: what no file knows is shown as an indented list of its fields, never dropped.
"""

import contextlib
import json
import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any, Final

from muster.cli.text import ago, clean, paint, safe, short, span, state
from muster.cli.text import table as text_table
from muster.errors import Malformed
from muster.node.verb import Column, Verb
from muster.printable import escaped
from muster.verbs.table import VERBS

_FORMS: Final[dict[str, Callable[[Any], str]]] = {
    "id": short, "ago": ago, "state": state, "span": span,
}  # fmt: skip


def text(verb: str, value: Any, files: Mapping[str, str] | None = None) -> str:
    """What a person reads; `files`: names of arguments that were files, and `verbose`."""
    if isinstance(value, str):
        return safe(value.rstrip("\n"))
    try:
        return safe(_shown(verb)(value, files or {}))
    except (KeyError, TypeError, IndexError, AttributeError, ValueError) as error:
        raise Malformed(
            f"the daemon's answer to {verb} is not as this version of Muster knows it: restart the "
            "daemon (`muster down`, `muster up --detach`), or see it as it came with --json"
        ) from error


def _shown(verb: str) -> Callable[[Any, Mapping[str, str]], str]:
    """How the answers of a verb are shown."""
    row, page = VERBS.get(verb), None
    if row is not None and row.columns:
        return lambda value, _: columns(row, value)
    if row is not None:
        noun = row.handler.partition(":")[0].rpartition(".")[2]
        with contextlib.suppress(ModuleNotFoundError):
            page = import_module(f"muster.cli.show.{noun}")
    return getattr(page, verb, None) or (lambda value, _: fields(value))


def columns(verb: Verb, rows: Any) -> str:
    """A list as a table of the declared columns."""
    table = [[_cell(row[each.field], each) for each in verb.columns] for row in rows]
    return text_table([each.head or each.field for each in verb.columns], table, verb.nothing)


def _cell(value: Any, column: Column) -> str:
    if column.form != "text":
        return _FORMS[column.form](value)
    return clean(", ".join(value) if isinstance(value, list) else value, column.width)


def heading(name: str) -> str:
    """The line above one machine's answer."""
    return paint(f"== {clean(name)}", "bold")


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
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
