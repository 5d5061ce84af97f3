"""What an owner decides, event by event. `World.flush` also folds every entry the owner writes, and
fails when the fold would not take it: the owner and its table can never disagree."""

from typing import Any

import pytest
from tests.promise import proves
from tests.task.world import BUILD, OWNER, STUDIO, World, machine, of, order

from muster import limits
from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.log.entry import EntryId
from muster.task import kinds
from muster.task.detector import DRAINS, STALLED
from muster.task.instruction import (
    AskPerson,
    BeatReply,
    Draft,
    Fenced,
    MoveBranch,
    Promoted,
    RaiseFence,
    Settled,
    Stop,
)
from muster.task.open_task import Beat
from muster.task.pause import PAUSED, Pause

ENTRY = EntryId(b"e" * 32)


def assigned(out):
    return [(b.task, b.machine, b.epoch) for b in of(out, kinds.TaskAssign)]


@proves("task.settles-once")
def test_a_task_is_assigned_finished_and_settled():
    world = World(machine(BUILD))
    out = world.submit(order("t1"))
    assert [type(b).__name__ for b in of(out, kinds.Body)] == ["TaskOpen", "TaskAssign"]
    out = world.finish("t1", summary="all green", values={"tests": "12"})
    settled = of(out, Settled)[0]
    assert (settled.outcome, settled.summary, settled.values) == (
        "done",
        "all green",
        {"tests": "12"},
    )
    assert world.stream.task("t1").state == "done"
    assert world.owner.statistics() == {"open": 0, "queued": 0, "held": 0}


def test_every_entry_of_the_owner_cites_why():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    world.finish("t1")
    opened, assign, settle = world.stream.entries
    finish = world.workers[BUILD].entries[-1]
    assert assign.causes == (opened.id,)
    assert settle.causes == (assign.id, finish.id)


# --- queue and routing -----------------------------------------------------------------------


@proves("task.order")
def test_priority_goes_before_age_and_age_before_nothing():
    world = World(machine(BUILD, slots={"": 1}))
    names = [("old", 0), ("older-but-low", -5), ("high", 5), ("young", 0)]
    orders = [order(n, template={"do": n}, priority=p) for n, p in names]
    out = world.submit(*orders)
    done = [assigned(out)[0][0]]
    while len(done) < 4:
        done.append(assigned(world.finish(done[-1]))[0][0])
    assert done == ["high", "old", "young", "older-but-low"]


@proves("task.slots")
def test_a_machine_never_holds_more_than_its_slots():
    world = World(machine(BUILD, slots={"": 2}))
    out = world.submit(*(order(f"t{n}", template={"do": str(n)}) for n in range(5)))
    assert [name for name, _, _ in assigned(out)] == ["t0", "t1"]
    assert [name for name, _, _ in assigned(world.finish("t1"))] == ["t2"]


def test_the_do_nothing_agent_has_slots_of_its_own():
    world = World(machine(BUILD, slots={"": 1, "noop": 3}, agents={"shell": "", "noop": ""}))
    work = [order(f"s{n}", template={"do": str(n)}) for n in range(2)]
    nothing = [order(f"n{n}", template={"agent": "noop", "do": str(n)}) for n in range(4)]
    out = world.submit(*work, *nothing)
    assert [name for name, _, _ in assigned(out)] == ["s0", "n0", "n1", "n2"]


@proves("task.why")
def test_the_decision_is_kept_with_every_candidate():
    world = World(machine(BUILD, load_percent=90), machine(STUDIO), machine("f" * 64, os="windows"))
    out = world.submit(order("t1", template={"do": "make", "needs": {"os": "linux"}}))
    rows = {row[0]: row for row in of(out, kinds.TaskAssign)[0].candidates}
    assert rows[STUDIO][1]
    assert rows[STUDIO][3] == "chosen"
    assert rows[BUILD][1]
    assert rows[BUILD][3] == "lower score: load -90"
    assert rows["f" * 64][1:] == (False, 0, "os windows, not linux")


@proves("task.why")
def test_why_tells_what_a_queued_task_waits_for():
    world = World(machine(BUILD))
    world.submit(order("t1", template={"do": "train", "needs": {"gpu": 1, "label": "big"}}))
    why = world.owner.why("t1")
    assert (why.state, why.machine) == ("queued", "")
    assert why.verdicts[0].reasons == ("no label big", "0 gpus, not 1")
    with pytest.raises(NotFound):
        world.owner.why("t2")


def test_a_task_waits_for_a_machine_that_comes_later():
    world = World(machine(BUILD))
    out = world.submit(order("t1", template={"do": "x", "needs": {"label": "gpu"}}))
    assert assigned(out) == []
    world.owner.machine_up(machine(STUDIO, labels=["gpu"]))
    assert assigned(world.flush()) == [("t1", STUDIO, (1, 1))]


def test_nothing_new_goes_to_a_machine_that_is_down():
    world = World(machine(BUILD))
    world.owner.machine_down(BUILD)
    assert assigned(world.submit(order("t1"))) == []
    world.owner.machine_up(machine(BUILD))
    assert assigned(world.flush()) == [("t1", BUILD, (1, 1))]


def test_rare_needs_leave_nothing_behind():
    world = World(machine(BUILD))
    for n in range(300):
        world.submit(order(f"t{n}", template={"do": "x", "needs": {"machine": f"m{n}"}}))
        world.owner.cancel(f"t{n}", "enough", (), world.now)
        world.flush()
    assert len(world.owner._ledger.queue._groups) < 100


# --- one order, one task -----------------------------------------------------------------------


@proves("task.sent-twice-is-one")
def test_equal_content_under_an_equal_cause_is_one_task_while_unsettled():
    world = World(machine(BUILD))
    first, second = world.owner.submit([order("t1"), order("t2")], world.now)
    assert (first.task, first.fresh, second.task, second.fresh) == ("t1", True, "t1", False)
    world.flush()
    other_cause = world.owner.submit([order("t3", cause="op:bob")], world.now)
    again = world.owner.submit([order("t4", again=True)], world.now)
    assert other_cause[0].fresh
    assert again[0].fresh
    world.flush()
    world.finish("t1")
    assert world.owner.submit([order("t5")], world.now)[0].fresh


@proves("task.sent-twice-is-one")
def test_an_explicit_key_is_one_task_for_ever():
    world = World(machine(BUILD))
    world.submit(order("t1", key="nightly-2026-11-20"))
    world.finish("t1")
    later = world.owner.submit(
        [order("t2", key="nightly-2026-11-20", template={"do": "other"}, again=True)], world.now
    )
    assert later == [("t1", False)]
    assert of(world.flush(), kinds.TaskOpen) == []


@proves("task.sent-twice-is-one")
def test_a_restarted_owner_still_knows_what_it_has():
    world = World()
    world.submit(order("t1"), order("t2", key="k"))
    world.restart(2)
    known = world.owner.submit([order("t3"), order("t4", key="k")], world.now)
    assert known == [("t1", False), ("t2", False)]


@proves("task.sent-twice-is-one")
def test_an_owner_can_open_its_own_task_anew_in_a_new_stream():
    old, new = World(), World(machine(BUILD))
    old.submit(order("t1", key="k"))
    new.stream.rows = old.stream.rows
    assert new.owner.submit([order("t1", key="k", again=True)], new.now) == [("t1", True)]
    assert new.owner.submit([order("t1", key="k", again=True)], new.now) == [("t1", False)]
    assert new.owner.submit([order("t2", key="k", again=True)], new.now) == [("t1", False)]


def test_one_bad_order_opens_none():
    world = World(machine(BUILD))
    bad = order("t2", template={"do": "x", "needs": {"color": "red"}})
    with pytest.raises(Malformed):
        world.submit(order("t1"), bad)
    with pytest.raises(Refused):
        world.submit(order("t1"), order("t2", template={"do": "x" * 70_000}))
    assert world.owner.statistics()["open"] == 0
    assert world.flush() == []


def test_too_many_open_tasks_are_refused(monkeypatch):
    monkeypatch.setattr(limits, "OPEN_TASKS_MAX", 1)
    world = World(machine(BUILD))
    world.submit(order("t1"))
    with pytest.raises(Refused):
        world.submit(order("t2", again=True))
    assert world.owner.statistics()["open"] == 1


# --- leases ----------------------------------------------------------------------------------------


@proves("task.lost-lease-moves-work")
def test_an_expired_lease_raises_the_epoch_and_the_task_goes_elsewhere():
    world = World(machine(BUILD), machine(STUDIO))
    world.submit(order("t1", template={"do": "x", "needs": {"machine": ["build", "studio"]}}))
    first = world.stream.task("t1").machine
    world.owner.machine_down(first)
    world.later(limits.LEASE_MS - 1)
    world.tick()
    assert world.flush() == []
    world.later(1)
    world.tick()
    out = world.flush()
    assert of(out, kinds.TaskExpire)[0].epoch == (1, 1)
    expired = next(d for d in out if isinstance(d, Draft) and d.kind == "task.expire")
    again = next(d for d in out if isinstance(d, Draft) and d.kind == "task.assign")
    assert expired in again.causes, "the reason of the move is in the chain of causes"
    assert assigned(out) == [("t1", {BUILD: STUDIO, STUDIO: BUILD}[first], (1, 2))]
    assert (world.stream.task("t1").losses, world.stream.task("t1").tries) == (1, 0)


@proves("task.lost-lease-moves-work")
def test_beats_keep_a_lease_and_are_answered():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    for n in range(10):
        world.later(limits.LEASE_MS - 1)
        world.owner.beat(BUILD, f"s1:{n}", [Beat("t1", (1, 1)), Beat("t9", (1, 1))], world.now)
        world.tick()
        reply = of(world.flush(), BeatReply)[0]
        assert reply == BeatReply(BUILD, f"s1:{n}", (("t1", (1, 1)),), (("t9", (1, 1)),))
    assert world.stream.task("t1").state == "leased"


@proves("task.one-holder")
@pytest.mark.parametrize("beat", [(STUDIO, (1, 1)), (BUILD, (1, 0)), (BUILD, (2, 1))])
def test_a_beat_of_another_machine_or_epoch_renews_nothing(beat):
    world = World(machine(BUILD))
    world.submit(order("t1"))
    who, epoch = beat
    world.later(limits.LEASE_MS - 1)
    world.owner.beat(who, "s1:0", [Beat("t1", epoch)], world.now)
    assert of(world.flush(), BeatReply)[0].gone == (("t1", epoch),)
    world.later(1)
    world.tick()
    assert of(world.flush(), kinds.TaskExpire)


def test_a_worker_that_started_anew_has_lost_what_it_ran_at_once():
    world = World(machine(BUILD))
    world.owner.beat(BUILD, "s1:0", [], world.now)
    world.submit(order("t1"))
    world.owner.beat(BUILD, "s1:5", [], world.now)
    assert of(world.flush(), kinds.TaskExpire) == []
    world.owner.beat(BUILD, "s2:9", [], world.now)
    assert of(world.flush(), kinds.TaskExpire)[0].reason == "the worker started anew"


def test_the_assignment_gives_the_workers_newest_mark_back():
    world = World(machine(BUILD))
    world.owner.beat(BUILD, "s1:77", [], world.now)
    assert of(world.submit(order("t1")), kinds.TaskAssign)[0].mark == "s1:77"


@proves("task.loss-is-not-failure")
def test_losses_have_their_own_limit_and_end_in_lost():
    world = World(machine(BUILD))
    world.submit(order("t1", retries=5))
    for _ in range(limits.LOSSES_MAX):
        # Heard again: a machine that stays silent is given nothing.
        world.owner.beat(BUILD, "s:1", [], world.now)
        world.flush()
        assert world.stream.task("t1").state == "leased"
        world.later(limits.LEASE_MS)
        world.tick()
        world.flush()
    row = world.stream.task("t1")
    assert (row.state, row.tries) == ("lost", 0)


@proves("task.loss-is-not-failure")
def test_a_task_that_must_run_once_is_lost_rather_than_run_twice():
    world = World(machine(BUILD))
    world.submit(order("t1", template={"do": "pay", "once": True}))
    world.later(limits.LEASE_MS)
    world.tick()
    assert assigned(world.flush()) == []
    assert world.stream.task("t1").state == "lost"


def test_a_killed_attempt_is_a_loss_and_the_task_goes_on():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    out = world.finish("t1", "killed", reason="the lease could not be renewed in time")
    assert of(out, kinds.TaskExpire)
    assert assigned(out) == [("t1", BUILD, (1, 2))]


def stuck(world: World, what: str) -> list[Any]:
    return world.finish("t1", "killed", reason=f"{what}: nothing", values={STALLED: what})


@proves("health.stuck-goes-elsewhere")
def test_an_agent_that_was_stuck_costs_a_loss_and_its_task_goes_elsewhere_after_a_wait():
    world = World(machine(BUILD), machine(STUDIO, load_percent=50))
    world.submit(order("t1"))
    assert assigned(stuck(world, "silent")) == []
    assert (world.stream.task("t1").losses, world.stream.task("t1").tries) == (1, 0)
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    assert assigned(world.flush()) == [("t1", STUDIO, (1, 2))]
    # Something else there: that is no reason to give up.
    assert assigned(stuck(world, "tool")) == []
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    assert assigned(world.flush()) == [], "each wait is twice as long"
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    assert assigned(world.flush()) == [("t1", BUILD, (1, 3))]


@proves("health.drained")
def test_what_a_machine_gives_away_costs_its_task_nothing_however_often():
    tools = {"git": "git version 2.43.0", PAUSED: Pause(0, "", drains=True).told}
    both = {id: machine(id) for id in (BUILD, STUDIO)}
    world = World(*both.values())
    world.submit(order("t1", template={"do": "x", "once": False}))
    for number in range(2, 2 + 3 * limits.LOSSES_MAX):
        at = world.stream.task("t1").machine
        world.owner.machine_up(machine(at, tools=tools))
        out = world.finish("t1", "killed", reason="it drains", values={STALLED: DRAINS})
        assert of(out, kinds.TaskRetry)[0].why == "busy"
        assert assigned(out)[0][2] == (1, number)
        world.owner.machine_up(both[at])
    row = world.stream.task("t1")
    assert (row.state, row.losses, row.tries, row.refusals) == ("leased", 0, 0, 0)


@proves("health.drained")
def test_who_says_that_it_drains_and_takes_work_is_not_believed_for_ever():
    world = World(machine(BUILD))
    world.submit(order("t1", template={"do": "x", "once": False}))
    losses = []
    for _ in range(2 * limits.LOSSES_MAX):
        world.finish("t1", "killed", reason="it drains", values={STALLED: DRAINS})
        losses.append(world.stream.task("t1").losses)
        world.later(limits.RETRY_DELAY_MS_MIN << limits.LOSSES_MAX)
        world.tick()
        world.flush()
    assert losses[: limits.LOSSES_MAX] == [0] * limits.LOSSES_MAX
    assert world.stream.task("t1").state == "lost"


@proves("health.stalled-twice")
def test_what_is_stuck_on_two_machines_is_given_to_no_third():
    world = World(machine(BUILD), machine(STUDIO), machine(OWNER))
    world.submit(order("t1"))
    first = world.stream.task("t1").machine
    stuck(world, "silent")
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    world.flush()
    assert world.stream.task("t1").machine != first
    assert assigned(stuck(world, "silent")) == []
    row = world.stream.task("t1")
    assert (row.state, row.reason) == ("failed", "stalled twice, on two machines: silent: nothing")


@proves("health.stuck-goes-elsewhere")
def test_what_a_worker_calls_its_loss_is_one_of_ours_or_a_plain_loss():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    assert assigned(stuck(world, "x" * 500)) == [("t1", BUILD, (1, 2))]


def test_a_machine_that_leaves_the_fleet_loses_everything_at_once():
    world = World(machine(BUILD), machine(STUDIO, load_percent=100))
    world.submit(order("t1"))
    world.owner.machine_removed(BUILD)
    assert assigned(world.flush()) == [("t1", STUDIO, (1, 2))]


# --- ends of attempts ------------------------------------------------------------------------------


@proves("task.retries")
def test_a_failed_attempt_is_tried_again_after_a_growing_wait():
    world = World(machine(BUILD))
    world.submit(order("t1", retries=2))
    waits = []
    for _ in range(2):
        retry = of(world.finish("t1", "failed", reason="exit 1"), kinds.TaskRetry)[0]
        waits.append(retry.after_ms)
        world.later(retry.after_ms - 1)
        world.tick()
        assert world.flush() == []
        world.later(1)
        world.tick()
        world.flush()
    assert waits == [limits.RETRY_DELAY_MS_MIN, 2 * limits.RETRY_DELAY_MS_MIN]
    world.finish("t1", "failed", summary="red", reason="exit 1")
    row = world.stream.task("t1")
    assert (row.state, row.tries, row.reason, row.summary) == ("failed", 2, "exit 1", "red")


def test_a_delayed_task_can_be_retried_now_but_not_a_running_one():
    world = World(machine(BUILD))
    world.submit(order("t1", retries=2))
    with pytest.raises(Conflict):
        world.owner.retry("t1")
    world.finish("t1", "failed")
    world.owner.retry("t1")
    assert assigned(world.flush()) == [("t1", BUILD, (1, 2))]


@proves("task.refusal-has-a-reason")
def test_a_machine_that_refused_is_not_asked_again_while_there_is_another():
    world = World(machine(BUILD), machine(STUDIO, load_percent=100))
    world.submit(order("t1"))
    out = world.say(BUILD, kinds.AttemptRefuse("t1", (1, 1), "misfit", "python 3.9"))
    assert of(out, kinds.TaskRetry)[0].reason == "misfit: python 3.9"
    assert assigned(out) == [("t1", STUDIO, (1, 2))]
    assert (world.stream.task("t1").refusals, world.stream.task("t1").tries) == (1, 0)


@proves("task.refusal-has-a-reason")
def test_when_everybody_refuses_the_task_fails_in_the_end():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    for _ in range(limits.REFUSALS_MAX):
        row = world.stream.task("t1")
        assert row.state == "leased"
        world.say(BUILD, kinds.AttemptRefuse("t1", row.epoch, "operator-not-allowed", "no grant"))
        world.later(limits.RETRY_DELAY_MS_MAX)
        world.tick()
        world.flush()
    row = world.stream.task("t1")
    assert row.state == "failed"
    assert row.reason == "refused too often; last operator-not-allowed: no grant"


def test_a_busy_machine_is_asked_again_soon_and_that_counts_as_nothing():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    for n in range(20):
        row = world.stream.task("t1")
        world.say(BUILD, kinds.AttemptRefuse("t1", row.epoch, "busy"))
        world.later(limits.BUSY_DELAY_MS << min(n, 7))
        world.tick()
        world.flush()
    row = world.stream.task("t1")
    assert (row.state, row.refusals, row.tries, row.losses) == ("leased", 0, 0, 0)


@proves("task.late-is-ignored")
def test_a_late_result_is_recorded_and_changes_nothing():
    world = World(machine(BUILD), machine(STUDIO, load_percent=100))
    world.submit(order("t1"))
    world.owner.machine_down(BUILD)
    world.later(limits.LEASE_MS)
    world.tick()
    world.flush()
    out = world.say(BUILD, kinds.AttemptFinish("t1", (1, 1), "done", commit="old"))
    assert of(out, kinds.TaskLate) == [kinds.TaskLate("t1", (1, 1), BUILD, "done", "old")]
    assert of(out, kinds.TaskSettle) == []
    world.finish("t1", commit="new")
    assert world.stream.task("t1").commit_id == "new"
    out = world.say(STUDIO, kinds.AttemptFinish("t1", (1, 2), "failed"))
    assert [type(b) for b in of(out, kinds.Body)] == [kinds.TaskLate]
    assert world.stream.task("t1").state == "done"


@proves("task.late-is-ignored")
def test_a_result_for_a_task_that_never_was_is_nothing():
    world = World(machine(BUILD))
    assert world.say(BUILD, kinds.AttemptFinish("nope", (1, 1), "done")) == []


@proves("task.one-holder")
def test_a_machine_cannot_finish_what_another_holds():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    out = world.say(STUDIO, kinds.AttemptFinish("t1", (1, 1), "done"))
    assert of(out, kinds.TaskSettle) == []
    assert world.stream.task("t1").state == "leased"


def test_a_result_too_large_for_the_owners_entry_still_settles_the_task():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    bare = kinds.AttemptFinish("t1", (1, 1), "done", values={"x": ""}, commit="c0")
    room = limits.BODY_BYTES_MAX - len(kinds.body_bytes(bare))
    world.finish("t1", values={"x": "y" * room}, commit="c0")
    row = world.stream.task("t1")
    assert (row.state, row.commit_id) == ("done", "c0")
    assert row.reason.startswith("the result was too large")


# --- people ----------------------------------------------------------------------------------------


@proves("task.cancel")
def test_cancelling_a_running_task_stops_the_worker_and_frees_its_slot_when_it_has_stopped():
    world = World(machine(BUILD, slots={"": 1}))
    world.submit(order("t1"), order("t2", template={"do": "next"}))
    world.owner.cancel("t1", "no longer wanted", (ENTRY,), world.now)
    out = world.flush()
    assert of(out, Stop) == [Stop(BUILD, "t1", (1, 1), "no longer wanted")]
    assert of(out, Settled)[0].outcome == "cancelled"
    assert assigned(out) == []
    assert world.stream.task("t1").state == "cancelled"
    out = world.say(BUILD, kinds.AttemptFinish("t1", (1, 1), "killed"))
    assert assigned(out) == [("t2", BUILD, (1, 1))]
    assert of(out, kinds.TaskLate) == []


@proves("task.cancel")
def test_the_slot_of_a_cancelled_task_is_free_when_its_worker_never_answers():
    world = World(machine(BUILD, slots={"": 1}))
    world.submit(order("t1"), order("t2", template={"do": "next"}))
    world.owner.cancel("t1", "enough", (), world.now)
    assert assigned(world.flush()) == []
    world.later(limits.LEASE_MS)
    world.tick()
    assert assigned(world.flush()) == [("t2", BUILD, (1, 1))]


@proves("task.cancel")
def test_a_queued_task_is_cancelled_without_a_word_to_anybody():
    world = World()
    world.submit(order("t1"))
    world.owner.cancel("t1", "enough", (), world.now)
    assert of(world.flush(), Stop) == []
    world.owner.machine_up(machine(BUILD))
    assert world.flush() == []
    with pytest.raises(NotFound):
        world.owner.cancel("t1", "enough", (), world.now)


@proves("task.deadline")
def test_a_task_past_its_deadline_fails_wherever_it_is():
    world = World(machine(BUILD, slots={"": 1}))
    at = world.now.wall_ms + 5_000
    world.submit(order("t1", deadline_ms=at), order("t2", deadline_ms=at, template={"do": "y"}))
    world.later(5_000)
    world.tick()
    out = world.flush()
    assert of(out, Stop) == [Stop(BUILD, "t1", (1, 1), "the deadline passed")]
    for name in ("t1", "t2"):
        assert (world.stream.task(name).state, world.stream.task(name).reason) == (
            "failed",
            "the deadline passed",
        )


@proves("task.person-decides")
@pytest.mark.parametrize(("verdict", "state"), [("approve", "done"), ("reject", "failed")])
def test_a_task_for_a_person_waits_for_a_person(verdict, state):
    world = World(machine(BUILD))
    out = world.submit(order("t1", template={"by": "human", "do": "read"}, phase="sign-off"))
    assert of(out, AskPerson) == [AskPerson("t1", "", "sign-off")]
    assert assigned(out) == []
    body = kinds.TaskDecide("t1", verdict, "00", "I read it")
    world.owner.decide(ENTRY, body)
    assert of(world.flush(), Settled)[0].summary == "I read it"
    assert world.stream.task("t1").state == state
    with pytest.raises(NotFound):
        world.owner.decide(ENTRY, body)


def test_nobody_decides_what_a_machine_does():
    world = World(machine(BUILD))
    world.submit(order("t1"))
    with pytest.raises(Conflict):
        world.owner.decide(ENTRY, kinds.TaskDecide("t1", "approve", "00"))
    assert world.flush() == []


# --- the fence ---------------------------------------------------------------------------------------


def fenced_world(**changes):
    world = World(machine(BUILD), **changes)
    out = world.submit(order("t1", repo="main", run="r1", phase="test", retries=1))
    return world, out


@proves("task.fence-first")
def test_with_a_repository_nothing_is_assigned_before_the_fence_has_the_epoch():
    world, out = fenced_world()
    assert of(out, RaiseFence) == [RaiseFence("t1", (1, 1), BUILD, "main")]
    assert assigned(out) == []
    assert world.owner.holder("t1") is None
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    assert assigned(world.flush()) == [("t1", BUILD, (1, 1))]
    assert world.owner.holder("t1") == (BUILD, (1, 1))
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    assert world.flush() == []


@proves("task.fence-first")
def test_without_the_remote_there_is_no_assignment_and_no_reassignment():
    world, _ = fenced_world()
    for n in range(1, 5):
        world.owner.fenced(Fenced("t1", (1, n), "no route to hub"), world.now)
        assert world.flush() == []
        world.later(limits.RETRY_DELAY_MS_MIN)
        world.tick()
        assert of(world.flush(), RaiseFence)[0].epoch == (1, n + 1)
    assert world.stream.task("t1").state == "queued"


@proves("task.fence-first")
def test_a_fence_that_never_answers_is_asked_again_under_a_higher_epoch():
    world, _ = fenced_world()
    world.later(limits.LEASE_MS)
    world.tick()
    world.flush()
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    assert assigned(world.flush()) == []
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    assert of(world.flush(), RaiseFence)[0].epoch == (1, 2)


@proves("task.epochs-rise")
def test_an_owner_that_forgot_epochs_goes_above_what_the_fence_knows():
    world, _ = fenced_world()
    world.owner.fenced(Fenced("t1", (1, 1), "older than registered", (3, 7)), world.now)
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    assert of(world.flush(), RaiseFence)[0].epoch == (3, 8)


@proves("task.promotes-before-done")
def test_a_commit_is_promoted_before_the_task_is_done():
    world, _ = fenced_world()
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    world.flush()
    out = world.finish("t1", commit="c0ffee")
    assert out == [MoveBranch("t1", (1, 1), "main", "muster/r1/test", "c0ffee", (), BUILD, "shell")]
    world.owner.promoted(Promoted("t1", (1, 1)), world.now)
    assert of(world.flush(), kinds.TaskSettle)[0].commit == "c0ffee"
    world.owner.promoted(Promoted("t1", (1, 1)), world.now)
    assert world.flush() == []


@proves("task.promotes-before-done", "task.an-attempt-ends-once")
@pytest.mark.parametrize("status", ["done", "failed", "killed", "refuse"])
def test_a_second_end_while_the_branch_moves_is_late_and_changes_nothing(status):
    world, _ = fenced_world()
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    world.flush()
    world.finish("t1", commit="c0ffee")
    second = (
        kinds.AttemptRefuse("t1", (1, 1), "busy")
        if status == "refuse"
        else kinds.AttemptFinish("t1", (1, 1), status, commit="badbad")
    )
    out = world.say(BUILD, second)
    assert [each for each in out if not isinstance(each, Draft)] == []
    assert {type(each.body) for each in out} <= {kinds.TaskLate}
    world.owner.promoted(Promoted("t1", (1, 1)), world.now)
    assert of(world.flush(), kinds.TaskSettle)[0].commit == "c0ffee"


@proves("task.promotes-before-done")
def test_a_commit_that_is_not_on_the_remote_is_a_failed_attempt():
    world, _ = fenced_world()
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    world.flush()
    world.finish("t1", commit="c0ffee")
    world.owner.promoted(Promoted("t1", (1, 1), reason="no such commit"), world.now)
    assert of(world.flush(), kinds.TaskRetry)[0].reason == "no such commit"
    world.later(limits.LEASE_MS)
    world.tick()
    assert of(world.flush(), MoveBranch) == []


@proves("task.promotes-before-done")
def test_promotion_is_asked_again_while_the_remote_is_away_and_after_a_restart():
    world, _ = fenced_world()
    world.owner.fenced(Fenced("t1", (1, 1)), world.now)
    world.flush()
    world.finish("t1", commit="c0ffee")
    world.owner.promoted(Promoted("t1", (1, 1), reason="no route", again=True), world.now)
    world.later(limits.RETRY_DELAY_MS_MIN)
    world.tick()
    assert len(of(world.flush(), MoveBranch)) == 1
    world.restart(2)
    assert len(of(world.flush(), MoveBranch)) == 1
    world.later(limits.LEASE_MS)
    world.tick()
    out = world.flush()
    assert len(of(out, MoveBranch)) == 1
    assert of(out, kinds.TaskExpire) == []


# --- restarts ----------------------------------------------------------------------------------------


@proves("task.restart-keeps-work")
def test_a_restarted_owner_takes_up_every_live_task_where_it_was():
    world = World(machine(BUILD, slots={"": 1}))
    world.submit(
        order("t1"),
        order("t2", template={"do": "y"}),
        order("t3", template={"by": "human", "do": "z"}),
    )
    world.restart(2)
    assert world.flush() == []
    assert world.owner.holder("t1") == (BUILD, (1, 1))
    world.later(limits.LEASE_MS - 1)
    world.owner.beat(BUILD, "s1:1", [Beat("t1", (1, 1))], world.now)
    out = world.finish("t1")
    assert assigned(out) == [("t2", BUILD, (2, 1))]
    world.owner.decide(ENTRY, kinds.TaskDecide("t3", "approve", "00"))
    world.flush()
    world.finish("t2")
    assert {world.stream.task(n).state for n in ("t1", "t2", "t3")} == {"done"}


def test_the_same_events_give_the_same_instructions():
    def run():
        world = World(machine(BUILD), machine(STUDIO))
        world.submit(*(order(f"t{n}", template={"do": str(n)}, retries=1) for n in range(6)))
        world.finish("t0", "failed")
        world.finish("t1")
        world.later(limits.LEASE_MS)
        world.tick()
        world.flush()
        return [e.raw for e in world.stream.entries]

    assert run() == run()


@proves("task.flat-cost")
def test_the_cost_of_a_task_does_not_grow_with_the_queue():
    """Counted in pushes and pops, not in time: a clock would make this test lie on a busy machine."""

    def work(count):
        world = World(machine(BUILD, slots={"": 1}))
        world.submit(*(order(f"t{n}", again=True) for n in range(count)))
        calls = 0
        group = next(iter(world.owner._ledger.queue._groups.values()))
        first = world.owner._ledger.queue._first

        def counted(*args):
            nonlocal calls
            calls += 1
            return first(*args)

        world.owner._ledger.queue._first = counted
        for n in range(50):
            world.finish(f"t{n}")
        assert len(group.heap) == count - 51
        return calls

    assert work(2000) <= work(100)


def test_drafts_know_their_kind_and_their_bytes_once():
    world = World(machine(BUILD))
    out = world.submit(order("t1"))
    drafts = of(out, Draft)
    assert [d.kind for d in drafts] == ["task.open", "task.assign"]
    assert drafts[0].raw is drafts[0].raw
