"""Message to *held* receipt between two daemons, beside JetStream with `sync_interval: always`.

Ours: an agent on the first daemon's socket calls `send` with `wait` and its capability. The first
daemon checks it, writes the message, seals and commits with fsync; the entry crosses mutual TLS;
the second daemon checks, stores and folds it and commits with fsync; its signed receipt comes back
and is checked, and only then the agent hears that the message is stored.

The second row of each is an operator's: each call has a statement of its own (signed before the
clock starts), which is checked and spent by an entry: an ed25519 verification more per message.

Theirs: a program publishes to a file stream (fsync at the server), a second process consumes it,
acknowledges with `ack_sync`, and tells the first one. R1 has one durable copy against our two, R3
has three, and hears of it when two are durable: that is like with like.

Out of reach, whatever our code costs: the same way in Python with nothing in it but TLS, two
commits, two signatures and two checks takes 1.1 times R1 idle, and does 4.6 times its rate.

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
_IDLE_MAX = {"R1": 2.0, "R3": 0.7}
_RATE_MIN = {"R1": 5.0, "R3": 1.0}


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
        self.cost, self.idle_cost = [0.0, 0.0], [0.0, 0.0]

    async def idle(self, caller: Caller, count: int) -> None:
        before = [caller.fleet.cpu_s(n) for n in (0, 1)]
        self.times.append(await idle(caller, count, operator=self.operator))
        spent = [caller.fleet.cpu_s(n) - b for n, b in enumerate(before)]
        self.idle_cost = [s / count * 1e6 for s in spent]

    async def busy(self, caller: Caller, count: int) -> None:
        before = [caller.fleet.cpu_s(n) for n in (0, 1)]
        self.rates.append(await busy(caller, count, operator=self.operator))
        spent = [caller.fleet.cpu_s(n) - b for n, b in enumerate(before)]
        self.cost = [s / count * 1e6 for s in spent]


async def measure(*, rounds: int, calls: int, many: int) -> list[Figure]:
    ways = [Seen(operator=False), Seen(operator=True)]
    with Fleet(2) as fleet, JetStream() as one, JetStream(3) as three:
        caller = await fleet.caller()
        peers = {"R1": one, "R3": three}
        for peer in peers.values():
            await peer.connect()
            await peer.idle(50)
            await peer.busy(512)
        for way in ways:
            await idle(caller, 50, operator=way.operator)
            await busy(caller, 512, operator=way.operator)
        theirs: dict[str, list[list[float]]] = {name: [] for name in peers}
        rates: dict[str, list[float]] = {name: [] for name in peers}
        for _ in range(rounds):
            for name, peer in peers.items():
                theirs[name].append(await peer.idle(calls))
            for way in ways:
                await way.idle(caller, calls)
        for _ in range(rounds):
            for name, peer in peers.items():
                rates[name].append(await peer.busy(many // 4))
            for way in ways:
                await way.busy(caller, many)
        for peer in peers.values():
            await peer.close()
        caller.close()
    found = []
    for way in ways:
        found += [_latency(way, name, theirs[name]) for name in peers]
        found += [_throughput(way, name, rates[name]) for name in peers]
    return found


def _latency(way: Seen, peer: str, theirs: Sequence[Sequence[float]]) -> Figure:
    mine, other = [t for r in way.times for t in r], [t for r in theirs for t in r]
    return Figure(
        f"{_name(way)} to held receipt, idle p50 / JetStream {peer}",
        ratio([p50(r) for r in way.times], [p50(r) for r in theirs]),
        _IDLE_MAX[peer],
        f"ours p50 {p50(mine):.2f} p99 {p99(mine):.1f} ms; theirs p50 {p50(other):.2f} "
        f"p99 {p99(other):.1f} ms; CPU {way.idle_cost[0]:.0f} + {way.idle_cost[1]:.0f} us each",
    )


def _throughput(way: Seen, peer: str, theirs: Sequence[float]) -> Figure:
    here, there = way.cost
    return Figure(
        f"{_name(way)}s receipted, 64 callers / JetStream {peer}",
        ratio(way.rates, theirs),
        _RATE_MIN[peer],
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
