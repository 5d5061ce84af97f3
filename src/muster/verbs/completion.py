"""Shell completion, and the version: what can be said without any machine.

The scripts are made from the table of verbs, so they cannot name a verb that is not there.
"""

from collections.abc import Mapping
from typing import Any

from muster import __version__
from muster.node.verb import Arg, Verb
from muster.verbs.client import Door
from muster.verbs.table import VERBS

_COMMON = ("--json", "--home", "--help")


def version(_door: Door, _args: Mapping[str, Any]) -> Any:
    """What runs here."""
    return f"muster {__version__}"


def completion(_door: Door, args: Mapping[str, Any]) -> Any:
    """The script for one shell; the first line says how it is installed."""
    return {"bash": _bash, "zsh": _zsh, "fish": _fish}[str(args["shell"])]()


def _shown() -> list[Verb]:
    return [verb for verb in VERBS.values() if not verb.hidden]


def _words(verb: Verb) -> list[str]:
    choices = [choice for arg in verb.args for choice in arg.choices]
    on = ("--on",) if verb.on != "none" else ()
    return [*choices, *(f"--{arg.name}" for arg in verb.args if not arg.position), *on, *_COMMON]


def _takes_file(verb: Verb) -> bool:
    return any(_is_path(arg) for arg in verb.args)


def _is_path(arg: Arg) -> bool:
    return arg.kind in ("file", "place") or arg.name in ("path", "what", "file")


def _bash() -> str:
    cases = "\n".join(
        f'    {v.name}) words="{" ".join(_words(v))}"{" files=1" if _takes_file(v) else ""} ;;'
        for v in _shown()
    )
    return f"""\
# muster completion bash > ~/.local/share/bash-completion/completions/muster
_muster() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} verb="" words="" files="" each
  for each in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
    case $each in -*) ;; *) verb=$each; break ;; esac
  done
  case $verb in
    "") words="{" ".join(v.name for v in _shown())} --version --help" ;;
{cases}
  esac
  mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current")
  if [ -n "$files" ]; then
    mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen -f -- "$current")
  fi
}}
complete -o filenames -F _muster muster
"""


def _zsh() -> str:
    verbs = "\n".join(f"    '{v.name}:{_quoted(v.summary)}'" for v in _shown())
    cases = "\n".join(f"    ({v.name})\n{_zsh_arguments(v)}\n      ;;" for v in _shown())
    return f"""\
#compdef muster
# muster completion zsh > "${{fpath[1]}}/_muster"
_muster() {{
  local -a verbs
  verbs=(
{verbs}
  )
  if (( CURRENT == 2 )); then
    _describe verb verbs
    return
  fi
  local verb=$words[2]
  shift words
  (( CURRENT-- ))
  case $verb in
{cases}
  esac
}}
compdef _muster muster
"""


def _zsh_arguments(verb: Verb) -> str:
    parts = []
    number = 0
    for arg in verb.args:
        action = f"({' '.join(arg.choices)})" if arg.choices else "_files" if _is_path(arg) else ""
        if arg.position:
            number += 1
            place = "*" if arg.kind == "words" else str(number)
            parts.append(f"'{place}:{arg.name}:{action}'")
        elif arg.kind == "flag":
            parts.append(f"'--{arg.name}[{_quoted(arg.help)}]'")
        else:
            parts.append(f"'--{arg.name}[{_quoted(arg.help)}]:{arg.name}:{action}'")
    parts += ["'--on:machine:'"] if verb.on != "none" else []
    parts += ["'--json'", "'--home:folder:_files -/'", "'--help'"]
    return "      _arguments " + " ".join(parts)


def _fish() -> str:
    lines = [
        "# muster completion fish > ~/.config/fish/completions/muster.fish",
        "complete -c muster -f",
        "complete -c muster -l json -d 'print the answer as JSON'",
        "complete -c muster -l home -r -d 'the home of this machine'",
    ]
    for verb in _shown():
        lines.append(
            f"complete -c muster -n __fish_use_subcommand -a {verb.name} "
            f"-d '{_quoted(verb.summary)}'"
        )
        seen = f"-n '__fish_seen_subcommand_from {verb.name}'"
        if verb.on != "none":
            lines.append(f"complete -c muster {seen} -l on -x -d 'let another machine do it'")
        for arg in verb.args:
            if not arg.position:
                needs = "" if arg.kind == "flag" else " -r"
                help_ = _quoted(arg.help)
                lines.append(f"complete -c muster {seen} -l {arg.name}{needs} -d '{help_}'")
            elif arg.choices:
                lines.append(f"complete -c muster {seen} -a '{' '.join(arg.choices)}'")
        if _takes_file(verb):
            lines.append(f"complete -c muster {seen} -F")
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """Text inside single quotes of any of the shells, and inside zsh's own brackets."""
    return text.translate({ord(c): None for c in "'\\"} | {ord(c): "(" for c in "["} | {
        ord("]"): ")", ord(":"): " -"})  # fmt: skip
