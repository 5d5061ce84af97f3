"""Schedules that are run by what happens: by whom, how often, and what a worker makes of it."""

from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from tests.node.cores import Cores, One
from tests.node.scheduling import MINUTE, SPEC, Registers, add, stop
from tests.node.test_runs import know
from tests.node.test_schedules import ASKS, _reason, _told, states_of_runs
from tests.promise import proves

from muster.limits import INCIDENT_FIRES_MAX, SAYING_FIRES_MAX, TRIGGER_FIRES_MS
from muster.log.entry import Entry, EntryId
from muster.task.kinds import RunOpen
from muster.task.kinds import read as body_of
from muster.task.schedule_kinds import ScheduleFire, ScheduleSkip
from muster.task.trigger import DEPTH_MAX, Trigger

TOLD = SPEC.replace("name: nightly", "name: told\ninputs: {trigger-text: none}")
FILE = """muster: 1
schedule: nightly
when: {on: {incident: "disk-*"}, every: 5m}
run: spec.yaml
keepers: [hub, studio]
"""


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    for name in ("studio", "laptop"):
        world.link("hub", name)
    know(world["hub"])
    return world


def _happens(world: Cores, name: str, key: str, title: str) -> None:
    core = world[name].core
    core.when_done(lambda: core.incidents.open(key, "warning", title))
    world[name].step()
    world.pass_ms(500)


@proves("schedule.triggers")
def test_an_incident_of_a_keeper_runs_a_schedule_once_in_its_time_with_its_text_as_a_value(world):
    registers = Registers(world)
    done = add(world["laptop"], FILE, TOLD)["value"]
    assert done["on"] == "on each incident disk-*"
    world.pass_ms(500)
    assert msgspec.convert({"incident": "disk:*"}, Trigger).incident == "disk:*"
    # Not another one, and not of a machine that is no keeper.
    _happens(world, "studio", "clock", "the clock is wrong")
    _happens(world, "laptop", "disk-full", "another's")
    assert _told(world, "fire", ScheduleFire) == []
    for n in range(4):
        _happens(world, "studio", "disk-full", f"$(rm -rf /) ${{run.id}} {n}")
    (fire,) = _told(world, "fire", ScheduleFire)
    (opening,) = world["laptop"].entries("run.open")
    assert opening.header.author == world["studio"].id
    values = body_of(RunOpen, opening.body).values
    assert values == {"trigger-text": "$(rm -rf /) ${run.id} 0"}
    assert _reason(world, opening, world.now().wall_ms) == ""
    # The rest of the storm is one run, when its time is over.
    registers.until(world.now().wall_ms + 6 * MINUTE)
    fires = {body.slot: body for body in _told(world, "fire", ScheduleFire)}
    assert fires[max(fires)].missed == 2
    assert registers.asked == 0
    # What another keeper says of it, or of something else, a worker does not take.
    trigger, order = opening_of(world, fire)
    for changes in ({}, {"nonce": "0" * 32}, {"slot": fire.slot + 1}, {"trigger": "0" * 64}):
        by = "studio" if changes else "hub"
        forged = _again(world, by, replace(fire, **changes), opening, (order, trigger))
        assert _reason(world, forged, world.now().wall_ms) == "slot-off-grid", changes


def opening_of(world: Cores, fire: ScheduleFire) -> tuple[EntryId, EntryId]:
    """What triggered a fire, and the order of its schedule."""
    (order,) = world["laptop"].entries("schedule.set")
    return EntryId(bytes.fromhex(fire.trigger)), order.id


def _again(
    world: Cores, by: str, fire: ScheduleFire, opening: Entry, cause: tuple[EntryId, ...]
) -> Entry:
    core, found = world[by].core, list[Entry]()

    def write() -> None:
        fired = core.append_body(fire, cause=cause)
        body = body_of(RunOpen, opening.body or b"")
        found.append(core.append_body(body, cause=(fired.id,)))

    core.when_done(write)
    world[by].step()
    world.drain()
    return found[0]


@proves("schedule.triggers")
def test_a_trigger_outlives_a_crash_and_is_of_another_machine_for_no_keeper(world):
    registers, studio = Registers(world), world["studio"]
    add(world["laptop"], FILE, TOLD)
    world.pass_ms(500)
    _happens(world, "studio", "disk-full", "one")
    _happens(world, "studio", "disk-full", "two")
    assert len(studio.entries("schedule.claim")) == 2
    assert len(studio.entries("schedule.fire")) == 1
    world.restart("studio")
    world.link("hub", "studio")
    registers.until(world.now().wall_ms + 6 * MINUTE)
    assert len(studio.entries("schedule.fire")) == 2
    assert len(world["hub"].entries("schedule.fire")) == 2
    assert {e.header.author for e in world["hub"].entries("schedule.fire")} == {studio.id}


@proves("schedule.triggers")
def test_a_run_triggers_another_one_and_no_chain_of_them_goes_on_for_ever(world):
    registers = Registers(world)
    loop = FILE.replace('incident: "disk-*"', "run: nightly, outcome: done").replace("5m", "1m")
    add(world["laptop"], loop.replace("[hub, studio]", "[hub]"), SPEC)
    world.pass_ms(500)
    _run(world, SPEC)
    registers.until(world.now().wall_ms + 8 * MINUTE)
    assert len(_told(world, "fire", ScheduleFire)) == DEPTH_MAX
    (skip,) = _told(world, "skip", ScheduleSkip)
    assert "one after the other" in skip.reason


def _run(world: Cores, spec: str) -> Any:
    args = {"base": "", "repo": "", "spec": spec, "values": {}}
    assert world["hub"].order("run", "nightly", args)["ok"]


@proves("schedule.triggers")
def test_what_happens_in_one_millisecond_is_told_of_each_and_skipped_once(world):
    registers, studio = Registers(world), world["studio"]
    add(world["laptop"], FILE, TOLD)
    world.pass_ms(500)
    stop(world["laptop"], "pause")
    world.pass_ms(500)

    def both() -> None:
        for n in (1, 2):
            studio.core.incidents.open(f"disk-{n}", "warning", f"{n}")

    studio.core.when_done(both)
    studio.step()
    world.pass_ms(500)
    skips = _told(world, "skip", ScheduleSkip)
    assert [skip.reason for skip in skips] == ["paused"] * 2
    assert len({skip.slot for skip in skips}) == 1
    world.restart("studio")
    world.link("hub", "studio")
    stop(world["laptop"], "resume")
    registers.until(world.now().wall_ms + 2 * MINUTE)
    assert _told(world, "fire", ScheduleFire) == []
    # What waits for its time when it is paused is skipped as well.
    _happens(world, "studio", "disk-1", "one")
    _happens(world, "studio", "disk-1", "two")
    stop(world["laptop"], "pause")
    registers.until(world.now().wall_ms + 6 * MINUTE)
    assert len(_told(world, "fire", ScheduleFire)) == 1
    assert len(_told(world, "skip", ScheduleSkip)) == 3


@proves("schedule.triggers")
def test_incidents_run_a_schedule_so_often_in_an_hour_and_the_rest_is_skipped(world):
    registers = Registers(world)
    add(world["laptop"], FILE.replace("5m", "1m"), TOLD)
    world.pass_ms(500)
    for n in range(5):
        _happens(world, "studio", "disk-full", f"{n}")
        registers.until(world.now().wall_ms + 2 * MINUTE)
    assert len(_told(world, "fire", ScheduleFire)) == INCIDENT_FIRES_MAX == 3
    skips = _told(world, "skip", ScheduleSkip)
    assert [skip.reason for skip in skips] == ["incidents ran it 3 times within an hour"] * 2
    world.ms += TRIGGER_FIRES_MS
    _happens(world, "studio", "disk-full", "later")
    registers.until(world.now().wall_ms + 2 * MINUTE)
    assert len(_told(world, "fire", ScheduleFire)) == 4


def says(one: One, to: str, text: str) -> None:
    answer = one.order("send", to, {"text": [text], "to": to})
    assert answer["ok"], answer
    one.world.pass_ms(500)


@proves("schedule.triggers", "schedule.triggers-say")
def test_what_is_said_to_all_on_a_keeper_runs_a_schedule_with_its_text_as_a_value(world):
    registers = Registers(world)
    wanted = "{message: {from: 'op:*', begins: 'deploy '}}"
    file = FILE.replace('{incident: "disk-*"}', wanted).replace("5m", "1m")
    done = add(world["laptop"], file, TOLD)["value"]
    assert done["on"] == "on each message of op:* to all that begins with 'deploy '"
    world.pass_ms(500)
    # To one machine, of another beginning, and on a machine that is no keeper.
    says(world["studio"], "hub", "deploy this")
    says(world["studio"], "all", "we deploy tomorrow")
    says(world["laptop"], "all", "deploy mine")
    assert _told(world, "fire", ScheduleFire) == []
    says(world["studio"], "all", "deploy $(rm -rf /) ${run.id}")
    (fire,) = _told(world, "fire", ScheduleFire)
    (opening,) = world["laptop"].entries("run.open")
    assert body_of(RunOpen, opening.body).values == {"trigger-text": "deploy $(rm -rf /) ${run.id}"}
    assert _reason(world, opening, world.now().wall_ms) == ""
    # Of another message a worker takes nothing.
    (order,) = world["laptop"].entries("schedule.set")
    other = next(e for e in world["studio"].entries("message.send") if b"tomorrow" in e.body)
    forged = replace(
        fire, trigger=other.id.hex(), nonce=other.id.hex()[:32], slot=other.header.t[0]
    )
    again = _again(world, "studio", forged, opening, (order.id, other.id))
    assert _reason(world, again, world.now().wall_ms) == "slot-off-grid"
    # A run that says the next one itself ends there.
    for n in range(SAYING_FIRES_MAX + 1):
        registers.until(world.now().wall_ms + 2 * MINUTE)
        says(world["studio"], "all", f"deploy {n}")
    assert len(_told(world, "fire", ScheduleFire)) == SAYING_FIRES_MAX
    (skip, *_) = _told(world, "skip", ScheduleSkip)
    assert skip.reason == f"messages ran it {SAYING_FIRES_MAX} times within an hour"


@proves("schedule.triggers-say")
def test_what_is_remembered_for_all_on_a_keeper_runs_a_schedule(world):
    file = FILE.replace('{incident: "disk-*"}', "{memory: 'deploys/*'}")
    assert add(world["laptop"], file, TOLD)["value"]["on"] == "on what is remembered of deploys/*"
    world.pass_ms(500)
    for key, text in (("notes/x", "no"), ("deploys/web", "1.2 is out")):
        answer = world["studio"].order("remember", key, {"key": key, "text": [text]})
        assert answer["ok"], answer
        world.pass_ms(500)
    (opening,) = world["laptop"].entries("run.open")
    # A text that is forgotten may not stay as the value of a run: it is told by its key.
    assert body_of(RunOpen, opening.body).values == {"trigger-text": "deploys/web"}
    assert _reason(world, opening, world.now().wall_ms) == ""
    # Its run goes on where it was forgotten since.
    (fire,) = _told(world, "fire", ScheduleFire)
    (put,) = (e for e in world["laptop"].entries("memory.put") if b"1.2" in e.body)
    assert fire.trigger == put.id.hex()
    world["laptop"].core.log.entry = gone(world["laptop"].core.log.entry, put.id)
    assert _reason(world, opening, world.now().wall_ms) == ""


def gone(lookup: Any, id: EntryId) -> Any:
    """The same without the body of this one."""
    return lambda wanted: (
        replace(found, body=None)
        if (found := lookup(wanted)) is not None and wanted == id
        else found
    )


@proves("schedule.triggers")
def test_what_was_erased_before_its_time_came_is_skipped(world):
    registers = Registers(world)
    add(world["laptop"], FILE, TOLD)
    world.pass_ms(500)
    for n in range(2):
        _happens(world, "studio", "disk-full", f"{n}")
    second = world["studio"].entries("incident.open")[-1]
    core = world["studio"].core
    core.log.entry = gone(core.log.entry, second.id)
    registers.until(world.now().wall_ms + 6 * MINUTE)
    assert len(_told(world, "fire", ScheduleFire)) == 1
    (skip,) = _told(world, "skip", ScheduleSkip)
    assert skip.reason == "what triggered it was erased"


@proves("schedule.triggers")
@pytest.mark.parametrize("on", ['{incident: "disk-*"}', "{message: {from: 'op:*'}}"])
def test_neither_a_clock_that_was_ahead_nor_another_keeper_lifts_how_often_it_is_run(world, on):
    registers = Registers(world)
    file = f"{FILE}overlap: allow\n".replace('{incident: "disk-*"}', on).replace("5m", "1h")
    add(world["laptop"], file, TOLD)
    world.pass_ms(1_000)
    # The log's time is that of the clock that was furthest ahead.
    world.ms += 4 * MINUTE
    says(world["laptop"], "hub", "from ahead")
    world.ms -= 4 * MINUTE
    for n in range(4):
        if "incident" in on:
            _happens(world, "studio", "disk-full", f"{n}")
        else:
            says(world["studio"], "all", f"{n}")
        registers.until(world.now().wall_ms + 10_000)
    assert len(_told(world, "fire", ScheduleFire)) == 1


@proves("schedule.overlap", "schedule.triggers")
@pytest.mark.parametrize(
    ("overlap", "states"), [("replace", ["cancelled", "open"]), ("allow", ["open", "open"])]
)
def test_what_happens_next_ends_the_run_before_it_where_the_schedule_says_replace(
    world, overlap, states
):
    registers = Registers(world)
    add(world["laptop"], f"{FILE}overlap: {overlap}\n", ASKS)
    world.pass_ms(500)
    _happens(world, "studio", "disk-full", "one")
    registers.until(world.now().wall_ms + 6 * MINUTE)
    _happens(world, "studio", "disk-full", "two")
    registers.until(world.now().wall_ms + MINUTE)
    assert states_of_runs(world) == states
    assert world["studio"].core.counters["slots-fired"] == 2
