"""Which channel is tried when, and what is remembered of it."""

import asyncio
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.channel import memory
from tests.channel.memory import MemoryLink, pair
from tests.node.cores import Cores
from tests.promise import proves

from muster import channel as channels
from muster.channel import CHANNELS, FIRST, Spec, http
from muster.channel.base import Own
from muster.errors import Denied, MusterError, NotFound, Unreachable
from muster.fleet.facts import Way
from muster.node import event as ev
from muster.node.host.config import Config
from muster.node.incarnations.own_incarnation import ShutOut
from muster.node.link import Link
from muster.node.links.paths import Cascade

MEMORY = Spec("memory", "link", "tests.channel.memory")


class Fake:
    """A channel on which those answer who are said to; it notes whom it was asked for."""

    def __init__(self, name: str, tried: list[tuple[str, str]]) -> None:
        self.name = name
        self.tried = tried
        self.there: set[str] = set()
        self.shown: list[Any] = []
        self.error: MusterError = Unreachable("it is silent; try later")

    async def dial(self, address: str, *, peer: str = "") -> MemoryLink:
        self.tried.append((self.name, address))
        await asyncio.sleep(0)
        if address not in self.there:
            raise self.error
        link, _ = pair("", peer)
        link.channel = self.name  # type: ignore[misc]
        return link

    def renew(self, credentials: Any) -> None:
        self.shown.append(credentials)


class Half:
    """As much of a daemon as a cascade asks for; a link ends as soon as it was served."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ways: Way) -> None:
        monkeypatch.setattr(channels, "CHANNELS", (*CHANNELS, MEMORY))
        monkeypatch.setattr(http, "open_channel", lambda *_: None)
        world = Cores("hub", "studio")
        self.peer = world["studio"].id
        self.core = world["hub"].core
        self.tried: list[tuple[str, str]] = []
        self.served: list[str] = []
        self.posted: list[ev.Event] = []
        self.found: list[Way] = []
        config = Config(channel={FIRST: http.Options(), "memory": memory.Options()})
        self.machine = SimpleNamespace(
            config=config,
            dials=lambda: {self.peer: list(ways)},
            found_at=lambda _peer, way: self.found.append(way),
        )
        own: Any = Own(self.core.machine, None, None)  # type: ignore[arg-type]
        self.relayed = Fake("relay", [])
        relays: Any = SimpleNamespace(channel=self.relayed)
        self.cascade = Cascade(self, own, relays)  # type: ignore[arg-type]
        self.http, self.memory = Fake(FIRST, self.tried), Fake("memory", self.tried)
        self.cascade._channels = {FIRST: self.http, "memory": self.memory}  # type: ignore[dict-item]

    def post(self, event: ev.Event) -> None:
        self.posted.append(event)

    async def serve(self, link: MemoryLink) -> None:
        self.served.append(link.channel)

    def run(self, enough: Callable[[], bool]) -> None:
        """Keep a link to the peer until it is so."""

        async def bounded() -> None:
            keeping = asyncio.create_task(self.cascade._keep_direct(self.peer))
            try:
                async with asyncio.timeout(10):
                    while not enough():
                        await asyncio.sleep(0)
                        assert not keeping.done(), keeping.result()
            finally:
                keeping.cancel()

        asyncio.run(bounded())


A, B, C = Way(FIRST, "a:1"), Way(FIRST, "b:1"), Way("memory", "c")


@proves("node.channels-in-turn")
def test_what_fails_over_one_channel_is_tried_over_the_next_at_once(monkeypatch):
    half = Half(monkeypatch, C, A, B)
    half.memory.there = {"c"}
    monkeypatch.setattr("muster.node.links.paths.Backoff.failed", lambda _self: 60_000)
    half.run(lambda: bool(half.served))
    assert half.tried == [(FIRST, "a:1"), (FIRST, "b:1"), ("memory", "c")]
    assert half.core.counters["dial-unreachable"] == 2
    states = [(row.channel, row.address, row.state) for row in half.core.ways_to(half.peer)]
    assert states == [(FIRST, "a:1", "failed"), (FIRST, "b:1", "failed"), ("memory", "c", "worked")]
    assert half.core.ways_to(half.peer)[0].error == "it is silent; try later"


@proves("node.channels-in-turn")
def test_each_channel_rests_by_itself(monkeypatch):
    half = Half(monkeypatch, A, C)
    pauses = iter([60_000, *([0] * 1000)])
    monkeypatch.setattr("muster.node.links.paths.Backoff.failed", lambda _self: next(pauses))
    half.run(lambda: len(half.tried) > 5)
    assert half.tried[0] == (FIRST, "a:1")
    assert set(half.tried[1:]) == {("memory", "c")}, "the first one rests for a minute"


@proves("node.channels-in-turn")
def test_where_a_machine_was_found_it_is_looked_for_first_and_that_is_remembered(monkeypatch):
    half = Half(monkeypatch, A, B)
    half.http.there = {"b:1"}
    monkeypatch.setattr("muster.node.links.paths.Backoff.failed", lambda _self: 0)
    half.run(lambda: len(half.served) > 2)
    assert half.tried[:4] == [(FIRST, "a:1"), (FIRST, "b:1"), (FIRST, "b:1"), (FIRST, "b:1")]
    assert half.found == [], "it was given to us"
    half.machine.dials = lambda: {half.peer: [A]}
    half.core.roster.facts[half.peer] = half.core.roster.facts[half.core.machine]  # type: ignore[index]

    async def other() -> None:
        await half.cascade.adopt(await half.cascade.dial(half.peer, B), B.address)

    asyncio.run(other())
    assert half.found == [B]


@proves("node.channels-in-turn")
def test_a_link_that_ended_is_dialled_again_though_the_core_hears_of_the_end_later(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.there = {"a:1"}
    monkeypatch.setattr("muster.node.links.paths.SECOND_DIALLER_S", 0.01)
    monkeypatch.setattr("muster.node.links.paths.Backoff.lost", lambda *_: 0)
    links = half.core.links

    async def serve(link: MemoryLink) -> None:
        half.served.append(link.channel)
        links[7] = Link(7, half.peer, False, link.channel, 0)
        asyncio.get_running_loop().call_soon(links.clear)
        half.cascade.stir()

    half.serve = serve  # type: ignore[method-assign]
    half.run(lambda: len(half.served) > 2)


@proves("node.quiet-is-cheap")
def test_a_link_that_is_there_is_looked_at_when_there_is_news(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.there = {"a:1"}
    monkeypatch.setattr("muster.node.links.paths.SECOND_DIALLER_S", 0.0)
    looked: list[str] = []
    there = [3]

    def link_to(machine: str, *, direct: bool) -> int | None:
        assert direct
        looked.append(machine)
        return there[0] if there else None

    monkeypatch.setattr(half.core, "link_to", link_to)

    async def drive() -> None:
        keeping = asyncio.create_task(half.cascade._keep_direct(half.peer))
        await asyncio.sleep(0.05)
        assert (len(looked), half.tried) == (1, [])
        there.clear()
        half.cascade.stir()
        await asyncio.sleep(0.05)
        keeping.cancel()

    asyncio.run(drive())
    assert half.tried


@proves("node.channels-in-turn", "node.revoked-learns-it")
def test_a_peer_that_shows_that_we_are_revoked_is_heard(monkeypatch):
    half = Half(monkeypatch, A)
    half.http.error = Denied("no", "a document")
    half.run(lambda: bool(half.posted))
    assert half.posted[0] == ShutOut("a document")


@proves("node.channels-in-turn")
def test_a_person_names_a_channel_that_there_is_and_an_address_of_it(monkeypatch):
    half = Half(monkeypatch)
    assert half.cascade.way("memory", "x") == Way("memory", "x")
    with pytest.raises(
        NotFound, match="'pigeon' is no channel of this machine; it has http, memory"
    ):
        half.cascade.way("pigeon", "x")
    with pytest.raises(MusterError, match="host:port"):
        half.cascade.way(FIRST, "x")


@proves("channel.tls-renewal")
def test_fresh_certificates_are_shown_on_every_channel_and_on_relayed_links(monkeypatch):
    half, fresh = Half(monkeypatch), object()
    half.cascade.renew(fresh)  # type: ignore[arg-type]
    assert half.http.shown == half.memory.shown == half.relayed.shown == [fresh]
