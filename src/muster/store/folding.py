"""Folds at work: every entry that counts passes every fold that wants its kind, once, in order.

Rule 1: what an entry changes counts together or not at all.
Rule 2: an entry that a fold cannot use is recorded in `skipped` and the stream goes on: a poison
        entry in a single-writer stream would otherwise stop it for ever, on every machine.
Rule 3: a stream's size is every fold's cursor. A fold that is new, or whose tables, version or
        bodies changed, is folded from the first entry before anything else happens: what could not
        be read before, or only by half, is read then.

Rule 4: within a stream stamps rise, or what they are on counts for nothing: no fold is given an
        entry whose stamp is not later than all before it, on any machine (`stamp-not-later`). Its
        writer would choose the past that a count of a day, a list or an order goes by. It stays in
        the log, whose form it breaks.

A fold that raises anything but `Skip` has a mistake. That is recorded under `mistake-…`, which
`skipped` shows and a rebuild with the mended fold clears.
"""

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final

from muster.errors import MISTAKES, Refused
from muster.limits import ROWS_CACHED_BYTES_MAX, ROWS_CACHED_MAX
from muster.log.entry import Entry, parse
from muster.log.fold import Fold, Gone, R, Skip, Table, Value
from muster.log.kind import schema
from muster.log.stream import StreamName
from muster.store.admission_order import AdmissionOrder
from muster.store.fold_tables import CHANGES_MAX, FoldTable
from muster.store.schema import CORE_TABLES, pack
from muster.store.sqlite import Database, as_bytes, as_int
from muster.store.streams import Head

REASON_CHARS_MAX: Final = 64
# Under what an entry without a later stamp is recorded, for all folds.
STAMPS: Final = "stamps"
_NOT_LATER: Final = "stamp-not-later"
# What all folds are given; another number folds every stream anew (2: stamps that rise).
_GIVEN: Final = 2
_BEFORE_ALL: Final = (-1, 0)
# Rows wait in memory while refolding; this many entries keep them at some ten megabytes.
ENTRIES_PER_FLUSH: Final = 5_000

Entries = Callable[[int, int, int], Iterable[Entry]]


class _Bound:
    """A fold with its tables; to the fold it is the rows of the stream that is being folded."""

    __slots__ = ("fold", "number", "rest", "stream", "tables")

    stream: StreamName

    def __init__(self, fold: Fold, database: Database, heads: Mapping[int, Head]) -> None:
        self.fold = fold
        # By the classes of their rows.
        self.tables = {t.row: FoldTable[Any](database, heads, t) for t in fold.tables}
        self.number = 0
        self.rest: bytes | None = None

    def get(self, table: Table[R], *key: Value) -> R | None:
        found: R | None = self.tables[table.row].get((self.number, *key))
        return found


class Folding:
    """All folds of a store and their tables."""

    def __init__(
        self, database: Database, heads: Mapping[int, Head], folds: Sequence[Fold]
    ) -> None:
        self._database, self._heads = database, heads
        self._bounds = [_Bound(fold, database, heads) for fold in folds]
        self._skipped: list[tuple[int, str, str]] = []
        # The latest stamp of each stream that grew since the start; those that SQLite must keep.
        self._latest: dict[int, tuple[int, int]] = {}
        self._backdated: dict[int, tuple[int, int]] = {}
        # The tables with rows that SQLite may not have yet: most steps write few of them.
        self._written: dict[str, FoldTable[Any]] = {}
        # The bodies of the entries from which the rows in memory were made.
        self._folded_bytes = 0
        self.tables: dict[str, FoldTable[Any]] = {}
        wanted: dict[str, list[_Bound]] = {}
        for bound in self._bounds:
            for table in bound.fold.tables:
                made, fold = bound.tables[table.row], bound.fold.name
                if table.name in self.tables.keys() | CORE_TABLES or made.table is not table:
                    raise ValueError(f"the fold {fold} cannot have the table {table.name}")
                self.tables[table.name] = made
            for kind in bound.fold.kinds:
                wanted.setdefault(kind, []).append(bound)
        self._wanted = {kind: tuple(bounds) for kind, bounds in wanted.items()}

    def apply(self, stream: int, entries: Iterable[Entry], first: int) -> None:
        """Fold consecutive entries of a stream; the first has the admission number `first`."""
        latest, late = None, False
        given: list[tuple[int, Entry]] = []
        for at, entry in enumerate(entries, first):
            stamp = entry.header.t
            if latest is None:
                latest = self._latest_before(stream, entry.header.seq)
            if stamp > latest:
                latest = stamp
                given.append((at, entry))
                continue
            late = True
            self._skipped.append((pack(stream, entry.header.seq), STAMPS, _NOT_LATER))
        if latest is not None:
            self._latest[stream] = latest
            if late:
                self._backdated[stream] = latest
        self._give(stream, given)

    def _latest_before(self, stream: int, seq: int) -> tuple[int, int]:
        """The latest stamp of what a stream has before this entry."""
        if not seq:
            return _BEFORE_ALL
        if (known := self._latest.get(stream)) is not None:
            return known
        (header,) = self._database.query(
            "select header from entry where id = ?", (pack(stream, seq - 1),)
        )
        kept = self._database.query("select ms, n from backdated where stream = ?", (stream,))
        stamps = [(as_int(ms), as_int(n)) for ms, n in kept]
        return max(parse(as_bytes(header[0]), b"", None).header.t, *stamps, _BEFORE_ALL)

    def _give(self, stream: int, given: Iterable[tuple[int, Entry]]) -> None:
        """Let every fold that wants them have these entries, each with its admission number."""
        wanted, name = self._wanted, self._heads[stream].name
        for at, entry in given:
            bounds = wanted.get(entry.header.kind, ())
            if bounds:
                self._folded_bytes += len(entry.body or b"")
                rest = self._rest(stream, entry) if entry.body is None else None
            for bound in bounds:
                bound.number, bound.stream, bound.rest = stream, name, rest
                tables = bound.tables
                try:
                    changes = list(bound.fold.apply(entry, bound))
                    if len(changes) > CHANGES_MAX:
                        raise Skip("too-many-rows")
                    puts = []
                    for change in changes:
                        row = change.row if isinstance(change, Gone) else change
                        table = tables[type(row)]
                        # What SQLite could not store as declared is refused.
                        table.check(row, name, entry.header.seq)
                        key = (stream, *row[1 : table.width])
                        puts.append((table, key, row if row is change else None))
                except Skip as skip:
                    reason = skip.reason
                except (Refused, *MISTAKES) as mistake:
                    reason = f"mistake-{type(mistake).__name__.lower()}"
                else:
                    for number, (table, key, kept) in enumerate(puts):
                        self._written[table.name] = table
                        table.put(key, kept, at, number)
                    continue
                row_number = pack(stream, entry.header.seq)
                self._skipped.append((row_number, bound.fold.name, reason[:REASON_CHARS_MAX]))

    def _rest(self, stream: int, entry: Entry) -> bytes | None:
        sql = "select body from rest where entry = ?"
        found = self._database.query(sql, (pack(stream, entry.header.seq),))
        return as_bytes(found[0][0]) if found else None

    def cut_back(self, stream: int, size: int, last: int, number: int) -> None:
        """Undo the entries from `size` on, which are those admitted after `last`.

        The tables find by the admissions what one stream changed.
        """
        self.flush()
        for name, table in self.tables.items():
            self._written[name] = table
            table.cut_back(stream, size, last, number)
        fed = {each.fold.name for bounds in self._wanted.values() for each in bounds}
        self._database.execute(
            "delete from skipped where entry between ? and ? "
            "and fold in (select value from json_each(?))",
            (pack(stream, size), pack(stream + 1, 0) - 1, json.dumps(sorted(fed))),
        )

    def flush(self) -> None:
        """Give SQLite every row and every skipped entry."""
        written, self._written = self._written, {}
        for table in written.values():
            table.flush()
        if self._backdated:
            rows = [(stream, *stamp) for stream, stamp in self._backdated.items()]
            self._backdated = {}
            self._database.executemany("insert or replace into backdated values(?, ?, ?)", rows)
        if self._skipped:
            skipped, self._skipped = self._skipped, []
            self._database.executemany(
                "insert or replace into skipped(entry, fold, reason) values(?, ?, ?)", skipped
            )

    def trim(self) -> None:
        """Keep the caches within their bounds; only between transactions."""
        rows, size = 0, self._folded_bytes
        for table in self.tables.values():
            rows += len(table.cache)
            size += table.read_bytes
        if rows > ROWS_CACHED_MAX or size > ROWS_CACHED_BYTES_MAX:
            self._folded_bytes = 0
            for table in self.tables.values():
                table.trim()

    def forget(self) -> None:
        """Drop what a rolled back transaction left in memory."""
        self._skipped.clear()
        self._latest.clear()
        self._backdated.clear()
        self._written.clear()
        for table in self.tables.values():
            table.forget()

    def changed(self) -> list[str]:
        """Make the tables of folds that are new or changed; returns the names of these folds."""
        known = {
            str(name): (str(before), str(tables))
            for name, before, tables in self._database.query(
                "select name, fingerprint, tables from fold"
            )
        }
        fresh = []
        for bound in self._bounds:
            fold, name = bound.fold, bound.fold.name
            shape = (
                [
                    (t.name, t.columns[: t.key], t.columns[t.key :], t.indexes, *("ids",) * t.ids)
                    for t in fold.tables
                ],
                [(kind, schema(kind)) for kind in sorted(fold.kinds)],
                getattr(fold, "version", 1),
                _GIVEN,
            )
            fingerprint = hashlib.sha256(repr(shape).encode()).hexdigest()
            before, tables = known.pop(name, ("", ""))
            if before != fingerprint:
                self._drop(name, tables)
                for table in bound.tables.values():
                    table.create()
                self._database.execute(
                    "insert into fold(name, fingerprint, tables) values(?, ?, ?)",
                    (name, fingerprint, ",".join(table.name for table in fold.tables)),
                )
                fresh.append(name)
        # A fold that is gone leaves nothing: its tables would be stale when it comes back.
        for name, (_, tables) in known.items():
            self._drop(name, tables)
        return fresh

    def refold(
        self,
        order: AdmissionOrder,
        entries: Entries,
        *,
        only: Sequence[str] | None = None,
        stream: int | None = None,
    ) -> Iterator[int]:
        """Fold all entries again, or those of one stream; gives the number of entries done."""
        bounds = [b for b in self._bounds if only is None or b.fold.name in only]
        low, high = (0, -1) if stream is None else (pack(stream, 0), pack(stream + 1, 0) - 1)
        for bound in bounds:
            for table in bound.tables.values():
                table.clear(stream)
            self._database.execute(
                "delete from skipped where fold = ?1 and (?2 > ?3 or entry between ?2 and ?3)",
                (bound.fold.name, low, high),
            )
        done = 0
        with self._feeding(bounds):
            for run in order.runs(stream):
                if run.entries:
                    self.apply(run.stream, entries(run.stream, run.start, run.entries), run.number)
                else:
                    before = order.of(run.stream, run.start - 1) if run.start else None
                    self.cut_back(run.stream, run.start, before[0] if before else -1, run.number)
                done += run.entries
                if done // ENTRIES_PER_FLUSH != (done - run.entries) // ENTRIES_PER_FLUSH:
                    self.flush()
                    self.trim()
                    yield done
            self.flush()
            self.trim()
        yield done

    def fold_anew(
        self, order: AdmissionOrder, entries: Entries, stream: int, entry: Entry, *, counts: bool
    ) -> None:
        """Fold one entry that lost its body again; all ends as if every entry were folded again.

        Its own rows are made anew where they are its alone, else all of the stream: also where the
        stream was cut back before it (`counts`), for the cut numbered what all of these had made.
        """
        wanting = self._wanted.get(entry.header.kind, ())
        admitted = order.of(stream, entry.header.seq)
        alone = [
            bound
            for bound in wanting
            if counts and admitted and all(table.of_entry for table in bound.fold.tables)
        ]
        if alone and admitted:
            for bound in alone:
                for table in bound.tables.values():
                    table.take_out(stream, entry.header.seq, admitted[0])
                self._database.execute(
                    "delete from skipped where entry = ? and fold = ?",
                    (pack(stream, entry.header.seq), bound.fold.name),
                )
            self.flush()
            place = (pack(stream, entry.header.seq), STAMPS)
            late = self._database.query("select 1 from skipped where entry = ? and fold = ?", place)
            with self._feeding(alone):
                self._give(stream, [] if late else [(admitted[0], entry)])
                self.flush()
        if others := [bound.fold.name for bound in wanting if bound not in alone]:
            for _ in self.refold(order, entries, only=others, stream=stream):
                pass

    @contextmanager
    def _feeding(self, only: Sequence[_Bound]) -> Iterator[None]:
        """While it lasts, only these folds are fed: the others have seen these entries."""
        wanted, tables = self._wanted, self.tables
        self._wanted = {
            kind: kept
            for kind, bounds in wanted.items()
            if (kept := tuple(bound for bound in bounds if bound in only))
        }
        self.tables = {t.name: t for bound in only for t in bound.tables.values()}
        try:
            yield
        finally:
            self._wanted, self.tables = wanted, tables

    def _drop(self, name: str, tables: str) -> None:
        for table in filter(None, tables.split(",")):
            self._database.execute(f"drop table if exists {table}")
            self._database.execute(f"drop table if exists {table}_hist")
        self._database.execute("delete from skipped where fold = ?", (name,))
        self._database.execute("delete from fold where name = ?", (name,))
