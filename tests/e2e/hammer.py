"""Three machines write the same four files at once, and nothing that anybody wrote is lost.

    python -m tests.e2e.hammer --writes 2000 --kill-every 10 [--seed N]

Each machine has a writer of its own, which changes a file every 80 to 250 ms: half of the time as
an editor does (a new file, renamed over the old one), half of the time in place. Meanwhile one
daemon after the other gets `kill -9` and is started again. In the end every text that was written
must be a version in somebody's log, and the folders must be equal, without a file that nobody made.

A writer does not write over its own last text before its own machine has recorded that: whoever
saves twice within a moment has replaced the text himself. Whatever else is missing Muster lost.
"""

import argparse
import os
import random
import re
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Final

import apsw

from muster.store.schema import pack, unpack
from tests.e2e.fleet import until
from tests.e2e.folders import FolderFleet

NAMES: Final = ("hub", "studio", "laptop")
FILES: Final = 4
_TOKEN: Final = re.compile(rb"value ([a-z]+-\d+)\b")
REST_S: Final = 120.0


class History:
    """The texts that the log of one home has, read as it grows."""

    def __init__(self, home: Path) -> None:
        self._path = home / "log.db"
        self._last: dict[int, int] = {}
        self.tokens: set[str] = set()

    def read(self) -> set[str]:
        """What is committed there by now."""
        try:
            flags = apsw.SQLITE_OPEN_READONLY
            database = apsw.Connection(str(self._path), flags=flags)
            database.set_busy_timeout(5_000)
            streams = [n for (n,) in database.execute("select id from stream")]
            for stream in streams:
                last = self._last.get(stream, -1)
                low, high = pack(stream, last + 1), pack(stream + 1, 0)
                sql = "select id, body from entry where id >= ? and id < ? order by id"
                for row, body in database.execute(sql, (low, high)):
                    self._last[stream] = unpack(row)[1]
                    self.tokens |= {t.decode() for t in _TOKEN.findall(body or b"")}
            database.close()
        except apsw.Error:
            # Its daemon was killed just now, and the next one opens it.
            pass
        return self.tokens


class Writer(threading.Thread):
    """Somebody who works on one machine."""

    def __init__(self, name: str, folder: Path, history: History, seed: str, count: int) -> None:
        super().__init__(name=name)
        self._folder, self._history = folder, history
        self._draw, self._count = random.Random(f"{seed}/{name}"), count
        self.written: list[str] = []
        self._mine: dict[str, str] = {}

    def run(self) -> None:
        while len(self.written) < self._count:
            time.sleep(self._draw.uniform(0.08, 0.25))
            file = self._folder / f"h{self._draw.randrange(FILES)}.md"
            mine = self._mine.get(file.name)
            if mine is not None and mine not in self._history.read():
                continue
            token = f"{self.name}-{len(self.written)}"
            tail = "tail " * self._draw.randrange(50)
            text = f"# notes\nline one\nvalue {token}\nline three\n{tail}\n"
            if self._draw.random() < 0.5:
                new = self._folder / f".{token}.swp"
                new.write_text(text)
                os.rename(new, file)
            else:
                file.write_text(text)
            self._mine[file.name] = token
            self.written.append(token)


class Outcome:
    """What a hammering came to."""

    def __init__(self, writes: int, kills: int, lost: list[str], trouble: list[str]) -> None:
        self.writes, self.kills, self.lost, self.trouble = writes, kills, lost, trouble

    def __str__(self) -> str:
        said = f"{self.writes} writes, {self.kills} kills, {len(self.lost)} lost"
        return "; ".join([said, *self.lost[:10], *self.trouble])


def hammer(folder: Path, writes: int, kill_every_s: float, seed: str) -> Outcome:
    """Do it, with real daemons below this folder."""
    with FolderFleet(folder, *NAMES) as fleet:
        fleet.share(*NAMES)
        histories = {name: History(fleet.home(name)) for name in NAMES}
        writers = [
            Writer(name, fleet.notes(name), histories[name], seed, writes // len(NAMES))
            for name in NAMES
        ]
        for each in writers:
            each.start()
        draw, kills, began = random.Random(seed), 0, time.monotonic()
        while any(each.is_alive() for each in writers):
            time.sleep(0.2)
            if kill_every_s and time.monotonic() - began > kill_every_s * (kills + 1):
                name = draw.choice(NAMES)
                fleet.kill(name)
                time.sleep(draw.uniform(0.0, 2.0))
                fleet.up(name)
                kills += 1
        for each in writers:
            each.join()
        trouble = _rest(fleet)
        every = {token for each in writers for token in each.written}
        known = set().union(*(each.read() for each in histories.values()))
        return Outcome(len(every), kills, sorted(every - known), trouble)


def _rest(fleet: FolderFleet) -> list[str]:
    """Wait until all folders are equal; what is wrong with them."""

    def seen(name: str) -> dict[str, bytes]:
        top = fleet.notes(name)
        try:
            return {path.name: path.read_bytes() for path in top.iterdir()}
        except FileNotFoundError:
            return {}

    def equal() -> bool:
        first, *others = [seen(name) for name in NAMES]
        return all(each == first for each in others) and set(first) == {
            f"h{n}.md" for n in range(FILES)
        }

    try:
        until(equal, "the folders are equal", within_s=REST_S)
        # And stay so: nothing is under way any more.
        time.sleep(5)
        assert equal()
    except AssertionError:
        return [f"{name}: {sorted(seen(name))}" for name in NAMES] + [
            f"{name} status: {fleet.at(name, 'context', 'status').out}" for name in NAMES
        ]
    return [
        f"{name}/{file}: a marker"
        for name in NAMES
        for file, text in seen(name).items()
        if b"<<<<<<<" in text
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=2_000)
    parser.add_argument("--kill-every", type=float, default=10.0, help="seconds; 0 for never")
    parser.add_argument("--seed", default=str(int(time.time())))
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    with tempfile.TemporaryDirectory(prefix="muster-hammer-") as folder:
        outcome = hammer(Path(folder), asked.writes, asked.kill_every, asked.seed)
    print(outcome)
    return 1 if outcome.lost or outcome.trouble else 0


if __name__ == "__main__":
    sys.exit(main())
