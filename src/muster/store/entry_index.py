"""Where an entry lies, by its id.

Rule 1: an index is written in sorted runs, once, and never changed.
Rule 2: what is not yet in a run is in memory, and is found again from the entries after a crash.
Rule 3: a lookup goes from the newest to the oldest, and who finds what it wants goes no further.

Ids are hashes, so a B-tree over them would dirty one page per entry at random: measured, a commit
of 64 entries took twice as long. A run instead covers 16,384 entries in admission order and is
written in one piece, 16 bytes per entry. What is asked for is nearly always young. To pass over a
run costs half a microsecond where the beginnings of its keys are in memory (four bytes an entry,
kept when it is written, or read when a lookup first comes by), and some five microseconds where
only SQLite knows it.
"""

import sys
from array import array
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from typing import Final

from muster.store.admission_order import AdmissionOrder
from muster.store.schema import pack
from muster.store.sqlite import Database, as_bytes, as_int
from muster.store.tree import leaf_hashes

# Opening hashes at most this many headers.
RUN_ENTRIES: Final = 16_384
# With 16 bytes each, 240 pairs fill a page of SQLite's.
CHUNK_PAIRS: Final = 240
KEY_BYTES: Final = 8
BEGINNING_BYTES: Final = 4
PAIR_BYTES: Final = 16
# So many of the newest runs are known by the beginnings of their keys: eight megabytes, two million
# entries.
RUNS_KNOWN_MAX: Final = 128
# To learn one takes a millisecond and a half: the first lookup of what is old is no long step.
RUNS_PER_LOOKUP: Final = 8


class EntryIndex:
    """The index of a database."""

    def __init__(self, database: Database, order: AdmissionOrder) -> None:
        self._database = database
        self._order = order
        # Entries that no run covers, in admission order, as (first row, ids).
        self._pending: list[tuple[int, Sequence[bytes]]] = []
        self._pending_entries = 0
        # The same by key, as far as a lookup needed it.
        self._by_key: dict[bytes, list[int]] = {}
        self._keyed = 0
        self._runs = 0
        # By run, the first four bytes of each key, in order.
        self._known: dict[int, array[int]] = {}
        # How much of what is pending was committed; None when a run was written since.
        self._sure: int | None = None
        self.load()

    def load(self) -> None:
        """Find the entries that no run covers; what was not committed is forgotten."""
        self._clear_pending()
        self._known.clear()
        found = self._database.query("select count(*), max(upto) from directory")
        self._runs = as_int(found[0][0])
        covered = -1 if found[0][1] is None else as_int(found[0][1])
        # A run is always written whole, so none of the order's runs is covered in part.
        for run in self._order.runs(after=covered):
            ids = leaf_hashes(self._database, run.stream, run.start, run.start + run.entries)
            self.put(pack(run.stream, run.start), ids)
        self._sure = len(self._pending)

    def begin(self) -> None:
        """A transaction begins: what is here is on the disk."""
        self._sure = len(self._pending)

    def forget(self) -> None:
        """Drop what a rolled back transaction put in; hashing the rest again would be dear."""
        if self._sure is None:
            self.load()
            return
        del self._pending[self._sure :]
        self._pending_entries = sum(len(ids) for _, ids in self._pending)
        self._by_key.clear()
        self._keyed = 0

    def put(self, first_row: int, ids: Sequence[bytes]) -> None:
        """Add consecutive entries."""
        self._pending.append((first_row, ids))
        self._pending_entries += len(ids)

    def rows(self, low: bytes, high: bytes) -> Iterator[int]:
        """Give the rows of entries whose ids begin with `low` to `high`, or with what is between.

        The newest come first, as far as runs go. Of ids that are given whole it is nearly always
        one; what is given is only what the first eight bytes tell.
        """
        low, high = low[:KEY_BYTES], high[:KEY_BYTES]
        for first_row, ids in self._pending[self._keyed :]:
            for row, pending_id in enumerate(ids, first_row):
                self._by_key.setdefault(pending_id[:KEY_BYTES], []).append(row)
        self._keyed = len(self._pending)
        keys = (low,) if low == high else [key for key in self._by_key if low <= key <= high]
        for key in keys:
            yield from tuple(self._by_key.get(key, ()))
        first, last = (int.from_bytes(key[:BEGINNING_BYTES], "big") for key in (low, high))
        may_learn = RUNS_PER_LOOKUP
        for run in range(self._runs - 1, -1, -1):
            known = self._known.get(run)
            if known is None and may_learn and run >= self._runs - RUNS_KNOWN_MAX:
                may_learn -= 1
                parts = self._database.query(
                    "select data from leaf where run = ? order by first", (run,)
                )
                known = self._learn(run, b"".join(as_bytes(part) for (part,) in parts))
            if known is not None:
                at = bisect_left(known, first)
                if at == len(known) or known[at] > last:
                    continue
            chunks = self._database.query(
                "select data from leaf where run = ?1 and first <= ?3 and first >= coalesce("
                "(select max(first) from leaf where run = ?1 and first <= ?2), ?2)",
                (run, low, high),
            )
            for (data,) in chunks:
                yield from _matches(as_bytes(data), low, high)

    def _learn(self, run: int, pairs: bytes) -> "array[int]":
        """The beginnings of a run's keys, from now on in memory."""
        words = array("I", pairs)
        if sys.byteorder == "little":
            words.byteswap()
        self._known[run] = words[:: PAIR_BYTES // BEGINNING_BYTES]
        return self._known[run]

    def flush(self) -> None:
        """Write a run when enough entries wait; `order` has given all of them their numbers."""
        if self._pending_entries < RUN_ENTRIES:
            return
        pairs = sorted(
            entry_id[:KEY_BYTES] + row.to_bytes(8, "big")
            for first_row, ids in self._pending
            for row, entry_id in enumerate(ids, first_row)
        )
        self._database.executemany(
            "insert into leaf(run, first, data) values(?, ?, ?)",
            (
                (self._runs, pairs[at][:KEY_BYTES], b"".join(pairs[at : at + CHUNK_PAIRS]))
                for at in range(0, len(pairs), CHUNK_PAIRS)
            ),
        )
        self._database.execute(
            "insert into directory(run, upto) values(?, ?)", (self._runs, self._order.next - 1)
        )
        # What is in one's hands costs a tenth of what it costs to read it again.
        self._learn(self._runs, b"".join(pairs))
        self._known.pop(self._runs - RUNS_KNOWN_MAX, None)
        self._runs += 1
        self._clear_pending()
        self._sure = None

    def _clear_pending(self) -> None:
        self._pending.clear()
        self._pending_entries = 0
        self._by_key.clear()
        self._keyed = 0


def _matches(chunk: bytes, low: bytes, high: bytes) -> Iterator[int]:
    if low != high:
        for at in range(0, len(chunk), PAIR_BYTES):
            if low <= chunk[at : at + KEY_BYTES] <= high:
                yield int.from_bytes(chunk[at + KEY_BYTES : at + PAIR_BYTES], "big")
        return
    at = chunk.find(low)
    while at >= 0:
        # What begins elsewhere lies across two keys, or in a row.
        if at % PAIR_BYTES == 0:
            yield int.from_bytes(chunk[at + KEY_BYTES : at + PAIR_BYTES], "big")
        at = chunk.find(low, at + 1)
