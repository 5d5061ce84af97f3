"""What a link begins with: who speaks, and what it can."""

import json

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.limits import HELLO_BYTES_MAX
from muster.node import event as ev
from muster.node.incarnations.lives import Lives
from muster.node.link import FEATURES


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(500)
    return world


def told(at: One, of: One) -> dict:
    """What one machine shows of its link to another."""
    found = at.call("machines", {})["value"]
    return next(m for m in found if m["name"] == of.name)


@proves("node.hello-says-what-it-can")
def test_each_machine_knows_what_its_peers_can(world):
    hub, studio = world["hub"], world["studio"]
    assert told(hub, studio)["features"] == sorted(FEATURES)
    raw = hub.core.part(Lives).hello_bytes(studio.id, hub.core.part(Lives).word)
    assert len(raw) <= HELLO_BYTES_MAX - 100, "names that come later have room"


@proves("node.hello-says-what-it-can")
@pytest.mark.parametrize(
    ("features", "known"),
    [(["later", 7, None, "\x1b[2J"], ["later"]), ("text", []), ({"a": 1}, []), ([], [])],
)
def test_what_a_peer_says_it_can_is_words_or_nothing(world, features, known):
    hub, studio = world["hub"], world["studio"]
    link, _ = world.link("hub", "studio")
    hub.core.links[link].features = frozenset()
    hello = {"features": features, "muster": "9", "wall_ms": 1, "new": {"x": []}}
    hub.step(ev.Arrived(link, Type.HELLO, 0, json.dumps(hello).encode()))
    assert sorted(hub.core.links[link].features) == known
    assert told(hub, studio)["muster"] == "9"


@proves("node.hello-says-what-it-can")
def test_the_word_for_a_process_is_known_to_one_peer_alone(world):
    """Who could say it as well would be taken for another link to it, and get what is for it."""
    hub, studio = world["hub"].core.part(Lives), world["studio"].core.part(Lives)
    said = [(hub, "a"), (hub, "b"), (studio, "a"), (hub, "a")]
    words = [json.loads(who.hello_bytes(peer, ""))["process"] for who, peer in said]
    assert len({*words, hub.life, studio.life}) == 5
    assert words[0] == words[3]
