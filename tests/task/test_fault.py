"""What machines failed at: who comes last for it, for how long, and what ends that."""

import pytest
from tests.promise import proves
from tests.task.world import BUILD, STUDIO, World, machine, of
from tests.task.world import order as order_once

from muster import limits
from muster.task import fault, kinds
from muster.task.alarms import Alarms
from muster.task.instruction import MachineFault, MachineMended, Now
from muster.task.lease import make_mark
from muster.task.queue import Queue
from muster.task.reputation import Reputation
from muster.task.route import judge, wants_of
from muster.task.trust import NOTHING_KNOWN

LAPTOP = "1" * 64


def order(name, **changes):
    return order_once(name, again=True, **changes)


def reputation():
    """A reputation, its alarms, and what it says to a person."""
    alarms, said = Alarms(), []
    return Reputation(Queue(lambda *_: NOTHING_KNOWN), alarms, said.append), alarms, said


def two(**build):
    """The owner prefers `build` while nothing is against it."""
    return World(machine(BUILD, **build), machine(STUDIO, load_percent=100))


def holder(world, name):
    row = world.stream.task(name)
    return row.machine if row.state == "leased" else row.state


def fails(world, name, part="agent", text="not logged in"):
    row = world.stream.task(name)
    body = kinds.AttemptRefuse(name, row.epoch, fault.code_of(part), text)
    return world.say(row.machine, body)


@proves("task.faults-are-the-machines")
@pytest.mark.parametrize("part", ["agent", "machine"])
def test_a_machine_that_failed_costs_no_retry_and_gets_nothing_while_another_fits(part):
    world = two()
    world.submit(order("t1"))
    out = fails(world, "t1", part)
    assert of(out, kinds.TaskRetry)[0].reason == "it could not begin: not logged in"
    assert of(out, kinds.TaskRetry)[0].after_ms == 0
    assert holder(world, "t1") == STUDIO
    row = world.stream.task("t1")
    assert (row.tries, row.losses, row.refusals) == (0, 0, 1)
    # The other one is full now: whoever failed at once would else take the whole queue.
    world.submit(*[order(f"n{n}") for n in range(4)])
    assert [holder(world, f"n{n}") for n in range(4)] == [STUDIO, "queued", "queued", "queued"]
    reasons = world.owner.why("n1").verdicts
    assert [(v.machine, v.last) for v in reasons] == [(STUDIO, ""), (BUILD, "not logged in")]
    assert "put last: not logged in" in reasons[1].reasons


@proves("task.faults-are-the-machines")
def test_only_what_needs_the_part_that_failed_goes_elsewhere():
    world = two(agents={"shell": "", "claude": "2"})
    world.submit(order("t1", template={"agent": ["claude", "shell"], "do": "x"}))
    assert world.stream.task("t1").agent == "claude"
    fails(world, "t1", "agent")
    world.submit(order("t2"))
    assert holder(world, "t2") == BUILD, "its shell is as good as before"
    world.submit(order("t3", template={"agent": ["claude", "shell"], "do": "y"}))
    assert (holder(world, "t3"), world.stream.task("t3").agent) == (BUILD, "shell")


@proves("task.faults-are-the-machines")
def test_a_broken_copy_of_a_repository_is_held_against_work_in_it_alone():
    wants = {repo: wants_of({"agent": "shell"}, repo) for repo in ("main", "docs", "")}
    broken = machine(BUILD)
    known, _, _ = reputation()
    part = fault.part_of("fault-repo", "shell", "main")
    known.blame(BUILD, part, "the cache is a file", Now(0, 0))
    broken = known.as_known(broken)
    assert {repo: bool(judge(each, broken).last) for repo, each in wants.items()} == {
        "main": True, "docs": False, "": False,
    }  # fmt: skip
    assert all(judge(each, broken).fits for each in wants.values())


@proves("task.faults-are-the-machines")
def test_a_machine_that_is_alone_is_asked_again_with_pauses_and_then_the_task_fails():
    world = World(machine(BUILD))
    world.submit(order("t1", retries=5))
    waits = []
    for _ in range(limits.FAULTS_OF_TASK_MAX - 1):
        retry = of(fails(world, "t1"), kinds.TaskRetry)[0]
        waits.append(retry.after_ms)
        assert holder(world, "t1") == "queued"
        world.later(retry.after_ms)
        world.tick()
        world.flush()
        assert holder(world, "t1") == BUILD
    fails(world, "t1")
    row = world.stream.task("t1")
    assert waits == [2_000, 4_000]
    assert (row.state, row.tries) == ("failed", 0)
    assert row.reason == "no machine could begin it: not logged in"
    # The next task is tried at once all the same: perhaps it was mended.
    world.submit(order("t2"))
    assert holder(world, "t2") == BUILD


@proves("task.faults-are-the-machines")
def test_when_nobody_else_is_left_the_queue_goes_to_the_one_that_failed():
    world = two()
    world.submit(order("t1"))
    fails(world, "t1")
    world.submit(*[order(f"n{n}") for n in range(3)])
    assert holder(world, "n2") == "queued"
    world.owner.machine_down(STUDIO)
    world.flush()
    assert {holder(world, "n1"), holder(world, "n2")} == {BUILD}
    world.submit(order("n4"))
    world.owner.machine_up(machine(STUDIO, load_percent=100, slots={"": 9}))
    world.flush()
    assert holder(world, "n4") == STUDIO


@proves("task.faults-are-forgotten")
@pytest.mark.parametrize("how", ["time", "success", "restart", "retry"])
def test_what_a_machine_failed_at_is_forgotten(how):
    world = two()
    world.owner.beat(BUILD, make_mark("first", 1), [], world.now)
    world.submit(order("t1"))
    out = fails(world, "t1")
    assert of(out, MachineFault) == [MachineFault(BUILD, "agent:shell", "not logged in")]
    mended = []
    if how == "time":
        world.later(limits.FAULT_MS_MIN)
        world.tick()
    elif how == "success":
        world.owner.machine_down(STUDIO)
        world.submit(order("t2"))
        mended = of(world.finish("t2"), MachineMended)
        world.owner.machine_up(machine(STUDIO, load_percent=100))
    elif how == "restart":
        world.owner.beat(BUILD, make_mark("second", 1), [], world.now)
        mended = of(world.flush(), MachineMended)
    else:
        world.submit(order("t2", retries=1))
        world.finish("t2", "failed")
        world.owner.retry("t2")
        mended = of(world.flush(), MachineMended)
    assert mended == ([] if how == "time" else [MachineMended(BUILD, "agent:shell")])
    world.submit(order("t9"))
    assert holder(world, "t9") == BUILD


@proves("task.faults-are-forgotten")
def test_each_fault_in_a_row_counts_longer_up_to_a_bound_and_is_told_once():
    known, alarms, said = reputation()
    build, now_ms, lasts = machine(BUILD), 0, []
    for _ in range(12):
        known.blame(BUILD, "machine", "no disk", Now(now_ms, 0))
        began_ms = now_ms
        while not (rung := alarms.due(now_ms)):
            now_ms += limits.FAULT_MS_MIN
        lasts.append(now_ms - began_ms)
        assert rung == [f"fault/{BUILD}/machine"]
        known.lift(f"{BUILD}/machine")
        assert known.as_known(build).faults == {}
    assert lasts[:3] == [limits.FAULT_MS_MIN, 2 * limits.FAULT_MS_MIN, 4 * limits.FAULT_MS_MIN]
    assert lasts[-1] == limits.FAULT_MS_MAX
    known.blame(BUILD, "machine", "no disk", Now(0, 0))
    assert known.as_known(build).faults == {"machine": "no disk (13 times in a row)"}
    known.absolve(BUILD, ["agent:shell"])
    assert said == [MachineFault(BUILD, "machine", "no disk")]
    known.absolve(BUILD)
    assert said[1:] == [MachineMended(BUILD, "machine")]
    known.blame(BUILD, "machine", "no disk", Now(0, 0))
    assert known.as_known(build).faults == {"machine": "no disk"}


@proves("task.faults-are-forgotten")
def test_what_is_known_has_a_bound(monkeypatch):
    monkeypatch.setattr(limits, "FAULTS_MAX", 3)
    known, _, _ = reputation()
    for n in range(9):
        known.blame(f"m{n}", "machine", "x", Now(0, 0))
    assert list(known.known()) == ["m6", "m7", "m8"]


@proves("task.another-machine-next")
@pytest.mark.parametrize("end", ["failed", "killed"])
def test_after_a_failure_or_a_loss_another_machine_is_preferred_where_one_is_free(end):
    world = two()
    world.submit(order("t1", retries=1))
    assert holder(world, "t1") == BUILD
    world.finish("t1", end, reason="exit 127")
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    world.flush()
    assert holder(world, "t1") == STUDIO
    # Where no other one is free, it is tried there again rather than never.
    alone = World(machine(BUILD), machine(STUDIO, slots={"": 0}))
    alone.submit(order("t1", retries=1))
    alone.finish("t1", end, reason="exit 127")
    alone.later(limits.RETRY_DELAY_MS_MIN)
    alone.tick()
    alone.flush()
    assert holder(alone, "t1") == BUILD


CLAUDE = {"shell": "", "claude": "2"}


def claudes(name, **logins):
    return order(name, template={"agent": "claude", "do": "x"}, **logins)


@proves("task.logins-are-facts")
def test_a_machine_whose_agent_is_not_logged_in_does_not_fit():
    agents, drivers = CLAUDE, {"claude": "acp"}
    out, known, unknown = (
        machine(m, agents=agents, drivers=drivers, logins=s)
        for m, s in ((BUILD, {"claude": "no"}), (STUDIO, {"claude": "yes"}), (LAPTOP, {}))
    )
    wants = wants_of({"agent": "claude"})
    verdict = judge(wants, out)
    assert (verdict.fits, verdict.login) == (False, "claude")
    assert verdict.reasons == ("claude is not logged in there",)
    assert (judge(wants, known).fits, judge(wants, known).reasons) == (True, ())
    assert judge(wants, unknown).fits, "nobody can tell: it is tried"
    assert judge(wants, unknown).reasons == ("nobody can tell of its login",)
    assert judge(wants_of({"agent": ["claude", "shell"]}), out).agent == "shell"
    assert judge(wants_of({"agent": "shell"}), out).reasons == ()
    much = judge(wants_of({"agent": "claude", "needs": {"cpu": 99}}), out)
    assert (len(much.reasons), much.login) == (2, ""), "a login alone would not help"


@proves("task.logins-are-facts")
def test_a_task_waits_for_a_login_and_goes_as_soon_as_it_is_there():
    world = World(machine(BUILD, agents=CLAUDE, logins={"claude": "no"}))
    world.submit(claudes("t1"))
    assert holder(world, "t1") == "queued"
    world.later(86_400_000)
    world.tick()
    world.flush()
    assert holder(world, "t1") == "queued"
    assert [v.login for v in world.owner.why("t1").verdicts] == ["claude"]
    world.owner.machine_up(machine(BUILD, agents=CLAUDE, logins={"claude": "yes"}))
    world.flush()
    assert holder(world, "t1") == BUILD


@proves("task.logins-are-facts")
def test_a_machine_that_lost_its_login_costs_a_task_nothing_and_is_asked_again_when_it_has_one():
    """The refusal is here before the facts that say the same."""
    world = World(machine(BUILD, agents=CLAUDE))
    world.submit(claudes("t1", retries=0))
    waits = []
    for _ in range(2 * limits.REFUSALS_MAX):
        (retry,) = of(fails(world, "t1", fault.LOGIN), kinds.TaskRetry)
        waits.append(retry.after_ms)
        assert holder(world, "t1") == "queued"
        world.later(retry.after_ms)
        world.tick()
        world.flush()
        assert holder(world, "t1") == BUILD
    assert waits[:3] == [2_000, 4_000, 8_000]
    assert max(waits) <= limits.RETRY_DELAY_MS_MAX
    row = world.stream.task("t1")
    assert (row.tries, row.refusals, row.losses) == (0, 0, 0)
    fails(world, "t1", fault.LOGIN)
    world.owner.machine_up(machine(BUILD, agents=CLAUDE, logins={"claude": "no"}))
    world.later(limits.RETRY_DELAY_MS_MAX)
    world.tick()
    world.flush()
    assert holder(world, "t1") == "queued"
    world.owner.machine_up(machine(BUILD, agents=CLAUDE, logins={"claude": "yes"}))
    world.flush()
    assert holder(world, "t1") == BUILD


@proves("task.logins-are-facts")
def test_where_a_login_is_missing_another_machine_has_the_task_at_once():
    world = two(agents=CLAUDE)
    world.owner.machine_up(machine(STUDIO, agents=CLAUDE, load_percent=100))
    world.submit(claudes("t1"))
    assert holder(world, "t1") == BUILD
    (retry,) = of(fails(world, "t1", fault.LOGIN), kinds.TaskRetry)
    assert (retry.after_ms, retry.why) == (0, "busy")
    assert holder(world, "t1") == STUDIO


@proves("task.faults-are-the-machines")
def test_a_task_that_came_back_to_an_owner_that_restarted_goes_on():
    world = two()
    world.submit(order("t1"))
    fails(world, "t1")
    world.restart(2)
    fails(world, "t1")
    assert holder(world, "t1") == BUILD
    world.finish("t1")
    assert holder(world, "t1") == "done"
