"""What a night was, by the fleet's own log: an account to read, its sums, and what is missing of it.

Rule: everything here comes from entries that the hub holds, each under a seal that its writer signed
(tests/e2e/checks.py). Nothing is taken from the story, but for what it expects.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, NamedTuple, Protocol

from muster.log.entry import parse
from muster.log.stream import StreamName
from muster.task import schedule as schedules
from tests.e2e.checks import Log
from tests.e2e.fleet import Machine

_DECIDED: Final = ("schedule.fire", "schedule.miss", "schedule.skip")


class Event(NamedTuple):
    """An entry of the log: when, by whom, what."""

    t: tuple[int, int]
    machine: str
    kind: str
    body: Mapping[str, Any]

    @property
    def t_ms(self) -> int:
        return self.t[0]


def held(machine: Machine) -> Iterator[Event]:
    """What a machine holds of the log, its writers by their ids."""
    log = Log(machine)
    try:
        for name, (number, _) in log.streams().items():
            for row in log.entries(number):
                entry = parse(row["header"], row["salt"], row["body"])
                body = json.loads(row["body"]) if row["body"] else {}
                moment = (entry.header.t[0], entry.header.t[1])
                yield Event(moment, StreamName.parse(name).machine, entry.header.kind, body)
    finally:
        log.close()


class Planned(Protocol):
    """What was planned of a slot (plan.py): what it becomes, and by whom."""

    @property
    def name(self) -> str: ...

    @property
    def by(self) -> str: ...

    @property
    def becomes(self) -> str: ...


class Account:
    """The entries of a fleet, in their order, and the names of what they are about."""

    def __init__(self, events: Iterable[Event], names: Mapping[str, str]) -> None:
        """`names` are those of machines and accounts, which the log calls by a number."""
        self._names = dict(names)
        self.events = sorted(events, key=lambda event: event.t)
        for event in self.of("schedule.set"):
            name = json.loads(event.body["text"])["schedule"]
            self._names[schedules.id_of(event.body["statement"])] = name
        for event in self.of("run.open"):
            self._names[event.body["run"]] = event.body["name"]
        for event in self.of("task.open"):
            run = self.name(event.body["run"])
            self._names[event.body["task"]] = f"{run}/{event.body['phase']}"
        for event in self.of("approval.ask"):
            self._names[event.body["id"]] = self.name(event.body["task"])

    def of(self, *kinds: str) -> list[Event]:
        return [event for event in self.events if event.kind in kinds]

    def name(self, id: str) -> str:
        return self._names.get(id, id[:12])

    def lines(self, shown: Callable[[int], str]) -> Iterator[str]:
        """What happened, a line each; `shown` writes a moment."""
        for event in self.events:
            tells = SENTENCES.get(event.kind)
            if tells is not None and (text := tells(self, event)):
                yield f"{shown(event.t_ms)}  {self.name(event.machine):<7} {text}"

    # --- sums ---------------------------------------------------------------------------------

    def sums(self) -> dict[str, int]:
        """What is counted of a night."""
        ended = Counter(event.body["outcome"] for event in self.of("run.settle"))
        return {
            "slots decided": len(self.of(*_DECIDED)),
            "fired": len(self.of("schedule.fire")),
            "runs done": ended["done"],
            "runs not done": len(self.of("run.open")) - ended["done"],
            "attempts begun": len(self.of("attempt.start")),
            "attempts lost": len(self.of("task.expire", "task.retry")),
            "questions answered": len(self.of("approval.answer")),
            "incidents opened": sum(self._turns("incident.open")),
            "incidents still open": len(self.open_incidents()),
            "told to a person": sum(e.body["ok"] for e in self.of("incident.notify")),
        }

    def told(self) -> set[str]:
        """The runs whose end a service took."""
        keys = {e.body["key"] for e in self.of("incident.notify") if e.body["ok"]}
        return {self.name(key.removeprefix("run:")) for key in keys if key.startswith("run:")}

    def says(self, kind: str, about: str = "", **fields: str) -> bool:
        """Whether there is such an entry, about this task, whose fields begin so."""
        return any(
            about in ("", self.about(event.body))
            and all(str(event.body.get(name, "")).startswith(text) for name, text in fields.items())
            for event in self.of(kind)
        )

    def did(self, task: str) -> list[str]:
        """The machines that it was given to, one by one."""
        given = [e.body for e in self.of("task.assign") if self.about(e.body) == task]
        return [self.name(body["machine"]) for body in given]

    def about(self, body: Mapping[str, Any]) -> str:
        return self.name(body.get("task") or body.get("id", ""))

    def _turns(self, kind: str) -> list[bool]:
        """Of each incident that was told of, whether it was not open then."""
        opened, found = set[tuple[str, str]](), []
        for event in self.of("incident.open", "incident.close"):
            key = (event.machine, event.body["key"])
            if event.kind == kind:
                found.append(key not in opened)
            (opened.add if event.kind == "incident.open" else opened.discard)(key)
        return found

    def open_incidents(self) -> list[str]:
        """Those that are not over, and that nobody said to look at."""
        last = {}
        for event in self.of("incident.open", "incident.close", "chat.acknowledge"):
            about, who = event.body.get("of", event.body), event.machine
            if event.kind == "chat.acknowledge":
                who = StreamName.parse(about["stream"]).machine
            last[who, about["key"]] = event.kind
        return [
            f"{key} of {self.name(who)}"
            for (who, key), kind in last.items()
            if kind == "incident.open"
        ]

    # --- what is missing ------------------------------------------------------------------------

    def decided(self, schedule: str, slot: int) -> list[Event]:
        """What became of a slot, by entries of whoever keeps it."""
        return [
            event for event in self.of(*_DECIDED)
            if self._of(event) == schedule and event.body["slot"] == slot
        ]  # fmt: skip

    def late_ms(self, machine: str) -> list[int]:
        """How late each slot was that a machine fired."""
        fired = self.of("schedule.fire")
        return [e.body["late_ms"] for e in fired if self.name(e.machine) == machine]

    def missing(self, plans: Mapping[Planned, int]) -> Iterator[str]:
        """What is not as planned: each slot has one entry, and a run that is done where it was
        fired; nothing else was fired, and no incident is left.
        """
        for plan, slot in plans.items():
            found = [(e.kind, self.name(e.machine)) for e in self.decided(plan.name, slot)]
            if found != [(plan.becomes, plan.by)]:
                yield f"the slot of {plan.name} has {found}, not one {plan.becomes} by {plan.by}"
        if len(self.of(*_DECIDED)) != len(plans):
            yield f"{len(self.of(*_DECIDED))} entries decide {len(plans)} slots"
        fired = sorted(event.body["run"] for event in self.of("schedule.fire"))
        for what, kind in (("opened", "run.open"), ("ended", "run.settle")):
            if sorted(event.body["run"] for event in self.of(kind)) != fired:
                yield f"not each slot that was fired has one run that {what}"
        for event in self.of("run.settle"):
            if event.body["outcome"] != "done":
                yield f"the run {self.name(event.body['run'])} is {event.body['outcome']}"
        told = [e.body["key"] for e in self.of("incident.notify") if e.body["ok"]]
        for run in fired:
            if (times := told.count(f"run:{run}")) != 1:
                yield f"a person was told {times} times of {self.name(run)}"
        yield from (f"the incident {each} is open still" for each in self.open_incidents())

    def _of(self, event: Event) -> str:
        return self.name(event.body["schedule"])


def _clipped(text: str, most: int = 110) -> str:
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _fire(account: Account, event: Event) -> str:
    late_s = event.body["late_ms"] // 1000
    name, local = account.name(event.body["schedule"]), event.body["local"]
    return f"fires {name}: its slot is {local}, {late_s} s ago"


def _unfired(how: str) -> Callable[[Account, Event], str]:
    def tell(account: Account, event: Event) -> str:
        name, body = account.name(event.body["schedule"]), event.body
        return f"says that a slot of {name} is {how}: {body['reason']}"

    return tell


def _planned(_account: Account, event: Event) -> str:
    plan = json.loads(event.body["text"])
    when = plan["when"]
    return f"knows the schedule {plan['schedule']}: {when['cron']} in {when['zone']}"


def _assign(account: Account, event: Event) -> str:
    body = event.body
    return f"gives {account.name(body['task'])} to {account.name(body['machine'])}, its try {body['epoch'][1]}"


def _finish(account: Account, event: Event) -> str:
    body = event.body
    if body["status"] == "done":
        return ""
    return f"ends its try of {account.name(body['task'])}: {body['status']}: {_clipped(body['reason'])}"


def _about(what: str) -> Callable[[Account, Event], str]:
    """A sentence with the name of the task, and the reason."""

    def tell(account: Account, event: Event) -> str:
        text = what.format(account.about(event.body))
        reason = event.body.get("reason") or event.body.get("text") or ""
        return f"{text}: {_clipped(reason)}" if reason else text

    return tell


def _settle(account: Account, event: Event) -> str:
    return f"ends the run {account.name(event.body['run'])}: {event.body['outcome']}"


def _incident(_account: Account, event: Event) -> str:
    return f"tells of an incident ({event.body['severity']}): {_clipped(event.body['title'])}"


def _over(_account: Account, event: Event) -> str:
    return f"closes the incident {event.body['key'][:40]}: {event.body['reason']}"


def _notify(account: Account, event: Event) -> str:
    key, run, level = event.body["key"], event.body["key"].removeprefix("run:"), event.body["level"]
    of = f"the end of the run {account.name(run)}" if run != key else key[:40]
    of = of if level or run != key else f"the end of {of}"
    did = "tells a person" if event.body["ok"] else "fails to tell a person"
    return f"{did} by {event.body['to']} of {of}"


def _answer(account: Account, event: Event) -> str:
    by = event.body.get("account", "").partition("@")[0] or "an operator"
    return f"takes the answer of {account.name(by)} about {account.name(event.body['id'])}: {event.body['answer']}"


def _looks(account: Account, event: Event) -> str:
    by = account.name(f"chat.{event.body['service']}.{event.body['account']}")
    return f"hears that {by} looks at {event.body['of']['key']}"


SENTENCES: Final[Mapping[str, Callable[[Account, Event], str]]] = {
    "schedule.set": _planned,
    "schedule.fire": _fire,
    "schedule.miss": _unfired("missed"),
    "schedule.skip": _unfired("skipped"),
    "task.assign": _assign,
    "task.expire": _about("waits no more for the try of {}"),
    "task.retry": _about("{} is tried again"),
    "attempt.refuse": _about("refuses {}"),
    "attempt.finish": _finish,
    "run.settle": _settle,
    "incident.open": _incident,
    "incident.close": _over,
    "incident.notify": _notify,
    "chat.acknowledge": _looks,
    "approval.ask": _about("an agent at {} waits for a person"),
    "chat.press": _about("hears a button of the phone about {}"),
    "approval.answer": _answer,
    "approval.use": _about("lets the agent of {} do it, once"),
}
