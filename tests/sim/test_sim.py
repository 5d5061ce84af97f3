"""The whole fleet under seeds: what every change must survive."""

from tests.promise import proves
from tests.sim.faults import PEACE
from tests.sim.world import World


@proves("sim.peace-converges")
def test_in_peace_every_machine_holds_the_same_streams_and_every_task_settles():
    world = World(1, PEACE)
    try:
        world.run()
        assert len(world.workload.tasks) == PEACE.tasks
        assert len(world.workload.messages) == PEACE.messages
    finally:
        world.close()
