"""Which incarnation of this machine goes on after a start, by what its disk remembers."""

from typing import Final

from muster.log.stream import FLEET, Incarnation
from muster.store.mark import Mark, doubts
from muster.store.store import Store

# The setting that names the incarnation which this database goes on with.
PRESENT: Final = "incarnation"


def resume_incarnation(
    store: Store, mark: Mark | None, machine_id: str, generation: str
) -> tuple[Incarnation | None, tuple[str, ...]]:
    """The incarnation that goes on after a start; None, and why, when a new one must begin."""
    mine = [s for s in store.streams() if s.machine == store.machine and store.size(s)]
    opened = [s for s in mine if s.scope == FLEET]
    if mark is not None and not any(s.startswith(store.machine) for s in mark.sizes):
        # It was left by another machine that lived in this folder.
        mark = None
    if not opened:
        size = sum(mark.sizes.values()) if mark is not None else 0
        gone = (f"Its log is gone: it had {size} entries.",) if size else ()
        return None, gone
    # Where we wrote last, and not what began last: a clock may say anything, and what comes back
    # from peers may be younger than what this database has gone on with.
    last = next((s for s in opened if s.incarnation == store.recall(PRESENT)), None)
    if last is None:
        last = max(opened, key=lambda s: store.slice(s, 0, 1)[0].stamp)
    same = [s for s in mine if s.incarnation == last.incarnation]
    found = doubts(mark, {str(s): store.size(s) for s in same}, machine_id, generation)
    if any(store.frozen_at(s) is not None for s in same):
        found.append("Its stream forked: its key wrote two histories.")
    return (None if found else last.incarnation), tuple(found)
