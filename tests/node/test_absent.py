"""A machine that is away and owes something is told of; one that owes nothing may sleep."""

import pytest
from tests.node.cores import Cores, One
from tests.node.test_adoption import RUN_ARGS, TWO, begin, die, live, take_over
from tests.promise import proves

from muster.fleet.folds import INCIDENT
from muster.limits import ABSENT_LOOK_MS, ABSENT_MS
from muster.node import event as ev


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(3_000)
    return made


def wait(world: Cores, ms: int) -> None:
    """As `pass_ms`, in fewer ticks."""
    for _ in range(ms // 15_000):
        world.ms += 15_000
        for name, machine in world.machines.items():
            if name not in world.frozen:
                machine.step(ev.Tick())
        world.drain()


def told(machine: One) -> list[tuple[str, str, int]]:
    rows = machine.core.tables.rows(INCIDENT, writer=machine.id, begins={"key": "machine-away:"})
    return [(row.key, row.title, row.open) for row in rows]


@proves("health.away-and-owing")
def test_who_is_away_for_five_minutes_while_its_run_stands_is_told_once_until_it_is_heard(world):
    begin(world)
    die(world, "hub")
    wait(world, ABSENT_MS - 2 * ABSENT_LOOK_MS)
    assert told(world["studio"]) == [], "a restart calls nobody"
    wait(world, 10 * ABSENT_LOOK_MS)
    title = "hub is away, and 1 of its runs and tasks waits for it"
    assert told(world["studio"]) == [("machine-away:hub", title, 1)]
    assert told(world["laptop"]) == told(world["studio"]), "two tellers, and one key"
    own = [
        e
        for e in world["studio"].entries("incident.open")
        if e.stream.machine == world["studio"].id
    ]
    assert len(own) == 1
    live(world, "hub")
    wait(world, 2 * ABSENT_LOOK_MS)
    assert [each[2] for each in told(world["studio"])] == [0]


@proves("health.away-and-owing")
def test_who_owes_nothing_may_sleep_and_what_was_taken_over_is_owed_no_more(world):
    die(world, "laptop")
    wait(world, ABSENT_MS + 3 * ABSENT_LOOK_MS)
    assert told(world["hub"]) == []
    live(world, "laptop")
    begin(world, TWO)
    die(world, "hub")
    wait(world, ABSENT_MS + 3 * ABSENT_LOOK_MS)
    assert [each[2] for each in told(world["studio"])] == [1]
    assert take_over(world, "studio", "hub")["ok"]
    wait(world, 4 * ABSENT_LOOK_MS)
    assert [each[2] for each in told(world["studio"])] == [0]


@proves("health.away-and-owing")
def test_nobody_tells_who_cannot_know(world):
    # What the laptop owns waits for a person; the studio's link with it ended, the hub's did not.
    answer = world["laptop"].order("run", "two", RUN_ARGS | {"spec": TWO})
    assert answer["ok"], answer
    world.pass_ms(3_000)
    world.cut("laptop")
    world.link("hub", "laptop")
    wait(world, ABSENT_MS + 3 * ABSENT_LOOK_MS)
    assert [told(world[name]) for name in world.machines] == [[], [], []]
    # Who is linked with nobody is away itself.
    begin(world)
    world.cut("studio")
    wait(world, ABSENT_MS + 3 * ABSENT_LOOK_MS)
    assert told(world["studio"]) == []


@proves("health.away-and-owing")
def test_who_was_away_when_we_began_is_told_of_where_it_was_told_of_before(world):
    answer = world["laptop"].order("run", "two", RUN_ARGS | {"spec": TWO})
    assert answer["ok"], answer
    world.pass_ms(3_000)
    die(world, "laptop")
    world.restart("hub")
    wait(world, ABSENT_MS + 3 * ABSENT_LOOK_MS)
    assert told(world["hub"]) == []
    live(world, "laptop")
    world.pass_ms(1_000)
    die(world, "laptop")
    wait(world, ABSENT_MS + 3 * ABSENT_LOOK_MS)
    world.restart("hub")
    wait(world, 3 * ABSENT_LOOK_MS)
    assert [each[2] for each in told(world["hub"])] == [1]
