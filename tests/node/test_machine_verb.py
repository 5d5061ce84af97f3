"""A machine gets another name: by its own word, and by the authority's."""

from typing import Any

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.errors import NotFound
from muster.fleet.machine import Identity
from muster.fleet.named import meant
from muster.fleet.record import binding_of, sign_binding
from muster.node.incarnations.own_incarnation import FreshCertificates


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    return world


def rename(world: Cores, machine: Any, binding: bytes, signer: Any = None) -> Any:
    args = {"machine": machine.id, "binding": binding.decode()}
    statement = world.sign("machine.rename", machine.id, world["hub"], args, signer=signer)
    answer = world["hub"].call("machine.rename", args, statement=statement)
    world.pass_ms(2_000)
    return answer


def word_of(world: Cores, machine: Any, name: str) -> bytes:
    return sign_binding(machine.identity, world["hub"].core.membership.fleet, name)


@proves("fleet.renamed")
def test_a_machine_that_got_another_name_is_called_so_everywhere_and_shows_it(world):
    studio = world["studio"]
    assert rename(world, studio, word_of(world, studio, "forge"))["ok"]
    for at in ("hub", "studio"):
        roster = world[at].core.roster
        assert roster.find("forge").machine == studio.id
        assert roster.find("forge").serial == 2
        with pytest.raises(NotFound, match="named studio any more: it is forge"):
            roster.find("studio")
        with pytest.raises(NotFound, match="called studio any more: it is forge"):
            meant(roster, "studio")
    assert studio.core.name == "forge"
    assert [each for each in studio.effects if isinstance(each, FreshCertificates)]


@proves("fleet.renamed")
def test_a_name_that_was_left_is_another_machines_to_take(world):
    studio, laptop = world["studio"], world["laptop"]
    assert rename(world, studio, word_of(world, studio, "forge"))["ok"]
    assert rename(world, laptop, word_of(world, laptop, "studio"))["ok"]
    roster = world["hub"].core.roster
    assert roster.find("studio").machine == laptop.id
    assert "studio" not in roster.former


@proves("fleet.rename-needs-its-word")
@pytest.mark.parametrize("what", ["another's word", "other keys", "taken", "operator", "reserved"])
def test_a_name_is_put_upon_no_machine_and_none_is_had_twice(world, what):
    studio, laptop = world["studio"], world["laptop"]
    bindings = {
        "another's word": word_of(world, laptop, "forge"),
        "other keys": sign_binding(
            Identity(b"somebody else".ljust(32)), world["hub"].core.membership.fleet, "forge"
        ),
        "taken": word_of(world, studio, "laptop"),
        "operator": word_of(world, studio, "alice"),
        "reserved": None,
    }
    binding = bindings[what]
    if binding is None:
        # It signed its present name: nothing is to be changed.
        binding = binding_of(studio.core.roster.machine(studio.id))
    answer = rename(world, studio, binding)
    assert not answer["ok"]
    assert world["hub"].core.roster.machine(studio.id).serial == 1


@proves("fleet.rename-needs-its-word")
def test_who_is_no_operator_renames_nothing(world):
    studio = world["studio"]
    answer = rename(world, studio, word_of(world, studio, "forge"), signer=studio.identity.root)
    assert answer["error"]["kind"] == "Denied"
    assert world["hub"].core.roster.machine(studio.id).name == "studio"
