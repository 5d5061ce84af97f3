"""How each machine is reached: over which channel, where, in which order; and how it went.

Rule 1: whoever has an address is dialled there; whom no link reaches is asked for through others.
Rule 2: channels are tried in the order of `CHANNELS`; of one channel first the address that worked
last, then what a person said, then what the machine says of itself. What failed costs a try and no
more: each channel of each peer rests by itself, and the next one is tried at once.
Rule 3: one link for each pair: of two machines that know each other's address one waits.
Rule 4: who was shut out stays out: it need not knock for ever.
"""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from muster.channel.backoff import Backoff
from muster.channel.base import Link, Listener, MachineChannel, OnLink, Own
from muster.channel.tls import Credentials
from muster.errors import Denied, Malformed, MusterError, NotFound
from muster.fleet.facts import Way
from muster.node.counter import DECLARED, labelled
from muster.node.host import reach
from muster.node.incarnations.own_incarnation import ShutOut
from muster.node.link import Tried
from muster.node.links.relay import Relays
from muster.node.runtime import Runtime

DECLARED[__name__] = {
    "dial-<error>": "A machine was not reached at an address.",
    "relay-<error>": "A machine was not reached through another one.",
}

# How long the second of two machines leaves the dialling to the first.
SECOND_DIALLER_S: Final = 2.0
# How long a direct way is left to try before another machine is asked to help.
DIRECT_FIRST_S: Final = 1.0
# Without news the links are looked at this often.
LOOK_S: Final = 30.0


@dataclass(slots=True)
class Path:
    """One channel to one peer."""

    backoff: Backoff = field(default_factory=lambda: Backoff(random.SystemRandom().random))
    # By the clock of the loop.
    rests_until_s: float = 0.0
    # The address that worked last, and why the others did not since then.
    good: str = ""
    failed: dict[str, str] = field(default_factory=dict)


class Cascade:
    """The channels of one machine, and the links that it keeps over them."""

    def __init__(self, daemon: Runtime, own: Own, relays: Relays) -> None:
        self._daemon = daemon
        self._core = daemon.core
        self._relays = relays
        self._channels: dict[str, MachineChannel] = {
            spec.name: spec.load().open_channel(options, own)
            for spec, options in daemon.machine.config.links()
        }
        self._paths = defaultdict[tuple[str, str], Path](Path)
        self._dialled: set[str] = set()
        self._wanted: set[str] = set()
        # Replaced each time a link comes or goes.
        self._news = asyncio.Event()
        self._core.ways_to = self.shown

    async def listen(self, on_link: OnLink) -> list[Listener]:
        """Wait for links wherever `listen` of a channel says. Raises: Broken, Conflict."""
        config = self._daemon.machine.config
        return [
            await self._channels[spec.name].listen(options.listen, on_link)
            for spec, options in config.links()
            if options.listen
        ]

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials from the next handshake on."""
        for channel in self._channels.values():
            channel.renew(credentials)
        self._relays.channel.renew(credentials)

    def begin(self) -> None:
        """Dial, now and whenever a machine or an address becomes known."""
        loop = asyncio.get_running_loop()
        self._core.membership.on_change.append(lambda _after, _before: loop.call_soon(self.look))
        self.look()

    def look(self) -> None:
        """Begin to keep a link to everybody to whom none is kept yet."""
        keep, core = self._daemon.supervisor.keep, self._core
        for peer in self._places().keys() - self._dialled:
            self._dialled.add(peer)
            keep("dial", partial(self._keep_direct, peer))
        for peer in core.roster.machines.keys() - self._wanted - {core.machine}:
            self._wanted.add(peer)
            keep("relay", partial(self._keep_relayed, peer))
        self.stir()

    def stir(self) -> None:
        """A link of our own came or went, or an address: who has none may be reached now."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def _places(self) -> dict[str, tuple[Way, ...]]:
        """Whom to dial, and where: who was given to us, and every machine that says it listens.

        Two machines that only know the hub would otherwise never hear what is for them alone.
        """
        given = self._daemon.machine.dials()
        return reach.places(given, self._core.membership.roster, self._core.machine)

    def _ways(self, peer: str) -> dict[str, list[str]]:
        """The addresses of a peer by channel, in the order in which they are tried."""
        ways = self._places().get(peer, ())
        found: dict[str, list[str]] = {}
        for channel in self._channels:
            good = self._paths[peer, channel].good
            addresses = [way.address for way in ways if way.channel == channel]
            if addresses:
                found[channel] = [good] * (good in addresses)
                found[channel] += [each for each in addresses if each != good]
        return found

    def way(self, channel: str, address: str) -> Way:
        """What a person named. Raises: NotFound, Malformed."""
        if channel not in self._channels:
            names = ", ".join(self._channels)
            raise NotFound(f"{channel[:40]!r} is no channel of this machine; it has {names}")
        return Way(channel, self._daemon.machine.config.options(channel).check_address(address))

    def shown(self, peer: str) -> list[Tried]:
        """The ways to a peer, in that order, and what came of each: for people."""
        linked = {link.channel for link in self._core.links.values() if link.peer == peer}
        rows = []
        for channel, addresses in self._ways(peer).items():
            path = self._paths[peer, channel]
            for address in addresses:
                state, error = "untried", path.failed.get(address, "")
                if error:
                    state = "failed"
                elif address == path.good:
                    state = "up" if channel in linked else "worked"
                rows.append(Tried(channel, address, state, error))
        return rows

    def _shut_out(self, peer: str) -> bool:
        return bool({peer, self._core.machine} & self._core.membership.roster.revoked.keys())

    async def _keep_direct(self, peer: str) -> None:
        """Keep one link to a machine up, whoever dialled, for as long as it is in the fleet."""
        loop = asyncio.get_running_loop()
        if peer not in self._daemon.machine.dials() and peer < self._core.machine:
            # It was told of us as we were of it: one of us waits, so that there is one link.
            await asyncio.sleep(SECOND_DIALLER_S)
        # Taken before it is looked whether a link is there: one that has just ended seems to be.
        news = self._news
        while not self._shut_out(peer):
            linked = self._core.link_to(peer, direct=True) is not None
            ways = {} if linked else self._ways(peer)
            if not ways:
                await _heard(news, LOOK_S)
                news = self._news
                # Whoever dialled before does so again: the other one leaves it the time.
                await asyncio.sleep(SECOND_DIALLER_S)
                continue
            rests = {channel: self._paths[peer, channel].rests_until_s for channel in ways}
            channel = next((c for c in ways if rests[c] <= loop.time()), "")
            if channel:
                await self._try(peer, channel, ways[channel])
            else:
                await asyncio.sleep(min(rests.values()) - loop.time())

    async def _try(self, peer: str, channel: str, addresses: Sequence[str]) -> None:
        """Dial a peer over one channel, at one address after the other, and serve the link."""
        loop, path = asyncio.get_running_loop(), self._paths[peer, channel]
        path.failed = {each: why for each, why in path.failed.items() if each in addresses}
        for address in addresses:
            began = loop.time()
            try:
                link = await self.dial(peer, Way(channel, address))
            except MusterError as error:
                # What a machine says of its address may be anything, too.
                self._core.counters[labelled("dial", error)] += 1
                if isinstance(error, Denied) and error.proof:
                    self._daemon.post(ShutOut(error.proof))
                if self._shut_out(peer) or self._core.link_to(peer, direct=True) is not None:
                    return
                continue
            await self.adopt(link, address)
            pause_ms = path.backoff.lost(int((loop.time() - began) * 1000))
            break
        else:
            pause_ms = path.backoff.failed()
        path.rests_until_s = loop.time() + pause_ms / 1000

    async def dial(self, peer: str, way: Way) -> Link:
        """A link to a peer, which proves that it is there. Raises: Unreachable, Refused."""
        path = self._paths[peer, way.channel]
        try:
            link = await self._channels[way.channel].dial(way.address, peer=peer)
        except MusterError as error:
            path.failed[way.address] = str(error)
            raise
        path.good = way.address
        path.failed.clear()
        return link

    async def adopt(self, link: Link, address: str) -> None:
        """The life of a link that was dialled there; where that is news, it is remembered."""
        way = Way(link.channel, address)
        if way not in self._daemon.machine.dials().get(link.peer, ()):
            self._daemon.machine.found_at(link.peer, way)
        try:
            await self._daemon.serve(link)
        except Malformed as error:
            await link.close(str(error))

    async def _keep_relayed(self, peer: str) -> None:
        """Reach a machine through another one, while there is no link of our own to it."""
        backoff = Backoff(random.SystemRandom().random)
        loop = asyncio.get_running_loop()
        while not self._shut_out(peer):
            news = self._news
            if not self._needs_relay(peer):
                await _heard(news, LOOK_S)
                continue
            if self._ways(peer):
                await asyncio.sleep(DIRECT_FIRST_S)
                if not self._needs_relay(peer):
                    continue
            began = loop.time()
            try:
                await self._relays.keep(peer)
                pause_ms = backoff.lost(int((loop.time() - began) * 1000))
            except MusterError as error:
                self._core.counters[labelled("relay", error)] += 1
                pause_ms = backoff.failed()
            await _heard(news, pause_ms / 1000)

    def _needs_relay(self, peer: str) -> bool:
        return self._core.link_to(peer) is None and bool(self._relays.middles(peer))


async def _heard(news: asyncio.Event, within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await news.wait()
