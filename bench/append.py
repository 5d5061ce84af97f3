"""Appending and taking, against plain SQLite inserts of the same bytes.

usage: python bench/append.py [--rounds N] [--folder F]

Every round measures each way once, in turn, so that what else the machine does hits all alike;
ratios are medians over the rounds. All ways write the same headers, salts and bodies to a file
with the same pragmas (WAL, synchronous=FULL), 64 entries per commit. Half of the entries are about
messages (two are sent, one is read), half about tasks (one is opened, assigned and settled), with
bodies of about 300 bytes:

    raw      64 coroutines hand rows to a writer, which inserts and commits what has gathered
    append   the same 64 coroutines and `Store.append`: hashed, and one seal per commit; no folds
    folded   that with the folds of a daemon: every entry makes a row of a message, receipt or task
    bare     insert and commit in a loop, without callers
    direct   `Store.append` of one entry, 64 times per commit, without callers; no folds
    direct+  that with the folds
    taken    another machine takes the same entries in segments of 1000, with the folds
    proof    inclusion proofs from tiles, one after the other, each from cold caches

What has callers is to be compared with `raw`, what has none with `bare`.
"""

import argparse
import asyncio
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

from bench.figure import Figure
from muster.log import canon
from muster.log.admit import Taken, admit
from muster.log.keys import Signer
from muster.log.kind import kind_of
from muster.log.segment import Segment
from muster.log.stream import FLEET, FleetId, Incarnation, MachineId, StreamName
from muster.message.kinds import MessageRead, MessageSend
from muster.node.part import all_folds
from muster.node.parts import PARTS
from muster.store.sqlite import Database
from muster.store.store import Draft, Store
from muster.task.kinds import TaskAssign, TaskOpen, TaskSettle
from muster.task.kinds import body_bytes as task_bytes

T = TypeVar("T")

OWNER = FleetId("f" * 64)
CALLERS = 64
COMMITS = 150
TAKEN_ENTRIES = 1000
NOW_MS = 1_790_000_000_000
TEXT = "The quick brown fox jumps over the lazy dog and then it rests. " * 4


def drafts(rng: random.Random, count: int) -> list[Draft]:
    """Entries as a busy owner writes them."""
    found: list[Draft] = []
    while len(found) < count:
        found += _messages(rng)
        found += _task(rng, len(found))
    return found[:count]


def _messages(rng: random.Random) -> list[Draft]:
    to = [rng.randbytes(32).hex()]
    sent = [MessageSend(to, TEXT[:180] + rng.randbytes(8).hex()) for _ in range(2)]
    read = MessageRead(rng.randbytes(32).hex())
    return [
        *(Draft("message.send", "claude@studio", (), canon.encode(each)) for each in sent),
        Draft("message.read", "claude@studio", (), canon.encode(read)),
    ]


def _task(rng: random.Random, number: int) -> list[Draft]:
    task, machine = f"t-{rng.randbytes(8).hex()}", rng.randbytes(32).hex()
    run = rng.randbytes(8).hex()
    template = {"agent": ["claude", "shell"], "check": "test -s NOTES.md", "do": TEXT[:100]}
    bodies = [
        TaskOpen(task, template, run, "notes", digest=rng.randbytes(32).hex()),
        TaskAssign(task, (1, number + 1), machine, "claude", 30_000, "mark", candidates=[
            (machine, True, 100, ""), (run, False, 0, "its python is older than 3.11")]),
        TaskSettle(task, "done", (1, number + 1), TEXT[:100], commit=rng.randbytes(20).hex()),
    ]  # fmt: skip
    return [Draft(kind_of(type(each)), "muster", (), task_bytes(each)) for each in bodies]


class Bench:
    """The same drafts for every way, and a fresh file for each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.signer = Signer(b"\x01" * 32)
        self.machine = MachineId(self.signer.public.hex())
        self.stream = StreamName(self.machine, Incarnation("0" * 32), FLEET)
        self.files = 0
        # Microseconds of processor time for each entry, by way, of each round.
        self.cpu_us: dict[str, list[float]] = {"raw": [], "append": [], "folded": []}
        self.drafts = drafts(random.Random(1), CALLERS * COMMITS)
        source = self.store(folds=False)
        self.run_append(source)
        self.entries = list(source.log.slice(self.stream, 0, 1 << 40))
        while len(self.entries) < source.log.size(self.stream):
            self.entries += source.log.slice(self.stream, len(self.entries), 1 << 40)
        seal = source.log.seal_of(self.stream)
        assert seal is not None
        self.segments = [
            Segment(
                self.stream,
                at,
                tuple(self.entries[at : at + TAKEN_ENTRIES]),
                seal,
                tuple(
                    source.log.consistency(
                        self.stream, min(at + TAKEN_ENTRIES, seal.size), seal.size
                    )
                ),
            )
            for at in range(0, len(self.entries), TAKEN_ENTRIES)
        ]
        source.close()

    def path(self) -> Path:
        self.files += 1
        return self.folder / f"{self.files}.db"

    def store(self, *, folds: bool, machine: MachineId | None = None) -> Store:
        return Store(
            self.path(),
            fleet=OWNER,
            machine=machine or self.machine,
            rng=os.urandom,
            folds=all_folds(OWNER, PARTS) if folds else (),
        )

    def raw_database(self) -> Database:
        database = Database(self.path())
        database.execute(
            "create table entry(id integer primary key, header blob, salt blob, body blob)"
        )
        return database

    def bare(self) -> float:
        database = self.raw_database()
        rows = [(at, e.raw, e.salt, e.body) for at, e in enumerate(self.entries)]
        start = time.perf_counter()
        for at in range(0, len(rows), CALLERS):
            database.begin()
            database.executemany("insert into entry values(?, ?, ?, ?)", rows[at : at + CALLERS])
            database.commit()
        spent = time.perf_counter() - start
        database.close()
        return len(rows) / spent

    def raw(self) -> float:
        database = self.raw_database()
        rows = [(at, e.raw, e.salt, e.body) for at, e in enumerate(self.entries)]

        def commit(batch: list[tuple[int, bytes, bytes, bytes | None]]) -> None:
            database.begin()
            database.executemany("insert into entry values(?, ?, ?, ?)", batch)
            database.commit()

        rate, cpu_us = asyncio.run(called(rows, commit))
        self.cpu_us["raw"].append(cpu_us)
        database.close()
        return rate

    def called(self, *, folds: bool) -> float:
        store = self.store(folds=folds)

        def commit(batch: list[Draft]) -> None:
            with store.transaction():
                for draft in batch:
                    store.append(self.stream, (draft,), NOW_MS)
                store.seal_dirty(self.signer)

        rate, cpu_us = asyncio.run(called(self.drafts, commit))
        self.cpu_us["folded" if folds else "append"].append(cpu_us)
        store.close()
        return rate

    def run_append(self, store: Store) -> float:
        start = time.perf_counter()
        for at in range(0, len(self.drafts), CALLERS):
            with store.transaction():
                for draft in self.drafts[at : at + CALLERS]:
                    store.append(self.stream, (draft,), NOW_MS + at)
                store.seal_dirty(self.signer)
        return len(self.drafts) / (time.perf_counter() - start)

    def direct(self, *, folds: bool) -> float:
        store = self.store(folds=folds)
        rate = self.run_append(store)
        store.close()
        return rate

    def taken(self) -> float:
        store = self.store(folds=True, machine=MachineId("2" * 64))
        start = time.perf_counter()
        for segment in self.segments:
            found = admit(
                store.log.state(self.stream),
                segment,
                OWNER,
                self.signer.public,
                store.log.tree(self.stream),
            )
            assert isinstance(found, Taken)
            with store.transaction():
                store.take(found, NOW_MS)
        spent = time.perf_counter() - start
        store.close()
        return len(self.entries) / spent


async def called(items: Sequence[T], commit: Callable[[list[T]], None]) -> tuple[float, float]:
    """Items per second of 64 callers, each waiting until its own item is durable; and the
    microseconds of processor time for each.
    """
    loop = asyncio.get_running_loop()
    waiting: list[tuple[T, asyncio.Future[None]]] = []
    wake = asyncio.Event()

    async def caller(number: int) -> None:
        for item in items[number::CALLERS]:
            done: asyncio.Future[None] = loop.create_future()
            waiting.append((item, done))
            wake.set()
            await done

    async def writer() -> None:
        left = len(items)
        while left:
            await wake.wait()
            wake.clear()
            # Everyone who is ready gets in: natural group commit, without a timer.
            await asyncio.sleep(0)
            batch = waiting.copy()
            waiting.clear()
            commit([item for item, _ in batch])
            for _, done in batch:
                done.set_result(None)
            left -= len(batch)

    start, began = time.perf_counter(), time.process_time()
    await asyncio.gather(writer(), *(caller(number) for number in range(CALLERS)))
    cpu_us = (time.process_time() - began) / len(items) * 1e6
    return len(items) / (time.perf_counter() - start), cpu_us


def proofs(bench: Bench, size: int) -> float:
    """Return the median milliseconds of an inclusion proof in a stream of `size` entries."""
    store = bench.store(folds=False)
    batch = bench.drafts[:1000]
    while store.log.size(bench.stream) < size:
        with store.transaction():
            store.append(bench.stream, batch, NOW_MS)
    rng = random.Random(2)
    times = []
    for _ in range(100):
        seq = rng.randrange(size)
        # Cold: the cache would make every proof but the first free.
        store._contents.tiles.cache.clear()
        start = time.perf_counter()
        store.log.inclusion(bench.stream, seq, store.log.size(bench.stream))
        times.append(time.perf_counter() - start)
    store.close()
    return statistics.median(times) * 1000


async def run(*, short: bool) -> list[Figure]:
    """The promised figures, for the table of all: what our code costs, and what that makes of
    the disk, which is the more of it the quicker the disk is.
    """
    ways = ("raw", "append", "folded")
    rates, cpu_us = await asyncio.to_thread(_rates, ways, 3 if short else 7)
    raw = f"raw {statistics.median(rates['raw']):,.0f}/s"
    floor = f"the least of the rounds; the raw inserts, their floor, {min(cpu_us['raw']):.1f} us"
    return [
        Figure(
            f"CPU for each entry, 64 callers{label}", min(cpu_us[way]), promise, floor, unit="us"
        )
        for way, label, promise in (("append", "", 20), ("folded", ", folded", 40))
    ] + [
        Figure(
            f"append, 64 callers{label} / raw SQLite inserts",
            statistics.median(a / b for a, b in zip(rates[way], rates["raw"], strict=True)),
            promise,
            f"ours {statistics.median(rates[way]):,.0f}/s; {raw}",
            upper=False,
        )
        for way, label, promise in (("append", "", 0.75), ("folded", ", folded", 0.5))
    ]


def _rates(
    names: Sequence[str], rounds: int
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    rates: dict[str, list[float]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(Path(folder))
        ways: dict[str, Callable[[], float]] = {
            "raw": bench.raw,
            "append": lambda: bench.called(folds=False),
            "folded": lambda: bench.called(folds=True),
        }
        for _ in range(rounds):
            for name in names:
                rates[name].append(ways[name]())
    return rates, bench.cpu_us


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=None, help="a folder on the disk to test")
    parser.add_argument("--proof-entries", type=int, default=100_000)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        bench = Bench(Path(folder))
        ways: dict[str, Callable[[], float]] = {
            "raw": bench.raw,
            "append": lambda: bench.called(folds=False),
            "folded": lambda: bench.called(folds=True),
            "bare": bench.bare,
            "direct": lambda: bench.direct(folds=False),
            "direct+": lambda: bench.direct(folds=True),
            "taken": bench.taken,
        }
        rates: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(given.rounds):
            for name, way in ways.items():
                rates[name].append(way())
        for name, seen in rates.items():
            base = "raw" if name in ("raw", "append", "folded") else "bare"
            ratio = statistics.median(a / b for a, b in zip(seen, rates[base], strict=True))
            print(f"{name:8} {statistics.median(seen):9,.0f} entries/s   {ratio:5.2f} of {base}")
        if given.proof_entries:
            spent = proofs(bench, given.proof_entries)
            print(f"proof    {spent:9.2f} ms in {given.proof_entries:,} entries")


if __name__ == "__main__":
    main()
