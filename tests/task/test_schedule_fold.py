"""Entries about schedules become rows: only what was ordered of the whole fleet, and each slot once."""

import json
from typing import Any

from tests.promise import proves
from tests.task.orders import END_MS, FLEET_ID, NOW_MS, OPERATOR, signed
from tests.task.schedules import MINUTE, SLOT, ordered, text
from tests.task.world import BUILD, OWNER, STUDIO, Stream

from muster import limits
from muster.fleet.statement import EVERY_MACHINE
from muster.log.stream import FleetId
from muster.task.schedule import id_of
from muster.task.schedule_fold import (
    CLAIM,
    SCHEDULE,
    SCHEDULE_ORDER,
    ScheduleFold,
    SlotFold,
    stop_args,
    unread,
)
from muster.task.schedule_fold import (
    SLOT as SLOTS,
)
from muster.task.schedule_kinds import (
    ScheduleClaim,
    ScheduleFire,
    ScheduleMiss,
    SchedulePause,
    ScheduleRemove,
    ScheduleResume,
    ScheduleSet,
    ScheduleSkip,
)

SET = ordered()
ID = id_of(SET.statement)
NONCE = "0" * 32
STOPS = {
    "schedule.pause": SchedulePause,
    "schedule.resume": ScheduleResume,
    "schedule.remove": ScheduleRemove,
}


def _stream(machine: str = BUILD) -> Stream:
    return Stream(machine, folds=(ScheduleFold(FLEET_ID), SlotFold()))


# Whose words each is; of none of them is there a schedule.
NOT_ORDERED: list[Any] = [
    ordered(target=BUILD),
    ordered(verb="run"),
    ordered(object="other"),
    ordered(fleet=FleetId("e" * 64)),
    ordered(args={"text": text()}),
    ordered(args={"keepers": ["0" * 64], "text": text()}),
    # Another text than the one that was signed, and one that is none, whoever signed it.
    ScheduleSet(text(overlap="allow"), SET.statement),
    ScheduleSet(text(), ""),
    ScheduleSet(text(), "no statement"),
    ordered(text(when={"every": "1s"})),
    ordered(text(keepers=["hub"])),
    ordered(text(when={"every": f"{'9' * 5_000}d"})),
    ordered(text(late=f"{'9' * 5_000}d")),
    ordered(text(fence="repo:../x")),
    ordered(f"{text()} "),
    ordered(text(when={"cron": "0 0 30 2 *"})),
]


@proves("schedule.evidence", "schedule.form")
def test_a_schedule_is_what_was_ordered_of_the_whole_fleet_whoever_wrote_it_down():
    rows = []
    for machine in (BUILD, STUDIO):
        stream = _stream(machine)
        entry = stream.append(SET)
        (row,) = stream.rows.every(SCHEDULE)
        assert (row.schedule, row.name, row.entry) == (ID, "nightly", entry.id)
        assert (row.issued_ms, row.until_ms) == (NOW_MS, NOW_MS + limits.STATEMENT_LIFE_MS_MAX)
        assert row.operator == OPERATOR.public.hex()
        # Written down again it is the same one; another order makes another one of that name.
        stream.append(SET)
        assert stream.skipped == ["schedule-again"]
        stream.append(ordered(issued_ms=NOW_MS + 1))
        assert {each.name for each in stream.rows.every(SCHEDULE)} == {"nightly"}
        assert len(stream.rows.every(SCHEDULE)) == 2
        rows.append(row.schedule)
    assert len(set(rows)) == 1


@proves("schedule.evidence", "schedule.form")
def test_what_is_no_order_of_just_that_is_no_schedule_and_stops_no_fold():
    stream = _stream()
    for body in NOT_ORDERED:
        stream.append(body)
    assert stream.skipped == ["schedule-not-ordered"] * len(NOT_ORDERED)
    stream.append_raw("schedule.set", b'{"text":1}')
    assert stream.skipped[-1] == "bad-body"
    assert stream.rows.held == {}
    stream.append(SET)
    assert len(stream.rows.every(SCHEDULE)) == 1


@proves("schedule.not-silent")
def test_an_order_whose_text_an_earlier_version_took_is_told_from_what_nobody_ordered():
    assert unread(SET, FLEET_ID) is None
    found = [unread(body, FLEET_ID) for body in NOT_ORDERED]
    # The first nine are ordered by nobody.
    assert [each is None for each in found] == [number < 9 for number in range(len(found))]
    for body, each in zip(NOT_ORDERED[9:], found[9:], strict=True):
        assert each is not None
        assert each[0].object == "nightly"
        assert each[1] == json.loads(body.text)["keepers"]
    assert unread(ScheduleSet("[" * 5_000, SET.statement), FLEET_ID) is None
    assert ScheduleFold(FLEET_ID).version == 2, "what version 1 took is read again"


def _stop(kind: str, **changes: Any) -> Any:
    """An order about the schedule to the machine that writes it down."""
    said = {"schedule": ID, "name": "nightly", **changes.pop("said", {})}
    until_ms = said.pop("until_ms", 0)
    args = stop_args(said["name"], said["schedule"], changes.pop("signed_until", until_ms))
    about, target = changes.pop("object", said["name"]), changes.pop("target", BUILD)
    statement = signed(changes.pop("verb", kind), about, target, args, **changes)
    more = {"until_ms": until_ms} if until_ms else {}
    return STOPS[kind](said["schedule"], said["name"], statement, **more)


@proves("schedule.orders", "schedule.paused")
def test_what_stops_a_schedule_is_ordered_of_whoever_writes_it_and_says_until_when():
    stream = _stream()
    made = [_stop(verb) for verb in STOPS]
    made.append(_stop("schedule.pause", said={"until_ms": SLOT}, nonce=b"1" * 16))
    for body in made:
        stream.append(body, at_ms=NOW_MS + 5)
    rows = {row.order: row for row in stream.rows.every(SCHEDULE_ORDER)}
    assert [rows[id_of(body.statement)].verb for body in made] == [*STOPS, "schedule.pause"]
    assert [rows[id_of(body.statement)].until_ms for body in made] == [0, 0, 0, SLOT]
    assert {(row.schedule, row.name, row.issued_ms) for row in rows.values()} == {
        (ID, "nightly", NOW_MS)
    }
    # A log that runs ahead, or an order that is repeated: it counts as of its own end.
    stream.append(_stop("schedule.remove", nonce=b"2" * 16), at_ms=END_MS + 40 * 86_400_000)
    assert len(stream.rows.every(SCHEDULE_ORDER)) == len(made) + 1
    assert stream.skipped == []
    # What is signed says nothing of a moment where there is none.
    assert stop_args("nightly", ID) == {"name": "nightly", "schedule": ID}


@proves("schedule.orders", "schedule.paused")
def test_an_order_about_something_else_stops_no_schedule():
    stream = _stream()
    # Begun so far ahead that no clock is so wrong.
    ahead = {"issued_ms": NOW_MS + 20 * MINUTE, "until_ms": NOW_MS + 60 * MINUTE}
    for verb in STOPS:
        other = next(each for each in STOPS if each != verb)
        told = {"target": OWNER}, {"verb": other}, {"object": "other"}
        for changes in (*told, {"fleet": FleetId("e" * 64)}, ahead):
            stream.append(_stop(verb, **changes), at_ms=NOW_MS)
    stream.append(_stop("schedule.pause", said={"until_ms": SLOT}, signed_until=SLOT + 1))
    stream.append(_stop("schedule.pause", said={"until_ms": SLOT}, signed_until=0))
    stream.append(ScheduleRemove(ID, "nightly", "no statement"))
    assert set(stream.skipped) == {"schedule-not-ordered"}
    assert len(stream.skipped) == 3 * 5 + 3
    assert stream.rows.held == {}
    # To all machines it is an order to its writer as well.
    stream.append(_stop("schedule.remove", target=EVERY_MACHINE), at_ms=NOW_MS)
    assert len(stream.rows.every(SCHEDULE_ORDER)) == 1


def _fire(**changes: Any) -> ScheduleFire:
    known = {"schedule": ID, "slot": SLOT, "local": "", "late_ms": 0, "run": "a" * 32}
    known |= {"fence": "owner", "nonce": NONCE, "missed": 2, "since": 5}
    return ScheduleFire(**{**known, **changes})


@proves("schedule.every-slot-has-an-entry")
def test_what_became_of_a_slot_is_a_row_that_counts_what_stands_behind_it():
    stream = _stream()
    stream.append(_fire(), at_ms=SLOT + 7)
    stream.append(ScheduleMiss(ID, 1, SLOT + 1, 4, "late", nonce="b" * 32), at_ms=SLOT + 8)
    stream.append(ScheduleSkip(ID, 2, SLOT + 2, 3, "paused", "r1", "c" * 32), at_ms=SLOT + 9)
    rows = sorted(stream.rows.every(SLOTS), key=lambda row: row.slot)
    assert [(r.what, r.since, r.slots, r.at_ms, r.run, r.nonce, r.reason) for r in rows] == [
        ("fire", 5, 3, SLOT + 7, "a" * 32, NONCE, ""),
        ("miss", 1, 4, SLOT + 8, "", "b" * 32, "late"),
        ("skip", 2, 3, SLOT + 9, "r1", "c" * 32, "paused"),
    ]
    assert [row.entry for row in rows] == [entry.id for entry in stream.entries]


@proves("schedule.fired-once", "schedule.triggers")
def test_a_keeper_fires_a_slot_once_and_each_trigger_of_one_millisecond():
    stream = _stream()
    other = {"nonce": "1" * 32, "run": "b" * 32}
    fires = [
        (_fire(), ""),
        (_fire(**other), "slot-twice"),
        (_fire(slot=SLOT + 1, **other), ""),
        (_fire(schedule="5" * 64, **other), ""),
        # What happened is told apart by what says it, the calendar is not.
        (_fire(trigger="7" * 64), ""),
        (_fire(trigger="8" * 64, **other), ""),
        (_fire(trigger="9" * 64, **other), "slot-twice"),
    ]
    for body, reason in fires:
        before = len(stream.skipped)
        stream.append(body)
        assert stream.skipped[before:] == ([reason] if reason else [])
    assert {row.mark for row in stream.rows.every(SLOTS)} == {"", NONCE, "1" * 32}
    assert len(stream.rows.every(SLOTS)) == 5


@proves("schedule.every-slot-has-an-entry", "schedule.triggers")
def test_a_slot_is_missed_or_skipped_once_by_one_claim():
    stream = _stream()
    for make in (ScheduleMiss, ScheduleSkip):
        for nonce in ("0" * 32, "1" * 32, "0" * 32):
            stream.append(make(ID, 0, SLOT, 1, "why", nonce=nonce))
    assert stream.skipped == ["slot-twice"] * 2
    assert len(stream.rows.every(SLOTS)) == 4


@proves("schedule.fired-once")
def test_a_claim_is_a_row_of_its_own_nonce_that_says_what_it_replaces():
    stream = _stream()
    first = stream.append(ScheduleClaim(ID, SLOT, NONCE, "fire", before="e" * 32))
    stream.append(ScheduleClaim(ID, SLOT, "1" * 32, "miss"))
    row = stream.rows.get(CLAIM, ID, NONCE)
    assert row is not None
    assert (row.slot, row.before, row.entry) == (SLOT, "e" * 32, first.id)
    assert len(stream.rows.every(CLAIM)) == 2
    for kind in ("claim", "fire", "miss", "skip"):
        stream.append_raw(f"schedule.{kind}", b"{}")
    assert stream.skipped == ["bad-body"] * 4
