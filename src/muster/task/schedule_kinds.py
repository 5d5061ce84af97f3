"""The bodies of every entry about schedules; who writes them is a keeper, or took the order."""

from typing import Annotated, Literal

from msgspec import Meta

from muster import limits
from muster.log.kind import kind
from muster.task.kinds import Body, Count, Short, TaskWord

ScheduleWord = Annotated[str, Meta(pattern=r"^[0-9a-f]{64}\Z")]
ScheduleName = Annotated[str, Meta(pattern=r"^[a-z0-9][a-z0-9-]{0,39}\Z")]
NonceWord = Annotated[str, Meta(pattern=r"^[0-9a-f]{32}\Z")]
Reason = Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)]
Statement = Annotated[str, Meta(max_length=limits.STATEMENT_BYTES_MAX)]


@kind("schedule.set")
class ScheduleSet(Body, frozen=True):
    """A schedule, as it was signed for the whole fleet; `text` is canonical JSON."""

    text: Annotated[str, Meta(max_length=limits.BODY_BYTES_MAX)]
    statement: Statement


@kind("schedule.pause")
class SchedulePause(Body, frozen=True):
    """Nothing of it is due from its statement on, until it is resumed; or until `until_ms`."""

    schedule: ScheduleWord
    name: ScheduleName
    statement: Statement
    until_ms: Count = 0


@kind("schedule.resume")
class ScheduleResume(Body, frozen=True):
    """It is due again; what would have been meanwhile is skipped."""

    schedule: ScheduleWord
    name: ScheduleName
    statement: Statement


@kind("schedule.remove")
class ScheduleRemove(Body, frozen=True):
    """It counts no more, for ever."""

    schedule: ScheduleWord
    name: ScheduleName
    statement: Statement


@kind("schedule.claim")
class ScheduleClaim(Body, frozen=True):
    """What this keeper is about to ask of the register; durable before it asks.

    `what` is to become of the slot, and of `missed` more behind `since`.
    """

    schedule: ScheduleWord
    slot: Count
    nonce: NonceWord
    what: Literal["fire", "miss", "skip"]
    missed: Count = 0
    since: Count = 0
    reason: Short = ""
    # The nonce of what the register held, which this is to replace.
    before: Short = ""


@kind("schedule.fire")
class ScheduleFire(Body, frozen=True):
    """The slot is run. `fence` is what gave it to this keeper: its kind, and the value there."""

    schedule: ScheduleWord
    slot: Count
    local: Short
    late_ms: Count
    run: TaskWord
    fence: Short
    nonce: NonceWord
    missed: Count = 0
    since: Count = 0
    # The entry that triggered it, by its id in hex; "" for a slot of the calendar.
    trigger: Annotated[str, Meta(pattern=r"^([0-9a-f]{64})?\Z")] = ""


@kind("schedule.miss")
class ScheduleMiss(Body, frozen=True):
    """Slots after `since`, up to `slot`, that nobody runs any more: so many, and why."""

    schedule: ScheduleWord
    since: Count
    slot: Count
    count: Count
    reason: Reason
    nonce: Short = ""


@kind("schedule.skip")
class ScheduleSkip(Body, frozen=True):
    """Slots that are not run though somebody was there: the newest, how many, and why."""

    schedule: ScheduleWord
    since: Count
    slot: Count
    count: Count
    reason: Reason
    run: Annotated[str, Meta(max_length=128)] = ""
    nonce: Short = ""
