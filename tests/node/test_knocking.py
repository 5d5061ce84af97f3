"""Our port is shut to whoever does not knock, once everybody who may come does."""

import json

import pytest
from tests.node.cores import WALL_MS, Cores
from tests.node.test_exposure import checks
from tests.promise import proves

from muster.channel.frame import Type
from muster.node import event as ev
from muster.node.link import FEATURES
from muster.node.services.knocking import Knocking

HOUR_MS = 3_600_000


@pytest.fixture
def world() -> Cores:
    return Cores("hub", "studio", "nas")


def closed(world: Cores) -> bool:
    return world["hub"].core.part(Knocking).closed


def says(world: Cores, link: int, *features: str, wall_ms: int = 0) -> None:
    """What studio says of itself over this link."""
    hello = {"features": features, "muster": "1", "wall_ms": wall_ms or WALL_MS + world.ms}
    world["hub"].step(ev.Arrived(link, Type.HELLO, 0, json.dumps(hello).encode()))
    world.pass_ms(1_000)


@proves("node.knocks-once-all-do")
def test_the_port_is_shut_once_each_machine_said_that_it_knocks(world):
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert not closed(world), "nas was not heard yet"
    found = {m["name"]: m.get("knocks") for m in world["hub"].call("machines", {})["value"]}
    assert found == {"hub": None, "studio": True, "nas": False}
    world.link("hub", "nas")
    world.pass_ms(1_000)
    assert closed(world)
    world.restart("hub")
    assert not closed(world), "nobody said yet that our hour is theirs"
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert closed(world), "what they said counts over a start"


@proves("node.knocks-once-all-do")
def test_the_port_is_shut_only_while_somebody_goes_by_our_hour(world):
    links = [world.link("hub", other)[0] for other in ("studio", "nas")]
    world.pass_ms(1_000)
    assert closed(world)
    for link in links:
        says(world, link, *FEATURES, wall_ms=WALL_MS + world.ms - 2 * HOUR_MS)
    world.ms += 59 * 60_000
    world.pass_ms(1_000)
    assert closed(world)
    world.ms += 60_000
    world.pass_ms(1_000)
    assert not closed(world), "where our clock is wrong, all would knock in vain"
    says(world, links[1], *FEATURES)
    assert closed(world)


@proves("node.knocks-once-all-do")
def test_a_machine_that_hears_of_nobody_for_an_hour_hears_strangers(world):
    for other in ("studio", "nas"):
        world.link("hub", other)
    world.pass_ms(1_000)
    for other in ("studio", "nas"):
        world.cut(other)
    assert closed(world)
    world.ms += HOUR_MS
    world.pass_ms(1_000)
    assert not closed(world)


@proves("node.knocks-once-all-do")
def test_a_machine_that_came_back_older_opens_it_again(world):
    link, _ = world.link("hub", "studio")
    world.link("hub", "nas")
    world.pass_ms(1_000)
    assert closed(world)
    says(world, link, "one-session")
    assert not closed(world)
    world.restart("hub")
    assert not closed(world)
    link, _ = world.link("hub", "studio")
    says(world, link, *FEATURES)
    assert closed(world)


@proves("node.knocks-once-all-do")
def test_who_is_revoked_has_a_day_to_hear_of_it_and_keeps_no_port_open_then(world):
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert not closed(world)
    assert world["hub"].order("revoke", "nas", {"name": "nas"})["ok"]
    world.pass_ms(1_000)
    assert not closed(world), "it knows no other way to hear that it is out"
    world.ms += 25 * 3_600_000
    world.pass_ms(1_000)
    assert closed(world)


@proves("node.knocks-once-all-do", "node.says-who-can-reach-it")
def test_doctor_names_for_whom_strangers_are_heard():
    assert len(checks([("10.0.0.1:7447", "private")], studio=True)) == 1
    _, note = checks([("10.0.0.1:7447", "private")], studio=False, nas=True)
    assert note.state == "note"
    assert "because studio did not say" in note.text
