"""Which other fleets are dealt with: what operators ordered of them, and who ordered nothing."""

from typing import Any

import pytest
from tests.fleet.test_peer import ACME, CARD, DOOR, OUR_CA
from tests.fleet.world import (
    ALICE,
    BUILD,
    FLEET_ID,
    HOUR,
    MALLORY,
    NONCE,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    World,
    small_fleet,
    stream,
)
from tests.promise import proves

from muster import limits
from muster.errors import NotFound
from muster.fleet import kinds
from muster.fleet.machine import Operator
from muster.fleet.peer import ADD, REMOVE, peer_args, read_card, write_card
from muster.fleet.peer_fold import PEER
from muster.fleet.statement import sign_statement
from muster.log.stream import scope_to

BOB = Operator(b"bob".ljust(32))


def order(verb: str, args: dict[str, str], by: Operator, /, **changes: Any) -> str:
    fields: dict[str, Any] = {
        "fleet": FLEET_ID,
        "verb": verb,
        "object": args["fleet"],
        "target": STUDIO.machine,
        "nonce": NONCE,
        "issued_ms": NOW,
        **changes,
    }
    fields.setdefault("until_ms", fields["issued_ms"] + HOUR)
    fields.setdefault("args", args)
    return sign_statement(by.statement, **fields).decode()


def peered(
    name: str = "acme", card: str = CARD, fleet: str = ACME, by: Operator = ALICE, **changes: Any
) -> kinds.FleetPeered:
    statement = order(ADD, peer_args(card, fleet, name), by, **changes)
    return kinds.FleetPeered(card=card, fleet=fleet, name=name, statement=statement)


def unpeered(fleet: str = ACME, by: Operator = ALICE, **changes: Any) -> kinds.FleetUnpeered:
    statement = order(REMOVE, {"fleet": fleet}, by, **changes)
    return kinds.FleetUnpeered(fleet=fleet, statement=statement)


def add(world: World, body: Any, by: Any = STUDIO, now_ms: int = NOW) -> None:
    kind = kinds.FLEET_PEER if isinstance(body, kinds.FleetPeered) else kinds.FLEET_UNPEER
    world.write(by, kind, body, now_ms=now_ms)


@proves("fleet.folds-total")
def test_a_body_of_other_fields_means_nothing():
    world = small_fleet()
    for kind in (kinds.FLEET_PEER, kinds.FLEET_UNPEER):
        world.write(STUDIO, kind, {"fleet": ACME})
    assert world.skipped == ["bad-body", "bad-body"]
    assert not world.roster.peers


@proves("peer.both-operators")
def test_a_fleet_that_an_operator_took_in_is_found_by_its_name_here_and_its_id():
    world = small_fleet()
    with pytest.raises(NotFound, match=r"there are: none \(`muster peer add`\)"):
        world.roster.peer("acme")
    add(world, peered())
    assert world.skipped == []
    fleet, peer = world.roster.peer("acme")
    assert (fleet, peer.name, peer.card) == (ACME, "acme", read_card(CARD))
    assert world.roster.peer(ACME) == (fleet, peer)
    with pytest.raises(NotFound, match="'other'; there are: acme"):
        world.roster.peer("other")
    assert world.roster.called(f"fleet:{ACME}") == "fleet acme"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (peered(verb=REMOVE), "bad-statement"),
        (peered(object=FLEET_ID), "bad-statement"),
        (peered(target=BUILD.machine), "bad-statement"),
        (peered(args=peer_args(CARD, ACME, "other")), "bad-statement"),
        (peered(args=peer_args(CARD + " ", ACME, "acme")), "bad-statement"),
        (peered(issued_ms=NOW + limits.CLOCK_SKEW_MS + 1), "bad-statement"),
        (peered(fleet=ACME[::-1]), "bad-card"),
        (peered(card=write_card(FLEET_ID, OUR_CA, [DOOR])), "bad-card"),
        (peered(card=write_card(FLEET_ID, OUR_CA, [DOOR]), fleet=FLEET_ID), "bad-card"),
        (peered(card=CARD[:-4]), "bad-card"),
        (peered(card=""), "bad-card"),
        (peered(name="Acme"), "bad-body"),
        (peered(card=CARD.ljust(limits.PEER_CARD_CHARS_MAX + 1)), "bad-body"),
        (unpeered(verb=ADD), "bad-statement"),
        (unpeered(object=FLEET_ID), "bad-statement"),
        (unpeered(target=BUILD.machine), "bad-statement"),
        (unpeered(args={"fleet": FLEET_ID}), "bad-statement"),
        (kinds.FleetPeered(CARD, ACME, "acme", "approved by Alice"), "bad-statement"),
        (kinds.FleetUnpeered(ACME, ""), "bad-statement"),
    ],
)
@proves("peer.both-operators", "fleet.folds-total")
def test_what_no_operator_ordered_just_so_takes_in_and_removes_nobody(body: Any, reason: str):
    world = small_fleet()
    add(world, peered("known", issued_ms=NOW - 1))
    before = dict(world.rows)
    add(world, body)
    assert world.skipped == [reason]
    assert world.rows == before


@proves("peer.both-operators", "fleet.other-fleet")
def test_an_order_of_another_fleet_or_changed_behind_its_signature_takes_in_nobody():
    world, good = small_fleet(), peered()
    before = dict(world.rows)
    args = peer_args(CARD, ACME, "acme")
    foreign_order = order(ADD, args, ALICE, fleet=OTHER_AUTHORITY.fleet, object=ACME)
    forged = good.statement.replace(ALICE.key, BOB.key)
    for statement in (foreign_order, forged, good.statement[:-60] + "x" + good.statement[-59:]):
        add(world, kinds.FleetPeered(CARD, ACME, "acme", statement))
    assert world.skipped == ["bad-statement"] * 3
    assert world.rows == before


@proves("peer.both-operators")
def test_an_order_counts_in_the_stream_that_everybody_reads_alone():
    world = small_fleet()
    before = dict(world.rows)
    for body in (peered(), unpeered()):
        add(world, body, by=stream(STUDIO, scope_to(BUILD.machine)))
    assert world.skipped == ["wrong-scope"] * 2
    assert world.rows == before


@proves("peer.both-operators")
def test_who_is_no_operator_takes_in_nobody_and_removes_nobody():
    world = small_fleet()
    add(world, peered(by=MALLORY))
    assert not world.roster.peers
    add(world, peered())
    add(world, unpeered(by=MALLORY, issued_ms=NOW + 1), now_ms=NOW + 1)
    assert set(world.roster.peers) == {ACME}


@proves("peer.both-operators")
def test_an_order_that_is_written_down_late_counts_all_the_same():
    world = small_fleet()
    add(world, peered(), now_ms=NOW + 100 * HOUR)
    assert set(world.roster.peers) == {ACME}


@proves("peer.both-operators")
def test_of_what_one_operator_said_the_last_counts_in_whatever_order_it_comes():
    world = small_fleet()
    add(world, peered("second", issued_ms=NOW + 2), now_ms=NOW + 2)
    before = dict(world.rows)
    add(world, peered("first"))
    add(world, unpeered(issued_ms=NOW + 1), now_ms=NOW + 1)
    add(world, peered("second", issued_ms=NOW + 2), now_ms=NOW + 2)
    assert world.skipped == ["stale"] * 3
    assert world.rows == before
    assert world.roster.peers[ACME].name == "second"


@proves("peer.both-operators")
def test_a_fleet_that_was_removed_comes_back_by_a_later_order_only():
    world = small_fleet()
    add(world, peered())
    add(world, unpeered(issued_ms=NOW + 1), now_ms=NOW + 1)
    assert not world.roster.peers
    (row,) = world.select(PEER)
    assert (row.fleet, row.name, row.card) == (ACME, "", "")
    add(world, peered())
    assert world.skipped == ["stale"]
    assert not world.roster.peers
    add(world, peered("again", issued_ms=NOW + 2), now_ms=NOW + 2)
    assert world.roster.peers[ACME].name == "again"


@proves("peer.both-operators")
def test_at_the_same_moment_a_removal_counts_on_one_machine_and_on_several():
    for first, second in ((peered(), unpeered()), (unpeered(), peered())):
        world = small_fleet()
        add(world, first)
        add(world, second)
        assert not world.roster.peers
    world = small_fleet()
    add(world, peered())
    add(world, unpeered(target=BUILD.machine), by=BUILD)
    assert world.skipped == []
    assert not world.roster.peers


@proves("peer.both-operators")
def test_what_one_operator_took_in_another_removes():
    world = small_fleet()
    world.operator(BOB, "bob")
    add(world, peered())
    add(world, unpeered(by=BOB, issued_ms=NOW + 1), now_ms=NOW + 1)
    assert world.skipped == []
    assert not world.roster.peers
