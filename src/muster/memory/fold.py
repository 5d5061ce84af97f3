"""Versions, what they are over, and what was erased become rows, in their writer's stream.

Rule 1: no row holds the text: it stays in the entry's body, so that to erase that is to erase it.
Rule 2: a version whose body is gone still has a row, made of its header: when, by whom, which id.
Rule 3: ids that nobody knows yet are kept: arrival order is never an input.
"""

from collections.abc import Iterable, Mapping
from typing import Final, Literal, NamedTuple

from muster.errors import Malformed
from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, Rows, Skip, Table, body_as
from muster.log.stream import FLEET, JOURNAL, StreamName, is_group
from muster.memory.kinds import (
    MemoryErase,
    MemoryPut,
    MemoryRefute,
    check_erase,
    check_put,
    check_refute,
)
from muster.memory.print import text_print

State = Literal["active", "refuted", "erased"]
# What the fold reads, by kind.
BODIES: Final[Mapping[str, type[MemoryPut | MemoryRefute | MemoryErase]]] = {
    "memory.put": MemoryPut,
    "memory.refute": MemoryRefute,
    "memory.erase": MemoryErase,
}


class VersionRow(NamedTuple):
    """One version. `order` is the entry that a person's actor cites as the proof of it."""

    stream: StreamName
    seq: int
    id: EntryId
    key: str
    state: State
    tags: str
    actor: str
    origin: str
    order: EntryId
    at_ms: int
    at_n: int
    print: bytes
    bytes: int


class OverRow(NamedTuple):
    """What an entry is over: a version's own, or what an erasure restates."""

    stream: StreamName
    seq: int
    n: int
    target: EntryId


class TagRow(NamedTuple):
    """What a version belongs to."""

    stream: StreamName
    seq: int
    n: int
    tag: str


class ErasedRow(NamedTuple):
    """What stays of an erased version."""

    stream: StreamName
    seq: int
    target: EntryId
    key: str
    state: State
    rank: int
    print: bytes
    actor: str
    order: EntryId
    at_ms: int


VERSION: Final = Table(
    "memory_version",
    VersionRow,
    indexes=(("key",), ("key", "stream", "order"), ("print",), ("at_ms", "id")),
    of_entry=True,
)
OVER: Final = Table("memory_over", OverRow, key=2, indexes=(("target",),), of_entry=True)
TAG: Final = Table("memory_tag", TagRow, key=2, indexes=(("tag",),), of_entry=True)
ERASED: Final = Table(
    "memory_erased",
    ErasedRow,
    indexes=(("target",), ("key",), ("print",), ("order",)),
    of_entry=True,
)


class MemoryFold:
    """See the rules at the top of this file."""

    name = "memory"
    version = 3
    tables = (VERSION, OVER, TAG, ERASED)
    kinds = frozenset(BODIES)

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        if rows.stream.scope not in (FLEET, JOURNAL) and not is_group(rows.stream.scope):
            raise Skip("wrong-scope")
        try:
            if entry.header.kind == "memory.erase":
                erase = check_erase(body_as(entry, MemoryErase))
                tomb = _erased(entry, rows.stream, erase)
                return [tomb, *_over(tomb, erase.over)]
            if entry.body is None:
                return [_version(entry, rows.stream, "", "erased")]
            if entry.header.kind == "memory.put":
                put = check_put(body_as(entry, MemoryPut))
                text, tags = put.text, " ".join(put.tags)
                row = _version(entry, rows.stream, put.key, "active")._replace(
                    tags=tags, origin=put.origin, print=text_print(text), bytes=len(text.encode())
                )
                return [row, *_over(row, put.over), *_tags(row, put.tags)]
            refute = check_refute(body_as(entry, MemoryRefute))
            row = _version(entry, rows.stream, refute.key, "refuted")._replace(origin=refute.origin)
            return [row, *_over(row, refute.over)]
        except Malformed as error:
            raise Skip("bad-memory") from error


def _version(entry: Entry, stream: StreamName, key: str, state: State) -> VersionRow:
    header = entry.header
    return VersionRow(
        stream, header.seq, entry.id, key, state, "", header.actor, "", _order(entry), *header.t,
        b"", 0,
    )  # fmt: skip


def _order(entry: Entry) -> EntryId:
    """The entry that is said to have ordered it; whether it did is for the reader to see."""
    return entry.causes[0] if entry.causes and entry.header.actor.startswith("op:") else NO_ENTRY


def _over(row: VersionRow | ErasedRow, over: list[str]) -> Iterable[OverRow]:
    # Each once, and in the order of the ids: what a list says twice is said once.
    for n, target in enumerate(sorted(set(over))):
        yield OverRow(row.stream, row.seq, n, EntryId(bytes.fromhex(target)))


def _tags(row: VersionRow, tags: list[str]) -> Iterable[TagRow]:
    for n, tag in enumerate(dict.fromkeys(tags)):
        yield TagRow(row.stream, row.seq, n, tag)


def _erased(entry: Entry, stream: StreamName, body: MemoryErase) -> ErasedRow:
    return ErasedRow(
        stream, entry.header.seq, EntryId(bytes.fromhex(body.target)), body.key, body.state,
        body.rank, bytes.fromhex(body.print), entry.header.actor, _order(entry), entry.header.t[0],
    )  # fmt: skip
