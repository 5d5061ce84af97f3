"""A better channel that fails is looked after at both ends, because a worse one has carried."""

import asyncio
from typing import Any

import pytest
from tests.node.climbing import A, C, Half
from tests.node.cores import Cores
from tests.promise import proves

from muster.channel import FIRST
from muster.errors import MusterError, Unreachable
from muster.fleet.facts import Way
from muster.fleet.parcel import MEND, Item
from muster.node.link import Link, cost
from muster.node.links.mend import VERB, Mends
from muster.node.services.mending import SAID_AGAIN_MS, SAID_APART_MS, MendAsked, PoorWay

BOX = -1


class Mended(Half):
    """What is asked of others, what is left for them, and how often the machine was looked at."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ways: Way) -> None:
        super().__init__(monkeypatch, *ways)
        self.left: list[tuple[int, Item]] = []
        self.asked: list[tuple[int, str, dict[str, str]]] = []
        self.told = 0
        self.answer: MusterError | dict[str, Any] = {"ok": True, "value": True}
        self.streams: Any = self

        def leave(box: int, item: Item) -> None:
            self.left.append((box, item))

        async def tell() -> None:
            self.told += 1

        self.mends = Mends(self, self.cascade, leave, tell)  # type: ignore[arg-type]

    async def ask(self, link: int, _channel: int, verb: str, args: dict[str, str]) -> Any:
        self.asked.append((link, verb, args))
        if isinstance(self.answer, MusterError):
            raise self.answer
        return self.answer

    def stands(self, number: int, channel: str, through: str = "") -> None:
        link = Link(number, self.peer, False, channel, 0, through=through)
        link.cost = cost(channel, through)
        self.core.links[number] = link

    def pass_s(self, seconds: int) -> None:
        self.world.pass_ms(seconds * 1000)


def scene(half: Mended, work: Any) -> None:
    """Do it, and what comes of it; nobody dials meanwhile."""

    async def scenario() -> None:
        work()
        for _ in range(20):
            await asyncio.sleep(0)

    half.ways, ways = {}, half.ways or half.machine.dials()
    half.machine.dials = lambda: ways
    half.run(scenario)


@proves("node.mends")
def test_who_hears_by_a_parcel_asks_for_every_channel_that_would_be_better(monkeypatch):
    half = Mended(monkeypatch, A, C)
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, BOX)))
    assert half.left == [(BOX, Item(MEND, b"http")), (BOX, Item(MEND, b"memory"))]
    assert half.told == 1, "it looks after its own end as well"
    # Once a minute for each of them.
    scene(half, lambda: [half.mends.on_poor_way(PoorWay(half.peer, BOX)) for _ in range(100)])
    assert len(half.left) == 2
    half.pass_s(61)
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, BOX)))
    assert (len(half.left), half.told) == (4, 2)
    assert half.core.counters["mends-asked"] == 4


@proves("node.mends")
def test_who_hears_over_a_worse_link_asks_over_that_link(monkeypatch):
    half = Mended(monkeypatch, A, C)
    half.stands(7, "memory")
    half.stands(8, "relay", "0" * 64)
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, 8)))
    assert half.asked == [(8, VERB, {"channel": FIRST})], "what stands needs nothing"
    half.pass_s(61)
    half.answer = Unreachable("no answer")
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, 7)))
    half.pass_s(61)
    half.answer = {"ok": False}
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, 7)))
    counters = half.core.counters
    assert counters["mends-not-asked-unreachable"] == counters["mends-not-asked-refused"] == 1
    # The best stands, or the link is gone.
    half.pass_s(61)
    half.stands(9, FIRST)
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, 7)))
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, 10)))
    assert len(half.asked) == 3
    assert half.left == []


@proves("node.mends")
def test_where_no_better_channel_is_configured_nobody_is_asked(monkeypatch):
    half = Mended(monkeypatch)
    scene(half, lambda: half.mends.on_poor_way(PoorWay(half.peer, BOX)))
    assert (half.left, half.told) == ([], 0)


@proves("node.mends")
def test_what_is_asked_chooses_the_name_of_a_channel_and_how_often_it_is_done_is_bounded(
    monkeypatch,
):
    half = Mended(monkeypatch, A, C)
    path, counters = half.cascade.path(half.peer, FIRST), half.core.counters
    path.rests_until_s = path.began_s = 1e9
    odd = ("", "relay", "drop", "HTTP", "http ", "../http", "x" * 100_000, "\x00", "http\n")
    scene(half, lambda: [half.mends.asked(half.peer, name) for name in odd])
    raw = (b"\xff" * 1_000_000, b"", b"ipc")
    scene(half, lambda: [half.mends.on_asked(MendAsked(half.peer, name)) for name in raw])
    assert counters["mends-of-what-is-none"] == len(odd) + len(raw)
    assert (half.told, path.rests_until_s, len(half.mends._mended)) == (0, 1e9, 0)
    scene(half, lambda: [half.mends.asked(half.peer, FIRST) for _ in range(1000)])
    assert (counters["mends"], counters["mends-too-often"], half.told) == (1, 999, 1)
    assert path.rests_until_s == 0.0, "it is dialled at once"
    # Another channel has its own minute; the machine is looked at seldom.
    scene(half, lambda: half.mends.on_asked(MendAsked(half.peer, b"memory")))
    assert (counters["mends"], half.told) == (2, 1)


@proves("node.mends")
def test_the_core_says_when_entries_came_over_what_is_not_the_best_and_not_all_the_time():
    world = Cores("hub", "studio")
    _, there = world.link("hub", "studio")
    world.pass_ms(1_000)
    hub, studio = world["hub"], world["studio"]

    def poor() -> list[PoorWay]:
        found = [each for each in studio.effects if isinstance(each, PoorWay)]
        studio.effects.clear()
        return found

    def send() -> None:
        assert hub.order("send", "studio", {"to": "studio", "text": ["hi"]})["ok"]
        world.pass_ms(500)

    poor()
    studio.core.links[there].cost = 0
    world.pass_ms(SAID_APART_MS)
    send()
    assert poor() == [], "it came over the best"
    studio.core.links[there].cost = 1
    for _ in range(5):
        send()
    assert poor() == [PoorWay(hub.id, there)]
    world.pass_ms(SAID_APART_MS)
    assert poor() == [PoorWay(hub.id, there)], "of what came meanwhile it is said as well"
    world.pass_ms(SAID_APART_MS)
    assert poor() == []
    # What broke a moment later, or was not mended because it had been a moment before, is then.
    world.pass_ms(SAID_AGAIN_MS)
    assert poor() == [PoorWay(hub.id, there)]
    world.pass_ms(3 * SAID_AGAIN_MS)
    assert poor() == []
    send()
    assert poor() == [PoorWay(hub.id, there)]
