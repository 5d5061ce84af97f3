"""What is told of whom and when, in virtual time: one pure machine, many rows."""

from datetime import datetime
from zoneinfo import ZoneInfo

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet.escalation import (
    CHAT,
    CLOSING,
    MAIL,
    NEXT,
    PUSH,
    Hours,
    Service,
    Told,
    due,
    targets,
)
from muster.fleet.incident import Looked, Silence, Telling, fits, gathered, is_shared, key_of
from muster.fleet.until import until_ms

MIN = 60_000
T0 = 1_790_000_000_000 // MIN * MIN
A, B, C = "a" * 64, "b" * 64, "c" * 64
EVERY = (
    Service("team", "chat"), Service("phone", "push"), Service("mail", "mail"),
    Service("bob", "next"),
)  # fmt: skip


ALWAYS = Hours()


def telling(machine=A, key="away:x", at=0, closed=None, severity="critical", **more):
    begin = T0 + at * MIN
    end = begin if closed is None else T0 + closed * MIN
    said = {"title": f"{key} of {machine[:1]}", "detail": "", "flaps": 0, "since_ms": begin, **more}
    return Telling(
        machine=machine, id=f"{machine[:1]}-{key}-{end}", key=key, open=closed is None,
        severity=severity, opened_ms=begin, t_ms=end, **said,
    )  # fmt: skip


class Pager:
    """Pagers over one incident that the test draws, minute by minute."""

    def __init__(self, services=EVERY, hours=ALWAYS, place=0, fails=()):
        self.services, self.hours, self.place, self.fails = services, hours, place, set(fails)
        # Whether it says what it told of, as older versions did not.
        self.newer = True
        self.told: list[Told] = []
        self.said: list[tuple[int, int, tuple[str, ...]]] = []

    def minute(self, minute, tellings, silences=(), from_minute=0):
        """What is told in this minute; it is written down as told."""
        now_ms = T0 + minute * MIN
        (incident,) = gathered(tellings, silences)
        for step in due(
            incident, self.told, self.services, self.hours,
            place=self.place, from_ms=T0 + from_minute * MIN, now_ms=now_ms,
        ):  # fmt: skip
            if step.at_ms <= now_ms:
                ok = not self.fails.issuperset(step.services)
                grave = self.newer * (incident.severity, incident.since_ms)
                self.told.append(Told(step.level, step.services, ok, now_ms, *grave))
                self.said.append((minute, step.level, step.services))
        return incident

    def minutes(self, begin, end, tellings, **more):
        for minute in range(begin, end):
            self.minute(minute, tellings, **more)
        return self.said


@proves("notify.steps")
@pytest.mark.parametrize(
    ("severity", "services", "expected"),
    [
        ("warning", EVERY, [(0, CHAT, ("team",)), (15, PUSH, ("phone",))]),
        ("critical", EVERY, [(0, PUSH, ("phone",)), (5, MAIL, ("mail",)), (15, NEXT, ("bob",))]),
        # Somebody is told at once, whatever there is; and nobody twice.
        ("warning", EVERY[1:2], [(0, CHAT, ("phone",))]),
        ("critical", EVERY[2:3], [(0, PUSH, ("mail",))]),
        ("critical", EVERY[:1], [(0, PUSH, ("team",))]),
        ("warning", EVERY[3:], []),
        ("critical", (), []),
    ],
)
def test_the_steps_of_an_incident_that_nobody_looks_at(severity, services, expected):
    assert Pager(services).minutes(0, 60, [telling(severity=severity)]) == expected


@proves("notify.steps")
def test_a_step_that_fails_holds_up_none_behind_it_and_a_graver_one_begins_its_own():
    assert Pager(fails={"phone"}).minutes(0, 7, [telling()])[-1] == (6, PUSH, ("phone",))
    failing = Pager(fails={"phone"})
    failing.minutes(0, 7, [telling()])
    assert (5, MAIL, ("mail",)) in failing.said
    rising = Pager()
    rising.minutes(0, 3, [telling(severity="warning")])
    assert rising.minutes(3, 30, [telling(grave_ms=T0 + 3 * MIN)]) == [
        (0, CHAT, ("team",)), (3, PUSH, ("phone",)), (8, MAIL, ("mail",)), (18, NEXT, ("bob",)),
    ]  # fmt: skip
    assert targets(NEXT, EVERY, {"bob"}) == ()


@proves("notify.steps")
@pytest.mark.parametrize("newer", [True, False])
@pytest.mark.parametrize(
    ("services", "less", "expected"),
    [
        (EVERY[1:2], "notice", [(0, CHAT, ("phone",)), (3, PUSH, ("phone",))]),
        (EVERY[1:2], "warning", [(0, CHAT, ("phone",)), (3, PUSH, ("phone",))]),
        (EVERY[:1], "warning", [(0, CHAT, ("team",)), (3, PUSH, ("team",))]),
    ],
)
def test_what_was_told_as_something_less_takes_no_step_of_something_graver(
    services, less, expected, newer
):
    def rising():
        pager = Pager(services, Hours(digest=T0 // MIN % 1440))
        pager.newer = newer
        if less == "notice":
            pager.told.append(Told(CHAT, ("phone",), True, T0, *newer * (less, T0)))
            pager.said.append((0, CHAT, ("phone",)))
        pager.minutes(0, 3, [telling(severity=less)])
        return pager

    # The same machine tells of it again, graver; and another one does, of the same.
    assert rising().minutes(3, 60, [telling(grave_ms=T0 + 3 * MIN)]) == expected
    both = [telling(severity=less), telling(B, at=3)]
    assert rising().minutes(3, 60, both) == expected
    # What was told when it was graver is told, whatever comes between.
    again = rising()
    again.minutes(3, 10, [telling(grave_ms=T0 + 3 * MIN)])
    again.minutes(10, 12, [telling(severity=less)])
    if newer:
        assert again.minutes(12, 90, [telling(grave_ms=T0 + 12 * MIN)])[2:] == []
    # A pager that stands in comes a minute after it became so grave, not at once.
    second = rising()
    second.place = 1
    assert second.minutes(3, 60, [telling(grave_ms=T0 + 3 * MIN)])[1:2] == [
        (4, PUSH, services[0][:1])
    ]


@proves("notify.steps")
def test_a_clock_that_is_ahead_lets_nobody_be_told_twice():
    for ahead in (11, 300, 10**6):
        pager = Pager((EVERY[1],))
        assert pager.minutes(0, 60, [telling(at=ahead)]) == [(0, PUSH, ("phone",))], ahead
        # Another witness, whose clock is right.
        both = [telling(at=ahead), telling(B, at=20)]
        assert pager.minutes(60, 90, both) == [(0, PUSH, ("phone",))], ahead


@proves("notify.steps")
def test_the_end_is_told_by_services_that_this_pager_has():
    def ends(*services: Service) -> list[tuple[str, ...]]:
        pager = Pager(services)
        pager.told = [Told(PUSH, ("phone", "siren"), True, T0 + MIN)]
        pager.minutes(3, 60, [telling(closed=2)])
        return [names for _, _, names in pager.said]

    assert ends(*EVERY) == [("phone",)]
    assert ends(EVERY[2], EVERY[0]) == [("team",)]
    assert ends(EVERY[2]) == [("mail",)]
    assert ends(EVERY[3]) == ends() == []


@proves("notify.one-trouble")
def test_three_witnesses_are_one_incident_and_one_message():
    pager, seen = Pager(), []
    for minute in range(30):
        tellings = [telling(m, at=at) for m, at in ((A, 0), (B, 2), (C, 3)) if at <= minute]
        # The first of them sees it no more, the others do.
        if minute >= 6:
            tellings[0] = telling(A, at=0, closed=6)
        incident = pager.minute(minute, tellings)
        seen.append(len(incident.machines))
        assert incident.state(notified=True) == "notified"
    assert [level for _, level, _ in pager.said] == [PUSH, MAIL, NEXT]
    assert seen[:7] == [1, 1, 2, 3, 3, 3, 2]
    # Another object, and what is about the machine itself, are incidents of their own.
    keys = [telling(m, key) for m in (A, B) for key in ("away:x", "away:y", "disk-full", ":x")]
    own = [f"{key}@{m[:16]}" for m in (A, B) for key in ("disk-full", ":x")]
    assert [each.key for each in gathered(keys)] == ["away:x", "away:y", *own]
    assert (is_shared("away:x"), is_shared("away"), key_of("away", A)) == (
        True, False, f"away@{A[:16]}",
    )  # fmt: skip


@proves("notify.flaps")
def test_what_flaps_calls_once_more_at_the_third_time_and_its_end_is_told_when_it_stays():
    pager = Pager((EVERY[1],))
    since = 0
    for flaps in range(8):
        at = flaps * 6
        since = at if flaps == 3 else since
        one = {"at": at, "flaps": flaps, "since_ms": T0 + since * MIN}
        pager.minutes(at, at + 3, [telling(**one)])
        pager.minutes(at + 3, at + 6, [telling(**one, closed=at + 3)])
    assert pager.said == [(0, PUSH, ("phone",)), (18, PUSH, ("phone",))]
    over = telling(at=42, flaps=7, since_ms=T0 + since * MIN, closed=45)
    assert pager.minutes(48, 90, [over])[2:] == [(55, CLOSING, ("phone",))]
    # Whoever was told nothing is told of no end, and nor is anybody of the end of a notice.
    assert Pager((EVERY[1],)).minutes(4, 60, [telling(closed=3)]) == []
    digest = Pager(hours=Hours(digest=0))
    digest.told.append(Told(CHAT, ("team",), True, T0 + MIN))
    assert digest.minutes(4, 60, [telling(closed=3, severity="notice")]) == []


@proves("notify.acknowledged-until")
def test_who_looks_at_it_ends_the_steps_until_then():
    for until, expected in ((0, [0]), (40, [0, 40, 40])):
        pager = Pager()
        pager.minutes(0, 3, [telling()])
        word = Looked("alice", "", T0, until and T0 + until * MIN)
        pager.minutes(3, 40, [telling(looked=word)])
        assert pager.minute(39, [telling(looked=word)]).state(notified=True) == "acknowledged"
        # Told again, by somebody else, and the word covers that one as well.
        both = [telling(looked=word), telling(B, at=20, looked=word)]
        pager.minutes(39, 40, both)
        ended = [telling(looked=Looked(until_ms=word.until_ms) if until else word)]
        pager.minutes(40, 90, ended)
        assert [minute for minute, _, _ in pager.said] == expected, until
    unseen = [telling(looked=Looked("alice", "", T0, 0)), telling(B)]
    (incident,) = gathered(unseen)
    assert (incident.looked.by, incident.state(notified=False)) == ("", "open")
    assert gathered([telling(closed=3)])[0].state(notified=True) == "closed"


@proves("notify.silenced")
def test_what_is_silenced_calls_nobody_until_that_ends():
    pager = Pager()
    for match, quiet in (("away:*", True), ("*", True), ("away:x", True), ("b*", False)):
        pager = Pager()
        pager.minutes(0, 30, [telling()], silences=[Silence(match, T0 + 30 * MIN)])
        assert bool(pager.said) is not quiet, match
        pager.minutes(30, 90, [telling()], silences=[Silence(match, T0 + 30 * MIN)])
        assert pager.said[0][:2] == ((30, PUSH) if quiet else (0, PUSH))
    # By the name that people give the machine.
    (incident,) = gathered([telling(key="lag")], [Silence("lag/nas", 5)], {A: "nas"})
    assert incident.silenced_ms == 5


@proves("notify.silenced")
@pytest.mark.parametrize(
    ("pattern", "text", "is_it"),
    [
        ("a", "a", True), ("a", "ab", False), ("a*", "ab", True), ("*b", "ab", True),
        ("a*b", "ab", True), ("a*b", "axxb", True), ("a*a", "a", False), ("*", "", True),
        ("a*b*c", "a-b-c", True), ("a*b*c", "a-c-b", False), ("a**c", "abc", True),
        ("*a*", "bab", True), ("ab*bc", "abc", False), ("a[b]", "ab", False),
        ("a*" * 90 + "b", "a" * 200, False),
    ],
)  # fmt: skip
def test_what_a_pattern_fits(pattern, text, is_it):
    assert fits(pattern, text) is is_it


@proves("notify.next-pager")
def test_the_next_pager_comes_a_minute_later_and_only_where_the_first_said_nothing():
    log, one, two = list[Told](), Pager(), Pager(place=1)
    one.told = two.told = log
    for minute in range(40):
        # The first one dies after three minutes, and both began anew in the thirtieth.
        if minute < 3:
            one.minute(minute, [telling()])
        two.minute(minute, [telling()], from_minute=0)
    assert one.said == [(0, PUSH, ("phone",))]
    assert two.said == [(6, MAIL, ("mail",)), (16, NEXT, ("bob",))]
    # What is due when both begin, or a silence ends, is told by the first alone.
    for more in ({"from_minute": 50}, {"silences": [Silence("*", T0 + 50 * MIN)]}):
        late_one, late_two = Pager((EVERY[1],)), Pager((EVERY[1],), place=1)
        late_one.told = late_two.told = []
        for minute in range(40, 60):
            late_one.minute(minute, [telling()], **more)
            late_two.minute(minute, [telling()], **more)
        assert (late_one.said, late_two.said) == ([(50, PUSH, ("phone",))], [])


def there(hour: int, minute: int = 0, *, day: int = 28, month: int = 11) -> int:
    when = datetime(2026, month, day, hour, minute, tzinfo=ZoneInfo("Europe/Berlin"))
    return int(when.timestamp() * 1000)


def berlin(ms: int) -> int:
    offset = datetime.fromtimestamp(ms / 1000, ZoneInfo("Europe/Berlin")).utcoffset()
    assert offset is not None
    return int(offset.total_seconds()) * 1000


NIGHT = Hours(berlin, (22 * 60, 7 * 60), 8 * 60)


@proves("notify.quiet-hours")
@pytest.mark.parametrize(
    ("hours", "ms", "awake", "digest"),
    [
        (NIGHT, there(21, 59), there(21, 59), there(8, day=29)),
        (NIGHT, there(22), there(7, day=29), there(8, day=29)),
        (NIGHT, there(3), there(7), there(8)),
        (NIGHT, there(7), there(7), there(8)),
        (NIGHT, there(8), there(8), there(8, day=29)),
        # The nights in which the clocks are changed: 29 March and 25 October 2026.
        (NIGHT, there(23, day=28, month=3), there(7, day=29, month=3), there(8, day=29, month=3)),
        (
            NIGHT,
            there(23, day=24, month=10),
            there(7, day=25, month=10),
            there(8, day=25, month=10),
        ),
        # What is skipped in the former comes when the clock goes on.
        *(
            (
                Hours(berlin, (22 * 60, 2 * 60 + 30), minute),
                begin,
                there(3, day=29, month=3),
                there(3, day=29, month=3),
            )
            for minute in (2 * 60, 2 * 60 + 1, 2 * 60 + 59, 3 * 60)
            for begin in (there(23, day=28, month=3), there(1, 45, day=29, month=3))
        ),
        (Hours(berlin, (60, 120)), there(1, 30), there(2), there(8)),
        (Hours(), there(3), there(3), there(9)),
    ],
)
def test_when_a_person_is_awake(hours, ms, awake, digest):
    assert (hours.awake_ms(ms), hours.digest_ms(ms)) == (awake, digest)
    assert hours.awake_ms(ms + 30_000) - awake in (0, 30_000)


@proves("notify.quiet-hours")
def test_the_night_holds_warnings_and_nothing_graver():
    def told(severity: str, begin_ms: int, now_ms: int, **more: int) -> list[int]:
        since = {"since_ms": begin_ms, "opened_ms": begin_ms, "t_ms": begin_ms}
        (incident,) = gathered([telling(severity=severity)._replace(**since)])
        found = due(
            incident, [], EVERY, NIGHT, place=more.get("place", 0), from_ms=0, now_ms=now_ms
        )
        return [step.at_ms for step in found]

    assert told("critical", there(3), there(3))[0] == there(3)
    assert told("warning", there(3), there(3))[0] == there(7)
    assert told("warning", there(3), there(3), place=2)[0] == there(7, 2)
    # It was due in the evening, nobody came to it, and now it is night.
    assert told("warning", there(21, 50), there(23))[0] == there(7, day=29)
    assert told("warning", there(21, 50), there(7, 1, day=29))[0] == there(21, 50)
    assert told("notice", there(3), there(3)) == [there(8)]
    assert told("notice", there(3), there(9)) == [there(8)], "late is better than tomorrow"


@proves("notify.acknowledged-until", "notify.silenced")
def test_until_when_is_what_was_signed():
    assert until_ms("8h", T0) == T0 + 480 * MIN
    assert until_ms("0s", T0) == T0
    assert until_ms("2026-11-28T12:00", 0) == until_ms("2026-11-28T13:00+01:00", 5)
    for text in ("", "soon", "8", "9999-99-99"):
        with pytest.raises(Malformed):
            until_ms(text, T0)
