"""Machines that write versions of files, drawn: each writes a stream."""

from collections.abc import Iterable
from typing import Any

from tests.task.world import MemoryRows

from muster.context.fold import VERSION, ContextFold
from muster.context.kinds import ContextPut
from muster.context.state import Version
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import EntryId, compose
from muster.log.fold import Skip
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Incarnation, MachineId, Scope, StreamName

ALICE = MachineId("a" * 64)
BOB = MachineId("b" * 64)


class Stream:
    """What one machine wrote in one scope, folded as it grows."""

    def __init__(self, machine: MachineId, scope: Scope = FLEET) -> None:
        self.rows = MemoryRows(machine)
        self.name = StreamName(machine, Incarnation("1" * 32), scope)
        self.rows.stream = self.name
        self.skipped: list[str] = []
        self.size = 0

    def append(self, said: Any, at_ms: int = 1000, *, body: bool = True) -> EntryId:
        # A salt of each entry's own: two that say the same are two.
        seq, self.size = self.size, self.size + 1
        raw, salt = canon.encode(said), seq.to_bytes(16, "big")
        kind = kind_of(type(said))
        entry = compose(self.name, seq, Stamp(at_ms, 0), kind, "muster", [], raw, salt)
        if not body:
            entry = entry.without_body()
        try:
            self.rows.apply(ContextFold().apply(entry, self.rows))
        except Skip as skip:
            self.skipped.append(skip.reason)
        return entry.id

    def put(
        self, path: str, text: str = "", over: Iterable[bytes] = (), at_ms: int = 1000, **more: Any
    ) -> EntryId:
        body = ContextPut("notes", path, [each.hex() for each in over], text, **more)
        return self.append(body, at_ms)


def known(*streams: Stream) -> list[Version]:
    """The versions of all of these."""
    return [
        Version(
            row.id, row.path, row.sha256, row.size, bool(row.absent), bool(row.x),
            (row.at_ms, row.at_n), row.targets,
        )
        for stream in streams
        for row in stream.rows.every(VERSION)
    ]  # fmt: skip
