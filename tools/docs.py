"""`make docs`: what can be asked of Muster, as a page for people and as OpenAPI for programs.

python -m tools.docs            # writes docs/verbs.md, docs/openapi.json, docs/guide/templates.md
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
from muster.verbs.template import everything
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
    "foreign": "a machine of another fleet that was taken in, over its own link",
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
        urgent = all(loss.urgent for loss in verb.destroys)
        script = "only a terminal is asked" if urgent else "without a terminal it is refused else"
        lines.append(f"- `-y`, `--yes`: do not ask first; {script}")
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


_TEMPLATES: Final = """# Templates

Patterns of work that `muster new` fills in for your project; made by `make docs` out of the files
in `src/muster/templates/`, each of which is run by a test on real machines.

    muster new tidy                                # the template change, in the folder you are in
    muster new audit --template swarm --repo main  # for a repository of the fleet
    muster new fix --template race --print         # only shows the spec
    muster template list
    muster template show race

`muster new` looks at the project and runs nothing of it: which command runs its tests, in which
languages it is, which versions of tools it asks for. It asks the daemon which agents there are and
which repository of the fleet your folder is of. What it found, and what you have to do before the
spec runs, stands in the answer and at the top of the spec. The spec is yours from then on: every
line can be changed, and [the spec's page](../spec/spec.md) has every key.

How a project is tested is found in `Makefile`, `justfile`, `Taskfile.yml`; nox, tox, pytest and
unittest, with uv, Poetry or PDM; `package.json` with npm, pnpm, Yarn or Bun; Cargo, Go, Maven,
Gradle, CMake, Bundler, Composer, Mix and .NET. In a repository of several projects the one that
you stand in counts, else the whole, else all of them.
"""


def templates() -> str:
    """The page of all templates."""
    parts = [_TEMPLATES]
    for each in everything():
        parts.append(f"## {each.name}\n\n{each.title}\n")
        parts.append(f"- **When**: {each.when}\n- **Needs**: {each.needs}\n")
        parts += [
            f"{at}. `{name}`: {what}" for at, (name, what) in enumerate(each.steps.items(), 1)
        ]
        parts.append("")
        if each.inputs:
            parts.append("Inputs, which `--value NAME=TEXT` replaces:\n")
            parts += [f"- `{name}`: {default}" for name, default in each.inputs.items()] + [""]
    return "\n".join(parts).rstrip("\n") + "\n"


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
    (DOCS / "guide" / "templates.md").write_text(templates(), encoding="utf-8")
    (DOCS / "openapi.json").write_bytes(msgspec.json.format(msgspec.json.encode(openapi())))
