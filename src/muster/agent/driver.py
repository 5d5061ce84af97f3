"""The program that the shim starts to talk with a protocol agent.

Standard input and output are those of the shim (see shim.py): the order first, then answers and
a cancel; out go events and one outcome.
"""

import asyncio

from muster.agent import acp
from muster.agent.wire import Line


async def drive() -> None:
    line = await Line.open()
    order = await line.hear()
    if order is None:
        return
    line.close(await acp.attempt(order, line))


def main() -> None:
    asyncio.run(drive())
