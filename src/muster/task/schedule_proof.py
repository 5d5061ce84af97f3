"""Why a machine may run what a schedule began: from the run, by the slot, to what a person signed.

    run.open ──cause──▶ schedule.fire ──cause──▶ schedule.set ──body──▶ the operator's statement
                         a keeper's own           anybody's             for the whole fleet

Rule 1: a keeper decides nothing but when, and only what the calendar says: the slot is looked up
        again here, by the signed text, and so is all that the run is given.
Rule 2: whoever signed it may still order both the schedule and the run, as of the opening.
Rule 3: of one slot there is one run: a second fire of it that is known here is refused.
"""

from collections.abc import Callable
from typing import Final, NamedTuple, Protocol

from msgspec.structs import replace

from muster.errors import MusterError
from muster.fleet.statement import Statement
from muster.limits import SLOT_AHEAD_MS_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import Skip
from muster.log.stream import FleetId, MachineId
from muster.task import occurrences
from muster.task.causes import Lookup, Unproven, read
from muster.task.kinds import RunOpen
from muster.task.schedule import TEXT, Schedule, id_of, slot_run
from muster.task.schedule_fold import ordered
from muster.task.schedule_kinds import ScheduleFire, ScheduleSet
from muster.task.spec import parse
from muster.task.trigger import lookup_of

RUN: Final = "run"


class Watching(Protocol):
    """What a machine knows of schedules beside the chain."""

    def is_removed(self, schedule: str, at_ms: int) -> bool:
        """Whether an operator had removed it then."""

    def fires(self, schedule: str, slot: int, nonce: str) -> list[EntryId]:
        """Return the fires of this slot that are known here, the one that counts first; of one
        trigger those with its nonce.
        """


class Fired(NamedTuple):
    """What stands behind a run that a keeper began."""

    fire: ScheduleFire
    entry: Entry
    schedule: Schedule
    statement: Statement


def is_fired(opening: Entry, lookup: Lookup) -> bool:
    """Whether a run says that a keeper of a schedule began it."""
    return any(e and e.header.kind == "schedule.fire" for e in map(lookup, opening.causes))


def fired(opening: Entry, fleet: FleetId, lookup: Lookup) -> Fired:
    """The slot that a run is of. Raises: Unproven."""
    entry = _cited(opening, "schedule.fire", lookup)
    if entry.header.author != opening.header.author:
        raise Unproven("slot-not-keeper", "the slot was fired by another machine than its run's")
    fire = read(entry, "schedule.fire", ScheduleFire, "slot")
    said = read(_cited(entry, "schedule.set", lookup), "schedule.set", ScheduleSet, "schedule")
    try:
        statement, schedule = ordered(said, fleet)
    except (MusterError, Skip) as error:
        raise Unproven(
            "statement-forged", f"the schedule's order does not hold: {error}"
        ) from error
    if id_of(said.statement) != fire.schedule:
        raise Unproven("schedule-other", "the slot cites another schedule")
    return Fired(fire, entry, schedule, statement)


def as_run(found: Fired, author: MachineId) -> Statement:
    """The order as one of the run, of the keeper that began it: so it is judged like any other.

    Raises: Unproven.
    """
    try:
        name = parse(found.schedule.run.encode()).name
    except MusterError as error:
        text = f"its spec cannot be read: {error}"
        raise Unproven("spec-yields-nothing", text) from error
    return replace(found.statement, verb=RUN, object=name, target=author)


def check(
    run: RunOpen,
    opening: Entry,
    found: Fired,
    *,
    lookup: Lookup,
    authority: Callable[[Statement, int], object],
    now_ms: int,
    watching: Watching | None,
) -> None:
    """Raises: Unproven where the calendar, its keepers or its signer do not stand behind a run."""
    fire, schedule, at_ms = found.fire, found.schedule, opening.header.t[0]
    author = MachineId(opening.header.author)
    if author not in schedule.keepers:
        raise Unproven("slot-not-keeper", "its machine is no keeper of the schedule")
    # First of all: whoever stamps as they like gets a slot that no calendar has a date for.
    if fire.slot > min(now_ms, at_ms, occurrences.LATEST_MS) + SLOT_AHEAD_MS_MAX:
        text = "its slot is in this machine's future: compare the two machines' clocks"
        raise Unproven("slot-in-the-future", text)
    text = _on_grid(found, run, lookup)
    if at_ms - fire.slot > schedule.late_ms + SLOT_AHEAD_MS_MAX:
        raise Unproven("slot-late", "it began later than its schedule lets it")
    _as_signed(run, found, text)
    try:
        authority(found.statement, min(at_ms, found.statement.until_ms))
    except MusterError as error:
        raise Unproven("operator-not-allowed", str(error)) from error
    if watching is None:
        return
    if watching.is_removed(fire.schedule, at_ms):
        raise Unproven("schedule-removed", "its schedule was removed")
    counts = watching.fires(fire.schedule, fire.slot, fire.nonce if fire.trigger else "")
    if counts and counts[0] != found.entry.id:
        raise Unproven("slot-twice", "another fire of this slot is known here")


def _on_grid(found: Fired, run: RunOpen, lookup: Lookup) -> str:
    """What triggered it, where something did. Raises: Unproven for no slot of the calendar."""
    fire, schedule, statement = found.fire, found.schedule, found.statement
    within = statement.issued_ms < fire.slot <= statement.until_ms
    trigger = schedule.when.on
    if trigger is None and not fire.trigger:
        if not within or not occurrences.is_slot(schedule.times, fire.slot):
            text = "its slot is no moment at which the schedule is due"
            raise Unproven("slot-off-grid", text)
        return ""
    entry = lookup_of(fire.trigger, lookup) if fire.trigger else None
    text_of = None
    if trigger is not None and entry is not None:
        # Of what was erased since, its keeper's word stands: its runs go on to their end.
        text_of = trigger.text(entry, lookup)
        if text_of is None:
            text_of = trigger.erased(entry, run.values.get(TEXT, ""))
    if entry is None or text_of is None or not within:
        raise Unproven("slot-off-grid", "nothing that happened triggers its schedule")
    # Only what its own stream says triggers a keeper: so there is one machine that fires it.
    own = entry.header.author == found.entry.header.author and entry.id in found.entry.causes
    same = (entry.header.t[0], entry.id.hex()[:32]) == (fire.slot, fire.nonce)
    if not own or not same:
        raise Unproven("slot-off-grid", "what triggered it is another machine's, or another entry")
    return text_of


def _as_signed(run: RunOpen, found: Fired, text: str) -> None:
    """Raises: Unproven where the run is not just what was signed."""
    fire, fleet = found.fire, found.statement.fleet
    # That the spec can be read `as_run` has seen.
    made, expected = slot_run(fleet, found.schedule, fire, text)
    if run != expected or fire.run != made.run:
        raise Unproven("slot-other-run", "the run is not what the schedule says of this slot")


def _cited(entry: Entry, kind: str, lookup: Lookup) -> Entry:
    for cause in entry.causes:
        found = lookup(cause)
        if found is not None and found.header.kind == kind:
            return found
    raise Unproven("slot-missing", f"this machine has no {kind} for {entry.header.kind}")
