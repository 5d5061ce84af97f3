"""Who fires a schedule's slot: what one keeper asks of the register, and what it makes of that.

Rule 1: a slot is decided when the register has moved to it. The register moves by compare-and-set,
        and only to a later slot: so no slot is fired twice, whatever the clocks say.
Rule 2: before the register is asked to move, the claim is durable here. After a crash only a claim
        of this very incarnation is taken up: a machine from a backup finds its former claim to be
        somebody else's, as that may have been carried out already.
Rule 3: what nobody may fire any more is decided, too: as missed or skipped, by one keeper, once,
        with the reason. A claim whose holder vanished is repeated by nobody; whoever goes past it
        says so, and its holder says that it was missed when it is back.
Rule 4: the keeper at place k asks k handovers after the slot: contention is rare, and nobody has to
        know who is there. Without an answer nothing is fired: safety before liveness.

Pure: time and nonces are arguments, `now_ms` by the clock of the calendar, `boot_ms` by the one
that nobody sets; what is durable is said to `Memory`, which its driver keeps.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

from muster.limits import (
    CATCH_UP_MAX,
    REGISTER_AGAIN_MS,
    REGISTER_AGAIN_MS_MAX,
    SLOT_HANDOVER_MS,
    SLOTS_MAX,
)

FIRE, MISS, SKIP = "fire", "miss", "skip"


class Value(NamedTuple):
    """What the register holds: the slot it moved to, who moved it, and what for.

    `missed` slots behind `since` are decided with it.
    """

    slot: int = 0
    by: str = ""
    incarnation: str = ""
    nonce: str = ""
    what: str = ""
    missed: int = 0
    since: int = 0
    reason: str = ""
    # The nonce of what stood there before it: who was away hears by it that its own was there.
    before: str = ""


class Plan(NamedTuple):
    """What a schedule says, for one of its keepers: its place, and its slots."""

    place: int
    slots: Callable[[int, int], list[int]]
    # The first slot after a moment, and 0 where there is none.
    following: Callable[[int], int]
    since_ms: int
    until_ms: int
    late_ms: int
    catch_up: str = "latest"
    overlap: str = "skip"
    # Since when it was paused, 0 where it is not; and when it was resumed last.
    paused_ms: int = 0
    resumed_ms: int = 0
    handover_ms: int = SLOT_HANDOVER_MS
    # Within which a slot is in time, whichever keeper fires it.
    prompt_ms: int = SLOT_HANDOVER_MS


class Seen(NamedTuple):
    """What this keeper sees beside the register: a run that is open, a clock that is wrong, a
    signer who may not order it any more (why), and how long it could not reach the register.
    """

    busy: str = ""
    skewed: bool = False
    denied: str = ""
    # What it may use up in a day is used up.
    spent: str = ""
    unreached_ms: int = 0
    # Since when this keeper is awake: what was due before that found it asleep.
    awake_ms: int = 0


class Keeper:
    """One keeper of one schedule. `claims` are its own of this incarnation that nothing became of
    yet, by nonce; its driver writes each down before it moves the register, and gives them back
    after a start.
    """

    def __init__(self, me: str, incarnation: str, plan: Plan, known: int = 0) -> None:
        self.me, self.incarnation, self.plan = me, incarnation, plan
        self.known = max(known, plan.since_ms)
        self.claims: dict[str, Value] = {}
        # Those that the register is past: whether it had been at them, whoever replaced them says.
        self.passed: dict[str, Value] = {}
        # What the register was at when it was seen last.
        self.at = ""
        self.asking = False
        # What was found behind which slot, and before when that stays so.
        self._found, self._from, self._next_ms = list[int](), -1, 0
        # By the clock that nobody sets, as since when the register is silent.
        self._wait_until_ms = 0
        self._again_ms = REGISTER_AGAIN_MS
        self.silent_since_ms = 0

    # --- what is due --------------------------------------------------------------------------

    def due(self, now_ms: int) -> list[int]:
        """The slots after the last decided one that it is this keeper's turn to ask about."""
        plan = self.plan
        until_ms = min(now_ms - plan.handover_ms * plan.place, plan.until_ms)
        if plan.paused_ms:
            until_ms = min(until_ms, plan.paused_ms)
        # Of many slots the newest are looked at: of a clock that was ahead they are yet to come.
        ahead = len(self._found) >= SLOTS_MAX and until_ms < self._found[0]
        if until_ms >= self._next_ms or self._from != self.known or ahead:
            self._from, self._found = self.known, plan.slots(self.known, until_ms)
            self._next_ms = plan.following(max(until_ms, self.known)) or plan.until_ms + 1
        return [slot for slot in self._found if slot <= until_ms]

    def rests(self, now_ms: int) -> bool:
        """Whether nothing is to be decided now: then nobody waits for an answer of the register."""
        if self.claims or self.due(now_ms):
            return False
        self.silent_since_ms = 0
        return True

    def wants(self, now_ms: int, boot_ms: int, seen: Seen) -> bool:
        """Whether the register is to be asked now."""
        if self.asking or boot_ms < self._wait_until_ms or seen.skewed:
            return False
        if self.claims:
            return True
        due = self.due(now_ms)
        return bool(due) and not self._waits(due, now_ms, seen)

    def _waits(self, due: list[int], now_ms: int, seen: Seen) -> bool:
        """Whether the newest of them waits for the end of the run before it."""
        fresh = now_ms - due[-1] <= self.plan.late_ms
        return bool(seen.busy) and self.plan.overlap == "queue" and fresh and not seen.denied

    def ask(self, boot_ms: int) -> None:
        """The register is being asked, or moved."""
        self.asking = True
        self._wait_until_ms = boot_ms + self._again_ms

    # --- what came of it -----------------------------------------------------------------------

    def moved(self, value: Value) -> Value | None:
        """The register is at this value: where that is our claim, it is to be carried out now."""
        self.asking, self._again_ms, self.silent_since_ms = False, REGISTER_AGAIN_MS, 0
        mine = (value.by, value.incarnation) == (self.me, self.incarnation)
        found = self.claims.pop(value.nonce, None) if mine else None
        self.known, self.at = max(self.known, value.slot), value.nonce
        for nonce, claim in list(self.claims.items()):
            # It names what it replaces: where that is gone, it was there, or never will be.
            if claim.before != value.nonce:
                self.passed[nonce] = self.claims.pop(nonce)
        return found if found == value else None

    def replaced(self, nonce: str) -> Value | None:
        """Somebody replaced this claim: it had stood there, and nobody carried it out in time."""
        return self.claims.pop(nonce, None) or self.passed.pop(nonce, None)

    def claim(self, now_ms: int, seen: Seen, nonce: str) -> Value | None:
        """What to write down and move the register to, that was seen just now; None for nothing."""
        for claim in self.claims.values():
            # One that is too late by now stays known: it may be under way to the register.
            if claim.what != FIRE or now_ms - claim.slot <= self.plan.late_ms:
                return claim
        due = self.due(now_ms)
        if not due or seen.skewed or self._waits(due, now_ms, seen):
            return None
        claim = self._choice(due, now_ms, seen)._replace(
            by=self.me, incarnation=self.incarnation, nonce=nonce, since=self.known, before=self.at
        )
        self.claims[nonce] = claim
        return claim

    def _choice(self, due: list[int], now_ms: int, seen: Seen) -> Value:
        """What is to become of the slots that are due."""
        plan, last = self.plan, due[-1]
        paused = [slot for slot in due if slot <= plan.resumed_ms]
        if paused:
            return Value(paused[-1], what=SKIP, missed=len(paused), reason="paused")
        if seen.denied:
            return Value(last, what=SKIP, missed=len(due), reason=f"not-allowed: {seen.denied}")
        fresh = [slot for slot in due if now_ms - slot <= plan.late_ms][-CATCH_UP_MAX:]
        if not fresh or (plan.catch_up == "none" and now_ms - last > plan.prompt_ms):
            return Value(last, what=MISS, missed=len(due), reason=self._why(last, seen))
        if seen.spent:
            return Value(last, what=SKIP, missed=len(due), reason=seen.spent)
        if seen.busy and plan.overlap == "skip":
            return Value(last, what=SKIP, missed=len(due), reason=f"overlap: {seen.busy}")
        slot = fresh[0] if plan.catch_up == "all" else last
        return Value(slot, what=FIRE, missed=due.index(slot))

    def _why(self, slot: int, seen: Seen) -> str:
        """Why a slot was missed, as far as this keeper knows: a measured fact, or `late`."""
        if seen.unreached_ms and seen.unreached_ms <= slot + self.plan.late_ms:
            return "no-fence"
        if seen.awake_ms > slot + self.plan.handover_ms * self.plan.place:
            return "asleep"
        return "late"

    def silent(self, boot_ms: int) -> None:
        """No answer: asked again, later each time."""
        self.asking = False
        self.silent_since_ms = self.silent_since_ms or boot_ms
        self._again_ms = min(self._again_ms * 2, REGISTER_AGAIN_MS_MAX)
        self._wait_until_ms = boot_ms + self._again_ms


def value_of(said: Mapping[str, object]) -> Value:
    """What a register holds, as it was written there. Raises: ValueError for what is no value."""
    texts = ("by", "incarnation", "nonce", "what", "reason", "before")
    numbers = ("slot", "missed", "since")
    for name in (*texts, *numbers):
        kind = str if name in texts else int
        found = said.get(name, kind())
        if not isinstance(found, kind) or isinstance(found, bool):
            raise ValueError(f"{name} of the register is no {kind.__name__}")  # noqa: TRY004 - data
    if not 0 <= int(str(said.get("slot", 0))) < 2**53:
        raise ValueError("the register holds no moment")
    return Value(**{name: said[name] for name in (*texts, *numbers) if name in said})  # type: ignore[arg-type]
