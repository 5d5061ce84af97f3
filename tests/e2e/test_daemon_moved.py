"""A machine that moved to another address is found again."""

import pytest
from msgspec.structs import replace

from muster.channel import FIRST
from muster.errors import Denied, Unreachable
from muster.node.host.config import config_text
from tests.e2e.fleet import Fleet, Machine, until
from tests.ports import free_port
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(120)]


def move(machine: Machine) -> str:
    """Stop a machine and let it listen at another port; the new address."""
    machine.stop()
    machine.port = free_port()
    address = f"127.0.0.1:{machine.port}"
    config = machine.home.config()
    machine.edit_facts(listen=config.options(FIRST).listen)
    moved = replace(config, channel={FIRST: replace(config.options(FIRST), listen=address)})
    machine.home.put("config.toml", config_text(moved))
    return address


@proves("node.moved-machine-is-found", "node.config-works")
def test_a_hub_that_moved_is_found_by_one_command_and_invites_to_its_new_address():
    with Fleet(["hub", "studio"], deaf=["studio"]) as fleet:
        fleet.start()
        hub, studio = fleet.hub, fleet["studio"]
        address = move(hub)
        hub.start()
        with pytest.raises(Unreachable, match="nothing was changed"):
            studio.ask("reach", {"machine": "hub", "address": f"127.0.0.1:{free_port()}"})
        with pytest.raises((Denied, Unreachable)):
            # Somebody else is there: the machine itself has to prove that it is.
            hub.ask("reach", {"machine": "studio", "address": address})
        found = studio.ask("reach", {"machine": "hub", "address": address})
        assert found == {"machine": "hub", "address": address, "linked": True}
        until(lambda: "hub" in studio.linked(), "studio is linked")
        invited = hub.order("invite", "nas", {"name": "nas"})
        assert f".{address}#nas" in invited["invitation"]
        # It is remembered: also a start later it is looked for there.
        studio.stop()
        studio.start()
        until(lambda: "hub" in studio.linked(), "studio is linked after its start")


@proves("node.moved-machine-is-found")
def test_a_machine_that_moved_is_found_by_what_the_others_tell_of_it():
    with Fleet(["hub", "studio", "nas"], dials={"studio": ["hub"], "nas": ["hub"]}) as fleet:
        fleet.start()
        nas, studio = fleet["nas"], fleet["studio"]
        until(lambda: "nas" in studio.linked(), "studio and nas are linked")
        address = move(nas)
        nas.start()
        until(lambda: "nas" in studio.linked(), "linked again")
        until(
            lambda: (
                next(m for m in studio.ask("machines") if m["name"] == "nas")["facts"]["address"]
                == address
            ),
            "studio knows the new address",
        )
