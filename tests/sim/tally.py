"""A fold that counts: the witness for exactly once and in order.

It is fed every entry of the kinds below and keeps, per stream, how many it saw and a hash chained
over their ids. Whoever knows the stream's entries can compute what it must say.
"""

import hashlib
from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.log.entry import Entry
from muster.log.fold import Rows, Table
from muster.log.stream import StreamName

KINDS: Final = frozenset(
    {
        "machine.open", "machine.record", "machine.facts", "operator.record", "order.take",
        "task.open", "task.assign", "task.settle", "attempt.start", "attempt.finish",
        "message.send", "incident.open",
    }
)  # fmt: skip


class TallyRow(NamedTuple):
    stream: StreamName
    one: int
    seen: int
    last: int
    chain: bytes


TALLY: Final = Table("tally", TallyRow)


class Tally:
    """See the top of this file."""

    name = "tally"
    tables = (TALLY,)
    kinds = KINDS

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        row = rows.get(TALLY, 0) or TallyRow(rows.stream, 0, 0, -1, b"")
        yield TallyRow(rows.stream, 0, row.seen + 1, entry.header.seq, chained(row.chain, entry))


def chained(chain: bytes, entry: Entry) -> bytes:
    return hashlib.sha256(chain + entry.id).digest()
