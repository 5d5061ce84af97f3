"""What folds made of the log: rows of their tables, now and as they were. Nothing here writes.

Rule: what a transaction has added is visible to its own reads, before the commit.
"""

from collections.abc import Collection, Iterable, Mapping
from operator import itemgetter
from typing import Any, Final, NamedTuple

from muster.errors import NotFound
from muster.log.entry import Entry
from muster.log.fold import Value
from muster.log.stream import MachineId, StreamName
from muster.store.contents import Contents
from muster.store.fold_tables import CHANGE_BITS, FoldTable
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
        self._contents.settle()
        found = self._table(table)
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
        self._contents.settle()
        found, head = self._table(table), self._streams.heads.get(first.stream)
        found.flush()
        since = head and self._admission.of(head.id, first.header.seq)
        until = head and last and self._admission.of(head.id, last.header.seq)
        if not head or not since:
            return []
        end = until[0] + 1 if until else self._admission.next
        columns = ", ".join(f'"{name}"' for name in found.names)
        rows = self._database.query(
            f"select {columns} from {table}_hist where id_ >= ? and id_ < ? and stream = ? "  # noqa: S608 - a table's own names
            f'and "{key}" = ? and gone = 0 order by id_',
            (since[0] << CHANGE_BITS, end << CHANGE_BITS, head.id, value),
        )
        return [dict(zip(found.names, row, strict=True)) for row in rows]

    def newest(self, table: str) -> list[dict[str, Any]]:
        """Return of each key of a table's first index the greatest row, whoever wrote it."""
        self._contents.settle()
        found = self._table(table)
        return self._named(found.names, found.newest())

    def weight(self, table: str, column: str) -> tuple[int, int]:
        """Return how many rows a table has, and the bytes of one column of them."""
        self._contents.settle()
        return self._table(table).weight(column)

    def newest_within(
        self, table: str, writer: str, *, by: tuple[str, ...], limit: int, column: str, most: int
    ) -> list[dict[str, Any]]:
        """Return a machine's rows that are greatest `by` these, of a column so many bytes."""
        self._contents.settle()
        heads = self._streams.heads.values()
        streams = [head.id for head in heads if head.name.machine == writer]
        found = self._table(table)
        rows = found.newest_within(streams, by, limit=limit, column=column, bytes_max=most)
        return self._named(found.names, rows)

    def distinct(self, table: str, columns: tuple[str, ...], **equals: Any) -> list[dict[str, Any]]:
        """Return what these columns of everybody's rows hold, each once."""
        self._contents.settle()
        rows = self._table(table).distinct(columns, equals)
        return [dict(zip(columns, row, strict=True)) for row in rows]

    def writers(self, table: str, **equals: Value) -> set[MachineId]:
        """Return the machines with such rows; far cheaper than the rows themselves."""
        self._contents.settle()
        found = self._table(table).distinct(("stream",), equals)
        return {self._streams.by_id[as_int(number)].name.machine for (number,) in found}

    def changes(
        self, table: str, columns: tuple[str, ...], *, after: int, limit: int = ROWS_MAX
    ) -> list[tuple[int, bool, StreamName, tuple[Value, ...]]]:
        """Return what became of a table's rows since change `after`: (number, gone, stream, row).

        Of a row that is gone only the key is there.
        """
        self._contents.settle()
        found = self._table(table).changes(after, columns, limit)
        return [(at, gone, self._streams.by_id[s].name, row) for at, gone, s, row in found]

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
        self._contents.settle()
        if (admission is None) == (time_ms is None):
            raise ValueError("ask for an admission or for a time")
        at = admission if admission is not None else self._admission.at(time_ms or 0)
        found = self._table(table)
        return self._named(found.names, found.as_of(at))

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
        return {
            name: table.digest(names, only) for name, table in sorted(self._folding.tables.items())
        }

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

    def _named(
        self, names: Iterable[str], rows: Iterable[tuple[Value, ...]]
    ) -> list[dict[str, Any]]:
        shown = []
        for stream, *values in rows:
            name = str(self._streams.by_id[as_int(stream)].name)
            shown.append({"stream": name, **dict(zip(names, values, strict=True))})
        return shown
