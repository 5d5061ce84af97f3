"""What a machine costs in a fleet of N: `python -m bench.scale --daemons N` or `--cores N`.

Real daemons on this computer are linked by mutual TLS, each with each. What they send is counted as
packets of the loopback of this network namespace, so run it in one of its own: `make crowd N=100`.
Cores are the same machines without processes, links and disks, in one process and virtual time; the
hub is linked to each of the others, or with `--mesh` each to each.
"""

import argparse
import asyncio
import gc
import json
import os
import time
from collections import Counter
from pathlib import Path

import uvloop
from tests.node.cores import Cores, One

from bench.figure import p50, p99
from bench.fleet import Caller, Fleet
from bench.machine import send_capability
from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.node import event as ev
from muster.node.call.authorize import Authorizer

MESSAGES, GAP_S = 20, 1.0
MINUTE_MS, HOUR_S = 60_000, 3600
SECRET = b"bench-of-crowds".ljust(32)
# What a start brings is over when all of them together use so much of a core, or after so long.
QUIET_SHARE, QUIET_S, SETTLED_S = 0.35, 10, 600


def sent_bytes() -> int:
    """Bytes that went over the loopback, with the heads of their packets."""
    lines = Path("/proc/net/dev").read_text().splitlines()
    (line,) = [line for line in lines if line.strip().startswith("lo:")]
    return int(line.split(":")[1].split()[8])


def resident_mb(process: int) -> float:
    """Memory of a process that is in use, what it shares with others counted in part."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) / 1024


class Busy:
    """What a fleet of daemons used and sent since the last look."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.look()

    def look(self) -> tuple[float, float, float, int]:
        """Seconds since then; processor seconds of the hub, and of all; bytes."""
        fleet, now = self.fleet, time.monotonic()
        each = [fleet.cpu_s(number) for number in range(fleet.machines)]
        seen = (now, each[0], sum(each), sent_bytes())
        before, self._seen = getattr(self, "_seen", seen), seen
        return tuple(a - b for a, b in zip(seen, before, strict=True))


async def with_daemons(machines: int, rest_s: int) -> None:
    began = time.monotonic()
    with Fleet(machines) as fleet:
        caller = await fleet.caller()
        print(f"{machines} daemons, together after {time.monotonic() - began:.0f} s", flush=True)
        busy, until = Busy(fleet), time.monotonic() + SETTLED_S
        while time.monotonic() < until:
            await asyncio.sleep(QUIET_S)
            passed_s, hub_s, all_s, sent = busy.look()
            if all_s / passed_s < QUIET_SHARE:
                break
        said = f"all use {all_s / passed_s:.2f} of a core, {sent / passed_s / 1e3:.0f} KB a second"
        print(f"after {time.monotonic() - began:.0f} s {said}", flush=True)
        busy.look()
        await asyncio.sleep(rest_s)
        _tell("at rest", machines, busy.look())
        for to in ("all", "m1"):
            times = await _messages(caller, to, busy)
            used = busy.look()
            _tell(f"one message a second to {to}", machines, used)
            _, hub_s, all_s, sent = used
            print(
                f"  one record to {to}, receipts of all whom it is for: p50 {p50(times):.0f} ms, "
                f"p99 {p99(times):.0f} ms; CPU of the hub {hub_s * 1000 / len(times):.0f} ms, of "
                f"all {all_s * 1000 / len(times):.0f} ms; {sent / len(times) / 1e3:.0f} KB each",
                flush=True,
            )
        memory = [resident_mb(daemon.pid) for daemon in fleet.daemons]
        print(f"  memory: hub {memory[0]:.0f} MB, others {p50(memory[1:]):.0f} MB (median)")


async def _messages(caller: Caller, to: str, busy: Busy) -> list[float]:
    # The first one opens a stream, which costs more than those that follow.
    first = {"text": "the first of its stream", "to": to, "wait": True}
    await caller.begin(caller.asked("send", first))
    busy.look()
    times = []
    for number in range(MESSAGES):
        began = time.monotonic()
        args = {"text": f"message {number}", "to": to, "wait": True}
        await caller.begin(caller.asked("send", args))
        took_s = time.monotonic() - began
        times.append(took_s * 1000)
        await asyncio.sleep(max(0.0, GAP_S - took_s))
    return times


def _tell(what: str, machines: int, used: tuple[float, float, float, int]) -> None:
    passed_s, hub_s, all_s, sent = used
    share, each = hub_s / passed_s * 100, all_s / passed_s / machines * 100
    hourly_kb = sent / passed_s * HOUR_S / machines / 1e3
    print(
        f"  {what}: hub {share:.1f} % of a core, each {each:.2f} %; "
        f"{hourly_kb:,.0f} KB per machine and hour",
        flush=True,
    )


class Counted(Cores):
    """Cores whose frames are counted by what they say."""

    def __init__(self, machines: int, *, mesh: bool) -> None:
        self.bytes: Counter[str] = Counter()
        super().__init__(*(f"m{number}" for number in range(machines)))
        self.token, capability = send_capability(SECRET)
        names = list(self.machines)
        self["m0"].core.part(Authorizer).allow_agent(capability)
        for name in names[1:]:
            self.link(names[0], name)
        self.pass_ms(10_000)
        for number, name in enumerate(names[1:] if mesh else (), 2):
            for other in names[number:]:
                self.link(name, other)
        self.pass_ms(10_000)

    def introduced(self, to: One) -> list[One]:
        """As where machines joined: the hub recorded all, and the others know the hub."""
        return super().introduced(to) if to.number == 0 else [self["m0"]]

    def carry_out(self, machine: One, effects: list[ev.Effect]) -> None:
        for effect in effects:
            if isinstance(effect, ev.Send) and (machine.name, effect.link) in self._links:
                frame = frames.decode(effect.frame)
                said = frame.type.name.lower()
                if frame.type is Type.OFFER:
                    said = json.loads(frame.payload)["type"]
                self.bytes[said] += len(effect.frame)
        super().carry_out(machine, effects)

    def minutes(self, what: str, count: int, to: str = "") -> None:
        """So many minutes pass, with a message every three seconds where it is said to whom."""
        self.bytes.clear()
        began = time.process_time()
        for number in range(20 * count):
            if to:
                call = {"args": {"text": [f"message {number}"], "to": to}, "verb": "send"}
                call["capability"] = self.token
                raw = json.dumps(call, separators=(",", ":"), sort_keys=True).encode()
                answer = self["m0"].raw(raw)
                assert answer is not None
                assert answer["ok"], answer
            self.pass_ms(MINUTE_MS // 20)
        cpu_s = (time.process_time() - began) / count
        total, machines = sum(self.bytes.values()) / count, len(self.machines)
        parts = ", ".join(f"{k} {v / count / 1e3:.1f}" for k, v in self.bytes.most_common(5))
        print(
            f"  {what}: {total / 1e3:,.1f} KB a minute ({parts}); "
            f"{total * 60 / machines / 1e3:,.0f} KB per machine and hour; "
            f"CPU of all {cpu_s:.1f} s a minute",
            flush=True,
        )


def in_one_process(machines: int, *, mesh: bool) -> None:
    pages = os.sysconf("SC_PAGE_SIZE") / 1e6
    before = int(Path("/proc/self/statm").read_text().split()[1]) * pages
    began = time.process_time()
    cores = Counted(machines, mesh=mesh)
    gc.collect()
    each = (int(Path("/proc/self/statm").read_text().split()[1]) * pages - before) / machines
    shape, sent = "mesh" if mesh else "star", sum(cores.bytes.values()) / 1e6
    print(
        f"{machines} cores, {shape}: {each:.1f} MB each; the start said {sent:.1f} MB and took "
        f"{time.process_time() - began:.0f} s of CPU",
        flush=True,
    )
    cores.pass_ms(2 * MINUTE_MS)
    cores.minutes("at rest", 2)
    cores.minutes("20 messages a minute to m1", 1, "m1")
    cores.minutes("20 messages a minute to all", 1, "all")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.scale", description=__doc__)
    parser.add_argument("--daemons", type=int, default=0, help="so many real daemons")
    parser.add_argument("--rest", type=int, default=120, help="seconds that they rest")
    parser.add_argument("--cores", type=int, default=0, help="so many cores in this process")
    parser.add_argument("--mesh", action="store_true", help="cores each linked to each")
    given = parser.parse_args()
    print(f"{os.cpu_count()} processors, load {os.getloadavg()[0]:.1f}", flush=True)
    if given.cores:
        in_one_process(given.cores, mesh=given.mesh)
    if given.daemons:
        uvloop.run(with_daemons(given.daemons, given.rest))


if __name__ == "__main__":
    main()
