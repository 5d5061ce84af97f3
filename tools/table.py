"""`make table`: the table of verbs, out of what the modules of verbs declare.

python -m tools.table            # writes src/muster/verbs/table.json, src/muster/door/tools.json
"""

import re
import types
from collections.abc import Iterable
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Union, get_args, get_origin

import msgspec

from muster import verbs
from muster.node.verb import Arg, Auth, Kind, Runs, Target, Verb
from muster.verbs.declaration import declared

PATH: Final = Path(verbs.__file__).parent / "table.json"
_KINDS: Final[dict[Any, Kind]] = {
    str: "text",
    int: "int",
    bool: "flag",
    tuple[str, ...]: "words",
    dict[str, str]: "texts",
}


def rows() -> list[Verb]:
    """Every verb, in the order of the modules and of what each declares."""
    for noun in verbs.NOUNS:
        import_module(f"muster.verbs.{noun}")
    return [row(name) for name in sorted(declared, key=_noun)]


def _noun(name: str) -> int:
    """The place of a verb's module on the help page."""
    order = {noun: place for place, noun in enumerate(verbs.NOUNS)}
    return order.get(declared[name].handler.__module__.rpartition(".")[2], len(order))


def row(name: str) -> Verb:
    """A declared verb, with the arguments that its Request has."""
    handler, fields = declared[name]
    *_, request, _ = handler.__annotations__.values()
    args = [_arg(field) for field in msgspec.structs.fields(request)]
    sentence, _, rest = (handler.__doc__ or "").partition("\n\n")
    summary = " ".join(sentence.split()).removesuffix(".")
    runs = fields.get("runs", "step")
    verb = Verb(
        name,
        summary[:1].lower() + summary[1:],
        handler=f"{handler.__module__}:{handler.__name__}",
        args=tuple(arg for arg in args if arg.help),
        data=tuple(arg for arg in args if not arg.help),
        examples=tuple(re.findall(r"^ *((?:muster|source) .*)$", rest, re.MULTILINE)),
        **{"runs": runs, "on": "none" if runs == "client" else "many", **fields},
    )
    for field, kinds in (("auth", Auth), ("runs", Runs), ("target", Target)):
        if getattr(verb, field) not in get_args(kinds):
            raise ValueError(f"{name}: there is no {field} {getattr(verb, field)!r}")
    if verb.group not in ("", *verbs.GROUPS):
        raise ValueError(f"{name}: there is no group {verb.group!r}")
    return verb


def _arg(field: Any) -> Arg:
    """A field of a Request, as the table has it."""
    base, metas = _bare(field.type)
    more: dict[str, Any] = {"name": field.encode_name, "help": "", "required": field.required}
    for meta in metas:
        given = {"help": meta.description, "low": meta.ge, "high": meta.le, **(meta.extra or {})}
        more.update({key: value for key, value in given.items() if value is not None})
    if get_origin(base) is Literal:
        more["choices"] = get_args(base)
    elif "kind" not in more:
        more["kind"] = _KINDS.get(base, "data")
    if not field.required and isinstance(field.default, str | int):
        more["default"] = field.default
    return Arg(**more)


def _bare(type: Any) -> tuple[Any, list[msgspec.Meta]]:
    """A type without what is annotated to it, and that."""
    if get_origin(type) is Annotated:
        inner, *metas = get_args(type)
        base, found = _bare(inner)
        return base, [*found, *metas]
    if get_origin(type) in {types.UnionType, Union}:
        some = [each for each in get_args(type) if each is not types.NoneType]
        if len(some) == 1:
            return _bare(some[0])
    return type, []


def text(found: Iterable[Verb]) -> str:
    """The table as a file: a verb a line, without what is usual."""
    lines = [msgspec.json.encode(_short(verb)).decode() for verb in found]
    return "[\n" + ",\n".join(lines) + "\n]\n"


def _short(row: Any) -> dict[str, Any]:
    """The fields of a row that are not as usual."""
    usual = row._field_defaults
    return {
        name: [_short(each) if hasattr(each, "_fields") else each for each in value]
        if isinstance(value, tuple)
        else value
        for name, value in row._asdict().items()
        if name not in usual or value != usual[name]
    }


if __name__ == "__main__":
    if "<<<<<<<" in PATH.read_text(encoding="utf-8"):
        # What a merge left in it must not keep the modules of verbs from being imported.
        PATH.write_text("[]", encoding="utf-8")
    from tools import agent_tools  # it reads what this module knows

    verbs_found = rows()
    PATH.write_text(text(verbs_found), encoding="utf-8")
    agent_tools.PATH.write_text(agent_tools.text(verbs_found), encoding="utf-8")
