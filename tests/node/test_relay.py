"""Who joins whom, who is refused, and what the machine in the middle does about a flood."""

import asyncio
import ssl
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.channel.authority import TestAuthority, raw_key
from tests.node.cores import Cores, One
from tests.node.desks import Desk
from tests.promise import proves

from muster.channel.base import Link
from muster.channel.frame import Type
from muster.channel.relay import RelayChannel
from muster.channel.stream import Stream
from muster.errors import Conflict, Denied, Malformed, MusterError, NotFound, Unreachable
from muster.limits import RELAY_DATA_BYTES_MAX, RELAY_WINDOW_BYTES, RELAYS_PER_MINUTE_MAX
from muster.node import event as ev
from muster.node.links import relay
from muster.node.links.relay import Relays

STAR = (("hub", "studio"), ("hub", "laptop"))


class Spoke(Desk):
    """A desk whose streams are relays, and which keeps the links that it is told to serve."""

    def __init__(self, one: One, folder: Path, authority: TestAuthority) -> None:
        super().__init__(one, folder)
        _, credentials = authority.issue(one.name)
        authority.machines[_public(credentials.cert_pem)] = one.core.machine
        self.part = Relays(self, RelayChannel(credentials, authority.identify))  # type: ignore[arg-type]
        self.served: list[tuple[Link, str]] = []
        self.supervisor = SimpleNamespace(run=lambda _name, work: asyncio.ensure_future(work))

    async def serve(self, link: Any, *, local: bool = False, through: str = "") -> None:  # type: ignore[override]
        """The life of a link: until it ends."""
        assert not local
        self.served.append((link, through))
        try:
            while True:
                await link.receive()
        except Unreachable:
            pass

    async def handle(self, call: ev.Perform, stream: Stream) -> None:
        await (self.part.carry if call.verb == relay.ASK else self.part.serve)(call, stream)

    def asked(self, to: str, *, link: int | None = None) -> ev.Perform:
        """A call for a relay, as `studio` makes it over its link."""
        number = next(n for n in self.far if self.core.links[n].peer) if link is None else link
        peer = self.core.links[number].peer
        return ev.Perform(number, 99, relay.ASK, {"to": to}, peer)


def _public(pem: bytes) -> bytes:
    return raw_key(ssl.PEM_cert_to_DER_cert(pem.decode()))


class Room:
    """Hub, studio and laptop; the two have a link to the hub only."""

    def __init__(self, folder: Path) -> None:
        self.world = Cores("hub", "studio", "laptop")
        authority = TestAuthority("fleet")
        names = ("hub", "studio", "laptop")
        made = {n: Spoke(self.world[n], folder / n, authority) for n in names}
        for one, other in STAR:
            here, there = self.world.link(one, other)
            made[one].far[here] = (made[other], there)
            made[other].far[there] = (made[one], here)
        self.world.pass_ms(1_000)
        self.hub, self.studio, self.laptop = made["hub"], made["studio"], made["laptop"]


@pytest.fixture
def room(tmp_path: Path) -> Room:
    return Room(tmp_path)


def run(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(10):
            await work()

    asyncio.run(bounded())


async def until(true: Callable[[], bool]) -> None:
    """Let everybody go on until it is so; the test's own bound ends a wait in vain."""
    for _ in range(100_000):
        if true():
            return
        await asyncio.sleep(0)
    raise AssertionError("it did not come to that")


@proves("node.spokes-meet")
def test_two_spokes_are_linked_through_the_hub_and_each_knows_who_and_through_whom(room: Room):
    async def scenario() -> None:
        studio, laptop, hub = room.studio, room.laptop, room.hub.core.machine
        keeping = asyncio.create_task(studio.part.keep(laptop.core.machine))
        await until(lambda: bool(studio.served and laptop.served))
        (here, by), (there, through) = studio.served[0], laptop.served[0]
        assert (here.peer, by) == (laptop.core.machine, hub)
        assert (there.peer, through) == (studio.core.machine, hub)
        await there.close("enough")
        await keeping
        await until(lambda: room.hub.core.counters["relayed-bytes"] > 0)
        assert room.hub.core.counters["relays"] == 1
        assert [d.open for d in (room.hub, studio, laptop)] == [[], [], []]

    run(scenario)


@proves("node.relay-bounds")
def test_the_middle_joins_nobody_but_two_other_live_machines_over_links_of_its_own(room: Room):
    hub, studio, laptop = room.hub, room.studio.core.machine, room.laptop.core.machine

    async def refused(call: ev.Perform) -> type[BaseException]:
        with pytest.raises(MusterError) as caught:
            await hub.serve_to(call)
        return caught.type

    async def scenario() -> None:
        assert await refused(hub.asked("ab" * 32)) is NotFound
        assert await refused(hub.asked(hub.core.machine)) is Malformed
        assert await refused(hub.asked(studio)) is Malformed
        room.world.cut("laptop")
        assert await refused(hub.asked(laptop)) is Unreachable
        room.world["hub"].step(ev.LinkUp(900, laptop, False, "relay", studio))
        assert await refused(hub.asked(laptop)) is Unreachable
        hub.core.links[next(iter(hub.far))].through = laptop
        assert await refused(hub.asked(laptop)) is Malformed
        assert hub.sent == []

    run(scenario)


@proves("node.relay-revoked")
def test_a_revoked_machine_is_neither_asked_for_nor_served(room: Room):
    hub, studio, laptop = room.hub, room.studio, room.laptop.core.machine
    call = hub.asked(laptop)
    offered = ev.Perform(next(iter(studio.far)), 98, relay.SERVE, {"from": laptop}, "")
    args = {"name": "laptop", "reason": "stolen"}
    assert room.world["hub"].order("revoke", "laptop", args)["ok"]
    room.world.pass_ms(1_000)

    async def scenario() -> None:
        with pytest.raises(Denied, match="revoked"):
            await hub.serve_to(call)
        with pytest.raises(Denied, match="revoked"):
            await studio.serve_to(offered)
        assert (hub.sent, studio.open) == ([], [])

    run(scenario)


@proves("node.relay-bounds")
def test_a_machine_that_asks_for_relays_all_the_time_is_told_to_wait(room: Room):
    hub = room.hub

    async def scenario() -> None:
        call = hub.asked("ab" * 32)
        for _ in range(RELAYS_PER_MINUTE_MAX):
            with pytest.raises(NotFound):
                await hub.serve_to(call)
        with pytest.raises(Conflict, match="wait a minute"):
            await hub.serve_to(call)
        room.world.pass_ms(61_000)
        with pytest.raises(NotFound):
            await hub.serve_to(call)

    run(scenario)


@proves("node.relay-bounds")
def test_an_end_that_sends_more_than_it_was_granted_fills_no_memory_and_ends_only_that(room: Room):
    async def scenario() -> None:
        studio, laptop, hub = room.studio, room.laptop, room.hub
        keeping = asyncio.create_task(studio.part.keep(laptop.core.machine))
        await until(lambda: bool(studio.served and laptop.served))
        (link, channel), before = studio.open[0], len(hub.sent)
        for _ in range(50):
            studio.put(link, Type.DATA, channel, bytes(RELAY_DATA_BYTES_MAX))
        await keeping
        passed = hub.sent[before:]
        data = sum(len(raw) for type_, raw in passed if type_ is Type.DATA)
        assert data <= RELAY_WINDOW_BYTES
        assert [type_ for type_, _ in passed].count(Type.CLOSE) >= 2
        await until(lambda: not (hub.open or studio.open or laptop.open))
        assert hub.core.counters["relays-broken"] == 1
        assert hub.core.link_to(studio.core.machine) is not None

    run(scenario)


@proves("node.relay-once")
def test_of_two_that_ask_at_once_exactly_one_is_served(room: Room):
    async def scenario() -> None:
        one, other = room.studio, room.laptop
        if other.core.machine < one.core.machine:
            one, other = other, one
        first = asyncio.create_task(one.part.keep(other.core.machine))
        second = asyncio.create_task(other.part.keep(one.core.machine))
        with pytest.raises(Conflict, match="asking for that one itself"):
            await second
        await until(lambda: bool(one.served and other.served))
        assert (len(one.served), len(other.served)) == (1, 1)
        await one.served[0][0].close("enough")
        await first

    run(scenario)


@proves("node.relay-once")
def test_a_newer_relayed_link_replaces_the_older(room: Room):
    async def scenario() -> None:
        studio, laptop = room.studio, room.laptop
        older = asyncio.create_task(studio.part.keep(laptop.core.machine))
        await until(lambda: (len(studio.served), len(laptop.served)) == (1, 1))
        newer = asyncio.create_task(studio.part.keep(laptop.core.machine))
        await older
        await until(lambda: (len(studio.served), len(laptop.served)) == (2, 2))
        assert not newer.done()
        await laptop.served[1][0].close("enough")
        await newer

    run(scenario)


@proves("node.relay-once")
def test_a_direct_link_is_preferred_to_a_relayed_one_whichever_came_last(room: Room):
    hub, core, studio = room.hub.core.machine, room.laptop.core, room.studio.core.machine
    room.world["laptop"].step(ev.LinkUp(900, studio, False, "relay", hub))
    assert (core.link_to(studio), core.link_to(studio, direct=True)) == (900, None)
    room.world["laptop"].step(ev.LinkUp(901, studio, False, "http"))
    room.world["laptop"].step(ev.LinkUp(902, studio, False, "relay", hub))
    assert (core.link_to(studio), core.link_to(studio, direct=True)) == (901, 901)
