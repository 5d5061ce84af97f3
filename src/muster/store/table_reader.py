"""What folds made of the log: rows of their tables, now and as they were. Nothing here writes.

Rule: what a transaction has added is visible to its own reads, before the commit.
"""
# ruff: noqa: S608 - table and column names are checked by `RowShape`, values are bound.

import hashlib
from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from muster.errors import NotFound
from muster.log.entry import Entry
from muster.log.fold import Value
from muster.log.stream import MachineId, StreamName
from muster.store.contents import Contents
from muster.store.fold_tables import CHANGE_BITS, FoldTable, marks, quoted, values_of
from muster.store.schema import unpack
from muster.store.sqlite import SqlValue, as_int

# Chosen arbitrarily; whoever wants more than this asks with SQL.
ROWS_MAX: Final = 100_000
# As a limit: all there are. For what must not be cut, since others could write what comes first.
EVERY_ROW: Final = -1


class Skipped(NamedTuple):
    """An entry that a fold could not use."""

    fold: str
    stream: StreamName
    seq: int
    reason: str


class TableReader:
    """See the rule at the top of this file."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._database, self._streams = contents.database, contents.streams
        self._admission, self._folding = contents.admission, contents.folding

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
        found = self._flushed(table)
        values: dict[str, Value] = {}
        for column, value in equals.items():
            if isinstance(value, StreamName) or column == "stream":
                head = self._streams.heads.get(StreamName.parse(str(value)))
                values[column] = -1 if head is None else head.id
            else:
                values[column] = value
        streams = None
        if writer:
            streams = [
                head.id for head in self._streams.heads.values() if head.name.machine == writer
            ]
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
        found, head = self._flushed(table), self._streams.heads.get(first.stream)
        since = head and self._admission.of(head.id, first.header.seq)
        until = head and last and self._admission.of(head.id, last.header.seq)
        if not head or not since:
            return []
        end = until[0] + 1 if until else self._admission.next
        columns = ", ".join(f'"{name}"' for name in found.names)
        rows = self._database.query(
            f"select {columns} from {table}_hist where id_ >= ? and id_ < ? and stream = ? "
            f'and "{key}" = ? and gone = 0 order by id_',
            (since[0] << CHANGE_BITS, end << CHANGE_BITS, head.id, value),
        )
        return [dict(zip(found.names, row, strict=True)) for row in rows]

    def newest(self, table: str) -> list[dict[str, Any]]:
        """Return of each key of a table's first index the greatest row, whoever wrote it.

        As the index compares it. It costs what it returns, however many rows there are.
        """
        found = self._flushed(table)
        index = found.table.indexes[0]
        key = quoted(index[0])
        keys = self._database.query(
            f"with recursive every(k) as (select min({key}) from {table} union all select (select "
            f"min({key}) from {table} where {key} > every.k) from every where every.k is not null) "
            "select k from every where k is not null"
        )
        by = ", ".join(f"{quoted(column)} desc" for column in index[1:])
        sql = f"{found.every} where {key} = ? order by {by} limit 1"
        rows = [values_of(row) for key in keys for row in self._database.query(sql, key)]
        return self._named(found.names, rows)

    def weight(self, table: str, column: str) -> tuple[int, int]:
        """Return how many rows a table has, and the bytes of one column; no text of it is read."""
        name = self._flushed(table).table.name
        sql = f"select count(*), sum(octet_length({quoted(column)})) from {name}"
        ((count, size),) = self._database.query(sql)
        return as_int(count), as_int(size or 0)

    def newest_within(
        self, table: str, writer: str, *, by: tuple[str, ...], limit: int, column: str, most: int
    ) -> list[dict[str, Any]]:
        """Return a machine's rows that are greatest `by` these, of a column so many bytes."""
        found = self._flushed(table)
        heads = self._streams.heads.values()
        streams = ", ".join(str(head.id) for head in heads if head.name.machine == writer)
        names = ", ".join(map(quoted, by))
        order = ", ".join(f"{quoted(name)} desc" for name in by)
        last: tuple[SqlValue, ...] = ()
        for *stamp, size in self._database.query(
            f"select {names}, octet_length({quoted(column)}) from {table} "
            f"where stream in ({streams}) order by {order} limit {limit:d}"
        ):
            most -= as_int(size)
            if most < 0:
                break
            last = tuple(stamp)
        if not last:
            return []
        sql = (
            f"{found.every} where stream in ({streams}) and ({names}) >= ({marks(len(last))}) "
            f"order by {order} limit {limit:d}"
        )
        return self._named(found.names, map(values_of, self._database.query(sql, last)))

    def distinct(self, table: str, columns: tuple[str, ...], **equals: Any) -> list[dict[str, Any]]:
        """Return what these columns of everybody's rows hold, each once."""
        rows = self._distinct(table, columns, equals)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def writers(self, table: str, **equals: Value) -> set[MachineId]:
        """Return the machines with such rows; far cheaper than the rows themselves."""
        found = self._distinct(table, ("stream",), equals)
        return {self._streams.by_id[as_int(number)].name.machine for (number,) in found}

    def _distinct(
        self, table: str, columns: tuple[str, ...], equals: Mapping[str, Value]
    ) -> list[tuple[SqlValue, ...]]:
        name = self._flushed(table).table.name
        wanted = ", ".join(map(quoted, columns))
        where = " and ".join(f"{quoted(column)} is ?" for column in equals) or "true"
        sql = f"select distinct {wanted} from {name} where {where}"
        return self._database.query(sql, (*equals.values(),))

    def changes(
        self, table: str, columns: tuple[str, ...], *, after: int, limit: int = ROWS_MAX
    ) -> list[tuple[int, bool, StreamName, tuple[Value, ...]]]:
        """Return what became of a table's rows since change `after`: (number, gone, stream, row).

        Of a row that is gone only the key is there.
        """
        name = self._flushed(table).table.name
        found = self._database.query(
            f"select id_, gone, stream, {', '.join(map(quoted, columns))} from {name}_hist "
            f"where id_ > ? order by id_ limit {limit:d}",
            (after,),
        )
        return [
            (as_int(at), bool(gone), self._streams.by_id[as_int(stream)].name, values_of(row))
            for at, gone, stream, *row in found
        ]

    def row(self, table: str, stream: StreamName, *key: Value) -> dict[str, Any] | None:
        """Return a row's columns beside its key, None without one; far cheaper than `rows`."""
        self._contents.settle()
        head = self._streams.heads.get(stream)
        found = self._table(table)
        row = None if head is None else found.get((head.id, *key))
        return None if row is None else dict(zip(found.row_names, row, strict=True))

    def has_row(self, table: str, stream: StreamName, *key: Value) -> bool:
        """Return whether there is a row, by what is folded so far: not by this transaction's end.

        To fold what was just written for each such question would cost more than the question.
        """
        head = self._streams.heads.get(stream)
        return head is not None and self._table(table).get((head.id, *key)) is not None

    def as_of(
        self, table: str, *, admission: int | None = None, time_ms: int | None = None
    ) -> list[dict[str, Any]]:
        """Return all rows as this machine had them after an admission, or at a time."""
        if (admission is None) == (time_ms is None):
            raise ValueError("ask for an admission or for a time")
        found = self._flushed(table)
        at = admission if admission is not None else self._admission.at(time_ms or 0)
        rows = self._database.query(found.as_of, ((at + 1) << CHANGE_BITS,))
        return self._named(found.names, [values_of(row) for _, gone, *row in rows if not gone])

    def query(self, sql: str, bindings: tuple[SqlValue, ...] = ()) -> list[tuple[SqlValue, ...]]:
        """Return what a `select` of our own finds; tables name streams by number (`stream`)."""
        self._contents.settle()
        self._folding.flush()
        return self._database.query(sql, bindings)

    def tables_digest(self, streams: Collection[StreamName] | None = None) -> dict[str, str]:
        """Return a hash per table, equal where replicas hold the same entries.

        Replicas hold different scopes: name the streams to compare.
        """
        self._contents.settle()
        names = {head.id: str(head.name) for head in self._streams.heads.values()}
        only = None if streams is None else {str(stream) for stream in streams}
        digests = {}
        for name, table in sorted(self._folding.tables.items()):
            table.flush()
            found = self._database.query(table.every)
            rows = [(names[as_int(stream)], *row) for stream, *row in found]
            if only is not None:
                rows = [row for row in rows if row[0] in only]
            # Rows of one stream differ in their key, so nulls in later columns are never compared.
            rows.sort(key=itemgetter(slice(1 + len(table.key_names))))
            digests[name] = hashlib.sha256(repr(rows).encode()).hexdigest()
        return digests

    def skipped(self) -> list[Skipped]:
        """Return every entry that a fold could not use, with the reason."""
        self._contents.settle()
        self._folding.flush()
        found = self._database.query("select entry, fold, reason from skipped order by entry, fold")
        shown = []
        for number, fold, reason in found:
            stream, seq = unpack(as_int(number))
            shown.append(Skipped(str(fold), self._streams.by_id[stream].name, seq, str(reason)))
        return shown

    def _table(self, name: str) -> FoldTable:
        table = self._folding.tables.get(name)
        if table is None:
            raise NotFound(f"No fold of this store writes a table {name}.")
        return table

    def _flushed(self, name: str) -> FoldTable:
        """The table, once SQLite has every row of it."""
        self._contents.settle()
        table = self._table(name)
        table.flush()
        return table

    def _named(
        self, names: Iterable[str], rows: Iterable[tuple[Value, ...]]
    ) -> list[dict[str, Any]]:
        shown = []
        for stream, *values in rows:
            name = str(self._streams.by_id[as_int(stream)].name)
            shown.append({"stream": name, **dict(zip(names, values, strict=True))})
        return shown
