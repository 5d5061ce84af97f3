"""The run of a schedule that is open: what the next slot waits for, skips for, or replaces.

Rule: it is over where the keeper that fired it has settled it, or whoever goes on with it in that
      one's place. What another machine says of it counts for nothing.
"""

from typing import TYPE_CHECKING, Final

from muster.node.tasks import slots
from muster.node.tasks.ownership import Ownership
from muster.task.fold import RUN, RunRow
from muster.task.schedule_fold import SCHEDULE

if TYPE_CHECKING:
    from muster.node.core import Core

# Of one revision the newest runs that are looked at.
_FIRES_MAX: Final = 8


def open_run(core: "Core", name: str, keepers: tuple[str, ...]) -> RunRow | None:
    """The newest run of a schedule of this name that is open, as far as is known here."""
    for revision in core.tables.rows(SCHEDULE, name=name):
        each = slots.known(core, revision)
        if each is None:
            continue
        for row in slots.came_to(core, each, _FIRES_MAX, what="fire"):
            writer = row.stream.machine
            found = _open(core, writer, row.run) if writer in keepers else None
            if found is not None:
                return found
    return None


def _open(core: "Core", writer: str, run: str) -> RunRow | None:
    """The run as whoever fired it has it, where it is open there and where it went on since."""
    rows = core.tables.rows(RUN, writer=writer, run=run)
    if not rows or any(row.state != "open" for row in rows):
        return None
    held = core.part(Ownership).held(RUN, run)
    return rows[-1] if held is None or held.row.state == "open" else None
