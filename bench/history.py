"""What tasks, questions and a start cost where much happened before, beside where little did.

Two machines as the daemon runs them, in this process: their cores, over stores in files. The hub
owns the tasks, the worker does them. Processor time of the steps is what counts, so that the disk
does not hide the code, and each figure is the least of several: other load only adds to it.

First there is as much as an answer shows, then the history: messages from the hub to the worker,
tasks that are settled, and entries of a kind that no fold wants. A process of its own opens the
worker's log in the end: how long that takes. Then two real daemons exchange messages, and are
weighed.

    python -m bench.history --entries 1000000 --messages 100000 --tasks 20000
"""

import argparse
import asyncio
import gc
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.node.cores import Cores, One

from bench.figure import Figure
from bench.fleet import Fleet
from bench.message import busy
from bench.start import SAID, resident_mib
from muster.channel.frame import Type
from muster.log import canon
from muster.log.stream import FLEET, Scope, scope_to
from muster.message.kinds import MessageSend
from muster.node import event as ev
from muster.node.daemon import GC_THRESHOLDS
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.owner import OwnerService
from muster.store.store import Draft
from muster.task.evidence import task_args
from muster.task.kinds import TaskOpen

BATCH: Final = 1_000
TASKS_PER_CALL: Final = 50
ROUNDS: Final = 7
TEXT: Final = "The quick brown fox jumps over the lazy dog and then it rests. " * 4
PAGE_MESSAGES: Final = 1_100
PAGE_TASKS: Final = 600
TEMPLATE: Final[dict[str, Any]] = {
    "v": 1,
    "agent": ["noop"],
    "do": "{}",
    "needs": {"label": "worker"},
}


class World:
    """A hub and a worker, and the processor seconds that the steps of each of them used."""

    def __init__(self, folder: Path) -> None:
        self.cores = Cores("hub", "worker", folder=folder)
        self.hub, self.worker = self.cores["hub"], self.cores["worker"]
        self.spent_s = {"hub": 0.0, "worker": 0.0}
        # The longest step: its seconds, and what came in it.
        self.longest = (0.0, "")
        for one in (self.hub, self.worker):
            one.step = self._timed(one)  # type: ignore[method-assign]
        self.worker.step(FactsChanged(self.worker.facts(labels=["worker"])))
        self.cores.link("hub", "worker")
        self.cores.pass_ms(3_000)
        # As a daemon does it.
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)

    def _timed(self, one: One) -> Callable[..., None]:
        def step(*events: Any) -> None:
            start = time.process_time()
            effects = one.core.step(events, self.cores.now())
            spent = time.process_time() - start
            self.spent_s[one.name] += spent
            if spent > self.longest[0]:
                self.longest = (spent, f"{one.name}: {', '.join(sorted(map(_named, events)))}")
            self.cores.carry_out(one, effects)
            one.effects.clear()

        return step

    def close(self) -> None:
        for one in (self.hub, self.worker):
            one.core.store.close()

    # --- what happened before ----------------------------------------------------------------

    def _write(self, scope: Scope, drafts: list[Draft]) -> None:
        """Entries of the hub as a burst brings them, taken in by the worker."""
        # A flood is taken in slowly; what is measured here is what comes after it.
        self.worker.core.replication.intake.forget(self.hub.id)
        with self.hub.core.store.transaction():
            self.hub.core.append_all(scope, drafts)
            self.hub.core._sign()
        self.cores.carry_out(self.hub, self.hub.core._released())
        self.cores.drain()

    def note(self, count: int) -> None:
        """Entries of which no table is made."""
        draft = Draft("bench.note", "muster", (), b'{"text":"%s"}' % TEXT[:120].encode())
        for at in range(0, count, BATCH):
            self._write(FLEET, [draft] * min(BATCH, count - at))
        self.cores.pass_ms(3_000)

    def send(self, count: int) -> None:
        """Messages to the worker, and as many to an agent on it."""
        to = [self.worker.id, f"claude@{self.worker.id}"]
        for at in range(0, count, BATCH):
            texts = [f"{number} {TEXT[:180]}" for number in range(at, min(at + BATCH, count))]
            bodies = [canon.encode(MessageSend([to[n % 2]], text)) for n, text in enumerate(texts)]
            drafts = [Draft("message.send", "muster", (), body) for body in bodies]
            self._write(scope_to(self.worker.id), drafts)
            self.cores.pass_ms(100)
        self.cores.pass_ms(3_000)

    def work(self, count: int) -> float:
        """Settle so many tasks; the fewest microseconds of the worker for one."""
        spent = []
        for at in range(0, count, TASKS_PER_CALL):
            before = self.spent_s["worker"]
            self._submit(batch := min(TASKS_PER_CALL, count - at))
            spent.append((self.spent_s["worker"] - before) / batch * 1e6)
            self.cores.pass_ms(100)
        assert not self.hub.core.part(OwnerService).owner.statistics().get("queued")
        return min(spent)

    def _submit(self, count: int) -> None:
        items = []
        for _ in range(count):
            self.last = self.hub.core.draw(16).hex()
            args = task_args(TaskOpen(task=self.last, template=TEMPLATE))
            signed = self.cores.sign("task", self.last, self.hub, args)
            items.append({"task": self.last, "template": TEMPLATE, "statement": signed})
        answer = self.hub.call("submit", {"tasks": items})
        assert answer["ok"], answer

    # --- what is asked -----------------------------------------------------------------------

    def _asked(self, one: One, ask: Callable[[], Any]) -> float:
        """The fewest milliseconds of processor time that an answer took."""
        found = []
        for _ in range(ROUNDS):
            before = self.spent_s[one.name]
            answer = ask()
            assert answer["ok"], answer
            found.append((self.spent_s[one.name] - before) * 1000)
        return min(found)

    def questions(self) -> dict[str, float]:
        """Milliseconds of each question."""
        hub, worker = self.hub, self.worker
        found = {
            verb: self._asked(one, partial(one.call, verb, args))
            for one, verb, args in (
                (worker, "status", {}),
                (worker, "inbox", {}),
                (hub, "sent", {}),
                (worker, "threads", {}),
                (hub, "tasks", {"all": True}),
                (hub, "why", {"task": self.last}),
            )
        }
        ids = iter([m["message"] for m in worker.call("inbox", {})["value"]])
        found["reply"] = self._asked(worker, lambda: self._said("reply", next(ids), text="hi"))
        found["ack"] = self._asked(worker, lambda: self._said("ack", next(ids)))
        found["mark 500"] = self._mark()
        found["hook"] = self._asked(worker, self._hook)
        return found

    def _hook(self) -> Any:
        """What the hook of a live session asks after the use of a tool."""
        return self.worker.call("hook", {"agent": "claude", "input": SAID.hex()})

    def _said(self, verb: str, message: str, **more: str) -> Any:
        return self.worker.order(verb, message[:16], {"message": message[:16], **more})

    def _mark(self) -> float:
        before = self.spent_s["worker"]
        answer = self.worker.call("inbox", {"mark": True, "limit": 500})
        assert answer["ok"], answer
        assert len(answer["value"]) == 500
        return (self.spent_s["worker"] - before) * 1000


def measured(folder: Path, *, entries: int, messages: int, tasks: int) -> list[Figure]:
    world = World(folder)
    world.send(PAGE_MESSAGES)
    world.work(PAGE_TASKS)
    task, asked = world.work(1_000), world.questions()
    world.longest = (0.0, "")
    world.send(messages)
    world.work(tasks)
    world.note(entries - world.hub.own_size)
    task_now, asked_now = world.work(1_000), world.questions()
    where = f"{entries:,} entries, {messages:,} messages, {tasks:,} tasks"
    world.close()
    start = _start(folder)
    return [
        Figure(
            "worker's CPU for a task after a history",
            task_now / task,
            1.2,
            f"{task_now:.0f} us against {task:.0f}; {where}",
        ),
        *(
            Figure(f"{verb} after a history", now / ms, 2, f"{now:.2f} ms against {ms:.2f}")
            for verb, ms in asked.items()
            for now in (asked_now[verb],)
        ),
        *(
            Figure(f"{verb} with {messages:,} messages", asked_now[verb], 5, where, unit="ms")
            for verb in ("status", "inbox", "hook")
        ),
        Figure("500 messages marked as read", asked_now["mark 500"], 200, where, unit="ms"),
        Figure(
            "the longest step", world.longest[0] * 1000, 50, f"CPU, {world.longest[1]}", unit="ms"
        ),
        Figure(
            "a store of such a history opens", start, 3, "with all folds, the least of 3", unit="s"
        ),
    ]  # fmt: skip


def _named(event: ev.Event) -> str:
    if not isinstance(event, ev.Arrived):
        return type(event).__name__
    if event.type is Type.CALL:
        return f"call of {json.loads(event.payload)['verb']}"
    return f"{event.type.name.lower()} of {len(event.payload):,} bytes"


async def resident(messages: int) -> Figure:
    """What daemons weigh that exchanged so many messages; the heavier of two."""
    with Fleet(2) as fleet:
        caller = await fleet.caller()
        await busy(caller, messages)
        caller.close()
        sizes = [resident_mib(daemon.pid) for daemon in fleet.daemons]
    raw = " and ".join(f"{size:.0f}" for size in sizes)
    return Figure(f"a daemon after {messages:,} messages", max(sizes), 80, raw, unit="MiB")


def _start(folder: Path) -> float:
    code = (
        "import sys, time; from muster.store.store import Store;"
        "from muster.node.part import all_folds;"
        "from muster.node.parts import PARTS;"
        "fleet, machine = sys.argv[2:4]; start = time.perf_counter();"
        "folds = all_folds(fleet, PARTS);"
        "Store(sys.argv[1], fleet=fleet, machine=machine, rng=bytes, folds=folds);"
        "print(time.perf_counter() - start)"
    )
    home = Cores("hub", "worker")
    argv = [sys.executable, "-c", code, str(folder / "worker.db"), home.fleet, home["worker"].id]
    return min(float(subprocess.run(argv, capture_output=True, check=True).stdout) for _ in "123")


async def run(*, short: bool) -> list[Figure]:
    """The figures for the table of all."""
    sizes = (150_000, 20_000, 2_000) if short else (1_000_000, 100_000, 20_000)
    weighed = await resident(30_000)
    with tempfile.TemporaryDirectory() as folder:
        found = await asyncio.to_thread(
            measured,
            Path(folder),
            **dict(zip(("entries", "messages", "tasks"), sizes, strict=True)),
        )
    return [*found, weighed]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--entries", type=int, default=150_000)
    parser.add_argument("--messages", type=int, default=20_000)
    parser.add_argument("--tasks", type=int, default=2_000)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to test")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        figures = measured(
            Path(folder), entries=given.entries, messages=given.messages, tasks=given.tasks
        )
        print("\n".join(figure.line() for figure in figures))


if __name__ == "__main__":
    main()
