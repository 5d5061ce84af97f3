"""What folds made of the log: rows of their tables, now and as they were. Nothing here writes.

Rule: what a transaction has added is visible to its own reads, before the commit.
"""
# ruff: noqa: S608 - table and column names are checked by `FoldTable`, values are bound.

import json
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import attrgetter
from typing import Any, Final, NamedTuple

from muster.errors import NotFound
from muster.log.entry import Entry
from muster.log.fold import R, Table, Value
from muster.log.stream import MachineId, StreamName
from muster.store.contents import Contents
from muster.store.fold_tables import CHANGE_BITS, FoldTable, marks, quoted
from muster.store.schema import unpack
from muster.store.sqlite import SqlValue, as_int

# Chosen arbitrarily; whoever wants more than this asks with SQL.
ROWS_MAX: Final = 100_000
# No text that goes on after a beginning comes after this.
_LAST: Final = "\U0010ffff"
# So many rows are read as they come, before anybody asks whose they are.
_FEW: Final = 8
# Streams of one machine that are looked at where there are very many rows.
_STREAMS_OF_EACH_MAX: Final = 16
# As a limit: all there are. For what must not be cut, since others could write what comes first.
EVERY_ROW: Final = -1

Names = tuple[str, ...]


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
        table: Table[R],
        *,
        order: Names = (),
        limit: int = ROWS_MAX,
        writer: str = "",
        begins: Mapping[str, str] | None = None,
        below: Mapping[str, Value] | None = None,
        above: Mapping[str, Value] | None = None,
        **equals: Value | StreamName,
    ) -> list[R]:
        """Return rows whose columns have these values.

        `order` names columns, with a minus for descending; without it the key orders. With
        `writer` the limit counts that machine's rows alone, so that nobody crowds out another.
        `begins` has columns and what they begin with; `below` has columns and values that what
        they hold comes before, compared in their order; `above` the same, with what comes after.
        """
        found = self._flushed(table)
        starts, heads = dict(begins or {}), self._streams.heads
        bounds = [(dict(each), sign) for each, sign in ((below, "<"), (above, ">")) if each]
        bound_names = [name for each, _ in bounds for name in each]
        for name in (*equals, *starts, *bound_names, *(o.removeprefix("-") for o in order)):
            if name not in found.names:
                raise ValueError(f"the table {table.name} has no column {name}")
        values: list[Any] = [
            self._streams.of(value).id if isinstance(value, StreamName) else value
            for value in equals.values()
        ]
        where = " and ".join(f"{quoted(name)} is ?" for name in equals) or "true"
        if writer:
            # Of ids that begin so there are few: an index by stream would give all of the stream.
            stream = "+stream" if table.ids and begins else "stream"
            its = (str(head.id) for head in heads.values() if head.name.machine == writer)
            where += f" and {stream} in ({', '.join(its)})"
        for name, text in starts.items():
            where += f" and {quoted(name)} >= ? and {quoted(name)} < ?"
            values += (text, text + _LAST)
        for bound, sign in bounds:
            where += f" and ({', '.join(map(quoted, bound))}) {sign} ({marks(len(bound))})"
            values += bound.values()
        by = ", ".join(
            f"{quoted(column[1:])} desc" if column.startswith("-") else quoted(column)
            for column in (order or found.key_names)
        )
        sql = f"{found.every} where {where} order by {by} limit {limit:d}"
        return found.made(self._database.query(sql, values))

    def rows_of_each(self, table: Table[R], limit: int, order: Names, **equals: Any) -> list[R]:
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
            every.sort(key=attrgetter(column.removeprefix("-")), reverse=column.startswith("-"))
        return every

    def newest_of_each(
        self,
        table: Table[R],
        most: int,
        wanted: Callable[[StreamName], bool],
        *,
        also: str = "",
        **equals: Value,
    ) -> list[R]:
        """Return the newest rows with a value of each machine, so many of each; newest first.

        Of the streams that are `wanted`, of one machine the 16 youngest; of each stream `also` so
        many rows that have something in this column of bytes. It costs what it returns and a look
        for each stream that has the value, however many rows there are.
        """
        found = self._flushed(table)
        ((column, value),) = equals.items()
        name, every = quoted(column), found.every
        least = min(most, _FEW)
        few = self._database.query(f"{every} where {name} = ? limit {least + 1:d}", (value,))
        if len(few) <= least:
            rows = [row for row in found.made(few) if wanted(row[0])]
            return sorted(rows, key=lambda row: -row[1])
        numbers = self._database.query(
            f"with recursive s(x) as (select min(stream) from {table.name} where {name} = ?1 "
            f"union all select (select min(stream) from {table.name} where {name} = ?1 "
            "and stream > s.x) from s where s.x is not null) "
            "select x from s where x is not null order by x desc",
            (value,),
        )
        of_each, streams, kept = dict[MachineId, list[R]](), Counter[MachineId](), list[R]()
        for number in (as_int(number) for (number,) in numbers):
            stream = self._streams.by_id[number].name
            if streams[stream.machine] < _STREAMS_OF_EACH_MAX and wanted(stream):
                streams[stream.machine] += 1
                sql = f"{every} where {name} = ? and stream = ? order by seq desc limit {most:d}"
                rows = found.made(self._database.query(sql, (value, number)))
                of_each.setdefault(stream.machine, []).extend(rows)
                if also:
                    sql = f"{every} where {name} = ? and stream = ? and {quoted(also)} > x''"
                    rows = found.made(
                        self._database.query(f"{sql} limit {most:d}", (value, number))
                    )
                    kept += rows
        cut = (
            row for rows in of_each.values() for row in sorted(rows, key=lambda row: -row[1])[:most]
        )
        return sorted(dict.fromkeys((*cut, *kept)), key=lambda row: -row[1])

    def with_any(
        self, table: Table[R], column: str, values: Collection[bytes], most: int
    ) -> list[R] | None:
        """Return all rows whose column has one of these values, None where those are too many."""
        found = self._flushed(table)
        sql = f"{found.every} where {quoted(column)} in (select unhex(value) from json_each(?)) "
        hexed = json.dumps([value.hex() for value in values])
        rows = self._database.query(f"{sql} limit {most + 1:d}", (hexed,))
        return None if len(rows) > most else found.made(rows)

    def at_places(self, table: Table[R], places: Collection[tuple[StreamName, int]]) -> list[R]:
        """Return all rows that stand at these places: of a stream, of an entry."""
        found = self._flushed(table)
        numbers = json.dumps([(self._streams.of(stream).id, seq) for stream, seq in places])
        sql = f"{found.every} where (stream, seq) in (select value ->> 0, value ->> 1 "
        return found.made(self._database.query(f"{sql} from json_each(?))", (numbers,)))

    def history(
        self, table: Table[R], first: Entry, last: Entry | None, key: str, value: SqlValue
    ) -> list[R]:
        """Return the rows of this key that a stream wrote from one entry to another, or to now.

        Oldest first. It costs what all streams wrote meanwhile, not what they ever wrote.
        """
        found, head = self._flushed(table), self._streams.of(first.stream)
        since = self._admission.of(head.id, first.header.seq)
        until = last and self._admission.of(head.id, last.header.seq)
        if not since:
            return []
        end = until[0] + 1 if until else self._admission.next
        rows = self._database.query(
            f"select {', '.join(map(quoted, found.names))} from {table.name}_hist "
            f"where id_ >= ? and id_ < ? and stream = ? and {quoted(key)} = ? and gone = 0 "
            "order by id_",
            (since[0] << CHANGE_BITS, end << CHANGE_BITS, head.id, value),
        )
        return found.made(rows)

    def newest(self, table: Table[R]) -> list[R]:
        """Return of each key of a table's first index the greatest row, whoever wrote it.

        As the index compares it. It costs what it returns, however many rows there are.
        """
        found = self._flushed(table)
        index = table.indexes[0]
        key = quoted(index[0])
        keys = self._database.query(
            f"with recursive every(k) as (select min({key}) from {table.name} union all select "
            f"(select min({key}) from {table.name} where {key} > every.k) from every "
            "where every.k is not null) select k from every where k is not null"
        )
        by = ", ".join(f"{quoted(column)} desc" for column in index[1:])
        sql = f"{found.every} where {key} = ? order by {by} limit 1"
        return found.made(row for key in keys for row in self._database.query(sql, key))

    def weight(self, table: Table[Any], column: str) -> tuple[int, int]:
        """Return how many rows a table has, and the bytes of one column; no text of it is read."""
        self._flushed(table)
        sql = f"select count(*), sum(octet_length({quoted(column)})) from {table.name}"
        ((count, size),) = self._database.query(sql)
        return as_int(count), as_int(size or 0)

    def newest_within(
        self, table: Table[R], writer: str, *, by: Names, limit: int, column: str, most: int
    ) -> list[R]:
        """Return a machine's rows that are greatest `by` these, of a column so many bytes."""
        found = self._flushed(table)
        heads = self._streams.heads.values()
        streams = ", ".join(str(head.id) for head in heads if head.name.machine == writer)
        names = ", ".join(map(quoted, by))
        order = ", ".join(f"{quoted(name)} desc" for name in by)
        last: tuple[SqlValue, ...] = ()
        for *stamp, size in self._database.query(
            f"select {names}, octet_length({quoted(column)}) from {table.name} "
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
        return found.made(self._database.query(sql, last))

    def distinct(
        self, table: Table[Any], columns: Names, /, **equals: Value
    ) -> list[tuple[Any, ...]]:
        """Return what these columns of everybody's rows hold, each once."""
        self._flushed(table)
        wanted = ", ".join(map(quoted, columns))
        where = " and ".join(f"{quoted(column)} is ?" for column in equals) or "true"
        sql = f"select distinct {wanted} from {table.name} where {where}"
        return self._database.query(sql, (*equals.values(),))

    def count(self, table: Table[Any], column: str, streams: Sequence[StreamName]) -> int:
        """Return how many different values a column of these streams' rows has, "" left out."""
        self._flushed(table)
        numbers = ", ".join(str(self._streams.of(stream).id) for stream in streams)
        name = quoted(column)
        sql = f"select count(distinct {name}) from {table.name} where {name} <> '' "
        return as_int(self._database.query(f"{sql} and stream in ({numbers})")[0][0])

    def writers(self, table: Table[Any], **equals: Value) -> set[MachineId]:
        """Return the machines with such rows; far cheaper than the rows themselves."""
        found = self.distinct(table, ("stream",), **equals)
        return {self._streams.by_id[number].name.machine for (number,) in found}

    def changes(
        self, table: Table[Any], columns: Names, *, after: int, limit: int = ROWS_MAX
    ) -> list[tuple[int, bool, StreamName, tuple[Any, ...]]]:
        """Return what became of a table's rows since change `after`: (number, gone, stream, row).

        Of a row that is gone only the key is there.
        """
        self._flushed(table)
        found = self._database.query(
            f"select id_, gone, stream, {', '.join(map(quoted, columns))} from {table.name}_hist "
            f"where id_ > ? order by id_ limit {limit:d}",
            (after,),
        )
        return [
            (as_int(at), bool(gone), self._streams.by_id[as_int(stream)].name, tuple(row))
            for at, gone, stream, *row in found
        ]

    def row(self, table: Table[R], stream: StreamName, *key: Value) -> R | None:
        """Return the row with this key, None without one; far cheaper than `rows`."""
        self._contents.settle()
        return self._table(table).get((self._streams.of(stream).id, *key))

    def has_row(self, table: Table[Any], stream: StreamName, *key: Value) -> bool:
        """Return whether there is a row, by what is folded so far: not by this transaction's end.

        To fold what was just written for each such question would cost more than the question.
        """
        return self._table(table).get((self._streams.of(stream).id, *key)) is not None

    def as_of(
        self, table: Table[R], *, admission: int | None = None, time_ms: int | None = None
    ) -> list[R]:
        """Return all rows as this machine had them after an admission, or at a time."""
        if (admission is None) == (time_ms is None):
            raise ValueError("ask for an admission or for a time")
        found = self._flushed(table)
        at = admission if admission is not None else self._admission.at(time_ms or 0)
        rows = self._database.query(found.as_of, ((at + 1) << CHANGE_BITS,))
        return found.made(tuple(row) for _, gone, *row in rows if not gone)

    def query(self, sql: str, bindings: tuple[SqlValue, ...] = ()) -> list[tuple[SqlValue, ...]]:
        """Return what a `select` of our own finds; tables name streams by number (`stream`)."""
        self._contents.settle()
        self._folding.flush()
        return self._database.query(sql, bindings)

    def skipped(self, fold: str = "", limit: int = -1) -> list[Skipped]:
        """Return the entries that folds, or this one, could not use, with the reason."""
        self._contents.settle()
        self._folding.flush()
        found = self._database.query(
            "select entry, fold, reason from skipped where ?1 in ('', fold) "
            "order by entry, fold limit ?2",
            (fold, limit),
        )
        shown = []
        for number, name, reason in found:
            stream, seq = unpack(as_int(number))
            shown.append(Skipped(str(name), self._streams.by_id[stream].name, seq, str(reason)))
        return shown

    def _table(self, table: Table[R]) -> FoldTable[R]:
        found = self._folding.tables.get(table.name)
        if found is None or found.table is not table:
            raise NotFound(f"No fold of this store writes a table {table.name}.")
        return found

    def _flushed(self, table: Table[R]) -> FoldTable[R]:
        """The table, once SQLite has every row of it."""
        self._contents.settle()
        found = self._table(table)
        found.flush()
        return found
