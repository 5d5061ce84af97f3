"""What the command line says of itself: its version, and how a word goes on.

A shell gets a few lines that ask the hidden verb `complete`, which reads the table of verbs and
asks the daemon: a script that was installed once knows verbs that came later, tasks and machines.
"""

import contextlib
import glob
import os
from collections.abc import Iterator, Sequence
from typing import Annotated, Final, Literal

from muster import __version__
from muster.errors import MusterError
from muster.node.verb import Verb
from muster.verbs.declaration import Context, Nothing, Request, Words, pos, verb
from muster.verbs.table import VERBS

_COMMON: Final = {"--json": "flag", "--on": "machine", "--home": "file", "--help": "flag"}
# Which verb knows what a kind of argument may be, and the field that is its name.
_SOURCES: Final = {
    "machine": ("machines", "name"),
    "task": ("tasks", "task"),
    "run": ("runs", "run"),
    "message": ("inbox", "message"),
    "thread": ("threads", "thread"),
    "incident": ("incidents", "id"),
    "repository": ("repo.list", "name"),
}
_NAMED: Final = frozenset({"machine", "thread", "repository"})
_ID_CHARS: Final = 12
_SCRIPTS: Final = {
    "bash": """\
# muster completion bash > ~/.local/share/bash-completion/completions/muster
_muster() {
  mapfile -t COMPREPLY < <(muster complete -- "${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null | cut -f1)
}
complete -o filenames -F _muster muster
""",
    "zsh": """\
#compdef muster
# muster completion zsh > "${fpath[1]}/_muster"
_muster() {
  compadd -- ${(f)"$(muster complete -- "${(@)words[2,CURRENT]}" 2>/dev/null | cut -f1)"}
}
compdef _muster muster
""",
    "fish": """\
# muster completion fish > ~/.config/fish/completions/muster.fish
function _muster
  muster complete -- (commandline -opc)[2..] (commandline -ct) 2>/dev/null
end
complete -c muster -f -a '(_muster)'
""",
}


@verb("version", auth="local", runs="client", group="What is true", harmless=True)
def version(context: Context, ask: Nothing) -> str:
    """The version.

    muster version
    """
    return f"muster {__version__}"


class Shell(Request, frozen=True):
    shell: Annotated[Literal["bash", "zsh", "fish"], pos("bash, zsh or fish")]


@verb("completion", auth="local", runs="client", group="What is true", harmless=True)
def completion(context: Context, ask: Shell) -> str:
    """Print a script that completes commands in your shell.

    Its first line says how it is installed.

        source <(muster completion bash)
    """
    return _SCRIPTS[ask.shell]


class Line(Request, frozen=True):
    words: Annotated[Words, pos("what stands behind muster, the last word to be gone on with")] = ()


@verb("complete", auth="local", runs="client")
def complete(context: Context, ask: Line) -> str:
    """How the last of these words may go on, each with what it is."""
    *before, current = ask.words or ("",)
    found = _candidates(context, before, current)
    return "\n".join(f"{name}\t{help}" for name, help in found if name.startswith(current))


def _candidates(context: Context, before: Sequence[str], current: str) -> Iterator[tuple[str, str]]:
    found: Verb | None = None
    places, kind = 0, ""
    for word in before:
        if kind:
            # It is the value of the option before it.
            kind = ""
        elif word.startswith("-"):
            kinds: dict[str, str] = dict(_COMMON)
            kinds.update(
                (f"--{arg.name}", arg.kind) for arg in (found.args if found is not None else ())
            )
            kind = "" if kinds.get(word, "flag") == "flag" else kinds[word]
        elif found is None:
            found = VERBS.get(word)
            if found is None:
                return
        else:
            places += 1
    if kind:
        yield from _values(context, kind, current)
    elif current.startswith("-"):
        args = found.args if found is not None else ()
        here = found is not None and found.on == "none"
        common = [name for name in _COMMON if not (here and name == "--on")]
        yield from ((f"--{arg.name}", arg.help) for arg in args if not arg.position)
        yield from ((name, "") for name in (*common, *(["--version"] if found is None else ())))
    elif found is None:
        yield from ((verb.name, verb.summary) for verb in VERBS.values() if not verb.hidden)
    else:
        placed = [arg for arg in found.args if arg.position]
        # Of the last one there may be several.
        several = bool(placed) and placed[-1].kind == "words"
        for arg in placed[places : places + 1] or placed[-1:] * several:
            yield from ((each, "") for each in arg.choices)
            yield from _values(context, arg.kind, current)


def _values(context: Context, kind: str, current: str) -> Iterator[tuple[str, str]]:
    if kind in {"file", "place"}:
        for path in glob.glob(glob.escape(current) + "*"):
            yield path + "/" * os.path.isdir(path), ""
    elif kind == "template":
        from muster.verbs import template  # noqa: PLC0415 - only for these

        yield from ((each.name, each.title) for each in template.everything())
    elif kind in _SOURCES:
        verb, field = _SOURCES[kind]
        # Without a daemon there is nothing to choose from, and nobody to tell.
        with contextlib.suppress(MusterError):
            for row in context.ask(verb, {}):
                text = str(row[field])
                named = text if kind in _NAMED else text[:_ID_CHARS]
                if named:
                    yield named, row.get("name", "")
