"""Streams of messages, folded as they grow."""

from typing import Any

from tests.task.world import MemoryRows

from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import Entry, compose
from muster.log.fold import Skip
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName
from muster.message.fold import Message, MessageFold, ReceiptFold, ReceiptRow, message_of
from muster.message.state import Receipt

ALICE = MachineId("a" * 64)
BOB = MachineId("b" * 64)
CAROL = MachineId("c" * 64)


class Stream:
    """One machine's stream."""

    def __init__(self, machine: MachineId) -> None:
        self.name = StreamName(machine, Incarnation("1" * 32), FLEET)
        self.rows = MemoryRows()
        self.skipped: list[str] = []
        self.entries: list[Entry] = []

    def append(self, body: Any, **changes: Any) -> Any:
        return self.append_raw(kind_of(type(body)), canon.encode(body), **changes)

    def append_raw(self, kind: str, raw: bytes, actor: str = "muster", at_ms: int = 1000) -> Any:
        entry = compose(
            self.name, len(self.entries), Stamp(at_ms, 0), kind, actor, [], raw, bytes(16)
        )
        self.entries.append(entry)
        for fold in (MessageFold(), ReceiptFold()):
            if kind in fold.kinds:
                try:
                    self.rows.apply(fold.apply(entry, self.rows))
                except Skip as skip:
                    self.skipped.append(skip.reason)
        return entry

    def sent(self) -> list[Message]:
        there = self.rows.tables.get("message", {})
        return [message_of(e) for e in self.entries if (e.header.seq,) in there]

    def receipts(self) -> list[Receipt]:
        table = self.rows.tables.get("receipt", {})
        who = self.name.machine
        return [Receipt(who, key[0], key[1], ReceiptRow(*row)) for key, row in table.items()]
