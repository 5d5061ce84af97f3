"""What another fleet hears of a task that it asked for: its state, and its agents' words.

Rule 1: only of what is done are words told. Of any other end there is one sentence for all: what a
machine says of a failure names branches, folders and machines of ours.
Rule 2: words have nothing in them that cannot be seen, and are cut to what their report holds: no
agent keeps its end from being told by what it says.
"""

from typing import TYPE_CHECKING, Final

from muster.fleet.peer_work import Came
from muster.limits import DELEGATED_TASKS_MAX, PEER_SAID_CHARS_MAX, REASON_CHARS_MAX
from muster.log.fold import body_or_none
from muster.printable import visible
from muster.task import kinds
from muster.task.delegation_fold import DelegationRow
from muster.task.fold import TASK, TaskRow

if TYPE_CHECKING:
    from muster.node.core import Core

_PLACE_CHARS_MAX: Final = 200
_SENTENCES: Final = {
    "failed": "it was begun, and ended without what was asked",
    "cancelled": "it was cancelled",
    "refused": "the machine that was asked does not begin it",
    "late": "no machine began it within a day",
}


def words(core: "Core", row: DelegationRow, state: str) -> tuple[str, tuple[Came, ...]]:
    """What is said of how it ended, and what came of each of its tasks."""
    rows: list[TaskRow] = core.tables.rows(
        TASK, writer=row.owner, run=row.run, order=("opened_ms",), limit=DELEGATED_TASKS_MAX
    )
    most = PEER_SAID_CHARS_MAX // max(1, len(rows))
    came = tuple(_came(core, each, most, told=state == "done") for each in rows)
    last = max(rows, key=lambda each: each.changed_ms, default=None)
    if state != "done" or last is None:
        return _SENTENCES.get(state, ""), came
    return visible(last.summary)[:PEER_SAID_CHARS_MAX], came


def _came(core: "Core", row: TaskRow, most: int, *, told: bool) -> Came:
    phase, state, instance = (
        visible(each)[:_PLACE_CHARS_MAX] for each in (row.phase, row.state, row.instance)
    )
    if not told or row.state != "done":
        return Came(phase, state, instance)
    settled = body_or_none(core.log.entry(row.settled), kinds.TaskSettle)
    said = settled.values.get("output", "") if settled else ""
    # They are cut before they are looked at: they may be many.
    summary = visible(row.summary[: 2 * REASON_CHARS_MAX])[:REASON_CHARS_MAX]
    said = "" if said.strip() == row.summary.strip() else visible(said[-2 * most :])[-most:]
    return Came(phase, state, instance, summary, said)
