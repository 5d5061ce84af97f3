"""This machine as an owner of tasks, through real cores."""

from tests.node.cores import Cores
from tests.promise import proves

from muster.limits import LEASE_MS
from muster.node import event as ev


def fleet() -> Cores:
    """A hub that only owns, and two machines that work."""
    world = Cores("hub", "studio", "laptop")
    world["hub"].step(ev.FactsChanged(world["hub"].facts(agents={})))
    world.link("hub", "studio")
    world.link("hub", "laptop")
    world.pass_ms(1_000)
    return world


def machine_of(world: Cores, task: str) -> str:
    row = world["hub"].task(task)
    return world["hub"].core.standing.name_of(str(row["machine"]))


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
    assert (row["losses"], row["epoch_count"]) == (1, 2)
    tasks = [hub.submit() for _ in range(4)]
    world.pass_ms(200)
    assert {machine_of(world, task) for task in tasks} == {other}
    assert {hub.task(task)["state"] for task in tasks} == {"done"}
    world.frozen.clear()
    world.pass_ms(10_000)
    needs = {"machine": frozen}
    again = hub.submit(needs=needs)
    world.pass_ms(200)
    assert hub.task(again)["state"] == "done", "it was heard again"
    assert hub.task(first)["losses"] == 1


@proves("node.silent-gets-nothing")
def test_a_silent_machine_that_is_the_only_one_gets_its_work_back_when_it_is_heard():
    world = Cores("hub", "studio")
    hub = world["hub"]
    hub.step(ev.FactsChanged(hub.facts(agents={})))
    world.link("hub", "studio")
    world.pass_ms(1_000)
    task = hub.submit(agent=["shell"], do="sleep 60")
    assert machine_of(world, task) == "studio"
    world.frozen.add("studio")
    world.pass_ms(4 * LEASE_MS)
    assert (hub.task(task)["state"], hub.task(task)["losses"]) == ("queued", 1)
    world.frozen.clear()
    world.pass_ms(10_000)
    stops = [e for e in world["studio"].effects if isinstance(e, ev.StopAttempt)]
    for stop in stops[:1]:
        world["studio"].step(ev.AttemptEnded(stop.task, stop.epoch, "killed"))
    world.pass_ms(10_000)
    assert hub.task(task)["state"] == "leased"
    assert hub.task(task)["losses"] == 1
