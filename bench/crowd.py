"""What a message costs in a large fleet: beside a small one in one process, and with real daemons.

In one process every machine is a real core, the hub linked to each of the others and those to each
other through it, so that frames and processor time can be counted to the byte; time is virtual.
"""

import asyncio
import json
import time
from collections import Counter

from tests.node.cores import Cores, One

from bench import crowd_floor
from bench.figure import Figure, p50, p99
from bench.fleet import Fleet
from bench.machine import send_capability
from muster.node import event as ev
from muster.node.call.authorize import Authorizer

SMALL, LARGE, DAEMONS = 5, 40, 30
MESSAGES, GAP_MS = 40, 200
REAL_MESSAGES, REAL_GAP_S = 20, 0.25
SECRET = b"bench-of-crowds".ljust(32)


class Counted(Cores):
    """Cores whose frames and processor time are counted."""

    def __init__(self, machines: int) -> None:
        self.frames: Counter[str] = Counter()
        self.cpu_s = 0.0
        super().__init__(*(f"m{number}" for number in range(machines)))
        names = list(self.machines)
        for name in names[1:]:
            self.link(names[0], name)
        self.token, capability = send_capability(SECRET)
        self["m0"].core.part(Authorizer).allow_agent(capability)
        self.pass_ms(10_000)

    def carry_out(self, machine: One, effects: list[ev.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ev.Send) and (machine.name, effect.link) in self._links:
                self.frames["bytes"] += len(effect.frame)
        super().carry_out(machine, effects)

    def send(self, to: str, text: str) -> None:
        call = {"args": {"text": [text], "to": to}, "capability": self.token, "verb": "send"}
        answer = self["m0"].raw(json.dumps(call, separators=(",", ":"), sort_keys=True).encode())
        assert answer is not None
        assert answer["ok"], answer

    def cost(self, to: str) -> tuple[float, float]:
        """Bytes on all links and processor milliseconds of all machines, for one message."""
        self.send(to, "the first of its stream")
        self.pass_ms(120_000)
        self.frames.clear()
        began = time.process_time()
        for number in range(MESSAGES):
            self.send(to, f"message {number}")
            self.pass_ms(GAP_MS)
        self.pass_ms(1_000)
        busy_s = time.process_time() - began
        began = time.process_time()
        # What the same time costs in which nothing is said.
        self.pass_ms(MESSAGES * GAP_MS + 1_000)
        quiet_s = time.process_time() - began
        return self.frames["bytes"] / MESSAGES, (busy_s - quiet_s) * 1000 / MESSAGES


def in_one_process() -> list[Figure]:
    small, large = Counted(SMALL), Counted(LARGE)
    found = []
    for to, promise in (("m1", 2.0), ("all", 2.0 * LARGE / SMALL)):
        few, many = small.cost(to), large.cost(to)
        for what, a, b, unit in (("bytes", few[0], many[0], "B"), ("CPU", few[1], many[1], "ms")):
            name = f"{what} of a message to {to}, {LARGE} machines / {SMALL}"
            found.append(Figure(name, b / a, promise, f"{b:,.1f} / {a:,.1f} {unit}"))
    return found


async def with_daemons(machines: int) -> list[Figure]:
    floor_ms = await crowd_floor.measure(machines - 1)
    with Fleet(machines) as fleet:
        caller = await fleet.caller()
        found = []
        for to, promise in (("all", 60.0), ("m1", 60.0)):
            times = []
            before = sum(map(fleet.cpu_s, range(machines)))
            for number in range(REAL_MESSAGES):
                args = {"text": f"message {number}", "to": to, "wait": True}
                call = caller.asked("send", args)
                began = time.perf_counter()
                await caller.begin(call)
                times.append((time.perf_counter() - began) * 1000)
                await asyncio.sleep(REAL_GAP_S)
            cpu_ms = (sum(map(fleet.cpu_s, range(machines))) - before) * 1000 / REAL_MESSAGES
            name = f"one message to {to}, {machines} daemons"
            raw = f"p99 {p99(times):.0f} ms, CPU of all {cpu_ms:.0f} ms each"
            if to == "all":
                raw += f", floor {floor_ms:.0f} ms"
            found.append(Figure(name, p50(times), promise, raw, unit="ms"))
        return found


async def run(*, short: bool) -> list[Figure]:
    return [*in_one_process(), *await with_daemons(DAEMONS // 3 if short else DAEMONS)]
