"""What several machines are asked at once, and what would be asked of which.

Rule 1: who is meant is known before anybody is asked; a name that is nobody's ends it there.
Rule 2: a machine that is slow, away or refuses costs the others nothing: each is a call and an
order of its own, at most `AT_ONCE` at a time, and each answer stands under its machine's name.
Rule 3: the exit code is the worst of all; which machines did it and which did not is said.
Rule 4: `--plan` signs and sends nothing.

What goes on until it ends is heard from all of them at once (streams.py).
"""

import json
import queue
import re
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from muster.cli import show
from muster.cli.context import CommandContext, of_action, ready, signing
from muster.cli.parse import Command, Usage, means_several
from muster.cli.text import clean, paint, safe
from muster.errors import MISTAKES, Broken, Malformed, MusterError, NotFound, Refused, unable

AT_ONCE: Final = 8
_SORTS: Final = ("label", "role")
# All that are followed are heard at once.
FOLLOWED_MAX: Final = 64
# The beginning of an id is the same thing everywhere.
_ID: Final = re.compile("[0-9a-f]+")


def meant(rows: list[dict[str, Any]], on: str) -> list[dict[str, Any]]:
    """The machines of `muster machines` that `--on` means, each once, in the order of their names.

    Raises: NotFound where a part of it means none, Malformed where it means nothing.
    """
    rows = [each for each in rows if each["state"] != "revoked"]
    found: set[str] = set()
    for part in on.split(","):
        sort, equals, name = part.partition("=")
        if not part or (equals and not (name and sort in _SORTS)):
            raise Malformed(
                f"--on {on[:80]!r}: {part[:40]!r} is nobody; give names, label=NAME, role=NAME or "
                "all, with commas between them"
            )
        hits = {each["machine"] for each in rows if part == "all" or _is(each, sort, name)}
        if not hits:
            what = f"has the {sort} {name[:40]!r}" if equals else f"is {part[:40]!r}"
            raise NotFound(f"no machine {what}; see `muster machines`")
        found |= hits
    return [each for each in rows if each["machine"] in found]


def _is(row: Mapping[str, Any], sort: str, name: str) -> bool:
    if sort == "label":
        # One that was never up has said nothing yet.
        return name in ((row["facts"] or {}).get("labels") or ())
    if sort == "role":
        return name in row["roles"]
    return sort in (row["name"], row["machine"])


def goes_on(command: Command) -> bool:
    """Whether it is told as it happens, and not when it is over (streams.py)."""
    return command.verb.several == "tells" or bool(command.options.get("follow"))


def check_followed(command: Command, rows: list[dict[str, Any]]) -> None:
    """Raises: Refused, Usage for what cannot be followed on several."""
    if len(rows) > FOLLOWED_MAX:
        raise Refused(
            f"--on {command.on[:60]} means {len(rows)} machines, and at most {FOLLOWED_MAX} are "
            "followed at once: name fewer"
        )
    if "since" in command.args:
        raise Usage("--since is a number of one machine, and --on means several: leave one out")


def of_each(command: Command, machine: str) -> Command:
    """The command as it is meant for one of several: about runs of its own."""
    args, word = dict(command.args), command.verb.own
    if found := args.get(word):
        several = not isinstance(found, str)
        args[word] = [own(each, machine) for each in found] if several else own(found, machine)
    # Its own, for what is taken out of them on the way.
    return command._replace(on=machine, args=args, options=dict(command.options))


def own(text: str, machine: str) -> str:
    """What was typed for a run or a task, as the one that this machine owns; an id stays one.

    Of a name it is the newest run that the machine knows otherwise, whoever owns that.
    """
    name, slash, place = text.partition("/")
    return text if _ID.fullmatch(name) else f"{name}@{machine}{slash}{place}"


def everywhere(made: CommandContext) -> int:
    """The verb on each machine that is meant; the worst exit code of all."""
    command = made.command
    rows = meant(made.ask("machines", {}), made.on)
    waits, undone = command.verb.several == "waits", command.verb.undone
    if waits:
        check_followed(command, rows)
    ready(command)

    def ask(machine: str) -> tuple[Any, int]:
        one = CommandContext(of_each(command, machine) if waits else command._replace(on=machine))
        if command.verb.runs == "client":
            return one.inside()
        value = one.answer()
        return value, int(bool(undone) and any(row.get(undone) for row in value))

    def put(name: str, value: Any, code: int) -> bool:
        print(CommandContext(command._replace(on=name)).page(value))
        return not (waits and code)

    if not waits:
        return each_of(made, rows, ask, put)
    # Who waits hears of each when it is over there: nobody's turn comes after another's.
    first = bool(command.args.get("any"))
    return each_of(made, rows, ask, put, at_once=len(rows), sorted=False, first=first)


def each_of(
    made: CommandContext,
    rows: list[dict[str, Any]],
    ask: Callable[[str], tuple[Any, int]],
    put: Callable[[str, Any, int], bool],
    *,
    at_once: int = AT_ONCE,
    sorted: bool = True,
    first: bool = False,
) -> int:
    """Ask each of the machines by its id, show what came of it; the worst exit code.

    `put` shows an answer, under the name, and says whether the machine did what was asked for.
    Not `sorted`: as they come; `first`: the first answer is enough, and nobody else's is awaited.
    """
    # A name may become another machine's meanwhile.
    ids = {str(each["name"]): str(each["machine"]) for each in rows}
    names, worst, failed, answers = list(ids), 0, list[str](), dict[str, Any]()
    try:
        for name, (value, code), error in in_order(
            names, lambda name: ask(ids[name]), at_once=at_once, sorted=sorted
        ):
            worst, did = max(worst, error.exit_code if error else code), False
            if not made.json:
                print(paint(f"== {clean(name)}", "bold"))
            if error is not None:
                said = {"exit": error.exit_code, "kind": type(error).__name__, "text": str(error)}
                answers[name] = {"error": said}
                if not made.json:
                    print(safe(f"muster: {error}"))
            else:
                answers[name] = value
                did = made.json or put(name, value, code)
            failed += [] if did else [name]
            sys.stdout.flush()
            if first and error is None:
                break
    except KeyboardInterrupt:
        if made.json:
            # What was done was done, whoever else is not waited for.
            show.put_json(answers)
        if made.command.verb.auth in ("order", "agent"):
            made.perhaps(made.command.verb.name)
        raise
    if made.json:
        show.put_json(answers)
    elif failed:
        made.say(f"{len(failed)} of {len(names)} machines did not: {', '.join(failed)}", whole=True)
    return worst


def in_order(
    names: list[str],
    ask: Callable[[str], tuple[Any, int]],
    *,
    at_once: int = AT_ONCE,
    sorted: bool = True,
) -> Iterator[tuple[str, tuple[Any, int], MusterError | None]]:
    """What each is answered, or why it is not, in the order of the names, as soon as it is there;
    not `sorted`: as it comes.

    Whoever gives up waits for nobody: the threads end with the program.
    """
    left, came = iter(enumerate(names)), queue.SimpleQueue[tuple[int, Any, Exception | None]]()
    lock = threading.Lock()

    def work() -> None:
        while True:
            with lock:
                at, name = next(left, (-1, ""))
            if at < 0:
                return
            outcome: tuple[tuple[Any, int], Exception | None] = (
                (None, 0),
                Broken("it was not asked"),
            )
            try:
                outcome = ask(name), None
            except OSError as error:
                # The others' orders went: what they did is still to be said.
                outcome = (None, 0), unable(f"the operating system says: {error}", error)
            except (MusterError, *MISTAKES) as error:
                outcome = (None, 0), error
            finally:
                came.put((at, *outcome))

    for _ in range(min(at_once, len(names))):
        threading.Thread(target=work, daemon=True).start()
    there: dict[int, tuple[Any, Exception | None]] = {}
    for at in range(len(names)):
        number = at if sorted else next(iter(there), -1)
        while number not in there:
            which, value, error = came.get()
            there[which] = value, error
            number = number if sorted else which
        value, error = there.pop(number)
        if error is not None and not isinstance(error, MusterError):
            raise error
        yield names[number], value, error


def plan(made: CommandContext) -> int:
    """Show what would be ordered of which machines; 0. Raises: what would be refused at once."""
    verb, args = of_action(made.command)
    sign = signing()
    if not (verb.agents and not made.on and made.is_agent):
        sign.signer(verb.name)
    rows, meaning = made.ask("machines", {}), dict(args)
    named = str(args[verb.object]).partition(":")[0] if verb.of_machine else made.on
    of_each = verb.several == "names" and means_several(named)
    if made.many or of_each:
        whom = meant(rows, named or made.on)
    else:
        # Its object as it would be signed; beside the arguments there are only a pad and our id.
        to = sign.target(made.ask, verb, meaning, named)
        if verb.of_machine:
            meaning[verb.object] = to.machine
        whom = [each for each in rows if each["machine"] == to.machine or not to.machine]
    value: dict[str, Any] = {
        "verb": verb.name,
        # Of each order its own machine, by its id.
        "object": "*" if of_each or verb.object == "statement" else sign.object_of(verb, meaning),
        "args": args,
        "machines": [{n: each[n] for n in ("name", "machine", "state")} for each in whom],
        "loses": list(made.losses(urgent=True)),
    }
    if made.json:
        show.put_json({"plan": value})
        return 0
    count = len(whom)
    print(f"{verb.name} would be ordered of {count} machine{'s' * (count != 1)}; nothing was sent:")
    for each in whom:
        away = (
            ""
            if each["state"] in ("up", "here")
            else f"   {clean(each['state'])}: not to be asked now"
        )
        print(f"  {clean(each['name'])}{away}")
    if value["object"] != "*":
        print(f"on:   {clean(value['object'])}")
    for name, said in args.items():
        print(f"with: {clean(name)} = {clean(json.dumps(said, ensure_ascii=False)[:200])}")
    for text in value["loses"]:
        print(safe(f"lost: {text}"))
    return 0
