"""Schedules that this machine keeps: what is due is asked of the register, claimed, and fired.

Rule 1: who fires a slot is decided in task/slot_keeper.py; here is what it needs of the log, and
        what it wants of the world. One tick looks at all of them; nothing sleeps until a moment.
Rule 2: a claim is an entry of the step before the register is moved. That a slot is fired and its
        run is opened are one step.
Rule 3: what cannot be begun is skipped, with the reason. What keeps slots from being decided is an
        incident until it is over.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec, cast

from muster.limits import CLOCK_AHEAD_MS_MAX, REASON_CHARS_MAX, SLOT_AHEAD_MS_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, FleetId, StreamName
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.services import schedule_notices as notices
from muster.node.services import slot_deeds
from muster.node.services.sleepers import Sleepers, WakeUp
from muster.node.services.slot_claims import keeper_of, plan_of
from muster.node.tasks import schedule_pots, slots
from muster.node.tasks.slot_run import open_run
from muster.node.tasks.slots import Known
from muster.task import occurrences
from muster.task.schedule import OWNER
from muster.task.schedule_fold import CLAIM, ORDERS, ScheduleFold, SlotFold
from muster.task.schedule_kinds import ScheduleClaim, ScheduleFire, ScheduleMiss, ScheduleSkip
from muster.task.slot_keeper import FIRE, MISS, Keeper, Seen, Value

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "registers-silent": "The register of a schedule gave no answer; it is asked again.",
}

P = ParamSpec("P")
# A machine that did nothing for so long was asleep.
_ASLEEP_MS: Final = 60_000
_LOOK_MS: Final = 1_000
_WAKE_MS: Final = 90_000


class AskRegister(ev.Effect, frozen=True):
    """Read the register of a schedule; answer with `RegisterSaid`. `fence` says where it is."""

    schedule: str
    fence: str


class MoveRegister(ev.Effect, frozen=True):
    """Move it from a revision to a value, which is durable as a claim; answer as above."""

    schedule: str
    fence: str
    revision: str
    value: Value


class RegisterSaid(ev.Event, frozen=True):
    """What a register holds now, or why nobody knows."""

    schedule: str
    revision: str = ""
    value: Value = Value()
    reason: str = ""
    # Whether that is the answer to a move.
    moved: bool = False


class _Kept(NamedTuple):
    each: Known
    keeper: Keeper

    @property
    def fence(self) -> str:
        """Where its register is."""
        return self.each.schedule.fence


class Schedules(Part):
    """See the rules at the top of this file."""

    name = "schedules"
    effects = (AskRegister, MoveRegister)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._kept: dict[str, _Kept] = {}
        self._stale = True
        self._looked_ms = 0
        self._awake_ms = 0
        # Slots that somebody was woken for.
        self._woken: dict[str, int] = {}
        core.on(RegisterSaid, self._said)
        core.on("schedule.claim", self._on_claim)
        core.on("schedule.fire", self._on_fire)
        core.on(ev.RosterChanged, self._changed)
        core.on(ev.MemoryDoubtful, self._forget)
        # What an earlier life claimed is not this one's.
        core.on(ev.NewIncarnation, self._forget)
        for order in ORDERS:
            core.on(order, self._ordered)

    @staticmethod
    def folds(fleet: FleetId) -> tuple[Any, ...]:
        return (ScheduleFold(fleet), SlotFold())

    def _ordered(self, _stream: StreamName, _entry: Entry) -> None:
        self._stale = True

    def _changed(self, _event: ev.RosterChanged) -> None:
        self._stale = True

    def _forget(self, _event: ev.Event) -> None:
        self._kept, self._stale = {}, True

    # --- what is kept -------------------------------------------------------------------------

    def _take_up(self) -> None:
        """Read anew what there is; what a keeper knows stays."""
        self._stale = False
        me, before = self.core.machine, self._kept
        found = slots.schedules(self.core)
        kept = {each.id: each for each in found.values() if me in each.schedule.keepers}
        unread = slots.unread(self.core, found)
        notices.gone(self.core, {*kept, *unread})
        notices.unread(self.core, unread)
        # What is run by what happens is looked after by triggers.py.
        mine = {id: each for id, each in kept.items() if each.schedule.when.on is None}
        self._kept = {
            id: _Kept(each, before[id].keeper if id in before else keeper_of(self.core, each))
            for id, each in mine.items()
        }

    # --- time ---------------------------------------------------------------------------------

    def tick(self) -> None:
        now = self.core.now
        if now.boot_ms - self._looked_ms < _LOOK_MS:
            return
        if now.boot_ms - self._looked_ms > _ASLEEP_MS:
            self._awake_ms = now.wall_ms
        self._looked_ms = now.boot_ms
        if self._stale:
            self._take_up()
        for id in list(self._kept):
            self._about(id, self._look, id)

    def _look(self, id: str) -> None:
        """See whether a slot of this one is due."""
        core, now_ms = self.core, self.core.now.wall_ms
        kept = self._kept[id]
        each = kept.each.at(now_ms)
        if each is not kept.each:
            kept = self._kept[id] = kept._replace(each=each)
        kept.keeper.plan = plan_of(self.core, each)
        seen = self._seen(kept)
        self._wake(kept)
        notices.silence(core, each, kept.keeper)
        if not kept.keeper.wants(now_ms, core.now.boot_ms, seen):
            return
        if kept.fence == OWNER:
            self._decide_alone(kept, seen)
            return
        kept.keeper.ask(core.now.boot_ms)
        core.do(AskRegister(id, kept.fence))

    def _seen(self, kept: _Kept) -> Seen:
        each, now_ms = kept.each, self.core.now.wall_ms
        if kept.keeper.rests(now_ms):
            # Nothing is looked for.
            return Seen()
        run = open_run(self.core, each.row.name, tuple(each.schedule.keepers))
        skews = [abs(link.skew_ms) for link in self.core.links.values() if link.peer]
        skewed = sum(skew > SLOT_AHEAD_MS_MAX for skew in skews)
        return Seen(
            busy="" if run is None else f"run {run.run[:12]} is open",
            skewed=bool(skews) and skewed * 2 > len(skews),
            denied=slots.denied(self.core, each),
            spent=schedule_pots.spent(self.core, each.schedule),
            unreached_ms=notices.silent_since_ms(self.core, kept.keeper),
            awake_ms=self._awake_ms,
        )

    def _wake(self, kept: _Kept) -> None:
        """Wake the keepers before this one that sleep, shortly before a slot (ADR 86)."""
        each, plan, now_ms = kept.each, kept.keeper.plan, self.core.now.wall_ms
        if each.schedule.wake == "none" or each.paused_ms or not plan.place:
            return
        # Slots that are due to the owner within so long; this one asks later by its place.
        ahead = kept.keeper.due(now_ms + plan.handover_ms * plan.place + _WAKE_MS)
        if not ahead or ahead[-1] <= now_ms or self._woken.get(each.id) == ahead[-1]:
            return
        self._woken[each.id] = ahead[-1]
        sleepers = self.core.part(Sleepers)
        for machine in each.schedule.keepers[: plan.place]:
            if sleepers.wakeable(machine) and sleepers.spend(machine):
                self.core.do(WakeUp(machine))

    # --- the register ---------------------------------------------------------------------------

    def _said(self, event: RegisterSaid) -> None:
        if event.schedule in self._kept:
            self._about(event.schedule, self._answered, event)

    def _about(self, id: str, work: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
        """Do something about one schedule; where it fails, what is known is read from the log."""
        if self.core.guard.run("schedule", id[:12], work, *args, **named) is not None:
            self._kept.pop(id, None)
            self._stale = True

    def _answered(self, event: RegisterSaid) -> None:
        kept = self._kept[event.schedule]
        keeper, now_ms = kept.keeper, self.core.now.wall_ms
        if event.reason:
            self.core.counters["registers-silent"] += 1
            keeper.silent(self.core.now.boot_ms)
            return
        if event.value.slot > now_ms + CLOCK_AHEAD_MS_MAX:
            # Nobody's clock goes so wrong: whoever wrote that lied, and a person is asked.
            keeper.silent(self.core.now.boot_ms)
            return
        # For how long it was silent is known until it answers.
        seen = self._seen(kept)
        own = keeper.moved(event.value)
        self._replaced(kept, event.value.before)
        notices.unknown(self.core, kept.each, event.value)
        if own is not None:
            self._carry_out(kept, own)
        if event.moved:
            return
        claim = keeper.claim(now_ms, seen, self.core.draw(16).hex())
        if claim is None:
            return
        self._write(kept, claim)
        keeper.ask(self.core.now.boot_ms)
        self.core.do(MoveRegister(kept.each.id, kept.fence, event.revision, claim))

    def _write(self, kept: _Kept, claim: Value) -> None:
        """The claim, durable before the register is asked; once, however often it is said."""
        own = self.core.membership.own(FLEET)
        if self.core.tables.rows(CLAIM, stream=own, schedule=kept.each.id, nonce=claim.nonce):
            return
        body = ScheduleClaim(
            kept.each.id, claim.slot, claim.nonce, cast("Any", claim.what), claim.missed,
            claim.since, claim.reason[:REASON_CHARS_MAX], claim.before,
        )  # fmt: skip
        self.core.append_body(body, cause=(kept.each.row.entry,))

    def _on_claim(self, stream: StreamName, entry: Entry) -> None:
        """Somebody replaced what stood in the register: perhaps a claim of ours."""
        body = body_or_none(entry, ScheduleClaim)
        kept = self._kept.get(body.schedule) if body is not None else None
        if body is not None and kept is not None and stream.machine in kept.each.schedule.keepers:
            self._replaced(kept, body.before)

    def _replaced(self, kept: _Kept, nonce: str) -> None:
        gone = kept.keeper.replaced(nonce) if nonce else None
        if gone is not None:
            if gone.what == FIRE:
                reason = "claimed by this machine, which was away before it fired"
                gone = gone._replace(what=MISS, missed=gone.missed + 1, reason=reason)
            self._tell(kept, gone)

    def _decide_alone(self, kept: _Kept, seen: Seen) -> None:
        """Without a register the owner alone fires; the others say what it did not."""
        keeper, now_ms = kept.keeper, self.core.now.wall_ms
        decided = slots.came_to(self.core, kept.each)
        last = max(decided, key=lambda row: row.slot, default=None)
        keeper.moved(Value(last.slot, nonce=last.nonce) if last is not None else Value())
        keeper.claims.clear()
        claim = keeper.claim(now_ms, seen, self.core.draw(16).hex())
        if claim is None:
            return
        if keeper.plan.place and now_ms - claim.slot <= kept.each.schedule.late_ms:
            # It is the owner's to fire until it is too late.
            keeper.claims.clear()
            return
        if keeper.plan.place:
            missed = claim.missed + (claim.what == FIRE)
            claim = claim._replace(what=MISS, missed=missed, reason="its owner is silent")
            keeper.claims[claim.nonce] = claim
        self._write(kept, claim)
        own = keeper.moved(claim)
        if own is not None:
            self._carry_out(kept, own)

    # --- what comes of it -----------------------------------------------------------------------

    def _carry_out(self, kept: _Kept, value: Value) -> None:
        """The register is at our claim: do what it says, in this very step."""
        if value.what != FIRE:
            self._tell(kept, value)
            return
        late_ms = self.core.now.wall_ms - value.slot
        if late_ms > kept.each.schedule.late_ms + SLOT_AHEAD_MS_MAX:
            missed = value._replace(what=MISS, missed=value.missed + 1, reason="late")
            self._tell(kept, missed)
            return
        failure = self.core.guard.run("schedule", kept.each.id[:12], self._fire, kept, value)
        if failure is not None:
            self._tell(kept, value._replace(what="skip", missed=value.missed + 1, reason=failure))

    def _fire(self, kept: _Kept, value: Value) -> None:
        core, each = self.core, kept.each
        late_ms = max(core.now.wall_ms - value.slot, 0)
        fire = ScheduleFire(
            each.id, value.slot, occurrences.local(each.schedule.times, value.slot), late_ms, "",
            kept.fence, value.nonce, value.missed, value.since,
        )  # fmt: skip
        own = core.membership.own(FLEET)
        claims = core.tables.rows(CLAIM, stream=own, schedule=each.id, nonce=value.nonce)
        cited = (each.row.entry, *(row.entry for row in claims))
        slot_deeds.fire(core, each, fire, "", cited)

    def _tell(self, kept: _Kept, value: Value) -> None:
        """A slot is missed or skipped, and so many before it."""
        make = ScheduleMiss if value.what == MISS else ScheduleSkip
        body = make(
            kept.each.id, value.since, value.slot, max(value.missed, 1),
            value.reason[:REASON_CHARS_MAX], nonce=value.nonce,
        )  # fmt: skip
        slot_deeds.tell(self.core, kept.each, body, (kept.each.row.entry,))

    def _on_fire(self, stream: StreamName, entry: Entry) -> None:
        """Another keeper fired a slot that replaces a run of ours."""
        body = body_or_none(entry, ScheduleFire)
        kept = self._kept.get(body.schedule) if body is not None else None
        if body is None or kept is None or stream.machine == self.core.machine:
            return
        believed = slots.is_believed(self.core, kept.each, body.slot, entry.header.t[0])
        if stream.machine in kept.each.schedule.keepers and believed:
            kept.keeper.known = max(kept.keeper.known, body.slot)
            if kept.each.schedule.overlap == "replace":
                slot_deeds.cancel(self.core, kept.each)
