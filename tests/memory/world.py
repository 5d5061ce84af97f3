"""Machines that remember, drawn: each writes a stream, and holds the others' as far as they came."""

from collections.abc import Iterable
from typing import Any, Literal

from tests.task.world import MemoryRows

from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose
from muster.log.fold import NO_ENTRY, Skip
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Incarnation, MachineId, Scope, StreamName
from muster.memory.fold import ERASED, OVER, VERSION, ErasedRow, MemoryFold, OverRow, VersionRow
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.memory.state import (
    UNPROVEN,
    WHOLE,
    Proof,
    Record,
    RecordName,
    Version,
    records,
    versions,
)

ALICE = MachineId("a" * 64)
BOB = MachineId("b" * 64)
CAROL = MachineId("c" * 64)
# Stands for an entry that proves a person's order; whether it does is the tables' question.
ORDER = EntryId(b"o" * 32)
Who = Literal["person", "agent", "outside"]


class Stream:
    """What one machine wrote in one scope, folded as it grows."""

    def __init__(self, machine: MachineId, scope: Scope = FLEET, life: int = 1) -> None:
        self.rows = MemoryRows(machine)
        self.name = StreamName(machine, Incarnation(f"{life:032x}"), scope)
        self.rows.stream = self.name
        self.skipped: list[str] = []
        self.entries: list[Entry] = []

    def append(self, body: Any, who: Who = "agent", at_ms: int = 1000) -> EntryId:
        actor, causes = ("op:alice", [ORDER]) if who == "person" else ("claude@build", [])
        return self.append_raw(kind_of(type(body)), canon.encode(body), actor, causes, at_ms).id

    def append_raw(
        self, kind: str, raw: bytes, actor: str, causes: list[EntryId], at_ms: int
    ) -> Entry:
        # A salt of each entry's own: two that say the same are two.
        seq = len(self.entries)
        salt = seq.to_bytes(16, "big")
        entry = compose(self.name, seq, Stamp(at_ms, 0), kind, actor, causes, raw, salt)
        self.entries.append(entry)
        self.fold(entry)
        return entry

    def fold(self, entry: Entry) -> None:
        try:
            self.rows.apply(MemoryFold().apply(entry, self.rows))
        except Skip as skip:
            self.skipped.append(skip.reason)

    def lose_body(self, seq: int) -> None:
        """Erase a body here: everything is folded again without it."""
        self.entries[seq] = self.entries[seq].without_body()
        self.rows.held.clear()
        for entry in self.entries:
            self.fold(entry)

    def put(self, key: str, text: str, over: Iterable[bytes] = (), **more: Any) -> EntryId:
        who, at_ms = more.pop("who", "agent"), more.pop("at_ms", 1000)
        more.setdefault("origin", "outside" if who == "outside" else "")
        body = MemoryPut(key, text, [each.hex() for each in over], **more)
        return self.append(body, who, at_ms)

    def refute(self, key: str, over: Iterable[bytes], who: Who = "agent", at_ms: int = 1000) -> Any:
        return self.append(MemoryRefute(key, [each.hex() for each in over], "wrong"), who, at_ms)

    def erase(self, target: Version, who: Who = "person", **more: Any) -> EntryId:
        """As the verb does it: what the target was over is restated."""
        known: dict[str, Any] = {
            "state": "refuted" if target.state == "refuted" else "erased",
            "rank": target.rank,
            "key": target.key,
            "over": sorted(each.hex() for each in target.over),
            "print": target.print.hex(),
        }
        return self.append(MemoryErase(target.id.hex(), **{**known, **more}), who)

    def versions(self, size: int | None = None) -> list[VersionRow]:
        return [r for r in self.rows.every(VERSION) if size is None or r.seq < size]


def proof_of(row: VersionRow | ErasedRow) -> Proof:
    return WHOLE if row.order != NO_ENTRY else UNPROVEN


def known(streams: Iterable[Stream], proof: Any = proof_of) -> list[Version]:
    """The versions of all of these."""
    rows: list[VersionRow] = []
    over: list[OverRow] = []
    erased: list[ErasedRow] = []
    for each in streams:
        rows += each.rows.every(VERSION)
        over += each.rows.every(OVER)
        erased += each.rows.every(ERASED)
    return versions(rows, over, erased, proof)


def current(*streams: Stream) -> dict[RecordName, Record]:
    return dict(records(known(streams)))


def state_of(key: str, *streams: Stream, scope: Scope = FLEET) -> tuple[str, list[EntryId]]:
    """The state of a key, and its heads in order."""
    record = current(*streams)[RecordName(scope, key)]
    return record.state, [head.id for head in record.heads]
