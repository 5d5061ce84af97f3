"""Work without a sandbox: an order of its own, where it is handed in and where it is to run."""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.node.test_device import KEY, added, joined, kind, offered, ordered, started
from tests.promise import proves

from muster.node.tasks import unenclosed
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen

OFF = "muster: 1\nname: nightly\nphases: {a: {agent: shell, do: make, check: 'true', sandbox: off, needs: {label: there}}}\n"


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "laptop", "build")
    world.link("hub", "laptop")
    world.link("hub", "build")
    world.pass_ms(4_000)
    # Build alone is what this work needs.
    offered(world)
    return world


def hand_in(world: Cores, spec: str = OFF) -> Any:
    args = {"base": "", "repo": "", "spec": spec, "values": {}}
    return ordered(world, "run", "nightly", args)


def single(world: Cores, signer: Any = KEY, **more: Any) -> tuple[str, Any]:
    hub = world["hub"]
    shape = {"v": 1, "agent": ["shell"], "do": "true", "needs": {"label": "there"}, **more}
    task = hub.core.draw(16).hex()
    args = task_args(TaskOpen(task=task, template=shape))
    statement = world.sign("task", task, hub, args, signer=signer)
    item = {"task": task, "template": shape, "statement": statement}
    return task, hub.call("submit", {"tasks": [item]})


def refusals(world: Cores) -> list[bytes]:
    return [e.body or b"" for e in world["build"].entries("attempt.refuse")]


@proves("openings.off-by-a-grant")
def test_who_may_run_a_spec_runs_none_of_it_without_a_sandbox_before_that_is_granted_too(world):
    added(world, "run:nightly")
    joined(world)
    answer = hand_in(world)
    assert kind(answer) == "Denied"
    assert "phase a has sandbox: off, and " in answer["error"]["text"]
    assert "may not order unenclosed on nightly" in answer["error"]["text"]
    assert not world["hub"].entries("run.open")
    (denied,) = world["hub"].entries("order.deny")
    assert b"unenclosed" in (denied.body or b"")
    assert kind(hand_in(world, OFF.replace("sandbox: off, ", ""))) == "ok"


@proves("openings.off-by-a-grant")
@pytest.mark.parametrize(
    ("may", "takes"), [("unenclosed:nightly", True), ("unenclosed:other", False)]
)
def test_the_right_is_for_the_spec_that_it_names_and_convinces_the_worker(world, may, takes):
    assert kind(added(world, "run:nightly", may)) == "ok"
    joined(world)
    assert kind(hand_in(world)) == ("ok" if takes else "Denied")
    world.pass_ms(2_000)
    assert len(started(world)) == takes
    assert refusals(world) == []


@proves("openings.off-by-a-grant")
def test_an_operator_holds_it_as_everything(world):
    args = {"base": "", "repo": "", "spec": OFF, "values": {}}
    assert kind(world["hub"].order("run", "nightly", args)) == "ok"
    task, answer = single(world, signer=None, sandbox="off")
    assert kind(answer) == "ok"
    world.pass_ms(2_000)
    assert task in started(world)


@proves("openings.off-by-a-grant")
def test_a_single_task_without_a_sandbox_is_refused_where_it_is_handed_in(world):
    added(world, "task")
    joined(world)
    _, answer = single(world, sandbox="off")
    assert kind(answer) == "Denied"
    assert "the task has sandbox: off" in answer["error"]["text"]
    assert kind(single(world, sandbox="on")[1]) == "ok"
    assert kind(single(world, network=["127.0.0.1"])[1]) == "Malformed"


@proves("openings.off-by-a-grant")
@pytest.mark.parametrize("of_run", [True, False])
def test_a_worker_is_not_convinced_by_an_owner_that_did_not_ask(world, monkeypatch, of_run):
    """An owner that takes what it must not: each machine asks the same of the same statement."""
    added(world, "task", "run:nightly")
    joined(world)
    monkeypatch.setattr(unenclosed, "_check", lambda *_: None)
    answer = hand_in(world) if of_run else single(world, sandbox="off")[1]
    assert kind(answer) == "ok"
    world.pass_ms(2_000)
    assert started(world) == []
    assert any(b"unenclosed-not-allowed" in body for body in refusals(world))
