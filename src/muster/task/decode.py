"""Whether a tree of YAML has the shape of a type; all that does not fit, with its place.

Rule 1: the type decides what a scalar is. Where text is wanted, `8080`, `no` and `3.10` are that
        text; where a number is wanted, only a plain decimal number is one.
Rule 2: the type is read through msgspec's own inspection, so that this reader, msgspec and the
        published schema can never disagree about which keys there are.
Rule 3: nothing is guessed or repaired; a tree with one problem yields no value.

A type's Meta(extra=…) may hold `pattern` with `says`, the sentence for a text that does not match
it, or `refusal`, a function from a text to a sentence ("" when the text is fine).
"""

import re
from collections.abc import Callable
from collections.abc import Mapping as MappingType
from functools import cache
from typing import Any, Final, TypeVar

from msgspec import inspect

from muster import limits
from muster.task.problem import Problem, did_you_mean, nearest, shown
from muster.task.yaml import Mapping, Node, Scalar, Sequence

T = TypeVar("T")
Places = MappingType[str, tuple[int, int]]


def glean(tree: Node, type_: type) -> tuple[Any, Places, list[Problem]]:
    """What fits of a tree, and the place of everything: None, or absent, where a problem is."""
    reader = _Reader()
    plain = reader.take(tree, _type_info(type_), "")
    return plain, reader.places, reader.problems[: limits.SPEC_PROBLEMS_MAX]


def misfits(plain: Any, type_: type) -> list[Problem]:
    """What of a value out of JSON has not the form that a text of it would have; of no place."""
    return glean(_tree(plain), type_)[2]


def _tree(plain: Any) -> Node:
    match plain:
        case dict():
            values = {key: _tree(value) for key, value in plain.items()}
            return Mapping(0, 0, {key: Scalar(0, 0, key, plain=False) for key in plain}, values)
        case list():
            return Sequence(0, 0, [_tree(each) for each in plain])
        case str():
            return Scalar(0, 0, plain, plain=False)
    return Scalar(0, 0, str(plain), plain=True)


_type_info: Callable[[Any], inspect.Type] = cache(inspect.type_info)


class _Reader:
    """Walks a tree along a type. Depth is bounded by yaml.py, so recursion is too."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.places: dict[str, tuple[int, int]] = {}
        # The keys that cannot be left out.
        self._required: set[str] = set()

    def take(self, node: Node, wanted: inspect.Type, path: str) -> Any:
        # Looking for the nearest word is slow enough to be an attack.
        if len(self.problems) >= limits.SPEC_PROBLEMS_MAX:
            return None
        self.places.setdefault(path, (node.line, node.column))
        wanted, extra = _bare(wanted)
        match wanted:
            case inspect.UnionType():
                first, forms = _forms(wanted)
                # A form that the union does not have is explained by its first member.
                return self.take(node, forms.get(_FORM_OF[type(node)], first), path)
            case inspect.StructType():
                return self._struct(node, wanted, path)
            case inspect.DictType():
                return self._dict(node, wanted, path)
            case inspect.ListType():
                if not isinstance(node, Sequence):
                    return self._bad(node, path, "is a list, as in [a, b]")
                self._count(node, len(node.items), wanted, path)
                items = enumerate(node.items)
                return [self.take(item, wanted.item_type, f"{path}[{n}]") for n, item in items]
            case inspect.StrType():
                return self._text(node, wanted, path, extra)
            case inspect.IntType():
                value = node.value if isinstance(node, Scalar) else None
                low, high = wanted.ge, wanted.le
                if isinstance(value, bool) or not isinstance(value, int):
                    what = f"is a whole number from {low} to {high}, without quotes"
                    return self._bad(node, path, what)
                if (low is not None and value < low) or (high is not None and value > high):
                    what = f"is {value}; it must be from {low} to {high}"
                    return self._bad(node, path, what)
                return value
            case inspect.BoolType():
                value = node.value if isinstance(node, Scalar) else None
                known = isinstance(value, bool)
                return value if known else self._bad(node, path, "is true or false, without quotes")
            case inspect.LiteralType():
                return self._word(node, wanted, path)
        raise AssertionError(f"spec.py uses a type that decode.py does not read: {wanted}")

    def _bad(self, node: Node, path: str, sentence: str) -> None:
        colon = ":" if sentence.startswith('"') else ""
        name = path or "the spec"
        self.problems.append(Problem(node.line, node.column, path, f"{name}{colon} {sentence}"))

    def _or_not(self, path: str) -> str:
        return "" if path in self._required else " or leave the key out"

    def _struct(self, node: Node, wanted: inspect.StructType, path: str) -> Any:
        if not isinstance(node, Mapping):
            return self._bad(node, path, _no_mapping(node, "keys"))
        fields = _fields(wanted)
        plain: dict[str, Any] = {}
        misspelt: set[str] = set()
        for key, value in node.values.items():
            here = f"{path}.{key}" if path else key
            if key not in fields and len(self.problems) >= limits.SPEC_PROBLEMS_MAX:
                break
            if key not in fields:
                where = path or "a spec"
                near = nearest(key, fields)
                misspelt.add(near)
                known = f"; known are {', '.join(sorted(fields))}"
                hint = f'; did you mean "{near}"?' if near else known
                written, sentence = node.keys[key], f"{where} has no key {shown(key)}{hint}"
                self.problems.append(Problem(written.line, written.column, here, sentence))
                continue
            self.places[f"{here}:"] = (node.keys[key].line, node.keys[key].column)
            if fields[key].required:
                self._required.add(here)
            plain[key] = self.take(value, fields[key].type, here)
        for name, field in fields.items():
            # What is there under a mistyped name is not missing besides.
            if field.required and name not in node.values and name not in misspelt:
                self._bad(node, path, f"has no {name}; add {name}: …")
        return plain

    def _dict(self, node: Node, wanted: inspect.DictType, path: str) -> Any:
        if not isinstance(node, Mapping):
            return self._bad(node, path, _no_mapping(node, "names"))
        self._count(node, len(node.values), wanted, path)
        plain: dict[str, Any] = {}
        for key, value in node.values.items():
            before = len(self.problems)
            self.take(
                Scalar(node.keys[key].line, node.keys[key].column, key, False),
                wanted.key_type,
                path,
            )
            # A key that is no name must not become part of a path in later sentences.
            if len(self.problems) > before:
                continue
            self.places[f"{path}.{key}:"] = (node.keys[key].line, node.keys[key].column)
            plain[key] = self.take(value, wanted.value_type, f"{path}.{key}")
        return plain

    def _count(
        self, node: Node, count: int, wanted: inspect.ListType | inspect.DictType, path: str
    ) -> None:
        if wanted.min_length is not None and count < wanted.min_length:
            self._bad(node, path, f"is empty; give it a value{self._or_not(path)}")
        if wanted.max_length is not None and count > wanted.max_length:
            self._bad(node, path, f"has {count} items; at most {wanted.max_length} are allowed")

    def _text(
        self, node: Node, wanted: inspect.StrType, path: str, extra: MappingType[str, Any]
    ) -> Any:
        if not isinstance(node, Scalar):
            return self._bad(node, path, "is a text, not a list or a mapping; put it in quotes")
        text = node.text
        if node.plain and node.value is None and wanted.min_length != 0:
            if wanted.min_length or "pattern" in extra:
                return self._bad(node, path, f"has no value; give it one{self._or_not(path)}")
            text = ""
        if wanted.max_length is not None and len(text.encode()) > wanted.max_length:
            most = wanted.max_length
            return self._bad(node, path, f"has more than {most} bytes; put it into a file")
        if wanted.min_length is not None and len(text.strip()) < wanted.min_length:
            return self._bad(node, path, f"is empty; give it a value{self._or_not(path)}")
        if "pattern" in extra and not re.fullmatch(extra["pattern"], text):
            return self._bad(node, path, f"{shown(text)} {extra['says']}")
        refusal = extra["refusal"](text) if "refusal" in extra else ""
        if refusal:
            return self._bad(node, path, f"{shown(text)} {refusal}")
        return text

    def _word(self, node: Node, wanted: inspect.LiteralType, path: str) -> Any:
        known = [str(value) for value in wanted.values]
        if isinstance(node, Scalar):
            text = isinstance(wanted.values[0], str)
            value: object = node.text if text else node.value
            for choice in wanted.values:
                if type(choice) is type(value) and choice == value:
                    return choice
            hint = did_you_mean(node.text, known)
            if not text:
                quoted = node.text in known and not node.plain
                hint = ", without quotes" if quoted else ", the only version that this Muster reads"
            return self._bad(node, path, f"{shown(node.text)} is not {' or '.join(known)}{hint}")
        return self._bad(node, path, f"is {' or '.join(known)}, not a list or a mapping")


def _no_mapping(node: Node, of: str) -> str:
    """What stands where keys or names should: nothing yet, a list, a text."""
    if isinstance(node, Sequence):
        return f"is a mapping of {of} to values, not a list: write name: value, without the -"
    if isinstance(node, Scalar) and node.value is None:
        return f"is empty; indent its {of} below it, as in name: value"
    return f"is a mapping of {of} to values, as in name: value"


# What a type says of itself is asked for every node of a text: each answer is kept. The types are
# those of spec.py and live as long as the program, so their identity names them.
_kept: dict[tuple[str, int], tuple[inspect.Type, Any]] = {}


def _keep(about: Callable[[Any], T]) -> Callable[[Any], T]:
    def answer(wanted: inspect.Type) -> T:
        key = (about.__name__, id(wanted))
        found = _kept.get(key)
        if found is None:
            # The type itself is kept too, so that no other one can get its identity.
            found = _kept[key] = (wanted, about(wanted))
        kept: T = found[1]
        return kept

    return answer


@_keep
def _bare(wanted: inspect.Type) -> tuple[inspect.Type, dict[str, Any]]:
    """The type without what was annotated to it, and that."""
    extra: dict[str, Any] = {}
    while isinstance(wanted, inspect.Metadata):
        extra = {**extra, **(wanted.extra or {})}
        wanted = wanted.type
    return wanted, extra


@_keep
def _fields(wanted: inspect.StructType) -> dict[str, inspect.Field]:
    return {field.encode_name: field for field in wanted.fields}


@_keep
def _forms(wanted: inspect.UnionType) -> tuple[inspect.Type, dict[str, inspect.Type]]:
    """The first member of a union, and the member for each form."""
    choices = [t for t in wanted.types if not isinstance(t, inspect.NoneType)]
    forms: dict[str, inspect.Type] = {}
    for choice in choices:
        bare, _ = _bare(choice)
        is_mapping = isinstance(bare, inspect.StructType | inspect.DictType)
        other = "mapping" if is_mapping else "scalar"
        forms["list" if isinstance(bare, inspect.ListType) else other] = choice
    return choices[0], forms


_FORM_OF: Final = {Scalar: "scalar", Sequence: "list", Mapping: "mapping"}
