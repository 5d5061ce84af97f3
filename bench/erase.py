"""What the erasure of one text costs in the loop: where much is known, beside where little is.

Two stores in files, with the tables of what is known: one with a thousand versions, one with a
hundred thousand. In turn, a version at random is erased in each, and an entry is written: both are
transactions with their commit.
"""

import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from bench.figure import Figure, p50, p99, ratio
from muster.context.fold import ContextFold
from muster.context.kinds import ContextPut, rest_of
from muster.fleet.machine import Authority
from muster.log import canon
from muster.log.keys import Signer
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName
from muster.memory.fold import MemoryFold
from muster.memory.kinds import MemoryPut
from muster.store.store import Draft, Store

BATCH: Final = 1_000
NOW_MS: Final = 1_790_000_000_000
TEXT: Final = "the tests of this package want a display, run them under xvfb-run; "


class Known:
    """A store with so many versions, whose bodies are erased in no order."""

    FOLDS: tuple[Any, ...] = (MemoryFold(),)

    def __init__(self, path: Path, entries: int) -> None:
        self._signer, self._random = Signer(b"s" * 32), random.Random(entries)
        machine = MachineId(self._signer.public.hex())
        self._stream = StreamName(machine, Incarnation("0" * 32), FLEET)
        self._store = Store(
            path, fleet=Authority(b"a" * 32).fleet, machine=machine, rng=self._random.randbytes,
            folds=self.FOLDS,
        )  # fmt: skip
        for first in range(0, entries, BATCH):
            self._write(range(first, first + BATCH))
        self._left = self._random.sample(range(entries), min(entries, BATCH))

    def _drafts(self, numbers: range) -> list[Draft]:
        bodies = [
            MemoryPut(f"a/key-{n % 5_000}", f"{TEXT}{n}", tags=["repo:main"]) for n in numbers
        ]
        return [Draft("memory.put", "claude@build", (), canon.encode(each)) for each in bodies]

    def _write(self, numbers: range) -> None:
        drafts = self._drafts(numbers)
        with self._store.transaction():
            self._store.append(self._stream, drafts, NOW_MS)
            self._store.seal_dirty(self._signer)

    def write(self) -> None:
        self._write(range(7, 8))

    def erase(self) -> None:
        with self._store.transaction():
            self._store.erase_body(self._stream, self._left.pop())

    def close(self) -> None:
        self._store.close()


class Changed(Known):
    """A store with so many versions of one file, each over the last."""

    FOLDS = (ContextFold(),)

    def _drafts(self, numbers: range) -> list[Draft]:
        over = f"{numbers[0]:064x}"
        bodies = [ContextPut("notes", "n.md", [over], f"{n}\n{TEXT * 140}") for n in numbers]
        return [Draft("context.put", "muster", (), canon.encode(each)) for each in bodies]

    def erase(self) -> None:
        rest = canon.encode(rest_of(ContextPut("notes", "n.md", ["0" * 64]), bytes(32), 10_000))
        with self._store.transaction():
            self._store.let_go(self._stream, self._left.pop(), rest)


def _ms(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return (time.perf_counter() - start) * 1000


async def run(*, short: bool) -> list[Figure]:
    many, rounds = (20_000, 50) if short else (100_000, 300)
    with tempfile.TemporaryDirectory() as folder:
        large, small = Known(Path(folder, "large"), many), Known(Path(folder, "small"), BATCH)
        found = [(_ms(large.erase), _ms(small.erase), _ms(large.write)) for _ in range(rounds)]
        large.close()
        small.close()
        files = Changed(Path(folder, "files"), 5_000 if short else 20_000)
        gone = [_ms(files.erase) for _ in range(rounds)]
        files.close()
    theirs, ours, written = map(list, zip(*found, strict=True))
    raw = f"p50 {p50(theirs):.2f} ms, p99 {p99(theirs):.2f}; a written entry {p50(written):.2f}"
    return [
        Figure(
            f"erasing one text, {many:,} known / {BATCH:,} known", ratio(theirs, ours), 2.0, raw
        ),
        Figure("erasing one text in the loop", p50(theirs), 10.0, raw, unit="ms"),
        Figure(
            "letting the bytes of one version of a file go, in the loop", p50(gone), 10.0,
            f"p50 {p50(gone):.2f} ms, p99 {p99(gone):.2f}; 10 KB each", unit="ms",
        ),
    ]  # fmt: skip
