"""What several machines tell as it happens: `tail`, `logs`, `watch`, `run` and `runs --follow`.

Rule 1: each machine is a thread, with calls and orders of its own; what it says stands behind its
name, line by line, and with --json in an object that names it.
Rule 2: one that dies or refuses says so and the others go on; which they were is said at the end,
and the exit code is the worst of all.
Rule 3: all are heard at once, so there are at most `FOLLOWED_MAX`; whoever reads slowly holds up
those who tell, and no more than `_WAITING_MAX` answers are kept here.
Rule 4: what is named without an id is each machine's own (`several.own`).
"""

import queue
import sys
import threading
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from muster.cli import show, steps, table
from muster.cli.context import CommandContext, ready
from muster.cli.parse import Command
from muster.cli.several import AT_ONCE, check_followed, meant, of_each
from muster.cli.text import clean, drawn_width, paint, safe, short
from muster.errors import MISTAKES, MusterError, unable

_WAITING_MAX: Final = 64


class Said(NamedTuple):
    """What a machine told: a value, a line, or a remark; `over`: with this exit code it ended."""

    name: str
    value: Any = None
    page: Callable[[Any], str] | None = None
    text: str = ""
    remark: bool = False
    error: MusterError | None = None
    over: int | None = None
    wrong: BaseException | None = None


class Orders:
    """What is ordered of all: in whose turn, as what, and the runs that it began, by machine."""

    def __init__(self, turn: threading.BoundedSemaphore, order: Any) -> None:
        self.turn, self.order = turn, order
        self.begun: dict[str, str] = {}


class Told(CommandContext):
    """The part of a command that one machine does: what it shows goes to whoever shows all."""

    alone = False

    def __init__(self, command: Command, name: str, news: "queue.Queue[Said]") -> None:
        super().__init__(command)
        self.name, self._news = name, news

    def show(self, value: Any) -> None:
        # Made a page where all are: which ids are told apart is one list for the command.
        self._news.put(Said(self.name, value=value, page=self.page))

    def put(self, text: str) -> None:
        self._news.put(Said(self.name, text=text))

    def remark(self, text: str) -> None:
        self._news.put(Said(self.name, text=text, remark=True))


def follow(made: CommandContext) -> int:
    """Show what all of them tell until the last is over; the worst exit code of all."""
    command = made.command
    rows = meant(made.ask("machines", {}), made.on)
    check_followed(command, rows)
    # A name may become another machine's meanwhile.
    ids = {str(each["name"]): str(each["machine"]) for each in rows}
    ready(command)
    news: queue.Queue[Said] = queue.Queue(_WAITING_MAX)
    orders = Orders(
        threading.BoundedSemaphore(AT_ONCE),
        steps.ordered(made) if command.verb.name == "run" else None,
    )

    def work(name: str) -> None:
        one = Told(of_each(command, ids[name]), name, news)
        try:
            said = Said(name, over=_led(one, orders))
        except OSError as error:
            wrong = unable(f"the operating system says: {error}", error)
            said = Said(name, error=wrong, over=wrong.exit_code)
        except MusterError as error:
            said = Said(name, error=error, over=error.exit_code)
        except MISTAKES as error:
            said = Said(name, over=1, wrong=error)
        news.put(said)

    width = max(drawn_width(clean(name)) for name in ids) + 2
    table.Shape.spare = width
    for name in ids:
        threading.Thread(target=work, args=(name,), daemon=True).start()
    left, worst, failed = set(ids), 0, list[str]()
    try:
        while left:
            said = news.get()
            if said.wrong is not None:
                raise said.wrong
            _put(said, width, as_json=made.json)
            if said.over is not None:
                left.discard(said.name)
                worst = max(worst, said.over)
                failed += [said.name] if said.over else []
    except KeyboardInterrupt:
        if orders.begun:
            runs = ", ".join(f"{short(run)} on {clean(n)}" for n, run in orders.begun.items())
            made.say(f"\nwhat was begun goes on: {runs}; `muster watch ID` comes back to it",
                     whole=True)  # fmt: skip
        elif command.verb.auth == "order":
            made.perhaps(command.verb.name)
        raise
    if failed:
        made.say(f"{len(failed)} of {len(ids)} machines did not: {', '.join(sorted(failed))}",
                 whole=True)  # fmt: skip
    return worst


def _led(one: Told, orders: Orders) -> int:
    verb = one.command.verb
    if verb.name == "run":
        with orders.turn:
            found: Mapping[str, Any] = steps.begin(one, orders.order)
        orders.begun[one.name] = str(found["run"])
        return steps.followed(one, found)
    if verb.steps:
        led: int = getattr(steps, verb.name)(one)
        return led
    return one.run()


def _put(said: Said, width: int, *, as_json: bool) -> None:
    """A line or an object for what one machine said."""
    stream = sys.stderr if said.remark or said.error is not None else sys.stdout
    if as_json:
        what: dict[str, Any] = {}
        if said.error is not None:
            kind = type(said.error).__name__
            what = {"error": {"exit": said.over, "kind": kind, "text": str(said.error)}}
        elif said.remark:
            what = {"note": said.text}
        elif said.page is not None:
            what = {"value": said.value}
        if what:
            # A reader of lines reads all of them in one place.
            show.put_json({"machine": said.name, **what})
        return
    text = safe(f"muster: {said.error}") if said.error is not None else said.text
    text = said.page(said.value) if said.page is not None else text
    head = paint(f"{clean(said.name)}:", "bold")
    for line in text.splitlines():
        print(f"{head}{' ' * (width - drawn_width(clean(said.name)) - 1)}{line}", file=stream,
              flush=True)  # fmt: skip
