"""Work of a machine that is gone goes on at another one, and its owner obeys when it is back."""

from typing import Any

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet.kinds import OrderTake
from muster.log.stream import Incarnation
from muster.node.tasks.adoption import Adoptions
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.results import settlements
from muster.node.tasks.runs import RunService
from muster.node.tasks.worker import WorkerService
from muster.task import kinds, template
from muster.task.adoption import takeover_args
from muster.task.fold import RUN, TASK
from muster.task.identity import run_id, task_id
from muster.task.instruction import StartAttempt, StopAttempt
from muster.task.lease import make_mark
from muster.task.spec import parse

TWO = (
    "muster: 1\nname: two\nphases:\n  a:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
    "  b:\n    after: [a]\n    by: human\n    do: look at it\n"
    "  c:\n    after: [b]\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
)
RUN_ARGS = {"base": "", "repo": "", "spec": TWO, "values": {}}


@pytest.fixture
def world() -> Cores:
    """A hub, and two machines that are linked with each other as well."""
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(3_000)
    return made


def begin(world: Cores, spec: str = TWO, name: str = "two") -> str:
    """A run of the hub, of which the first phase is done; then the hub is gone."""
    answer = world["hub"].order("run", name, RUN_ARGS | {"spec": spec})
    assert answer["ok"], answer
    world.pass_ms(3_000)
    return str(answer["value"]["run"])


def die(world: Cores, name: str) -> None:
    world.cut(name)
    world.frozen.add(name)


def live(world: Cores, name: str) -> None:
    world.frozen.discard(name)
    for other in world.machines:
        if other != name:
            world.link(name, other)


def take_over(world: Cores, at: str, whose: str, **more: Any) -> Any:
    args = takeover_args(world[whose].id)
    statement = world.sign("takeover", world[whose].id, world[at], args, **more)
    return world[at].call("takeover", args, statement=statement)


def view(machine: One, run: str) -> dict[str, Any]:
    answer = machine.call("runs", {"run": run})
    assert answer["ok"], answer
    found: dict[str, Any] = answer["value"]
    return found


def states(machine: One, run: str) -> dict[str, str]:
    return {each["phase"]: each["state"] for each in view(machine, run)["tasks"]}


def decide(world: Cores, at: str, run: str) -> None:
    (task,) = [t for t in view(world[at], run)["tasks"] if t["phase"] == "b"]
    args = {"task": task["task"], "answer": "yes"}
    assert world[at].order("decide", task["task"], args)["ok"]


@proves("adopt.goes-on")
def test_a_run_of_a_machine_that_is_gone_goes_on_where_an_operator_says(world):
    run = begin(world)
    assert states(world["studio"], run) == {"a": "done", "b": "waiting"}
    die(world, "hub")
    answer = take_over(world, "studio", "hub")
    assert answer["ok"], answer
    assert (answer["value"]["runs"], answer["value"]["within_s"]) == ([run], 0)
    world.pass_ms(5_000)
    for name in ("studio", "laptop"):
        assert states(world[name], run) == {"a": "done", "b": "waiting"}
    decide(world, "studio", run)
    world.pass_ms(5_000)
    for name in ("studio", "laptop"):
        assert view(world[name], run)["state"] == "done", view(world[name], run)
        assert states(world[name], run) == {"a": "done", "b": "done", "c": "done"}
        assert world[name].core.part(Ownership).owner(RUN, run) == world["studio"].id
    # What the hub had done was not done again.
    assert len(world["laptop"].entries("attempt.finish")) == 2


@proves("adopt.obeys")
def test_a_machine_that_is_back_obeys_and_writes_nothing_more_of_what_was_taken_over(world):
    run = begin(world)
    die(world, "hub")
    take_over(world, "studio", "hub")
    world.pass_ms(5_000)
    live(world, "hub")
    world.pass_ms(5_000)
    hub = world["hub"]
    assert run not in hub.core.part(RunService).runs
    assert hub.core.counters["taken-over"] == 1
    before = [e for e in hub.entries("run.settle") if e.header.author == hub.id]
    decide(world, "studio", run)
    world.pass_ms(5_000)
    assert view(hub, run)["state"] == "done"
    assert before == [] == [e for e in hub.entries("run.settle") if e.header.author == hub.id]
    # Nor after it was started again.
    world.restart("hub")
    live(world, "hub")
    world.pass_ms(5_000)
    assert run not in hub.core.part(RunService).runs
    assert view(hub, run)["state"] == "done"


def under_way(world: Cores, at: str = "laptop", **more: Any) -> str:
    """A task of the hub that another machine works on."""
    task = world["hub"].submit(agent=["shell"], do="sleep 60", needs={"machine": at}, **more)
    world.pass_ms(1_000)
    assert started(world[at]) == [task]
    return task


def started(machine: One) -> list[str]:
    return [e.assign.task for e in machine.effects if isinstance(e, StartAttempt)]


def answer_stops(machine: One) -> list[str]:
    """End what is to be ended, as an attempt does."""
    stops = [e for e in machine.effects if isinstance(e, StopAttempt)]
    machine.effects[:] = [e for e in machine.effects if not isinstance(e, StopAttempt)]
    for stop in stops:
        machine.step(attempt_ended(stop.task, stop.epoch, "killed"))
    return [stop.task for stop in stops]


@proves("adopt.waits-for-leases")
def test_what_may_be_under_way_goes_on_when_its_attempt_has_ended_and_not_before(world):
    task = under_way(world)
    die(world, "hub")
    answer = take_over(world, "studio", "hub")["value"]
    assert (answer["tasks"], answer["within_s"]) == ([task], 30)
    world.pass_ms(5_000)
    assert world["studio"].entries("task.adopt") == []
    world.pass_ms(20_000)
    # Its own lease has ended.
    assert answer_stops(world["laptop"]) == [task]
    world.pass_ms(3_000)
    assert started(world["laptop"]) == [task, task]
    given = [e for e in world["laptop"].effects if isinstance(e, StartAttempt)]
    assert given[1].assign.epoch > given[0].assign.epoch
    world["laptop"].step(attempt_ended(task, given[1].assign.epoch, "done", "did it"))
    world.pass_ms(1_000)
    assert (world["studio"].task(task).state, world["studio"].task(task).losses) == ("done", 0)
    live(world, "hub")
    world.pass_ms(5_000)
    held = world["hub"].core.part(Ownership).held(TASK, task)
    assert held is not None
    assert (held.owner, held.row.state) == (world["studio"].id, "done")


@proves("adopt.waits-for-leases")
def test_what_nobody_reports_goes_on_when_its_lease_has_ended(world):
    task = under_way(world)
    die(world, "hub")
    die(world, "laptop")
    take_over(world, "studio", "hub")
    world.pass_ms(29_000)
    assert world["studio"].entries("task.adopt") == []
    world.pass_ms(3_000)
    assert world["studio"].entries("task.adopt")
    assert world["studio"].task(task).state == "queued"


@proves("adopt.obeys")
def test_a_worker_that_hears_both_obeys_whoever_took_the_work_over(world):
    """The hub is cut off from its successor alone: it goes on, and its worker hears both."""
    task = under_way(world)
    world.cut("hub")
    world.link("hub", "laptop")
    take_over(world, "studio", "hub")
    world.pass_ms(35_000)
    # It lived, so its lease never ended; and here it ends.
    assert answer_stops(world["laptop"]) == [task]
    world.pass_ms(10_000)
    assert not world["hub"].core.part(OwnerService).owner.is_open(task)
    assert world["studio"].core.part(OwnerService).owner.is_open(task)
    assert started(world["laptop"]) == [task, task]
    taken = [e for e in world["hub"].entries("task.assign") if e.header.author == world["hub"].id]
    assert len(taken) == 1


@proves("adopt.one-owner", "adopt.obeys")
def test_a_worker_obeys_although_the_owner_before_does_not(world, monkeypatch):
    """It renews the lease of what it lost, and gives it again: both come to nothing."""
    spec = (
        "muster: 1\nname: one\nphases:\n  a:\n    agent: shell\n    do: sleep 60\n"
        "    check: 'true'\n    needs: {machine: laptop}\n"
    )
    begin(world, spec, "one")
    hub, laptop = world["hub"], world["laptop"]
    (task,) = started(laptop)
    monkeypatch.setattr(hub.core.part(Adoptions), "_obey", lambda _what: False)
    world.cut("hub")
    world.link("hub", "laptop")
    take_over(world, "studio", "hub")
    world.pass_ms(35_000)
    assert hub.core.part(OwnerService).owner.is_open(task)
    assert answer_stops(laptop) == [task]
    world.pass_ms(5_000)
    begun = [e for e in laptop.effects if isinstance(e, StartAttempt)]
    assert [each.owner for each in begun] == [hub.id, world["studio"].id]
    laptop.step(attempt_ended(task, begun[1].assign.epoch, "done", "did it"))
    before = len(refusals(world))
    world.pass_ms(30_000)
    # The slot is free, and what comes from the hub is refused all the same.
    assert len(refusals(world)) > before
    assert set(refusals(world)[before:]) == {"other-owner"}
    assert started(laptop) == [task, task]


@proves("adopt.goes-on")
def test_what_is_never_run_twice_and_was_under_way_is_left(world):
    task = under_way(world, once=True)
    die(world, "hub")
    answer = take_over(world, "studio", "hub")["value"]
    assert [each["id"] for each in answer["left"]] == [task]
    world.pass_ms(35_000)
    assert world["studio"].entries("task.adopt") == []


@proves("adopt.one-owner")
def test_work_is_taken_over_again_when_its_successor_is_gone_as_well(world):
    run = begin(world)
    die(world, "hub")
    take_over(world, "studio", "hub")
    world.pass_ms(3_000)
    die(world, "studio")
    assert take_over(world, "laptop", "studio")["value"]["runs"] == [run]
    world.pass_ms(3_000)
    decide(world, "laptop", run)
    world.pass_ms(3_000)
    laptop = world["laptop"]
    assert view(laptop, run)["state"] == "done"
    adopted = {
        e.header.author: kinds.read(kinds.TaskAdopt, e.body) for e in laptop.entries("task.adopt")
    }
    assert adopted[laptop.id].generation > adopted[world["studio"].id].generation
    live(world, "studio")
    live(world, "hub")
    world.pass_ms(5_000)
    for machine in world.machines.values():
        assert machine.core.part(Ownership).owner(RUN, run) == laptop.id
        assert view(machine, run)["state"] == "done"
        assert run not in machine.core.part(RunService).runs


@proves("adopt.one-owner")
def test_of_two_that_took_the_same_over_one_has_it_and_everybody_says_which(world):
    run = begin(world)
    die(world, "hub")
    world.cut("studio")
    take_over(world, "studio", "hub")
    world.pass_ms(1_500)
    take_over(world, "laptop", "hub")
    world.pass_ms(3_000)
    assert run in world["studio"].core.part(RunService).runs
    assert run in world["laptop"].core.part(RunService).runs
    world.link("studio", "laptop")
    live(world, "hub")
    world.pass_ms(5_000)
    owners = {m.core.part(Ownership).owner(RUN, run) for m in world.machines.values()}
    having = [n for n, m in world.machines.items() if run in m.core.part(RunService).runs]
    assert len(owners) == len(having) == 1
    assert owners == {world[having[0]].id}
    decide(world, having[0], run)
    world.pass_ms(5_000)
    assert {view(m, run)["state"] for m in world.machines.values()} == {"done"}


@proves("adopt.goes-on")
def test_a_successor_that_was_killed_goes_on_with_what_it_took_over(world):
    run, task = begin(world), under_way(world)
    die(world, "hub")
    take_over(world, "studio", "hub")
    world.pass_ms(1_500)
    # The run went on at once, the task waits for its lease: its order is taken up after a start.
    world.restart("studio")
    world.link("studio", "laptop")
    world.pass_ms(3_000)
    assert run in world["studio"].core.part(RunService).runs
    world.pass_ms(35_000)
    answer_stops(world["laptop"])
    world.pass_ms(5_000)
    assert world["studio"].core.part(OwnerService).owner.is_open(task)
    # Nor is it lost in a new incarnation, which opens both again.
    world["studio"].incarnation = Incarnation("7" * 32)
    world.restart("studio")
    world.link("studio", "laptop")
    world.pass_ms(10_000)
    assert run in world["studio"].core.part(RunService).runs
    decide(world, "studio", run)
    world.pass_ms(5_000)
    assert view(world["laptop"], run)["state"] == "done"


@proves("adopt.goes-on")
def test_nothing_is_adopted_of_a_machine_that_is_linked_and_nothing_after_the_order_ended(world):
    run = begin(world)
    refused = take_over(world, "studio", "hub")
    assert refused["error"]["text"].startswith("hub is linked to studio and does its own work")
    assert take_over(world, "hub", "hub")["error"]["kind"] == "Conflict"
    die(world, "hub")
    world.frozen.discard("hub")
    answer = take_over(world, "studio", "hub", life_ms=2_000)
    assert answer["ok"]
    world.link("hub", "studio")
    world.pass_ms(3_000)
    world.cut("hub")
    world.pass_ms(5_000)
    assert world["studio"].entries("task.adopt") == []
    assert run in world["hub"].core.part(RunService).runs
    assert not world["studio"].core.part(Adoptions).needs_tick


@proves("adopt.only-by-order")
def test_only_an_operator_orders_a_takeover(world):
    begin(world)
    die(world, "hub")
    key = world["studio"].identity.signer("statement")
    answer = take_over(world, "studio", "hub", signer=key)
    assert "only an operator may order takeover" in answer["error"]["text"]
    assert world["studio"].entries("task.adopt") == []


# --- forged -----------------------------------------------------------------------------------

C = task_id("", "c", "")


def forge(world: Cores, run: str, statement: str = "", **how: Any) -> None:
    """The studio writes that it goes on with a run, and gives a task of it to the laptop."""
    studio = world["studio"]
    core, of = studio.core, how.get("of", world["hub"].id)
    (row,) = [r for r in core.tables.rows(RUN, run=run) if r.stream.machine == world["hub"].id]
    before, generation = core.log.entry(row.opened), how.get("generation", core.now.wall_ms)
    assert before is not None
    assert before.body is not None
    with core.store.transaction():
        causes = [row.opened]
        if ground := how.get("ground"):
            causes.append(core.append_body(ground).id)
        if statement:
            causes.append(core.append_body(OrderTake("0" * 64, statement)).id)
        what = how.get("what", run)
        adopt = core.append_body(kinds.TaskAdopt(what, of, generation), cause=causes)
        opened = core.append("run.open", before.body, cause=(row.opened, adopt.id))
        name = task_id(run, "a", "")
        body = kinds.TaskOpen(name, template.phase_order(parse(TWO.encode()), "a", "", {}),
                              run=run, phase="a", values={"run": {"since": "0.3"}})  # fmt: skip
        task = core.append_body(body, cause=(opened.id,))
        worker = world["laptop"].core
        mark = make_mark(worker.part(WorkerService).session, worker.now.boot_ms)
        assign = kinds.TaskAssign(name, (generation, 1), world["laptop"].id, "noop", 30_000, mark)
        core.append_body(assign, cause=(task.id,))
        core.store.seal_dirty(core.membership.signer("seal"))


def order(world: Cores, **how: Any) -> str:
    args = how.pop("args", takeover_args(world["hub"].id))
    object = how.pop("object", world["hub"].id)
    verb = how.pop("verb", "takeover")
    return world.sign(verb, object, world["studio"], args, **how)


def refusals(world: Cores) -> list[str]:
    found = [
        e
        for e in world["laptop"].entries("attempt.refuse")
        if e.stream.machine == world["laptop"].id
    ]
    return [kinds.read(kinds.AttemptRefuse, e.body).reason for e in found if e.body]


def finished(world: Cores) -> int:
    me = world["laptop"].id
    return sum(e.header.author == me for e in world["laptop"].entries("attempt.finish"))


@pytest.fixture
def lone() -> Cores:
    """A hub that did one phase itself and is gone; two others that are linked."""
    made = Cores("hub", "studio", "laptop")
    made.link("hub", "studio")
    made.pass_ms(3_000)
    return made


@pytest.fixture
def taken(lone: Cores) -> tuple[Cores, str]:
    run = begin(lone)
    lone.link("studio", "laptop")
    lone.pass_ms(3_000)
    die(lone, "hub")
    return lone, run


@proves("adopt.only-by-order")
def test_what_an_operator_ordered_is_done_by_others_as_well(taken):
    world, run = taken
    forge(world, run, order(world))
    world.pass_ms(3_000)
    assert refusals(world) == []
    assert finished(world) == 1


@proves("adopt.only-by-order")
@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ({"none": True}, "adoption-not-allowed"),
        ({"object": "laptop", "args": takeover_args("laptop")}, "adoption-not-allowed"),
        ({"args": {}}, "adoption-not-allowed"),
        ({"verb": "cancel"}, "adoption-not-allowed"),
        ({"to": "fleet"}, "adoption-not-allowed"),
        ({"to": "laptop"}, "adoption-not-allowed"),
        ({"signer": "studio"}, "adoption-not-allowed"),
        ({"late": True}, "adoption-not-allowed"),
        ({"generation": (1 << 52)}, "adoption-not-allowed"),
        ({"of": "laptop"}, "adoption-other-work"),
        ({"what": "another"}, "adoption-other-work"),
    ],
)
def test_a_member_goes_on_with_nobodys_work_without_an_operators_order_for_just_that(
    taken, how, reason
):
    world, run = taken
    more = {k: how[k] for k in ("object", "args", "verb", "to") if k in how}
    for name in ("to", "object"):
        if more.get(name) == "laptop":
            more[name] = world["laptop"].id
    if how.get("object") == "laptop":
        more["args"] = takeover_args(world["laptop"].id)
    if "signer" in how:
        more["signer"] = world["studio"].identity.signer("statement")
    statement = "" if "none" in how else order(world, **more)
    if "late" in how:
        world.pass_ms(60_000)
        world.ms += 11 * 60_000
        world.pass_ms(3_000)
    made = {k: how[k] for k in ("generation", "what") if k in how}
    if "of" in how:
        made["of"] = world["laptop"].id
    forge(world, run, statement, **made)
    world.pass_ms(3_000)
    assert refusals(world) == [reason]
    assert finished(world) == 0
    for name in ("studio", "laptop"):
        assert (
            world[name].core.part(Ownership).owner(RUN, run) == world["hub"].id or name == "studio"
        )


@proves("adopt.only-by-order", "adopt.one-owner")
def test_a_member_has_nothing_by_an_adoption_that_another_machine_wrote():
    """It opens the run again, and cites the adoption of whoever took it over."""
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(3_000)
    # Of equal places the lowest id counts: it is the member's.
    member, successor = sorted(("studio", "laptop"), key=lambda name: made[name].id)
    run = begin(made)
    die(made, "hub")
    assert take_over(made, successor, "hub")["ok"]
    made.pass_ms(5_000)
    core = made[member].core
    (row,) = [r for r in core.tables.rows(RUN, run=run) if r.stream.machine == made["hub"].id]
    before = core.log.entry(row.opened)
    (adopt,) = made[member].entries("task.adopt")
    assert before is not None
    assert adopt.header.author == made[successor].id
    with core.store.transaction():
        opened = core.append("run.open", before.body or b"", cause=(row.opened, adopt.id))
        core.append_body(kinds.RunSettle(run, "done", "says a member"), cause=(opened.id,))
        core.store.seal_dirty(core.membership.signer("seal"))
    live(made, "hub")
    made.pass_ms(5_000)
    for machine in made.machines.values():
        assert machine.core.part(Ownership).owner(RUN, run) == made[successor].id
        assert view(machine, run)["state"] == "open"
    assert run in made[successor].core.part(RunService).runs


@proves("adopt.only-by-order")
def test_a_place_that_is_not_above_the_one_before_is_none(world):
    """Who took it over from a successor, under a lower place, has nothing."""
    run = begin(world)
    die(world, "hub")
    take_over(world, "studio", "hub")
    world.pass_ms(3_000)
    studio, laptop = world["studio"], world["laptop"]
    (row,) = [r for r in laptop.core.tables.rows(RUN, run=run) if r.stream.machine == studio.id]
    before = laptop.core.log.entry(row.opened)
    assert before is not None
    statement = world.sign("takeover", studio.id, laptop, takeover_args(studio.id))
    core = laptop.core
    with core.store.transaction():
        took = core.append_body(OrderTake("0" * 64, statement))
        adopt = core.append_body(kinds.TaskAdopt(run, studio.id, 1), cause=(row.opened, took.id))
        core.append("run.open", before.body or b"", cause=(row.opened, adopt.id))
        core.store.seal_dirty(core.membership.signer("seal"))
    world.pass_ms(3_000)
    assert studio.core.part(Ownership).owner(RUN, run) == studio.id
    assert run in studio.core.part(RunService).runs


@proves("adopt.only-by-order")
def test_the_end_of_a_task_is_inherited_in_an_adopted_run_alone(world):
    run = begin(world)
    studio, hub = world["studio"], world["hub"]
    (row,) = studio.core.tables.rows(TASK, run=run, phase="a")
    core = studio.core
    body = kinds.TaskInherit(row.task, run, "failed", "a")
    with core.store.transaction():
        adopt = core.append_body(
            kinds.TaskAdopt(run, hub.id, core.now.wall_ms), cause=(row.opened,)
        )
        core.append_body(body, cause=(adopt.id, row.opened, row.assigned, row.settled))
        core.store.seal_dirty(core.membership.signer("seal"))
    world.pass_ms(2_000)
    for name in ("hub", "laptop"):
        held = world[name].core.part(Ownership).held(TASK, row.task)
        assert held is not None
        assert (held.owner, held.row.state) == (hub.id, "done")


@proves("adopt.only-by-order", "adopt.one-owner")
@pytest.mark.parametrize("of", ["own run", "the run that it is of"])
def test_a_member_inherits_the_end_of_no_task_of_another_machines_run(of):
    """It has a run of its own, and says that it adopted that: its row cites the true opening."""
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(3_000)
    # Of equal ones the lowest id counts, for who came to know of both at once.
    member, owner, _ = sorted(made.machines, key=lambda name: made[name].id)
    run = str(made[owner].order("run", "two", RUN_ARGS)["value"]["run"])
    made.pass_ms(3_000)
    core = made[member].core
    statement = made.sign("run", "two", made[member], RUN_ARGS).encode().hex()
    mine = run_id(core.machine, statement)
    (row,) = core.tables.rows(TASK, run=run, phase="b")
    what = mine if of == "own run" else run
    with core.store.transaction():
        adopt = core.append_body(kinds.TaskAdopt(what, made[owner].id, 1))
        core.append_body(kinds.RunOpen(run=mine, name="two", statement=statement, **RUN_ARGS))
        inherited = kinds.TaskInherit(row.task, what, "done", "b", summary="says a member")
        core.append_body(inherited, cause=(adopt.id, row.opened))
        core.store.seal_dirty(core.membership.signer("seal"))
    made.pass_ms(3_000)
    for machine in made.machines.values():
        held = machine.core.part(Ownership).held(TASK, row.task)
        assert held is not None
        assert (held.owner, held.row.state) == (made[owner].id, "waiting")
        assert states(machine, run) == {"a": "done", "b": "waiting"}
    decide(made, owner, run)
    made.pass_ms(5_000)
    assert view(made[owner], run)["state"] == "done"


# --- what a machine that is gone wrote ---------------------------------------------------------


@proves("adopt.goes-on")
def test_what_a_person_decided_before_the_machine_was_gone_counts_in_the_run_that_goes_on(world):
    """Nobody was assigned to it: its end stands in its own place, and later phases cite it."""
    spec = TWO.replace(
        "agent: noop\n    do: '{}'\n    check: 'true'\n  b", "by: human\n    do: look\n  b"
    )
    assert spec.count("by: human") == 2
    run = begin(world, spec)
    (task,) = [t["task"] for t in view(world["hub"], run)["tasks"] if t["phase"] == "a"]
    assert world["hub"].order("decide", task, {"task": task, "answer": "yes"})["ok"]
    world.pass_ms(3_000)
    assert states(world["studio"], run) == {"a": "done", "b": "waiting"}
    die(world, "hub")
    assert take_over(world, "studio", "hub")["ok"]
    world.pass_ms(3_000)
    for name in ("studio", "laptop"):
        held = world[name].core.part(Ownership).held(TASK, task)
        assert held is not None
        end = world[name].core.log.entry(held.row.settled)
        assert end is not None
        assert (end.header.kind, bytes(held.row.assigned)) == ("task.settle", b"")
        found = settlements(world[name].core.store, world["studio"].id, run, "a")
        assert [each.entry.id for each in found] == [end.id]
    (b,) = [t["task"] for t in view(world["studio"], run)["tasks"] if t["phase"] == "b"]
    (opened,) = [
        e
        for e in world["studio"].entries("task.open")
        if e.header.author == world["studio"].id and kinds.read(kinds.TaskOpen, e.body).task == b
    ]
    assert held.row.settled in opened.causes


@proves("adopt.goes-on")
def test_a_machine_that_lied_about_its_places_leaves_its_work_and_raises_nobodys(world):
    """It settled a task under a place above any: who goes on with that would be believed by none."""
    hub, studio = world["hub"], world["studio"]
    good, bad = begin(world), begin(world, name="three", spec=TWO.replace("two", "three"))
    with hub.core.store.transaction():
        opened = hub.core.append_body(
            kinds.TaskOpen("9" * 32, {"v": 1, "agent": ["noop"], "do": "{}"}, run=bad, phase="c")
        )
        epoch = (1 << 52, 1)
        hub.core.append_body(
            kinds.TaskAssign("9" * 32, epoch, hub.id, "noop", 30_000), cause=(opened.id,)
        )
        hub.core.store.seal_dirty(hub.core.membership.signer("seal"))
    world.pass_ms(3_000)
    die(world, "hub")
    answer = take_over(world, "studio", "hub")["value"]
    assert answer["runs"] == [good]
    assert [each["id"] for each in answer["left"]] == [bad]
    assert "above any" in str(answer["left"])
    world.pass_ms(35_000)
    assert studio.core.part(Ownership).place() < world.now().wall_ms + 1_000
    for name in ("studio", "laptop"):
        assert world[name].core.part(Ownership).owner(RUN, good) == studio.id


@proves("adopt.goes-on")
def test_one_run_that_cannot_be_adopted_keeps_no_other_and_all_are_no_one_step(world, monkeypatch):
    runs = [
        begin(world, name=f"r{n}", spec=TWO.replace("name: two", f"name: r{n}")) for n in range(30)
    ]
    studio, broken = world["studio"], min(runs)
    adopt = Adoptions._adopt_run

    def fails(self, run, *given):
        adopt(self, run, *given)
        if run.run == broken:
            raise Malformed("it cannot be read")

    monkeypatch.setattr(Adoptions, "_adopt_run", fails)
    die(world, "hub")
    assert take_over(world, "studio", "hub")["ok"]
    counts, before = [], 0
    for _ in range(20):
        world.pass_ms(100)
        count = len(studio.entries("task.adopt"))
        counts.append(count - before)
        before = count
    assert max(counts) < 15
    owned = [r for r in runs if studio.core.part(Ownership).owner(RUN, r) == studio.id]
    assert sorted(owned) == sorted(set(runs) - {broken})


@proves("adopt.goes-on")
def test_what_is_left_with_a_machine_is_not_judged_again_every_second(world, monkeypatch):
    under_way(world, once=True)
    die(world, "hub")
    looked, work = [], Adoptions.work
    monkeypatch.setattr(Adoptions, "work", lambda self, m: looked.append(m) or work(self, m))
    take_over(world, "studio", "hub", life_ms=600_000)
    before = len(looked)
    world.pass_ms(60_000)
    assert len(looked) - before < 20


@proves("adopt.only-by-order")
def test_an_order_of_who_is_no_operator_any_more_goes_on_with_nothing(world, monkeypatch):
    run = begin(world)
    die(world, "hub")
    # It is given, and counts when it is used: not before the next tick.
    monkeypatch.setattr(Adoptions, "needs_tick", False)
    assert take_over(world, "studio", "hub")["ok"]
    monkeypatch.undo()
    studio = world["studio"]
    with monkeypatch.context() as revoked:
        revoked.setattr(type(studio.core.roster), "operators", {}, raising=False)
        world.pass_ms(60_000)
    world.pass_ms(60_000)
    for name in ("studio", "laptop"):
        assert world[name].core.part(Ownership).owner(RUN, run) == world["hub"].id
    assert run not in studio.core.part(RunService).runs
