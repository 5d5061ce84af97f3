"""Context folders between two daemons on loopback, beside Syncthing in the same run.

A file of 10 KB is renamed into the folder of one machine, as an editor saves, and the time counts
until the other has it. Then 5,000 files (8 MB) are made at once, on ours and on theirs. Then a
folder of a hundred files is renamed: what that adds to the log is what it costs. At last nothing
happens, and the processor time of both daemons counts, with the folder and without.
"""

import asyncio
import os
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import apsw
from tests.e2e.folders import FolderFleet, has

from bench.figure import Figure, p50, p99
from bench.syncthing_peer import Syncthing, missing

FILE_BYTES: Final = 10_240
_TICK_S: Final = 1 / os.sysconf("SC_CLK_TCK")
_LIMIT_S: Final = 180.0


async def run(*, short: bool = False) -> list[Figure]:
    """The figures of context folders."""
    return await asyncio.to_thread(_measured, short=short)


def _measured(*, short: bool) -> list[Figure]:
    draw, files = random.Random(5), 1_000 if short else 5_000
    with tempfile.TemporaryDirectory(prefix="muster-bench-context-") as folder:
        with FolderFleet(Path(folder) / "ours", "hub", "studio") as fleet:
            fleet.share("hub", "studio")
            one, other = fleet.notes("hub"), fleet.notes("studio")
            (one / "first").write_text("x")
            has(other / "first", "x")
            times = [_saved(one, other, draw, n) for n in range(15 if short else 100)]
            many_s = _many(one, other, draw, files)
            moved = _moved(fleet, draw)
            idle_s = 10.0 if short else 30.0
            time.sleep(5)
            busy = _share(fleet, idle_s)
            for name in fleet.names:
                fleet.hub("context", "remove", "notes", "--on", name)
            time.sleep(2)
            own = _share(fleet, idle_s)
        theirs = missing()
        theirs_s = 0.0
        if not theirs:
            with Syncthing(Path(folder) / "theirs") as peer:
                peer.ready()
                theirs_s = _many(peer.tops[0], peer.tops[1], draw, files)
    raw = f"p50 {p50(times) * 1000:.0f} ms, n = {len(times)}"
    found = [
        Figure(
            "context: a 10 KB file on the other disk, p99", p99(times) * 1000, 200, raw, unit="ms"
        )
    ]
    if theirs:
        print(f"context: {files} files took {many_s:.1f} s; nothing to compare: {theirs}")
    else:
        raw = f"{many_s:.1f} s, Syncthing {theirs_s:.1f} s"
        found.append(
            Figure(f"context: {files} files at once / Syncthing", many_s / theirs_s, 0.5, raw)
        )
    found.append(
        Figure("context: a folder of 100 files renamed", moved / 1e6, 0.3, "in the log", unit="MB")
    )
    raw = f"{busy:.2f} % with the folder, {own:.2f} % without, both daemons"
    found.append(Figure("context: nothing happens", (busy - own) / 2, 0.5, raw, unit="%"))
    return found


def _text(draw: random.Random, size: int) -> bytes:
    words = ["the", "tests", "moved", "to", "port", "7450", "main", "agent", "line", "why"]
    return b" ".join(draw.choice(words).encode() for _ in range(size // 4))[:size]


def _saved(one: Path, other: Path, draw: random.Random, n: int) -> float:
    """Seconds until the other disk has a file that an editor has just saved."""
    data = _text(draw, FILE_BYTES)
    time.sleep(draw.uniform(0.05, 0.25))
    new = one / f".f{n}.swp"
    new.write_bytes(data)
    began = time.perf_counter()
    new.rename(one / f"f{n}.md")
    _wait(lambda: _has(other / f"f{n}.md", data))
    return time.perf_counter() - began


def _many(one: Path, other: Path, draw: random.Random, count: int) -> float:
    """Seconds until the other disk has so many files, made at once."""
    made = {
        Path(f"many/{n % 50:02}/{n}.md"): _text(draw, draw.randrange(200, 3_000))
        for n in range(count)
    }
    # To think of them takes whoever makes them longer than to write them.
    began = time.perf_counter()
    for path, data in made.items():
        (one / path).parent.mkdir(parents=True, exist_ok=True)
        (one / path).write_bytes(data)
    missing = [(path, len(data)) for path, data in made.items()]

    def there() -> bool:
        # One that has come is not looked at again: to wait costs whoever works no processor.
        while missing and _size(other / missing[-1][0]) == missing[-1][1]:
            missing.pop()
        return not missing

    _wait(there)
    return time.perf_counter() - began


def _moved(fleet: FolderFleet, draw: random.Random) -> int:
    """Bytes of the entries that renaming a folder of a hundred files makes."""
    one, other = fleet.notes("hub"), fleet.notes("studio")
    (one / "hundred").mkdir()
    for n in range(100):
        (one / "hundred" / f"{n}.md").write_bytes(_text(draw, 2_000))
    _wait(lambda: len(list((other / "hundred").glob("*.md"))) == 100)
    time.sleep(1)
    before = _log_bytes(fleet)
    (one / "hundred").rename(one / "moved")
    _wait(lambda: len(list((other / "moved").glob("*.md"))) == 100)
    time.sleep(1)
    return _log_bytes(fleet) - before


def _log_bytes(fleet: FolderFleet) -> int:
    flags = apsw.SQLITE_OPEN_READONLY
    database = apsw.Connection(str(fleet.home("studio") / "log.db"), flags=flags)
    sql = "select sum(length(header) + coalesce(length(body), 0)) from entry"
    ((size,),) = database.execute(sql)
    database.close()
    return int(str(size))


def _share(fleet: FolderFleet, seconds: float) -> float:
    """The processor time of all daemons, as a percentage of one core."""

    def spent() -> float:
        total = 0
        for name in fleet.names:
            number = (fleet.home(name) / "run" / "pid").read_text().strip()
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            total += int(fields[11]) + int(fields[12])
        return total * _TICK_S

    before = spent()
    time.sleep(seconds)
    return (spent() - before) / seconds * 100


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _has(path: Path, data: bytes) -> bool:
    try:
        return path.read_bytes() == data
    except OSError:
        return False


def _wait(true: Callable[[], bool]) -> None:
    until = time.monotonic() + _LIMIT_S
    while not true():
        if time.monotonic() > until:
            raise TimeoutError("the other folder does not get it")
        time.sleep(0.003)
