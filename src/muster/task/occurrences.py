"""When a schedule is due: the slots of a cron line, an interval or one moment, in milliseconds.

Rule 1: a slot is a moment of UTC. Every machine computes the same ones: zones come from the pinned
        package `tzdata` and never from the system, which has another version.
Rule 2: a fixed time that the clocks skip is due when they have moved, once; one that comes twice is
        due the first time; what runs every so many minutes is never lost and never doubled.
Rule 3: nothing is counted from the beginning: the newest slots before a moment are looked for
        backwards, so many at most and no further than `LOOK_BACK_MS`.
"""

import importlib.metadata
import zoneinfo
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import Final, NamedTuple

from cronsim import CronSim, CronSimError

from muster.errors import Malformed
from muster.limits import SLOTS_MAX

# Before anything asks for a zone: see rule 1.
zoneinfo.reset_tzpath(to=())
zoneinfo.ZoneInfo.clear_cache()

ZONES_VERSION: Final = importlib.metadata.version("tzdata")
# No schedule lives for longer than a statement: 366 days.
LOOK_BACK_MS: Final = 400 * 24 * 3_600_000
# Twice as far each time, from an hour on.
_FIRST_LOOK_MS: Final = 3_600_000
_FIELDS: Final = 5
_QUARTER_MS: Final = 15 * 60_000
# The year 9000: what is looked for from there on still has dates, which end with 9999.
LATEST_MS: Final = 221_845_392_000_000
# Further ahead than any 29 February.
_AHEAD_MS: Final = 9 * 366 * 24 * 3_600_000


class Times(NamedTuple):
    """`cron` in a `zone`, or `every_ms` from `from_ms` on, or `at_ms`; or never."""

    cron: str = ""
    zone: str = "UTC"
    every_ms: int = 0
    from_ms: int = 0
    at_ms: int = 0


def check_zone(name: str) -> zoneinfo.ZoneInfo:
    """The zone of this name. Raises: Malformed."""
    try:
        return zoneinfo.ZoneInfo(name)
    except (ValueError, OSError, zoneinfo.ZoneInfoNotFoundError) as error:
        raise Malformed(
            f"{name[:60]!r} is no time zone; write one of the IANA names, as Europe/Berlin or UTC"
        ) from error


def check_cron(line: str) -> None:
    """Raises: Malformed for what is no line of cron with five fields."""
    if len(line.split()) != _FIELDS:
        raise Malformed(
            f"{line[:60]!r} has not five fields: minute, hour, day of month, month, day of week"
        )
    try:
        next(CronSim(line, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        raise Malformed(f"{line[:60]!r} is no line of cron, or never due ({error})") from error


def slots(times: Times, after_ms: int, until_ms: int, most: int = SLOTS_MAX) -> list[int]:
    """The slots after one moment and up to another one: of more than `most` the newest."""
    after_ms = max(after_ms, until_ms - LOOK_BACK_MS, 0)
    if until_ms <= after_ms:
        return []
    if times.at_ms:
        return [times.at_ms] if after_ms < times.at_ms <= until_ms else []
    if times.every_ms:
        last = (until_ms - times.from_ms) // times.every_ms
        first = max((after_ms - times.from_ms) // times.every_ms + 1, 0, last - most + 1)
        return [times.from_ms + n * times.every_ms for n in range(first, last + 1)]
    if not times.cron:
        return []
    look_ms, found = _FIRST_LOOK_MS, list[int]()
    while True:
        since_ms = max(after_ms, until_ms - look_ms)
        found = [*_cron(times, since_ms, until_ms), *found]
        if since_ms == after_ms or len(found) >= most:
            return found[-most:]
        until_ms, look_ms = since_ms, look_ms * 2


def following(times: Times, after_ms: int, count: int) -> list[int]:
    """The next slots after a moment."""
    if times.at_ms or times.every_ms or not times.cron:
        far = after_ms + (times.every_ms * count or LOOK_BACK_MS)
        start = max(after_ms, times.from_ms - 1) if times.every_ms else after_ms
        return slots(times, start, max(far, start + times.every_ms * count))[:count]
    found = list[int]()
    for slot in _iterate(times, after_ms):
        found.append(slot)
        if len(found) == count:
            break
    return found


@lru_cache(maxsize=4_096)
def is_slot(times: Times, slot_ms: int) -> bool:
    """Whether this very moment is one."""
    return slots(times, slot_ms - 1, slot_ms) == [slot_ms]


def local(times: Times, slot_ms: int) -> str:
    """A slot as a clock of its zone shows it, with the offset."""
    moment = datetime.fromtimestamp(slot_ms / 1000, UTC).astimezone(check_zone(times.zone))
    return moment.isoformat(timespec="minutes")


def is_shifted(times: Times, slot_ms: int) -> bool:
    """Whether the clocks of its zone are moved on the day of this slot."""
    zone = check_zone(times.zone)
    moment = datetime.fromtimestamp(slot_ms / 1000, UTC).astimezone(zone)
    begins = moment.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
    # The next day's beginning: where clocks are moved at midnight, a day's last hour comes twice.
    return begins.utcoffset() != (begins + timedelta(days=1)).utcoffset()


def _cron(times: Times, after_ms: int, until_ms: int) -> list[int]:
    found = list[int]()
    for slot in _iterate(times, after_ms):
        if slot > until_ms:
            break
        found.append(slot)
    return found


def _iterate(times: Times, after_ms: int) -> Iterator[int]:
    zone = _zone(times.zone)
    start = datetime.fromtimestamp(after_ms / 1000, UTC).astimezone(zone)
    line = CronSim(times.cron, start)
    if times.cron.split()[0].startswith("*") or times.cron.split()[1].startswith("*"):
        yield from _passing(line, zone, after_ms)
        return
    for moment in line:
        slot = int(moment.timestamp()) * 1000
        # In the hour that comes twice a fixed time is found again, before where it began.
        if slot > after_ms:
            yield slot


def _passing(line: CronSim, zone: zoneinfo.ZoneInfo, after_ms: int) -> Iterator[int]:
    """What goes by the time that passes: each quarter of an hour, as its zone shows it.

    Clocks are moved at, and by, whole quarters. CronSim 2.8 goes on by whole hours and loses slots
    where a zone moves its clocks by half an hour.
    """
    day, fits, quarter_ms = None, False, after_ms // _QUARTER_MS * _QUARTER_MS
    while quarter_ms < after_ms + _AHEAD_MS:
        shown = datetime.fromtimestamp(quarter_ms / 1000, UTC).astimezone(zone)
        if shown.date() != day:
            day = shown.date()
            fits = day.month in line.months and line.match_day(day)
        if not fits:
            # No day has fewer than 23 hours.
            quarter_ms += max((22 - shown.hour) * 4, 1) * _QUARTER_MS
            continue
        for n in range(15 if shown.hour in line.hours else 0):
            slot = quarter_ms + n * 60_000
            if shown.minute + n in line.minutes and slot > after_ms:
                yield slot
        quarter_ms += _QUARTER_MS


_zone = lru_cache(maxsize=32)(check_zone)
