"""One command at work: calls verbs, signs what must be signed, shows the answers.

Rule 1: what can be answered with one call to the socket is answered with one.
Rule 2: what several machines are to do is one call for each, one order each (several.py).
"""

import contextlib
import json
import os
import sys
from collections.abc import Iterator, Mapping
from functools import cached_property
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final

from muster.channel.ipc_client import Client
from muster.cli import call as calls
from muster.cli import pager, show, table
from muster.cli.parse import Command, means_several
from muster.cli.text import abbreviated, paint, safe
from muster.errors import Malformed, Refused, Silent, Unreachable
from muster.node.verb import Loss, Verb
from muster.verbs.table import VERBS

if TYPE_CHECKING:
    from muster.node.host.home import Home


# What shows whether an order was obeyed, where it is more than what goes on.
_TELLS: Final = {
    "run": "runs", "cancel": "runs", "retry": "tasks", "decide": "tasks",
    "send": "sent", "reply": "sent", "ack": "inbox", "thread": "threads",
    "remember": "memories", "refute": "memories", "approve": "questions",
    "invite": "machines", "role": "machines", "revoke": "machines", "machine.bind": "machines",
    "machine.rename": "machines", "machine.labels": "machines", "machine.drain": "machines",
    "machine.left": "machines", "grant": "grants", "operator.add": "operators",
    "device.add": "devices", "device.revoke": "devices", "acknowledge": "incidents",
    "silence": "incidents", "doubt.end": "incidents", "repo": "repo list", "repo.sync": "repo list",
    "repo.remove": "repo list", "repo.prune": "repo list",
}  # fmt: skip


def at_terminal() -> bool:
    """Whether a person is here who reads a question and can answer it."""
    return sys.stdin.isatty() and sys.stderr.isatty()


def _patience(
    args: Mapping[str, Any], options: dict[str, Any], within_s: float | None
) -> tuple[float | None, str]:
    """How long an answer is waited for, and what is said when that is over. Raises: Malformed."""
    timeout, expires = str(options.pop("timeout", "")), str(args.get("expires") or "")
    waits, too_late = bool(args.get("wait")), ""
    if timeout and not waits:
        raise Malformed("--timeout says how long to --wait: give both, or neither")
    if timeout or (expires and waits):
        from muster.duration import duration_of, wait_s  # noqa: PLC0415 - rarely needed

        if timeout:
            within_s = wait_s(timeout)
            too_late = (
                f"not stored there within {within_s:g} s: the message stays written "
                "down and is delivered when it can be; `muster sent` shows how far it came"
            )
        # Nobody is shown it after that: there is nothing to wait for.
        expires_s = (duration_of(expires) or 0) / 1000
        if expires_s and (within_s is None or expires_s <= within_s):
            within_s, too_late = expires_s, f"it expired after {expires}, not stored there"
    return within_s, too_late


class CommandContext:
    """See `verbs/client.py` for what verbs inside the command may ask of it."""

    # Whether the terminal is its own: what several machines tell stands there line by line.
    alone = True

    def __init__(self, command: Command) -> None:
        self.command = command
        self.json = command.json
        self.on = command.on
        self._told_mute = False
        table.Shape.wide = command.output == "wide"
        # Whether several machines are to do it.
        each = command.verb.on == "many" or command.args.get("action") in command.verb.each
        self.many = means_several(self.on) and each

    @property
    def path(self) -> str:
        """Where the daemon listens now: one that was started meanwhile may listen elsewhere."""
        return calls.socket_path(self.command.home)

    def _plain(self, verb: str, args: Mapping[str, Any]) -> Any:
        return calls.ask(self.path, verb, args, mute=self._mute)

    def _mute(self) -> None:
        if not self._told_mute:
            self._told_mute = True
            self.note("the daemon does not answer yet")

    def run(self) -> int:
        """Do what the command asks for; its exit code."""
        verb = self.command.verb
        if verb.runs == "client":
            value, code = self.inside()
            if value is not None:
                self.show(value)
            return code
        self.call()
        return 0

    def call(self) -> None:
        """Ask for the verb of the command, and show its answers."""
        command, verb = self.command, self.command.verb
        for value in self.stream(verb.name, command.args, on=command.on, options=command.options):
            if isinstance(value, dict) and value.get("state") == "waiting" and "away" in value:
                # No answer yet, but why it takes so long; a script waits for the answer alone.
                from muster.cli.show.message import waiting  # noqa: PLC0415 - rarely needed

                self.say(waiting(value, {}))
                continue
            if isinstance(value, dict) and set(value) == {"note"}:
                # About the answer, not of it: on standard error, so that a script that reads the
                # list reads the list alone.
                self.remark(str(value["note"]))
                continue
            self.show(value)

    def confirm(self) -> None:
        """Ask before what cannot be undone. Raises: Refused, also where nobody is here to answer.

        What would be refused anyway is not asked about: that error is raised here.
        """
        for text in () if self.command.yes else self.losses():
            self._ask_first(text)

    def losses(self, *, urgent: bool = False) -> Iterator[str]:
        """What cannot be undone of what is asked for, a sentence each; what is `urgent` as well."""
        args = self.command.args
        for loss in self.command.verb.destroys:
            if loss.urgent and not (urgent or at_terminal()):
                continue
            if show.holds(args, loss.when) and (found := self._lost(loss)) is not None:
                yield show.line(loss.text, {**args, **found})

    def _lost(self, loss: Loss) -> dict[str, Any] | None:
        """What the daemon says of what would be lost; None where nothing would be."""
        if not loss.asks:
            return {}
        verb, *more = loss.asks.split()
        args = self.command.args
        asked = {arg.name: args[arg.name] for arg in VERBS[verb].args if arg.name in args}
        for name, equals, ours in (word.partition("=") for word in more):
            asked[name] = args.get(ours) if equals else True
        found: dict[str, Any] | None = self._plain(verb, asked)
        return found

    def _ask_first(self, what: str) -> None:
        if not at_terminal():
            raise Refused(
                f"{what}; that is asked first, and nobody is here to answer: give --yes as well"
            )
        print(f"{safe(what)}. Go on? [y/N] ", end="", file=sys.stderr, flush=True)
        if sys.stdin.readline().strip().lower() not in ("y", "yes"):
            raise Refused("nothing was done")

    def question(self, what: str, default: str) -> str:
        if self.json or not at_terminal():
            return default
        print(f"{safe(what)} [{safe(default)}]: ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip() or default

    def inside(self) -> tuple[Any, int]:
        """The answer of a verb inside the command, and the exit code it stands for."""
        verb = self.command.verb
        if self.on and verb.on == "none":
            first = next((each for each in verb.args if each.position), None)
            if first is not None and first.kind == "machine":
                raise Refused(f"say which machine behind the verb: muster {verb.name} {self.on}")
            raise Refused(f"{verb.name} acts on the machine it is typed on; log in on {self.on}")
        from msgspec import to_builtins  # noqa: PLC0415 - a quick command needs none

        from muster.node.call.arguments import read  # noqa: PLC0415 - as above

        handler = verb.load()
        answer = handler(self, read(verb, handler, self.command.args, self.command.options))
        # A finding: the answer, and the exit code it stands for.
        value, code = answer if isinstance(answer, tuple) else (answer, 0)
        return to_builtins(value), code

    @cached_property
    def home(self) -> "Home":
        from muster.node.host.home import Home  # noqa: PLC0415 - a quick command needs none

        return Home()

    def ask(self, verb: str, args: Mapping[str, Any], **how: Any) -> Any:
        return calls.last(self.stream(verb, args, **how))

    def stream(
        self,
        verb: str,
        args: Mapping[str, Any],
        *,
        on: str = "",
        options: Mapping[str, Any] | None = None,
        within_s: float | None = None,
    ) -> Iterator[Any]:
        # What is signed may say more exactly than what was typed what it is about.
        bound, told, args = VERBS[verb], False, dict(args)
        options = dict(options or {})
        within_s, too_late = _patience(args, options, within_s)

        def still() -> None:
            nonlocal told
            if not told and not bound.followed:
                told = True
                self.say(
                    "still at it: Ctrl-C ends the waiting, not the work (`muster status` shows "
                    "what goes on)"
                )

        quick = bound.auth in ("nothing", "local") and bound.harmless and not on
        mute = self._mute if quick and not bound.followed else None
        for fields in self._authority(bound, args, on, options):
            answered = False
            try:
                for answer in calls.stream(
                    self.path, verb, args, within_s=within_s, still=still, mute=mute, **fields
                ):
                    answered = True
                    yield answer
            except KeyboardInterrupt:
                if not answered and bound.auth in ("order", "agent"):
                    self.perhaps(verb)
                raise
            except Silent as error:
                if not too_late:
                    raise
                raise Silent(too_late) from error

    @contextlib.contextmanager
    def stream_of(
        self, verb: str, args: Mapping[str, Any], on: str
    ) -> Iterator[tuple[Client, dict[str, Any]]]:
        """The link over which another machine accepted a stream of this verb, and what it told
        before that.
        """
        whole = dict(args)
        (fields,) = self._authority(VERBS[verb], whole, on, {})
        with calls.begin(self.path, verb, whole, **fields) as client:
            *told, _ = calls.answers(client, self.path, verb)
            yield client, told[0] if told else {}

    def perhaps(self, verb: str) -> None:
        """Say where to look whether an order counts whose answer nobody waited for."""
        text = f"perhaps handed in; `muster {_TELLS.get(verb, 'status')}` tells"
        self.remark(text if self.json else f"\n{text}")

    def _authority(
        self, verb: Verb, args: dict[str, Any], on: str, options: dict[str, Any]
    ) -> list[dict[str, Any]]:
        """What each call must bring beside its arguments; nearly always one call."""
        # An agent shows what it was given for its task, and signs nothing.
        if verb.agents and not on and self.is_agent:
            return [{"capability": os.environ["MUSTER_CAPABILITY"], "options": options}]
        if verb.auth in ("nothing", "local", "peer") and not on:
            return [{"options": options}]
        sign = signing()
        to = sign.target(self._plain, verb, args, on)
        signed = getattr(sign, verb.signs)(self._plain, args, to) if verb.signs else [options]
        object = str(options.pop("object", "")) or sign.object_of(verb, args)
        orders = ((each, sign.sign(verb.name, args, to, object)) for each in signed)
        return [{"on": to.machine, "options": o, "statement": order} for o, order in orders]

    @property
    def is_agent(self) -> bool:
        """Whether an agent types this, with what it was given for its task."""
        return bool(os.environ.get("MUSTER_CAPABILITY"))

    def running(self) -> bool:
        try:
            self._plain("status", {})
        except Unreachable:
            return False
        return True

    def say(self, text: str, *, whole: bool = False) -> None:
        if not self.json:
            self.remark(text if whole else abbreviated(text))

    def remark(self, text: str) -> None:
        """Something beside the answer, for people and scripts."""
        self._tell(json.dumps({"note": text}) if self.json else safe(text))

    def put(self, text: str) -> None:
        """A line of an answer that comes line by line."""
        print(text, flush=True)

    def note(self, text: str) -> None:
        if sys.stderr.isatty():
            self.say(text)

    def _tell(self, line: str) -> None:
        # A daemon that cannot say that it is up, because its log is on a full disk, is up.
        with contextlib.suppress(OSError):
            print(line, file=sys.stderr, flush=True)

    def _how(self) -> dict[str, str]:
        """What an answer does not hold: the names of files, and how much is to be shown."""
        verbose = {"verbose": "yes"} if self.command.options.get("verbose") else {}
        on = {"on": self.on} if self.on else {}
        return {**self.command.files, **verbose, **on}

    def show(self, value: Any) -> None:
        """Print one answer."""
        if self.json:
            show.put_json(value)
        elif text := self.page(value):
            # What comes piece by piece is read as it comes.
            verb = self.command.verb
            whole = verb.runs != "stream" and not verb.followed
            pager.put(f"{text}\n", paged=self.command.paged and whole)
            self._hint(value)

    def _hint(self, value: Any) -> None:
        """What may be typed next; nobody who reads the answer by a program is told."""
        row = value[0] if isinstance(value, list) and value else value
        if isinstance(row, dict) and sys.stdout.isatty() and sys.stderr.isatty():
            for each in self.command.verb.then:
                if show.holds(row, each.when):
                    self._tell(paint(show.line(each.text, row), "dim"))

    def answer(self) -> Any:
        """The answer of the verb of the command, whole; what is said beside it is not."""
        command = self.command
        verb, args = of_action(command)
        return self.ask(verb.name, args, on=command.on, options=command.options)

    def page(self, value: Any) -> str:
        """An answer as people read it, or the names in it alone."""
        verb = self.command.verb
        if self.command.output == "name":
            return "\n".join(show.names(verb, value))
        return show.text(verb.name, value, self._how())


def of_action(command: Command) -> tuple[Verb, dict[str, Any]]:
    """The verb that a command means, which its action may be, and what that is asked."""
    args = dict(command.args)
    exact = VERBS.get(f"{command.verb.name}.{args.get('action')}")
    if exact is None:
        return command.verb, args
    del args["action"]
    return exact, args


def ready(command: Command) -> None:
    """Load what signs and reads for it, before threads do (`canon.learn`). Raises: Malformed."""
    signing()
    if command.verb.runs == "client":
        from muster.node.call.arguments import read  # noqa: PLC0415 - a quick command needs none

        read(command.verb, command.verb.load(), command.args, command.options)


def signing() -> ModuleType:
    """What signs, which costs a quick command a third of its time.

    msgspec asks `typing_extensions`, which imports `inspect`, for what Python has since 3.11.
    """
    if (found := sys.modules.get("muster.cli.sign")) is not None:
        # Threads come here as well, once it is there: what is done below is for one alone.
        return found
    modules: dict[str, ModuleType | None] = sys.modules  # type: ignore[assignment]
    there = modules.setdefault("typing_extensions", None)
    try:
        from muster.cli import sign  # noqa: PLC0415 - see above
    finally:
        if there is None:
            del modules["typing_extensions"]
    return sign
