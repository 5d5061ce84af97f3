"""What outlives a stream that forked: what its signature says, of whom that counts."""

import pytest
from tests.fleet.world import (
    ALICE,
    BUILD,
    FLEET_ID,
    LAPTOP,
    MALLORY,
    NONCE,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    revocation,
    small_fleet,
    take,
)  # fmt: skip
from tests.promise import proves

from muster.fleet import folds, kinds
from muster.fleet.permanent import permanent, removals
from muster.fleet.statement import sign_statement


def order(by=ALICE, target=BUILD.machine):
    raw = sign_statement(
        by.statement, fleet=FLEET_ID, verb="run", object="notes", target=target, args={},
        nonce=NONCE, issued_ms=NOW, until_ms=NOW + 1000,
    )  # fmt: skip
    return kinds.OrderTake(grant="0" * 64, statement=raw.decode())


@proves("fleet.what-lasts")
def test_a_revocation_lasts_for_its_authoritys_signature_alone():
    world = small_fleet()
    raw = revocation(LAPTOP)
    told = world.write(BUILD, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=raw))
    found = permanent(told, world.roster, STUDIO.machine)
    assert found is not None
    assert (found.table, found.row, found.own) == (folds.REVOKED, {"revocation": raw}, False)
    forged = kinds.MachineRevoke(revocation=revocation(LAPTOP, authority=OTHER_AUTHORITY))
    told = world.write(BUILD, kinds.MACHINE_REVOKE, forged)
    assert permanent(told, world.roster, STUDIO.machine) is None


@proves("fleet.what-lasts")
def test_a_grant_that_an_operator_took_stays_taken_and_nobody_elses_word_lasts():
    world = small_fleet()
    for by, what, lasts in (
        (ALICE, take("1" * 64), True),
        (MALLORY, take("1" * 64, MALLORY), False),
        (ALICE, kinds.GrantTake(id="2" * 64, statement=take("1" * 64).statement), False),
    ):
        told = world.write(BUILD, kinds.GRANT_TAKE, what)
        found = permanent(told, world.roster, STUDIO.machine)
        assert (found is not None) == lasts
        if found:
            assert found.signer == by.statement.public.hex()
            assert found.row == {"id": "1" * 64, "taker": found.signer}


@proves("fleet.what-lasts")
def test_an_order_that_this_machine_obeyed_stays_spent_until_its_end():
    world = small_fleet()
    told = world.write(BUILD, kinds.ORDER_TAKE, order())
    found = permanent(told, world.roster, BUILD.machine)
    assert found is not None
    assert (found.own, found.until_ms, found.row["nonce"]) == (True, NOW + 1000, NONCE.hex())
    assert permanent(told, world.roster, STUDIO.machine) is None, "others' orders are theirs"


@proves("fleet.what-lasts")
@pytest.mark.parametrize(
    "taken",
    [
        order(by=MALLORY), order(target=STUDIO.machine),
        kinds.OrderTake(grant="0" * 64, statement="no order"),
    ],
)  # fmt: skip
def test_an_order_of_nobody_or_for_another_machine_needs_no_remembering(taken):
    world = small_fleet()
    told = world.write(BUILD, kinds.ORDER_TAKE, taken)
    assert permanent(told, world.roster, BUILD.machine) is None


@proves("fleet.removal-lasts")
def test_a_member_that_was_put_out_stays_out_by_its_keepers_own_word():
    world = small_fleet()
    removal = kinds.GroupRemove(machine=LAPTOP.machine, name="ideas")
    told = world.write(BUILD, kinds.GROUP_REMOVE, removal)
    found = permanent(told, world.roster, BUILD.machine)
    assert found is not None
    assert (found.own, found.since) == (True, told.header.t)
    assert found.row == {"name": "ideas", "machine": LAPTOP.machine}
    assert permanent(told, world.roster, STUDIO.machine) is None
    erased, other = told.without_body(), world.write(BUILD, kinds.ORDER_TAKE, order())
    left_out = removals([other, erased, told])
    assert [(each.name, each.machine) for each in left_out] == [("ideas", LAPTOP.machine)]


@proves("fleet.what-lasts")
def test_what_gives_or_cannot_be_read_does_not_last():
    world = small_fleet()
    gives = kinds.GroupAdd(machine=LAPTOP.machine, name="ideas")
    assert (
        permanent(world.write(BUILD, kinds.GROUP_ADD, gives), world.roster, BUILD.machine) is None
    )
    odd = world.write(BUILD, kinds.GROUP_REMOVE, None, raw_body=b"[]")
    assert permanent(odd, world.roster, BUILD.machine) is None
