"""A schedule: when a spec is run, on which machines' watch, and what is done about what was missed.

Rule 1: the types are the format, as of a spec. A file names its spec; what is signed has the text
        of it, as canonical JSON: whoever fires it and whoever works on it read the same bytes.
Rule 2: a schedule is one order for the whole fleet, known by the hash of its statement. Of several
        of one name the one that was signed last counts; one that was removed never counts again.
Rule 3: it ends with its statement, within 366 days.
"""

import re
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace

from muster.duration import duration_ms
from muster.errors import Malformed
from muster.limits import (
    EVERY_MS_MIN,
    KEEPERS_MAX,
    SLOT_HANDOVER_MS,
    SLOT_HANDOVER_MS_MIN,
    SLOT_LATE_MS,
    SLOT_LATE_MS_MAX,
    SPEC_LOG_BYTES_MAX,
    STATEMENT_LIFE_MS_MAX,
)
from muster.log import canon
from muster.task import decode, occurrences, yaml
from muster.task.budget import Amount, Budget
from muster.task.kinds import RunOpen
from muster.task.occurrences import Times, check_cron, check_zone
from muster.task.problem import Problem, SpecErrors
from muster.task.schedule_kinds import ScheduleFire
from muster.task.spec import parse
from muster.task.text_types import Duration, Name, Value, matching
from muster.task.trigger import Trigger

SET: Final = "schedule.set"
# What a slot says of itself, given to a spec that has inputs of these names.
TEXT: Final = "trigger-text"
INPUTS: Final = ("slot-time", "slot-local", "slot-late", "slot-missed")
AUTO: Final = "auto"
OWNER: Final = "owner"
REPO: Final = "repo:"

_MOMENT: Final = (
    r"^[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:[0-9]{2}(:[0-9]{2})?(Z|[+-][0-9]{2}:[0-9]{2})?)?$"
)
Moment = Annotated[
    str, matching(_MOMENT, "is not a moment; write 2026-11-20 or 2026-11-20T02:30+01:00")
]
Fence = Annotated[
    str,
    matching(
        "^(auto|owner|repo:[a-z0-9][a-z0-9-]{0,39})$",
        "is not a fence; write auto, owner or repo:NAME",
    ),
]


class When(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One of: a line of cron in a zone, an interval from a moment on, one moment, or what happens,
    once in an `every`.
    """

    cron: Annotated[str, Meta(min_length=1, max_length=120)] | None = None
    zone: Annotated[str, Meta(min_length=1, max_length=60)] | None = None
    every: Duration | None = None
    since: Moment | None = msgspec.field(name="from", default=None)
    at: Moment | None = None
    on: Trigger | None = None


class Schedule(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """`run` is the path of a spec in a file, and its text in what is signed.

    `keepers` are names in a file and ids in what is signed: the first is the owner. `budget` is
    what all its runs may use up together in one day (UTC).
    """

    muster: Literal[1]
    schedule: Name
    when: When
    run: Annotated[str, Meta(min_length=1, max_length=SPEC_LOG_BYTES_MAX)]
    keepers: Annotated[list[Value], Meta(min_length=1, max_length=KEEPERS_MAX)]
    fence: Fence = "auto"
    late: Duration | None = None
    handover: Duration | None = None
    catch_up: Literal["none", "latest", "all"] = "latest"
    overlap: Literal["skip", "queue", "replace", "allow"] = "skip"
    wake: Literal["auto", "none"] = "auto"
    budget: Budget | None = None
    until: Moment | None = None

    @property
    def late_ms(self) -> int:
        return duration_ms(self.late) if self.late else SLOT_LATE_MS

    @property
    def handover_ms(self) -> int:
        return duration_ms(self.handover) if self.handover else SLOT_HANDOVER_MS

    @property
    def day_most(self) -> Amount:
        """What its runs of one day may use up; nothing is no limit."""
        return self.budget.amount if self.budget is not None else Amount()

    @property
    def storm_ms(self) -> int:
        """Within which what happens runs it once."""
        return duration_ms(self.when.every) if self.when.every else EVERY_MS_MIN

    @property
    def times(self) -> Times:
        """What it is due by. Raises: Malformed."""
        return _times(self.when)


@lru_cache(maxsize=64)
def _times(when: When) -> Times:
    zone = when.zone or "UTC"
    check_zone(zone)
    said = [name for name in ("cron", "every", "at") if getattr(when, name) is not None]
    if when.on is not None:
        if when.on.refusal or said not in ([], ["every"]) or when.since is not None:
            raise Malformed(when.on.refusal or "beside `on` there is `every` alone")
        if when.every is not None and duration_ms(when.every) < EVERY_MS_MIN:
            raise Malformed("it would run more often than once a minute; write every: 1m or more")
        return Times(zone=zone)
    if len(said) != 1:
        raise Malformed("`when` is one of cron, every and at; write {cron: '30 2 * * *'}")
    if when.since is not None and when.every is None:
        raise Malformed("`from` is where `every` begins; leave it out here")
    if when.cron is not None:
        check_cron(when.cron)
        return Times(cron=when.cron, zone=zone)
    if when.at is not None:
        return Times(zone=zone, at_ms=moment_ms(when.at, zone))
    every_ms = duration_ms(when.every or "")
    if every_ms < EVERY_MS_MIN:
        raise Malformed("it would run more often than once a minute; write every: 1m or more")
    return Times(zone=zone, every_ms=every_ms, from_ms=moment_ms(when.since or "1970-01-01", zone))


def moment_ms(text: str, zone: str = "UTC") -> int:
    """A moment as people write it; one without an offset is of the zone. Raises: Malformed."""
    if not re.fullmatch(_MOMENT, text):
        raise Malformed(f"{text[:40]!r} is not a moment; write 2026-11-20T02:30+01:00")
    try:
        found = datetime.fromisoformat(text)
        moved = found if found.tzinfo is not None else found.replace(tzinfo=check_zone(zone))
        return max(int(moved.astimezone(UTC).timestamp()) * 1000, 0)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"{text[:40]!r} is not a moment: {error}") from error


def read(raw: bytes) -> Schedule:
    """The schedule in a file. Raises: SpecErrors with every problem and its place."""
    plain, places, problems = decode.glean(yaml.read(raw), Schedule)
    if problems:
        raise SpecErrors(problems)
    found = msgspec.convert(plain, Schedule)
    try:
        check(found)
    except Malformed as error:
        line, column = places.get("when", (1, 1))
        raise SpecErrors([Problem(line, column, "when", str(error))]) from error
    return found


def check(schedule: Schedule) -> None:
    """Raises: Malformed for what has the form and no sense."""
    times = schedule.times
    if not 0 < schedule.late_ms <= SLOT_LATE_MS_MAX:
        raise Malformed("`late` is at most seven days, and more than nothing")
    if not SLOT_HANDOVER_MS_MIN <= schedule.handover_ms <= schedule.late_ms:
        raise Malformed("`handover` is at least 1s, and no longer than `late`")
    if len(set(schedule.keepers)) != len(schedule.keepers):
        raise Malformed("a keeper stands there twice; name each machine once")
    if schedule.budget is not None and schedule.budget.usd and not schedule.day_most.usd_millionths:
        raise Malformed("`budget.usd` is 0, which no run can keep; leave it out, or pause it")
    if schedule.until is not None:
        moment_ms(schedule.until, times.zone)


def until_ms(schedule: Schedule, now_ms: int) -> int:
    """When its order is to end. Raises: Malformed."""
    if schedule.until is None:
        return now_ms + STATEMENT_LIFE_MS_MAX
    found = moment_ms(schedule.until, schedule.times.zone)
    if not now_ms < found <= now_ms + STATEMENT_LIFE_MS_MAX:
        raise Malformed("`until` is a moment ahead, at most 366 days: no order counts for longer")
    return found


def text_of(schedule: Schedule) -> str:
    """What is signed of it."""
    return canon.encode(msgspec.to_builtins(schedule)).decode()


@lru_cache(maxsize=64)
def opened(text: str) -> Schedule:
    """A schedule from what was signed. Raises: Malformed."""
    try:
        found = msgspec.json.decode(text.encode(), type=Schedule)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Malformed(f"the text of the schedule cannot be read: {error}") from error
    if text_of(found) != text:
        raise Malformed("the text of the schedule is not written as it would be")
    # msgspec looks at no pattern of these types: what nobody looks at is whatever its signer likes.
    if problems := decode.misfits(msgspec.to_builtins(found), Schedule):
        raise SpecErrors(problems)
    for keeper in found.keepers:
        if not re.fullmatch("[0-9a-f]{64}", keeper):
            raise Malformed("a keeper of the schedule is no machine's id")
    check(found)
    return found


def happens(schedule: Schedule) -> str:
    """What runs it, in words; "" where the calendar does."""
    trigger = schedule.when.on
    if trigger is None:
        return ""
    return f"on {trigger.words}"


def set_args(text: str) -> dict[str, Any]:
    """What an operator signs as arguments of `schedule.set`."""
    return {"keepers": opened(text).keepers, "text": text}


def id_of(statement: str) -> str:
    """What a schedule is called by whoever speaks of it: its order, whoever wrote that down."""
    return sha256(statement.encode()).hexdigest()


def slot_run(
    fleet: str, schedule: Schedule, fire: ScheduleFire, text: str
) -> tuple[ScheduleFire, RunOpen]:
    """A fire with its run, and the opening of that: whoever looks at it computes the same."""
    spec = parse(schedule.run.encode())
    slot = f"{fire.slot}/{fire.trigger}" if fire.trigger else str(fire.slot)
    run = slot_run_id(fleet, fire.schedule, slot)
    takes = spec.takes
    local = occurrences.local(schedule.times, fire.slot)
    values = slot_values(takes, fire.slot, local, fire.late_ms, fire.missed)
    if fire.trigger and TEXT in takes:
        values[TEXT] = text
    opening = RunOpen(
        run=run, name=spec.name, spec=schedule.run, statement="", repo=spec.repo or "",
        values=values,
    )  # fmt: skip
    return replace(fire, run=run), opening


def slot_run_id(fleet: str, schedule: str, slot: int | str) -> str:
    """The run of a slot: two machines that both began it would meet at the fence in git."""
    said = f"muster/slot/v1\n{fleet}\n{schedule}\n{slot}".encode()
    return sha256(said).hexdigest()[:32]


def slot_values(takes: Any, slot: int, local: str, late_ms: int, missed: int) -> dict[str, str]:
    """Of what a slot says of itself that which a spec takes as inputs."""
    time = datetime.fromtimestamp(slot / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    said = (time, local, str(late_ms // 1000), str(missed))
    return {name: text for name, text in zip(INPUTS, said, strict=True) if name in takes}
