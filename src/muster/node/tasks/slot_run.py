"""The run of a schedule that is open: what the next slot waits for, skips for, or replaces.

Rule: it is over where the keeper that fired it has settled it, or whoever goes on with it in that
      one's place. What another machine says of it counts for nothing.
"""

from typing import TYPE_CHECKING, Any, Final

from muster.node.tasks.ownership import Ownership
from muster.task.fold import RUN, RunRow
from muster.task.schedule_fold import SCHEDULE, SLOT

if TYPE_CHECKING:
    from muster.node.core import Core

# Of one revision the newest runs of a keeper that are looked at.
_FIRES_MAX: Final = 8


def open_run(core: "Core", name: str, keepers: tuple[str, ...]) -> RunRow | None:
    """The newest run of a schedule of this name that is open, as far as is known here."""
    tables = core.tables
    for revision in tables.rows(SCHEDULE, name=name):
        its: dict[str, Any] = {"schedule": revision.schedule, "what": "fire"}
        for keeper in keepers:
            for row in tables.rows(SLOT, writer=keeper, order=("-at_ms",), limit=_FIRES_MAX, **its):
                found = _open(core, keeper, row.run)
                if found is not None:
                    return found
    return None


def outcome(core: "Core", writer: str, run: str) -> str:
    """What came of a run that a keeper fired: open, done, failed or cancelled; "" where none is
    known.
    """
    rows = core.tables.rows(RUN, writer=writer, run=run) if run else []
    over = next((row.state for row in rows if row.state != "open"), "")
    if over or not rows:
        return over
    held = core.part(Ownership).held(RUN, run)
    return str(held.row.state) if held is not None else "open"


def _open(core: "Core", writer: str, run: str) -> RunRow | None:
    """The run as whoever fired it has it, where it is open there and where it went on since."""
    rows = core.tables.rows(RUN, writer=writer, run=run)
    if not rows or any(row.state != "open" for row in rows):
        return None
    held = core.part(Ownership).held(RUN, run)
    return rows[-1] if held is None or held.row.state == "open" else None
