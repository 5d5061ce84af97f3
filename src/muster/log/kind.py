"""What kinds of entries there are, and the one body that each of them has.

    @kind("note.put")
    class NotePut(Struct, frozen=True, forbid_unknown_fields=True): ...

Rule 1: a kind has one body and a body is of one kind; to add a kind is to write one such Struct.
Rule 2: a kind says what a field means that this version does not know. `refuse`: the whole entry is
skipped, for what a field grants, takes or orders must not be read by half. `ignore`: the rest
counts, as of what a machine says of itself.
Rule 3: what a body looks like is part of the fingerprint of every fold that reads it: after an
upgrade that knows more, what was skipped or read by half is read again (store/folding.py).
"""

from collections.abc import Callable
from functools import cache
from typing import Any, Final, Literal, NamedTuple, TypeVar

import msgspec

Unknown = Literal["refuse", "ignore"]
T = TypeVar("T", bound=type[msgspec.Struct])


class Kind(NamedTuple):
    """A kind of entry; `body` is what `body_as` makes of one."""

    name: str
    body: type[msgspec.Struct]
    unknown: Unknown


KINDS: Final[dict[str, Kind]] = {}
"""Every kind whose module was imported, by name."""
_names: dict[type[msgspec.Struct], str] = {}


def kind(name: str, *, unknown: Unknown = "refuse") -> Callable[[T], T]:
    """Make the decorated Struct the body of this kind."""

    def register(body: T) -> T:
        if name in KINDS:
            raise ValueError(f"the kind {name} has a body already: {KINDS[name].body}")
        if body.__struct_config__.forbid_unknown_fields != (unknown == "refuse"):
            raise ValueError(f"{body} and its kind {name} differ about unknown fields")
        KINDS[name] = Kind(name, body, unknown)
        _names[body] = name
        return body

    return register


def bodies_of(module: str) -> dict[str, type[msgspec.Struct]]:
    """The bodies that a module defines, by kind, in the order in which it does."""
    return {name: each.body for name, each in KINDS.items() if each.body.__module__ == module}


def kind_of(body: type[msgspec.Struct]) -> str:
    """The kind whose body this is. Raises: KeyError."""
    return _names[body]


def ignores_unknown(body: Any) -> bool:
    """Whether fields that are not known here may stand in such a body."""
    name = _names.get(body)
    return name is not None and KINDS[name].unknown == "ignore"


def schema(name: str) -> str:
    """What bodies of a kind look like, as JSON Schema; "" for a kind that nobody declared.

    Without what people read: a mended sentence changes no body.
    """
    known = KINDS.get(name)
    return _shape(known.body) if known is not None else ""


# A fifth of a millisecond each, which everybody who opens a store would pay for all of them.
@cache
def _shape(body: type[msgspec.Struct]) -> str:
    shape = _without_prose(msgspec.json.schema(body))
    return msgspec.json.encode(shape, order="sorted").decode()


def _without_prose(shape: Any) -> Any:
    if isinstance(shape, list):
        return [_without_prose(each) for each in shape]
    if not isinstance(shape, dict):
        return shape
    texts = {"description", "title"}
    return {
        name: _without_prose(each)
        for name, each in shape.items()
        if name not in texts or not isinstance(each, str)
    }
