"""Message to *held* receipt between two daemons, beside JetStream with `sync_interval: always`.

Ours: a program on the first daemon's socket calls `send` with `wait`, each call with an operator's
statement of its own (signed before the clock starts). The first daemon checks it, writes the order
and the message, seals and commits with fsync; the entries cross mutual TLS; the second daemon
checks, stores and folds them and commits with fsync; its signed receipt comes back, is stored with
fsync, and only then the program hears that the message is stored.

Theirs: a program publishes to a file stream (fsync at the server), a second process consumes it,
acknowledges with `ack_sync`, and tells the first one. One durable copy against our two.

Both programs run under uvloop; both bodies have about 300 bytes; all over loopback.
"""

import asyncio
import secrets
import time
from collections.abc import Sequence

from bench.figure import Figure, p50, p99, ratio
from bench.fleet import Caller, Fleet
from bench.jetstream import JetStream

CALLERS = 64
TEXT = "The quick brown fox jumps over the lazy dog and then it rests. " * 4
GAP_S = 0.002


def prepared(caller: Caller, count: int) -> list[bytes]:
    """Calls, each with its statement."""
    found = []
    for _ in range(count):
        args = {"text": TEXT[:220] + secrets.token_hex(8), "to": "m1", "wait": True}
        found.append(caller.ordered("send", "m1", args))
    return found


async def idle(caller: Caller, count: int) -> list[float]:
    """Milliseconds from the call to the receipt, one call at a time."""
    times = []
    for call in prepared(caller, count):
        await asyncio.sleep(GAP_S)
        start = time.perf_counter()
        await caller.begin(call)
        times.append((time.perf_counter() - start) * 1000)
    return times


async def busy(caller: Caller, count: int) -> float:
    """Messages per second, receipted, with 64 calls open at any time."""
    calls = prepared(caller, count)

    async def one(number: int) -> None:
        for call in calls[number::CALLERS]:
            await caller.begin(call)

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(CALLERS)))
    return count / (time.perf_counter() - start)


async def measure(*, rounds: int, calls: int, many: int) -> list[Figure]:
    with Fleet(2) as fleet, JetStream() as peer:
        caller = await fleet.caller()
        await peer.connect()
        await idle(caller, 50)
        await peer.idle(50)
        await busy(caller, 512)
        await peer.busy(512)
        ours: list[list[float]] = []
        theirs: list[list[float]] = []
        our_rates, their_rates = [], []
        for _ in range(rounds):
            theirs.append(await peer.idle(calls))
            ours.append(await idle(caller, calls))
        for _ in range(rounds):
            their_rates.append(await peer.busy(many // 4))
            our_rates.append(await busy(caller, many))
        await peer.close()
        caller.close()
    return [_latency(ours, theirs), _throughput(our_rates, their_rates)]


def _latency(ours: Sequence[Sequence[float]], theirs: Sequence[Sequence[float]]) -> Figure:
    mine, other = [t for r in ours for t in r], [t for r in theirs for t in r]
    return Figure(
        "message to held receipt, idle p50 / JetStream",
        ratio([p50(r) for r in ours], [p50(r) for r in theirs]),
        1.3,
        f"ours p50 {p50(mine):.2f} p99 {p99(mine):.1f} ms; theirs p50 {p50(other):.2f} "
        f"p99 {p99(other):.1f} ms",
        target=1.0,
    )


def _throughput(ours: Sequence[float], theirs: Sequence[float]) -> Figure:
    return Figure(
        "messages receipted, 64 callers / JetStream",
        ratio(ours, theirs),
        5.0,
        f"ours {p50(ours):,.0f}/s; theirs {p50(theirs):,.0f}/s",
        upper=False,
    )


async def run(*, short: bool) -> list[Figure]:
    if short:
        return await measure(rounds=3, calls=100, many=2048)
    return await measure(rounds=7, calls=300, many=8192)
