"""This machine as a worker, through real cores."""

from typing import Any

import pytest
from tests.node.cores import LOCAL, Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.limits import REFUSALS_MAX, UNPROVEN_PER_MINUTE_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.worker import WorkerService
from muster.task import kinds
from muster.task.instruction import StartAttempt, StopAttempt


def begun(world: Cores) -> str:
    """A task of the hub that the studio has begun to work on; its id."""
    world.link("hub", "studio")
    world.pass_ms(500)
    needs = {"machine": "studio"}
    task = world["hub"].submit(agent=["shell"], do="sleep 60", needs=needs)
    world.drain()
    assert any(isinstance(e, StartAttempt) for e in world["studio"].effects)
    return task


@proves("node.unfinished-attempts-are-told")
def test_a_worker_that_was_killed_says_so_only_once_its_own_head_is_confirmed():
    """The link comes up before the peer has told what it holds of us: nothing is written yet."""
    world = Cores("hub", "studio")
    task = begun(world)
    studio = world["studio"]
    studio.dials = True
    world.restart("studio")
    assert not studio.core.settled
    before = studio.own_size
    # One side alone sees the link at first, so that its head is not confirmed in the same step.
    studio.step(ev.LinkUp(99, world["hub"].id, False, "http"))
    assert (studio.own_size, studio.entries("attempt.finish")) == (before, [])
    studio.step(ev.LinkDown(99))
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert studio.core.settled
    assert [e.header.author for e in studio.entries("attempt.finish")] == [studio.id]
    assert world["hub"].task(task).losses == 1


@proves("node.short-leases-are-kept")
def test_a_lease_shorter_than_the_pause_between_beats_is_renewed_in_time():
    """An idle worker beats seldom; a short lease must not wait for the beat that was due then."""
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    hub.core.part(OwnerService).owner._lease_ms = 8_000
    world.link("hub", "studio")
    world.pass_ms(7_500)
    task = hub.submit(agent=["shell"], do="sleep 60", needs={"machine": "studio"})
    world.drain()
    assert any(isinstance(e, StartAttempt) for e in studio.effects)
    for _ in range(20):
        world.pass_ms(1_000)
    assert (hub.task(task).state, hub.task(task).losses) == ("leased", 0)


@proves("agent.noop")
@pytest.mark.parametrize(
    ("do", "state"),
    [("{}", "done"), ("", "done"), ("any words", "done"), ('{"fail":true}', "failed"),
     ('{"sleep_ms":60000}', "done"), ("[1]", "done")],
)  # fmt: skip
def test_the_agent_that_does_nothing_ends_in_the_step_that_accepts_it(do, state):
    hub = Cores("hub")["hub"]
    task = hub.submit(do=do)
    assert hub.task(task).state == state
    assert [e for e in hub.effects if isinstance(e, StartAttempt)] == []


@proves("node.why-a-task-moved")
def test_why_says_for_each_machine_that_lost_a_task_when_and_for_what():
    world = Cores("hub", "studio")
    hub = world["hub"]
    task = begun(world)
    assert hub.call("why", {"task": task})["value"]["decisions"][0]["left"] is None
    world.frozen.add("studio")
    for _ in range(60):
        world.pass_ms(1_000)
    assert hub.task(task).losses == 1
    told = hub.call("why", {"task": task})["value"]["decisions"]
    assert [each["machine"] for each in told] == ["studio"]
    assert told[0]["left"]["reason"] == "the lease ended without a word"
    assert told[0]["left"]["t_ms"] > told[0]["t_ms"]


@proves("node.unordered-costs-little")
def test_a_member_that_assigns_what_nobody_ordered_is_refused_so_often_and_no_more():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    hub, core = world["hub"], world["studio"].core

    def assigns(part: str, count: int) -> None:
        with core.store.transaction():
            core.now = world.now()
            for number in range(count):
                body = kinds.TaskOpen(task=f"{part}{number}", template={"agent": ["noop"]})
                opened = core.append("task.open", kinds.body_bytes(body))
                given = kinds.TaskAssign(body.task, (1, 1), hub.id, "noop", 60_000)
                core.append("task.assign", kinds.body_bytes(given), cause=(opened.id,))
            core._fresh.clear()
            core.store.seal_dirty(core.membership.signer("seal"))
        core.sync.after_commit(core.now.boot_ms)
        world.pass_ms(3_000)

    assigns("a", 3 * UNPROVEN_PER_MINUTE_MAX)
    assert len(hub.entries("attempt.refuse")) == UNPROVEN_PER_MINUTE_MAX
    assert hub.core.counters["assignments-unanswered"] == 2 * UNPROVEN_PER_MINUTE_MAX
    # What an operator ordered is done meanwhile, also of this very owner.
    task = world["studio"].submit()
    world.pass_ms(3_000)
    assert world["studio"].task(task).state == "done"
    world.pass_ms(60_000)
    assigns("b", 5)
    assert len(hub.entries("attempt.refuse")) == UNPROVEN_PER_MINUTE_MAX + 5


@proves("fleet.machine-leaves")
def test_a_machine_that_leaves_refuses_tasks_as_often_as_it_is_asked_and_none_fails_by_it():
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(500)
    studio = world["studio"]
    studio.core.part(WorkerService).drains.add("somebody")
    task = world["hub"].submit(agent=["shell"], do="true", needs={"machine": "studio"})
    for _ in range(3 * REFUSALS_MAX):
        world.pass_ms(60_000)
    assert not any(isinstance(e, StartAttempt) for e in studio.effects)
    refusals = [e for e in studio.entries("attempt.refuse") if b'"leaving"' in e.body]
    assert len(refusals) > REFUSALS_MAX
    assert world["hub"].task(task).state == "queued"
    # Whoever stays after all takes it.
    studio.core.part(WorkerService).drains.clear()
    for _ in range(10):
        world.pass_ms(60_000)
    assert any(isinstance(e, StartAttempt) for e in studio.effects)


@proves("task.withdrawn-never-begins")
def test_what_a_machine_assigned_beyond_the_cut_of_its_revocation_is_ended_at_once():
    """bad's task runs at studio; the hub, which never hears of it, revokes bad."""
    world = Cores("hub", "studio", "bad")
    for one, other in (("hub", "studio"), ("hub", "bad"), ("studio", "bad")):
        world.link(one, other)
    world.pass_ms(4_000)
    world.cut("hub")
    bad, studio = world["bad"], world["studio"]
    task = bad.submit(agent=["shell"], do="sleep 60", needs={"machine": "studio"})
    world.drain()
    assert studio.core.part(WorkerService).worker.holds(task)
    assert world["hub"].order("revoke", "bad", {"name": "bad", "reason": "stolen"})["ok"]
    studio.effects.clear()
    world.link("hub", "studio")
    world.pass_ms(500)
    assert [e.task for e in studio.effects if isinstance(e, StopAttempt)] == [task]


def drain(machine: One, channel: int, **args: Any) -> None:
    args["force"] = True
    statement = machine.world.sign("machine.drain", "*", machine, args)
    call = {"args": args, "statement": statement, "verb": "machine.drain"}
    machine.raw(canon.encode(call), channel=channel)


@proves("fleet.machine-leaves")
def test_the_grace_of_a_drain_that_is_over_does_not_end_another_one():
    world = Cores("hub", "studio")
    begun(world)
    studio, hub = world["studio"], world["hub"]
    worker = studio.core.part(WorkerService)
    drain(studio, 9, by=hub.id, now=True)
    world.pass_ms(500)
    assert studio.told[9][-1]["ok"], studio.told
    assert len(worker.drains) == 1, "whoever asked has time to say that it left"
    # Somebody else begins anew, and waits for what runs here.
    world.pass_ms(30_000)
    drain(studio, 11, by=hub.id)
    assert len(worker.drains) == 2
    world.pass_ms(60_000)
    assert len(worker.drains) == 1, "the first one is over, the second is not"
    studio.step(ev.Arrived(LOCAL, Type.CLOSE, 11, b""))
    assert not worker.drains, "whoever gives up has it stay"
