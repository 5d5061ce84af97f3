"""What an owner decides, event by event."""

from tests.promise import proves
from tests.task.world import BUILD, World, machine, of, order

from muster.task import kinds
from muster.task.instruction import Settled


@proves("task.settles-once")
def test_a_task_is_assigned_finished_and_settled():
    world = World(machine(BUILD))
    out = world.submit(order("t1"))
    assert [type(b).__name__ for b in of(out, kinds.Body)] == ["TaskOpen", "TaskAssign"]
    out = world.finish("t1", summary="all green")
    assert of(out, kinds.TaskSettle)[0].outcome == "done"
    assert of(out, Settled)[0].summary == "all green"
    assert world.stream.task("t1").state == "done"
