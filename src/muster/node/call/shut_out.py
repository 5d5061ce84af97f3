"""What came here after a key was shut out.

A key that was shut out signs what it likes, under any date; no stamp in an entry says when it was
written. What a machine had before it learned of the revocation was the person's and stays so.
"""

from typing import TYPE_CHECKING

from muster.fleet.folds import TAKEN
from muster.log.entry import Entry

if TYPE_CHECKING:
    from muster.node.core import Core


def shut_ms(core: "Core", key: str) -> list[int]:
    """When a key was shut out, by each of those who can; empty while it counts."""
    roster, found = core.roster, list[int]()
    device = roster.devices_ever.get(key)
    keys: tuple[str, ...] = (key,)
    if device is not None:
        keys = (key, device.operator, device.terms.machine, device.terms.ticket)
        # Asked by taker: anybody can sign that he takes it, and write that down without end.
        found = [
            issued_ms
            for taker in sorted(roster.operators_ever)
            if roster.took(taker, device.id)
            for (issued_ms,) in core.tables.distinct(
                TAKEN, ("issued_ms",), id=device.id, taker=taker
            )
        ]
    return found + [roster.revoked[each].issued_ms for each in keys if each in roster.revoked]


def began_ms(core: "Core") -> int:
    """When the first entry came to this home, 0 before that."""
    began = core.tables.query("select ms from admission order by number limit 1", ())
    return int(str(began[0][0])) if began else 0


def was_told(core: "Core", key: str) -> bool:
    """Whether this home knew of nothing yet when the key was shut out: all came to it later."""
    return began_ms(core) > min(shut_ms(core, key), default=0)


def is_after(core: "Core", entry: Entry, key: str) -> bool:
    """Whether the entry came here after its key was shut out."""
    found = shut_ms(core, key)
    if not found:
        return False
    came = core.log.admitted(entry.stream, entry.header.seq)
    return came is None or came[1] > min(found)
