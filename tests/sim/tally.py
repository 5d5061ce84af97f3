"""A fold that counts: the witness for exactly once and in order.

It is fed every entry of the kinds below and keeps, per stream, how many it saw and a hash chained
over their ids. Whoever knows the stream's entries can compute what it must say.
"""

import hashlib
from collections.abc import Iterable
from typing import Final

from muster.log.entry import Entry
from muster.log.fold import Change, Rows, Table

KINDS: Final = frozenset(
    {
        "machine.open", "machine.record", "machine.facts", "operator.record", "order.take",
        "task.open", "task.assign", "task.settle", "attempt.start", "attempt.finish",
        "message.send", "incident.open",
    }
)  # fmt: skip
TABLE: Final = Table(
    "tally",
    key=(("one", "int"),),
    columns=(("seen", "int"), ("last", "int"), ("chain", "blob")),
)


class Tally:
    """See the top of this file."""

    name = "tally"
    tables = (TABLE,)
    kinds = KINDS

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        row = rows.get("tally", (0,)) or (0, -1, b"")
        seen, _, chain = row
        assert isinstance(seen, int)
        assert isinstance(chain, bytes)
        yield Change("tally", (0,), (seen + 1, entry.header.seq, chained(chain, entry)))


def chained(chain: bytes, entry: Entry) -> bytes:
    return hashlib.sha256(chain + entry.id).digest()
