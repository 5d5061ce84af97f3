"""The admission order: in which order, and when, this machine took entries in.

Rule 1: every entry has one admission number here, and it is never used again.
Rule 2: cutting a stream back takes numbers too, so that a rebuild repeats it at its place.
Rule 3: admission time never runs backwards, whatever the clock does.

Numbers are given in runs: one row for entries that came together. History rows of the fold
tables carry these numbers, which is what makes "as of a past moment" well defined although
machines never agree on an order between streams.
"""

from collections.abc import Iterator
from typing import Final, NamedTuple

from muster.store.sqlite import Database

# Cutting a stream back changes any number of rows, and an admission has room for 4096 of them.
CUT_NUMBERS: Final = 1 << 20


class Run(NamedTuple):
    """`entries` entries of `stream` from `start`; none means it was cut back to `start`."""

    number: int
    ms: int
    stream: int
    start: int
    entries: int

    @property
    def end(self) -> int:
        """The number after the last one of this run."""
        return self.number + (self.entries or CUT_NUMBERS)


class AdmissionOrder:
    """The admission order of a database."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._pending: list[Run] = []
        # The number that the next entry will get, and the time of the last.
        self.next = 0
        self._ms = 0
        self.load()

    def load(self) -> None:
        """Read where the order stands; what was not committed is forgotten."""
        self._pending.clear()
        found = self._database.query("select * from admission order by number desc limit 1")
        last = Run._make(found[0]) if found else Run(0, 0, 0, 0, 0)
        self.next = last.end if found else 0
        self._ms = last.ms

    def add(self, ms: int, stream: int, start: int, entries: int) -> int:
        """Give so many entries, or with none the cutting back to `start`, their numbers.

        Returns the first of them.
        """
        self._ms = max(self._ms, ms)
        run = Run(self.next, self._ms, stream, start, entries)
        self._pending.append(run)
        self.next = run.end
        return run.number

    def flush(self) -> None:
        """Write the runs that were added."""
        if self._pending:
            pending, self._pending = self._pending, []
            self._database.executemany(
                "insert into admission(number, ms, stream, start, entries) values(?, ?, ?, ?, ?)",
                pending,
            )

    def of(self, stream: int, seq: int) -> tuple[int, int] | None:
        """Return the admission number and the time of an entry."""
        self.flush()
        found = self._database.query(
            "select * from admission where stream = ? and start <= ? and entries > 0 "
            "order by start desc limit 1",
            (stream, seq),
        )
        if not found:
            return None
        run = Run._make(found[0])
        inside = seq < run.start + run.entries
        return (run.number + seq - run.start, run.ms) if inside else None

    def at(self, ms: int) -> int:
        """Return the last admission number given at `ms` or before, -1 when there was none."""
        self.flush()
        low, high = -1, self.next - 1
        # Times rise with the numbers, so the border is found without an index over times.
        while low < high:
            middle = (low + high + 1) // 2
            run = self._holding(middle)
            if run.ms <= ms:
                low = run.end - 1
            else:
                high = run.number - 1
        return low

    def runs(self, stream: int | None = None, *, after: int = -1) -> Iterator[Run]:
        """Give the runs with numbers beyond `after` in order, all or those of one stream."""
        self.flush()
        while found := self._database.query(
            "select * from admission where number > ?1 and (?2 is null or stream = ?2) "
            "order by number limit 1000",
            (after, stream),
        ):
            for row in found:
                run = Run._make(row)
                after = run.number
                yield run

    def since(self, number: int) -> Iterator[Run]:
        """Give the runs in order, from the one that holds `number`; some run must."""
        self.flush()
        return self.runs(after=self._holding(number).number - 1)

    def _holding(self, number: int) -> Run:
        found = self._database.query(
            "select * from admission where number <= ? order by number desc limit 1", (number,)
        )
        return Run._make(found[0])
