"""Everything that one database holds, as the parts of a store that work on it together.

Rule: appending only hashes. Rows, tiles and tables follow with the commit or the first reader,
because it is much cheaper for many entries at once: whoever reads calls `settle` before.
"""

from collections.abc import Sequence
from pathlib import Path

from muster.log.fold import Fold
from muster.store.admission_order import AdmissionOrder
from muster.store.cosigns import Cosigns
from muster.store.entry_cache import EntryCache
from muster.store.entry_index import EntryIndex
from muster.store.folding import Folding
from muster.store.schema import pack, prepare
from muster.store.sqlite import Database
from muster.store.streams import Head, Streams
from muster.store.tree import Tiles


class Contents:
    """See the rule at the top of this file."""

    def __init__(self, path: Path | str, folds: Sequence[Fold], image: bytes | None) -> None:
        self.database = Database(path, image=image)
        prepare(self.database)
        self.cache = EntryCache()
        self.cosigns = Cosigns(self.database)
        # Roots by stream and size.
        self.roots: dict[tuple[int, int], bytes] = {}
        self.tiles = Tiles(self.database)
        self.streams = Streams(self.database, self.tiles)
        self.admission = AdmissionOrder(self.database)
        self.index = EntryIndex(self.database, self.admission)
        self.folding = Folding(self.database, self.streams.by_id, folds)

    def settle(self) -> None:
        """Bring tables, tiles and numbers up to the heads."""
        for head in self.streams.moved.values():
            if head.fresh:
                self.settle_stream(head)

    def settle_stream(self, head: Head) -> None:
        """Bring what depends on one stream up to its head."""
        entries, head.fresh = head.fresh, []
        start = head.size - len(entries)
        first = pack(head.id, start)
        number = self.admission.add(head.fresh_ms, head.id, start, len(entries))
        self.database.executemany(
            "insert into entry(id, hash, header, salt, body) values(?, ?, ?, ?, ?)",
            [(row, e.id, e.raw, e.salt, e.body) for row, e in enumerate(entries, first)],
        )
        ids = [entry.id for entry in entries]
        self.cache.put(first, entries)
        self.index.put(first, ids)
        self.streams.tile(head, ids, start)
        self.folding.apply(head.id, entries, number)
