"""Message to *held* receipt between two daemons, beside JetStream with `sync_interval: always`.

Ours: an agent on the first daemon's socket calls `send` with `wait` and its capability. The first
daemon checks it, writes the message, seals and commits with fsync; the entry crosses mutual TLS;
the second daemon checks, stores and folds it and commits with fsync; its signed receipt comes back
and is checked, and only then the agent hears that the message is stored.

The second row of each is an operator's: each call has a statement of its own (signed before the
clock starts), which is checked and spent by an entry: an ed25519 verification more per message.

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


def prepared(caller: Caller, count: int, *, operator: bool) -> list[bytes]:
    """Calls of an agent with its capability, or of an operator, each with a statement."""
    found = []
    for _ in range(count):
        args = {"text": TEXT[:220] + secrets.token_hex(8), "to": "m1", "wait": True}
        found.append(caller.ordered("send", "m1", args) if operator else caller.asked("send", args))
    return found


async def idle(caller: Caller, count: int, *, operator: bool = False) -> list[float]:
    """Milliseconds from the call to the receipt, one call at a time."""
    times = []
    for call in prepared(caller, count, operator=operator):
        await asyncio.sleep(GAP_S)
        start = time.perf_counter()
        await caller.begin(call)
        times.append((time.perf_counter() - start) * 1000)
    return times


async def busy(caller: Caller, count: int, *, operator: bool = False) -> float:
    """Messages per second, receipted, with 64 calls open at any time."""
    calls = prepared(caller, count, operator=operator)

    async def one(number: int) -> None:
        for call in calls[number::CALLERS]:
            await caller.begin(call)

    start = time.perf_counter()
    await asyncio.gather(*(one(number) for number in range(CALLERS)))
    return count / (time.perf_counter() - start)


class Seen:
    """What one way of sending was measured to take; `cost` is processor time of the daemons."""

    def __init__(self, *, operator: bool) -> None:
        self.operator = operator
        self.times: list[list[float]] = []
        self.rates: list[float] = []
        self.cost = [0.0, 0.0]

    async def idle(self, caller: Caller, count: int) -> None:
        self.times.append(await idle(caller, count, operator=self.operator))

    async def busy(self, caller: Caller, count: int) -> None:
        before = [caller.fleet.cpu_s(n) for n in (0, 1)]
        self.rates.append(await busy(caller, count, operator=self.operator))
        spent = [caller.fleet.cpu_s(n) - b for n, b in enumerate(before)]
        self.cost = [s / count * 1e6 for s in spent]


async def measure(*, rounds: int, calls: int, many: int) -> list[Figure]:
    ways = [Seen(operator=False), Seen(operator=True)]
    with Fleet(2) as fleet, JetStream() as peer:
        caller = await fleet.caller()
        await peer.connect()
        await peer.idle(50)
        await peer.busy(512)
        for way in ways:
            await idle(caller, 50, operator=way.operator)
            await busy(caller, 512, operator=way.operator)
        theirs: list[list[float]] = []
        their_rates = []
        for _ in range(rounds):
            theirs.append(await peer.idle(calls))
            for way in ways:
                await way.idle(caller, calls)
        for _ in range(rounds):
            their_rates.append(await peer.busy(many // 4))
            for way in ways:
                await way.busy(caller, many)
        await peer.close()
        caller.close()
    found = []
    for way in ways:
        found += [_latency(way, theirs), _throughput(way, their_rates)]
    return found


def _latency(way: Seen, theirs: Sequence[Sequence[float]]) -> Figure:
    mine, other = [t for r in way.times for t in r], [t for r in theirs for t in r]
    return Figure(
        f"{_name(way)} to held receipt, idle p50 / JetStream",
        ratio([p50(r) for r in way.times], [p50(r) for r in theirs]),
        1.3,
        f"ours p50 {p50(mine):.2f} p99 {p99(mine):.1f} ms; theirs p50 {p50(other):.2f} "
        f"p99 {p99(other):.1f} ms",
        target=1.0,
    )


def _throughput(way: Seen, theirs: Sequence[float]) -> Figure:
    here, there = way.cost
    return Figure(
        f"{_name(way)}s receipted, 64 callers / JetStream",
        ratio(way.rates, theirs),
        5.0,
        f"ours {p50(way.rates):,.0f}/s ({here:.0f} + {there:.0f} us each); "
        f"theirs {p50(theirs):,.0f}/s",
        upper=False,
    )


def _name(way: Seen) -> str:
    return "operator's message" if way.operator else "message"


async def run(*, short: bool) -> list[Figure]:
    if short:
        return await measure(rounds=3, calls=100, many=2048)
    return await measure(rounds=7, calls=300, many=8192)
