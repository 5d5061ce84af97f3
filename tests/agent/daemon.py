"""A stand-in for the daemon: starts one attempt and waits; the test kills it.

usage: daemon.py ORDER_JSON [FOLDER_OF_MARKS]
"""

import asyncio
import sys
from pathlib import Path

import msgspec

from muster.agent.base import AttemptOrder
from muster.agent.catalogue import load
from muster.agent.discovery import Discovery
from muster.agent.marks import Marks
from muster.agent.process import Runner


async def main(raw, *marks):
    order = msgspec.json.decode(raw, type=AttemptOrder)
    attempt = await Runner(Discovery(load()), *map(Marks, map(Path, marks))).start(
        order, lambda _event: None
    )
    await attempt.wait()


asyncio.run(main(*sys.argv[1:]))
