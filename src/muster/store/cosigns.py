"""What machines vouch for: the newest cosign of every stream, machine and strength.

Rule 1: this machine's own cosign is written by the transaction that makes it true.
Rule 2: another machine's cosign may wait in memory for the next transaction that writes anything,
        or for `flush_cosigns`: a commit of its own would cost an fsync for each receipt. Nothing
        is lost in a crash: it is proof by itself, its maker keeps it and shows it on every link.
"""

from collections.abc import Mapping
from typing import Final

from muster.log.seal import Cosign, Strength
from muster.log.stream import MachineId
from muster.store.sqlite import Database, as_bytes, as_int, as_text
from muster.store.streams import Head

_Key = tuple[MachineId, Strength]
_STRENGTHS: Final[Mapping[str, Strength]] = {"seen": "seen", "held": "held"}


class Cosigns:
    """All cosigns of a database; read once per stream, then kept in memory."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[int, dict[_Key, Cosign]] = {}
        # What is not written yet, and whether a transaction that writes nothing else is to do it.
        self.waiting: dict[tuple[int, MachineId, Strength], Cosign] = {}
        self.due = False

    def of(self, head: Head) -> dict[_Key, Cosign]:
        """Return the newest cosigns of a stream."""
        known = self._known.get(head.id)
        if known is None:
            found = self._database.query(
                "select machine, strength, size, root, time_s, note from cosign where stream = ?",
                (head.id,),
            )
            known = self._known[head.id] = {}
            for machine, text, size, root, time_s, note in found:
                by, strength = MachineId(as_text(machine)), _STRENGTHS[as_text(text)]
                covered = (as_int(size), as_bytes(root), as_int(time_s))
                known[by, strength] = Cosign(by, strength, head.name, *covered, as_bytes(note))
        return known

    def put(self, head: Head, cosign: Cosign, *, may_wait: bool) -> bool:
        """Keep a cosign; False when a larger one of its machine and strength is kept."""
        known = self.of(head)
        key = (cosign.machine, cosign.strength)
        before = known.get(key)
        if before is not None and before.size >= cosign.size:
            return False
        known[key] = cosign
        self.waiting[head.id, *key] = cosign
        self.due |= not may_wait
        return True

    def drop(self, head: Head) -> None:
        """Forget what is in memory of a stream; its rows go with the stream."""
        self._known.pop(head.id, None)
        for key in [k for k in self.waiting if k[0] == head.id]:
            del self.waiting[key]

    def flush(self, *, writes: bool) -> None:
        """Write what waits, where something is due or the transaction writes anyway."""
        if not self.waiting or not (writes or self.due):
            return
        rows = [
            (stream, *key, c.size, c.root, c.time_s, c.note)
            for (stream, *key), c in self.waiting.items()
        ]
        self._database.executemany(
            "insert or replace into cosign(stream, machine, strength, size, root, time_s, note) "
            "values(?, ?, ?, ?, ?, ?, ?)",
            rows,
        )
        self.waiting.clear()
        self.due = False

    def forget(self) -> None:
        """Drop what is in memory: the transaction was rolled back."""
        self._known.clear()
        self.waiting.clear()
        self.due = False
