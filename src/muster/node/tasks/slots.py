"""What is known of schedules: which there are, whether each is paused or removed, what it came to.

Rule 1: of one name the schedule that was signed last is the one there is; where that was removed
        there is none. Who signed it must have been let to when it was signed.
Rule 2: what became of a slot is believed of the schedule's keepers, where it is a slot, and of
        nobody else.
Rule 3: an order counts for the schedule of the name that it is about. Whom a grant lets order, and
        who signed a schedule by one, may no more when that has ended: what comes later is too late.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from muster.errors import Denied, MusterError
from muster.fleet.statement import Statement
from muster.limits import SLOT_AHEAD_MS_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import Skip, body_or_none
from muster.log.stream import MachineId
from muster.node.call.shut_out import began_ms, is_after, was_told
from muster.task import occurrences
from muster.task.schedule import Schedule, id_of
from muster.task.schedule_fold import (
    SCHEDULE,
    SCHEDULE_ORDER,
    SLOT,
    OrderRow,
    ScheduleFold,
    ScheduleRow,
    SlotRow,
    ordered,
)
from muster.task.schedule_fold import unread as unread_order
from muster.task.schedule_kinds import ScheduleSet
from muster.task.spec import parse

if TYPE_CHECKING:
    from muster.node.core import Core

# So many entries that make no schedule are looked at; chosen arbitrarily.
_UNREAD_MAX: Final = 100


class Known(NamedTuple):
    """A schedule that counts. `paused_ms` is since when it rests, 0 where it does not."""

    row: ScheduleRow
    schedule: Schedule
    statement: Statement
    spec: str
    paused_ms: int = 0
    paused_until_ms: int = 0
    resumed_ms: int = 0
    removed: bool = False

    @property
    def id(self) -> str:
        return self.row.schedule

    def at(self, now_ms: int) -> "Known":
        """As it is now: a pause may have ended by itself."""
        if self.paused_ms and 0 < self.paused_until_ms <= now_ms:
            return self._replace(paused_ms=0, resumed_ms=self.paused_until_ms)
        return self


def known(core: "Core", row: ScheduleRow) -> Known | None:
    """A schedule as it stands; None where its signer might not order it when it was signed."""
    entry = core.log.entry(row.entry)
    body = body_or_none(entry, ScheduleSet)
    if entry is None or body is None:
        return None
    # What is not ordered is no schedule, and nobody's fault here: the log keeps who wrote it.
    with suppress(MusterError, Skip):
        statement, schedule = ordered(body, core.membership.fleet)
        if is_after(core, entry, row.operator) and not was_told(core, row.operator):
            return None
        core.roster.was_permitted(statement, statement.issued_ms)

        def let(at_ms: int) -> bool:
            # Not to be let is an answer here, and the only one that is no.
            # Who might not order it then set no schedule, and there is nothing to tell of.
            with suppress(Denied):
                core.roster.was_permitted(statement, at_ms)
                return True
            return False

        if not _came_in_time(core, entry, let):
            return None
        found = Known(row, schedule, statement, parse(schedule.run.encode()).name)
        for order in _orders(core, row.schedule):
            found = _after(found, order)
        return found
    return None


def _after(found: Known, order: OrderRow) -> Known:
    if order.verb == "schedule.remove":
        return found._replace(removed=True)
    if order.verb == "schedule.pause":
        return found._replace(paused_ms=order.issued_ms, paused_until_ms=order.until_ms)
    if not found.paused_ms:
        return found
    return found._replace(paused_ms=0, paused_until_ms=0, resumed_ms=order.issued_ms)


def _orders(core: "Core", schedule: str) -> list[OrderRow]:
    """What was ordered of it by those who may, as it was signed one after the other."""
    named = {row.name for row in core.tables.rows(SCHEDULE, schedule=schedule, limit=1)}
    rows = core.tables.rows(SCHEDULE_ORDER, schedule=schedule)
    rows.sort(key=lambda row: (row.issued_ms, row.order))
    return [row for row in rows if row.name in named and _might(core, row)]


def _might(core: "Core", row: OrderRow) -> bool:
    entry = core.log.entry(row.entry)
    if entry is None:
        return False
    if row.operator in core.roster.operators_ever:
        return not is_after(core, entry, row.operator)

    def let(at_ms: int) -> bool:
        with suppress(Denied):
            return bool(core.roster.decide(row.operator, row.verb, row.name, at_ms))
        return False

    return let(row.issued_ms) and _came_in_time(core, entry, let)


def _came_in_time(core: "Core", entry: Entry, let: Callable[[int], bool]) -> bool:
    """Whether an entry came here when its signer might, or to a home that is younger than that."""
    came = core.log.admitted(entry.stream, entry.header.seq)
    return let(came[1] if came is not None else core.now.wall_ms) or not let(began_ms(core))


def schedules(core: "Core") -> dict[str, Known]:
    """By name the schedules that there are."""
    found = dict[str, Known]()
    for row in core.tables.rows(SCHEDULE):
        each = known(core, row)
        if each is None:
            continue
        before = found.get(row.name)
        if before is None or _rank(before) < _rank(each):
            found[row.name] = each
    return {name: each for name, each in sorted(found.items()) if not each.removed}


def unread(core: "Core", found: Mapping[str, Known]) -> dict[str, str]:
    """By its id the name of each schedule of this machine's that would count, could it be read.

    `found` are those that there are: one that was ordered since takes its place.
    """
    names = dict[str, str]()
    for each in core.tables.skipped(ScheduleFold.name, _UNREAD_MAX):
        body = body_or_none(core.log.entry_at(each.stream, each.seq), ScheduleSet)
        order = body and unread_order(body, core.membership.fleet)
        if body is None or not order or core.machine not in order[1]:
            continue
        statement, id = order[0], id_of(body.statement)
        since = found.get(statement.object)
        stops = core.tables.rows(SCHEDULE_ORDER, schedule=id)
        if any(row.verb == "schedule.remove" and _might(core, row) for row in stops):
            continue
        if statement.until_ms > core.now.wall_ms and (
            since is None or since.row.issued_ms < statement.issued_ms
        ):
            # Who might not order it then set no schedule, and there is nothing to tell of.
            with suppress(Denied):
                core.roster.was_permitted(statement, statement.issued_ms)
                names[id] = statement.object
    return names


def _rank(each: Known) -> tuple[int, str]:
    return (each.row.issued_ms, each.row.schedule)


def denied(core: "Core", each: Known) -> str:
    """Why whoever signed it may not have it run any more, "" where that is so."""
    now_ms = core.now.wall_ms
    try:
        core.roster.permit(each.statement, now_ms)
        core.roster.permit(replace(each.statement, verb="run", object=each.spec), now_ms)
    except Denied as error:
        return str(error)
    return ""


def is_removed(core: "Core", schedule: str, at_ms: int) -> bool:
    """Whether somebody who may had removed it then."""
    found = _orders(core, schedule)
    return any(row.verb == "schedule.remove" and row.issued_ms < at_ms for row in found)


def came_to(core: "Core", each: Known, limit: int = 1_000, **equals: Any) -> list[SlotRow]:
    """What its keepers say became of its slots, the newest first; so many of each at most."""
    rows = [
        row
        for keeper in each.schedule.keepers
        for row in core.tables.rows(
            SLOT, writer=keeper, schedule=each.id, order=("-at_ms", "-slot"), limit=limit, **equals
        )
    ]
    rows = [row for row in rows if is_believed(core, each, row.slot, row.at_ms)]
    rows.sort(key=lambda row: (row.at_ms, row.slot), reverse=True)
    return rows[:limit]


def fired_by(core: "Core", each: Known, keeper: MachineId, limit: int) -> list[SlotRow]:
    """What a keeper itself fired of it, the newest first."""
    return core.tables.rows(
        SLOT, writer=keeper, schedule=each.id, what="fire", order=("-at_ms", "-slot"), limit=limit
    )


def is_believed(core: "Core", each: Known, slot: int, at_ms: int) -> bool:
    """Whether what a keeper said at a time may be one of the schedule's slots."""
    schedule, statement = each.schedule, each.statement
    within = statement.issued_ms < slot <= statement.until_ms
    if not within or slot > min(at_ms, core.now.wall_ms) + SLOT_AHEAD_MS_MAX:
        return False
    return schedule.when.on is not None or occurrences.is_slot(schedule.times, slot)


def fires(core: "Core", schedule: str, slot: int, nonce: str = "") -> list[EntryId]:
    """The fires of a slot that are known here, the one first that came first."""
    rows = core.tables.rows(SCHEDULE, schedule=schedule, limit=1)
    each = known(core, rows[0]) if rows else None
    if each is None:
        return []
    its = came_to(core, each, slot=slot, what="fire")
    its = [row for row in its if nonce in ("", row.nonce)]
    entries = [(row.entry, core.log.entry(row.entry)) for row in its]
    came = [
        (core.log.admitted(entry.stream, entry.header.seq) or (0, 0), id)
        for id, entry in entries
        if entry is not None
    ]
    return [id for _, id in sorted(came)]
