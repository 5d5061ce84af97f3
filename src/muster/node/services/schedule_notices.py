"""What a person must see of schedules: a fence without an answer, a slot of which nobody tells."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Final

from muster.fleet.folds import INCIDENT
from muster.node.tasks.slots import Known
from muster.task import occurrences
from muster.task.schedule_fold import SLOT
from muster.task.slot_keeper import FIRE, Keeper, Value

if TYPE_CHECKING:
    from muster.node.core import Core

# What the keys of the incidents begin with; the schedule's id follows.
_FENCE: Final = "schedule-fence-"
_UNKNOWN: Final = "slot-unknown-"
_DENIED: Final = "schedule-denied-"
_UNREAD: Final = "schedule-unread-"


def silence(core: "Core", each: Known, keeper: Keeper) -> None:
    """Without its register nothing is fired: a person is told when a slot is too late by that."""
    key, silent_ms = _FENCE + each.id[:16], keeper.silent_since_ms
    late = bool(silent_ms) and core.now.boot_ms - silent_ms > each.schedule.late_ms
    title = f"schedule {each.row.name}: its fence {each.schedule.fence} gives no answer, and no "
    _notice(core, key, title + "slot of it is fired", begins=late, ends=not silent_ms)


def silent_since_ms(core: "Core", keeper: Keeper) -> int:
    """Since when the register is silent, by the clock of now; 0 where it is not."""
    since_ms = keeper.silent_since_ms
    return core.now.wall_ms - (core.now.boot_ms - since_ms) if since_ms else 0


def unknown(core: "Core", each: Known, value: Value) -> None:
    """A slot was claimed, and nobody says that it was fired: a person is asked."""
    if value.what != FIRE:
        return
    late = core.now.wall_ms - value.slot > each.schedule.late_ms
    told = bool(core.tables.rows(SLOT, schedule=each.id, nonce=value.nonce, limit=1))
    by, at = core.membership.name_of(value.by), occurrences.local(each.schedule.times, value.slot)
    title = f"schedule {each.row.name}: {by} claimed the slot of {at} and says nothing of it; "
    title += "`muster schedule fire` runs it by hand"
    key = _UNKNOWN + each.id[:16]
    _notice(core, key, title, begins=late and not told, ends=told)


def denied(core: "Core", each: Known, reason: str) -> None:
    """Whoever signed it may not have it run any more."""
    title = f"schedule {each.row.name} is not run: whoever signed it may not order it any more"
    _notice(core, _DENIED + each.id[:16], title, begins=True, detail=reason)


def fired(core: "Core", each: Known) -> None:
    """It runs: whoever signed it may."""
    core.incidents.close(_DENIED + each.id[:16], "it is run")


def unread(core: "Core", names: Mapping[str, str]) -> None:
    """An earlier version took its form, and this one does not."""
    for id, name in names.items():
        title = f"schedule {name} is not run: this version of Muster does not read its form; "
        title += "write it anew with `muster schedule add`"
        _notice(core, _UNREAD + id[:16], title, begins=True)


def gone(core: "Core", kept: Collection[str]) -> None:
    """What was told of schedules that this machine keeps no more is over."""
    ends = {id[:16] for id in kept}
    for row in core.tables.rows(INCIDENT, writer=core.machine, open=1):
        if row.key.startswith((_FENCE, _UNKNOWN, _DENIED, _UNREAD)) and row.key[-16:] not in ends:
            core.incidents.close(row.key, "its schedule is gone, or was changed")


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
