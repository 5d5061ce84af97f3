"""What the proxy of a sandbox costs beside a direct connection on the same loopback.

Server and client are processes of their own, the proxy runs in the loop of this one.
The two ways take turns; a figure is the median of the ratios of the turns.
"""

import asyncio
import socket
import statistics
import sys
from collections.abc import Sequence

from tests.agent.egress import hellos

from bench.figure import Figure, p50, ratio
from muster.agent.egress import Proxy, Rules
from muster.agent.egress.way import READ_BYTES, Ends

_PEER = "bench.egress_peer"
_HELLO = hellos.hello("site.test").hex()


async def _fetch(port: int, size: int, times: int, proxy: int | None) -> list[float]:
    given = [str(each) for each in (port, size, times, _HELLO, proxy) if each is not None]
    run = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _PEER, "fetch", *given, stdout=asyncio.subprocess.PIPE
    )
    said, _ = await run.communicate()
    assert run.returncode == 0
    return [float(each) for each in said.split()]


async def run(*, short: bool) -> list[Figure]:
    """Throughput of a large download, and how much longer a small one takes."""
    site = await asyncio.create_subprocess_exec(
        sys.executable, "-m", _PEER, "serve", stdout=asyncio.subprocess.PIPE
    )
    assert site.stdout is not None
    port = int(await site.stdout.readline())

    async def resolve(_host: str, _port: int) -> Sequence[str]:
        return ["198.41.0.4"]

    async def connect(_address: str, _port: int) -> Ends:
        return await asyncio.open_connection("127.0.0.1", port, limit=READ_BYTES)

    rules = Rules.read(["site.test"])
    proxy = Proxy(rules, lambda _: None, resolve=resolve, connect=connect)
    listening = socket.create_server(("127.0.0.1", 0))
    through = listening.getsockname()[1]
    await proxy.serve(listening)
    size, rounds, small = 2**28 if short else 2**29, 3 if short else 7, 200 if short else 500
    large_s: tuple[list[float], list[float]] = ([], [])
    small_s: tuple[list[float], list[float]] = ([], [])
    try:
        for _ in range(rounds):
            for way, into, each in ((None, 0, small_s), (through, 1, small_s)):
                each[into].append(p50(await _fetch(port, 1000, small, way)))
            for way, into, each in ((None, 0, large_s), (through, 1, large_s)):
                each[into].append((await _fetch(port, size, 1, way))[0])
    finally:
        await proxy.close()
        site.kill()
        await site.wait()
    mib = size / 2**20
    rates = [mib / statistics.median(each) for each in (large_s[1], large_s[0])]
    large_raw = f"{rates[0]:,.0f} MiB/s through it, {rates[1]:,.0f} MiB/s directly"
    ms = [1000 * statistics.median(each) for each in (small_s[1], small_s[0])]
    small_raw = f"{ms[0]:.2f} ms through it, {ms[1]:.2f} ms directly"
    share, beside = ratio(large_s[0], large_s[1]), ratio(small_s[1], small_s[0])
    return [
        Figure("download through the egress proxy, of direct", share, 0.1, large_raw, upper=False),
        Figure("connection and 1 kB through it, beside direct", beside, 15, small_raw),
    ]
