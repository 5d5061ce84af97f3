"""As much of a daemon as keeps links, with channels that answer as they are told; and two cores that
speak over such links. Times are those of `tests/loop_clock.py`: nobody waits for them.
"""

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from tests.channel import memory
from tests.channel.memory import MemoryLink, pair
from tests.loop_clock import LoopClock
from tests.node.cores import TICK_MS, Cores

from muster import channel as channels
from muster.channel import CHANNELS, FIRST, Spec, http
from muster.channel.base import Own
from muster.errors import MusterError, Unreachable
from muster.fleet.facts import Way
from muster.node import event as ev
from muster.node.host.config import Config
from muster.node.link import Link, cost
from muster.node.links.paths import Cascade
from muster.node.supervisor import Supervisor

MEMORY = Spec("memory", "link", "tests.channel.memory")
A, B, C = Way(FIRST, "a:1"), Way(FIRST, "b:1"), Way("memory", "c")
# As long as the real ones wait for an answer.
HANGS_S = 10.0
KEEPALIVE_S = 20.0


def now_s() -> float:
    return asyncio.get_running_loop().time()


class Fake:
    """A channel on which those answer who are said to; it notes whom it was asked for, and when."""

    def __init__(self, name: str, tried: list[tuple[str, str]]) -> None:
        self.name = name
        self.tried = tried
        self.began_s: list[float] = []
        self.there: set[str] = set()
        # Addresses that say nothing, and how long others take to answer.
        self.silent: set[str] = set()
        self.slow: dict[str, float] = {}
        self.shown: list[Any] = []
        self.error: MusterError = Unreachable("it is silent; try later")
        self.ended: list[str] = []

    async def dial(self, address: str, *, peer: str = "") -> MemoryLink:
        self.tried.append((self.name, address))
        self.began_s.append(now_s())
        try:
            await asyncio.sleep(HANGS_S if address in self.silent else self.slow.get(address, 0))
        except asyncio.CancelledError:
            self.ended.append("cancelled")
            raise
        if address not in self.there:
            self.ended.append("failed")
            raise self.error
        self.ended.append("stands")
        link, _ = pair("", peer)
        link.channel = self.name  # type: ignore[misc]
        return link

    def renew(self, credentials: Any) -> None:
        self.shown.append(credentials)


class Half:
    """As much of a daemon as a cascade asks for; a link lasts until it is closed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ways: Way) -> None:
        monkeypatch.setattr(channels, "CHANNELS", (*CHANNELS, MEMORY))
        monkeypatch.setattr(http, "open_channel", lambda *_: None)
        # Nothing here is drawn: a pause is as long as it can be.
        monkeypatch.setattr("muster.node.links.climb.random.SystemRandom.random", lambda _: 0.999)
        self.world = Cores("hub", "studio")
        self.peer = self.world["studio"].id
        self.core = self.world["hub"].core
        self.tried: list[tuple[str, str]] = []
        # Over which channel a link began to be served, and when; and which are served now.
        self.served: list[str] = []
        self.served_s: list[float] = []
        self.links: dict[int, MemoryLink] = {}
        self.lasts = True
        self.posted: list[ev.Event] = []
        self.found: list[Way] = []
        # Links over which something goes.
        self.busy: set[int] = set()
        self.ways: dict[str, list[Way]] = {self.peer: list(ways)}
        config = Config(channel={FIRST: http.Options(), "memory": memory.Options()})
        self.machine = SimpleNamespace(
            config=config,
            visiting=False,
            dials=lambda: self.ways,
            found_at=lambda _peer, way: self.found.append(way),
        )
        self.mistakes: list[str] = []
        self.supervisor = Supervisor(self.core.counters, self.mistakes.append, self.mistakes.append)
        own: Any = Own(self.core.machine, None, None)  # type: ignore[arg-type]
        self.relayed = Fake("relay", [])
        relays: Any = SimpleNamespace(channel=self.relayed, middles=lambda _: [])
        self.cascade = Cascade(self, own, relays)  # type: ignore[arg-type]
        self.http, self.memory = Fake(FIRST, self.tried), Fake("memory", self.tried)
        self.cascade._channels = {FIRST: self.http, "memory": self.memory}  # type: ignore[dict-item]

    @property
    def up(self) -> list[str]:
        """The channels over which links stand, in the order in which these came."""
        return [link.channel for link in self.links.values()]

    def post(self, event: ev.Event) -> None:
        self.posted.append(event)
        if isinstance(event, ev.Prove):
            self.prove(event)

    def prove(self, event: ev.Prove) -> None:
        """Whoever is asked over a link answers."""
        self.core.sync.paths.proofs.prove(event.link, self.core.now.boot_ms)

    def is_busy(self, link: int) -> bool:
        return link in self.busy

    async def serve(self, link: MemoryLink) -> None:
        self.served.append(link.channel)
        self.served_s.append(now_s())
        if not self.lasts:
            return
        number = self.begun(link)
        self.links[number] = link
        self.cascade.came(number, link)
        try:
            while True:
                await link.receive()
        except Unreachable as error:
            del self.links[number]
            # The core hears of it afterwards, as it does of everything.
            self.cascade.went(number, link, str(error))
            self.over(number)

    def begun(self, link: MemoryLink) -> int:
        """The link is up: the core hears of it."""
        number = 100 + len(self.served)
        price = cost(link.channel)
        self.core.links[number] = Link(number, link.peer, False, link.channel, 0, cost=price)
        self.prove(ev.Prove(number))
        return number

    def over(self, number: int) -> None:
        del self.core.links[number]

    def run(self, scenario: Callable[[], Awaitable[None]]) -> None:
        """Keep links to every peer while the scenario goes on."""

        async def bounded() -> None:
            for peer in self.ways:
                self.supervisor.keep("dial", self.cascade.climb(peer).keep)
            try:
                await scenario()
            finally:
                await self.supervisor.stop()
            failed = [n for n in self.core.counters if n.startswith("background-")]
            assert (failed, self.mistakes) == ([], [])

        LoopClock.run(bounded())


class Speaking(Half):
    """The hub keeps links to the studio, and their cores speak over them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *ways: Way) -> None:
        super().__init__(monkeypatch, *ways)
        self.far: dict[int, int] = {}
        self.sent: list[tuple[int, bytes]] = []
        # Channels whose links come and swallow everything, until their keepalive ends them.
        self.black: set[str] = set()
        self.swallowed: dict[tuple[str, int], tuple[str, int]] = {}
        self.http.there, self.memory.there = {"a:1"}, {"c"}
        carry_out = self.world.carry_out

        def carry(machine: Any, effects: list[ev.Effect]) -> None:
            if machine is self.world["hub"]:
                self.sent += [(e.link, e.frame) for e in effects if isinstance(e, ev.Send)]
            carry_out(machine, effects)

        self.world.carry_out = carry  # type: ignore[method-assign]

    def begun(self, link: MemoryLink) -> int:
        here, there = self.world.join("hub", "studio")
        self.far[here] = there
        if link.channel in self.black:
            self.swallow(here)
            asyncio.get_running_loop().call_later(KEEPALIVE_S, self._end, link)
        hub, studio = self.world["hub"], self.world["studio"]
        hub.step(ev.LinkUp(here, studio.id, False, link.channel))
        studio.step(ev.LinkUp(there, hub.id, False, link.channel))
        self.world.drain()
        return here

    def _end(self, link: MemoryLink) -> None:
        self.supervisor.run("keepalive", link.close("nothing came over it"))

    def prove(self, event: ev.Prove) -> None:
        self.world["hub"].step(event)
        self.world.drain()

    def over(self, number: int) -> None:
        far = self.far[number]
        self.world._links.pop(("hub", number), None)
        self.world._links.pop(("studio", far), None)
        self.world["hub"].step(ev.LinkDown(number))
        self.world["studio"].step(ev.LinkDown(far))
        self.world.drain()

    def swallow(self, number: int) -> None:
        """Nothing arrives over this link any more, in either direction, and it stays up."""
        for end in (("hub", number), ("studio", self.far[number])):
            self.swallowed[end] = self.world._links.pop(end)

    def carry_again(self) -> None:
        """What stands carries from now on."""
        standing = {*self.links, *(self.far[number] for number in self.links)}
        self.world._links |= {e: to for e, to in self.swallowed.items() if e[1] in standing}

    def texts(self) -> list[str]:
        """What arrived at the studio."""
        return [m["text"] for m in self.world["studio"].call("inbox", {})["value"]]

    async def pass_s(self, seconds: float) -> None:
        """Time goes on, for the cores as well."""
        for _ in range(int(seconds * 1000) // TICK_MS):
            await asyncio.sleep(TICK_MS / 1000)
            self.world.pass_ms(TICK_MS)
            hub = self.world["hub"]
            sought = [each for each in hub.effects if isinstance(each, ev.Seek)]
            hub.effects.clear()
            for each in sought:
                self.cascade.seek(each)
