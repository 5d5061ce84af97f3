"""Several links between two machines: one way for everything, and another when it is gone."""

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.limits import LINK_HEARD_APART_MS
from muster.node import event as ev


def linked(count: int) -> Cores:
    world = Cores("hub", "studio")
    for _ in range(count):
        world.link("hub", "studio")
    world.pass_ms(4_000)
    return world


def cost(count: int) -> tuple[int, int]:
    """How many segments and bytes one message of a kilobyte takes, over so many links."""
    world = linked(count)
    sent: list[bytes] = []
    carry_out = world.carry_out

    def carry(machine, effects):
        sent.extend(
            each.frame
            for each in effects
            if isinstance(each, ev.Send) and (machine.name, each.link) in world._links
        )
        carry_out(machine, effects)

    world.carry_out = carry  # type: ignore[method-assign]
    assert world["hub"].order("send", "studio", {"text": ["x" * 1000], "to": "studio"})["ok"]
    world.pass_ms(300)
    assert [m["text"] for m in world["studio"].call("inbox", {})["value"]] == ["x" * 1000]
    segments = [raw for raw in sent if frames.decode(raw).type is Type.SEGMENT]
    return len(segments), sum(map(len, sent))


@proves("log.sync-one-session")
@pytest.mark.parametrize("count", [3, 7])
def test_a_message_costs_the_same_over_however_many_links(count):
    segments, size = cost(1)
    assert cost(count)[0] == segments
    assert cost(count)[1] <= 1.3 * size


@proves("log.sync-one-session")
def test_of_several_links_each_may_go_and_messages_arrive():
    world = linked(3)
    hub, studio = world["hub"], world["studio"]
    ways = [link for link, each in hub.core.links.items() if each.peer == studio.id]
    for left, link in zip((2, 1, 0), reversed(ways), strict=True):
        assert hub.order("send", "studio", {"text": [f"{left} left"], "to": "studio"})["ok"]
        other, far = world._links.pop((hub.name, link))
        del world._links[other, far]
        hub.step(ev.LinkDown(link))
        studio.step(ev.LinkDown(far))
        world.pass_ms(500)
    texts = [m["text"] for m in studio.call("inbox", {})["value"]]
    assert sorted(texts) == ["0 left", "1 left", "2 left"]
    assert hub.core.sync.sessions == {}


@proves("log.sync-one-session")
def test_a_receipt_that_was_lost_with_a_link_comes_over_the_next_one():
    """Only the writer knows that the link is gone: the other end speaks over it still."""
    world = linked(1)
    hub, studio = world["hub"], world["studio"]
    (here,) = [link for link, each in hub.core.links.items() if each.peer == studio.id]
    order = {"text": ["hi"], "to": "studio", "wait": True}
    # What studio says goes nowhere from here on.
    del world._links[world._links[hub.name, here]]
    hub.answers.clear()
    hub.order("send", "studio", order)
    world.pass_ms(1_000)
    assert hub.answers == []
    world._links.pop((hub.name, here))
    hub.step(ev.LinkDown(here))
    world.link("hub", "studio")
    world.pass_ms(300)
    (answer,) = hub.answers
    assert answer["value"]["state"] == "stored"


@proves("node.best-link")
def test_the_best_link_is_a_direct_one_that_is_heard_and_of_these_the_newest():
    world = linked(3)
    hub, peer = world["hub"].core, world["studio"].id
    first, second, third = [n for n, each in hub.links.items() if each.peer == peer]
    now = hub.now.boot_ms
    for link in (first, second, third):
        hub.links[link].heard_ms = now
    assert hub.link_to(peer) == third, "the newest"
    hub.links[third].heard_ms = now - LINK_HEARD_APART_MS
    assert hub.link_to(peer) == third, "it may be quiet for a while"
    hub.links[third].heard_ms -= 1
    assert hub.link_to(peer) == second, "one that is heard"
    for link in (first, second, third):
        hub.links[link].heard_ms = 0
    assert hub.link_to(peer) == third, "where all are quiet, none of them is"
    hub.links[third].heard_ms = now
    hub.links[second].through = hub.links[third].through = "m" * 64
    assert hub.link_to(peer) == first, "one of our own, however quiet"
    hub.links[first].through = "m" * 64
    assert hub.link_to(peer) == third
    assert hub.link_to(peer, direct=True) is None
    assert hub.link_to("nobody") is None
