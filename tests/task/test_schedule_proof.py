"""Why a machine may run what a keeper fired: each link from the run to what a person signed."""

from dataclasses import dataclass, field
from typing import Any

import pytest
from msgspec.structs import replace
from tests.promise import proves
from tests.task.orders import FLEET_ID, NOW_MS
from tests.task.schedules import KEEPER, MINUTE, OTHER, SLOT, SPEC, STANDIN, TOLD, ordered, text
from tests.task.world import Stream

from muster.errors import Denied
from muster.fleet.kinds import IncidentOpen
from muster.fleet.statement import Statement
from muster.limits import INT_ABS_MAX, SLOT_AHEAD_MS_MAX, STATEMENT_LIFE_MS_MAX
from muster.log.entry import Entry, EntryId
from muster.task.causes import Unproven
from muster.task.evidence import check_ordered
from muster.task.kinds import RunOpen, RunSettle
from muster.task.schedule import id_of, opened, slot_run
from muster.task.schedule_kinds import ScheduleFire
from muster.task.schedule_proof import is_fired

HOUR = 60 * MINUTE
DAY = 24 * HOUR
# No calendar reaches so far; a stamp does.
FAR_MS = INT_ABS_MAX - DAY


@dataclass
class Knows:
    """What the machine that looks knows of schedules beside the chain."""

    removed_ms: int = INT_ABS_MAX
    counts: list[EntryId] = field(default_factory=list)
    asked: list[tuple[str, int, str]] = field(default_factory=list)

    def is_removed(self, _schedule: str, at_ms: int) -> bool:
        return at_ms >= self.removed_ms

    def fires(self, schedule: str, slot: int, nonce: str) -> list[EntryId]:
        self.asked.append((schedule, slot, nonce))
        return self.counts

    def leads(self, _statement: Statement, _entry: Entry) -> bool:
        return False


class Chain:
    """A schedule, a fire of a slot of it and the opening of its run; `said` changes one of them."""

    def __init__(self, said: Any = None, **changes: Any) -> None:
        self.streams = {name: Stream(name, folds=()) for name in (KEEPER, STANDIN, OTHER)}
        self.lost: set[EntryId] = set()
        self.erased: set[EntryId] = set()
        self.order = said or ordered(changes.get("text", ""))
        self.set = self.write(OTHER, self.order)
        by, slot = changes.get("by", KEEPER), changes.get("slot", SLOT)
        self.at_ms = changes.get("at_ms", slot + MINUTE)
        # The same text in the form that can be read, where this is about one that cannot.
        schedule, told = opened(changes.get("computed") or self.order.text), ""
        cited, fire = [self.set.id], self._fire(slot)
        if happened := changes.get("happened"):
            who, body, causes = happened
            self.trigger = self.write(who, body, causes, changes.get("happened_ms", slot))
            cited += [] if changes.get("uncited") else [self.trigger.id]
            id = self.trigger.id.hex()
            fire, told = replace(fire, trigger=id, nonce=id[:32]), changes["told"]
        fire, opening = slot_run(FLEET_ID, schedule, fire, told)
        fire = replace(fire, **changes.get("fire", {}))
        self.fire = self.write(by, fire, cited, self.at_ms)
        opening = replace(opening, **changes.get("run", {}))
        self.opening = self.write(changes.get("opens", by), opening, [self.fire.id], self.at_ms)

    def _fire(self, slot: int) -> ScheduleFire:
        id = id_of(self.order.statement)
        return ScheduleFire(id, slot, "", MINUTE, "", "owner", "0" * 32)

    def write(self, by: str, body: Any, causes: Any = (), at_ms: int = NOW_MS) -> Entry:
        return self.streams[by].append(body, causes, at_ms)

    def lookup(self, id: EntryId) -> Entry | None:
        entries = (each for stream in self.streams.values() for each in stream.entries)
        found = next((each for each in entries if each.id == id and id not in self.lost), None)
        return found.without_body() if found is not None and id in self.erased else found

    def reason(self, entry: Entry | None = None, **changes: Any) -> str:
        """What a machine makes of the run; "" where it takes it."""
        known = {"fleet": FLEET_ID, "lookup": self.lookup, "authority": lambda *_: None}
        known |= {"now_ms": self.at_ms, "asking": Knows(), **changes}
        try:
            check_ordered(entry or self.opening, **known)
        except Unproven as unproven:
            return unproven.reason
        return ""


NIGHTLY = text(when={"cron": "0 0 * * *"})
BAD_SPEC = ordered(text(run="no spec"))
FORGED = ordered()
FORGED = type(FORGED)(FORGED.text, FORGED.statement.replace('"v":1', '"v":2'))
LATE_MS = HOUR + SLOT_AHEAD_MS_MAX

# What is changed of a chain, and what a worker says of it; "" where it takes it.
CHAINS: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"by": STANDIN}, ""),
    ({"text": NIGHTLY, "slot": (NOW_MS // DAY + 1) * DAY}, ""),
    # The calendar: a slot of it, behind the order, within its life, as the clocks show it.
    ({"slot": SLOT + MINUTE}, "slot-off-grid"),
    ({"slot": SLOT + 1}, "slot-off-grid"),
    ({"slot": SLOT - 10 * MINUTE}, "slot-off-grid"),
    ({"slot": SLOT + STATEMENT_LIFE_MS_MAX}, "slot-off-grid"),
    ({"said": ordered(text(when={"on": {"run": "build"}}))}, "slot-off-grid"),
    ({"at_ms": SLOT - SLOT_AHEAD_MS_MAX}, ""),
    ({"at_ms": SLOT - SLOT_AHEAD_MS_MAX - 1}, "slot-in-the-future"),
    ({"at_ms": SLOT + LATE_MS}, ""),
    ({"at_ms": SLOT + LATE_MS + 1}, "slot-late"),
    ({"text": text(late="2h"), "at_ms": SLOT + LATE_MS + 1}, ""),
    # Its keepers, each for itself.
    ({"by": OTHER}, "slot-not-keeper"),
    ({"opens": STANDIN}, "slot-not-keeper"),
    ({"text": text(keepers=[STANDIN])}, "slot-not-keeper"),
    # The run is what was signed, and of that slot.
    ({"run": {"spec": SPEC.replace("'{}'", "'{\"a\": 1}'")}}, "slot-other-run"),
    ({"run": {"values": {"slot-time": "now"}}}, "slot-other-run"),
    ({"run": {"repo": "main"}}, "slot-other-run"),
    ({"run": {"name": "other"}}, "slot-other-run"),
    ({"run": {"run": "f" * 32}}, "slot-other-run"),
    ({"run": {"priority": 9}}, "slot-other-run"),
    ({"fire": {"run": "f" * 32}}, "slot-other-run"),
    ({"text": text(run=TOLD)}, ""),
    ({"text": text(run=TOLD), "fire": {"slot": SLOT + 10 * MINUTE}}, "slot-in-the-future"),
    ({"fire": {"schedule": "0" * 64}}, "schedule-other"),
    # What was signed holds, and can be read.
    ({"said": ordered(target=KEEPER)}, "statement-forged"),
    ({"said": ordered(args={})}, "statement-forged"),
    ({"said": ordered(fleet="e" * 64)}, "statement-forged"),
    ({"said": FORGED}, "statement-forged"),
    ({"said": BAD_SPEC, "computed": text()}, "spec-yields-nothing"),
]  # fmt: skip


@proves("schedule.evidence")
def test_a_worker_takes_what_a_keeper_fired_only_as_it_was_signed():
    for changes, reason in CHAINS:
        assert Chain(**changes).reason() == reason, changes
    # By the clock of whoever looks, too.
    assert Chain().reason(now_ms=SLOT - SLOT_AHEAD_MS_MAX) == ""
    assert Chain().reason(now_ms=SLOT - SLOT_AHEAD_MS_MAX - 1) == "slot-in-the-future"


@proves("schedule.evidence")
def test_a_link_that_is_missing_or_cannot_be_read_is_a_refusal():
    chain = Chain()
    assert is_fired(chain.opening, chain.lookup)
    chain.lost = {chain.set.id}
    assert chain.reason() == "slot-missing"
    chain.lost = {chain.fire.id}
    assert not is_fired(chain.opening, chain.lookup)
    assert chain.reason() == "statement-missing"
    chain.lost = set()
    for entry, reason in ((chain.fire, "slot-no-body"), (chain.set, "schedule-no-body")):
        chain.erased = {entry.id}
        assert chain.reason() == reason
    chain.erased = set()
    bad = chain.streams[KEEPER].append_raw("schedule.fire", b"{}", [chain.set.id], SLOT)
    body = RunOpen("f" * 32, "notes", SPEC, "")
    assert chain.reason(chain.write(KEEPER, body, [bad.id], SLOT)) == "slot-bad-body"


@proves("schedule.evidence")
def test_whoever_signed_it_may_still_order_both_as_of_the_opening():
    chain, asked = Chain(), []

    def but_not(verb: str) -> Any:
        def authority(statement: Statement, at_ms: int) -> None:
            asked.append((statement.verb, statement.object, statement.target, at_ms))
            if statement.verb == verb:
                raise Denied("no grant allows it")

        return authority

    assert chain.reason(authority=but_not("ask")) == ""
    assert asked == [
        ("run", "notes", KEEPER, chain.at_ms), ("schedule.set", "nightly", "fleet", chain.at_ms),
    ]  # fmt: skip
    assert chain.reason(authority=but_not("run")) == "operator-not-allowed"
    assert chain.reason(authority=but_not("schedule.set")) == "operator-not-allowed"
    # Of an order that has ended it is asked as of its end.
    asked.clear()
    brief = Chain(ordered(until_ms=SLOT), at_ms=SLOT + MINUTE)
    assert brief.reason(authority=but_not("ask")) == ""
    assert {at_ms for *_, at_ms in asked} == {SLOT}


@proves("schedule.evidence", "schedule.fired-once")
def test_what_was_removed_before_it_began_or_was_fired_before_is_not_run():
    chain = Chain()
    assert chain.reason(asking=Knows(removed_ms=chain.at_ms)) == "schedule-removed"
    assert chain.reason(asking=Knows(removed_ms=chain.at_ms + 1)) == ""
    other = chain.write(STANDIN, chain._fire(SLOT), [chain.set.id], SLOT)
    for counts, reason in (
        ([], ""), ([chain.fire.id, other.id], ""), ([other.id, chain.fire.id], "slot-twice"),
    ):  # fmt: skip
        knows = Knows(counts=counts)
        assert chain.reason(asking=knows) == reason
        # Of the calendar a slot has one fire, whatever its nonce.
        assert knows.asked == [(id_of(chain.order.statement), SLOT, "")]
    # Who knows nothing beside the chain goes by that.
    assert chain.reason(asking=None) == ""


TELLS = IncidentOpen("disk-full", "warning", "$(rm -rf /) is full")
DISK = text(when={"on": {"incident": "disk-*"}}, run=TOLD)
# What happened, as the fire says, and who wrote it; else as above.
HAPPENED: list[tuple[dict[str, Any], str]] = [
    ({}, ""),
    ({"told": "another text"}, "slot-other-run"),
    ({"happened": (STANDIN, TELLS, ())}, "slot-off-grid"),
    ({"happened": (OTHER, TELLS, ())}, "slot-off-grid"),
    ({"happened": (KEEPER, replace(TELLS, key="clock"), ())}, "slot-off-grid"),
    ({"happened": (KEEPER, RunSettle("r1", "done"), ())}, "slot-off-grid"),
    ({"uncited": True}, "slot-off-grid"),
    ({"happened_ms": SLOT + 1}, "slot-off-grid"),
    ({"happened_ms": SLOT - 1}, "slot-off-grid"),
    ({"fire": {"nonce": "0" * 32}}, "slot-off-grid"),
    ({"fire": {"trigger": ""}}, "slot-off-grid"),
    ({"fire": {"trigger": "0" * 64}}, "slot-off-grid"),
    # It happened before anybody ordered that, or the calendar is what was ordered.
    ({"slot": NOW_MS}, "slot-off-grid"),
    ({"text": text(run=TOLD)}, "slot-off-grid"),
]


@proves("schedule.triggers", "schedule.evidence")
def test_what_happened_runs_a_schedule_where_its_keeper_itself_wrote_that():
    known = {"text": DISK, "slot": SLOT + 7, "told": TELLS.title, "happened": (KEEPER, TELLS, ())}
    for changes, reason in HAPPENED:
        assert Chain(**{**known, **changes}).reason() == reason, changes
    # What happened is told apart by its entry: the register of the calendar does not know it.
    chain, knows = Chain(**known), Knows()
    assert chain.reason(asking=knows) == ""
    assert knows.asked == [(id_of(chain.order.statement), SLOT + 7, chain.trigger.id.hex()[:32])]


@proves("schedule.evidence")
@pytest.mark.parametrize(
    "when", [{"cron": "0 0 * * *"}, {"every": "1m"}, {"on": {"incident": "*"}}]
)
def test_a_slot_of_which_no_clock_has_a_date_is_a_refusal(when):
    """Whoever signs and stamps as they like gets as far as the calendar."""
    chain = Chain(ordered(text(when=when), issued_ms=FAR_MS, until_ms=INT_ABS_MAX))
    slot = (INT_ABS_MAX // MINUTE - 1) * MINUTE
    happened = chain.write(KEEPER, TELLS, (), slot)
    id = happened.id.hex()
    of = {"trigger": id, "nonce": id[:32]} if "on" in when else {}
    fire = replace(chain._fire(slot), run="f" * 32, **of)
    fired = chain.write(KEEPER, fire, [chain.set.id, happened.id], slot)
    opening = chain.write(KEEPER, RunOpen("f" * 32, "notes", SPEC, ""), [fired.id], slot)
    assert chain.reason(opening, now_ms=slot) == "slot-in-the-future"
