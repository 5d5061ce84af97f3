"""The end of an operator's key: what it signed before stays, what it signs later never counts."""

import itertools
from typing import Any

import msgspec
import pytest
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    FLEET_ID,
    HOUR,
    LAPTOP,
    MALLORY,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    World,
    give,
    small_fleet,
    stream,
    take,
)
from tests.promise import proves

from muster.errors import Denied, Malformed
from muster.fleet import folds, kinds
from muster.fleet.acknowledgement import VERB, name_of
from muster.fleet.document import document_id
from muster.fleet.grant import Grant
from muster.fleet.machine import Authority, Operator
from muster.fleet.operator_end import End, open_end, sign_end
from muster.fleet.permanent import permanent
from muster.fleet.record import sign_revocation
from muster.fleet.statement import EVERY_MACHINE, sign_statement
from muster.limits import OPERATOR_END_BYTES_MAX, OPERATOR_END_NAMES_MAX
from muster.log import canon

BOB = Operator(b"bob".ljust(32))
HOLDER = Operator(b"holder".ljust(32)).key


def shut(who: Operator = BOB) -> kinds.MachineRevoke:
    raw = sign_revocation(
        AUTHORITY, of="operator", key=who.key, name="bob", cuts={}, reason="left", issued_ms=NOW
    )
    return kinds.MachineRevoke(raw.decode())


def end(
    *taken: str, forks: tuple[str, ...] = (), who: Operator = BOB, by: Authority = AUTHORITY
) -> kinds.OperatorEnd:
    raw = sign_end(by, operator=who.key, taken=taken, forks=forks, issued_ms=NOW)
    return kinds.OperatorEnd(raw.decode())


def granted(verb: str) -> kinds.GrantGive:
    """What Alice gave to somebody who is no operator."""
    return give(Grant("*", HOLDER, NOW + HOUR, verb), nonce=verb.encode().ljust(16))


GIVEN = {verb: granted(verb) for verb in ("send", "run")}
ID = {verb: document_id(body.statement.encode()) for verb, body in GIVEN.items()}


def world_with(*writes: tuple[Any, str, Any]) -> World:
    """Alice gave two grants; Bob is an operator, too; and then this was written."""
    world = small_fleet()
    world.operator(BOB, "bob")
    for body in GIVEN.values():
        world.write(STUDIO, kinds.GRANT_GIVE, body)
    for by, kind, body in writes:
        world.write(by, kind, body)
    return world


def may(world: World, verb: str) -> bool:
    try:
        world.roster.decide(HOLDER, verb, "all", NOW)
    except Denied:
        return False
    return True


@proves("fleet.operator-end")
def test_what_was_taken_before_stays_taken_and_what_the_key_takes_later_is_nothing():
    writes = [
        (STUDIO, kinds.GRANT_TAKE, take(ID["send"], BOB)),
        (STUDIO, kinds.MACHINE_REVOKE, shut()),
        (LAPTOP, kinds.OPERATOR_END, end(ID["send"])),
        (BUILD, kinds.GRANT_TAKE, take(ID["run"], BOB)),
    ]
    rosters = []
    for order in itertools.permutations(writes):
        world = world_with(*order)
        assert world.skipped == []
        assert (may(world, "send"), may(world, "run")) == (False, True)
        rosters.append((world.roster.grants, world.roster.ended))
    assert all(each == rosters[0] for each in rosters)


@proves("fleet.operator-end")
def test_a_key_that_was_revoked_without_an_end_keeps_what_it_took():
    """So it was for every revocation of an older version, and so it is until an end is here."""
    taken = [(BUILD, kinds.GRANT_TAKE, take(ID[verb], BOB)) for verb in GIVEN]
    world = world_with(*taken, (STUDIO, kinds.MACHINE_REVOKE, shut()))
    assert (may(world, "send"), may(world, "run")) == (False, False)
    world.write(STUDIO, kinds.OPERATOR_END, end(ID["run"]))
    assert (may(world, "send"), may(world, "run")) == (True, False)
    world.write(STUDIO, kinds.OPERATOR_END, end(ID["send"]))
    assert (may(world, "send"), may(world, "run")) == (False, False), "all ends of a key count"


@proves("fleet.operator-end")
def test_only_the_authority_ends_a_key_and_only_one_that_was_revoked():
    taken = (STUDIO, kinds.GRANT_TAKE, take(ID["send"], BOB))
    world = world_with(taken, (BUILD, kinds.OPERATOR_END, end()))
    assert not may(world, "send"), "an operator whose key counts has no end"
    world = world_with(
        taken,
        (STUDIO, kinds.MACHINE_REVOKE, shut()),
        (BUILD, kinds.OPERATOR_END, end(by=OTHER_AUTHORITY)),
        (BUILD, kinds.OPERATOR_END, kinds.OperatorEnd("nonsense")),
        (BUILD, kinds.OPERATOR_END, end(who=ALICE)),
    )
    assert world.skipped == ["bad-record", "bad-record"]
    assert not may(world, "send")
    assert world.roster.ended == {}


def seen(by: Operator, common: int = 3) -> kinds.IncidentAcknowledge:
    of = kinds.Fork(common, str(stream(LAPTOP)))
    fork = name_of(of)
    raw = sign_statement(
        by.statement, fleet=FLEET_ID, verb=VERB, object=fork, target=EVERY_MACHINE,
        args={"incident": fork, "note": "seen"}, nonce=bytes(16), issued_ms=NOW,
        until_ms=NOW + HOUR,
    )  # fmt: skip
    return kinds.IncidentAcknowledge("seen", of, raw.decode())


@proves("fleet.operator-end")
def test_what_was_acknowledged_before_stays_so_and_nothing_else_is_acknowledged_by_the_key():
    first, second = (name_of(kinds.Fork(at, str(stream(LAPTOP)))) for at in (3, 5))
    world = world_with(
        (STUDIO, kinds.INCIDENT_ACKNOWLEDGE, seen(BOB)),
        (STUDIO, kinds.MACHINE_REVOKE, shut()),
        (BUILD, kinds.INCIDENT_ACKNOWLEDGE, seen(BOB, 5)),
    )
    rows = list(world.select(folds.ACKNOWLEDGED))
    assert {(r.incident, r.signer) for r in rows} == {(first, BOB.key), (second, BOB.key)}
    assert world.roster.acknowledged(BOB.key, first)
    assert world.roster.acknowledged(BOB.key, second), "as long as nobody said what counts"
    world.write(STUDIO, kinds.OPERATOR_END, end(forks=(first,)))
    assert world.roster.acknowledged(BOB.key, first)
    assert not world.roster.acknowledged(BOB.key, second)
    assert world.roster.acknowledged(ALICE.key, second), "another operator's word counts"
    assert not world.roster.acknowledged(MALLORY.key, first)


@proves("fleet.operator-end")
def test_an_end_outlasts_the_stream_that_told_of_it_and_nobody_repeats_what_it_does_not_name():
    world = world_with((STUDIO, kinds.MACHINE_REVOKE, shut()))
    told = world.write(LAPTOP, kinds.OPERATOR_END, end(ID["send"]))
    kept = permanent(told, world.roster, STUDIO.machine)
    assert kept is not None
    assert [r.document for r in world.select(kept.table, **kept.row)] == [end(ID["send"]).end]
    forged = world.write(LAPTOP, kinds.OPERATOR_END, end(by=OTHER_AUTHORITY))
    assert permanent(forged, world.roster, STUDIO.machine) is None
    bodies = {
        (kinds.GRANT_TAKE, True): take(ID["send"], BOB),
        (kinds.GRANT_TAKE, False): take(ID["run"], BOB),
        (kinds.INCIDENT_ACKNOWLEDGE, False): seen(BOB),
    }
    for (kind, lasts), body in bodies.items():
        entry = world.write(LAPTOP, kind, body)
        assert (permanent(entry, world.roster, STUDIO.machine) is not None) is lasts


@proves("fleet.operator-end")
def test_an_end_names_as_much_as_one_entry_carries():
    names = [f"{number:064x}" for number in range(OPERATOR_END_NAMES_MAX + 5)]
    body = end(*names, forks=tuple(names))
    opened = open_end(body.end.encode(), FLEET_ID)
    assert (len(opened.taken), len(opened.forks)) == (OPERATOR_END_NAMES_MAX,) * 2
    assert len(body.end) < OPERATOR_END_BYTES_MAX
    assert len(canon.encode(msgspec.to_builtins(body))) < 1 << 16
    too_many = msgspec.structs.replace(opened, taken=tuple(names))
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(msgspec.to_builtins(too_many), End)
    with pytest.raises(Malformed):
        open_end(body.end.encode() + b" " * OPERATOR_END_BYTES_MAX, FLEET_ID)


@proves("fleet.operator-end")
def test_the_rows_of_a_stranger_about_ends_are_none():
    world = world_with((BUILD, kinds.OPERATOR_END, end(who=MALLORY)))
    assert list(world.select(folds.ENDED))
    assert world.roster.ended == {}
