"""Noop tasks between real daemons: one at a time, a thousand at once, and a graph.

The hub owns the tasks and works on none: their template needs the label `worker`, which the two
other daemons have. Every task has an operator's statement of its own, signed before the clock
starts; the hub checks it and opens the task, a worker checks the whole chain again, and each step
(open, assign, start, finish, settle) is an entry, sealed, committed with fsync, replicated over
mutual TLS. `submit` with `wait` answers when all are settled.

The graph is ten layers of ten phases, each phase after all of the layer before, handed in as one
signed spec with `run` and followed with `watch`; the spec is JSON, as a program writes it, and in
the second figure YAML, whose reader takes most of a tenth of a second on each machine.

The peer is Huey on SQLite with fsync: two worker processes, results awaited, the same graph as a
chord per layer. It signs and replicates nothing, and delivers at most once.
"""

import asyncio
import json
import secrets
import time
from typing import Any, Final

from bench.figure import Figure, p50, p99, ratio
from bench.fleet import Caller, Fleet
from bench.huey_peer import Huey
from bench.message import idle as messages
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen

TEMPLATE: Final[dict[str, Any]] = {
    "v": 1,
    "agent": ["noop"],
    "do": "{}",
    "needs": {"label": "worker"},
}
GAP_S = 0.005
CALL_TASKS = 200
LAYERS = 10


def prepared(caller: Caller, count: int) -> list[bytes]:
    """Calls that submit so many tasks and wait for them all; a call fits into one frame."""
    calls = []
    for first in range(0, count, CALL_TASKS):
        tasks = []
        for _ in range(min(CALL_TASKS, count - first)):
            opened = TaskOpen(task=secrets.token_hex(16), template=TEMPLATE)
            statement = caller.fleet.statement("task", opened.task, task_args(opened))
            tasks.append({"task": opened.task, "template": TEMPLATE, "statement": statement})
        calls.append(caller.prepare("submit", {"tasks": tasks, "wait": True}))
    return calls


def spec(name: str, *, yaml: bool) -> str:
    """Ten layers of ten phases, as a person or as a program writes them."""
    return _yaml(name) if yaml else json.dumps(_phases(name), separators=(",", ":"))


def _phases(name: str) -> dict[str, Any]:
    phases: dict[str, Any] = {}
    for layer in range(LAYERS):
        for number in range(10):
            phase = {"agent": "noop", "do": "{}", "needs": {"label": "worker"}, "check": "true"}
            after = [f"p{layer - 1}x{n}" for n in range(10)] if layer else []
            phases[f"p{layer}x{number}"] = {**phase, **({"after": after} if after else {})}
    return {"muster": 1, "name": name, "phases": phases}


def _yaml(name: str) -> str:
    lines = ["muster: 1", f"name: {name}", "phases:"]
    for layer in range(LAYERS):
        after = ", ".join(f"p{layer - 1}x{n}" for n in range(10)) if layer else ""
        for number in range(10):
            lines += [f"  p{layer}x{number}:", "    agent: noop", '    do: "{}"']
            lines += ["    needs: {label: worker}", '    check: "true"']
            if after:
                lines.append(f"    after: [{after}]")
    return "\n".join(lines) + "\n"


async def submit(caller: Caller, calls: list[bytes]) -> float:
    """Seconds from the first call to the last result."""
    start = time.perf_counter()
    answers = await asyncio.gather(*(caller.begin(call) for call in calls))
    spent = time.perf_counter() - start
    bad = [end for answer in answers for end in answer["ends"] if end["outcome"] != "done"]
    assert not bad, bad[0]
    return spent


async def graph(caller: Caller, *, yaml: bool = False) -> float:
    """Seconds from handing the spec in to its end."""
    name = f"g{secrets.token_hex(6)}"
    args = {"base": "", "repo": "", "spec": spec(name, yaml=yaml), "values": {}}
    call = caller.ordered("run", name, args)
    start = time.perf_counter()
    run = (await caller.begin(call))["run"]
    end = await caller.call("watch", {"run": run})
    spent = time.perf_counter() - start
    assert end["settled"] == "done", end
    return spent


async def one_by_one(caller: Caller, count: int) -> list[float]:
    times = []
    for call in [prepared(caller, 1) for _ in range(count)]:
        await asyncio.sleep(GAP_S)
        times.append(await submit(caller, call) * 1000)
    return times


async def measure(*, rounds: int, singles: int, many: int) -> list[Figure]:
    receipts, tasks = [], []
    ours, theirs, our_graphs, their_graphs, from_yaml = [], [], [], [], []
    with Fleet(3) as fleet, Huey() as peer:
        caller = await fleet.caller()
        await messages(caller, 30)
        await one_by_one(caller, 20)
        await submit(caller, prepared(caller, 100))
        await graph(caller)
        for _ in range(rounds):
            receipts.append(await messages(caller, singles))
            tasks.append(await one_by_one(caller, singles))
        for _ in range(rounds):
            theirs.append(many / peer.many(many))
            ours.append(many / await submit(caller, prepared(caller, many)))
            their_graphs.append(peer.graph())
            our_graphs.append(await graph(caller))
            from_yaml.append(await graph(caller, yaml=True))
        caller.close()
    flat, heard = [t for r in tasks for t in r], [t for r in receipts for t in r]
    return [
        Figure(
            "task submit to settled, idle p50 / receipt p50",
            ratio([p50(r) for r in tasks], [p50(r) for r in receipts]),
            6.0,
            f"task p50 {p50(flat):.2f} p99 {p99(flat):.1f} ms; receipt p50 {p50(heard):.2f} ms",
        ),
        Figure(
            f"{many:,} noop tasks, two workers / Huey fsync",
            ratio(ours, theirs),
            1.0,
            f"ours {p50(ours):,.0f}/s; Huey {p50(theirs):,.0f}/s",
            upper=False,
            target=1.7,
        ),
        Figure(
            "10 x 10 graph of noop phases",
            p50(our_graphs),
            0.118,
            f"ours {p50(our_graphs):.3f} s, from YAML {p50(from_yaml):.3f} s; "
            f"Huey here {p50(their_graphs):.3f} s",
            target=0.086,
            unit="s",
        ),
    ]


async def run(*, short: bool) -> list[Figure]:
    if short:
        return await measure(rounds=3, singles=50, many=1000)
    return await measure(rounds=7, singles=200, many=1000)
