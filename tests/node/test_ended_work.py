"""Work whose owner cannot be asked: what an order does to it, and what the others are shown."""

from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores, One
from tests.promise import proves

from muster.cli.show import run as page
from muster.fleet import kinds as fleet_kinds
from muster.fleet.record import sign_revocation
from muster.log import canon
from muster.node.tasks.ended_work import cancel_args
from muster.task import kinds
from muster.verbs import daemon_checks

SPEC = "muster: 1\nname: long\nphases:\n  a:\n    by: human\n    do: look at it\n"
RUN_ARGS = {"base": "", "repo": "", "spec": SPEC, "values": {}}


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio")
    made.link("hub", "studio")
    made.pass_ms(3_000)
    return made


def begin(world: Cores) -> tuple[str, str]:
    """A run of the hub that waits for a person; the hub is cut off then. The run and its task."""
    answer = world["hub"].order("run", "long", RUN_ARGS)
    assert answer["ok"], answer
    world.pass_ms(1_000)
    run = answer["value"]["run"]
    (task,) = world["hub"].call("tasks", {"run": run})["value"]
    world.cut("hub")
    return run, task["task"]


def end(world: Cores, at: One, what: str, reason: str = "", **more: Any) -> dict[str, Any]:
    args = cancel_args(what, reason)
    statement = world.sign("cancel", what, at, args, to="fleet", **more)
    answer: dict[str, Any] = at.call("cancel", args, statement=statement)
    return answer


def state(machine: One, run: str) -> tuple[str, str]:
    view = machine.call("runs", {"run": run})["value"]
    (task,) = view["tasks"]
    return view["state"], task["state"]


@proves("task.lost-owner-ends")
def test_a_run_of_a_machine_that_is_away_is_ended_by_an_order_that_it_obeys_when_it_is_back(world):
    run, _ = begin(world)
    hub, studio = world["hub"], world["studio"]
    assert state(studio, run) == ("open", "waiting")
    answer = end(world, studio, run, "burnt")["value"]
    assert answer == {"run": run, "cancelled": True, "left_for": "hub"}
    assert state(studio, run) == ("cancelled", "cancelled")
    assert studio.call("tasks", {})["value"] == []
    assert state(hub, run) == ("open", "waiting")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    assert state(hub, run) == ("cancelled", "cancelled")
    (settled,) = hub.entries("run.settle")
    assert settled.header.author == hub.id


@proves("task.lost-owner-is-said")
def test_a_run_that_waits_for_an_owner_that_is_away_says_so_until_it_is_back(world):
    run, _ = begin(world)
    studio = world["studio"]
    world.pass_ms(90_000)
    view = studio.call("runs", {"run": run})["value"]
    assert (view["state"], view["waits_for"]) == ("open", "hub")
    (row,) = studio.call("runs", {})["value"]
    assert row["waits_for"] == "hub"
    shown = page.runs([row], {}) + page.graph(view)
    assert "waits for hub, which is away" in shown
    assert f"muster cancel {run[:12]}" in shown
    assert "waits_for" not in world["hub"].call("runs", {"run": run})["value"]
    world.link("hub", "studio")
    world.pass_ms(3_000)
    assert "waits_for" not in studio.call("runs", {"run": run})["value"]


@proves("task.lost-owner-is-said")
def test_doctor_says_which_runs_stand_still_and_what_ends_them(world):
    begin(world)
    world.pass_ms(90_000)

    class Door:
        def ask(self, verb: str, args: Any) -> Any:
            return world["studio"].call(verb, args)["value"]

    door: Any = Door()
    (check,) = daemon_checks._ownerless(door)
    assert (check.state, check.text) == ("note", "1 run waits for hub, which is away")
    assert "muster cancel" in check.mend


@proves("task.lost-owner-ends")
def test_an_owner_that_was_down_obeys_when_it_starts_again(world):
    run, task = begin(world)
    world.restart("hub")
    end(world, world["studio"], task)
    world.link("hub", "studio")
    world.pass_ms(6_000)
    assert state(world["hub"], run) == ("failed", "cancelled")


@proves("task.lost-owner-ends")
def test_what_its_owner_settled_before_it_heard_stays_as_it_is(world):
    run, task = begin(world)
    args = {"task": task, "answer": "yes"}
    assert world["hub"].order("decide", task, args)["ok"]
    assert end(world, world["studio"], run)["ok"]
    world.link("hub", "studio")
    world.pass_ms(3_000)
    for machine in world.machines.values():
        assert state(machine, run) == ("done", "done")


@proves("task.lost-owner-ends")
@pytest.mark.parametrize(
    "forged",
    [
        {"signer": "studio"},
        {"to": "studio"},
        {"args": {"what": "another"}},
        {"verb": "retry"},
    ],
)
def test_a_member_ends_nothing_without_an_operators_order_for_exactly_that(world, forged):
    run, _ = begin(world)
    studio = world["studio"]
    signer = studio.identity.signer("seal") if "signer" in forged else None
    to = studio.id if "to" in forged else "fleet"
    args = forged.get("args", cancel_args(run, ""))
    raw = world.sign(forged.get("verb", "cancel"), run, studio, args, signer=signer, to=to)
    body = kinds.WorkEnd(run, raw.encode().hex())
    with studio.core.store.transaction():
        studio.core.append("work.end", kinds.body_bytes(body))
        studio.core.store.seal_dirty(studio.core.membership.signer("seal"))
    assert state(studio, run) == ("open", "waiting")
    world.link("hub", "studio")
    world.pass_ms(3_000)
    assert world["hub"].entries("work.end")
    assert state(world["hub"], run) == ("open", "waiting")
    assert world["hub"].core.counters["endings-void"] == 1


@proves("task.lost-owner-ends")
def test_an_owner_that_can_be_asked_is_asked_and_nothing_is_written_elsewhere(world):
    run, _ = begin(world)
    world.link("hub", "studio")
    studio = world["studio"]
    error = end(world, studio, run)["error"]
    assert error["kind"] == "NotFound"
    assert "--on hub" in error["text"]
    assert studio.entries("work.end") == []


@proves("task.lost-owner-ends")
def test_what_a_revoked_machine_owned_is_open_no_more(world):
    run, _ = begin(world)
    studio = world["studio"]
    revoke(world, "hub", studio)
    world.pass_ms(500)
    assert state(studio, run) == ("lost", "lost")
    assert studio.call("tasks", {})["value"] == []
    assert end(world, studio, run)["ok"]
    assert state(studio, run) == ("cancelled", "cancelled")
    assert end(world, studio, run)["error"]["kind"] == "Conflict"


def revoke(world: Cores, name: str, at: One) -> None:
    """The record that shuts a machine out, as another one has it."""
    raw = sign_revocation(
        world.authority, of="machine", key=world[name].id, name=name,
        cuts=_cuts(at, world[name]), reason="burnt", issued_ms=WALL_MS + world.ms,
    )  # fmt: skip
    with at.core.store.transaction():
        body = canon.encode(fleet_kinds.MachineRevoke(raw.decode()))
        at.core.append(fleet_kinds.MACHINE_REVOKE, body)
        at.core.store.seal_dirty(at.core.membership.signer("seal"))


def _cuts(here: One, gone: One) -> dict[str, int]:
    store = here.core.store
    return {str(s): store.log.size(s) for s in store.log.streams() if s.machine == gone.id}


@proves("task.waits-are-said")
def test_a_run_shows_what_keeps_its_queued_tasks_from_a_machine(world):
    spec = (
        "muster: 1\nname: far\nphases:\n  a:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
        "    needs: {machine: studio}\n"
    )
    args = {"base": "", "repo": "", "spec": spec, "values": {}}
    hub = world["hub"]
    world.cut("hub")
    world.pass_ms(90_000)
    run = hub.order("run", "far", args)["value"]["run"]
    world.pass_ms(1_000)
    view = hub.call("runs", {"run": run})["value"]
    (task,) = view["tasks"]
    assert task["state"] == "queued"
    assert "studio: away" in task["waits"]
    assert "studio: away" in page.graph(view)
    world.link("hub", "studio")
    world.pass_ms(3_000)
    (task,) = hub.call("runs", {"run": run})["value"]["tasks"]
    assert not task.get("waits")
