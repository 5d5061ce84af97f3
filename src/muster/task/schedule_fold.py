"""Entries about schedules become rows: which there are, who stopped them, what became of slots.

Rule 1: a `schedule.set` has a row where its statement orders just that of the whole fleet, and so
        has what stops it or lets it go on, ordered of its writer; whether their signers still may,
        says whoever reads the row. A schedule is the same, whoever wrote it down.
Rule 2: what became of a slot is its keeper's word, in a table keyed by that keeper's stream.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

import msgspec
from msgspec import Struct

from muster.errors import MusterError
from muster.fleet.statement import Statement, check_order, open_statement, tells_all
from muster.log.entry import Entry, EntryId
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import FleetId, MachineId, StreamName
from muster.task import schedule_kinds as kinds
from muster.task.schedule import SET, Schedule, id_of, opened, set_args


class ScheduleRow(NamedTuple):
    """A schedule as it was ordered; `text` stays in its entry."""

    stream: StreamName
    schedule: str
    name: str
    issued_ms: int
    until_ms: int
    operator: str
    entry: EntryId


class OrderRow(NamedTuple):
    """An order to pause, resume or remove a schedule; `until_ms` of a pause, 0 for none."""

    stream: StreamName
    schedule: str
    order: str
    name: str
    verb: str
    issued_ms: int
    until_ms: int
    operator: str
    entry: EntryId


class ClaimRow(NamedTuple):
    stream: StreamName
    schedule: str
    nonce: str
    slot: int
    before: str
    entry: EntryId


class SlotRow(NamedTuple):
    """What a keeper says became of a slot, and of so many `slots` in all behind `since`.

    `mark` tells apart what happened in one millisecond; the calendar has one fire of a slot.
    """

    stream: StreamName
    schedule: str
    slot: int
    what: str
    mark: str
    since: int
    slots: int
    at_ms: int
    run: str
    nonce: str
    reason: str
    entry: EntryId


SCHEDULE: Final = Table("schedule", ScheduleRow, indexes=(("name",), ("schedule",)))
SCHEDULE_ORDER: Final = Table("schedule_order", OrderRow, key=2, indexes=(("schedule",),))
CLAIM: Final = Table("schedule_claim", ClaimRow, key=2, indexes=(("before",),))
SLOT: Final = Table("schedule_slot", SlotRow, key=4, indexes=(("schedule", "at_ms"), ("run",)))

_TOLD: Final[dict[str, type[Any]]] = {"miss": kinds.ScheduleMiss, "skip": kinds.ScheduleSkip}
_STOPS: Final[dict[str, type[Any]]] = {
    "schedule.pause": kinds.SchedulePause,
    "schedule.resume": kinds.ScheduleResume,
    "schedule.remove": kinds.ScheduleRemove,
}
# What changes which schedules there are, or whether one rests.
ORDERS: Final = ("schedule.set", *_STOPS)


def stop_args(name: str, schedule: str, until_ms: int = 0) -> dict[str, Any]:
    """What an operator signs of a pause, a resumption or a removal."""
    found = {"name": name, "schedule": schedule}
    return {**found, "until_ms": until_ms} if until_ms else found


def ordered(body: kinds.ScheduleSet, fleet: FleetId) -> tuple[Statement, Schedule]:
    """The order behind a schedule. Raises: MusterError where it is none of just that."""
    statement, schedule = open_statement(body.statement.encode(), fleet), opened(body.text)
    if not tells_all(statement, SET, schedule.schedule, set_args(body.text)):
        raise Skip("schedule-not-ordered")
    return statement, schedule


class _Plain(Struct, frozen=True):
    schedule: str
    keepers: list[str]


def unread(body: kinds.ScheduleSet, fleet: FleetId) -> tuple[Statement, list[str]] | None:
    """The order of a schedule whose text cannot be read, with its keepers: an earlier version took
    what this one refuses. None where it is a schedule, and where nobody ordered just that.
    """
    try:
        statement = open_statement(body.statement.encode(), fleet)
        plain = msgspec.json.decode(body.text.encode(), type=_Plain)
        args = {"keepers": plain.keepers, "text": body.text}
        if not tells_all(statement, SET, plain.schedule, args):
            return None
    except (MusterError, msgspec.DecodeError, RecursionError):
        return None
    try:
        opened(body.text)
    except MusterError:
        return statement, plain.keepers
    return None


class ScheduleFold:
    """Any stream: a schedule is what was signed, whoever wrote it down."""

    name = "schedule"
    # Version 1 took texts that `opened` refuses since.
    version = 2
    tables = (SCHEDULE, SCHEDULE_ORDER)
    kinds = frozenset({"schedule.set", *_STOPS})

    def __init__(self, fleet: FleetId) -> None:
        self._fleet = fleet

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        try:
            return (self._row(entry, rows),)
        except MusterError as error:
            raise Skip("schedule-not-ordered") from error

    def _row(self, entry: Entry, rows: Rows) -> NamedTuple:
        if entry.header.kind == "schedule.set":
            body = body_as(entry, kinds.ScheduleSet)
            statement, schedule = ordered(body, self._fleet)
            id = id_of(body.statement)
            if rows.get(SCHEDULE, id) is not None:
                raise Skip("schedule-again")
            times = (statement.issued_ms, statement.until_ms)
            return ScheduleRow(
                rows.stream, id, schedule.schedule, *times, statement.operator, entry.id
            )
        verb = entry.header.kind
        stop = body_as(entry, _STOPS[verb])
        until_ms = getattr(stop, "until_ms", 0)
        statement = open_statement(stop.statement.encode(), self._fleet)
        check_order(
            statement, verb=verb, object=stop.name, machine=MachineId(entry.header.author),
            args=stop_args(stop.name, stop.schedule, until_ms),
            now_ms=min(entry.header.t[0], statement.until_ms),
        )  # fmt: skip
        return OrderRow(
            rows.stream, stop.schedule, id_of(stop.statement), stop.name, verb,
            statement.issued_ms, until_ms, statement.operator, entry.id,
        )  # fmt: skip


class SlotFold:
    """A keeper's stream: what it claimed, and what became of that."""

    name = "schedule_slot"
    tables = (CLAIM, SLOT)
    kinds = frozenset({"schedule.claim", "schedule.fire", "schedule.miss", "schedule.skip"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        kind, at_ms = entry.header.kind.removeprefix("schedule."), entry.header.t[0]
        if kind == "claim":
            claim = body_as(entry, kinds.ScheduleClaim)
            row = (claim.schedule, claim.nonce, claim.slot, claim.before)
            return (ClaimRow(rows.stream, *row, entry.id),)
        if kind == "fire":
            fire = body_as(entry, kinds.ScheduleFire)
            mark = fire.nonce if fire.trigger else ""
            if rows.get(SLOT, fire.schedule, fire.slot, kind, mark) is not None:
                raise Skip("slot-twice")
            said = (fire.since, fire.missed + 1, at_ms, fire.run, fire.nonce, "")
            return (SlotRow(rows.stream, fire.schedule, fire.slot, kind, mark, *said, entry.id),)
        told = body_as(entry, _TOLD[kind])
        said = (told.since, told.count, at_ms, getattr(told, "run", ""), told.nonce, told.reason)
        if rows.get(SLOT, told.schedule, told.slot, kind, told.nonce) is not None:
            raise Skip("slot-twice")
        return (SlotRow(rows.stream, told.schedule, told.slot, kind, told.nonce, *said, entry.id),)
