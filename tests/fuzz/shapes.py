"""Values of a declared shape: what a hostile program writes that knows our formats.

`Shapes.of(type)` gives a value that the type accepts, most of the time: names that exist, numbers at
their borders, texts that grow when they are escaped, maps whose *keys* are odd. Now and then one
part of it is of another shape. A body that is void by its structure meets the first check only;
these meet the last.
"""

import random
import re
from collections.abc import Callable, Iterable
from typing import Any, Final

import msgspec
from msgspec import inspect

TEXTS: Final = (
    "", "x", " ", "done", "failed", "lost", "all", "any", "-", "-rf", "--upload-pack=x", "..", "../..", ".git/config",
    "a/b", "a:b", "why?.txt", "aux", "x.", "x ", "con.txt", "a\tb", "\n", "\0", "\x1b[2J", "\u202e", "\u200b", "\u2028",
    "é", "😀", "noop", "shell", "claude", "HOME", "A=B", "role:hub", "role:", "@", "1-7", "0", "-1", "1e9", "true", "null",
    "${inputs.x}", "${one.summary}", "%s%n", "{}", "[]", "muster: 1", "2026-11-25T00:00", "op:alice", "claude@build",
    "muster", "fleet", "journal", "to.x", "refs/heads/main", "HEAD", "a" * 40, "0" * 40, "f" * 64, "0" * 64,
    "b" * 32, "0" * 32, "run:x", "person:x", f"y{'0' * 32}", f"chat.x.x@{'0' * 64}",
)  # fmt: skip
LONG: Final = ("\x01" * 11_000, "é" * 5_000, "x" * 60_000, '"\\' * 9_000, "\n" * 3_000, "9" * 4_999)
NUMBERS: Final = (
    0,
    1,
    2,
    3,
    7,
    -1,
    255,
    256,
    65_535,
    2**31 - 1,
    2**31,
    2**40,
    2**53 - 1,
    -(2**53) + 1,
)
ODD: Final[tuple[Any, ...]] = (
    None,
    True,
    0,
    -1,
    "",
    "x",
    [],
    {},
    [[]],
    {"": ""},
    ["x"],
    {"a": {"b": []}},
)
# What a field's name says about what stands in it.
NAMED: Final = {
    "task": "task", "run": "run", "machine": "machine", "commit": "commit", "base": "commit", "stream": "stream",
    "message": "entry", "reply_to": "entry", "thread": "group", "agent": "agent", "phase": "phase",
    "statement": "statement", "record": "record", "revocation": "revocation", "to": "address", "repo": "repo",
    "key": "key", "grant": "hash", "id": "hash", "name": "name", "sha256": "hash", "mark": "mark", "operator": "hash",
    "what": "task", "spec": "spec",
}  # fmt: skip


class Shapes:
    """`known` are names that mean something, by sort; whoever drives the fuzzer adds to them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.known: dict[str, list[Any]] = {}

    def learn(self, sort: str, values: Iterable[Any]) -> None:
        """The newest hundred of a sort are kept."""
        found = [*self.known.get(sort, ()), *values]
        self.known[sort] = list(dict.fromkeys(found))[-100:]

    def any_known(self, sort: str) -> Any:
        pool = self.known.get(sort)
        return self.rng.choice(pool) if pool else self.rng.choice(TEXTS)

    def of(self, shape: Any) -> Any:
        """A value of this type, as JSON would hold it."""
        return self._value(inspect.type_info(shape), "", 0)

    def text(self, name: str = "") -> str:
        rng = self.rng
        draw = rng.random()
        if name in NAMED and draw < 0.75:
            return str(self.any_known(NAMED[name]))
        if draw < 0.85:
            return rng.choice(TEXTS)
        if draw < 0.95:
            return str(self.any_known(rng.choice(list(self.known) or ["task"])))
        return rng.choice(LONG)

    def anything(self, name: str = "", depth: int = 0) -> Any:
        """Any JSON value, deep ones rarely."""
        rng = self.rng
        if depth > 3:
            return rng.choice(TEXTS)
        match rng.randrange(7):
            case 0 | 1:
                return self.text(name)
            case 2:
                return rng.choice(NUMBERS)
            case 3:
                return [self.anything(name, depth + 1) for _ in range(rng.choice((0, 1, 2, 5)))]
            case 4:
                count = rng.choice((0, 1, 2, 5))
                return {self.text()[:40]: self.anything("", depth + 1) for _ in range(count)}
            case _:
                return rng.choice(ODD)

    def _value(self, info: inspect.Type, name: str, depth: int) -> Any:
        rng = self.rng
        if rng.random() < 0.01:
            return self.anything(name, depth)
        draw: Callable[[], Any] = {
            inspect.StrType: lambda: self._str(info, name),
            inspect.IntType: lambda: self._int(info),
            inspect.BoolType: lambda: rng.random() < 0.5,
            inspect.NoneType: lambda: None,
            inspect.LiteralType: lambda: rng.choice(info.values),  # type: ignore[attr-defined]
            inspect.ListType: lambda: self._list(info, name, depth),
            inspect.VarTupleType: lambda: self._list(info, name, depth),
            inspect.TupleType: lambda: [
                self._value(t, name, depth + 1)
                for t in info.item_types  # type: ignore[attr-defined]
            ],
            inspect.DictType: lambda: self._dict(info, name, depth),
            inspect.StructType: lambda: self._struct(info, depth),
            inspect.UnionType: lambda: self._value(rng.choice(info.types), name, depth),  # type: ignore[attr-defined]
        }.get(type(info), lambda: self.anything(name, depth))
        return draw()

    def _str(self, info: Any, name: str) -> str:
        for _ in range(6):
            text = self.text(name)
            if info.max_length is not None:
                text = text[: info.max_length]
            if info.pattern is None or re.search(info.pattern, text):
                return text
        fitting = [t for pool in self.known.values() for t in pool if isinstance(t, str)]
        fitting = [t for t in (*fitting, *TEXTS) if re.search(info.pattern, t)]
        return self.rng.choice(fitting or ["x"])

    def _int(self, info: Any) -> int:
        low = info.ge if info.ge is not None else -(2**53) + 1
        high = info.le if info.le is not None else 2**53 - 1
        return max(low, min(self.rng.choice(NUMBERS), high))

    def _list(self, info: Any, name: str, depth: int) -> list[Any]:
        most = info.max_length if info.max_length is not None else 300
        count = min(self.rng.choice((0, 1, 1, 2, 3, 17, 120)), most)
        if depth > 2:
            count = min(count, 3)
        return [self._value(info.item_type, name, depth + 1) for _ in range(count)]

    def _dict(self, info: Any, name: str, depth: int) -> dict[str, Any]:
        count = self.rng.choice((0, 0, 1, 1, 2, 5, 40))
        if depth > 1:
            count = min(count, 3)
        keys = [str(self._value(info.key_type, name, depth + 1))[:200] for _ in range(count)]
        return {key: self._value(info.value_type, "", depth + 1) for key in keys}

    def _struct(self, info: Any, depth: int) -> dict[str, Any]:
        # Which of several structs it is, where there are several.
        found: dict[str, Any] = {info.tag_field: info.tag} if info.tag_field else {}
        for field in info.fields:
            if field.required or self.rng.random() < 0.5:
                found[field.encode_name] = self._value(field.type, field.encode_name, depth + 1)
        if self.rng.random() < 0.02 and found:
            found[self.rng.choice(list(found))] = self.anything()
        if self.rng.random() < 0.01:
            found["later"] = "a field of a newer Muster"
        return found


def is_struct(shape: Any) -> bool:
    return isinstance(shape, type) and issubclass(shape, msgspec.Struct)
