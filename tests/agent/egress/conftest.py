"""Each scenario runs in the loop of the daemon, and in that of Python."""

import asyncio

import pytest
import uvloop


@pytest.fixture(params=["asyncio", "uvloop"])
def run(request):
    """Runs a scenario in either loop; what went wrong in it unheard fails the test."""

    def run_(scenario):
        unheard = []

        async def heard():
            asyncio.get_running_loop().set_exception_handler(
                lambda _, context: unheard.append(context)
            )
            await asyncio.wait_for(scenario, 40)

        (uvloop.run if request.param == "uvloop" else asyncio.run)(heard())
        assert unheard == []

    return run_
