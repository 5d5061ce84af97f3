"""What is shown of schedules: which there are, who keeps them, when they are due."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from msgspec import Meta, Struct

from muster.log.stream import MachineId
from muster.node.services.presence import presence
from muster.node.tasks import schedule_pots, slots
from muster.node.tasks.slot_run import outcome
from muster.node.tasks.slots import Known
from muster.task import budget, occurrences
from muster.task import schedule as schedules
from muster.task.schedule import Schedule
from muster.task.spec import parse
from muster.verbs.declaration import Call, Core, Nothing, Request, data, verb
from muster.verbs.schedule import Name, known

_SHOWN: Final = 10


class Row(Struct, frozen=True, kw_only=True):
    """`state` is due, rests or over; `last` is what became of the newest slot that is decided."""

    name: str
    state: str
    when: str
    owner: str
    fence: str
    next_ms: int
    last: str
    last_ms: int
    reason: str


@verb("schedule.list", auth="local")
def list_(core: Core, call: Call, ask: Nothing) -> list[Row]:
    """What runs by a schedule."""
    return [_row(core, each) for each in slots.schedules(core).values()]


def _row(core: Core, each: Known) -> Row:
    now_ms, schedule = core.now.wall_ms, each.schedule
    each = each.at(now_ms)
    ahead = [s for s in _ahead(each, now_ms, 1) if not each.paused_ms]
    over = not _ahead(each, now_ms, 1) and each.schedule.when.on is None
    over = over or now_ms > each.statement.until_ms
    last = next(iter(slots.came_to(core, each, 1)), None)
    return Row(
        name=each.row.name,
        state="over" if over else "rests" if each.paused_ms else "due",
        when=_when(schedule), owner=core.membership.name_of(MachineId(schedule.keepers[0])),
        fence=schedule.fence, next_ms=ahead[0] if ahead else 0,
        last=last.what if last is not None else "", last_ms=last.slot if last is not None else 0,
        reason=last.reason if last is not None else "",
    )  # fmt: skip


def _ahead(each: Known, now_ms: int, count: int) -> list[int]:
    after_ms = max(now_ms, each.statement.issued_ms)
    found = occurrences.following(each.schedule.times, after_ms, count)
    return [slot for slot in found if slot <= each.statement.until_ms]


def _when(schedule: Schedule) -> str:
    when = schedule.when
    if found := schedules.happens(schedule):
        return found
    text = when.cron or (f"every {when.every}" if when.every else f"at {when.at}")
    return f"{text} {when.zone or 'UTC'}"


class Of(Request, frozen=True):
    name: Annotated[Name, data()]


class Watcher(Struct, frozen=True):
    """A keeper: whether it is here or linked, and how far its clock is from this one's."""

    name: str
    presence: str
    clock_ms: int
    zones: str


class Decided(Struct, frozen=True):
    """What became of a slot, and of its run: `outcome` is open, done, failed or cancelled."""

    slot_ms: int
    what: str
    by: str
    slots: int
    reason: str
    run: str
    outcome: str


class Shown(Struct, frozen=True, kw_only=True):
    """A schedule, as it was signed; `text` is its spec. `zones` is the version of tzdata here.

    `used`, of `budget`, is what its runs of today (UTC) used up, as far as is known here.
    """

    name: str
    state: str
    when: str
    zone: str
    spec: str
    repo: str
    fence: str
    late_s: int
    catch_up: str
    overlap: str
    budget: str
    used: str
    until_ms: int
    next_ms: int
    zones: str
    denied: str
    keepers: list[Watcher]
    decided: list[Decided]
    signed: str
    text: str


@verb("schedule.show", auth="local")
def show(core: Core, call: Call, ask: Of) -> Shown:
    """A schedule: who keeps it, where its fence is, what its newest slots came to."""
    each = known(core, ask.name)
    row, schedule = _row(core, each), each.schedule
    spec, most = parse(schedule.run.encode()), schedule.day_most
    return Shown(
        name=row.name, state=row.state, when=row.when, zone=schedule.times.zone, spec=spec.name,
        repo=spec.repo or "", fence=schedule.fence, late_s=schedule.late_ms // 1000,
        catch_up=schedule.catch_up, overlap=schedule.overlap,
        budget=budget.said(most) if most else "",
        used=budget.said(schedule_pots.state(core, schedule).used.of(most)) if most else "",
        until_ms=each.statement.until_ms, next_ms=row.next_ms, zones=occurrences.ZONES_VERSION,
        denied=slots.denied(core, each),
        keepers=[_watcher(core, MachineId(each)) for each in schedule.keepers],
        decided=[
            Decided(
                r.slot, r.what, core.membership.name_of(r.stream.machine), r.slots, r.reason, r.run,
                outcome(core, r.stream.machine, r.run),
            )
            for r in slots.came_to(core, each, _SHOWN)
        ],
        signed=schedules.text_of(schedule), text=schedule.run,
    )  # fmt: skip


def _watcher(core: Core, machine: MachineId) -> Watcher:
    skews = [link.skew_ms for link in core.links.values() if link.peer == machine]
    facts = core.roster.facts.get(machine)
    zones = facts.tools.get("tzdata", "") if facts is not None else ""
    return Watcher(
        core.membership.name_of(machine), presence(core, machine), skews[0] if skews else 0, zones
    )


class Next(Of, frozen=True):
    count: Annotated[int, Meta(ge=1, le=100), data()] = 5


class Slot(Struct, frozen=True):
    """`shifted`: the clocks of its zone are moved on that day."""

    slot_ms: int
    utc: str
    local: str
    shifted: bool


class Slots(Struct, frozen=True):
    name: str
    zone: str
    slots: list[Slot]


@verb("schedule.next", auth="local")
def next_(core: Core, call: Call, ask: Next) -> Slots:
    """When a schedule is due, in UTC and in its zone."""
    each = known(core, ask.name)
    times = each.schedule.times
    utc: Mapping[str, Any] = {"zone": "UTC"}
    found = [
        Slot(
            slot, occurrences.local(times._replace(**utc), slot), occurrences.local(times, slot),
            occurrences.is_shifted(times, slot),
        )
        for slot in _ahead(each, core.now.wall_ms, ask.count)
    ]  # fmt: skip
    return Slots(each.row.name, times.zone, found)
