"""Whom a word means: one, or a refusal that says what to type."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    LAPTOP,
    MALLORY,
    NOW,
    STUDIO,
    World,
    record,
    revocation,
    small_fleet,
)
from tests.promise import proves

from muster.errors import Conflict, NotFound
from muster.fleet import kinds
from muster.fleet.named import ID_CHARS_MIN, Named, everyone, meant, taken
from muster.fleet.record import LEFT, sign_revocation
from muster.fleet.roster import Roster


def revoke(world: World) -> None:
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=revocation(LAPTOP)))


@proves("fleet.revoke-whom")
def test_a_name_or_an_id_or_its_beginning_means_the_one_that_has_it():
    roster = small_fleet().roster
    build, alice = Named("machine", BUILD.machine, "build"), Named("operator", ALICE.key, "alice")
    for text in ("build", BUILD.machine, BUILD.machine[:ID_CHARS_MIN]):
        assert meant(roster, text) == meant(roster, text, "machine") == build
    for text in ("alice", ALICE.key, ALICE.key[:20]):
        assert meant(roster, text) == meant(roster, text, "operator") == alice
    assert [each.name for each in everyone(roster)][-1] == "alice"
    assert str(build) == f"machine build ({BUILD.machine[:12]}…)"
    assert (taken(roster, "build"), taken(roster, "nas")) == (build, None)


@pytest.mark.parametrize(
    "text",
    ["", "Build", "build ", "nas", BUILD.machine[: ID_CHARS_MIN - 1], BUILD.machine[:20].upper(),
     BUILD.machine + "0", BUILD.machine[:12] + "\n", BUILD.machine[1:13], "٣" * 8, "\x1b[2J"],
)  # fmt: skip
@proves("fleet.revoke-whom")
def test_a_word_that_nobody_is_called_means_nobody_and_the_refusal_names_those_there_are(text: str):
    with pytest.raises(NotFound, match="there are alice, build, laptop, studio") as refused:
        meant(small_fleet().roster, text)
    assert str(refused.value).isprintable()


@proves("fleet.revoke-whom")
def test_of_the_other_sort_nobody_is_meant():
    roster = small_fleet().roster
    with pytest.raises(NotFound, match="no operator is called 'build'; there are alice"):
        meant(roster, "build", "operator")
    with pytest.raises(NotFound, match="no machine is called"):
        meant(roster, ALICE.key, "machine")
    with pytest.raises(NotFound, match="no machine or operator is called 'x'; there are none"):
        meant(Roster(FLEET_ID), "x")
    with pytest.raises(NotFound) as refused:
        meant(roster, "x" * 100_000)
    assert len(str(refused.value)) < 200


@proves("fleet.revoke-whom")
def test_a_word_that_could_be_a_machine_and_an_operator_is_refused_with_both_ways():
    world = small_fleet()
    world.operator(MALLORY, "build")
    with pytest.raises(Conflict, match="say which with `--machine` or `--operator`; nothing was"):
        meant(world.roster, "build")
    assert meant(world.roster, "build", "machine").key == BUILD.machine
    assert meant(world.roster, "build", "operator").key == MALLORY.key


@proves("fleet.revoke-whom")
def test_two_of_one_sort_are_told_apart_by_their_ids():
    called: Any = SimpleNamespace(name="nas")
    ids = ["aaaabbbb" + "0" * 56, "aaaabbbb" + "1" * 56]
    roster = Roster(FLEET_ID, machines=dict.fromkeys(ids, called))  # type: ignore[misc]
    for text in ("nas", "aaaabbbb"):
        with pytest.raises(Conflict, match="with `aaaabbbb00000000` or `aaaabbbb11111111`"):
            meant(roster, text)
    assert meant(roster, "aaaabbbb1").key == ids[1]


@proves("fleet.revoke-whom", "fleet.tombstone")
def test_who_was_revoked_is_meant_by_nobody_and_by_name_and_id_the_refusal_says_so():
    world = small_fleet()
    revoke(world)
    for text in ("laptop", LAPTOP.machine, LAPTOP.machine[:ID_CHARS_MIN]):
        with pytest.raises(Conflict, match="is revoked already: its key counts no more"):
            meant(world.roster, text)
    with pytest.raises(NotFound, match="there are alice"):
        meant(world.roster, "laptop", "operator")
    with pytest.raises(NotFound):
        meant(world.roster, LAPTOP.machine[: ID_CHARS_MIN - 1])
    # Its name is free, and then means the machine that has it now.
    another = record(type(LAPTOP)(b"another".ljust(32)), "laptop")
    world.enrol(another)
    assert meant(world.roster, "laptop").key == another.machine


@proves("fleet.revoke-whom")
def test_a_machine_that_left_in_order_is_said_to_have_left():
    world = small_fleet()
    raw = sign_revocation(
        AUTHORITY, of="machine", key=LAPTOP.machine, name="laptop", cuts={}, reason=LEFT,
        issued_ms=NOW,
    )  # fmt: skip
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=raw.decode()))
    with pytest.raises(Conflict, match="laptop left the fleet"):
        meant(world.roster, "laptop")


@proves("fleet.renamed")
def test_a_name_that_a_machine_had_leads_to_the_one_that_it_has():
    world = small_fleet()
    # The machine itself still tells its older record, from when it was enrolled.
    world.write(BUILD, kinds.MACHINE_OPEN, kinds.MachineOpen(record=BUILD_RECORD.raw.decode()))
    world.enrol(record(BUILD, "forge", serial=2))
    with pytest.raises(NotFound, match="no machine is called build any more: it is forge now"):
        meant(world.roster, "build")
    with pytest.raises(NotFound, match="no operator is called 'build'"):
        meant(world.roster, "build", "operator")
