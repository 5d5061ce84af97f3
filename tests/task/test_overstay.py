"""An attempt ends in its time, whatever its worker says: the owner counts, too."""

import pytest
from tests.promise import proves
from tests.task.world import BUILD, STUDIO, World, machine, of, order

from muster import limits
from muster.task import kinds
from muster.task.duration import check_ms, owner_ms, work_ms
from muster.task.instruction import Stop
from muster.task.open_task import Beat

TIMED = {"agent": "shell", "do": "x", "check": "true", "timeout_ms": 5_000}
ALLOWED_MS = 5_000 + 5_000 + limits.ATTEMPT_GRACE_MS


def beating(world: World, ms: int, stage: str = "working", task: str = "t1") -> list:
    """Time passes in beats, in which whoever holds the task says so and does nothing else."""
    out = []
    for n in range(ms // 1_000):
        world.later(1_000)
        row = world.stream.task(task)
        if row.state == "leased":
            beat = Beat(task, row.epoch, stage)
            world.owner.beat(row.machine, f"s1:{n}", [beat], world.now)
        world.tick()
        out += world.flush()
    return out


@proves("task.attempts-have-an-end")
@pytest.mark.parametrize("stage", ["working", ""])
def test_a_worker_that_beats_and_does_nothing_loses_the_task_to_another_machine(stage):
    world = World(machine(BUILD), machine(STUDIO))
    world.submit(order("t1", template=TIMED))
    first = world.stream.task("t1").machine
    assert of(beating(world, ALLOWED_MS - 1_000, stage), kinds.TaskExpire) == []
    out = beating(world, 1_000, stage)
    (lost,) = of(out, kinds.TaskExpire)
    assert lost.reason == "the attempt was not over after 40 s, though its worker was heard"
    assert [(s.machine, s.epoch) for s in of(out, Stop)] == [(first, (1, 1))]
    row = world.stream.task("t1")
    assert (row.state, row.machine, row.losses) == (
        "leased",
        {BUILD: STUDIO, STUDIO: BUILD}[first],
        1,
    )


@proves("task.attempts-have-an-end")
def test_where_nobody_else_could_the_task_is_lost_in_the_end_with_the_reason():
    world = World(machine(BUILD))
    world.submit(order("t1", template=TIMED))
    beating(world, 4 * (ALLOWED_MS + limits.LEASE_MS))
    row = world.stream.task("t1")
    assert (row.state, row.losses) == ("lost", limits.LOSSES_MAX - 1)
    assert "not over after 40 s" in row.reason


@proves("task.attempts-have-an-end")
def test_fetching_and_delivering_are_not_the_agents_time():
    world = World(machine(BUILD), machine(STUDIO))
    world.submit(order("t1", template=TIMED))
    assert of(beating(world, 600_000, "fetching"), kinds.TaskExpire) == []
    assert of(beating(world, ALLOWED_MS - 1_000), kinds.TaskExpire) == []
    assert of(beating(world, 600_000, "delivering"), kinds.TaskExpire) == []
    assert of(beating(world, 600_000, "clearing up"), kinds.TaskExpire) == []
    assert of(beating(world, 2_000), kinds.TaskExpire)


@proves("task.attempts-have-an-end")
def test_a_worker_that_only_ever_fetches_has_a_bound_too():
    world = World(machine(BUILD), machine(STUDIO))
    world.submit(order("t1", template=TIMED))
    within = limits.ATTEMPT_MOVING_MS_MAX + ALLOWED_MS
    assert of(beating(world, within - 1_000, "fetching"), kinds.TaskExpire) == []
    assert of(beating(world, 1_000, "fetching"), kinds.TaskExpire)


@proves("task.attempts-have-an-end")
def test_an_owner_that_is_restarted_again_and_again_still_takes_the_task_away():
    world = World(machine(BUILD), machine(STUDIO))
    world.submit(order("t1", template=TIMED))
    passed, lost = 0, []
    while not lost:
        world.restart(1)
        lost = of(beating(world, 20_000), kinds.TaskExpire)
        passed += 20_000
        assert passed <= limits.ATTEMPT_MOVING_MS_MAX + ALLOWED_MS + 20_000
    world = World(machine(BUILD), machine(STUDIO))
    world.submit(order("t1", template=TIMED))
    beating(world, 20_000)
    world.restart(1)
    assert of(beating(world, ALLOWED_MS - 1_000), kinds.TaskExpire) == []
    assert of(beating(world, 1_000), kinds.TaskExpire)


@proves("task.attempts-have-an-end")
def test_an_attempt_that_ended_in_time_rings_nothing_later():
    world = World(machine(BUILD))
    world.submit(order("t1", template=TIMED, retries=1))
    world.finish("t1", "failed", reason="no")
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    world.flush()
    # The second attempt has its whole time.
    assert of(beating(world, ALLOWED_MS - 1_000), kinds.TaskExpire) == []
    world.finish("t1")
    assert of(beating(world, 2 * ALLOWED_MS), kinds.Body) == []


@proves("task.attempts-have-an-end")
@pytest.mark.parametrize(
    ("template", "work", "check"),
    [
        ({}, limits.ATTEMPT_MS, 0),
        ({"timeout_ms": 5_000}, 5_000, 0),
        ({"timeout_ms": 5_000, "check": "true"}, 5_000, 5_000),
        ({"timeout_ms": 7_200_000, "check": "true"}, 7_200_000, limits.CHECK_MS_MAX),
        ({"timeout_ms": "soon"}, limits.ATTEMPT_MS, 0),
        ({"timeout_ms": True}, limits.ATTEMPT_MS, 0),
        ({"timeout_ms": -1}, limits.ATTEMPT_MS, 0),
        ({"timeout_ms": 2**60}, limits.PHASE_TIMEOUT_MS_MAX, 0),
    ],
)
def test_the_time_of_an_attempt_is_its_templates_within_bounds(template, work, check):
    assert (work_ms(template), check_ms(template)) == (work, check)
    assert owner_ms(template) == work + check + limits.ATTEMPT_GRACE_MS


@proves("task.results-are-bounded")
def test_what_a_worker_reports_is_repeated_only_within_bounds():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    many = {f"{number:04d}{'n' * 70}": "v" for number in range(150)}
    out = world.finish(
        "t1", summary="s" * 20_000, reason="r" * 9_000, commit="c" * 500, values=many,
        artefacts=["a"] * 900, usage=dict.fromkeys(many, 1),
    )  # fmt: skip
    (settled,) = of(out, kinds.TaskSettle)
    assert len(settled.summary) == limits.SUMMARY_CHARS_MAX
    assert len(settled.commit) == 64
    assert len(settled.artefacts) == 101
    for found in (settled.values, settled.usage):
        assert len(found) == 32
        assert max(map(len, found)) == 64
