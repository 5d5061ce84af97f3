"""The admission order: in which order, and when, this machine took entries in.

Rule 1: every entry has one admission number here, and it is never used again.
Rule 2: cutting a stream back takes a number too, so that a rebuild repeats it at its place.

Numbers are given in runs: one row for entries that came together. History rows of the fold
tables carry these numbers, which is what makes "as of a past moment" well defined although
machines never agree on an order between streams.
"""

from collections.abc import Iterator
from typing import NamedTuple

from muster.store.sqlite import Database, SqlValue


class Run(NamedTuple):
    """`entries` entries of `stream` from `start`; none means it was cut back to `start`."""

    number: int
    ms: int
    stream: int
    start: int
    entries: int


class Order:
    """The admission order of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[Run] = []
        self._next = 0
        self.load()

    def load(self) -> None:
        """Read where the order stands; what was not committed is forgotten."""
        self._pending.clear()
        found = self._database.query("select * from run order by number desc limit 1")
        self._next = 0
        if found:
            last = _run(found[0])
            self._next = last.number + max(1, last.entries)

    def add(self, ms: int, stream: int, start: int, count: int) -> int:
        """Give `count` entries their numbers; returns the first."""
        number = self._next
        self._next += count
        if self._pending:
            last = self._pending[-1]
            follows = last.stream == stream and last.start + last.entries == start and last.entries
            if follows and last.ms == ms:
                self._pending[-1] = last._replace(entries=last.entries + count)
                return number
        self._pending.append(Run(number, ms, stream, start, count))
        return number

    def cut(self, ms: int, stream: int, size: int) -> int:
        """Give the cutting back of a stream its number."""
        number = self._next
        self._next += 1
        self._pending.append(Run(number, ms, stream, size, 0))
        return number

    def flush(self) -> None:
        """Write the runs that were added."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._database.executemany(
                "insert into run(number, ms, stream, start, entries) values(?, ?, ?, ?, ?)", pending
            )

    def of(self, stream: int, seq: int) -> tuple[int, int] | None:
        """Return the admission number and the time of an entry."""
        self.flush()
        found = self._database.query(
            "select * from run where stream = ? and start <= ? and entries > 0 "
            "order by start desc limit 1",
            (stream, seq),
        )
        if not found:
            return None
        run = _run(found[0])
        inside = seq < run.start + run.entries
        return (run.number + seq - run.start, run.ms) if inside else None

    def at(self, ms: int) -> int:
        """Return the last admission number given at `ms` or before, -1 when there was none."""
        self.flush()
        found = self._database.query(
            "select * from run where ms <= ? order by ms desc, number desc limit 1", (ms,)
        )
        if not found:
            return -1
        run = _run(found[0])
        return run.number + max(1, run.entries) - 1

    def runs(self, stream: int | None = None) -> Iterator[Run]:
        """Give all runs in order, or those of one stream."""
        self.flush()
        after = -1
        while found := self._database.query(
            "select * from run where number > ?1 and (?2 is null or stream = ?2) "
            "order by number limit 1000",
            (after, stream),
        ):
            for row in found:
                run = _run(row)
                after = run.number
                yield run

    @property
    def next(self) -> int:
        """The number that the next entry will get."""
        return self._next


def _run(row: tuple[SqlValue, ...]) -> Run:
    return Run(*row)  # type: ignore[arg-type]
