"""What a fold is: a pure function that turns one stream's entries into rows.

Rule 1: a fold is total. A body it cannot use raises `Skip` with a stable reason; nothing else.
Rule 2: a fold reads and writes only rows of the stream whose entry it is given, `rows.stream`.
Rule 3: a fold reads no clock, no other stream, no configuration: every rebuild gives equal tables.
Rule 4: changes count together or not at all; a `Skip` after the first change takes it back.

A fold declares its tables and the kinds it wants; the store creates the tables (with the writer's
stream as first key column, and a history beside each), calls `apply` for every wanted entry in
order, and commits the rows in the transaction that holds the entry. A fold that changes what it
writes for the same entries raises its `version` (absent means 1): the store then refolds it. So it
does when a body that the fold reads has changed (kind.py, rule 3).
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final, Generic, Literal, NamedTuple, Protocol, TypeVar, get_args, get_origin

from msgspec import Struct

from muster import limits
from muster.errors import Malformed
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.kind import ignores_unknown, kind_of
from muster.log.stream import StreamName

Affinity = Literal["text", "int", "blob"]
Column = tuple[str, Affinity]
Value = str | int | bytes | None

T = TypeVar("T", bound=Struct)
R = TypeVar("R", bound=NamedTuple)

# Where a row names no entry, or none yet.
NO_ENTRY: Final = EntryId(b"")

_AFFINITIES: Final[Mapping[Any, Affinity]] = {str: "text", int: "int", bytes: "blob"}


@dataclass(frozen=True, slots=True, eq=False)
class Table(Generic[R]):
    """One table of a fold, with the class of its rows, which no other table has.

    Its first field is `stream`, whose the row is; so many after it are the `key` that names a row
    within its stream. The annotations say what a column holds: text, a number or bytes.

    Where every row is `of_entry`, the key begins with `seq`, the number of the entry that made it,
    and no other entry reads, changes or removes it: when the body of one entry is erased, its rows
    alone are made anew.

    Keys that are `ids` come in no order, and are asked for whoever wrote them: such rows lie as
    they came, beside an index over their keys that ends with the stream. Kept by key, each would
    dirty a large page of its own at random.
    """

    name: str
    row: type[R]
    key: int = 1
    indexes: tuple[tuple[str, ...], ...] = ()
    ids: bool = False
    of_entry: bool = False

    @property
    def columns(self) -> tuple[Column, ...]:
        """Every column after the stream. Raises: ValueError: the class is none of rows."""
        return _columns(self.name, self.row)


@cache
def _columns(table: str, row: type[NamedTuple]) -> tuple[Column, ...]:
    stream, *fields = row.__annotations__.items()
    if stream != ("stream", StreamName):
        raise ValueError(f"a row of the table {table} begins with something else: {stream}")
    return tuple((name, _affinity(table, name, sort)) for name, sort in fields)


def _affinity(table: str, column: str, sort: Any) -> Affinity:
    # A NewType or a Literal is kept as what it is made of.
    while hasattr(sort, "__supertype__"):
        sort = sort.__supertype__
    sorts = {*map(type, get_args(sort))} if get_origin(sort) is Literal else {sort}
    if len(sorts) != 1 or not sorts <= _AFFINITIES.keys():
        raise ValueError(f"the column {column} of the table {table} cannot hold {sort}")
    return _AFFINITIES[sorts.pop()]


class Gone(NamedTuple):
    """Instead of a row: there is none any more where this one is."""

    row: NamedTuple


class Rows(Protocol):
    """The rows of the stream that is being folded, whose name is `stream`."""

    @property
    def stream(self) -> StreamName: ...

    @property
    def rest(self) -> bytes | None:
        """What was kept for this fold of a body that was let go, None where none was."""

    def get(self, table: Table[R], *key: Value) -> R | None:
        """Return the row with this key, None when there is none.

        It is as before this entry, whatever `apply` has yielded so far.
        """


class Skip(Exception):
    """The entry means nothing to this fold; `reason` is a short word-with-dashes for the record."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Fold(Protocol):
    """See the rules at the top of this file."""

    @property
    def name(self) -> str:
        """Return the name under which skipped entries are recorded."""

    @property
    def tables(self) -> tuple[Table[Any], ...]:
        """Return the tables that only this fold writes."""

    @property
    def kinds(self) -> frozenset[str]:
        """Return the kinds of entries to be called for."""

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """Return the rows that are new or other by `entry`, and what is `Gone`.

        Raises: Skip: the entry changes nothing, for this reason.
        """


def body_as(entry: Entry, body_type: type[T]) -> T:
    """Decode the body of `entry`.

    Raises: Skip with `no-body` when it was erased or withheld, `bad-body` when it is another type.
    """
    body = entry.body
    if body is None:
        raise Skip("no-body")
    known = (entry.id, body_type)
    found: T | None = _read.get(known)
    if found is not None:
        return found
    try:
        kind, lenient = entry.header.kind, ignores_unknown(body_type)
        found = canon.decode_as(
            body, body_type, kind, size_max=limits.BODY_BYTES_MAX, lenient=lenient
        )
    except Malformed as error:
        raise Skip("bad-body") from error
    if len(body) <= limits.BODY_REMEMBERED_BYTES_MAX:
        if len(_read) >= limits.BODIES_REMEMBERED_MAX:
            _read.clear()
        _read[known] = found
    return found


# Bodies of the last moments: folds and services read what came in a step some eight times. An id
# names one body, and nobody changes what was read.
_read: dict[tuple[EntryId, type[Any]], Any] = {}


def body_or_none(entry: Entry | None, body_type: type[T]) -> T | None:
    """As `body_as`; None without an entry, for one of another kind, and what cannot be read."""
    if entry is None or entry.header.kind != kind_of(body_type):
        return None
    try:
        return body_as(entry, body_type)
    except Skip:
        return None
