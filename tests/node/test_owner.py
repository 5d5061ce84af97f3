"""This machine as an owner of tasks, through real cores."""

import json

import pytest
from tests.node.cores import Cores, attempt_ended
from tests.promise import proves

from muster.channel.frame import Type
from muster.fleet.folds import INCIDENT
from muster.limits import EVIDENCE_AGE_MS_MAX, LEASE_MS
from muster.log import canon
from muster.log.stream import Incarnation
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.service import TaskService
from muster.store.table_reader import TableReader
from muster.task import kinds
from muster.task.fold import TASK
from muster.task.instruction import StartAttempt, StopAttempt
from muster.task.open_task import Beat


def fleet() -> Cores:
    """A hub that only owns, and two machines that work."""
    world = Cores("hub", "studio", "laptop")
    world["hub"].step(FactsChanged(world["hub"].facts(agents={})))
    world.link("hub", "studio")
    world.link("hub", "laptop")
    world.pass_ms(1_000)
    return world


def machine_of(world: Cores, task: str) -> str:
    row = world["hub"].task(task)
    return world["hub"].core.membership.name_of(row.machine)


@proves("node.silent-gets-nothing")
def test_a_machine_that_let_a_lease_end_in_silence_gets_nothing_until_it_is_heard_again():
    """Its link still stands: that it is connected says nothing about whether it works."""
    world = fleet()
    hub = world["hub"]
    first = hub.submit(agent=["shell"], do="sleep 60")
    frozen = machine_of(world, first)
    other = {"studio": "laptop", "laptop": "studio"}[frozen]
    world.frozen.add(frozen)
    world.pass_ms(LEASE_MS + 2_000)
    assert machine_of(world, first) == other
    row = hub.task(first)
    assert (row.losses, row.epoch_count) == (1, 2)
    tasks = [hub.submit() for _ in range(4)]
    world.pass_ms(200)
    assert {machine_of(world, task) for task in tasks} == {other}
    assert {hub.task(task).state for task in tasks} == {"done"}
    world.frozen.clear()
    world.pass_ms(10_000)
    needs = {"machine": frozen}
    again = hub.submit(needs=needs)
    world.pass_ms(200)
    assert hub.task(again).state == "done", "it was heard again"
    assert hub.task(first).losses == 1


@proves("node.silent-gets-nothing")
def test_a_silent_machine_that_is_the_only_one_gets_its_work_back_when_it_is_heard():
    world = Cores("hub", "studio")
    hub = world["hub"]
    hub.step(FactsChanged(hub.facts(agents={})))
    world.link("hub", "studio")
    world.pass_ms(1_000)
    task = hub.submit(agent=["shell"], do="sleep 60")
    assert machine_of(world, task) == "studio"
    world.frozen.add("studio")
    world.pass_ms(4 * LEASE_MS)
    assert (hub.task(task).state, hub.task(task).losses) == ("queued", 1)
    world.frozen.clear()
    world.pass_ms(10_000)
    stops = [e for e in world["studio"].effects if isinstance(e, StopAttempt)]
    for stop in stops[:1]:
        world["studio"].step(attempt_ended(stop.task, stop.epoch, "killed"))
    world.pass_ms(10_000)
    assert hub.task(task).state == "leased"
    assert hub.task(task).losses == 1


@proves("node.heard-before-work")
def test_no_task_is_given_by_the_mark_of_a_process_that_died():
    world = Cores("hub", "studio")
    hub = world["hub"]
    hub.step(FactsChanged(hub.facts(agents={})))
    world.link("hub", "studio")
    world.pass_ms(1_000)
    world.restart("studio")
    task = hub.submit(agent=["shell"], do="true")
    assert hub.task(task).state == "queued"
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert (machine_of(world, task), hub.task(task).state) == ("studio", "leased")
    assert hub.entries("task.expire") == []
    starts = [e for e in world["studio"].effects if isinstance(e, StartAttempt)]
    assert [each.assign.epoch[1] for each in starts] == [1]


@proves("node.heard-before-work")
def test_no_task_is_given_by_the_mark_of_a_process_whose_link_still_seems_to_be_up():
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    hub.step(FactsChanged(hub.facts(agents={})))
    world.link("hub", "studio")
    world.pass_ms(1_000)
    image = studio.core.store.image()
    studio.effects.clear()
    studio.boot(image)
    here, there = world.join("hub", "studio")
    hub.step(ev.LinkUp(here, studio.id, False, "http"))
    studio.step(ev.LinkUp(there, hub.id, False, "http"))
    # Its hello is here, and its first beat waits for what it asks about its own stream.
    world.deliver("hub")
    task = hub.submit(agent=["shell"], do="true")
    world.pass_ms(1_000)
    assert (machine_of(world, task), hub.task(task).state) == ("studio", "leased")
    assert hub.entries("task.expire") == []


@proves("task.evidence-lasts")
def test_a_task_ordered_of_a_machine_whose_clock_was_set_back_is_done():
    """Its openings are stamped later than any short order lasts; it took them in time."""
    world = fleet()
    hub = world["hub"]
    hub.submit()
    world.pass_ms(500)
    world.ms -= 3_600_000
    late = hub.submit()
    world.pass_ms(500)
    assert hub.task(late).state == "done"
    assert hub.task(late).refusals == 0


@proves("task.hopeless-fails")
def test_a_task_whose_order_can_convince_nobody_any_more_fails_and_says_so():
    world = Cores("hub", "studio")
    hub = world["hub"]
    hub.step(FactsChanged(hub.facts(agents={})))
    task = hub.submit()
    world.ms += EVIDENCE_AGE_MS_MAX + 120_000
    world.link("hub", "studio")
    world.pass_ms(2_000)
    row = hub.task(task)
    assert (row.state, row.refusals) == ("failed", 0)
    assert "give it again" in row.reason
    assert len(world["studio"].entries("attempt.refuse")) == 1


@proves("task.hopeless-fails")
def test_a_worker_that_says_so_falsely_only_refuses():
    world = fleet()
    hub = world["hub"]
    task = hub.submit(agent=["shell"], do="sleep 60", needs={"machine": "studio"})
    studio = world["studio"]
    row = hub.task(task)
    assert row.state == "leased"
    body = {
        "epoch": [row.epoch_order, row.epoch_count], "reason": "order-too-old",
        "task": task, "text": "so I say",
    }  # fmt: skip
    with studio.core.store.transaction():
        studio.core.append("attempt.refuse", canon.encode(body), cause=(row.assigned,))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    world.pass_ms(200)
    assert (hub.task(task).state, hub.task(task).refusals) != ("failed", 0)
    assert hub.task(task).refusals == 1


def _finish(studio, task: str, epoch, cause=()) -> None:
    body = kinds.body_bytes(kinds.AttemptFinish(task, epoch, "done"))
    with studio.core.store.transaction():
        studio.core.append("attempt.finish", body, cause=cause)
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))


@proves("task.late-is-bounded")
def test_only_who_once_had_a_task_is_recorded_as_late_and_only_once():
    world = fleet()
    hub, studio = world["hub"], world["studio"]
    task = hub.submit(agent=["shell"], do="sleep 60", needs={"machine": "studio"})
    row = hub.task(task)
    epoch = (row.epoch_order, row.epoch_count)
    hub.order("cancel", task, {"what": task})
    assert hub.task(task).state == "cancelled"
    for number in range(5):
        _finish(studio, task, (epoch[0], epoch[1] + number))
        _finish(studio, task, (number, 1), (row.assigned,))
    world.pass_ms(500)
    assert hub.entries("task.late") == []
    for _ in range(5):
        _finish(studio, task, epoch, (row.assigned,))
        world.pass_ms(300)
    assert len(hub.entries("task.late")) == 1


@proves("task.faults-are-the-machines", "task.faults-are-forgotten")
def test_a_fault_goes_elsewhere_and_stands_among_the_incidents_until_it_is_mended():
    world = fleet()
    hub = world["hub"]

    def incidents() -> list[tuple[str, str, bool]]:
        rows = hub.core.tables.rows(INCIDENT)
        return [(r.title, r.detail, bool(r.open)) for r in rows if r.key.startswith("fault-")]

    task = hub.submit(agent=["shell"], do="true")
    world.pass_ms(200)
    first = machine_of(world, task)
    other = {"studio": "laptop", "laptop": "studio"}[first]

    def end(name: str, **how: str) -> None:
        start = [e for e in world[name].effects if isinstance(e, StartAttempt)][-1].assign
        world[name].step(attempt_ended(start.task, start.epoch, **{"status": "killed", **how}))
        world.pass_ms(200)

    end(first, reason="agent not logged in", fault="agent")
    assert machine_of(world, task) == other
    assert hub.task(task).tries == hub.task(task).losses == 0
    told = (f"{first} cannot run shell; its work goes elsewhere", "agent not logged in")
    assert incidents() == [(*told, True)]
    verdicts = hub.core.part(OwnerService).owner.why(task).verdicts
    (why,) = [v.reasons for v in verdicts if v.machine == world[first].id]
    assert why == ("could not do this task before: agent not logged in",)
    end(other, status="done")
    assert hub.task(task).state == "done"
    again = hub.submit(agent=["shell"], do="true", needs={"machine": first})
    world.pass_ms(200)
    assert machine_of(world, again) == first, "nobody else fits"
    end(first, status="done")
    assert incidents() == [(told[0], "it works again, or started anew", False)]


@proves("task.faults-are-forgotten")
def test_an_owner_that_is_restarted_leaves_no_incident_of_a_fault_open():
    world = fleet()
    hub = world["hub"]
    task = hub.submit(agent=["shell"], do="true", needs={"machine": "studio"})
    world.pass_ms(200)
    start = [e for e in world["studio"].effects if isinstance(e, StartAttempt)][-1].assign
    world["studio"].step(
        attempt_ended(task, start.epoch, "killed", reason="no disk", fault="machine")
    )
    world.pass_ms(200)
    rows = hub.core.tables.rows
    assert [r.key for r in rows(INCIDENT, open=1) if r.key.startswith("fault-")]
    hub.core.part(OwnerService).start()
    hub.core.part(TaskService).start()
    world.pass_ms(5_000)
    assert not [r for r in rows(INCIDENT, open=1) if r.key.startswith("fault-")]


@proves("task.start-reads-what-is-open")
def test_a_start_in_a_new_incarnation_adopts_what_is_open_and_reads_nothing_that_is_settled(
    monkeypatch,
):
    world = Cores("hub", "studio")
    hub = world["hub"]
    settled = {hub.submit() for _ in range(30)}
    world.pass_ms(1_000)
    waits = hub.submit(needs={"label": "nowhere"})
    assert {hub.task(task).state for task in settled} == {"done"}
    read = list[str]()
    rows = TableReader.rows

    def spy(store, table, **more):
        found = rows(store, table, **more)
        read.extend(row.task for row in found if table is TASK)
        return found

    monkeypatch.setattr(TableReader, "rows", spy)
    hub.incarnation = Incarnation("f" * 32)
    hub.boot(hub.core.store.image())
    world.pass_ms(5_000)
    opened = [e for e in hub.entries("task.open") if e.stream.incarnation == hub.incarnation]
    assert [json.loads(e.body or b"")["task"] for e in opened] == [waits]
    # One of them may be looked at for what it tells of the newest epoch.
    assert len(settled & set(read)) <= 1


@pytest.mark.parametrize(
    "held",
    [
        ["x", "9" * 30, "0", ""],
        ["x", -1, 0, ""],
        ["x", 1.5, 0, ""],
        ["x", True, 0, ""],
        [["x"], 1, 0, ""],
        ["x" * 300, 1, 0, ""],
        ["x", 1, 0, 7],
        ["x", 1, 0],
        "x",
        7,
    ],
)
@proves("node.one-failure-is-one-unit")
def test_a_beat_that_no_worker_gives_makes_the_owner_read_nothing_back(held):
    """What is kept in memory of leases would be lost with it, at every beat."""
    world = fleet()
    hub = world["hub"]
    link = next(n for n, each in hub.core.links.items() if each.peer == world["studio"].id)
    recovered = list[object]()
    hub.core.part(OwnerService).recover = lambda *named: recovered.append(named)  # type: ignore[method-assign]
    raw = json.dumps({"args": {"holds": [held], "mark": "s:1"}, "verb": "beat"}, sort_keys=True)
    raw = raw.replace(", ", ",").replace(": ", ":")
    hub.step(ev.Arrived(link, Type.CALL, 0, raw.encode()))
    assert recovered == []
    assert hub.core.counters["call-malformed"] == 1


@proves("node.one-failure-is-one-unit")
def test_an_answer_to_a_beat_that_cannot_be_given_is_no_tasks_failure():
    world = fleet()
    hub = world["hub"]
    owning = hub.core.part(OwnerService)
    task = hub.submit(agent=["shell"], do="sleep 60")
    owner = owning.owner
    owner.beat(world["studio"].id, "s:1", [Beat("x", (1 << 60, 0), "")], hub.core.now)
    hub.step(ev.Tick())
    assert owning.owner.is_open(task)
    assert hub.core.counters["failed-task"] == 1
    assert owning.owner is owner, "nothing was read back"
