"""What a store shows: streams, entries, proofs, tables. Nothing here changes anything.

Rule 1: what a transaction has added is visible to its own reads, before the commit.
Rule 2: bytes are checked when they are read: an entry that rotted on the disk is reported and
        never served. It is healed by taking it from another machine.
Rule 3: only what a seal covers is served.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from muster.errors import Broken, Forged, NotFound, Refused
from muster.limits import SEGMENT_ENTRIES_MAX, SEGMENT_SLICE_BYTES, STREAMS_OF_MACHINE_MAX
from muster.log import entry as entries_of
from muster.log import tree as trees
from muster.log.admit import StreamState
from muster.log.entry import Entry
from muster.log.fold import Value
from muster.log.seal import Cosign, Seal
from muster.log.segment import Segment, weight
from muster.log.stream import MachineId, StreamName
from muster.store.admission import AdmissionOrder
from muster.store.cosigns import Cosigns
from muster.store.entry_cache import EntryCache
from muster.store.entry_index import KEY_BYTES, EntryIndex
from muster.store.fold_tables import CHANGE_BITS, FoldTable
from muster.store.folding import Folding
from muster.store.schema import pack, unpack
from muster.store.sqlite import Database, SqlValue, as_bytes, as_int
from muster.store.streams import Head, Streams
from muster.store.tree import StreamTree, Tiles

# Chosen arbitrarily; whoever wants more than this asks with SQL.
ROWS_MAX: Final = 100_000
# As a limit: all there are. For what must not be cut, since others could write what comes first.
EVERY_ROW: Final = -1

# Receipts come for the sizes of the last moments, each of them from several machines.
ROOTS_KEPT: Final = 4_096

_ENTRY: Final = "select header, salt, body, id, hash from entry"


class Skipped(NamedTuple):
    """An entry that a fold could not use."""

    fold: str
    stream: StreamName
    seq: int
    reason: str


class Reader:
    """The reading half of a store; `Store` adds the writing."""

    _database: Database
    _streams: Streams
    _tiles: Tiles
    _order: AdmissionOrder
    _directory: EntryIndex
    _folding: Folding
    _recent: EntryCache
    _cosigns: Cosigns
    _roots: dict[tuple[int, int], bytes]

    # --- streams ---------------------------------------------------------------------------

    def streams(self) -> list[StreamName]:
        """Return every stream that something is known of, in the order it was learned."""
        return [head.name for head in self._streams.all()]

    def streams_count(self) -> int:
        """Return how many streams something is known of."""
        return len(self._streams)

    def knows(self, stream: StreamName) -> bool:
        """Return whether anything is here of a stream: entries, or a seal of it."""
        return self._streams.get(stream) is not None

    def has_place(self, stream: StreamName) -> bool:
        """Return whether a stream may be kept: it is known, or its machine has few enough."""
        return self.knows(stream) or self._streams.count(stream.machine) < STREAMS_OF_MACHINE_MAX

    def size(self, stream: StreamName) -> int:
        """Return how many entries count."""
        head = self._streams.get(stream)
        return 0 if head is None else head.size

    def state(self, stream: StreamName) -> StreamState:
        """Return what `admit` decides by; the range is a copy."""
        head = self._streams.get(stream)
        if head is None:
            return StreamState(stream, 0, trees.Range())
        return StreamState(
            stream, head.size, head.range.copy(), head.frozen is not None, head.frozen or 0
        )

    def frozen_at(self, stream: StreamName) -> int | None:
        """Return where a forked stream was cut back, None while it lives."""
        head = self._streams.get(stream)
        return None if head is None else head.frozen

    def seal_of(self, stream: StreamName) -> Seal | None:
        """Return the newest seal that covers nothing beyond what is held."""
        head = self._streams.get(stream)
        return None if head is None else head.tip

    def latest_seal(self, stream: StreamName) -> Seal | None:
        """Return the newest seal known, which may be ahead of what is held."""
        head = self._streams.get(stream)
        return None if head is None else head.latest

    def seals(self, stream: StreamName) -> list[Seal]:
        """Return the seals kept: the newest of each 256 entries."""
        head = self._streams.get(stream)
        return [] if head is None else self._streams.kept_seals(head)

    # --- entries ---------------------------------------------------------------------------

    def slice(
        self, stream: StreamName, start: int, bytes_max: int = SEGMENT_SLICE_BYTES
    ) -> list[Entry]:
        """Return entries from `start` that together weigh at most `bytes_max`, at least one."""
        head = self._streams.get(stream)
        if head is None or start >= head.size:
            return []
        found: list[Entry] = []
        room = bytes_max
        for entry in self._read(head.id, start, min(head.size - start, SEGMENT_ENTRIES_MAX)):
            room -= weight(entry)
            if room < 0 and found:
                break
            found.append(entry)
        return found

    def segment(
        self,
        stream: StreamName,
        start: int,
        bytes_max: int = SEGMENT_SLICE_BYTES,
        bodies_from: int = 0,
    ) -> Segment | None:
        """Return the next entries from `start` with a seal and the proof up to it.

        Entries before `bodies_from` go without their bodies. None: nothing here is sealed.
        """
        head = self._streams.get(stream)
        entries = self.slice(stream, start, bytes_max)
        if head is None or not entries:
            return None
        cover = self._cover(head, start, start + len(entries))
        if cover is None:
            return None
        end, seal, proof = cover
        sent = [
            entry.without_body() if entry.header.seq < bodies_from else entry
            for entry in entries[: end - start]
        ]
        return Segment(stream, start, tuple(sent), seal, proof)

    def _cover(
        self, head: Head, start: int, end: int
    ) -> tuple[int, Seal, tuple[bytes, ...]] | None:
        """Return the largest prefix in (start, end] that can be proved, with seal and proof."""
        seal = head.tip
        if (seal is None or seal.size < end) and head.frozen is not None:
            seal = self._streams.branch_seal(head, end)
        if seal is not None and seal.size >= end:
            return end, seal, tuple(self.consistency(head.name, end, seal.size))
        ahead = self._streams.prefix_seal(head, start, end)
        tip = head.tip
        if tip is not None and tip.size > max(start, ahead[0] if ahead else 0):
            return tip.size, tip, ()
        return ahead

    def entry(self, entry_id: bytes | None) -> Entry | None:
        """Return the entry with this id, None when it is not held, counts no more or has none."""
        if not entry_id:
            return None
        return next((e for e in self._begins(entry_id, entry_id) if e.id == entry_id), None)

    def entries_like(self, text: str) -> Iterator[Entry]:
        """Give the entries that count whose ids begin with these hex digits, young ones first."""
        digits = text[: 2 * KEY_BYTES]
        low, high = (bytes.fromhex(digits.ljust(2 * KEY_BYTES, end)) for end in "0f")
        return (e for e in self._begins(low, high) if e.id.hex().startswith(text))

    def _begins(self, low: bytes, high: bytes) -> Iterator[Entry]:
        self._settle()
        for row in self._directory.rows(low, high):
            stream, seq = unpack(row)
            if seq < self._streams.by_id(stream).size:
                yield from self._read(stream, seq, 1)

    def entry_at(self, stream: StreamName, seq: int) -> Entry:
        """Return one entry, also one beyond the place where its stream was cut back.

        Raises: NotFound: the stream has no such entry here.
        """
        head = self._streams.get(stream)
        found = [] if head is None else list(self._read(head.id, seq, 1))
        if not found:
            raise NotFound(f"The entry {seq} of {stream} is not on this machine.")
        return found[0]

    def entries_of(self, stream: StreamName, start: int, kinds: Collection[str]) -> list[Entry]:
        """Return the entries of these kinds from `start` on, also where the stream was cut back."""
        self._settle()
        head = self._streams.get(stream)
        if head is None or start >= head.held:
            return []
        # SQLite looks through the headers: to parse all of them costs twenty times as much. In a
        # canonical header no text but a kind can hold these bytes, for its quotes are escaped.
        needles = [b'"kind":"%s"' % kind.encode() for kind in sorted(kinds)]
        of_kinds = " or ".join(["instr(header, ?)"] * len(needles))
        found = self._database.query(
            f"{_ENTRY} where id >= ? and id < ? and ({of_kinds}) order by id",
            (pack(head.id, start), pack(head.id, head.held), *needles),
        )
        return [self._parse(row) for row in found]

    def admitted(self, stream: StreamName, seq: int) -> tuple[int, int] | None:
        """Return the admission number and time (ms) of an entry, None when it is not held."""
        self._settle()
        head = self._streams.get(stream)
        return None if head is None else self._order.of(head.id, seq)

    @property
    def admissions(self) -> int:
        """The admission number that the next entry gets; between transactions, of what is there."""
        return self._order.next

    def admitted_since(self, since: int, until: int, most: int) -> tuple[list[Entry], int]:
        """Return the entries whose admission numbers are from `since` to before `until`.

        So many at most, also those that were cut back; and from which number on the next are read.
        """
        self._settle()
        found: list[Entry] = []
        for run in self._order.since(since) if since < until else ():
            at = max(0, since - run.number)
            count = min(run.entries - at, until - run.number - at, most - len(found))
            found += self._read(run.stream, run.start + at, count)
            if len(found) == most:
                return found, run.number + at + count
            if run.end >= until:
                break
        return found, until

    def _read(self, stream: int, start: int, count: int) -> Iterator[Entry]:
        seq, end = start, start + count
        self._settle()
        while seq < end:
            recent = self._recent.get(pack(stream, seq))
            if recent is None:
                break
            yield recent
            seq += 1
        if seq < end:
            found = self._database.query(
                f"{_ENTRY} where id >= ? and id < ? order by id",
                (pack(stream, seq), pack(stream, end)),
            )
            yield from map(self._parse, found)

    def _parse(self, row: tuple[SqlValue, ...]) -> Entry:
        header, salt, body, number, written = row
        raw = None if body is None else as_bytes(body)
        try:
            entry = entries_of.parse(as_bytes(header), as_bytes(salt), raw)
            if entry.id != written:
                raise Forged("its header is not the one that was written here")
            return entry
        except Refused as error:
            stream, seq = unpack(as_int(number))
            raise Broken(
                f"The entry {seq} of {self._streams.by_id(stream).name} rotted on this disk "
                f"({error}); check the disk and take it from another machine."
            ) from error

    # --- proofs ----------------------------------------------------------------------------

    def tree(self, stream: StreamName) -> StreamTree:
        """Return the Merkle tree of all that is stored of the stream, as of now."""
        self._settle()
        head = self._streams.get(stream)
        return self._tiles.of(0 if head is None else head.id)

    def root_at(self, stream: StreamName, size: int) -> bytes:
        """Return the root over the first `size` entries. Raises: NotFound."""
        head = self._streams.get(stream)
        number = 0 if head is None else head.id
        root = self._roots.get((number, size))
        if root is not None:
            return root
        if head is not None and head.size == size:
            root = head.range.root()
        else:
            self._check_held(stream, head, size)
            root = trees.root_at(self.tree(stream), size)
        if len(self._roots) >= ROOTS_KEPT:
            self._roots.clear()
        self._roots[number, size] = root
        return root

    def consistency(self, stream: StreamName, old: int, new: int) -> list[bytes]:
        """Return the proof that leads from the first `old` entries to the first `new`.

        Raises: NotFound: not that much is held.
        """
        head = self._streams.get(stream)
        if old in (0, new):
            return []
        self._check_held(stream, head, new)
        return trees.consistency_proof(self.tree(stream), old, new)

    def inclusion(self, stream: StreamName, seq: int, size: int) -> list[bytes]:
        """Return the proof that entry `seq` is among the first `size`. Raises: NotFound."""
        self._check_held(stream, self._streams.get(stream), size)
        return trees.inclusion_proof(self.tree(stream), seq, size)

    def _check_held(self, stream: StreamName, head: Head | None, size: int) -> None:
        held = 0 if head is None else head.held
        if not 0 <= size <= held:
            raise NotFound(f"Of {stream} {held} entries are here, not {size}.")

    # --- what others vouch for ---------------------------------------------------------------

    def forks(self) -> list[bytes]:
        """Return the evidence for every stream that forked."""
        found = self._database.query("select evidence from fork order by stream")
        return [row[0] for row in found if isinstance(row[0], bytes)]

    def cosigned(self) -> Iterable[tuple[tuple[StreamName, MachineId, str], int, bytes]]:
        """Give the newest cosign of every stream, machine and strength: key, size, note."""
        for head in self._streams.all():
            for each in self.cosigns(head.name):
                yield (each.stream, each.machine, each.strength), each.size, each.note

    def cosigns(self, stream: StreamName) -> list[Cosign]:
        """Return the newest cosign of every machine and strength."""
        head = self._streams.get(stream)
        if head is None:
            return []
        return list(self._cosigns.of(head).values())

    # --- tables ----------------------------------------------------------------------------

    def rows(
        self,
        table: str,
        *,
        order: tuple[str, ...] = (),
        limit: int = ROWS_MAX,
        writer: str = "",
        begins: Mapping[str, str] | None = None,
        below: Mapping[str, Value] | None = None,
        columns: tuple[str, ...] = (),
        **equals: Value | StreamName,
    ) -> list[dict[str, Any]]:
        """Return rows whose columns have these values, each with its stream's name.

        `order` names columns, with a minus for descending; without it the key orders. With
        `writer` the limit counts that machine's rows alone, so that nobody crowds out another.
        `begins` has columns and what they begin with, `below` what they come before; `columns`
        are the only ones that are read.
        """
        self._settle()
        found = self._table(table)
        values: dict[str, Value] = {}
        for column, value in equals.items():
            if isinstance(value, StreamName) or column == "stream":
                head = self._streams.get(StreamName.parse(str(value)))
                values[column] = -1 if head is None else head.id
            else:
                values[column] = value
        streams = None
        if writer:
            streams = [head.id for head in self._streams.all() if head.name.machine == writer]
        rows = found.rows(values, order, limit, streams, begins, below=below, columns=columns)
        return self._named(columns or found.names, rows)

    def rows_of_each(
        self, table: str, limit: int, order: tuple[str, ...], **equals: Any
    ) -> list[dict[str, Any]]:
        """Return so many rows of each machine: whoever writes more crowds out only itself."""
        found = self.rows(table, order=order, limit=limit + 1, **equals)
        if len(found) <= limit:
            return found
        every = [
            row
            for writer in sorted(self.writers(table, **equals))
            for row in self.rows(table, writer=writer, order=order, limit=limit, **equals)
        ]
        for column in reversed(order):
            every.sort(key=itemgetter(column.removeprefix("-")), reverse=column.startswith("-"))
        return every

    def history(
        self, table: str, first: Entry, last: Entry | None, key: str, value: SqlValue
    ) -> list[dict[str, SqlValue]]:
        """Return the rows of this key that a stream wrote from one entry to another, or to now.

        Oldest first. It costs what all streams wrote meanwhile, not what they ever wrote.
        """
        self._settle()
        found, head = self._table(table), self._streams.get(first.stream)
        found.flush()
        since = head and self._order.of(head.id, first.header.seq)
        until = head and last and self._order.of(head.id, last.header.seq)
        if not head or not since:
            return []
        end = until[0] + 1 if until else self._order.next
        columns = ", ".join(f'"{name}"' for name in found.names)
        rows = self._database.query(
            f"select {columns} from {table}_hist where id_ >= ? and id_ < ? and stream = ? "  # noqa: S608 - a table's own names
            f'and "{key}" = ? and gone = 0 order by id_',
            (since[0] << CHANGE_BITS, end << CHANGE_BITS, head.id, value),
        )
        return [dict(zip(found.names, row, strict=True)) for row in rows]

    def newest(self, table: str) -> list[dict[str, Any]]:
        """Return of each key of a table's first index the greatest row, whoever wrote it."""
        self._settle()
        found = self._table(table)
        return self._named(found.names, found.newest())

    def weight(self, table: str, column: str) -> tuple[int, int]:
        """Return how many rows a table has, and the bytes of one column of them."""
        self._settle()
        return self._table(table).weight(column)

    def newest_within(
        self, table: str, writer: str, *, by: tuple[str, ...], limit: int, column: str, most: int
    ) -> list[dict[str, Any]]:
        """Return a machine's rows that are greatest `by` these, of a column so many bytes."""
        self._settle()
        streams = [head.id for head in self._streams.all() if head.name.machine == writer]
        found = self._table(table)
        rows = found.newest_within(streams, by, limit=limit, column=column, bytes_max=most)
        return self._named(found.names, rows)

    def distinct(self, table: str, columns: tuple[str, ...], **equals: Any) -> list[dict[str, Any]]:
        """Return what these columns of everybody's rows hold, each once."""
        self._settle()
        rows = self._table(table).distinct(columns, equals)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def writers(self, table: str, **equals: Value) -> set[MachineId]:
        """Return the machines with such rows; far cheaper than the rows themselves."""
        self._settle()
        found = self._table(table).distinct(("stream",), equals)
        return {self._streams.by_id(as_int(number)).name.machine for (number,) in found}

    def changes(
        self, table: str, columns: tuple[str, ...], *, after: int, limit: int = ROWS_MAX
    ) -> list[tuple[int, bool, StreamName, tuple[Value, ...]]]:
        """Return what became of a table's rows since change `after`: (number, gone, stream, row).

        Of a row that is gone only the key is there.
        """
        self._settle()
        found = self._table(table).changes(after, columns, limit)
        return [(at, gone, self._streams.by_id(s).name, row) for at, gone, s, row in found]

    def row(self, table: str, stream: StreamName, *key: Value) -> dict[str, Any] | None:
        """Return a row's columns beside its key, None without one; far cheaper than `rows`."""
        self._settle()
        head = self._streams.get(stream)
        found = self._table(table)
        row = None if head is None else found.get((head.id, *key))
        return None if row is None else dict(zip(found.row_names, row, strict=True))

    def has_row(self, table: str, stream: StreamName, *key: Value) -> bool:
        """Return whether there is a row, by what is folded so far: not by this transaction's end.

        To fold what was just written for each such question would cost more than the question.
        """
        head = self._streams.get(stream)
        return head is not None and self._table(table).get((head.id, *key)) is not None

    def as_of(
        self, table: str, *, admission: int | None = None, time_ms: int | None = None
    ) -> list[dict[str, Any]]:
        """Return all rows as this machine had them after an admission, or at a time."""
        self._settle()
        if (admission is None) == (time_ms is None):
            raise ValueError("ask for an admission or for a time")
        at = admission if admission is not None else self._order.at(time_ms or 0)
        found = self._table(table)
        return self._named(found.names, found.as_of(at))

    def query(self, sql: str, bindings: tuple[SqlValue, ...] = ()) -> list[tuple[SqlValue, ...]]:
        """Return what a `select` of our own finds; tables name streams by number (`stream`)."""
        self._settle()
        self._folding.flush()
        return self._database.query(sql, bindings)

    def tables_digest(self, streams: Collection[StreamName] | None = None) -> dict[str, str]:
        """Return a hash per table, equal where replicas hold the same entries.

        Replicas hold different scopes: name the streams to compare.
        """
        self._settle()
        names = {head.id: str(head.name) for head in self._streams.all()}
        only = None if streams is None else {str(stream) for stream in streams}
        return {
            name: table.digest(names, only) for name, table in sorted(self._folding.tables.items())
        }

    def skipped(self) -> list[Skipped]:
        """Return every entry that a fold could not use, with the reason."""
        self._settle()
        self._folding.flush()
        found = self._database.query("select entry, fold, reason from skipped order by entry, fold")
        shown = []
        for number, fold, reason in found:
            stream, seq = unpack(as_int(number))
            shown.append(Skipped(str(fold), self._streams.by_id(stream).name, seq, str(reason)))
        return shown

    def recall(self, name: str) -> SqlValue:
        """Return the setting `name`, None when it was never remembered."""
        found = self._database.query("select value from setting where name = ?", (name,))
        return found[0][0] if found else None

    def _table(self, name: str) -> FoldTable:
        table = self._folding.tables.get(name)
        if table is None:
            raise NotFound(f"No fold of this store writes a table {name}.")
        return table

    def _named(
        self, names: Iterable[str], rows: Iterable[tuple[Value, ...]]
    ) -> list[dict[str, Any]]:
        shown = []
        for stream, *values in rows:
            name = str(self._streams.by_id(as_int(stream)).name)
            shown.append({"stream": name, **dict(zip(names, values, strict=True))})
        return shown

    def _settle(self) -> None:
        """Bring tables, tiles and numbers up to the heads.

        Appending only hashes; the rest waits for the commit or the first reader, because it is
        much cheaper for many entries at once.
        """
        for head in self._streams.moved.values():
            if head.fresh:
                self._settle_stream(head)

    def _settle_stream(self, head: Head) -> None:
        entries, head.fresh = head.fresh, []
        start = head.size - len(entries)
        first = pack(head.id, start)
        number = self._order.add(head.fresh_ms, head.id, start, len(entries))
        self._database.executemany(
            "insert into entry(id, hash, header, salt, body) values(?, ?, ?, ?, ?)",
            [(row, e.id, e.raw, e.salt, e.body) for row, e in enumerate(entries, first)],
        )
        ids = [entry.id for entry in entries]
        self._recent.put(first, entries)
        self._directory.put(first, ids)
        self._streams.tile(head, ids, start)
        self._folding.apply(head.id, entries, number)
