"""When a schedule is due: the rows of the clocks that move, and a brute walk over all minutes."""

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from zoneinfo import ZoneInfo

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.task import occurrences
from muster.task.occurrences import Times, check_cron, check_zone, following, is_slot, local, slots

BERLIN = "Europe/Berlin"


def _ms(text: str, zone: str = BERLIN, fold: int = 0) -> int:
    moment = datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone), fold=fold)
    return int(moment.timestamp() * 1000)


def _local(cron: str, since: str, until: str) -> list[str]:
    times = Times(cron=cron, zone=BERLIN)
    return [local(times, each) for each in slots(times, _ms(since), _ms(until))]


GAP = ("2026-03-28T12:00", "2026-03-29T12:00")
OVERLAP = ("2026-10-24T12:00", "2026-10-25T12:00")


@proves("schedule.clocks-that-move")
@pytest.mark.parametrize(
    ("cron", "day", "due"),
    [
        ("30 2 * * *", GAP, ["2026-03-29T03:00+02:00"]),
        ("15,45 2 * * *", GAP, ["2026-03-29T03:00+02:00"]),
        ("0 2-4 * * *", GAP, ["2026-03-29T03:00+02:00", "2026-03-29T04:00+02:00"]),
        ("30 2 * * *", OVERLAP, ["2026-10-25T02:30+02:00"]),
        ("15,45 2 * * *", OVERLAP, ["2026-10-25T02:15+02:00", "2026-10-25T02:45+02:00"]),
        ("0 3 * * *", OVERLAP, ["2026-10-25T03:00+01:00"]),
    ],
)
def test_a_fixed_time_is_due_once_on_each_day_whatever_the_clocks_do(cron, day, due):
    assert _local(cron, *day) == due


@proves("schedule.clocks-that-move")
@pytest.mark.parametrize(
    ("cron", "since", "until", "step_m"),
    [
        ("0 * * * *", "2026-03-29T00:30", "2026-03-29T05:30", 60),
        ("*/15 * * * *", "2026-03-29T00:30", "2026-03-29T05:30", 15),
        ("0 * * * *", "2026-10-25T00:30", "2026-10-25T05:30", 60),
        ("*/30 * * * *", "2026-10-25T00:40", "2026-10-25T05:10", 30),
    ],
)
def test_what_runs_every_so_often_goes_by_the_time_that_passes(cron, since, until, step_m):
    times = Times(cron=cron, zone=BERLIN)
    found = slots(times, _ms(since), _ms(until))
    apart = {after - before for before, after in pairwise(found)}
    assert apart == {step_m * 60_000}
    assert found[0] - _ms(since) <= step_m * 60_000
    assert _ms(until) - found[-1] <= step_m * 60_000


def _walked(times: Times, first_ms: int, last_ms: int) -> list[int]:
    """Every minute looked at by itself, as its zone's clock shows it; of lists of plain numbers."""
    minutes, hours, *_, weekdays = times.cron.split()

    def fits(field: str, value: int) -> bool:
        if field.startswith("*"):
            return value % int(field[2:] or 1) == 0
        return str(value) in field.split(",")

    zone, found, clock = ZoneInfo(times.zone), list[int](), "*" in minutes[:1] + hours[:1]
    if clock:
        for ms in range(first_ms + 60_000, last_ms + 1, 60_000):
            at = datetime.fromtimestamp(ms / 1000, UTC).astimezone(zone)
            on = weekdays == "*" or fits(weekdays, at.isoweekday() % 7)
            if fits(minutes, at.minute) and fits(hours, at.hour) and on:
                found.append(ms)
        return found
    # A fixed time is looked for on the wall, and moved behind a gap.
    day = datetime.fromtimestamp(first_ms / 1000, UTC).astimezone(zone).replace(tzinfo=None)
    day = day.replace(hour=0, minute=0, second=0) - timedelta(days=1)
    while day.timestamp() * 1000 < last_ms + 2 * 86_400_000:
        day += timedelta(minutes=1)
        on = weekdays == "*" or fits(weekdays, day.isoweekday() % 7)
        if not (fits(minutes, day.minute) and fits(hours, day.hour) and on):
            continue
        at = day
        while at.replace(tzinfo=zone).astimezone(UTC).astimezone(zone).replace(tzinfo=None) != at:
            at += timedelta(minutes=1)
        ms = int(at.replace(tzinfo=zone).timestamp()) * 1000
        if first_ms < ms <= last_ms and ms not in found[-2:]:
            found.append(ms)
    return found


@proves("schedule.slots-are-exact")
@pytest.mark.parametrize("zone", [BERLIN, "America/New_York", "Australia/Lord_Howe"])
@pytest.mark.parametrize("cron", ["30 2 * * *", "0 9 * * 1,2,3", "*/20 * * * *", "5 */3 * * *"])
def test_slots_are_those_of_a_walk_over_all_minutes(cron, zone):
    times = Times(cron=cron, zone=zone)
    for year, month, day in ((2026, 3, 7), (2026, 3, 28), (2026, 10, 3), (2026, 10, 24)):
        first = int(datetime(year, month, day, tzinfo=UTC).timestamp() * 1000)
        last = first + 3 * 86_400_000
        walked = _walked(times, first, last)
        assert slots(times, first, last, most=1_000) == walked
        # The same wherever one begins, and the newest of more than are asked for.
        for begin in walked[:: max(1, len(walked) // 3)]:
            later = [each for each in walked if each > begin]
            assert slots(times, begin, last, most=1_000) == later
            assert slots(times, begin, last, most=3) == later[-3:]
            assert following(times, begin, 2) == [*later, *following(times, last, 2)][:2]
            assert is_slot(times, begin)
            assert not is_slot(times, begin + 60_000 * 7 + 1)


# Where clocks are moved at midnight, or an hour before: a day begins late, or its last hour is twice.
MIDNIGHTS = [
    ("Africa/Cairo", (2026, 4, 23), "30 0 * * *", "2026-04-24T01:00+03:00"),
    ("Africa/Cairo", (2026, 10, 29), "30 23 * * *", "2026-10-29T23:30+03:00"),
    ("Asia/Beirut", (2026, 10, 24), "15,45 23 * * *", "2026-10-24T23:45+03:00"),
    ("Africa/Cairo", (2026, 10, 29), "10 */5 * * 4,5", "2026-10-30T00:10+02:00"),
    ("America/Scoresbysund", (2026, 3, 28), "30 23 * * *", "2026-03-29T00:00-01:00"),
]


@proves("schedule.slots-are-exact", "schedule.clocks-that-move")
@pytest.mark.parametrize(("zone", "day", "cron", "one"), MIDNIGHTS)
def test_slots_are_exact_where_clocks_are_moved_at_midnight(zone, day, cron, one):
    times = Times(cron=cron, zone=zone)
    first = int(datetime(*day, tzinfo=UTC).timestamp() * 1000) - 6 * 3_600_000
    last = first + 2 * 86_400_000
    found = slots(times, first, last)
    assert found == _walked(times, first, last)
    assert [local(times, each) for each in found].count(one) == 1
    for begin in range(first, last, 47 * 60_000):
        assert slots(times, begin, last) == [each for each in found if each > begin]


# A zone, a day, and whether its clocks are moved on it: in the night, at its end, at its beginning.
SHIFTED = [
    (BERLIN, "2026-03-28", False),
    (BERLIN, "2026-03-29", True),
    (BERLIN, "2026-03-30", False),
    (BERLIN, "2026-10-25", True),
    ("Australia/Lord_Howe", "2026-04-05", True),
    ("Africa/Cairo", "2026-04-23", False),
    ("Africa/Cairo", "2026-04-24", True),
    ("Africa/Cairo", "2026-10-29", True),
    ("Africa/Cairo", "2026-10-30", False),
    ("America/Scoresbysund", "2026-03-28", True),
    ("America/Scoresbysund", "2026-03-29", False),
    ("UTC", "2026-03-29", False),
]


@proves("schedule.clocks-that-move")
def test_a_day_on_which_clocks_are_moved_says_so_at_each_of_its_hours():
    for zone, day, moved in SHIFTED:
        for hour in ("00:10", "02:10", "12:00", "22:59", "23:59"):
            for fold in (0, 1):
                slot = _ms(f"{day}T{hour}", zone, fold)
                if local(Times(zone=zone), slot).startswith(day):
                    assert occurrences.is_shifted(Times(zone=zone), slot) is moved, (
                        zone,
                        day,
                        hour,
                    )


@proves("schedule.slots-are-exact")
def test_what_is_never_due_again_has_no_slots_and_is_looked_for_once_around():
    now = _ms("2026-06-01T00:00")
    # In nine years there are two days of this kind, and none of it is due in between.
    leap = Times(cron="0 12 29 2 *")
    assert [local(leap, each)[:10] for each in following(leap, now, 2)] == [
        "2028-02-29",
        "2032-02-29",
    ]
    often = Times(cron="*/30 12 29 2 *")
    assert [local(often, each) for each in following(often, now, 3)] == [
        "2028-02-29T12:00+00:00", "2028-02-29T12:30+00:00", "2032-02-29T12:00+00:00",
    ]  # fmt: skip
    assert slots(leap, now, now + 86_400_000) == slots(often, now, now + 86_400_000) == []
    assert slots(often, now, now) == slots(often, now + 1, now) == []
    # What has no end in sight, and what nobody asked for.
    assert following(often, now, 40)[-1] < now + 9 * 366 * 86_400_000
    assert following(Times(), now, 3) == following(Times(at_ms=now), now, 3) == []


@proves("schedule.slots-are-exact")
def test_intervals_count_from_their_moment_and_one_moment_is_due_once():
    every = Times(every_ms=6 * 3_600_000, from_ms=1_000)
    assert slots(every, 0, 13 * 3_600_000) == [1_000, 21_601_000, 43_201_000]
    assert slots(every, 1_000, 13 * 3_600_000, most=1) == [43_201_000]
    assert following(every, 0, 2) == [1_000, 21_601_000]
    assert following(every, 50, 1) == [1_000]
    assert slots(Times(at_ms=5_000), 0, 9_000) == following(Times(at_ms=5_000), 0, 3) == [5_000]
    assert slots(Times(at_ms=5_000), 5_000, 9_000) == slots(Times(), 0, 9_000) == []


@proves("schedule.slots-are-exact")
def test_what_never_ran_is_looked_for_no_further_back_than_is_bounded():
    minutely, now = Times(cron="* * * * *"), _ms("2026-06-01T00:00")
    assert len(slots(minutely, 0, now)) == occurrences.SLOTS_MAX
    assert len(slots(Times(cron="0 0 1 1 *"), 0, now)) == 1


@proves("schedule.form")
def test_what_is_no_line_of_cron_or_zone_is_refused():
    for line in ("* * * * * *", "@daily", "H 2 * * *", "* * *", "0 0 30 2 *", "61 * * * *", ""):
        with pytest.raises(Malformed, match=r"cron|fields"):
            check_cron(line)
    check_cron("0 9 * * MON-FRI")
    for zone in ("Mars/Base", "../etc/passwd", "", "Europe", "/etc/localtime"):
        with pytest.raises(Malformed, match="time zone"):
            check_zone(zone)


@proves("schedule.slots-are-exact")
def test_zones_are_those_of_the_package_and_not_of_the_system():
    import zoneinfo

    assert zoneinfo.TZPATH == ()
    assert occurrences.ZONES_VERSION >= "2026"
