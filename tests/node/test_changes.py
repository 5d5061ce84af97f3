"""Following what a list shows: what is told, how often, and that nothing is missed."""

from typing import Any

import pytest
from tests.node.cores import LOCAL, Cores, One
from tests.node.test_tail import say, values
from tests.promise import proves

from muster.channel.frame import Type
from muster.limits import TAIL_ENTRIES_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.services.tail import Tail


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio")
    made.pass_ms(1_000)
    return made


def follow(machine: One, *sorts: str) -> list[Any]:
    machine.raw(canon.encode({"args": {"sorts": sorts}, "verb": "changes"}), channel=9)
    return machine.answers


def told(answers: list[Any]) -> list[list[str]]:
    return [value["sorts"] for value in values(answers)]


@proves("cli.watch")
def test_whoever_follows_hears_that_it_does_and_then_of_its_own_sorts_alone(world):
    hub, studio = world["hub"], world["studio"]
    messages, links = follow(hub, "message"), follow(studio, "link", "grant")
    assert told(messages) == told(links) == [[]]
    say(hub)
    assert told(messages) == [[], ["message"]]
    world.link("hub", "studio")
    world.pass_ms(1_000)
    assert {each for some in told(messages) for each in some} == {"message"}
    assert {each for some in told(links) for each in some} == {"link"}


@proves("cli.watch")
def test_however_much_happens_it_is_told_at_once_and_then_after_a_pause(world):
    hub = world["hub"]
    messages = follow(hub, "message")
    for number in range(5):
        say(hub, str(number))
    assert told(messages) == [[], ["message"]]
    world.pass_ms(1_000)
    assert told(messages) == [[], ["message"], ["message"]]
    world.pass_ms(5_000)
    assert len(messages) == 3, "nothing happened, so nothing is told"


@proves("cli.watch")
def test_to_whoever_fell_far_behind_everything_has_changed(world):
    hub = world["hub"]
    both = follow(hub, "message", "task")
    with hub.core.store.transaction():
        for each in range(3 * TAIL_ENTRIES_MAX):
            hub.core.append("note.put", canon.encode({"each": each}))
    hub.step(ev.Tick())
    world.pass_ms(1_000)
    assert told(both) == [[], ["message", "task"]]
    say(hub)
    assert told(both)[2:] == [["message"]]


@proves("cli.watch")
def test_nothing_is_kept_of_one_who_left(world):
    hub = world["hub"]
    follow(hub, "message")
    assert len(hub.core.part(Tail).followers) == 1
    hub.step(ev.Arrived(LOCAL, Type.CLOSE, 9, b""))
    assert hub.core.part(Tail).followers == []
