"""Who tells people what happens: this machine, where it is one of the pagers.

Rule 1: what is due follows from the log alone (fleet/escalation.py): what is wrong, who looked at
it, and what pagers said that they told. So each pager comes to the same, and after a start, too.
Rule 2: what a machine says that it told counts where this machine's owner named it among the
pagers; else any member could keep everybody quiet.
Rule 3: a message is sent, and then written down: one that is told twice is better than none.
Rule 4: more at once than a person reads become one message, and an hour has room for so many, for
fewer of any one machine. What had no room is one message every ten minutes.
Rule 5: what no service takes is tried again, ever later. That a service fails is an incident of
this machine, told by those that work.

Whoever wants people told of something opens an incident (`core.incidents.open`: a key, a severity,
a title), and closes it when it is over. A run that ended is told of once.
"""

from collections import Counter, defaultdict, deque
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.errors import MusterError
from muster.fleet import escalation, kinds
from muster.fleet.chat import CHAT_ACKNOWLEDGE
from muster.fleet.escalation import CHAT, CLOSING, Hours, Service, Told
from muster.fleet.incident import Incident, key_of
from muster.fleet.silence_fold import NOTIFY
from muster.limits import (
    NOTIFY_AGAIN_MS_MAX,
    NOTIFY_AGAIN_MS_MIN,
    NOTIFY_APART_MAX,
    NOTIFY_NEWS_MS,
    NOTIFY_PER_HOUR_MAX,
    NOTIFY_PER_HOUR_OF_MACHINE_MAX,
    NOTIFY_REST_MS,
)
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import StreamName
from muster.node import event as ev
from muster.node.counter import DECLARED, has_room, spend
from muster.node.part import Part
from muster.node.services import page_text
from muster.node.services.page_text import Message
from muster.task.fold import RUN, TASK
from muster.task.kinds import RunSettle

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "notify-failed": "A service did not take a message for a person.",
    "notify-held": "A message for a person waited, for an hour had enough of them.",
}

BROKEN: Final = "pager-broken"
_LOOK_MS: Final = 60_000
# Entries of one look: what is more comes with the next.
_TOLD_AT_ONCE_MAX: Final = 100
_NOTES_MAX: Final = 100
_HOUR_MS: Final = 3_600_000
# Of a run that ended longer ago nobody is told.
_LATE_MS: Final = 24 * NOTIFY_NEWS_MS
# What is told first; "" is that something is over.
_ORDER: Final = ("critical", "warning", "run", "", "notice")
# Chosen arbitrarily: more than a fleet has open.
_SAID_MAX: Final = 1_000
# An incident's key, the step, and how grave it is.
_Step = tuple[str, int, str]


class Page(ev.Effect, frozen=True):
    """Have these services tell people something."""

    number: int
    services: tuple[str, ...]
    title: str
    body: str


class Paged(ev.Event, frozen=True):
    """What came of it: of each service why it did not take it, "" where it did."""

    number: int
    reasons: tuple[tuple[str, str], ...]


class Paging(ev.Event, frozen=True):
    """What the owner of this machine says of it, and the services that it has."""

    services: tuple[Service, ...]
    pagers: tuple[str, ...] = ()
    hours: Hours = Hours()
    runs: str = "failed"


class Ready(NamedTuple):
    """What is to be told now: of what, which step of it, by whom, and how."""

    key: str
    level: int
    services: tuple[str, ...]
    severity: str
    message: Message
    # Who tells of it.
    machines: tuple[str, ...]
    since_ms: int = 0


class Note(NamedTuple):
    """A run that ended."""

    run: str
    outcome: str
    t_ms: int


class Pager(Part):
    """See the rules at the top of this file."""

    name = "pager"
    effects = (Page,)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._set = Paging(())
        self._from_ms = self._next_ms = 0
        self._numbers = 0
        # What is being told.
        self._under_way: dict[int, list[Ready]] = {}
        # Of what failed here: when it is tried again, and how long that was put off.
        self._again: dict[_Step, tuple[int, int]] = {}
        # What was told from here, whether its entry counts or not.
        self._said: deque[tuple[str, Told]] = deque(maxlen=_SAID_MAX)
        self._broken: dict[str, str] = {}
        self._notes: dict[str, Note] = {}
        self._sent, self._rest = deque[int](), deque[int]()
        self._sent_of = defaultdict[str, deque[int]](deque)
        core.on(Paging, self._is_set)
        core.on(Paged, self._came)
        core.on("run.settle", self._settled)
        for kind in (
            kinds.INCIDENT_OPEN, kinds.INCIDENT_CLOSE, kinds.INCIDENT_ACKNOWLEDGE,
            kinds.INCIDENT_SILENCE, kinds.INCIDENT_NOTIFY, CHAT_ACKNOWLEDGE,
        ):  # fmt: skip
            core.on(kind, self._changed)

    @property
    def place(self) -> int | None:
        """Which of the pagers we are; None where we are none."""
        if not self._set.services:
            return None
        pagers, name = self._set.pagers, self._core.name
        return 0 if not pagers else pagers.index(name) if name in pagers else None

    @property
    def services(self) -> tuple[Service, ...]:
        return self._set.services

    @property
    def broken(self) -> dict[str, str]:
        """The services that failed last, and why."""
        return dict(self._broken)

    def tick(self) -> None:
        place = self.place
        if place is not None and self._core.now.wall_ms >= self._next_ms:
            self._look(place, self._core.now.wall_ms)

    # --- what happens -----------------------------------------------------------------------

    def _is_set(self, event: Paging) -> None:
        self._set, self._next_ms = event, 0
        self._from_ms = self._core.now.wall_ms
        known = {each.name for each in event.services}
        before = self._broken
        self._broken = {name: why for name, why in before.items() if name in known}
        if not known or (before and not self._broken):
            # The one that took no message is gone.
            self._mend()
        self._notes.clear()
        if self._set.runs != "none":
            # What ended while nobody was here to tell of it, as far as it is news.
            since, order = {"changed_ms": self._from_ms - _LATE_MS}, ("-changed_ms",)
            newest = self._core.tables.rows(RUN, above=since, order=order, limit=_NOTES_MAX)
            for row in reversed(newest):
                self._note(row.run, row.state, row.changed_ms)

    def _changed(self, _stream: StreamName, _entry: Entry) -> None:
        self._next_ms = 0

    def _settled(self, _stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, RunSettle)
        if body is not None and self.place is not None:
            self._note(body.run, body.outcome, entry.header.t[0])
            self._next_ms = 0

    def _note(self, run: str, outcome: str, t_ms: int) -> None:
        wanted = outcome == "failed" or (self._set.runs == "end" and outcome == "done")
        # What ended in the night is news in the morning, also to who began in between.
        is_news = self._set.hours.awake_ms(t_ms) >= self._from_ms - NOTIFY_NEWS_MS
        if wanted and self._set.runs != "none" and is_news:
            self._notes.setdefault(f"run:{run}", Note(run, outcome, t_ms))
            if len(self._notes) > _NOTES_MAX:
                del self._notes[next(iter(self._notes))]

    def _came(self, event: Paged) -> None:
        """Write down what was told, and take notice of what fails."""
        told = self._under_way.pop(event.number, [])
        failed = {name: why for name, why in event.reasons if why}
        ok = len(failed) < len(event.reasons)
        self._core.counters["notify-failed"] += len(failed)
        before = set(self._broken)
        for name, _ in event.reasons:
            self._broken.pop(name, None)
        # Those that this pager has: what it was asked to try besides says nothing of it.
        known = {each.name for each in self._set.services}
        self._broken.update((name, why) for name, why in failed.items() if name in known)
        reason = "; ".join(f"{name}: {why}" for name, why in failed.items())[:500]
        for each in told:
            body = kinds.IncidentNotify(
                key=each.key, level=each.level, to=", ".join(each.services)[:512], ok=ok,
                serial=each.message.serial, reason=reason, severity=each.severity,
                since_ms=each.since_ms,
            )  # fmt: skip
            self._core.append_body(body)
            when = (ok, self._core.now.wall_ms, each.severity, each.since_ms)
            self._said.append((each.key, Told(each.level, each.services, *when)))
            self._put_off(each, ok=ok)
        if set(self._broken) - before:
            by = ", ".join(sorted(self._broken))
            title = f"{self._core.name} cannot tell people by {by}: `muster notify test` there"
            self._core.incidents.open(BROKEN, "warning", title, reason)
        if ok:
            self._mend()
        self._next_ms = 0

    def _mend(self) -> None:
        if not self._broken and self._core.settled and self._core.incidents.is_open(BROKEN):
            self._core.incidents.close(BROKEN, "the services take messages again")

    def _put_off(self, each: Ready, *, ok: bool) -> None:
        which = (each.key, each.level, each.severity)
        _, wait_ms = self._again.pop(which, (0, NOTIFY_AGAIN_MS_MIN // 2))
        if not ok:
            wait_ms = min(2 * wait_ms, NOTIFY_AGAIN_MS_MAX)
            self._again[which] = (self._core.now.wall_ms + wait_ms, wait_ms)

    # --- what is due ------------------------------------------------------------------------

    def _look(self, place: int, now_ms: int) -> None:
        self._next_ms = now_ms + _LOOK_MS
        under_way = {each.key for group in self._under_way.values() for each in group}
        ready = []
        for incident in self._core.incidents.gathered(now_ms):
            if incident.key not in under_way:
                ready += self._of_incident(incident, place, now_ms)
        for key, note in list(self._notes.items()):
            if key not in under_way:
                ready += self._of_note(key, note, place, now_ms)
        ready = self._ordered(ready)[:_TOLD_AT_ONCE_MAX]
        # Whose room is used up waits apart, and not in one message with the others.
        rest = [each for each in ready if not any(map(self._has_room_of, each.machines))]
        for group in _groups([each for each in ready if each not in rest], NOTIFY_APART_MAX):
            if self._takes_room(group):
                self._tell(group)
            else:
                rest += group
        if rest:
            self._core.counters["notify-held"] += 1
        if rest and spend(self._rest, 1, NOTIFY_REST_MS, self._core.now.boot_ms):
            for group in _groups(rest, 0):
                self._tell(group)

    def _ordered(self, ready: Sequence[Ready]) -> list[Ready]:
        """The gravest first; of these the first of each machine, ours before the others'."""
        told, found = Counter[tuple[int, str]](), list[tuple[int, int, bool, int]]()
        for number, each in enumerate(ready):
            grave = _ORDER.index(each.severity if each.level != CLOSING else "")
            machine = min(each.machines, key=lambda who, at=grave: told[at, who])  # type: ignore[misc]
            told[grave, machine] += 1
            ours = self._core.machine in each.machines
            found.append((grave, told[grave, machine], not ours, number))
        return [ready[number] for *_, number in sorted(found)]

    def _has_room_of(self, machine: str) -> bool:
        """Whether the hour has room for one more that tells of what this machine does."""
        sent, now_ms = self._sent_of[machine], self._core.now.boot_ms
        return has_room(sent, NOTIFY_PER_HOUR_OF_MACHINE_MAX, _HOUR_MS, now_ms)

    def _takes_room(self, group: Sequence[Ready]) -> bool:
        """Whether the hour has room for one more, and for one of somebody who tells of these;
        then both are used up.
        """
        now_ms = self._core.now.boot_ms
        tellers = dict.fromkeys(who for each in group for who in each.machines)
        teller = next((who for who in tellers if self._has_room_of(who)), None)
        if teller is None or not spend(self._sent, NOTIFY_PER_HOUR_MAX, _HOUR_MS, now_ms):
            return False
        return spend(self._sent_of[teller], NOTIFY_PER_HOUR_OF_MACHINE_MAX, _HOUR_MS, now_ms)

    def _of_incident(self, incident: Incident, place: int, now_ms: int) -> list[Ready]:
        """The step of it that is due now, if there is one."""
        services = self._set.services
        if incident.key == key_of(BROKEN, self._core.machine):
            services = tuple(each for each in services if each.name not in self._broken)
        steps = escalation.due(
            incident, self.told(incident.key), services, self._set.hours,
            place=place, from_ms=self._from_ms, now_ms=now_ms,
        )  # fmt: skip
        for step in steps:
            which = (incident.key, step.level, incident.severity)
            at_ms = max(step.at_ms, self._again.get(which, (0, 0))[0])
            if at_ms <= now_ms:
                message = page_text.of_incident(
                    incident, step.level, self._name_of, now_ms, self._task(incident.first.key)
                )
                what = (step.level, step.services, incident.severity)
                return [Ready(incident.key, *what, message, incident.machines, incident.since_ms)]
            self._next_ms = min(self._next_ms, at_ms)
        return []

    def _of_note(self, key: str, note: Note, place: int, now_ms: int) -> list[Ready]:
        row = next((r for r in self._core.tables.rows(RUN, run=note.run) if r.settled), None)
        late = now_ms - note.t_ms > _LATE_MS
        if late or row is None or any(each.ok for each in self.told(key)):
            del self._notes[key]
            return []
        at_ms = max(min(note.t_ms, now_ms), self._from_ms)
        at_ms = escalation.awake_ms(at_ms, now_ms, self._set.hours, place)
        at_ms = max(at_ms, self._again.get((key, CHAT, "run"), (0, 0))[0])
        if at_ms > now_ms:
            self._next_ms = min(self._next_ms, at_ms)
            return []
        services = escalation.targets(CHAT, self._set.services, set())
        machine = self._name_of(row.stream.machine)
        message = page_text.of_run(row, machine, note.t_ms)
        return [Ready(key, CHAT, services, "run", message, (row.stream.machine,))]

    def told(self, key: str) -> list[Told]:
        """What pagers that count here said of an incident."""
        trusted = {self._core.machine}
        for name in self._set.pagers:
            try:
                trusted.add(self._core.roster.find(name).machine)
            except MusterError:
                # It is none yet, or no more.
                continue
        found = [each for of, each in self._said if of == key]
        for row in self._core.tables.rows(NOTIFY, key=key):
            if row.stream.machine in trusted:
                when = (bool(row.ok), row.t_ms, row.severity, row.since_ms)
                found.append(Told(row.level, tuple(row.services.split(", ")), *when))
        return found

    def _tell(self, group: Sequence[Ready]) -> None:
        message = group[0].message
        if len(group) > 1 or group[0].severity == "notice":
            what = "notices" if group[0].severity == "notice" else "things that need a person"
            over = group[0].level == CLOSING
            messages = [each.message for each in group]
            message = page_text.of_several(messages, "things are over" if over else what)
        self._numbers += 1
        self._under_way[self._numbers] = list(group)
        self._core.do(Page(self._numbers, group[0].services, message.title, message.body))

    def _name_of(self, machine: str) -> str:
        return self._core.membership.name_of(machine)

    def _task(self, key: str) -> str:
        """The task that a key names, as those of questions and of phases for a person do."""
        for part in key.replace(":", "-").split("-"):
            if len(part) == 32 and (rows := self._core.tables.rows(TASK, begins={"task": part})):
                return rows[0].task
        return ""


def _groups(ready: Sequence[Ready], apart_max: int) -> list[list[Ready]]:
    """What is told in one message each: of so many alike, each in its own."""
    alike = defaultdict[tuple[tuple[str, ...], bool, bool], list[Ready]](list)
    for each in ready:
        alike[each.services, each.severity == "notice", each.level == CLOSING].append(each)
    found: list[list[Ready]] = []
    for (_, notices, _), group in alike.items():
        together = notices or len(group) > apart_max
        found += [group] if together else [[each] for each in group]
    return found
