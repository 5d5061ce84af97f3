"""`make table` writes this too: the tools that agents have, out of what the verbs declare.

Which verbs an agent may use stands here, and nothing else of them: names, arguments, helps and
answers are those of the verbs. The door reads the file alone, and loads no verb.
"""

import inspect
import re
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import msgspec

from muster import door
from muster.node.verb import Arg, Verb
from muster.verbs.declaration import declared
from tools import docs

PATH: Final = Path(door.__file__).parent / "tools.json"
# What clients put before it, and models take, leaves so much.
NAME_CHARS_MAX: Final = 30


class Use(NamedTuple):
    """How agents use a verb.

    `reads`: it changes nothing that others see; else `again` says that twice is once, `destroys`
    that it ends something. `calls` is the verb of the
    daemon behind one that runs in the command. `own` is the argument that the door fills with who
    asks. `first`: it is always before the model's eyes. `defaults` are for agents alone.
    """

    reads: bool = False
    again: bool = False
    destroys: bool = False
    calls: str = ""
    own: str = ""
    first: bool = False
    defaults: Mapping[str, Any] = MappingProxyType({})
    hides: tuple[str, ...] = ()


_LOOK: Final = Use(reads=True)
TOOLS: Final = {
    "inbox": Use(again=True, own="agent", first=True),
    "send": Use(first=True),
    "reply": Use(first=True),
    "ack": Use(again=True),
    "threads": _LOOK,
    "machines": _LOOK,
    "agents": _LOOK,
    "runs": Use(reads=True, hides=("follow",)),
    "run.results": _LOOK,
    "tasks": _LOOK,
    "why": _LOOK,
    # A client gives up on a call that says nothing for minutes; who is told asks again.
    "await": Use(reads=True, calls="await.end", defaults={"timeout": "55s"}),
    "questions": _LOOK,
    "result": _LOOK,
    "delegate": Use(),
    "withdraw": Use(destroys=True),
    "recall": _LOOK,
    "memory": _LOOK,
    "digest": _LOOK,
    "remember": Use(),
    "refute": Use(again=True),
}
_TYPES: Final = {"int": "integer", "flag": "boolean"}
# Several words that are one text, which a model writes as one.
_TEXTS: Final = ("text", "reason", "words")


def rows(verbs: list[Verb]) -> list[dict[str, Any]]:
    """Every tool, as the door reads it."""
    known = {verb.name: verb for verb in verbs}
    return [_row(known[name], use) for name, use in TOOLS.items()]


def _row(verb: Verb, use: Use) -> dict[str, Any]:
    name = verb.name.replace(".", "_")
    if len(name) > NAME_CHARS_MAX:
        raise ValueError(f"{name} is too long a name for a tool")
    answer, wraps = _answer(use.calls or verb.name, verb.name.rpartition(".")[2])
    hidden = (use.own, *use.hides)
    args = [arg for arg in verb.args if arg.name not in hidden]
    hints = {"title": _sentence(verb.summary), "readOnlyHint": use.reads, "openWorldHint": False}
    if not use.reads:
        hints |= {"destructiveHint": use.destroys, "idempotentHint": use.again}
    return {
        "verb": use.calls or verb.name,
        "own": use.own,
        "wraps": wraps,
        "tool": {
            "name": name,
            "title": verb.name,
            "description": _description(verb),
            "inputSchema": _input(args, use.defaults),
            "outputSchema": answer,
            "annotations": hints,
            **({"_meta": {"anthropic/alwaysLoad": True}} if use.first else {}),
        },
    }


def _sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}"


def _description(verb: Verb) -> str:
    """The help of the verb without what is for a terminal."""
    text = inspect.cleandoc(declared[verb.name].handler.__doc__ or "")
    parts = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n".join(each for each in parts if not each.startswith(("muster ", "Exit code")))


def _input(args: list[Arg], defaults: Mapping[str, Any]) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": {}, "additionalProperties": False}
    for arg in args:
        schema["properties"][arg.name] = _argument(arg, defaults.get(arg.name, arg.default))
    if needed := [arg.name for arg in args if arg.required]:
        schema["required"] = needed
    return schema


def _argument(arg: Arg, default: Any) -> dict[str, Any]:
    if arg.kind == "words" and arg.name not in _TEXTS:
        found: dict[str, Any] = {"type": "array", "items": {"type": "string"}}
    else:
        found = {"type": _TYPES.get(arg.kind, "string")}
    # A program gives what the command would read.
    found["description"] = f"{'as text: ' if arg.kind == 'file' else ''}{arg.help}"
    if arg.choices:
        found["enum"] = list(arg.choices)
    bounds = {"minimum": arg.low, "maximum": arg.high}
    found |= {name: value for name, value in bounds.items() if value is not None}
    if default not in (None, "", False):
        found["default"] = default
    return found


def _answer(name: str, called: str) -> tuple[dict[str, Any], str]:
    """The schema of an answer, whose root is an object, and the field that it is put into for it.

    "" where the answer is an object already.
    """
    sorts = docs._answers(name)
    shapes, parts = msgspec.json.schema_components(sorts, ref_template="#/$defs/{name}")
    if len(shapes) == 1 and "$ref" in shapes[0]:
        root = dict(parts[shapes[0]["$ref"].rpartition("/")[2]])
        wraps = ""
    else:
        inner = shapes[0] if len(shapes) == 1 else {"anyOf": list(shapes)}
        root = {"type": "object", "properties": {called: inner}, "required": [called]}
        wraps = called
    used = _used(root, parts)
    return _portable({**root, **({"$defs": used} if used else {})}), wraps


def _portable(shape: Any) -> Any:
    """A schema that every reader takes: without the bare `false` that some refuse (of so many, and
    no more), and with an end of a pattern that others than Python know.
    """
    match shape:
        case {"items": False, "maxItems": int(), **rest}:
            return _portable(rest | {"maxItems": shape["maxItems"]})
        case dict():
            return {name: _portable(each) for name, each in shape.items()}
        case list():
            return [_portable(each) for each in shape]
        case str():
            return re.sub(r"\\Z$", "$", shape)
        case _:
            return shape


def _used(shape: Any, parts: dict[str, Any]) -> dict[str, Any]:
    """The parts that a schema needs, in the order of their names."""
    found: dict[str, Any] = {}

    def look(each: Any) -> None:
        if isinstance(each, dict):
            name = str(each.get("$ref", "")).rpartition("/")[2]
            if name and name not in found:
                found[name] = parts[name]
                look(parts[name])
            for value in each.values():
                look(value)
        elif isinstance(each, list):
            for value in each:
                look(value)

    look(shape)
    return dict(sorted(found.items()))


def text(verbs: list[Verb]) -> str:
    """The tools as a file: one a line."""
    return "[\n" + ",\n".join(msgspec.json.encode(row).decode() for row in rows(verbs)) + "\n]\n"
