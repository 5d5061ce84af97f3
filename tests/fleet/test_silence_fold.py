"""Silences and the words of pagers as rows: of each signer's words about one thing the newest."""

from typing import Any

from tests.fleet.world import ALICE, BUILD, FLEET_ID, HOUR, MALLORY, NOW, STUDIO, World, stream
from tests.promise import proves

from muster.fleet import kinds
from muster.fleet.machine import Operator
from muster.fleet.silence_fold import NOTIFY, SILENCE, SILENCE_VERB
from muster.fleet.statement import EVERY_MACHINE, sign_statement
from muster.limits import SILENCE_MS_MAX
from muster.log.stream import FleetId

DAY = 24 * HOUR


def _silence(by: Operator = ALICE, **changes: Any) -> kinds.IncidentSilence:
    """`signed` is what was signed where that is other than what is said."""
    signed, said = changes.pop("signed", {}), {"match": "disk-*", "until": "1h", "why": "new disks"}
    said |= {name: changes.pop(name) for name in said if name in changes}
    issued_ms = changes.pop("issued_ms", NOW)
    known = {
        "fleet": FLEET_ID, "verb": SILENCE_VERB, "object": said["match"], "target": EVERY_MACHINE,
        "args": {**said, **signed}, "nonce": bytes(16), "issued_ms": issued_ms,
        "until_ms": issued_ms + HOUR,
    }  # fmt: skip
    raw = sign_statement(by.statement, **{**known, **changes})
    return kinds.IncidentSilence(statement=raw.decode(), **said)


def _written(*bodies: kinds.IncidentSilence, by: Any = BUILD) -> World:
    world = World()
    for body in bodies:
        world.write(by, kinds.INCIDENT_SILENCE, body)
    return world


# Until when, as a person writes it, from the moment of signing; and the moment that it ends.
UNTIL = [
    ("1h", NOW + HOUR),
    ("30d", NOW + SILENCE_MS_MAX),
    # It is over at once, and so is what an earlier word began.
    ("0s", NOW),
    ("2026-09-24T12:00", 1_790_251_200_000),
    ("2026-09-24T12:00+02:00", 1_790_244_000_000),
    ("1960-01-01", 0),
]


@proves("notify.silenced")
def test_a_silence_is_of_its_signer_until_the_moment_that_was_signed():
    for until, end_ms in UNTIL:
        world = _written(_silence(until=until))
        (row,) = world.select(SILENCE)
        assert row[1:] == ("disk-*", ALICE.key, NOW, end_ms, "new disks"), until
        assert world.skipped == []
    # Whether its key may, the roster says: the row is of whoever signed.
    (row,) = _written(_silence(MALLORY)).select(SILENCE)
    assert row.signer == MALLORY.key


# What is said, or signed, otherwise; and why that silences nothing.
REFUSED = [
    ({"until": "30d1s"}, "too-long"),
    ({"until": "2027-09-24"}, "too-long"),
    ({"until": "9999-12-31T23:59-10:00"}, "too-long"),
    ({"until": "soon"}, "bad-body"),
    ({"until": "2026-02-30"}, "bad-body"),
    ({"signed": {"why": "other"}}, "other-incident"),
    ({"signed": {"until": "2h"}}, "other-incident"),
    ({"signed": {"match": "*"}}, "other-incident"),
    ({"object": "*"}, "other-incident"),
    ({"verb": "acknowledge"}, "other-incident"),
    ({"fleet": FleetId("e" * 64)}, "bad-statement"),
]


@proves("notify.silenced")
def test_what_was_not_signed_just_so_silences_nothing():
    for changes, reason in REFUSED:
        world = _written(_silence(**changes))
        assert (world.skipped, [*world.select(SILENCE)]) == ([reason], []), changes
    whole = _silence()
    forged = _silence(MALLORY).statement.replace(MALLORY.key, ALICE.key)
    for statement in ("", "no statement", "ä", forged):
        body = kinds.IncidentSilence(whole.match, statement, whole.until, whole.why)
        assert _written(body).skipped == ["bad-statement"]
    world = World()
    world.write(BUILD, kinds.INCIDENT_SILENCE, None, raw_body=b'{"match":"disk"}')
    world.write(BUILD, kinds.INCIDENT_SILENCE, whole, erased=True)
    assert world.skipped == ["bad-body", "no-body"]


@proves("notify.silenced")
def test_of_a_signers_words_about_one_thing_the_newest_counts_in_whatever_order_they_come():
    long, brief = _silence(until="8h"), _silence(until="0s", issued_ms=NOW + 1)
    for order, skipped in (((long, brief), []), ((brief, long), ["stale"])):
        world = _written(*order)
        (row,) = world.select(SILENCE)
        assert (row.issued_ms, row.until_ms) == (NOW + 1, NOW + 1)
        assert world.skipped == skipped
    # Passed on once more it is no other word, and says nothing in another one's place.
    assert _written(long, long).skipped == ["stale"]
    other, hers = _silence(match="lag", until="2h"), _silence(MALLORY, until="3h")
    world = _written(long, other, hers)
    assert sorted(row.until_ms - NOW for row in world.select(SILENCE)) == [
        2 * HOUR, 3 * HOUR, 8 * HOUR,
    ]  # fmt: skip
    # Each machine that passes one on has a row of its own.
    world.write(STUDIO, kinds.INCIDENT_SILENCE, brief)
    rows = [
        row for row in world.select(SILENCE) if row.fits == "disk-*" and row.signer == ALICE.key
    ]
    assert {row.stream: row.issued_ms for row in rows} == {
        stream(BUILD): NOW, stream(STUDIO): NOW + 1,
    }  # fmt: skip


@proves("notify.trusted-pagers", "notify.steps")
def test_that_people_were_told_is_the_word_of_the_machine_that_says_so():
    world = World()
    said = [
        (BUILD, kinds.IncidentNotify("disk", 1, "room", True, "s1", "", "warning", NOW - 9)),
        (BUILD, kinds.IncidentNotify("disk", 2, "phone", False, "s2", "no route")),
        (STUDIO, kinds.IncidentNotify("disk", 1, "mail", True, "s3")),
        # Of one step what was said last.
        (BUILD, kinds.IncidentNotify("disk", 2, "phone", True, "s4")),
    ]
    for n, (by, body) in enumerate(said):
        world.write(by, kinds.INCIDENT_NOTIFY, body, now_ms=NOW + n)
    assert sorted(row[1:] for row in world.select(NOTIFY) if row.stream == stream(BUILD)) == [
        ("disk", 1, "room", 1, "", "s1", NOW, "warning", NOW - 9),
        ("disk", 2, "phone", 1, "", "s4", NOW + 3, "", 0),
    ]
    assert [row.serial for row in world.select(NOTIFY) if row.stream == stream(STUDIO)] == ["s3"]
    world.write(BUILD, kinds.INCIDENT_NOTIFY, None, raw_body=b'{"key":"disk"}')
    assert world.skipped == ["bad-body"]
