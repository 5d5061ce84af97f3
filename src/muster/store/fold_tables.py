"""The tables folds write: rows as they are, and every row as it ever was.

Rule 1: beside each table `x` lies `x_hist` with every row it ever held, in admission order; a
        deleted row is a history row marked `gone`.
Rule 2: what a fold hands over is checked value by value. What SQLite cannot hold would otherwise
        fail the transaction for every entry in it, for ever.
Rule 3: within a transaction rows are read from the cache and written once, just before anyone
        asks SQLite for them.

The key of every table has `stream` in it, the local number of the writer's stream. History
has no index by key: keyed, it would dirty one page per change at random (measured: a third of the
time of a commit), so a question about the past reads the history up to that moment instead. That of
one stream is found by the numbers of its admissions: it costs what that stream wrote, not all.
"""

# ruff: noqa: S608 - table and column names are checked by `FoldTable`, values are bound.

import re
from collections.abc import Iterable, Mapping
from itertools import compress
from operator import ne
from typing import Any, Final, Generic

from muster.log.fold import Affinity, R, Skip, Table
from muster.log.stream import StreamName
from muster.store.sqlite import Database, SqlValue, as_int
from muster.store.streams import Head

SQL_INT_MAX: Final = 2**63 - 1
_NAME: Final = re.compile(r"[a-z][a-z0-9_]*")
_RESERVED: Final = frozenset({"stream", "id_", "gone"})
_PYTHON_TYPE: Final[Mapping[Affinity, type]] = {"text": str, "int": int, "blob": bytes}
# The low bits of a history row's number count the changes of one entry to one table.
CHANGE_BITS: Final = 12
CHANGES_MAX: Final = 1 << CHANGE_BITS

FullKey = tuple[Any, ...]


class FoldTable(Generic[R]):
    """One table of one fold, with its history; `heads` knows the streams by their numbers."""

    def __init__(self, database: Database, heads: Mapping[int, Head], table: Table[R]) -> None:
        self.table, self.name, self.names = table, table.name, table.row._fields
        if not 1 <= table.key < len(self.names):
            raise ValueError(f"the table {table.name} needs a key")
        for name in (table.name, *self.names[1:]):
            if not _NAME.fullmatch(name) or name in _RESERVED or name.endswith("_hist"):
                raise ValueError(f"{name!r} cannot be a name in the table {table.name}")
        for index in table.indexes:
            if not set(index) <= {*self.names}:
                raise ValueError(f"an index of the table {table.name} names an unknown column")
        if table.of_entry and self.names[1] != "seq":
            raise ValueError(f"a row of the table {table.name} does not say of which entry it is")
        kinds = [kind for _, kind in table.columns]
        self._types = (StreamName, *(_PYTHON_TYPE[kind] for kind in kinds))
        self._ints = [at for at, kind in enumerate(kinds, 1) if kind == "int"]
        self._texts = [at for at, kind in enumerate(kinds, 1) if kind == "text"]
        # How much of a row is its key, which begins with the stream.
        self.width = 1 + table.key
        self.cache: dict[FullKey, R | None] = {}
        # The texts of the rows that SQLite was asked for.
        self.read_bytes = 0
        self._database, self._heads = database, heads
        self._dirty: dict[FullKey, R | None] = {}
        # What SQLite has at the keys of these, as far as it was asked.
        self._before: dict[FullKey, R | None] = {}
        self._updates: dict[tuple[int, ...], str] = {}
        self._history: list[FullKey] = []
        self.key_names = self.names[: self.width]
        self._places = range(len(self.names))
        name = self.name
        # Quoted, because `to` and `order` are good names for a column and keywords of SQL.
        keys = ", ".join(map(quoted, self.key_names))
        every = ", ".join(map(quoted, self.names))
        match = " and ".join(f"{quoted(column)}=?" for column in self.key_names)
        self._nulls = (None,) * (len(self.names) - self.width)
        self._get = f"select {every} from {name} where {match}"
        self._insert = f"into {name}({every}) values({marks(len(self.names))})"
        self._update = f"update {name} set %s where {match}"
        self._delete = f"delete from {name} where {match}"
        self._remember = (
            f"insert or replace into {name}_hist(id_, gone, {every}) "
            f"values({marks(2 + len(self.names))})"
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

    def check(self, row: tuple[Any, ...], stream: StreamName, seq: int) -> None:
        """Refuse what SQLite could not store as declared, and a row of another stream or entry.

        Raises: Skip: the fold handed over such a row.
        """
        if tuple(map(type, row)) != self._types or (row[0] is not stream and row[0] != stream):
            raise Skip("bad-row")
        if self.table.of_entry and row[1] != seq:
            raise Skip("bad-row")
        for at in self._ints:
            if not -SQL_INT_MAX <= row[at] <= SQL_INT_MAX:
                raise Skip("bad-row")
        for at in self._texts:
            if not row[at].isascii():
                try:
                    row[at].encode()
                except UnicodeEncodeError as error:
                    raise Skip("bad-row") from error

    def get(self, key: FullKey) -> R | None:
        """Return the row at `key`, which begins with the stream's number."""
        try:
            return self.cache[key]
        except KeyError:
            # It was not asked for yet: the database has it, or nobody.
            found = self._database.query(self._get, key)
        row: R | None = None
        if found:
            (row,) = self.made(found)
            self.read_bytes += sum(len(value) for value in row if type(value) is str)
        self.cache[key] = row
        return row

    def made(self, found: Iterable[tuple[SqlValue, ...]]) -> list[R]:
        """The rows that SQLite has so."""
        make, heads = self.table.row._make, self._heads
        return [make((heads[as_int(row[0])].name, *row[1:])) for row in found]

    def put(self, key: FullKey, row: R | None, at: int, change: int) -> None:
        """Set the row at `key`, None deletes it, as change number `change` of admission `at`."""
        if key not in self._dirty and key in self.cache:
            self._before[key] = self.cache[key]
        self.cache[key] = self._dirty[key] = row
        number = (at << CHANGE_BITS) + change
        if row is None:
            self._history.append((number, 1, *key, *self._nulls))
        else:
            self._history.append((number, 0, key[0], *row[1:]))

    def flush(self) -> None:
        """Give SQLite what was put since."""
        if not self._dirty:
            return
        dirty, before, history = self._dirty, self._before, self._history
        self._dirty, self._before, self._history = {}, {}, []
        writes: dict[str, list[FullKey]] = {}
        for key, row in dirty.items():
            was = before.get(key)
            if row is None:
                writes.setdefault(self._delete, []).append(key)
            elif was is not None:
                changed = tuple(compress(self._places, map(ne, row, was)))
                if changed:
                    values = (*(row[at] for at in changed), *key)
                    # An index of columns that stay is not touched.
                    sql = self._updates.get(changed)
                    if sql is None:
                        names = ", ".join(f"{quoted(self.names[at])} = ?" for at in changed)
                        sql = self._updates[changed] = self._update % names
                    writes.setdefault(sql, []).append(values)
            else:
                verb = "insert " if key in before else "insert or replace "
                writes.setdefault(verb + self._insert, []).append((key[0], *row[1:]))
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
        before: dict[FullKey, R] = {}
        changed = self._database.query(self._changed_since, (stream, size, first))
        if size and changed:
            found = self._database.query(self._stream_as_of, (stream, first))
            kept = self.made(tuple(row) for _, gone, *row in found if not gone)
            before = {(stream, *row[1 : self.width]): row for row in kept}
        for number, key in enumerate(changed):
            was = before.get(key)
            if was is not None or self.get(key) is not None:
                self.put(key, was, at, number)

    def take_out(self, stream: int, seq: int, at: int) -> None:
        """Remove the rows of one entry, which has the admission number `at`, as if it made none."""
        self.flush()
        self.trim()
        self._database.execute(
            f"delete from {self.name} where stream = ? and seq = ?", (stream, seq)
        )
        self._database.execute(
            f"delete from {self.name}_hist where id_ >= ? and id_ < ?",
            (at << CHANGE_BITS, (at + 1) << CHANGE_BITS),
        )

    def create(self) -> None:
        """Make the table, its history and its indexes."""
        table = self.table
        lines = ", ".join(
            f"{quoted(name)} {kind}{' not null' * (at < table.key)}"
            for at, (name, kind) in enumerate(table.columns)
        )
        keys, lie = self.key_names, "without rowid, "
        if table.ids:
            keys, lie = (*keys[1:], "stream"), ""
        self._database.execute(
            f"create table {self.name}(stream int not null, {lines}, "
            f"primary key({', '.join(map(quoted, keys))})) {lie}strict"
        )
        self._database.execute(
            f"create table {self.name}_hist(id_ integer primary key, gone int not null, "
            f"stream int not null, {lines}) strict"
        )
        for number, index in enumerate(table.indexes):
            self._database.execute(
                f"create index {self.name}_by_{number} "
                f"on {self.name}({', '.join(map(quoted, index))})"
            )

    def clear(self, stream: int | None = None) -> None:
        """Empty the table and its history, or take one stream out of them."""
        self.flush()
        self.forget()
        where = "" if stream is None else f" where stream = {stream:d}"
        self._database.execute(f"delete from {self.name}{where}")
        self._database.execute(f"delete from {self.name}_hist{where}")


def marks(count: int) -> str:
    return ", ".join("?" * count)


def quoted(name: str) -> str:
    return f'"{name}"'
