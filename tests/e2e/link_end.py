"""One end of a link in its own process, for test_link_cut: prints what it sees, a line each.

usage: python -m tests.e2e.link_end listen|dial ADDRESS idle|busy
"""

import asyncio
import random
import sys

from muster.channel.backoff import Backoff
from muster.channel.base import Link
from muster.channel.http import HttpChannel, Timing
from muster.errors import MusterError, Unreachable
from tests.channel.authority import TestAuthority

# The product's bounds, ten times as fast; the relation between them is what is tested.
TIMING = Timing(keepalive_interval_s=1.0, keepalive_timeout_s=2.0, handshake_s=1.0, close_s=0.5)


def report(word: str) -> None:
    print(f"{asyncio.get_running_loop().time():.3f} {word}", flush=True)


async def use(link: Link, load: str) -> None:
    """Use a link until it is gone."""
    report("up")

    async def push() -> None:
        while True:
            await link.send(bytes(100_000))

    pushing = asyncio.create_task(push()) if load == "busy" else None
    try:
        while True:
            await link.receive()
    except Unreachable:
        report("lost")
    finally:
        if pushing is not None:
            pushing.cancel()
            await asyncio.wait([pushing])
            if not pushing.cancelled():
                pushing.exception()


async def dial(channel: HttpChannel, address: str, load: str) -> None:
    loop = asyncio.get_running_loop()
    backoff = Backoff(random.Random(1).random)
    while True:
        opened = loop.time()
        try:
            link = await channel.dial(address)
            await use(link, load)
            await link.close("lost")
            pause_ms = backoff.lost(int((loop.time() - opened) * 1000))
        except MusterError:
            pause_ms = backoff.failed()
        await asyncio.sleep(pause_ms / 1000)


async def listen(channel: HttpChannel, address: str, load: str) -> None:
    listener = await channel.listen(address, lambda link: use(link, load))
    report("listening")
    await asyncio.Event().wait()
    await listener.close()


def main(role: str, address: str, load: str) -> None:
    # Both processes know the one fleet from its label; leaf keys are as good as their issuer.
    authority = TestAuthority("fleet")
    _, credentials = authority.issue(role)
    channel = HttpChannel(credentials, lambda _: "the other end", TIMING)
    asyncio.run((listen if role == "listen" else dial)(channel, address, load))


if __name__ == "__main__":
    main(*sys.argv[1:])
