"""The heads of the streams: how far each one is held, and what proves it.

Rule 1: heads live in memory while the store is open and are written with every commit that moves
        them; a rolled back transaction drops them, and they are read again.
Rule 2: `tip` is the newest seal that covers exactly what we hold, so it is what we serve with;
        `latest` is the newest seal known, which may be ahead of us.
Rule 3: of the seals of one tile of 256 entries only the newest stays: enough to prove any
        prefix in time, and never more bytes than the entries.

A segment may arrive under a seal far ahead of its entries. The seal and the proof that came with
it are kept at the size they prove, so that we can serve the same entries on before we hold the
rest: the writer may be gone by then.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from muster.log.entry import Entry
from muster.log.seal import Seal
from muster.log.stream import StreamName
from muster.log.tree import HASH_BYTES, Range
from muster.store.schema import SEQ_MASK, TILE_WIDTH, pack, unpack
from muster.store.sqlite import Database, as_bytes, as_int, as_text
from muster.store.tree import Tiles, leaf_hashes

# No row has a number below 0, whatever `pack` makes of it.
UNKNOWN: Final = -1


@dataclass(slots=True)
class Head:
    """One stream; `frozen` is the size it was cut back to, None while it lives."""

    id: int
    name: StreamName
    size: int
    held: int
    range: Range
    frozen: int | None
    tip: Seal | None = None
    latest: Seal | None = None
    # The leaf hashes of the incomplete tile, read when the stream first grows.
    tail: list[bytes] | None = None
    # The last entries, which the tables do not show yet; see `Contents.settle`.
    fresh: list[Entry] = field(default_factory=list)
    fresh_ms: int = 0


class Streams:
    """All heads of a database."""

    def __init__(self, database: Database, tiles: Tiles) -> None:
        self._database = database
        self._tiles = tiles
        # In the order in which this machine learned of the streams.
        self.heads: dict[StreamName, Head] = {}
        # Rows name streams by these numbers.
        self.by_id: dict[int, Head] = {}
        # How many streams each machine has here.
        self.counts: Counter[str] = Counter()
        # Heads that the database does not show as they are.
        self.moved: dict[int, Head] = {}
        self._last_id = 0
        self.load()

    def load(self) -> None:
        """Read all heads; what was not committed is forgotten."""
        self.heads.clear()
        self.by_id.clear()
        self.counts.clear()
        self.moved.clear()
        found = self._database.query("select id, name, size, held, range, frozen from stream")
        for number, text, size, held, packed, frozen in found:
            name = StreamName.parse(as_text(text))
            after = Range.decode(as_bytes(packed))
            cut = None if frozen is None else as_int(frozen)
            head = Head(as_int(number), name, as_int(size), as_int(held), after, cut)
            self._read_seals(head)
            self._keep(head)
        self._last_id = max(self.by_id, default=0)

    def _read_seals(self, head: Head) -> None:
        tip = self.seals(head, 0, head.size, "and proof = x'' order by id desc limit 1")
        latest = self.seals(head, 0, SEQ_MASK, "order by size desc limit 1")
        head.tip = tip[0] if tip else None
        head.latest = latest[0] if latest else None

    def _keep(self, head: Head) -> None:
        self.heads[head.name] = head
        self.by_id[head.id] = head
        self.counts[head.name.machine] += 1

    def of(self, name: StreamName) -> Head:
        """Return the head to read; where nothing is known of the stream, one that holds nothing."""
        return self.heads.get(name) or Head(UNKNOWN, name, 0, 0, Range(), None)

    def open(self, name: StreamName) -> Head:
        """Return the head, a new one of size 0 when the stream is new here."""
        head = self.heads.get(name)
        if head is None:
            self._last_id += 1
            head = Head(self._last_id, name, 0, 0, Range(), None, tail=[])
            self._keep(head)
            self._database.execute(
                "insert into stream(id, name, size, held, range, frozen) "
                "values(?, ?, 0, 0, ?, null)",
                (head.id, str(name), head.range.encode()),
            )
        return head

    def drop(self, head: Head) -> None:
        """Forget a stream of which no entry is here: its seals, its receipts and its name."""
        assert head.held == 0, "entries are evidence and stay"
        assert head.frozen is None, "its number stands in the admission order"
        first, last = pack(head.id, 0), pack(head.id + 1, 0) - 1
        self._database.execute("delete from seal where id between ? and ?", (first, last))
        self._database.execute("delete from cosign where stream = ?", (head.id,))
        self._database.execute("delete from stream where id = ?", (head.id,))
        self.moved.pop(head.id, None)
        del self.heads[head.name], self.by_id[head.id]
        self.counts[head.name.machine] -= 1

    def grow(self, head: Head, entries: Sequence[Entry], after: Range, now_ms: int) -> None:
        """Move the head to `after`, its range with `entries`; `settle` does the rest of it."""
        head.fresh += entries
        head.fresh_ms = now_ms
        head.range = after
        head.size = head.held = after.size
        self.moved[head.id] = head

    def tile(self, head: Head, ids: Sequence[bytes], start: int) -> None:
        """Keep the tiles that the entries from `start` complete."""
        tail = head.tail
        if tail is None:
            tail = head.tail = leaf_hashes(
                self._database, head.id, start - start % TILE_WIDTH, start
            )
        tile = (start - len(tail)) // TILE_WIDTH
        tail += ids
        while len(tail) >= TILE_WIDTH:
            self._tiles.complete(head.id, tile, tail[:TILE_WIDTH])
            del tail[:TILE_WIDTH]
            tile += 1

    def cut_back(self, head: Head, common: int, before: Range) -> None:
        """Let only the entries in `before` count, `common` at most; the rest stays as evidence."""
        head.frozen = common
        head.size = before.size
        head.range = before
        head.tail = None
        self.moved[head.id] = head
        self._read_seals(head)

    def seal(self, head: Head, seal: Seal) -> bool:
        """Keep a seal of the stream; False when a newer one is known."""
        ahead = seal.size > head.size
        known = head.latest if ahead else head.tip
        if known is not None and known.size >= seal.size:
            return False
        self._insert_seal(head, seal.size, seal, b"")
        same_tile = known and (known.size - 1) // TILE_WIDTH == (seal.size - 1) // TILE_WIDTH
        if known is not None and same_tile and (known.size > head.size) == ahead:
            self._database.execute("delete from seal where id = ?", (pack(head.id, known.size),))
        if not ahead:
            head.tip = seal
        if head.latest is None or head.latest.size < seal.size:
            head.latest = seal
        return True

    def seal_prefix(self, head: Head, seal: Seal, proof: tuple[bytes, ...]) -> None:
        """Keep a seal ahead of us with the proof from what we hold now."""
        self.seal(head, seal)
        if head.tip is None or head.tip.size < head.size:
            self._insert_seal(head, head.size, seal, b"".join(proof))

    def settle_seals(self, head: Head) -> None:
        """Tidy up after growth: seals that were ahead may now cover just what we hold."""
        if head.latest is None or head.latest is head.tip:
            return
        if head.latest.size > head.size:
            self._read_seals(head)
            return
        head.tip = head.latest
        self._database.execute(
            "delete from seal where id between ? and ? and proof <> x'' and size <= ?",
            (pack(head.id, 0), pack(head.id, head.size), head.size),
        )

    def prefix_seal(
        self, head: Head, start: int, end: int
    ) -> tuple[int, Seal, tuple[bytes, ...]] | None:
        """Return the largest prefix in (start, end] that a seal ahead of us proves, and how."""
        found = self._database.query(
            "select id, size, root, note, proof from seal "
            "where id > ? and id <= ? and proof <> x'' order by id desc limit 1",
            (pack(head.id, start), pack(head.id, end)),
        )
        if not found:
            return None
        row, size, root, note, proof = found[0]
        packed = as_bytes(proof)
        hashes = tuple(packed[at : at + HASH_BYTES] for at in range(0, len(packed), HASH_BYTES))
        seal = Seal(head.name, as_int(size), as_bytes(root), as_bytes(note))
        return unpack(as_int(row))[1], seal, hashes

    def seals(self, head: Head, first: int, last: int, rest: str) -> list[Seal]:
        """Return seals kept at the sizes from `first` to `last`; `rest` ends the question in SQL.

        Those without a proof are of what is stored here, the others of what is ahead of it.
        """
        found = self._database.query(
            f"select size, root, note from seal where id between ? and ? {rest}",  # noqa: S608 - our own words
            (pack(head.id, first), pack(head.id, last)),
        )
        return [
            Seal(head.name, as_int(size), as_bytes(root), as_bytes(note))
            for size, root, note in found
        ]

    def flush(self) -> None:
        """Write the heads that moved."""
        rows = [
            (head.size, head.held, head.range.encode(), head.frozen, head.id)
            for head in self.moved.values()
        ]
        self.moved.clear()
        if rows:
            self._database.executemany(
                "update stream set size = ?, held = ?, range = ?, frozen = ? where id = ?", rows
            )

    def _insert_seal(self, head: Head, end: int, seal: Seal, proof: bytes) -> None:
        self._database.execute(
            "insert or replace into seal(id, size, root, note, proof) values(?, ?, ?, ?, ?)",
            (pack(head.id, end), seal.size, seal.root, seal.note, proof),
        )
