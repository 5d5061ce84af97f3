"""A verb of another machine, asked by what runs outside of the core, and its one answer.

Rule 1: it is answered within a bound: a machine that is away, or says nothing, is `Unreachable`.
Rule 2: nothing is kept of it when nobody waits for the answer any more.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from muster.errors import Unreachable
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.link import Answer, failure
from muster.node.runtime import Runtime

# Chosen arbitrarily; a machine that is up answers within a step. What looks at an origin first has
# less time for that (`GIT_FOLLOW_WAIT_MS_MAX`), so that it still says how that went.
ANSWER_S: Final = 30.0


async def ask(daemon: Runtime, machine: str, verb: str, args: Mapping[str, Any]) -> Answer:
    """What a machine says, or why it says nothing."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[Answer] = loop.create_future()
    forget = daemon.core.part(Router).ask(
        machine, verb, args, lambda answer: None if future.done() else future.set_result(answer)
    )
    daemon.post(ev.Tick())
    try:
        async with asyncio.timeout(ANSWER_S):
            return await future
    except TimeoutError:
        name = daemon.core.membership.name_of(machine)
        return failure(Unreachable(f"{name} gave no answer within {ANSWER_S:.0f} s"))
    finally:
        forget()
