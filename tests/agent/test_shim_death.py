"""A shim that is killed before it could read its order."""

import asyncio

import pytest
import uvloop
from tests.promise import proves

from muster import child_process
from muster.agent.catalogue import BUILT_IN
from muster.agent.discovery import Discovery
from muster.agent.process import Runner

LOOPS = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@proves("agent.shim-dies-early")
@pytest.mark.parametrize("loop", LOOPS)
def test_a_shim_that_dies_before_it_has_its_order_gives_an_outcome(world, monkeypatch, loop):
    """Whichever loop runs: the pipe may be closed under the daemon while it writes."""
    plain = child_process.start

    async def dead(*argv, **options):
        shim = await plain("false", **options)
        await shim.wait()
        shim.stdin.close()
        return shim

    monkeypatch.setattr(child_process, "start", dead)

    async def attempt():
        running = await Runner(Discovery(BUILT_IN)).start(
            world.order("echo never"), world.events.append
        )
        return await running.wait()

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        outcome = runner.run(attempt())
    assert outcome.status == "error"
    assert "the shim of the attempt died" in outcome.summary
