"""Where an entry lies, by its id.

Rule 1: an index is written in sorted runs, once, and never changed.
Rule 2: what is not yet in a run is in memory, and is found again from the entries after a crash.

Ids are hashes, so a B-tree over them would dirty one page per entry at random: measured, a commit
of 64 entries took twice as long. A run instead covers 16,384 entries in admission order and is
written in one piece, 16 bytes per entry; a lookup asks every run, a few microseconds each.
"""

from collections.abc import Sequence
from typing import Final

from muster.log.tree import leaf_hash
from muster.store.order import Order
from muster.store.schema import pack
from muster.store.sqlite import Database, as_bytes, as_int

# Lookups take a few microseconds per run, and opening hashes at most this many headers.
RUN_ENTRIES: Final = 16_384
# With 16 bytes each, 240 pairs fill a page of SQLite's.
CHUNK_PAIRS: Final = 240
KEY_BYTES: Final = 8
PAIR_BYTES: Final = 16


class Directory:
    """The index of a database."""

    def __init__(self, database: Database, order: Order) -> None:
        self._database = database
        self._order = order
        # Entries that no run covers, in admission order, as (first row, ids).
        self._pending: list[tuple[int, Sequence[bytes]]] = []
        self._pending_entries = 0
        # The same by key, as far as a lookup needed it.
        self._by_key: dict[bytes, list[int]] = {}
        self._keyed = 0
        self._runs = 0
        # How much of what is pending was committed; None when a run was written since.
        self._sure: int | None = None
        self.load()

    def load(self) -> None:
        """Find the entries that no run covers; what was not committed is forgotten."""
        self._clear_pending()
        found = self._database.query("select count(*), max(upto) from directory")
        self._runs = as_int(found[0][0])
        covered = -1 if found[0][1] is None else as_int(found[0][1])
        # A run is always written whole, so none of the order's runs is covered in part.
        for run in self._order.runs(after=covered):
            headers = self._database.query(
                "select header from entry where id >= ? and id < ? order by id",
                (pack(run.stream, run.start), pack(run.stream, run.start + run.entries)),
            )
            ids = [leaf_hash(as_bytes(header)) for (header,) in headers]
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

    def rows(self, entry_id: bytes) -> list[int]:
        """Return the rows of the entries whose ids begin like `entry_id`: nearly always one."""
        key = entry_id[:KEY_BYTES]
        for first_row, ids in self._pending[self._keyed :]:
            for row, pending_id in enumerate(ids, first_row):
                self._by_key.setdefault(pending_id[:KEY_BYTES], []).append(row)
        self._keyed = len(self._pending)
        found = list(self._by_key.get(key, ()))
        for run in range(self._runs):
            chunk = self._database.query(
                "select data from leaf where run = ? and first <= ? order by first desc limit 1",
                (run, key),
            )
            if chunk:
                found += _matches(as_bytes(chunk[0][0]), key)
        return found

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
        self._runs += 1
        self._clear_pending()
        self._sure = None

    def _clear_pending(self) -> None:
        self._pending.clear()
        self._pending_entries = 0
        self._by_key.clear()
        self._keyed = 0


def _matches(chunk: bytes, key: bytes) -> list[int]:
    return [
        int.from_bytes(chunk[at + KEY_BYTES : at + PAIR_BYTES], "big")
        for at in range(0, len(chunk), PAIR_BYTES)
        if chunk[at : at + KEY_BYTES] == key
    ]
