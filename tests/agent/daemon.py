"""A stand-in for the daemon: starts one attempt and waits; the test kills it.

usage: daemon.py ORDER_JSON
"""

import asyncio
import sys

import msgspec

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.process import Runner


async def main(raw):
    order = msgspec.json.decode(raw, type=AttemptOrder)
    attempt = await Runner(Discovery(load())).start(order, lambda _event: None)
    await attempt.wait()


asyncio.run(main(sys.argv[1]))
