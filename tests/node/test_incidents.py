"""What a person is shown of what is wrong, when a member says that everything is."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.fleet import kinds as fleet_kinds
from muster.log import canon


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
