"""Orders: what a statement allows, and everything it does not."""

from typing import Any

import pytest
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
)
from tests.promise import proves

from muster import limits
from muster.errors import Denied, Forged, Malformed
from muster.fleet import kinds
from muster.fleet.folds import DENIAL, ORDER, OrderRow
from muster.fleet.statement import check_order, open_statement, sign_statement

ARGS = {"command": "make test", "needs": {"label": "tests"}}


def order(who: Any = ALICE, **changes: Any) -> bytes:
    fields: dict[str, Any] = {
        "fleet": FLEET_ID,
        "verb": "run",
        "object": "project",
        "target": BUILD.machine,
        "args": ARGS,
        "nonce": NONCE,
        "issued_ms": NOW,
        "until_ms": NOW + HOUR,
    }
    return sign_statement(who.statement, **{**fields, **changes})


def check(raw: bytes, **changes: Any) -> None:
    fields: dict[str, Any] = {
        "verb": "run",
        "object": "project",
        "machine": BUILD.machine,
        "args": ARGS,
        "now_ms": NOW + 1000,
    }
    check_order(open_statement(raw, FLEET_ID), **{**fields, **changes})


@proves("fleet.statement-bounds")
def test_an_order_counts_for_what_it_says():
    check(order())
    check(order(target="fleet"))
    check(order(target="fleet"), machine=STUDIO.machine)
    assert open_statement(order(), FLEET_ID).operator == ALICE.key


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"verb": "cancel"}, Denied, "is for run project, not for cancel"),
        ({"object": "other"}, Denied, "not for run other"),
        ({"machine": STUDIO.machine}, Denied, "not for this one"),
        ({"args": {**ARGS, "command": "make all"}}, Forged, "not the ones that were signed"),
        ({"now_ms": NOW + HOUR + 1}, Denied, "expired 0 s ago"),
        ({"now_ms": NOW - limits.CLOCK_SKEW_MS - 1}, Denied, "clocks"),
    ],
)
@proves("fleet.statement-bounds")
def test_an_order_counts_for_nothing_else(
    changes: dict[str, Any], error: type[Exception], sentence: str
):
    with pytest.raises(error, match=sentence):
        check(order(), **changes)


@proves("fleet.statement-bounds")
def test_an_order_is_good_up_to_its_last_millisecond():
    check(order(), now_ms=NOW + HOUR)
    check(order(), now_ms=NOW - limits.CLOCK_SKEW_MS)


@proves("fleet.other-fleet", "fleet.statement-bounds")
def test_an_order_of_another_fleet_is_refused():
    raw = order(fleet=OTHER_AUTHORITY.fleet)
    with pytest.raises(Forged, match="another fleet"):
        open_statement(raw, FLEET_ID)


@proves("fleet.statement-bounds")
def test_an_order_in_alices_name_by_another_key_is_refused():
    message = order(MALLORY).replace(MALLORY.key.encode(), ALICE.key.encode()).rsplit(b"\n", 2)[0]
    forged = message + b"\n" + MALLORY.statement.sign(message).hex().encode() + b"\n"
    with pytest.raises(Forged, match="not signed by the key it needs"):
        open_statement(forged, FLEET_ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"target": "studio"},
        {"target": "../etc"},
        {"until_ms": NOW},
        {"until_ms": NOW + limits.STATEMENT_LIFE_MS_MAX + 1},
        {"verb": "run me"},
        {"object": ""},
        {"nonce": b"short"},
        {"args": {"x": 1.5}},
    ],
)
@proves("fleet.statement-bounds")
def test_a_statement_that_nobody_could_check_is_never_signed(changes: dict[str, Any]):
    with pytest.raises(Malformed):
        order(**changes)


def taken(world: World) -> list[OrderRow]:
    return list(world.select(ORDER))


def obey(raw: bytes) -> kinds.OrderTake:
    return kinds.OrderTake(grant="0" * 64, statement=raw.decode())


@proves("fleet.statement-once")
def test_an_order_shown_again_does_nothing():
    world = small_fleet()
    world.write(BUILD, kinds.ORDER_TAKE, obey(order()))
    before = taken(world)
    assert [(row.operator, row.verb) for row in before] == [(ALICE.key, "run")]
    world.write(BUILD, kinds.ORDER_TAKE, obey(order()), now_ms=NOW + 1)
    assert world.skipped == ["replayed"]
    assert taken(world) == before


@proves("fleet.statement-once")
def test_another_order_under_a_spent_nonce_does_nothing():
    world = small_fleet()
    world.write(BUILD, kinds.ORDER_TAKE, obey(order()))
    before = taken(world)
    world.write(BUILD, kinds.ORDER_TAKE, obey(order(args={"command": "rm"})))
    assert world.skipped == ["replayed"]
    assert taken(world) == before


@proves("fleet.statement-once")
def test_an_order_to_all_is_taken_once_by_each_machine():
    world = small_fleet()
    everyone = order(target="fleet")
    for machine in (STUDIO, BUILD):
        world.write(machine, kinds.ORDER_TAKE, obey(everyone))
    assert world.skipped == []
    assert len(taken(world)) == 2


@proves("fleet.statement-once")
def test_an_order_whose_taking_is_stamped_late_is_spent_all_the_same():
    """The stamps of a machine whose clock was set back run ahead of the clock it decides by."""
    world = small_fleet()
    world.write(BUILD, kinds.ORDER_TAKE, obey(order()), now_ms=NOW + HOUR + 1)
    assert world.skipped == []
    assert [row.t_ms for row in taken(world)] == [NOW + HOUR + 1]
    world.write(BUILD, kinds.ORDER_TAKE, obey(order()), now_ms=NOW + HOUR + 2)
    assert world.skipped == ["replayed"]


@pytest.mark.parametrize(
    ("raw", "at_ms", "reason"),
    [
        (order(target=STUDIO.machine), NOW, "other-target"),
        (order()[:-2] + b"0\n", NOW, "bad-statement"),
        (b"approved by Alice", NOW, "bad-statement"),
    ],
)
@proves("fleet.statement-bounds", "fleet.folds-total")
def test_an_order_that_does_not_hold_is_not_taken(raw: bytes, at_ms: int, reason: str):
    world = small_fleet()
    world.write(BUILD, kinds.ORDER_TAKE, obey(raw), now_ms=at_ms)
    assert world.skipped == [reason]
    assert taken(world) == []


@proves("fleet.default-deny")
def test_a_refusal_is_kept_with_who_asked_and_why():
    world = small_fleet()
    body = kinds.OrderDeny(
        by=MALLORY.key, verb="run", object="project", reason="no grant", statement=""
    )
    world.write(BUILD, kinds.ORDER_DENY, body)
    (row,) = world.select(DENIAL)
    assert (row.asker, row.verb, row.reason) == (MALLORY.key, "run", "no grant")


@proves("fleet.default-deny", "fleet.folds-total")
def test_a_refusal_of_anything_however_odd_is_kept():
    world = small_fleet()
    odd = kinds.OrderDeny(by="", verb="rm -rf /", object="ä\n\x00", reason="no", statement="x")
    world.write(BUILD, kinds.ORDER_DENY, odd)
    assert world.skipped == []
    (row,) = world.select(DENIAL)
    assert (row.verb, row.object) == ("rm -rf /", "ä\n\x00")
