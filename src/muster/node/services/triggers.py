"""Schedules that are run by what happens here: the end of a run of ours, an incident of ours, what
is said and remembered on this machine.

Rule 1: what triggers is an entry of our own stream of this incarnation. It is claimed in the step
        that brings it, and fired with its run in one step: a crash between loses nothing.
Rule 2: a schedule is run once in its `every`; what comes meanwhile is counted in the next. What
        incidents, messages or memories run too often is skipped: its run may be what makes them.
Rule 3: what is not run is skipped, with the reason, as a slot is.
"""

from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import (
    INCIDENT_FIRES_MAX,
    REASON_CHARS_MAX,
    SAYING_FIRES_MAX,
    TRIGGER_FIRES_MS,
)
from muster.log.entry import Entry
from muster.log.stream import FLEET, StreamName
from muster.node import event as ev
from muster.node.part import Part
from muster.node.services import slot_deeds
from muster.node.services.slot_claims import untold
from muster.node.tasks import schedule_pots, slots
from muster.node.tasks.slot_run import open_run
from muster.node.tasks.slots import Known
from muster.task import occurrences
from muster.task.schedule_fold import ORDERS, SlotRow
from muster.task.schedule_kinds import ScheduleClaim, ScheduleFire, ScheduleSkip
from muster.task.trigger import DEPTH_MAX, KINDS, depth

if TYPE_CHECKING:
    from muster.node.core import Core

_NONCE: Final = 32
_LOOK_MS: Final = 1_000


class _Waits(NamedTuple):
    """A trigger that is claimed, and how many came behind it."""

    entry: Entry
    more: int = 0


class Triggers(Part):
    """See the rules at the top of this file."""

    name = "triggers"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._waits: dict[str, _Waits] = {}
        # What is kept here by what happens; None where it is to be read anew.
        self._known: list[Known] | None = None
        self._looked_ms = 0
        for kind in KINDS:
            core.on(kind, self._happened)
        for each in (ev.MemoryDoubtful, ev.NewIncarnation):
            core.on(each, lambda _event: self._take_up())
        core.on(ev.RosterChanged, self._changed)
        for order in ORDERS:
            core.on(order, self._changed)

    def start(self) -> None:
        self._take_up()

    def _take_up(self) -> None:
        """What was claimed here, and nothing came of."""
        core = self.core
        self._waits, self._known = {}, None
        for each in self._kept():
            for _, claim in untold(core, each):
                found = core.log.entry(claim.causes[-1])
                if found is not None:
                    self._waits[each.id] = _Waits(found)

    def _changed(self, *_heard: object) -> None:
        self._known = None

    def _kept(self) -> list[Known]:
        if self._known is None:
            me, found = self.core.machine, slots.schedules(self.core).values()
            self._known = [e for e in found if e.schedule.when.on and me in e.schedule.keepers]
        return self._known

    def _happened(self, stream: StreamName, entry: Entry) -> None:
        if stream != self.core.membership.own(FLEET):
            return
        for each in self._kept():
            now = each.at(self.core.now.wall_ms)
            trigger, at_ms = each.schedule.when.on, entry.header.t[0]
            if trigger is None or trigger.text(entry, self.core.log.entry) is None:
                continue
            if not each.statement.issued_ms < at_ms <= each.statement.until_ms:
                continue
            waits = self._waits.get(each.id)
            if waits is not None:
                self._waits[each.id] = waits._replace(more=waits.more + 1)
                continue
            nonce = entry.id.hex()[:_NONCE]
            claim = ScheduleClaim(each.id, at_ms, nonce, "fire")
            self.core.append_body(claim, cause=(each.row.entry, entry.id))
            if now.paused_ms:
                self._skip(each, entry, 1, "paused")
                continue
            self._waits[each.id] = _Waits(entry)
            self.dirty = True

    @property
    def needs_tick(self) -> bool:
        return bool(self._waits)

    def tick(self) -> None:
        now = self.core.now.boot_ms
        if self._waits and now - self._looked_ms >= _LOOK_MS:
            self._looked_ms = now
            self.dirty = True

    def flush(self) -> None:
        known = {each.id: each for each in self._kept()}
        for id, waits in list(self._waits.items()):
            each = known.get(id)
            if each is None:
                del self._waits[id]
            elif self.core.guard.run("trigger", id[:12], self._look, each, waits) is not None:
                del self._waits[id]
                self._skip(each, waits.entry, waits.more + 1, "it could not be begun")

    def _look(self, each: Known, waits: _Waits) -> None:
        core, now_ms = self.core, self.core.now.wall_ms
        # It may have been erased while it waited.
        waits = waits._replace(entry=core.log.entry(waits.entry.id) or waits.entry)
        schedule, at_ms = each.schedule, waits.entry.header.t[0]
        # What this keeper fired: each has its own `every`. A stamp may be ahead of the clock.
        fired = slots.fired_by(core, each, core.machine, SAYING_FIRES_MAX)
        if fired and now_ms - fired[0].at_ms < schedule.storm_ms:
            return
        run = open_run(core, each.row.name, tuple(schedule.keepers))
        denied, why = slots.denied(core, each), ""
        trigger = schedule.when.on
        if each.at(now_ms).paused_ms:
            why = "paused"
        elif trigger is None or trigger.text(waits.entry, core.log.entry) is None:
            why = "what triggered it was erased"
        elif denied:
            why = f"not-allowed: {denied}"
        elif now_ms - at_ms > schedule.late_ms:
            why = "late"
        elif depth(waits.entry, core.log.entry) >= DEPTH_MAX:
            why = f"{DEPTH_MAX} schedules led to it, one after the other"
        elif storm := _storm(each, fired, now_ms):
            why = storm
        elif spent := schedule_pots.spent(core, schedule):
            why = spent
        elif run is not None and schedule.overlap == "skip":
            why = f"overlap: run {run.run[:12]} is open"
        elif run is not None and schedule.overlap == "queue":
            return
        del self._waits[each.id]
        if why:
            self._skip(each, waits.entry, waits.more + 1, why)
            return
        self._fire(each, waits)

    def _fire(self, each: Known, waits: _Waits) -> None:
        core, entry = self.core, waits.entry
        slot, trigger = entry.header.t[0], entry.id.hex()
        local = occurrences.local(each.schedule.times, slot)
        late_ms = max(core.now.wall_ms - slot, 0)
        text = each.schedule.when.on.text(entry, core.log.entry) if each.schedule.when.on else None
        fire = ScheduleFire(
            each.id, slot, local, late_ms, "", "owner", trigger[:_NONCE], waits.more,
            trigger=trigger,
        )  # fmt: skip
        slot_deeds.fire(core, each, fire, text or "", (each.row.entry, entry.id))

    def _skip(self, each: Known, entry: Entry, count: int, reason: str) -> None:
        body = ScheduleSkip(
            each.id, 0, entry.header.t[0], count, reason[:REASON_CHARS_MAX],
            nonce=entry.id.hex()[:_NONCE],
        )  # fmt: skip
        slot_deeds.tell(self.core, each, body, (each.row.entry, entry.id))


def _storm(each: Known, fired: list[SlotRow], now_ms: int) -> str:
    """Why it is run no more, where it was so often that its run may be what makes the next."""
    trigger = each.schedule.when.on
    if trigger is None or trigger.run is not None:
        return ""
    by, most = "incidents", INCIDENT_FIRES_MAX
    if trigger.incident is None:
        by, most = ("messages" if trigger.message else "memories"), SAYING_FIRES_MAX
    if len(fired) < most or now_ms - fired[most - 1].at_ms >= TRIGGER_FIRES_MS:
        return ""
    return f"{by} ran it {most} times within an hour"
