"""The command line: from words to a verb and its arguments.

Rule 1: only the parser of the verb that is asked for is built; a command starts quickly.
Rule 2: `--json`, `--on` and `--home` may stand before or after the verb.
Rule 3: whatever cannot be understood is one sentence, and exit code 2.
"""

import argparse
import functools
import itertools
import os
import re
import sys
from collections.abc import Collection, Mapping, Sequence
from typing import Any, Final, NamedTuple, NoReturn

from muster import __version__
from muster.cli.text import nearest
from muster.limits import FRAME_PAYLOAD_BYTES_MAX
from muster.node.verb import Arg, Verb
from muster.verbs.table import VERBS

USAGE_EXIT: Final = 2
# What is ordered of a machine, and changes something there.
_ORDERED: Final = ("order", "agent")
_VALUED: Final = ("--on", "--home", "-o", "--output")
# Labels begin with a letter; an option of one letter, alone or with its value, stays one.
_TAKEN: Final = r"-(?![hoy]$|o(json|wide|name)$)[a-z0-9][a-z0-9-]*"
# What makes a verb do what it refuses otherwise is not suggested for a mistake.
_DARING: Final = frozenset({"--yes", "-y", "--force", "-f", "--last", "--anyway"})
_COMMON: Final = (
    ("--json", "print the answer as JSON"),
    ("-o SHAPE", "json, wide (every column, whole) or name (the names in a list alone)"),
    ("--on MACHINE", "let another machine do it: a name, mostly also a,b `all` label=X role=X"),
    ("--home FOLDER", "the home of this machine (default: $MUSTER_HOME)"),
    ("--no-pager", "show what is longer than the screen without a pager ($MUSTER_PAGER, $PAGER)"),
)


class Usage(Exception):
    """The command line makes no sense; the text says why."""


class Shown(Exception):
    """What was asked for is a text: help, the version."""


class Command(NamedTuple):
    """A command that makes sense. `files` are the names of arguments that were read from files."""

    verb: Verb
    args: dict[str, Any]
    options: dict[str, Any]
    files: dict[str, str]
    json: bool
    on: str
    home: str
    # Whether it is to be done without asking first.
    yes: bool = False
    # How the answer is shown: "" as usual, wide, or name.
    output: str = ""
    # Whether it is shown again whenever it changed.
    watch: bool = False
    # Whether what is longer than the screen may go through a pager.
    paged: bool = True
    # Whether it is only said what would be asked of whom.
    plan: bool = False


def wants_json(words: Sequence[str]) -> bool:
    """Whether a script reads what is printed, also where the words make no sense."""
    words = words[: _end(words)]
    pairs = itertools.pairwise(words)
    valued = any(name in ("-o", "--output") and value == "json" for name, value in pairs)
    return valued or not {"--json", "-ojson", "--output=json"}.isdisjoint(words)


def parse(words: Sequence[str]) -> Command:
    """What the words ask for. Raises Usage and Shown."""
    verb, rest = _verb_of(words)
    rest, behind = _behind(verb, rest)
    parser = _parser(verb, rest)
    found = parser.read(_minus(verb, rest))
    # As they are called, `no-follow`, not as argparse has to name them.
    found |= {a.name: found[a.name.replace("-", "_")] for a in verb.args if not a.behind} | behind
    _check_action(verb, found, parser.given)
    _check_common(verb, found)
    files = {a.name: found[a.name] for a in verb.args if a.kind == "file" and found[a.name]}
    files = {arg: "standard input" if name == "-" else name for arg, name in files.items()}
    args, options = _values(verb, found, parser.given)
    output = found["output"]
    return Command(
        verb, args, options, files, found["json"] or output == "json", found["on"], found["home"],
        bool(verb.destroys and found["yes"]), output.removeprefix("json"),
        bool(verb.watches and found["watch"]), not found["no_pager"],
        bool(verb.auth in _ORDERED and found["plan"]),
    )  # fmt: skip


def _verb_of(words: Sequence[str]) -> tuple[Verb, list[str]]:
    """The verb, and all other words in their order. Raises: Usage, Shown."""
    name, rest, at = None, list(words), 0
    while at < len(rest) and name is None:
        if rest[at].startswith("-"):
            at += 2 if rest[at] in _VALUED else 1
        else:
            name = rest.pop(at)
    if name is None:
        if "--version" in words or "-V" in words:
            raise Shown(f"muster {__version__}\n")
        if not words or "--help" in words or "-h" in words:
            raise Shown(_overview(whole="--all" in words or "-a" in words))
        raise Usage(f"{words[0]} alone asks for nothing; `muster --help` lists what can be asked")
    if name == "help":
        # What other programs answer to: `muster help`, `muster help VERB`.
        if rest[:1] in ([], ["--all"], ["-a"]):
            raise Shown(_overview(whole=bool(rest)))
        return _verb_of([*rest[:1], "--help"])
    verb = VERBS.get(name)
    if verb is None:
        harmless = [verb.name for verb in VERBS.values() if verb.harmless]
        near = nearest(name, harmless, 2, 0.6)
        hint = f"did you mean {near}?" if near else "`muster --help` lists the verbs"
        raise Usage(f"there is no verb {name[:60]!r}; {hint}")
    return verb, rest


def _overview(*, whole: bool) -> str:
    from muster.cli.overview import overview  # noqa: PLC0415 - nobody does anything with it

    return overview(_COMMON, whole=whole)


def _behind(verb: Verb, words: list[str]) -> tuple[list[str], dict[str, list[str]]]:
    """The words of Muster, and those of a program that stand behind `--`, by their argument.

    Raises: Usage where there are none.
    """
    name = next((arg.name for arg in verb.args if arg.behind), "")
    if not name or not {"--help", "-h"}.isdisjoint(words[: _end(words)]):
        return words, {}
    end = _end(words)
    if not words[end + 1 :]:
        raise Usage(f"{verb.name}: what is to be run stands behind --, as in `{verb.examples[0]}`")
    return words[:end], {name: words[end + 1 :]}


def _end(words: Sequence[str]) -> int:
    return words.index("--") if "--" in words else len(words)


def _minus(verb: Verb, words: list[str]) -> list[str]:
    """The words with `-NAME` as `NAME-`, where that is no option and takes something away."""
    actions = {action for arg in verb.args for action in arg.minus}
    end = _end(words)
    if actions.isdisjoint(words[:end]):
        return words
    taken = (f"{w[1:]}-" if re.fullmatch(_TAKEN, w) else w for w in words[:end])
    return [*taken, *words[end:]]


def means_several(on: str) -> bool:
    """Whether what `--on` says may be more than one machine."""
    return re.match("all$|(label|role)=|.*,", on) is not None


def _check_common(verb: Verb, found: Mapping[str, Any]) -> None:
    """What only some verbs understand of what any may be given. Raises: Usage."""
    on, output = found["on"], found["output"]
    several = means_several(on)
    if on and verb.of_machine and verb.on == "none":
        raise Usage(f"{verb.name} names its machine itself: leave --on {on[:60]} out")
    if verb.on == "one" and several and found.get("action") not in verb.each:
        raise Usage(
            f"{verb.name} goes to one machine, and {on[:60]} means several: give its name "
            "(`muster machines` lists them), once for each"
        )
    if verb.watches and found.get("watch") and several:
        raise Usage(f"--watch shows one machine, and --on {on[:60]} means several")
    if output == "name" and not verb.names:
        some = "`, `".join(each.name for each in VERBS.values() if each.names and not each.hidden)
        raise Usage(f"{verb.name} lists nothing that has a name; -o name is for `{some}`")
    if output not in ("", "json") and found["json"]:
        raise Usage(f"-o {output} is for people and --json for scripts: give one of them")


def _values(
    verb: Verb, found: Mapping[str, Any], given: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The arguments of a call, and its options, which nobody signs. Raises: Usage."""
    args: dict[str, Any] = {}
    options: dict[str, Any] = {}
    for arg in verb.args:
        value = found[arg.name]
        if arg.required and value is None:
            raise Usage(f"{verb.name} needs --{arg.name}: {arg.help}")
        if arg.required and value != 0 and not "".join(value).strip():
            raise Usage(
                f"{verb.name}: {arg.name.upper()} is empty; see `muster {verb.name} --help`"
            )
        # A zero is an answer, though it equals False.
        # An empty text that was typed is an answer where one may be: `--listen ''` opens no port.
        said = arg.empty and arg.name in given
        if (value is False or value in (None, "", [])) and not arg.required and not said:
            continue
        target = options if arg.unsigned else args
        if arg.kind == "file":
            value = read_file(value)
        elif (
            # The daemon stands elsewhere, so a folder is said whole; an address stays what it is.
            arg.kind == "place"
            and not found["on"]
            and (os.path.exists(value) or not re.match(r"[^/]*:", value))
        ):
            value = os.path.abspath(os.path.expanduser(value))
        target[arg.name] = value
    return args, options


def _check_action(verb: Verb, found: Mapping[str, Any], given: Collection[str]) -> None:
    """What one action of a verb needs, and what belongs to its other actions. Raises: Usage."""
    action = found.get("action")
    for arg in verb.args:
        named = arg.name.upper() if arg.position else f"--{arg.name}"
        dest = arg.name.replace("-", "_")
        said = dest in given if arg.kind != "flag" and not arg.position else found[dest]
        if arg.actions and said and action not in arg.actions:
            whose = " and ".join(f"`muster {verb.name} {each}`" for each in arg.actions)
            raise Usage(f"{verb.name} {action} takes no {named}: that is for {whose}")
        if action in arg.needed and not said:
            raise Usage(
                f"{verb.name} {action} needs {named}: {arg.help}; see `muster {verb.name} --help`"
            )


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing and leaving. `given` are the options that were typed."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**more)
        self.given: set[str] = set()
        self.odd: list[str] = []

    def read(self, words: Sequence[str]) -> dict[str, Any]:
        """What the words say. Raises: Usage."""
        known = self._option_string_actions
        like = [word for word in words if re.match("--?[A-Za-z]", word)]
        self.odd = [word for word in like if word.partition("=")[0] not in known]
        found, left = self.parse_known_args(words)
        if left and self.odd:
            self._refuse_option(self.odd[0])
        if left:
            self.error(f"{left[0][:60]!r} is one word too many")
        return vars(found)

    def _refuse_option(self, word: str) -> NoReturn:
        name = word.partition("=")[0]
        near = nearest(name, self._option_string_actions.keys() - _DARING, 1, 0.7)
        hint = f"did you mean {near}" if near else "a text that begins with - stands behind --"
        self.error(f"there is no option {name[:60]!r}; {hint}")

    def error(self, message: str) -> NoReturn:
        if self.odd and "are required:" in message:
            # The word that is missing was taken for an option.
            odd, self.odd = self.odd[0], []
            self._refuse_option(odd)
        verb = self.prog.partition(" ")[2]
        raise Usage(f"{verb}: {message}; see `{self.prog} --help`")

    def print_help(self, _file: Any = None) -> NoReturn:
        shown = "".join(f"  {line}\n" for line in VERBS[self.prog.partition(" ")[2]].examples)
        raise Shown(self.format_help() + (f"\nfor example:\n{shown}" if shown else ""))


class _Option(argparse.Action):
    """An option with a value: one that is not empty, and, where it is not a list, only once.

    The second of two would count, and an empty one would count as none: `down --on "$HOST"` would
    stop this machine where the variable was never set.
    """

    def __init__(
        self, *names: Any, several: bool = False, empty: bool = False, **more: Any
    ) -> None:
        super().__init__(*names, **more)
        self.several, self.empty = several, empty

    def __call__(self, parser: Any, found: Any, value: Any, name: str | None = None) -> None:
        if value == "" and not self.empty:
            parser.error(f"{name} is empty: give it a value, or leave it out")
        if not self.several and self.dest in parser.given:
            parser.error(f"{name} is given twice; give it once")
        parser.given.add(self.dest)
        kept = [*(getattr(found, self.dest) or ()), value] if self.several else value
        setattr(found, self.dest, kept)


def _number(text: str) -> int:
    """A whole number that every reader of the log reads alike."""
    if not re.fullmatch(r"[-+]?[0-9]{1,15}", text):
        raise argparse.ArgumentTypeError(f"{text[:40]!r} is no whole number of at most 15 digits")
    return int(text)


def _parser(verb: Verb, words: Collection[str]) -> _Parser:
    parser = _Parser(
        prog=f"muster {verb.name}",
        description=verb.summary[:1].upper() + verb.summary[1:] + ".",
        epilog="".join(f"behind --, {a.name.upper()}: {a.help}" for a in verb.args if a.behind),
        allow_abbrev=False,
    )
    # Optional words end at an option that stands between them: those that an action needs do not.
    strict = {w for w in words if any(a.needed for a in verb.args if a.kind == "words")}
    for arg in (arg for arg in verb.args if not arg.behind):
        names, more = _argument(arg, arg.required or not strict.isdisjoint(arg.needed))
        parser.add_argument(*names, **more)
    if verb.destroys:
        script = "only a terminal is asked"
        if not all(loss.urgent for loss in verb.destroys):
            script = "a script has to say so"
        yes = f"do not ask first before what cannot be undone: {script}"
        parser.add_argument("-y", "--yes", action="store_true", help=yes)
    if verb.watches:
        again = "show it again whenever it changes, until Ctrl-C"
        parser.add_argument("-w", "--watch", action="store_true", help=again)
    if verb.auth in _ORDERED:
        plan = "say what would be ordered of which machines, and send nothing"
        parser.add_argument("--plan", action="store_true", help=plan)
    common = parser.add_argument_group("for every verb")
    common.add_argument("--json", action="store_true", help=_COMMON[0][1])
    common.add_argument(
        "-o", "--output", action=_Option, default="", choices=("json", "wide", "name"),
        help=_COMMON[1][1],
    )  # fmt: skip
    common.add_argument("--no-pager", action="store_true", help=_COMMON[-1][1])
    # Elsewhere it is answered with a sentence, and not offered.
    on = "let another machine do it: its name"
    several = verb.on == "many" or verb.each
    on += ", several with commas, `all`, label=NAME or role=NAME" if several else ""
    on = argparse.SUPPRESS if verb.on == "none" else on
    common.add_argument("--on", action=_Option, default="", metavar="MACHINE", help=on)
    common.add_argument("--home", action=_Option, default="", metavar="FOLDER", help=_COMMON[3][1])
    for arg in verb.args:
        if arg.behind:
            usage = parser.format_usage().removeprefix("usage: ").rstrip()
            parser.usage = f"{usage} -- {arg.name.upper()}..."
    return parser


def _argument(arg: Arg, required: bool) -> tuple[list[str], dict[str, Any]]:
    """How argparse is told of an argument."""
    more: dict[str, Any] = {"help": arg.help.replace("%", "%%")}
    if arg.choices:
        # What need not be given is not offered as an empty word.
        more["choices"] = [each for each in arg.choices if each]
    if arg.kind == "int":
        more["type"] = _number
    if arg.kind != "flag":
        more["metavar"] = None if arg.choices else arg.name.upper()
    if arg.position:
        if arg.kind == "words":
            more["nargs"] = "+" if required else "*"
        elif not required:
            more["nargs"] = "?"
        if not required:
            # Without one, argparse would name it among the words that are missing.
            more["default"] = None
        return [arg.name], more
    if arg.kind == "flag":
        more["action"] = "store_true"
    else:
        several = arg.kind == "words"
        more["action"] = functools.partial(_Option, several=several, empty=arg.empty)
        more["default"] = None if several else arg.default
    return [*([f"-{arg.short}"] if arg.short else []), f"--{arg.name}"], more


def read_file(name: str) -> str:
    """The text of a file, `-` for standard input. Raises Usage."""
    shown = repr(name) if not name.isprintable() else name
    # What could be of use, and one byte.
    room = FRAME_PAYLOAD_BYTES_MAX + 1
    try:
        if name == "-":
            raw = sys.stdin.buffer.read(room)
        else:
            handle = os.open(name, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0))
            # Only the opening must not wait, as for a pipe that nobody writes to: it is empty.
            os.set_blocking(handle, True)
            with open(handle, "rb") as file:
                raw = file.read(room)
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise Usage(f"{shown} cannot be read: {why}") from error
    if len(raw) > FRAME_PAYLOAD_BYTES_MAX:
        raise Usage(f"{shown} is more than {FRAME_PAYLOAD_BYTES_MAX} bytes: too large for a spec")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise Usage(f"{shown} is not UTF-8 text (byte {error.start})") from error
