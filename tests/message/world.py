"""Streams of messages, folded as they grow."""

from typing import Any

from tests.task.world import MemoryRows

from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import Entry, compose
from muster.log.fold import Skip
from muster.log.kind import kind_of
from muster.log.stream import MachineId
from muster.message.fold import (
    MESSAGE,
    READING,
    Message,
    MessageFold,
    ReadingFold,
    ReadingRow,
    message_of,
)

ALICE = MachineId("a" * 64)
BOB = MachineId("b" * 64)
CAROL = MachineId("c" * 64)


class Stream:
    """One machine's stream."""

    def __init__(self, machine: MachineId) -> None:
        self.rows = MemoryRows(machine)
        self.name = self.rows.stream
        self.skipped: list[str] = []
        self.entries: list[Entry] = []

    def append(self, body: Any, **changes: Any) -> Any:
        return self.append_raw(kind_of(type(body)), canon.encode(body), **changes)

    def append_raw(self, kind: str, raw: bytes, actor: str = "muster", at_ms: int = 1000) -> Any:
        entry = compose(
            self.name, len(self.entries), Stamp(at_ms, 0), kind, actor, [], raw, bytes(16)
        )
        self.entries.append(entry)
        for fold in (MessageFold(), ReadingFold()):
            if kind in fold.kinds:
                try:
                    self.rows.apply(fold.apply(entry, self.rows))
                except Skip as skip:
                    self.skipped.append(skip.reason)
        return entry

    def sent(self) -> list[Message]:
        there = {row.seq for row in self.rows.every(MESSAGE)}
        return [message_of(e) for e in self.entries if e.header.seq in there]

    def readings(self) -> list[ReadingRow]:
        return self.rows.every(READING)
