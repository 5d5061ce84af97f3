"""What a person is shown of what is wrong, when a member says that everything is."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.fleet import kinds as fleet_kinds
from muster.log import canon
from muster.log.stream import FLEET
from muster.node.incidents import Noticed
from muster.node.replica.forks import Regressed


def say(machine: One, key: str, severity: str, title: str) -> None:
    body = canon.encode(fleet_kinds.IncidentOpen(key, severity, title))  # type: ignore[arg-type]
    with machine.core.store.transaction():
        machine.core.append(fleet_kinds.INCIDENT_OPEN, body)
        machine.core.store.seal_dirty(machine.core.membership.signer("seal"))


@pytest.fixture
def hub() -> One:
    """A hub and a laptop with one thing that is wrong each, and a studio that cries wolf."""
    world = Cores("hub", "studio", "laptop")
    world.link("hub", "studio")
    world.link("hub", "laptop")
    world.pass_ms(1_000)
    say(world["hub"], "z-own", "warning", "the hub's own")
    say(world["laptop"], "z-other", "warning", "the laptop's")
    for number in range(60):
        say(world["studio"], f"a-{number}", "critical", f"wolf {number}")
    world.pass_ms(1_000)
    return world["hub"]


def titles(found: list[dict[str, Any]]) -> set[str]:
    return {str(each["title"]) for each in found}


@proves("cli.incidents-are-fair")
def test_a_machine_that_says_much_crowds_nobody_out_of_status(hub):
    shown = hub.call("status", {})["value"]["incidents"]
    assert len(shown) == 5
    assert {"the hub's own", "the laptop's"} <= titles(shown)
    assert {each["machine"] for each in shown} == {"hub", "studio", "laptop"}


@proves("cli.incidents-are-fair", "task.cut-lists-say-so")
def test_a_cut_list_of_incidents_has_every_machine_and_says_that_it_was_cut(hub):
    answer = hub.call("incidents", {"limit": 10})
    assert len(answer["value"]) == 10
    assert {"the hub's own", "the laptop's"} <= titles(answer["value"])
    notes = [a["value"]["note"] for a in hub.answers[:-1]]
    assert len(notes) == 1
    assert "--limit" in notes[0]
    every = hub.call("incidents", {})
    assert len(every["value"]) >= 62
    assert len(hub.answers) == 1, "what is whole says nothing"


@proves("cli.incidents-are-fair")
def test_what_is_open_and_grave_comes_first(hub):
    found = hub.call("incidents", {})["value"]
    order = [(not each["open"], each["severity"] != "critical") for each in found]
    assert order == sorted(order)


def renewed(machine: One) -> None:
    """The same machine in a new incarnation."""
    with machine.core.store.transaction():
        machine.core.tell(Regressed(machine.core.membership.own(FLEET), "for this test"))
        machine.core.store.seal_dirty(machine.core.membership.signer("seal"))


@proves("fleet.incidents-end-once")
def test_what_an_incarnation_that_ended_told_is_over_once_and_for_all():
    hub = Cores("hub")["hub"]
    incidents = hub.core.incidents

    def told() -> list[int]:
        return [len(hub.entries(f"incident.{kind}")) for kind in ("open", "close")]

    def over(key: str) -> None:
        with hub.core.store.transaction():
            incidents.close(key, "it is over")
            incidents.close(key, "it is over")
            hub.core.store.seal_dirty(hub.core.membership.signer("seal"))

    say(hub, "disk:hub", "warning", "the disk fills")
    say(hub, "slot:x", "warning", "a slot")
    renewed(hub)
    assert incidents.is_open("disk:hub")
    assert set(incidents.own("disk:")) == {"disk:hub"}
    over("disk:hub")
    assert not incidents.is_open("disk:hub")
    assert incidents.own("disk:") == {}
    hub.step(Noticed("slot:x"))
    before = told()
    for _ in range(3):
        over("disk:hub")
        over("slot:x")
        over("never-told")
        hub.step(Noticed("slot:x"), Noticed("never-told"))
    assert told() == before, "what is over is closed once"
    # It can begin anew, and be over in a third.
    say(hub, "disk:hub", "warning", "the disk fills")
    renewed(hub)
    over("disk:hub")
    assert not incidents.is_open("disk:hub")


@proves("fleet.incidents-end-once")
def test_what_begins_and_is_over_before_anything_may_be_written_is_over():
    world = Cores("hub", "studio")
    world.restart("hub")
    hub = world["hub"]
    assert not hub.core.settled
    hub.step(Noticed("slot:x", "a slot"))
    assert hub.core.incidents.is_open("slot:x")
    hub.step(Noticed("slot:x"))
    world.link("hub", "studio")
    world.pass_ms(5_000)
    assert hub.core.settled
    assert not hub.core.incidents.is_open("slot:x")
    assert hub.core.incidents.own("slot:") == {}
