"""One machine, its streams, and two folds that are small enough to reason about."""

import random
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec
from tests.digest import tables_digest

from muster.log import canon
from muster.log.admit import Taken, admit
from muster.log.entry import Entry, EntryId
from muster.log.fold import Fold, Gone, Rows, Skip, Table, body_as
from muster.log.keys import Signer
from muster.log.segment import Segment
from muster.log.stream import FLEET, JOURNAL, FleetId, Incarnation, MachineId, StreamName
from muster.store.store import MEMORY, Draft, Store

OWNER = FleetId("f" * 64)
NOW_MS = 1_790_000_000_000


class Task(msgspec.Struct, forbid_unknown_fields=True):
    id: str
    state: str


class Note(msgspec.Struct, forbid_unknown_fields=True):
    text: str


class JobRow(NamedTuple):
    stream: StreamName
    id: str
    state: str
    moves: int
    entry: EntryId


class NoteRow(NamedTuple):
    stream: StreamName
    seq: int
    text: str


JOB = Table("job", JobRow, indexes=(("state",),), ids=True)
NOTE = Table("note", NoteRow, of_entry=True)


class Tasks:
    """Reads before it writes, counts moves, deletes: all a fold can do to its rows."""

    name = "tasks"
    tables = (JOB,)
    kinds = frozenset({"job.set", "job.drop"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, Task)
        before = rows.get(JOB, body.id)
        if entry.header.kind == "job.drop":
            if before is None:
                raise Skip("no-such-job")
            yield Gone(before)
            return
        moves = before.moves if before is not None else 0
        yield JobRow(rows.stream, body.id, body.state, moves + 1, entry.id)
        if body.state == "half":
            # The change above must not count: an entry counts together or not at all.
            raise Skip("half-done")


class Notes:
    name = "notes"
    tables = (NOTE,)
    kinds = frozenset({"note.put"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, Note)
        if body.text == "mistake":
            raise KeyError(body.text)
        return [NoteRow(rows.stream, entry.header.seq, body.text)]


def folds() -> tuple[Fold, ...]:
    return (Tasks(), Notes())


class Machine:
    """A machine with its seal key, and a store."""

    def __init__(self, number: int, path: Path | str = MEMORY, image: bytes | None = None) -> None:
        self.signer = Signer(bytes([number]) * 32)
        self.id = MachineId(self.signer.public.hex())
        self.random = random.Random(number)
        self.now_ms = NOW_MS
        self.path = path
        self.store = self.opened(image)
        self.journal = self.stream(JOURNAL)
        self.fleet = self.stream(FLEET)

    def opened(self, image: bytes | None = None) -> Store:
        return Store(
            self.path,
            fleet=OWNER,
            machine=self.id,
            rng=self.random.randbytes,
            folds=folds(),
            image=image,
        )

    def stream(self, scope: str, incarnation: int = 0) -> StreamName:
        return StreamName(self.id, Incarnation(f"{incarnation:032x}"), scope)  # type: ignore[arg-type]

    def write(self, stream: StreamName, *drafts: Draft) -> list[Entry]:
        self.now_ms += 1
        with self.store.transaction():
            entries = self.store.append(stream, drafts, self.now_ms)
            self.store.seal_dirty(self.signer)
        return entries

    def take(self, other: "Machine", stream: StreamName, entries_max: int = 1000) -> bool:
        """Take the next segment of somebody else's stream; False when there was none."""
        segment = other.store.log.segment(stream, self.store.log.size(stream))
        if segment is None:
            return False
        return self.take_segment(segment, other)

    def take_segment(self, segment: Segment, writer: "Machine") -> bool:
        self.now_ms += 1
        state = self.store.log.state(segment.stream)
        public = bytes.fromhex(segment.stream.machine)
        found = admit(state, segment, OWNER, public, self.store.log.tree(segment.stream))
        if not isinstance(found, Taken):
            return False
        with self.store.transaction():
            self.store.take(found, self.now_ms)
        return True

    def pull(self, other: "Machine", stream: StreamName) -> None:
        while self.take(other, stream):
            pass


def job(name: str, state: str) -> Draft:
    return Draft("job.set", "muster", (), canon.encode({"id": name, "state": state}))


def drop(name: str) -> Draft:
    return Draft("job.drop", "muster", (), canon.encode({"id": name, "state": ""}))


def note(text: str) -> Draft:
    return Draft("note.put", "muster", (), canon.encode({"text": text}))


def jobs(machine: Machine) -> Sequence[tuple[object, ...]]:
    return [(row.id, row.state, row.moves) for row in machine.store.tables.rows(JOB)]


def again(machine):
    """The same machine after a restart: what counts is what was committed."""
    if machine.path == MEMORY:
        return Machine(machine.random.randrange(100, 200), image=machine.store.image()).store
    machine.store.close()
    machine.store = machine.opened()
    return machine.store


def everything(store):
    """All that can be asked of a store, to compare."""
    return (
        [(str(s), store.log.size(s), store.log.state(s).range.root()) for s in store.log.streams()],
        [store.log.slice(s, 0) for s in store.log.streams()],
        [store.log.seals(s) for s in store.log.streams()],
        tables_digest(store),
        [store.tables.query(f"select * from {name}_hist") for name in ("job", "note")],
        store.tables.skipped(),
        list(store.log.cosigned()),
        store.log.forks(),
    )
