"""The peer of bench/tasks.py: Huey on a SQLite file with fsync, two worker processes, tuned to poll
every few milliseconds (its default polling is several times slower)."""

import os
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any, Self

from huey import SqliteHuey
from huey.api import chord

WAIT_S = 120

huey = SqliteHuey("bench", filename=os.environ.get("BENCH_HUEY", ":memory:"), fsync=True)


@huey.task()
def noop(*_: Any) -> int:
    return 1


@huey.task()
def layer(left: int, key: str, *_: Any) -> int:
    """Ten layers of ten: a chord per layer, whose callback starts the next."""
    if left == 0:
        huey.put(key, 1)
    else:
        huey.enqueue(chord([noop.s() for _ in range(10)], layer.s(left - 1, key)))
    return 1


class Huey:
    """A consumer with two worker processes; the caller is here."""

    def __enter__(self) -> Self:
        self._folder = Path(tempfile.mkdtemp(prefix="mb-huey-"))
        path = str(self._folder / "huey.db")
        huey.storage.filename = path
        huey.storage.close()
        huey.storage.initialize_schema()
        consumer = str(Path(sys.executable).parent / "huey_consumer")
        words = [sys.executable, consumer, "bench.huey_peer.huey", "-w", "2", "-k", "process"]
        words += ["-n", "-q", "-d", "0.002", "-m", "0.005", "-b", "1.15"]
        self._consumer = subprocess.Popen(
            words, env={**os.environ, "BENCH_HUEY": path}, stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )  # fmt: skip
        noop().get(blocking=True, timeout=60)
        return self

    def __exit__(self, *_: object) -> None:
        self._consumer.terminate()
        self._consumer.wait(20)
        huey.storage.close()
        shutil.rmtree(self._folder, ignore_errors=True)

    def many(self, count: int) -> float:
        """Seconds until all results are here."""
        start = time.perf_counter()
        handles = [noop() for _ in range(count)]
        for handle in handles:
            while handle.get() is None:
                _wait(start)
        return time.perf_counter() - start

    def graph(self) -> float:
        key = uuid.uuid4().hex
        start = time.perf_counter()
        layer(10, key)
        while huey.get(key, peek=True) is None:
            _wait(start)
        return time.perf_counter() - start


def _wait(start: float) -> None:
    if time.perf_counter() - start > WAIT_S:
        raise TimeoutError("Huey gave no result")
    time.sleep(0.001)
