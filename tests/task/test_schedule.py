"""A schedule as a file and as what is signed: what it says, what is refused, and what its slots run."""

import hashlib
import json
import random
from datetime import UTC, datetime

import msgspec
import pytest
from tests.promise import proves
from tests.task.orders import FLEET_ID, NOW_MS
from tests.task.schedules import FILE, KEEPER, MINUTE, SLOT, SPEC, STANDIN, TOLD, text

from muster.errors import Malformed
from muster.limits import EVERY_MS_MIN, SLOT_HANDOVER_MS, SLOT_LATE_MS, STATEMENT_LIFE_MS_MAX
from muster.task import occurrences
from muster.task.occurrences import Times
from muster.task.problem import SpecErrors
from muster.task.schedule import (
    INPUTS,
    Schedule,
    happens,
    id_of,
    moment_ms,
    opened,
    read,
    set_args,
    slot_run,
    text_of,
    until_ms,
)
from muster.task.schedule_kinds import ScheduleFire

HOUR = 60 * MINUTE
DAY = 24 * HOUR


def _file(old: str = "", new: str = "", more: str = "") -> Schedule:
    return read((FILE.replace(old, new) + more).encode())


def _when(new: str) -> Schedule:
    return _file("{every: 10m}", new)


def _iso(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).isoformat(timespec="minutes")


# What stands behind `when:`, and by which moments it is due.
DUE = [
    ("{every: 90m}", Times(every_ms=90 * MINUTE)),
    ("{every: 6h, from: 1970-01-02}", Times(every_ms=6 * HOUR, from_ms=DAY)),
    # Without an offset a moment is of the zone.
    (
        "{every: 6h, from: 1970-01-02, zone: Europe/Berlin}",
        Times(every_ms=6 * HOUR, from_ms=23 * HOUR, zone="Europe/Berlin"),
    ),
    ("{at: 1970-01-02T02:30}", Times(at_ms=DAY + 150 * MINUTE)),
    (
        '{at: "1970-01-02T02:30+01:00", zone: America/New_York}',
        Times(at_ms=DAY + 90 * MINUTE, zone="America/New_York"),
    ),
    ('{cron: "30 2 * * *"}', Times(cron="30 2 * * *")),
    (
        '{cron: "0 9 * * MON-FRI", zone: Asia/Tokyo}',
        Times(cron="0 9 * * MON-FRI", zone="Asia/Tokyo"),
    ),
    # What happens is of no calendar.
    ("{on: {run: build}}", Times()),
    ('{on: {incident: "disk-*"}, every: 5m}', Times()),
]


@proves("schedule.form")
@pytest.mark.parametrize(("when", "times"), DUE)
def test_a_file_says_by_what_its_spec_is_due(when, times):
    assert _when(when).times == times


# What is written for what in the file, and which words of the refusal say where and what to write.
NO_WHEN = "`when` is one of cron, every and at"
REFUSED = [
    ("{every: 10m}", "{}", NO_WHEN),
    ("{every: 10m}", '{every: 10m, cron: "30 2 * * *"}', NO_WHEN),
    ("{every: 10m}", "{at: 2026-12-24, every: 10m}", NO_WHEN),
    ("{every: 10m}", "{zone: UTC}", NO_WHEN),
    ("{every: 10m}", "{at: 2026-12-24, from: 2026-12-01}", "`from` is where `every` begins"),
    ("{every: 10m}", '{cron: "* * * * *", from: 2026-12-01}', "`from` is where `every` begins"),
    ("{every: 10m}", "{every: 59s}", "more often than once a minute; write every: 1m or more"),
    ("{every: 10m}", '{cron: "30 2 * * * *"}', "has not five fields"),
    ("{every: 10m}", '{cron: "0 0 30 2 *"}', "never due"),
    ("{every: 10m}", "{every: 1h, zone: Mars/Base}", "is no time zone"),
    ("{every: 10m}", "{every: soon}", 'when.every: "soon" is not a duration'),
    ("{every: 10m}", "{at: tomorrow}", 'when.at: "tomorrow" is not a moment'),
    ("{every: 10m}", "{at: 2026-02-30}", "'2026-02-30' is not a moment"),
    ("{every: 10m}", "{at: 0001-01-01, zone: Asia/Tokyo}", "is not a moment"),
    ("{every: 10m}", "{on: {}}", "`on` is one of {run: NAME}, {incident: KEY}"),
    ("{every: 10m}", "{on: {run: build, incident: lag}}", "`on` is one of"),
    ("{every: 10m}", "{on: {incident: lag, outcome: done}}", "`outcome` is of a run"),
    ("{every: 10m}", "{on: {incident: Disk}}", "is no key of incidents"),
    ("{every: 10m}", "{on: {message: {begins: go}}}", "from"),
    ("{every: 10m}", "{on: {message: {from: 'a b'}}}", "says of nobody that a message is theirs"),
    ("{every: 10m}", "{on: {memory: 'a b'}}", "is no key of the memory"),
    ("{every: 10m}", "{on: {memory: a, outcome: done}}", "`outcome` is of a run"),
    ("{every: 10m}", '{on: {run: build}, cron: "* * * * *"}', "beside `on` there is `every` alone"),
    ("{every: 10m}", "{on: {run: build}, at: 2026-12-24}", "beside `on` there is `every` alone"),
    ("{every: 10m}", "{on: {run: a}, every: 5m, from: 2026-12-24}", "there is `every` alone"),
    ("{every: 10m}", "{on: {run: build}, every: 30s}", "more often than once a minute"),
    ("[hub, studio]", "[hub, studio, hub]", "a keeper stands there twice"),
    ("[hub, studio]", "[]", "keepers is empty"),
    ("schedule: nightly", "schedule: At Night", 'schedule: "At Night" is not a name'),
    ("schedule: nightly", "schedul: nightly", 'did you mean "schedule"?'),
    ("schedule: nightly", "", "the spec has no schedule"),
    ("run: spec.yaml", "run: spec.yaml\nlate: 0s", "`late` is at most seven days"),
    ("run: spec.yaml", "run: spec.yaml\nlate: 7d1s", "`late` is at most seven days"),
    ("run: spec.yaml", "run: spec.yaml\nhandover: 0s", "`handover` is at least 1s"),
    ("run: spec.yaml", "run: spec.yaml\nlate: 5m\nhandover: 301s", "no longer than `late`"),
    ("run: spec.yaml", "run: spec.yaml\nfence: nats", "is not a fence"),
    ("run: spec.yaml", "run: spec.yaml\nfence: repo:../x", "is not a fence"),
    ("run: spec.yaml", "run: spec.yaml\ncatch_up: some", 'catch_up: "some" is not'),
    ("run: spec.yaml", "run: spec.yaml\nuntil: 2027-02-29", "'2027-02-29' is not a moment"),
]


@proves("schedule.form")
def test_what_is_no_schedule_is_refused_with_its_place_and_what_to_write():
    assert _file().schedule == "nightly"
    for old, new, words in REFUSED:
        with pytest.raises(SpecErrors) as refused:
            _file(old, new)
        assert words in str(refused.value), new
        assert refused.value.problems[0].line >= 1
    # What has the form and no sense has the place of `when`.
    with pytest.raises(SpecErrors, match=r"^line 3, column 7: "):
        _when("{every: 1s}")


@proves("schedule.form")
def test_what_a_file_does_not_say_is_what_the_specification_says():
    bare = _file()
    said = (bare.fence, bare.catch_up, bare.overlap, bare.wake)
    assert said == ("auto", "latest", "skip", "auto")
    spans = (bare.late_ms, bare.handover_ms, _when("{on: {run: build}}").storm_ms)
    assert spans == (SLOT_LATE_MS, SLOT_HANDOVER_MS, EVERY_MS_MIN) == (HOUR, 2 * MINUTE, MINUTE)
    told = _file(more="late: 6h\nhandover: 1m30s\n")
    assert (told.late_ms, told.handover_ms) == (6 * HOUR, 90_000)
    assert _when("{on: {run: build}, every: 5m}").storm_ms == 5 * MINUTE


# A moment as people write it, its zone, and the same in UTC; "" for what is none.
MOMENTS = [
    ("2026-11-20", "UTC", "2026-11-20T00:00+00:00"),
    ("2026-11-20T02:30", "UTC", "2026-11-20T02:30+00:00"),
    ("2026-11-20T02:30", "Europe/Berlin", "2026-11-20T01:30+00:00"),
    ("2026-07-20T02:30", "Europe/Berlin", "2026-07-20T00:30+00:00"),
    # What has an offset says it all.
    ("2026-07-20T02:30Z", "Europe/Berlin", "2026-07-20T02:30+00:00"),
    ("2026-07-20T02:30:00-08:00", "Europe/Berlin", "2026-07-20T10:30+00:00"),
    # Nothing is due before everything began.
    ("1960-01-01", "UTC", "1970-01-01T00:00+00:00"),
    ("2026-11-20 02:30", "UTC", ""),
    ("2026-11-20T02", "UTC", ""),
    ("2026-11-20T24:30", "UTC", ""),
    ("2026-11-20T02:30+25:00", "UTC", ""),
    ("2026-13-01", "UTC", ""),
    ("0001-01-01T00:00+10:00", "UTC", ""),
    ("9999-12-31T23:00-10:00", "UTC", ""),
    ("２０２６-11-20", "UTC", ""),
    ("2026-11-20\n", "UTC", ""),
    ("2026-11-20", "Mars/Base", ""),
    ("", "UTC", ""),
]


@proves("schedule.form")
def test_a_moment_is_of_its_offset_or_of_the_zone_and_what_is_none_is_refused():
    for written, zone, utc in MOMENTS:
        if utc:
            assert _iso(moment_ms(written, zone)) == utc
            continue
        with pytest.raises(Malformed):
            moment_ms(written, zone)


@proves("schedule.form", "schedule.edited")
def test_an_order_ends_when_its_schedule_does_within_366_days():
    until = lambda moment: until_ms(_file(more=f"until: {moment}\n"), NOW_MS)  # noqa: E731
    day = lambda ms: _iso(ms)[:10]  # noqa: E731
    assert until_ms(_file(), NOW_MS) == NOW_MS + STATEMENT_LIFE_MS_MAX == NOW_MS + 366 * DAY
    assert until(day(NOW_MS + 2 * DAY)) == (NOW_MS // DAY + 2) * DAY
    assert until(_iso(NOW_MS + MINUTE)) <= NOW_MS + MINUTE
    for ahead_ms in (-400 * DAY, -MINUTE, 0, 367 * DAY):
        with pytest.raises(Malformed, match="at most 366 days"):
            until(_iso(NOW_MS + ahead_ms))


def _any(rng: random.Random) -> str:
    """A well-formed schedule by lot."""
    whens = [
        {"every": "10m", "from": "2026-11-20T02:30"}, {"at": "2026-12-24"}, {"on": {"run": "a"}},
        {"cron": "30 2 * * *", "zone": "Europe/Berlin"}, {"on": {"incident": "disk:*"}},
    ]  # fmt: skip
    more = {
        "late": "6h", "handover": "30s", "catch_up": "all", "overlap": "queue", "wake": "none",
        "until": "2027-11-01", "fence": "owner",
    }  # fmt: skip
    said = {key: value for key, value in more.items() if rng.random() < 0.5}
    keepers = rng.sample([KEEPER, STANDIN, "0" * 64], rng.randint(1, 3))
    return text(when=rng.choice(whens), keepers=keepers, run=rng.choice((SPEC, TOLD, "ä")), **said)


@proves("schedule.evidence")
def test_what_is_signed_of_a_schedule_has_one_spelling_and_says_all_of_it():
    rng = random.Random("schedules/text")
    for _ in range(40):
        said = _any(rng)
        found = opened(said)
        assert text_of(found) == said
        assert msgspec.to_builtins(found) == json.loads(said)
        assert set_args(said) == {"keepers": found.keepers, "text": said}
        for other in (
            f" {said}",
            f"{said}\n",
            said.replace(":", ": ", 1),
            said.replace("a", "\\u0061", 1),
        ):
            with pytest.raises(Malformed):
                opened(other)
        # What is said as if it were not is another spelling.
        with pytest.raises(Malformed):
            opened(json.dumps({**json.loads(said), "catch_up": "latest"}, separators=(",", ":")))


# What is changed in a text that an operator signs; none of it is in the form of a schedule.
UNFORMED = [
    {"muster": 2}, {"schedule": None}, {"keepers": []}, {"keepers": ["hub"]}, {"other": 1},
    {"keepers": [KEEPER, KEEPER]}, {"keepers": [KEEPER.upper()]}, {"keepers": [f"{KEEPER}\n"]},
    {"keepers": [KEEPER] * 17}, {"run": ""}, {"when": {}}, {"when": []}, {"when": {"every": 10}},
    {"when": {"every": "59s"}}, {"when": {"every": "10"}}, {"when": {"every": "x10m"}},
    {"when": {"every": f"{'9' * 5_000}d"}}, {"late": f"{'9' * 5_000}d"}, {"late": "8d"},
    {"late": "1h and 1m"}, {"handover": "1m\n"}, {"fence": "nats"}, {"fence": "repo:../x"},
    {"schedule": "../x"}, {"schedule": "x" * 41}, {"until": "soon"}, {"overlap": "both"},
    {"when": {"on": {"run": "../x"}}}, {"when": {"on": {"incident": "*" * 65}}},
    {"when": {"on": {"run": "a", "outcome": "odd"}}}, {"when": {"at": "9999-12-31T23:59-10:00"}},
    {"when": {"cron": "* " * 61}}, {"when": {"every": "1h", "zone": "../../etc/localtime"}},
]  # fmt: skip


@proves("schedule.form", "schedule.evidence")
def test_what_was_signed_and_has_not_the_form_of_a_file_is_refused():
    assert opened(text()).schedule == "nightly"
    for changes in UNFORMED:
        with pytest.raises(Malformed):
            opened(text(**changes))
    for raw in ("", "[]", "null", "{", "[" * 100_000, '{"muster":1}', "\x00"):
        with pytest.raises(Malformed):
            opened(raw)


@proves("schedule.triggers")
def test_what_runs_a_schedule_is_said_in_words():
    said = [
        ("{every: 10m}", ""),
        ("{on: {run: build}}", "on the end of each run build"),
        ("{on: {run: build, outcome: failed}}", "on the end of each run build that is failed"),
        ('{on: {incident: "disk-*"}}', "on each incident disk-*"),
        ("{on: {memory: deploys/*}}", "on what is remembered of deploys/*"),
        ("{on: {message: {from: 'op:*'}}}", "on each message of op:* to all"),
    ]
    assert [happens(_when(when)) for when, _ in said] == [words for _, words in said]


def _fire(**changes) -> ScheduleFire:
    known = {"schedule": "5" * 64, "slot": SLOT, "local": "", "late_ms": 90_500, "run": ""}
    known |= {"fence": "owner", "nonce": "0" * 32, "missed": 3}
    return ScheduleFire(**{**known, **changes})


@proves("schedule.runs", "schedule.evidence")
def test_the_run_of_a_slot_is_computed_by_whoever_looks_at_it_and_is_no_other_slots():
    schedule = opened(text())
    fire, opening = slot_run(FLEET_ID, schedule, _fire(), "")
    said = f"muster/slot/v1\n{FLEET_ID}\n{'5' * 64}\n{SLOT}".encode()
    assert fire.run == opening.run == hashlib.sha256(said).hexdigest()[:32]
    assert (opening.name, opening.spec, opening.statement) == ("notes", SPEC, "")
    assert (opening.repo, opening.values) == ("", {})
    # Who fired it, how late and behind what fence says nothing of which run it is.
    for same in ({"late_ms": 0}, {"nonce": "1" * 32}, {"fence": "repo:main"}, {"run": "e" * 32}):
        assert slot_run(FLEET_ID, schedule, _fire(**same), "")[0].run == fire.run
    others = [{"slot": SLOT + 1}, {"schedule": "6" * 64}, {"trigger": "7" * 64}]
    runs = {slot_run(FLEET_ID, schedule, _fire(**each), "")[0].run for each in others}
    runs |= {slot_run("e" * 64, schedule, _fire(), "")[0].run, fire.run}
    assert len(runs) == len(others) + 2
    with_repo = opened(text(run=SPEC.replace("phases:", "repo: main\nphases:")))
    assert slot_run(FLEET_ID, with_repo, _fire(), "")[1].repo == "main"
    with pytest.raises(SpecErrors):
        slot_run(FLEET_ID, opened(text(run="no spec")), _fire(), "")


@proves("schedule.runs", "schedule.triggers")
def test_a_run_is_given_what_its_slot_says_where_its_spec_takes_that():
    inputs = ", ".join(f"{name}: none" for name in (*INPUTS, "trigger-text", "other"))
    every = SPEC.replace("phases:", f"inputs: {{{inputs}}}\nphases:")
    when = {"every": "10m", "zone": "Europe/Berlin"}
    schedule = opened(text(run=every, when=when))
    local = occurrences.local(schedule.times, SLOT)
    slot = {
        "slot-time": datetime.fromtimestamp(SLOT / 1000, UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "slot-local": local, "slot-late": "90", "slot-missed": "3",
    }  # fmt: skip
    assert local.endswith("+02:00")
    # No slot of the calendar is given the text of something that happened.
    assert slot_run(FLEET_ID, schedule, _fire(), "$(x)")[1].values == slot
    happened = slot_run(FLEET_ID, schedule, _fire(trigger="7" * 64), "$(x)")[1].values
    assert happened == {**slot, "trigger-text": "$(x)"}
    some = slot_run(FLEET_ID, opened(text(run=TOLD)), _fire(trigger="7" * 64), "")[1].values
    assert some == {"slot-time": slot["slot-time"], "trigger-text": ""}


@proves("schedule.runs")
def test_a_schedule_is_called_by_the_hash_of_its_order():
    assert id_of("an order") == hashlib.sha256(b"an order").hexdigest() != id_of("an order ")
