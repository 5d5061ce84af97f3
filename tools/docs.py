"""`make docs`: what can be asked of Muster, as a page for people and as OpenAPI for programs.

python -m tools.docs            # writes docs/verbs.md and docs/openapi.json
"""

import types
from collections.abc import Generator
from pathlib import Path
from typing import Any, Final, Union, get_args, get_origin

import msgspec

from muster import __version__, verbs
from muster.node.verb import Arg, Later, Verb
from muster.verbs.client import Finding
from muster.verbs.declaration import declared
from tools.table import rows

DOCS: Final = Path(__file__).parent.parent / "docs"
_HEAD: Final = """# Verbs

What can be asked of Muster, made by `make docs` out of what `src/muster/verbs/` declares.
`muster VERB --help` says the same on the command line; [calls.md](spec/calls.md) has the bytes;
`make docs` writes openapi.json beside this page. An answer is shown as `--json` prints it; `?`
marks what may be missing. Programs ask for the verbs at the end.
"""
_MARKS: Final = (Later, Finding)
_WHO: Final = {
    "nothing": "anybody",
    "peer": "a machine of the fleet, over its own link",
    "local": "whoever sits at this machine",
    "order": "an operator, or whom an operator granted it",
    "agent": "an operator, or whom an operator granted it, or the agent of a running task",
}


def page() -> str:
    """The page of all verbs."""
    parts, found = [_HEAD], rows()
    for title in (*verbs.GROUPS, ""):
        parts.append(f"## {title or 'For programs'}\n")
        parts += [_section(verb) for verb in found if verb.group == title]
    return "\n".join(parts)


def _section(verb: Verb) -> str:
    lines = [f"### {verb.name}\n", f"{verb.summary[0].upper()}{verb.summary[1:]}."]
    lines.append(f"For {_WHO[verb.auth]}.\n")
    lines += [f"- {_argument(arg)}" for arg in (*verb.args, *verb.data)]
    if verb.destroys:
        lines.append("- `-y`, `--yes`: do not ask first; without a terminal it is refused else")
    if verb.name in declared:
        shown = (_shape(*_schema(answer)) for answer in _answers(verb.name))
        lines.append(f"- answers `{' or '.join(shown) or 'later, or nothing'}`")
    lines += ["", *(f"    {line}" for line in verb.examples)] if verb.examples else []
    return "\n".join(lines) + "\n"


def _argument(arg: Arg) -> str:
    name = arg.name.upper() if arg.position else f"--{arg.name}" if arg.help else arg.name
    short = f"`-{arg.short}`, " if arg.short else ""
    sort = " or ".join(arg.choices) or arg.kind
    needed = ", required" if arg.required and not arg.position else ""
    bounds = f", {arg.low} to {arg.high}" if arg.low is not None else ""
    return f"{short}`{name}` ({sort}{needed}{bounds}){': ' if arg.help else ''}{arg.help}"


def _answers(name: str) -> list[Any]:
    """The types of an answer; that it comes later, or is a bad one, is no part of them."""
    answer = declared[name].handler.__annotations__["return"]
    if get_origin(answer) is Generator:
        answer = get_args(answer)[-1]
    union = get_origin(answer) in {types.UnionType, Union}
    return [each for each in (get_args(answer) if union else (answer,)) if each not in _MARKS]


def _schema(type: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    (shape,), parts = msgspec.json.schema_components((type,), ref_template="{name}")
    return shape, parts


def _shape(shape: dict[str, Any], parts: dict[str, Any]) -> str:
    """A schema as a line."""
    if "$ref" in shape:
        return _shape(parts[shape["$ref"]], parts)
    if "enum" in shape:
        return " or ".join(f'"{each}"' for each in shape["enum"])
    if "anyOf" in shape:
        return " or ".join(_shape(each, parts) for each in shape["anyOf"])
    if "properties" in shape:
        must = shape["required"]
        fields = [
            f"{name}{'' if name in must else '?'}: {_shape(each, parts)}"
            for name, each in shape["properties"].items()
        ]
        return f"{{{', '.join(fields)}}}"
    if shape.get("type") == "array":
        return f"[{_shape(shape.get('items') or {}, parts)}]"
    if isinstance(shape.get("additionalProperties"), dict):
        return f"{{…: {_shape(shape['additionalProperties'], parts)}}}"
    return str(shape.get("type", "any"))


def openapi() -> dict[str, Any]:
    """Every verb as a POST of its Request, as OpenAPI 3.1 has it."""
    found = [verb for verb in rows() if verb.name in declared and verb.runs != "client"]
    sorts: list[Any] = []
    for verb in found:
        *_, request, _ = declared[verb.name].handler.__annotations__.values()
        sorts += [request, *_answers(verb.name)]
    shapes, parts = msgspec.json.schema_components(
        sorts, ref_template="#/components/schemas/{name}"
    )
    paths, next_shape = {}, iter(shapes)
    for verb in found:
        body = next(next_shape)
        some = [next(next_shape) for _ in _answers(verb.name)]
        answer = some[0] if len(some) == 1 else {"anyOf": some} if some else {}
        paths[f"/{verb.name}"] = {
            "post": {
                "operationId": verb.name,
                "summary": verb.summary,
                "tags": [verb.group or "For programs"],
                "x-auth": verb.auth,
                "requestBody": {"required": True, **_content(body)},
                "responses": {"200": {"description": "The answer.", **_content(answer)}},
            }
        }
    return {
        "openapi": "3.1.0",
        "info": {"title": "Muster", "version": __version__},
        "paths": paths,
        "components": {"schemas": parts},
    }


def _content(shape: dict[str, Any]) -> dict[str, Any]:
    return {"content": {"application/json": {"schema": shape}}}


if __name__ == "__main__":
    (DOCS / "verbs.md").write_text(page(), encoding="utf-8")
    (DOCS / "openapi.json").write_bytes(msgspec.json.format(msgspec.json.encode(openapi())))
