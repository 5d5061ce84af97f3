"""What this machine claimed of schedules and nothing is told of, and a keeper that goes on with it.

Rule: whether a claim is told of, says an entry of our own stream with its nonce, and none other.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Final

from muster.limits import SLOT_HANDOVER_MS
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FLEET
from muster.node.tasks import slots
from muster.node.tasks.slots import Known
from muster.task import occurrences
from muster.task.schedule_fold import CLAIM, SLOT
from muster.task.schedule_kinds import ScheduleClaim
from muster.task.slot_keeper import Keeper, Plan, Value

if TYPE_CHECKING:
    from muster.node.core import Core

# One at a time is under way: of a schedule the newest ones are looked at.
_CLAIMS_MAX: Final = 100


def untold(core: "Core", each: Known) -> Iterator[tuple[ScheduleClaim, Entry]]:
    """The claims of this incarnation of which nothing is told."""
    own, rows = core.membership.own(FLEET), core.tables.rows
    newest = rows(CLAIM, stream=own, schedule=each.id, order=("-slot",), limit=_CLAIMS_MAX)
    for row in newest:
        told = rows(SLOT, stream=own, schedule=each.id, slot=row.slot)
        entry = core.log.entry(row.entry)
        body = body_or_none(entry, ScheduleClaim)
        if entry is not None and body is not None and row.nonce not in {r.nonce for r in told}:
            yield body, entry


def keeper_of(core: "Core", each: Known) -> Keeper:
    """This machine as its keeper, with what the log says of it."""
    known = max((row.slot for row in slots.came_to(core, each)), default=0)
    life = str(core.membership.incarnation)
    keeper = Keeper(core.machine, life, plan_of(core, each), known)
    for body, _ in untold(core, each):
        keeper.claims[body.nonce] = Value(
            body.slot, keeper.me, life, body.nonce, body.what, body.missed, body.since,
            body.reason, body.before,
        )  # fmt: skip
    return keeper


def plan_of(core: "Core", each: Known) -> Plan:
    """What a schedule says for this machine."""
    times, schedule = each.schedule.times, each.schedule
    count = len(schedule.keepers)
    return Plan(
        place=schedule.keepers.index(core.machine),
        slots=lambda after, until: occurrences.slots(times, after, until),
        following=lambda after: next(iter(occurrences.following(times, after, 1)), 0),
        since_ms=each.statement.issued_ms,
        until_ms=each.statement.until_ms,
        late_ms=schedule.late_ms,
        catch_up=schedule.catch_up,
        overlap=schedule.overlap,
        paused_ms=each.paused_ms,
        resumed_ms=each.resumed_ms,
        handover_ms=schedule.handover_ms,
        prompt_ms=schedule.handover_ms * count + SLOT_HANDOVER_MS,
    )
