"""Arguments of a call against what the table of verbs declares: before authority, before a handler.

Rule 1: a handler never sees a declared argument of another type, and never misses a required one.
Rule 2: a refusal names the argument and what it takes; it never repeats what was sent.
Rule 3: what the table does not declare (machines' own calls) is the handler's to check.
"""

from collections.abc import Iterable, Mapping
from typing import Any, Final, Protocol

from muster.errors import Malformed
from muster.limits import ARGUMENT_WORDS_MAX, INT_ABS_MAX


class Declared(Protocol):
    """One argument as the table declares it."""

    @property
    def name(self) -> str: ...

    @property
    def kind(self) -> str: ...

    @property
    def required(self) -> bool: ...

    @property
    def choices(self) -> tuple[str, ...]: ...

    @property
    def bare(self) -> bool: ...


_WANTED: Final = {
    "text": "a text",
    "file": "a text",
    "place": "a text",
    "int": "a whole number",
    "flag": "true or false",
    "words": f"a text or a list of up to {ARGUMENT_WORDS_MAX} texts",
}


def check(
    verb: str,
    declared: Iterable[Declared],
    args: Mapping[str, Any],
    options: Mapping[str, Any],
) -> None:
    """Raises: Malformed with the first argument that is missing or of no use."""
    for each in declared:
        given = options if each.bare else args
        if each.name not in given:
            if each.required:
                raise Malformed(f"{verb} needs `{each.name}`; see `muster {verb} --help`")
            continue
        value = given[each.name]
        if not _fits(each.kind, value):
            raise Malformed(f"`{each.name}` of {verb} must be {_WANTED[each.kind]}")
        if each.choices and value not in each.choices:
            raise Malformed(f"`{each.name}` of {verb} must be one of {', '.join(each.choices)}")


def _fits(kind: str, value: Any) -> bool:
    if kind == "flag":
        return isinstance(value, bool)
    if kind == "int":
        return type(value) is int and abs(value) <= INT_ABS_MAX
    if kind == "words" and isinstance(value, list):
        return len(value) <= ARGUMENT_WORDS_MAX and all(isinstance(word, str) for word in value)
    return isinstance(value, str)
