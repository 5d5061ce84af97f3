"""Versions of files, what they are over, and what machines have on their disks become rows.

Rule 1: no row holds bytes of a file: they stay in the entry's body or in a blob.
Rule 2: a version whose body is gone has no row here: without its path it is of no file. One that
        was let go for its room has the same rows as before, made of what was kept of it.
Rule 3: ids that nobody knows yet are kept: arrival order is never an input.
Rule 4: what counts of a file is found without all that it ever was: `context_top` has the versions
        that no later one of the same machine is over, `context_over` who is over which.
"""

from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Final, NamedTuple

from msgspec import Struct

from muster import limits
from muster.context.kinds import (
    ContextAt,
    ContextPassed,
    ContextPut,
    ContextReplaced,
    ContextRest,
    check_at,
    check_passed,
    check_put,
    check_replaced,
    held,
)
from muster.context.path import folded
from muster.errors import Malformed
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, Gone, Rows, Skip, Table, body_as
from muster.log.stream import FLEET, StreamName, is_group

# What the fold reads, by kind.
BODIES: Final[Mapping[str, type[Struct]]] = {
    "context.put": ContextPut, "context.at": ContextAt,
    "context.passed": ContextPassed, "context.replaced": ContextReplaced,
}  # fmt: skip
# Instead of the hash of bytes: of a file that is gone, and of one whose bytes another version has.
NO_BYTES: Final = b""


class VersionRow(NamedTuple):
    """One version. `folded` is its path as a disk without case has it; `same` has its bytes.

    What it is over stands in the row itself: a file that many change has hundreds of versions, and
    whoever asks what counts of it reads them all at once.
    """

    stream: StreamName
    seq: int
    id: EntryId
    folder: str
    path: str
    folded: str
    sha256: bytes
    size: int
    blob: int
    absent: int
    x: int
    same: EntryId
    over: str
    actor: str
    at_ms: int
    at_n: int

    @property
    def targets(self) -> frozenset[EntryId]:
        """The versions that it is over."""
        return frozenset(EntryId(bytes.fromhex(each)) for each in self.over.split())


class TopRow(NamedTuple):
    """A version that no other version of its file in its stream is over; `file` is `file_print`."""

    stream: StreamName
    id: EntryId
    seq: int
    folder: str
    path: str
    folded: str
    file: bytes
    absent: int
    at_ms: int
    at_n: int


class OverRow(NamedTuple):
    """What a version of a file is over."""

    stream: StreamName
    seq: int
    n: int
    target: EntryId
    file: bytes


class LetGoRow(NamedTuple):
    """A version that its machine let go; see `ContextReplaced`. By it whoever has no body knows it.

    `file` is `file_print`.
    """

    stream: StreamName
    seq: int
    n: int
    id: EntryId
    file: bytes
    sha256: bytes
    x: int


class AtRow(NamedTuple):
    """What a machine said last of its disk."""

    stream: StreamName
    folder: str
    root: bytes
    at_ms: int


class PassedRow(NamedTuple):
    """What a machine said last that its disk needs no more; see `ContextPassed`."""

    stream: StreamName
    folder: str
    ended: int
    upto: str
    kept: str
    at_ms: int

    @property
    def sizes(self) -> dict[str, int]:
        """How far it has come, by stream."""
        pairs = (each.rpartition(":") for each in self.upto.split())
        return {stream: int(size) for stream, _, size in pairs}


# By the stream as well: what machines wrote that may not costs nobody a look at it.
VERSION: Final = Table(
    "context_version",
    VersionRow,
    indexes=(("folder", "folded", "stream"), ("same", "stream"), ("id",)),
)
TOP: Final = Table(
    "context_top", TopRow,
    indexes=(("folder", "folded", "stream"), ("stream", "folder", "path")), ids=True,
)  # fmt: skip
OVER: Final = Table("context_over", OverRow, key=2, indexes=(("target", "file", "stream"),))
LET_GO: Final = Table(
    "context_let_go", LetGoRow, key=2, indexes=(("id",), ("file", "sha256", "stream"))
)
AT: Final = Table("context_at", AtRow, indexes=(("folder",),))
PASSED: Final = Table("context_passed", PassedRow, indexes=(("folder",),))


class ContextFold:
    """See the rules at the top of this file."""

    name = "context"
    version = 2
    tables = (VERSION, TOP, OVER, LET_GO, AT, PASSED)
    kinds = frozenset(BODIES)

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """See the rules at the top of this file."""
        if rows.stream.scope != FLEET and not is_group(rows.stream.scope):
            raise Skip("wrong-scope")
        header, stream = entry.header, rows.stream
        try:
            if header.kind == "context.at":
                at = check_at(body_as(entry, ContextAt))
                return [AtRow(stream, at.folder, bytes.fromhex(at.root), header.t[0])]
            if header.kind == "context.passed":
                return [_passed(check_passed(body_as(entry, ContextPassed)), stream, header.t[0])]
            if header.kind == "context.replaced":
                return list(_replaced(check_replaced(body_as(entry, ContextReplaced)), entry, rows))
            if entry.body is None and rows.rest is not None:
                return self._let_go(entry, rows, rows.rest)
            put = check_put(body_as(entry, ContextPut))
            digest, size = _bytes_of(put)
        except Malformed as error:
            raise Skip("bad-context") from error
        same = EntryId(bytes.fromhex(put.same)) if put.same else NO_ENTRY
        # Each once, and in the order of the ids: what a list says twice is said once.
        over = sorted(set(put.over))
        row = VersionRow(
            stream, header.seq, entry.id, put.folder, put.path, folded(put.path), digest, size,
            int(bool(put.blob)), put.gone, put.x, same, " ".join(over), header.actor, *header.t,
        )  # fmt: skip
        return [row, *_place(row, rows)]

    @staticmethod
    def _let_go(entry: Entry, rows: Rows, rest: bytes) -> list[NamedTuple]:
        """The rows of a version of whose body this was kept. Raises: Malformed."""
        had = canon.decode_as(rest, ContextRest, "context.rest", size_max=limits.BODY_BYTES_MAX)
        header, path = entry.header, had.path
        row = VersionRow(
            rows.stream, header.seq, entry.id, had.folder, path, folded(path),
            bytes.fromhex(had.sha256), had.size, had.blob, 0, had.x, NO_ENTRY,
            " ".join(sorted(set(had.over))), header.actor, *header.t,
        )  # fmt: skip
        return [row, *_place(row, rows)]


def _replaced(said: ContextReplaced, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
    file, seq = file_print(said.folder, said.path), entry.header.seq
    yield from _over(rows.stream, seq, sorted(set(said.over)), file, rows)
    for n, each in enumerate(said.let_go):
        id, digest = EntryId(bytes.fromhex(each.id)), bytes.fromhex(each.sha256)
        yield LetGoRow(rows.stream, seq, n, id, file, digest, each.x)


def _passed(said: ContextPassed, stream: StreamName, at_ms: int) -> PassedRow:
    upto = " ".join(f"{each}:{size}" for each, size in sorted(said.upto.items()))
    return PassedRow(stream, said.folder, said.ended, upto, " ".join(sorted(said.kept)), at_ms)


def _over(
    stream: StreamName, seq: int, over: list[str], file: bytes, rows: Rows
) -> Iterable[NamedTuple]:
    """Versions of a file that an entry is over are on top no more. Each once, in order."""
    # By the text, not the set: each machine numbers them alike.
    for n, text in enumerate(over):
        target = EntryId(bytes.fromhex(text))
        yield OverRow(stream, seq, n, target, file)
        below = rows.get(TOP, target)
        if below is not None and below.file == file:
            yield Gone(below)


def file_print(folder: str, path: str) -> bytes:
    """What tells one file of a folder from every other one: half of a SHA-256."""
    return sha256(f"{folder}\0{path}".encode()).digest()[:16]


def _place(row: VersionRow, rows: Rows) -> Iterable[NamedTuple]:
    """What a version is over, and which of its machine's versions of the file are on top now."""
    file = file_print(row.folder, row.path)
    yield from _over(row.stream, row.seq, row.over.split(), file, rows)
    yield TopRow(
        row.stream, row.id, row.seq, row.folder, row.path, row.folded, file, row.absent,
        row.at_ms, row.at_n,
    )  # fmt: skip


def _bytes_of(put: ContextPut) -> tuple[bytes, int]:
    """The hash and the size of what a version has itself."""
    if put.gone or put.same:
        return NO_BYTES, 0
    if put.blob:
        return bytes.fromhex(put.blob), put.size
    data = held(put)
    return sha256(data).digest(), len(data)
