"""Who was shown what becomes rows, in the journal of the machine that showed it.

Rule 1: a showing names ids. No row holds a word of what was shown.
Rule 2: it is of this machine alone: a journal goes to nobody, and whoever asks elsewhere hears of
        the showings there.
Rule 3: what one attempt was shown is read by no other, also not by a later one of the same task:
        each is another agent, which remembers nothing.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.errors import Malformed
from muster.log.entry import Entry, EntryId
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import JOURNAL, StreamName
from muster.memory.kinds import MemoryRead, check_read


class Reader(NamedTuple):
    """An attempt of a task, by its epoch, or a session of a program beside any."""

    task: str
    epoch: tuple[int, int]
    session: str = ""

    def __str__(self) -> str:
        """The word for it in rows. A program that reads for an attempt is that attempt."""
        order, count = self.epoch
        return f"{self.task}/{order}-{count}" if self.task else f"session/{self.session}"


class ReadRow(NamedTuple):
    """One showing. `outside` is 1 where something of it came from outside the fleet."""

    stream: StreamName
    seq: int
    reader: str
    why: str
    task: str
    actor: str
    outside: int
    at_ms: int


class ShownRow(NamedTuple):
    """What a showing showed as its `m<n + 1>`."""

    stream: StreamName
    seq: int
    n: int
    shown: EntryId
    reader: str


READ: Final = Table(
    "memory_read", ReadRow, indexes=(("reader", "at_ms"), ("task",), ("actor", "at_ms"))
)
SHOWN: Final = Table("memory_shown", ShownRow, key=2, indexes=(("shown", "reader"),))


class MemoryReadFold:
    """See the rules at the top of this file."""

    name = "shown"
    tables = (READ, SHOWN)
    kinds = frozenset({"memory.read"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        if rows.stream.scope != JOURNAL:
            raise Skip("wrong-scope")
        body, header = body_as(entry, MemoryRead), entry.header
        try:
            check_read(body)
        except Malformed as error:
            raise Skip("bad-memory") from error
        row = ReadRow(
            rows.stream, header.seq, str(Reader(body.task, body.epoch, body.session)), body.why,
            body.task, header.actor, int(body.outside), header.t[0],
        )  # fmt: skip
        return [row, *_shown(row, body.shown or body.versions)]


def _shown(row: ReadRow, ids: list[str]) -> Iterable[ShownRow]:
    for n, each in enumerate(ids):
        yield ShownRow(row.stream, row.seq, n, EntryId(bytes.fromhex(each)), row.reader)
