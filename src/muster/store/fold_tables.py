"""The tables folds write: rows as they are, and every row as it ever was.

Rule 1: beside each table `x` lies `x_hist` with every row it ever held, in admission order; a
        deleted row is a history row marked `gone`.
Rule 2: within a transaction rows are read from the cache and written once, just before anyone
        asks SQLite for them.

The key of every table has `stream` in it, the local number of the writer's stream. History
has no index by key: keyed, it would dirty one page per change at random (measured: a third of the
time of a commit), so a question about the past reads the history up to that moment instead. That of
one stream is found by the numbers of its admissions: it costs what that stream wrote, not all.
"""

# ruff: noqa: S608 - table and column names are checked by `RowShape`, values are bound.

from collections.abc import Collection, Iterable, Mapping
from typing import Final

from muster.log.fold import Affinity, Row, Table, Value
from muster.store.row_shape import RowShape
from muster.store.sqlite import Database, SqlValue

# The low bits of a history row's number count the changes of one entry to one table.
CHANGE_BITS: Final = 12
CHANGES_MAX: Final = 1 << CHANGE_BITS

_SQL_TYPE: Final[Mapping[Affinity, str]] = {"text": "text", "int": "int", "blob": "blob"}

# No text that goes on after a beginning comes after this.
_LAST: Final = "\U0010ffff"

FullKey = tuple[Value, ...]


class FoldTable:
    """One table of one fold, with its history."""

    def __init__(self, database: Database, table: Table) -> None:
        self.table = table
        self.shape = RowShape(table)
        self.cache: dict[FullKey, Row | None] = {}
        # The texts of the rows that SQLite was asked for.
        self.read_bytes = 0
        self._database = database
        self._dirty: dict[FullKey, Row | None] = {}
        # What SQLite has at the keys of these, as far as it was asked.
        self._before: dict[FullKey, Row | None] = {}
        self._updates: dict[tuple[int, ...], str] = {}
        self._history: list[tuple[Value, ...]] = []
        self.key_names = tuple(name for name, _ in table.key)
        self.row_names = tuple(name for name, _ in table.columns)
        self.names = (*self.key_names, *self.row_names)
        name = table.name
        # Quoted, because `to` and `order` are good names for a column and keywords of SQL.
        keys = ", ".join(map(quoted, ("stream", *self.key_names)))
        every = ", ".join(map(quoted, ("stream", *self.names)))
        match = " and ".join(f"{quoted(column)}=?" for column in ("stream", *self.key_names))
        rows = ", ".join(map(quoted, self.row_names))
        self._nulls: Row = (None,) * len(self.row_names)
        self._get = f"select {rows or '1'} from {name} where {match}"
        self._insert = f"into {name}({every}) values({marks(1 + len(self.names))})"
        self._update = f"update {name} set %s where {match}"
        self._delete = f"delete from {name} where {match}"
        self._remember = (
            f"insert or replace into {name}_hist(id_, gone, {every}) "
            f"values({marks(3 + len(self.names))})"
        )
        # What a cut itself wrote is needed by no other: it lies beyond every earlier end, and is of
        # rows that the entries beyond it had written.
        bits = CHANGE_BITS
        span = f"number << {bits} as low_, number + entries << {bits} as end_"
        runs = f"(select {span} from admission where stream = ?1"
        its = f"cross join {name}_hist on id_ >= low_ and id_ < end_ where id_"
        self._changed_since = (
            f"select distinct {keys} from {runs} and start >= coalesce((select max(start) "
            f"from admission where stream = ?1 and start < ?2 and entries > 0), 0)) {its} >= ?3 "
            f"order by {keys}"
        )
        # SQLite promises that beside a lone max() the other columns are of the row that holds it.
        newest = f"select max(id_), gone, {every} from"
        self.as_of = f"{newest} {name}_hist where id_ < ? group by {keys} order by {keys}"
        self._stream_as_of = f"{newest} {runs}) {its} < ?2 group by {keys}"
        self.every = f"select {every} from {name}"

    def get(self, key: FullKey) -> Row | None:
        """Return the row at `key`, which begins with the stream."""
        try:
            return self.cache[key]
        except KeyError:
            found = self._database.query(self._get, key)
        row: Row | None = None
        if found:
            row = values_of(found[0]) if self.row_names else ()
            self.read_bytes += sum(len(value) for value in row if type(value) is str)
        self.cache[key] = row
        return row

    def put(self, key: FullKey, row: Row | None, at: int, change: int) -> None:
        """Set the row at `key`, None deletes it, as change number `change` of admission `at`."""
        if key not in self._dirty and key in self.cache:
            self._before[key] = self.cache[key]
        self.cache[key] = self._dirty[key] = row
        number = (at << CHANGE_BITS) + change
        if row is None:
            self._history.append((number, 1, *key, *self._nulls))
        else:
            self._history.append((number, 0, *key, *row))

    def flush(self) -> None:
        """Give SQLite what was put since."""
        if not self._dirty:
            return
        dirty, before, history = self._dirty, self._before, self._history
        self._dirty, self._before, self._history = {}, {}, []
        writes: dict[str, list[tuple[Value, ...]]] = {}
        for key, row in dirty.items():
            was = before.get(key)
            if row is None:
                writes.setdefault(self._delete, []).append(key)
            elif was is not None:
                changed = tuple(at for at, value in enumerate(row) if value != was[at])
                if changed:
                    values = (*(row[at] for at in changed), *key)
                    # An index of columns that stay is not touched.
                    sql = self._updates.get(changed)
                    if sql is None:
                        names = ", ".join(f"{quoted(self.row_names[at])} = ?" for at in changed)
                        sql = self._updates[changed] = self._update % names
                    writes.setdefault(sql, []).append(values)
            else:
                verb = "insert " if key in before else "insert or replace "
                writes.setdefault(verb + self._insert, []).append((*key, *row))
        for sql, rows in writes.items():
            self._database.executemany(sql, rows)
        self._database.executemany(self._remember, history)

    def trim(self) -> None:
        """Keep nothing that SQLite holds; only between transactions."""
        self.cache.clear()
        self.read_bytes = 0

    def forget(self) -> None:
        """Drop everything that SQLite does not hold: the transaction was rolled back."""
        self.trim()
        self._dirty.clear()
        self._before.clear()
        self._history.clear()

    def cut_back(self, stream: int, size: int, last: int, at: int) -> None:
        """Set the rows of `stream` to what they were after `size` entries; history keeps all.

        `last` is the admission number of the last of them, `at` the first of the cut.
        """
        self.flush()
        first = (last + 1) << CHANGE_BITS if size else 0
        before: dict[FullKey, Row] = {}
        changed = self._database.query(self._changed_since, (stream, size, first))
        if size and changed:
            width = 1 + len(self.key_names)
            for _, gone, *row in self._database.query(self._stream_as_of, (stream, first)):
                if not gone:
                    before[values_of(row[:width])] = values_of(row[width:])
        for number, found in enumerate(changed):
            key = values_of(found)
            was = before.get(key)
            if was is not None or self.get(key) is not None:
                self.put(key, was, at, number)

    def create(self) -> None:
        """Make the table, its history and its indexes."""
        table = self.table
        columns = [f"{quoted(name)} {_SQL_TYPE[kind]} not null" for name, kind in table.key]
        columns += [f"{quoted(name)} {_SQL_TYPE[kind]}" for name, kind in table.columns]
        lines = ", ".join(columns)
        keys, lie = ("stream", *self.key_names), "without rowid, "
        if table.ids:
            keys, lie = (*self.key_names, "stream"), ""
        self._database.execute(
            f"create table {table.name}(stream int not null, {lines}, "
            f"primary key({', '.join(map(quoted, keys))})) {lie}strict"
        )
        self._database.execute(
            f"create table {table.name}_hist(id_ integer primary key, gone int not null, "
            f"stream int not null, {lines}) strict"
        )
        for number, index in enumerate(table.indexes):
            self._database.execute(
                f"create index {table.name}_by_{number} "
                f"on {table.name}({', '.join(map(quoted, index))})"
            )

    def clear(self, stream: int | None = None) -> None:
        """Empty the table and its history, or take one stream out of them."""
        self.flush()
        self.forget()
        where = "" if stream is None else f" where stream = {stream:d}"
        self._database.execute(f"delete from {self.table.name}{where}")
        self._database.execute(f"delete from {self.table.name}_hist{where}")

    def rows(
        self,
        equals: Mapping[str, Value],
        order: tuple[str, ...],
        limit: int,
        streams: Collection[int] | None = None,
        begins: Mapping[str, str] | None = None,
        *,
        below: Mapping[str, Value] | None = None,
        columns: tuple[str, ...] = (),
    ) -> list[tuple[Value, ...]]:
        """Return rows, stream first, where the columns of `equals` hold those values.

        With `streams` only theirs: whoever writes much does not crowd out what others wrote. With
        `begins` only those where the columns begin with these texts, with `below` only those that
        come before these values, compared in their order. With `columns` nothing else is read.
        """
        self.flush()
        starts = dict(begins or {})
        before = dict(below or {})
        for name in (*equals, *starts, *before, *columns, *(o.removeprefix("-") for o in order)):
            if name != "stream" and name not in self.names:
                raise ValueError(f"the table {self.table.name} has no column {name}")
        where = " and ".join(f"{quoted(name)} is ?" for name in equals) or "true"
        if streams is not None:
            # Of ids that begin so there are few: an index by stream would give all of the stream.
            stream = "+stream" if self.table.ids and begins else "stream"
            where += f" and {stream} in ({', '.join(f'{number:d}' for number in streams)})"
        for name in starts:
            where += f" and {quoted(name)} >= ? and {quoted(name)} < ?"
        if before:
            where += f" and ({', '.join(map(quoted, before))}) < ({marks(len(before))})"
        bounds: list[Value] = [text + end for text in starts.values() for end in ("", _LAST)]
        bounds += before.values()
        by = ", ".join(
            f"{quoted(column[1:])} desc" if column.startswith("-") else quoted(column)
            for column in (order or ("stream", *self.key_names))
        )
        wanted = ", ".join(("stream", *map(quoted, columns or self.names)))
        sql = f"select {wanted} from {self.table.name} where {where} order by {by} limit {limit:d}"
        return [values_of(row) for row in self._database.query(sql, (*equals.values(), *bounds))]


def values_of(row: Iterable[SqlValue]) -> tuple[Value, ...]:
    # Strict tables hold no floats, so what comes back is what a fold may put.
    return tuple(row)  # type: ignore[arg-type]


def marks(count: int) -> str:
    return ", ".join("?" * count)


def quoted(name: str) -> str:
    return f'"{name}"'
