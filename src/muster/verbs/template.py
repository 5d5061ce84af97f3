"""Templates: patterns of work, each a spec in `src/muster/templates/` that `muster new` fills in.

Rule 1: a template is one YAML file, and to add one is to add one file. Its first lines are its
header, comments of a known form; a test holds every file to it, and runs it.
Rule 2: what `new` fills in is a word in angle brackets, alone in its value or on its line; where
there is nothing for it, its line goes, so that a template reads as what comes of it.

    # title: One sentence of what happens.
    # when: When one takes this one.
    # needs: What must be there.
    # steps:
    #   PHASE: What it does, in the order of the phases.
"""

import re
from importlib import resources
from typing import Annotated, Final, Literal

from msgspec import Struct

from muster.errors import Broken, NotFound
from muster.node.verb import Column
from muster.task.problem import did_you_mean, shown
from muster.verbs.declaration import Context, Request, pos, verb

USUAL: Final = "change"
"""What `muster new` takes where nobody says which."""

WORDS: Final = ("agent", "folders", "machine", "name", "needs", "repo", "test")
"""What may stand in angle brackets."""

_HEADER: Final = re.compile(
    r"# title: (?P<title>.+)\n# when: (?P<when>.+)\n# needs: (?P<needs>.+)\n# steps:\n"
    r"(?P<steps>(?:#   [a-z0-9-]+: .+\n)+)"
)
_INPUT: Final = re.compile(r"^  ([a-z0-9-]+): (.+)$", re.MULTILINE)


class Template(Struct, frozen=True):
    """`steps` are its phases by name, with what each does; `inputs` have the default of each."""

    name: str
    title: str
    when: str
    needs: str
    repository: bool
    steps: dict[str, str]
    inputs: dict[str, str]
    text: str


class Asked(Request, frozen=True):
    action: Annotated[Literal["list", "show"], pos("list or show")]
    name: Annotated[
        str, pos("a template's name", kind="template", actions=("show",), needed=("show",))
    ] = ""


@verb(
    "template", auth="local", runs="client", group="Work", harmless=True,
    columns=(Column("name", form="bold"), Column("title")),
)  # fmt: skip
def template(context: Context, ask: Asked) -> list[Template] | Template:
    """List the patterns that `muster new` knows, or show one.

    muster template list
    muster template show race
    """
    return load(ask.name) if ask.action == "show" else everything()


def names() -> list[str]:
    """The names of all templates."""
    found = (file.name for file in _FOLDER.iterdir())
    return sorted(name.removesuffix(".yaml") for name in found if name.endswith(".yaml"))


def everything() -> list[Template]:
    """All templates by name."""
    return [load(name) for name in names()]


def load(name: str) -> Template:
    """One template. Raises: NotFound."""
    known = names()
    if name not in known:
        hint = did_you_mean(name, known) or f"; there are {', '.join(known)}"
        raise NotFound(f"there is no template {shown(name)}{hint}")
    text = (_FOLDER / f"{name}.yaml").read_text(encoding="utf-8")
    header = _HEADER.match(text)
    if header is None:
        raise Broken(f"the template {name} of this installation has no header; install it anew")
    steps = re.findall(r"^#   ([a-z0-9-]+): (.+)$", header["steps"], re.MULTILINE)
    inputs = re.search(r"^inputs:\n((?:  .*\n)+)", text, re.MULTILINE)
    return Template(
        name, header["title"], header["when"], header["needs"], "\nrepo: " in text, dict(steps),
        dict(_INPUT.findall(inputs[1])) if inputs else {}, text,
    )  # fmt: skip


def filled(text: str, words: dict[str, str], header: list[str]) -> str:
    """The spec that comes of a template: its own header goes, `header` comes in its place.

    A word without a value takes its line with it; one of several lines keeps its indent.
    """
    lines = [f"# {line}".rstrip() for line in header]
    for line in text[_HEADER.match(text).end() :].splitlines():  # type: ignore[union-attr]
        found = _WORD.search(line)
        if found is None:
            lines.append(line)
        elif value := words.get(found[1], ""):
            before, after = line[: found.start()], line[found.end() :]
            indent = before if not before.strip() else " " * len(before)
            first, *rest = value.split("\n")
            lines += [f"{before}{first}{after}", *(f"{indent}{each}" for each in rest)]
        elif lines[-1].strip().startswith("#") and not line.strip().startswith("#"):
            # The comment above it was about it.
            while lines[-1].strip().startswith("#"):
                lines.pop()
    return "\n".join(lines) + "\n"


_WORD: Final = re.compile(rf"<({'|'.join(WORDS)})>")
_FOLDER: Final = resources.files("muster") / "templates"
