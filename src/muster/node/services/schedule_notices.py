"""What a person must see of schedules: a fence without an answer, a slot of which nobody tells."""

from typing import TYPE_CHECKING

from muster.node.tasks.slots import Known
from muster.task import occurrences
from muster.task.schedule_fold import SLOT
from muster.task.slot_keeper import FIRE, Keeper, Value

if TYPE_CHECKING:
    from muster.node.core import Core


def silence(core: "Core", each: Known, keeper: Keeper) -> None:
    """Without its register nothing is fired: a person is told when a slot is too late by that."""
    key, silent_ms = f"schedule-fence-{each.id[:16]}", keeper.silent_since_ms
    late = bool(silent_ms) and core.now.wall_ms - silent_ms > each.schedule.late_ms
    title = f"schedule {each.row.name}: its fence {each.schedule.fence} gives no answer, and no "
    _notice(core, key, title + "slot of it is fired", begins=late, ends=not silent_ms)


def unknown(core: "Core", each: Known, value: Value) -> None:
    """A slot was claimed, and nobody says that it was fired: a person is asked."""
    if value.what != FIRE:
        return
    late = core.now.wall_ms - value.slot > each.schedule.late_ms
    told = bool(core.tables.rows(SLOT, schedule=each.id, nonce=value.nonce, limit=1))
    by, at = core.membership.name_of(value.by), occurrences.local(each.schedule.times, value.slot)
    title = f"schedule {each.row.name}: {by} claimed the slot of {at} and says nothing of it; "
    title += "`muster schedule fire` runs it by hand"
    key = f"slot-unknown-{each.id[:16]}"
    _notice(core, key, title, begins=late and not told, ends=told)


def denied(core: "Core", each: Known, reason: str) -> None:
    """Whoever signed it may not have it run any more."""
    title = f"schedule {each.row.name} is not run: whoever signed it may not order it any more"
    _notice(core, f"schedule-denied-{each.id[:16]}", title, begins=True, detail=reason)


def _notice(
    core: "Core", key: str, title: str, *, begins: bool, ends: bool = False, detail: str = ""
) -> None:
    if not (begins or ends):
        return
    is_open = core.incidents.is_open(key)
    if begins and not is_open:
        core.incidents.open(key, "warning", title, detail)
    elif ends and is_open:
        core.incidents.close(key, "it is over")
