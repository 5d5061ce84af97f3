"""What the command line says of itself: its version, and how a word goes on.

A shell gets a few lines that ask the hidden verb `complete`, which reads the table of verbs and
asks the daemon: a script that was installed once knows verbs that came later, tasks and machines.
"""

import contextlib
import glob
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from muster import __version__
from muster.errors import MusterError
from muster.node.verb import Verb
from muster.verbs.declaration import Context, Nothing, Request, Words, opt, pos, verb
from muster.verbs.table import VERBS

_COMMON: Final = {
    "--json": "flag", "--output": "shape", "--on": "machine", "--home": "place",
    "--no-pager": "flag", "--help": "flag",
}  # fmt: skip
# The verb that lists what a kind of argument may name; which field is the name, it says itself.
_SOURCES: Final = {
    "machine": "machines",
    "task": "tasks",
    "run": "runs",
    "message": "inbox",
    "thread": "threads",
    "incident": "incidents",
    "question": "questions",
    "repository": "repo.list",
    "operator": "operators",
}
_ID_CHARS: Final = 12
_ID: Final = re.compile("[0-9a-f]{32,64}")
# Where a row says what it is.
_TOLD: Final = ("name", "phase", "title", "text", "state")
_GIT_S: Final = 1.0
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
  local name told
  local -a names shown
  while IFS=$'\\t' read -r name told; do
    names+=("$name"); shown+=("$name${told:+  -- $told}")
  done < <(muster complete -- "${(@)words[2,CURRENT]}" 2>/dev/null)
  (( $#names )) && compadd -l -d shown -a names
}
if [ "$funcstack[1]" = _muster ]; then _muster "$@"; else compdef _muster muster; fi
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
    install: Annotated[bool, opt("write it where the shell looks for it, and say where")] = False


@verb("completion", auth="local", runs="client", group="What is true", harmless=True)
def completion(context: Context, ask: Shell) -> str:
    """Print a script that completes commands in your shell.

    It completes verbs, options, machines, tasks, runs, repositories, branches, specs and more.

        muster completion bash --install
        source <(muster completion bash)
    """
    script = _SCRIPTS[ask.shell]
    if not ask.install:
        return script
    home = Path.home()
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    path = {
        "bash": data / "bash-completion" / "completions" / "muster",
        "zsh": data / "zsh" / "site-functions" / "_muster",
        "fish": config / "fish" / "completions" / "muster.fish",
    }[ask.shell]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(script, encoding="utf-8")
    more = f"; ~/.zshrc needs, before compinit: fpath=({path.parent} $fpath)"
    return f"written to {path}{more if ask.shell == 'zsh' else ''}; new shells know it"


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
            kinds["-o"] = "shape"
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
        if found is not None:
            common += ["--plan"] * (found.auth in ("order", "agent"))
            common += ["--yes"] * bool(found.destroys) + ["--watch"] * bool(found.watches)
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
        found = sorted(glob.glob(glob.escape(current) + "*"))
        # Every file that a verb reads is a spec; where none is called so, any may be one.
        specs = [f for f in found if f.endswith((".yaml", ".yml")) or os.path.isdir(f)]
        for path in (specs if kind == "file" else []) or found:
            yield path + "/" * os.path.isdir(path), ""
    elif kind == "template":
        from muster.verbs import template  # noqa: PLC0415 - only for these

        yield from ((each.name, each.title) for each in template.everything())
    elif kind == "secret":
        from muster.node.host.secret_store import SecretStore  # noqa: PLC0415 - only for these

        # A completion has no place for an error: it proposes nothing.
        with contextlib.suppress(MusterError):
            yield from ((name, "") for name in SecretStore(context.home.path).known())
    elif kind == "shape":
        yield from ((name, "") for name in ("json", "wide", "name"))
    elif kind == "branch":
        yield from ((name, "") for name in _branches())
    elif kind == "agent":
        for row in _rows(context, "machines"):
            yield from (
                (str(name), str(row["name"])) for name in (row["facts"] or {}).get("agents", ())
            )
    elif kind in _SOURCES:
        verb = _SOURCES[kind]
        for row in _rows(context, verb):
            name = str(row.get(VERBS[verb].names or "name") or "")
            told = next((str(row[field]) for field in _TOLD if row.get(field)), "")
            if name:
                yield (
                    name[:_ID_CHARS] if _ID.fullmatch(name) else name,
                    "" if told == name else told,
                )


def _rows(context: Context, verb: str) -> list[dict[str, Any]]:
    """What a list has; nothing without a daemon, for nobody is here to be told."""
    try:
        rows: list[dict[str, Any]] = context.ask(verb, {})
    except MusterError:
        return []
    return rows


def _branches() -> list[str]:
    """The branches of the repository in which the person stands."""
    import subprocess  # noqa: PLC0415 - only for these

    words = ["git", "for-each-ref", "--count=200", "--format=%(refname:short)", "refs/heads"]
    try:
        done = subprocess.run(words, capture_output=True, timeout=_GIT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return done.stdout.decode(errors="replace").split()
