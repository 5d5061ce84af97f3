"""Schedules on real cores: who fires, what becomes of the rest, and what a worker makes of it."""

from typing import Any

import pytest
from tests.node.chats import within
from tests.node.cores import WALL_MS, Cores
from tests.node.scheduling import FILE, MINUTE, SLOT, SPEC, Registers, add, stop
from tests.node.test_runs import know
from tests.promise import proves
from tests.task.schedules import text as schedule_text

from muster.errors import Conflict
from muster.fleet.grant import Grant, sign_give
from muster.fleet.machine import Operator
from muster.fleet.statement import EVERY_MACHINE
from muster.git.fence import schedule_ref
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.services.sleepers import WakeUp
from muster.node.tasks.asking import Asking
from muster.task import occurrences
from muster.task.adoption import takeover_args
from muster.task.causes import Unproven
from muster.task.evidence import check_ordered
from muster.task.kinds import RunOpen
from muster.task.kinds import read as body_of
from muster.task.schedule import SET, id_of, set_args, slot_run_id
from muster.task.schedule_fold import stop_args
from muster.task.schedule_kinds import (
    ScheduleFire,
    ScheduleMiss,
    SchedulePause,
    ScheduleRemove,
    ScheduleSet,
    ScheduleSkip,
)
from muster.verbs import schedule as verbs


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    for name in ("studio", "laptop"):
        world.link("hub", name)
    know(world["hub"])
    return world


def _told(world: Cores, kind: str, body: Any) -> list[Any]:
    return [body_of(body, each.body) for each in world["laptop"].entries(f"schedule.{kind}")]


@proves("schedule.form", "schedule.runs")
def test_a_slot_becomes_a_run_that_a_worker_takes(world):
    registers = Registers(world)
    assert add(world["laptop"], FILE.replace("[hub, studio]", "[nobody]"))["ok"] is False
    # A fence that nobody serves is none.
    assert add(world["laptop"], FILE.replace('"repo:main"', "nats"))["ok"] is False
    done = add(world["laptop"])["value"]
    assert (done["owner"], done["fence"], done["next_ms"]) == ("hub", "repo:main", SLOT)
    registers.until(SLOT + MINUTE)
    (fire,) = _told(world, "fire", ScheduleFire)
    assert (fire.slot, fire.missed, fire.fence) == (SLOT, 0, "repo:main")
    (opening,) = world["laptop"].entries("run.open")
    assert opening.header.author == world["hub"].id
    assert body_of(RunOpen, opening.body).run == fire.run
    # Its worker looked at all that stands behind it, and did it.
    world.pass_ms(3_000)
    (row,) = world["laptop"].call("runs", {})["value"]
    assert (row["run"], row["state"]) == (fire.run, "done")
    assert len(world["laptop"].entries("attempt.start")) == 1
    assert world["hub"].core.counters["slots-fired"] == 1
    # It is asked of nobody where nothing is due.
    before = registers.asked
    registers.until(SLOT + 5 * MINUTE)
    assert registers.asked == before


@proves("schedule.stand-ins", "schedule.fired-once")
def test_a_stand_in_fires_for_an_owner_that_sleeps_which_then_does_nothing(world):
    registers = Registers(world)
    add(world["laptop"])
    registers.until(SLOT - MINUTE)
    world.frozen.add("hub")
    registers.until(SLOT + 3 * MINUTE)
    assert [value.by for value in registers.moved] == [world["studio"].id]
    world.frozen.clear()
    registers.until(SLOT + 5 * MINUTE)
    assert len(registers.moved) == 1
    assert len(world["hub"].entries("schedule.fire")) == len(world["hub"].entries("run.open")) == 1
    registers.until(SLOT + 11 * MINUTE)
    assert [value.by for value in registers.moved[1:]] == [world["hub"].id]


@proves("schedule.fired-once", "schedule.every-slot-has-an-entry")
def test_a_claim_outlives_a_crash_and_is_carried_out_once(world):
    registers = Registers(world)
    add(world["laptop"])
    world["studio"].step()
    registers.until(SLOT)
    for _ in range(40):
        world.pass_ms(1_000)
        registers.answer()
        if world["hub"].entries("schedule.claim"):
            break
    # The register moved, and the machine ends before it hears of it.
    (claim,) = world["hub"].entries("schedule.claim")
    assert len(registers.moved) == 1
    world.restart("hub")
    world.link("hub", "studio")
    world.link("hub", "laptop")
    registers.until(SLOT + 5 * MINUTE)
    assert len(registers.moved) == 1
    (fire,) = world["studio"].entries("schedule.fire")
    assert claim.id in fire.causes


@proves("schedule.paused", "schedule.not-silent")
def test_a_schedule_rests_goes_on_and_ends_by_order(world):
    registers, laptop = Registers(world), world["laptop"]
    add(laptop)
    assert stop(laptop, "pause")["value"]["did"] == "paused"
    registers.until(SLOT + 15 * MINUTE)
    assert registers.moved == []
    assert stop(laptop, "resume")["ok"]
    registers.until(SLOT + 21 * MINUTE)
    (skip,) = _told(world, "skip", ScheduleSkip)
    assert (skip.slot, skip.count, skip.reason) == (SLOT + 10 * MINUTE, 2, "paused")
    assert [fire.slot for fire in _told(world, "fire", ScheduleFire)] == [SLOT + 20 * MINUTE]
    shown = laptop.call("schedule.show", {"name": "nightly"})["value"]
    assert [each["what"] for each in shown["decided"]] == ["fire", "skip"]
    (row,) = laptop.call("schedule.list", {})["value"]
    assert (row["state"], row["last"], row["next_ms"]) == ("due", "fire", SLOT + 30 * MINUTE)
    ahead = laptop.call("schedule.next", {"count": 2, "name": "nightly"})["value"]["slots"]
    assert [each["slot_ms"] for each in ahead] == [SLOT + 30 * MINUTE, SLOT + 40 * MINUTE]
    assert stop(laptop, "remove")["ok"]
    registers.until(SLOT + 35 * MINUTE)
    assert len(registers.moved) == 2
    assert laptop.call("schedule.list", {})["value"] == []


@proves("schedule.register")
def test_a_register_is_pushed_to_by_keepers_alone_and_to_no_slot_that_is_ahead(world):
    hub, studio, laptop = (world[name] for name in ("hub", "studio", "laptop"))
    id = add(laptop)["value"]["schedule"]
    world.pass_ms(500)
    name, now_ms = schedule_ref(id), WALL_MS + world.ms

    def push(peer: str, slots: dict[str, int]) -> str:
        args = {"peer": peer, "slots": slots, "updates": [[name, "0" * 40, "1" * 40]]}
        answer = hub.call("git.may-push", args)
        return "" if answer["ok"] else answer["error"]["text"]

    assert push(studio.id, {name: now_ms + 4 * MINUTE}) == ""
    assert "ahead of this machine's clock" in push(studio.id, {name: now_ms + 6 * MINUTE})
    assert "ahead of this machine's clock" in push(studio.id, {})
    assert "only its keepers" in push(laptop.id, {name: now_ms})


@proves("schedule.wakes")
def test_a_keeper_that_sleeps_is_woken_by_who_stands_in_before_the_slot_once(world):
    cards = [{"mac": "02:00:00:00:00:01", "subnets": ["10.0.0.0/24"], "wakes": True}]
    world["hub"].step(FactsChanged({**world["hub"].facts(), "cards": cards}))
    world.link("studio", "laptop")
    world.pass_ms(500)
    registers = Registers(world)
    add(world["laptop"])
    registers.until(SLOT - 5 * MINUTE)
    world.cut("hub")
    world.frozen.add("hub")
    registers.until(SLOT - 2 * MINUTE)
    woken = lambda: [e.machine for e in world["studio"].effects if isinstance(e, WakeUp)]  # noqa: E731
    assert woken() == []
    registers.until(SLOT + MINUTE)
    assert woken() == [world["hub"].id]


@proves("schedule.edited")
def test_what_was_changed_counts_from_its_own_order_and_the_one_before_is_no_more(world):
    registers, laptop = Registers(world), world["laptop"]
    before = add(laptop)["value"]["schedule"]
    registers.until(SLOT - MINUTE)
    changed = add(laptop, FILE.replace("every: 10m", "every: 20m"))["value"]
    assert changed["schedule"] != before
    # Of one name there is one.
    assert [row["when"] for row in laptop.call("schedule.list", {})["value"]] == ["every 20m UTC"]
    registers.until(SLOT + 11 * MINUTE)
    fired = _told(world, "fire", ScheduleFire)
    assert {fire.schedule for fire in fired} == {changed["schedule"]}
    assert [fire.slot for fire in fired] == [changed["next_ms"]]
    # An older order about it comes too late.
    old = add(laptop, ahead_ms=-40 * MINUTE)
    assert old["ok"] is False


@proves("schedule.not-silent")
def test_the_slot_of_whom_a_grant_let_until_yesterday_is_skipped_and_a_person_is_told(world):
    registers, laptop = Registers(world), world["laptop"]
    signer = Operator(bytes([77]) * 32).statement
    for verb, until in (("schedule.set", SLOT + 12 * MINUTE), ("run", SLOT + 5 * MINUTE)):
        _grant(world, signer, verb, "nightly", until)
    assert add(laptop, signer=signer)["ok"]
    registers.until(SLOT + 11 * MINUTE)
    # The first was run, of the second the grant of `run` had ended.
    assert [fire.slot for fire in _told(world, "fire", ScheduleFire)] == [SLOT]
    (skip,) = _told(world, "skip", ScheduleSkip)
    assert (skip.slot, skip.count) == (SLOT + 10 * MINUTE, 1)
    assert skip.reason.startswith("not-allowed")
    rows = laptop.call("incidents", {})["value"]
    assert any("may not order it any more" in row["title"] for row in rows)


@proves("schedule.fence-first", "schedule.every-slot-has-an-entry")
def test_without_a_fence_nothing_is_fired_and_a_person_is_told(world):
    registers = Registers(world)
    add(world["laptop"])
    registers.away = {"hub", "studio"}
    registers.until(SLOT + 8 * MINUTE)
    assert world["laptop"].entries("schedule.fire") == []
    rows = world["laptop"].call("incidents", {})["value"]
    assert [each["title"] for each in rows if "gives no answer" in each["title"]]
    # Each keeper asked, and what was asked was answered by nobody.
    every = [each.core.counters for each in world.machines.values()]
    assert sum(each["registers-silent"] for each in every) == registers.asked > 0
    registers.away = set()
    registers.until(SLOT + 9 * MINUTE)
    (miss,) = _told(world, "miss", ScheduleMiss)
    assert (miss.slot, miss.count, miss.reason) == (SLOT, 1, "no-fence")
    assert sum(each.core.counters["slots-missed"] for each in world.machines.values()) == 1


@proves("schedule.fence-first", "schedule.stand-ins")
def test_whoever_learns_that_a_slot_was_fired_waits_for_no_answer_of_its_register(world):
    """As a laptop that wakes, and asks before its links are there."""
    registers = Registers(world)
    add(world["laptop"])
    registers.away = {"hub"}
    registers.until(SLOT + 9 * MINUTE)
    assert [fire.slot for fire in _told(world, "fire", ScheduleFire)] == [SLOT]
    assert world["hub"].core.counters["registers-silent"] > 0
    assert world["laptop"].call("incidents", {})["value"] == []


@proves("schedule.owner-alone")
def test_without_a_register_the_owner_alone_fires_and_the_others_say_what_it_did_not(world):
    registers = Registers(world)
    add(world["laptop"], FILE.replace('"repo:main"', "owner").replace("late: 6m", "late: 3m"))
    registers.until(SLOT + MINUTE)
    assert [fire.fence for fire in _told(world, "fire", ScheduleFire)] == ["owner"]
    world.frozen.add("hub")
    registers.until(SLOT + 18 * MINUTE)
    assert registers.asked == 0
    rows = [body_of(ScheduleMiss, e.body) for e in world["studio"].entries("schedule.miss")]
    assert [(each.slot, each.reason) for each in rows] == [
        (SLOT + 10 * MINUTE, "its owner is silent")
    ]


def _reason(world: Cores, entry: Any, now_ms: int) -> str:
    """What a worker makes of a run."""
    core = world["laptop"].core
    try:
        check_ordered(
            entry, fleet=core.membership.fleet, lookup=core.log.entry,
            authority=core.roster.permit, now_ms=now_ms, asking=Asking(core),
        )  # fmt: skip
    except Unproven as unproven:
        return unproven.reason
    return ""


# What is changed in the fire, and in the opening of its run; by whom, and what is said of it.
FORGED: list[tuple[dict[str, Any], dict[str, Any], str, str]] = [
    ({}, {}, "studio", ""),
    ({"slot": SLOT + MINUTE}, {}, "studio", "slot-off-grid"),
    ({"slot": SLOT - 10 * MINUTE}, {}, "studio", "slot-off-grid"),
    ({"slot": SLOT + 20 * MINUTE}, {}, "studio", "slot-in-the-future"),
    ({}, {}, "laptop", "slot-not-keeper"),
    ({}, {"spec": SPEC.replace("'{}'", "'{\"a\": 1}'")}, "studio", "slot-other-run"),
    ({}, {"values": {"a": "b"}}, "studio", "slot-other-run"),
    ({}, {"repo": "main"}, "studio", "slot-other-run"),
    ({}, {"run": "f" * 32}, "studio", "slot-other-run"),
    ({"schedule": "0" * 64}, {}, "studio", "schedule-other"),
    # A second fire of the slot of the first row, which is known by now.
    ({"nonce": "1" * 32}, {}, "studio", "slot-twice"),
]


@proves("schedule.evidence")
def test_a_worker_takes_what_a_keeper_fired_only_as_it_was_signed(world):
    registers = Registers(world)
    add(world["laptop"], FILE.replace("[hub, studio]", "[studio]"))
    world.frozen.add("studio")
    registers.until(SLOT + MINUTE)
    world.frozen.clear()
    made = [(_forged(world, by, fire, run), reason) for fire, run, by, reason in FORGED]
    for entry, reason in made:
        assert _reason(world, entry, SLOT + MINUTE) == reason
    entry, _ = made[0]
    assert _reason(world, entry, SLOT - 6 * MINUTE) == "slot-in-the-future"
    stop(world["laptop"], "remove")
    world.ms += 11 * MINUTE
    world.pass_ms(500)
    # What was begun before its schedule went goes on, what begins afterwards does not.
    late = _forged(world, "studio", {}, {})
    assert _reason(world, late, SLOT + 12 * MINUTE) == "slot-late"
    next_one = _forged(world, "studio", {"slot": SLOT + 10 * MINUTE}, {})
    assert _reason(world, next_one, SLOT + 12 * MINUTE) == "schedule-removed"
    assert _reason(world, entry, SLOT + 12 * MINUTE) == ""


def _forged(world: Cores, by: str, changes: Any, run: Any) -> Any:
    """A slot that a machine says it fired, and its run."""
    core = world[by].core
    (order,) = world[by].entries("schedule.set")
    id = id_of(body_of(ScheduleSet, order.body).statement)
    slot = changes.get("slot", SLOT)
    name = slot_run_id(core.membership.fleet, changes.get("schedule", id), slot)
    said = {
        "schedule": id, "slot": slot, "local": occurrences.local(occurrences.Times(), slot),
        "late_ms": 0, "run": name, "fence": "repo:main", "nonce": "0" * 32, **changes,
    }  # fmt: skip
    opening = {"run": name, "name": "nightly", "spec": SPEC, "statement": "", **run}
    found = []

    def write() -> None:
        fire = core.append_body(ScheduleFire(**said), cause=(order.id,))
        found.append(core.append_body(RunOpen(**opening), cause=(fire.id,)))

    core.when_done(write)
    world[by].step()
    world.drain()
    return found[0]


# Its run stays open until a person decides.
ASKS = "muster: 1\nname: nightly\nphases:\n  b:\n    by: human\n    do: look at it\n"


def _away(world: Cores, name: str) -> None:
    world.cut(name)
    world.frozen.add(name)


@proves("schedule.overlap")
def test_a_run_that_another_machine_went_on_with_and_ended_is_open_no_more(world):
    world.link("studio", "laptop")
    registers = Registers(world)
    add(world["laptop"], spec=ASKS)
    registers.until(SLOT + MINUTE)
    (fire,) = _told(world, "fire", ScheduleFire)
    _away(world, "hub")
    args = takeover_args(world["hub"].id)
    statement = world.sign("takeover", world["hub"].id, world["studio"], args)
    assert world["studio"].call("takeover", args, statement=statement)["ok"]
    # As long as it goes on there it is open.
    registers.until(SLOT + 13 * MINUTE)
    (skip,) = _told(world, "skip", ScheduleSkip)
    assert skip.reason.startswith("overlap")
    args = {"what": fire.run, "reason": ""}
    assert world["studio"].order("cancel", fire.run, args)["ok"]
    registers.until(SLOT + 23 * MINUTE)
    assert [fire.slot for fire in _told(world, "fire", ScheduleFire)] == [SLOT, SLOT + 20 * MINUTE]


@proves("schedule.overlap")
def test_what_others_write_of_a_schedule_hides_no_run_of_its_keepers(world):
    registers = Registers(world)
    add(world["laptop"], spec=ASKS)
    registers.until(SLOT + MINUTE)
    for n in range(9):
        _forged(world, "laptop", {"slot": SLOT + n, "nonce": f"{n:032x}"}, {})
    registers.until(SLOT + 11 * MINUTE)
    (skip,) = _told(world, "skip", ScheduleSkip)
    assert skip.reason.startswith("overlap")


def _writes(world: Cores, by: str, *bodies: Any) -> None:
    """A machine writes down what it likes."""
    core = world[by].core
    core.when_done(lambda: [core.append_body(body) for body in bodies])
    world[by].step()
    world.pass_ms(500)


@proves("schedule.believed", "schedule.fired-once")
@pytest.mark.parametrize("fence", ['"repo:main"', "owner"])
def test_a_slot_that_is_none_or_is_ahead_is_believed_of_no_keeper(world, fence):
    registers = Registers(world)
    id = add(world["laptop"], FILE.replace('"repo:main"', fence))["value"]["schedule"]
    world.pass_ms(500)
    for slot in (10**15, SLOT + 200 * 86_400_000, SLOT + 20 * MINUTE, SLOT - MINUTE):
        nonce = f"{slot:032x}"
        fire = ScheduleFire(id, slot, "", 0, "a" * 32, "owner", nonce)
        miss = ScheduleMiss(id, 0, slot, 1, "late", nonce=nonce)
        _writes(world, "studio", fire, miss)
    registers.until(SLOT + MINUTE)
    fired = lambda: [e.header.author for e in world["hub"].entries("schedule.fire")]  # noqa: E731
    assert fired().count(world["hub"].id) == 1
    # Also by who begins anew, and of each keeper that reads what became of the slots.
    world.restart("hub")
    world.link("hub", "studio")
    world.link("hub", "laptop")
    registers.until(SLOT + 11 * MINUTE)
    assert fired().count(world["hub"].id) == 2
    rows = world["laptop"].call("schedule.show", {"name": "nightly"})["value"]["decided"]
    assert [row["slot_ms"] for row in rows] == [SLOT + 10 * MINUTE, SLOT]


def _grant(world: Cores, to: Any, verb: str, object: str, until_ms: int) -> None:
    grant = Grant(object=object, to=to.public.hex(), until_ms=until_ms, verb=verb)
    now_ms, nonce = WALL_MS + world.ms, f"{verb}{object}".encode().ljust(16, b"0")[-16:]
    raw = sign_give(world.operator.statement, world.fleet, grant, nonce=nonce, issued_ms=now_ms)
    said = {"object": object, "to": grant.to, "until_ms": until_ms, "verb": verb}
    args = {"object": object, "to": grant.to, "verb": verb}
    options = {"grant": said, "statement": raw.decode()}
    assert world["laptop"].order("grant", verb, args, options=options)["ok"]
    world.pass_ms(500)


# The name that an order is about, how long its grant counts, when it is written down and signed:
# in minutes from the slot; and whether it counts.
ORDERS = [
    ("mine", 60, -4, -4, False),
    ("nightly", -2, -4, -4, True),
    ("nightly", -4, -2, -5, False),
]


@proves("schedule.orders")
@pytest.mark.parametrize(("name", "until", "at", "issued", "counts"), ORDERS)
@pytest.mark.parametrize("verb", ["pause", "remove"])
def test_who_may_order_about_one_schedule_stops_no_other_one_and_none_later(
    world, verb, name, until, at, issued, counts
):
    registers = Registers(world)
    id, signer = add(world["laptop"])["value"]["schedule"], Operator(bytes([77]) * 32).statement
    world.ms += SLOT - 8 * MINUTE - WALL_MS - world.ms
    world.pass_ms(500)
    _grant(world, signer, f"schedule.{verb}", name, SLOT + until * MINUTE)
    registers.until(SLOT + at * MINUTE)
    order = world.sign(
        f"schedule.{verb}", name, world["laptop"], stop_args(name, id), signer=signer,
        ahead_ms=(issued - at) * MINUTE, life_ms=60 * MINUTE,
    )  # fmt: skip
    make = {"pause": SchedulePause, "remove": ScheduleRemove}[verb]
    _writes(world, "laptop", make(schedule=id, name=name, statement=order))
    registers.until(SLOT + MINUTE)
    assert len(world["hub"].entries("schedule.fire")) == (0 if counts else 1)


@proves("schedule.not-silent")
def test_what_a_person_was_told_of_a_schedule_is_over_when_it_fires_again_or_is_gone(world):
    registers, laptop, hub = Registers(world), world["laptop"], world["hub"]
    signer = Operator(bytes([77]) * 32).statement
    _grant(world, signer, "schedule.set", "nightly", SLOT + 90 * MINUTE)
    _grant(world, signer, "run", "nightly", SLOT - MINUTE)
    id = add(laptop, signer=signer)["value"]["schedule"]
    told = lambda what: hub.core.incidents.is_open(f"{what}-{id[:16]}")  # noqa: E731
    registers.until(SLOT + MINUTE)
    assert told("schedule-denied")
    _grant(world, signer, "run", "nightly", SLOT + 15 * MINUTE)
    registers.until(SLOT + 11 * MINUTE)
    assert not told("schedule-denied")
    registers.until(SLOT + 21 * MINUTE)
    registers.away = {"hub", "studio"}
    registers.until(SLOT + 38 * MINUTE)
    assert told("schedule-denied")
    assert told("schedule-fence")
    world.restart("hub")
    world.link("hub", "studio")
    world.link("hub", "laptop")
    add(laptop)
    registers.until(SLOT + 39 * MINUTE)
    assert not told("schedule-denied")
    assert not told("schedule-fence")


@proves("schedule.orders")
@pytest.mark.parametrize(("until", "counts"), [(60, True), (-4, False)])
def test_who_might_set_a_schedule_sets_none_under_an_earlier_date_when_that_has_ended(
    world, until, counts
):
    laptop, signer = world["laptop"], Operator(bytes([77]) * 32).statement
    registers = Registers(world)
    made = laptop.call("schedule.make", {"spec": SPEC, "text": FILE})["value"]
    world.ms += SLOT - 8 * MINUTE - WALL_MS - world.ms
    world.pass_ms(500)
    _grant(world, signer, SET, "nightly", SLOT + until * MINUTE)
    registers.until(SLOT - 2 * MINUTE)
    order = world.sign(
        SET, "nightly", laptop, set_args(made["text"]), to=EVERY_MACHINE, signer=signer,
        ahead_ms=-3 * MINUTE, life_ms=60 * MINUTE,
    )  # fmt: skip
    _writes(world, "laptop", ScheduleSet(made["text"], order))
    assert len(laptop.call("schedule.list", {})["value"]) == counts


class _Person:
    """A command at a machine, as a verb of the client sees it."""

    def __init__(self, machine: Any, on: str) -> None:
        self.machine, self.on, self.said, self.ordered = machine, on, list[str](), dict[str, Any]()

    def say(self, text: str) -> None:
        self.said.append(text)

    def ask(self, verb: str, args: Any) -> Any:
        if verb == SET:
            self.ordered = args
            return args
        return self.machine.call(verb, args)["value"]


@proves("schedule.edited")
def test_a_schedule_is_taken_over_from_a_keeper_that_is_revoked(world):
    laptop = world["laptop"]
    add(laptop, FILE.replace("[hub, studio]", "[studio, hub]"))
    assert world["hub"].order("revoke", "studio", {"name": "studio"})["ok"]
    world.pass_ms(500)
    person = _Person(laptop, "laptop")
    verbs.schedule(person, verbs.Action("takeover", "nightly"))
    assert person.ordered["keepers"] == [laptop.id, world["hub"].id]
    assert "studio is revoked" in person.said[0]


@proves("schedule.edited", "schedule.paused")
def test_a_schedule_that_rests_is_not_changed_and_none_rests_until_a_moment_that_is_over(
    world, monkeypatch
):
    laptop = world["laptop"]
    add(laptop)
    refused = stop(laptop, "pause", until_ms=WALL_MS + world.ms - 1)
    assert "a moment that is over" in refused["error"]["text"]
    assert stop(laptop, "pause")["ok"]
    world.ms += 1_000
    assert "rests" in add(laptop)["error"]["text"]
    with pytest.raises(Conflict, match="rests"):
        verbs.schedule(_Person(laptop, "studio"), verbs.Action("takeover", "nightly"))
    assert stop(laptop, "resume")["ok"]
    world.ms += 1_000
    # As many as there may be: it is changed, and no other one is added.
    monkeypatch.setattr(verbs, "SCHEDULES_MAX", 1)
    assert add(laptop)["ok"]
    other = add(laptop, FILE.replace("schedule: nightly", "schedule: daily"))
    assert "there are 1 schedules already" in other["error"]["text"]


@proves("schedule.overlap")
@pytest.mark.parametrize(
    ("overlap", "states"), [("replace", ["cancelled", "open"]), ("allow", ["open", "open"])]
)
def test_the_next_slot_ends_the_run_before_it_where_the_schedule_says_replace(
    world, overlap, states
):
    registers = Registers(world)
    add(world["laptop"], f"{FILE}overlap: {overlap}\n", ASKS)
    registers.until(SLOT + 11 * MINUTE)
    assert states_of_runs(world) == states


def states_of_runs(world: Cores) -> list[str]:
    """Of the runs of schedules, in the order in which they were fired."""
    fired = sorted(_told(world, "fire", ScheduleFire), key=lambda fire: fire.slot)
    states = {row["run"]: row["state"] for row in world["laptop"].call("runs", {})["value"]}
    return [states[fire.run] for fire in fired]


@proves("schedule.not-silent")
def test_a_schedule_that_this_version_does_not_read_is_told_of_by_its_keepers(world):
    """An earlier one took its form; until it is written anew, or where it was removed before."""
    hub, studio, laptop = (world[name] for name in ("hub", "studio", "laptop"))
    mallory = Operator(b"mallory".ljust(32))

    def told(one: Any) -> list[str]:
        return [row.title for row in one.core.incidents.own("schedule-unread-").values()]

    def orders(name: str, life_ms: int = 86_400_000, **more: Any) -> str:
        keepers = [hub.id, studio.id]
        text = schedule_text(schedule=name, keepers=keepers, fence="repo:../x")
        args = {"keepers": keepers, "text": text}
        order = world.sign(SET, name, hub, args, to=EVERY_MACHINE, life_ms=life_ms, **more)
        within(laptop, lambda: laptop.core.append_body(ScheduleSet(text, order)))
        world.pass_ms(3_000)
        return id_of(order)

    orders("nobodys", signer=mallory.statement)
    assert told(hub) == []
    gone = orders("gone")
    assert len(told(hub)) == 1
    args = stop_args("gone", gone)
    order = world.sign("schedule.remove", "gone", hub, args)
    within(hub, lambda: hub.core.append_body(ScheduleRemove(gone, "gone", order)))
    world.pass_ms(3_000)
    assert told(hub) == []
    orders("weekly")
    assert ["weekly" in title for title in told(hub)] == [True]
    assert "does not read its form" in told(studio)[0]
    assert told(laptop) == [], "it keeps it not"
    # It was written anew.
    world.pass_ms(1_000)
    assert add(hub, FILE.replace("nightly", "weekly"))["ok"]
    world.pass_ms(3_000)
    assert told(hub) == []
