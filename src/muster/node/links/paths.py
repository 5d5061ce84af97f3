"""How each machine is reached: over which channel, where, in which order; and how it went.

Rule 1: whoever has an address is dialled there; whom no link reaches is asked for through others.
Rule 2: channels are tried in the order of `CHANNELS`; of one channel first the address that worked
last, then what a person said, then what the machine says of itself, then what is heard on the local
network (lan.py). Each channel of each peer rests by itself. When which of them is dialled is
decided in climb.py.
Rule 3: one link for each pair: of two machines that know each other's address one waits.
Rule 4: who was shut out stays out: it need not knock for ever.
"""

import asyncio
import contextlib
import random
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from typing import Final

from msgspec.structs import replace

from muster.channel import FIRST
from muster.channel.backoff import Backoff
from muster.channel.base import Link, Listener, MachineChannel, Own
from muster.channel.http import HttpListener
from muster.channel.tls import Credentials
from muster.errors import Malformed, MusterError, NotFound
from muster.fleet.facts import Way
from muster.fleet.roster import Roster
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.exposed import Exposed
from muster.node.host import reach
from muster.node.host.exposure import exposed
from muster.node.link import Tried, Try, cost, sentence
from muster.node.links.climb import LOOK_S, Climb, Path
from muster.node.links.relay import Relays
from muster.node.links.turns import Turns
from muster.node.runtime import Runtime
from muster.node.supervisor import say

DECLARED[__name__] = {
    "relay-<error>": "A machine was not reached through another one.",
    "address-not-kept": "Where a machine was reached could not be written into fleet.json.",
}

# How long a direct way is left to try before another machine is asked to help.
DIRECT_FIRST_S: Final = 1.0
# So many dials begin at once; one that hangs makes room for the next after a second.
DIALS_MAX: Final = 8


class Cascade:
    """The channels of one machine, and the links that it keeps over them."""

    def __init__(self, daemon: Runtime, own: Own, relays: Relays) -> None:
        self._daemon = daemon
        self._core = daemon.core
        self._relays = relays
        # Who is only visited has none: it listens nowhere and dials nobody, whatever it is asked.
        links = () if daemon.machine.visiting else daemon.machine.config.links()
        self._channels: dict[str, MachineChannel] = {
            spec.name: spec.load().open_channel(options, own) for spec, options in links
        }
        self.least_cost = min(map(cost, self._channels), default=0)
        self.names = tuple(self._channels)
        self._paths = defaultdict[tuple[str, str], Path](Path)
        self._climbs: dict[str, Climb] = {}
        self.dials = Turns(DIALS_MAX)
        self._dialled: set[str] = set()
        self._wanted: set[str] = set()
        # Whom to dial, and where, as of a roster; None once an address may be another.
        self._known: tuple[Roster, dict[str, tuple[Way, ...]]] | None = None
        # Replaced each time a link comes or goes.
        self._news = asyncio.Event()
        self._listening: dict[str, Listener] = {}
        # What is heard on the local network, and where we are announced there (lan.py).
        self.near: Mapping[str, tuple[Way, ...]] = {}
        self.announced = ""
        self._core.ways_to, self._core.tries_of = self.shown, self.tries
        self._core.exposed = self.exposed

    async def listen(self) -> None:
        """Wait for links wherever `listen` of a channel says. Raises: Broken, Conflict."""
        for channel in self._channels:
            await self.listen_again(channel)

    async def listen_again(self, channel: str) -> None:
        """Wait for links as `listen` of this channel says, where it has ended or not begun.

        Raises: Broken, Conflict.
        """
        before = self._listening.get(channel)
        if not self.listens(channel) or (before is not None and before.listens):
            return
        if before is not None:
            # What is left of it keeps the address.
            await before.close()
        address = self._daemon.machine.config.options(channel).listens_at
        self._listening[channel] = await self._channels[channel].listen(address, self._daemon.serve)

    def exposed(self) -> list[Exposed]:
        """Where others can dial this machine now, and who can."""
        listener = self._listening.get(FIRST)
        if not isinstance(listener, HttpListener):
            return []
        rows = exposed(listener.ports.bound, listener.ports.failed)
        return [replace(row, announced=row.address == self.announced) for row in rows]

    def listens(self, channel: str) -> bool:
        """Whether others are to dial us over this channel."""
        return bool(self._daemon.machine.config.options(channel).listen)

    async def close(self) -> None:
        """Be dialled no more; what came over it is closed."""
        for listener in self._listening.values():
            await listener.close()

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
        self._known = None
        keep, core = self._daemon.supervisor.keep, self._core
        for peer in self._places().keys() - self._dialled:
            self._dialled.add(peer)
            keep("dial", self.climb(peer).keep)
        for peer in core.roster.machines.keys() - self._wanted - {core.machine}:
            self._wanted.add(peer)
            keep("relay", partial(self._keep_relayed, peer))
        self.stir()

    def stir(self) -> None:
        """A machine or an address is known, or no more: who has no link may be reached."""
        self._known = None
        self._tell()
        for climb in self._climbs.values():
            climb.stir()

    def dial_anew(self, peer: str, channel: str) -> None:
        """Try this channel to a machine at once, however long it is to rest."""
        path = self._paths[peer, channel]
        path.began_s = path.rests_until_s = 0.0
        if peer in self._climbs:
            self._climbs[peer].stir()

    def _tell(self) -> None:
        """A link of our own came or went: who is reached through others looks again."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def climb(self, peer: str) -> Climb:
        """The links of our own to one machine."""
        found = self._climbs.get(peer)
        if found is None:
            found = self._climbs[peer] = Climb(self._daemon, self, peer)
        return found

    def came(self, number: int, link: Link, through: str = "") -> None:
        """A link is up, whoever dialled, perhaps through a third machine."""
        climb = self.climb(link.peer)
        climb.came(number, link, through)
        climb.stir()
        self._tell()

    def went(self, number: int, link: Link, why: str) -> None:
        """It is gone."""
        climb = self.climb(link.peer)
        climb.went(number, link, why)
        climb.stir()
        self._tell()

    @ev.effect(ev.Seek)
    def seek(self, effect: ev.Seek) -> None:
        """What is said over this link is not answered: it may be dead though it stands."""
        self.climb(effect.peer).doubt(effect.link)
        self._tell()

    def _places(self) -> dict[str, tuple[Way, ...]]:
        """Whom to dial, and where: who was given to us, and every machine that says it listens.

        Two machines that only know the hub would otherwise never hear what is for them alone.
        """
        roster = self._core.membership.roster
        if self._known is None or self._known[0] is not roster:
            # Whoever looks because of the same change is told the same.
            given = self._daemon.machine.dials()
            known = reach.places(given, roster, self._core.machine)
            for peer, ways in self.near.items():
                known[peer] = tuple(dict.fromkeys((*known.get(peer, ()), *ways)))
            self._known = roster, known
        return self._known[1]

    def ways(self, peer: str) -> dict[str, list[str]]:
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
        for channel, addresses in self.ways(peer).items():
            path = self._paths[peer, channel]
            for address in addresses:
                state, error = "untried", path.failed.get(address, "")
                if error:
                    state = "failed"
                elif address == path.good:
                    state = "up" if channel in linked else "worked"
                rows.append(Tried(channel, address, state, error))
        return rows

    def tries(self, peer: str) -> list[Try]:
        """What became of each try to reach a peer, over whichever channel, the newest first."""
        now_s = asyncio.get_running_loop().time()
        found = [
            Try(channel, round((now_s - each.at_s) * 1000), each.outcome, each.why)
            for (whose, channel), path in self._paths.items()
            for each in path.health.noted
            if whose == peer
        ]
        return sorted(found, key=lambda each: each.ms_ago)

    def rested(self, peer: str, channel: str) -> tuple[str, str]:
        """How a channel is over which no link stands, and why the last dial failed."""
        path = self._paths[peer, channel]
        why = "; ".join(dict.fromkeys(path.failed.values()))
        if not path.failed:
            return ("worked" if path.good else "untried"), ""
        rests = path.rests_until_s > asyncio.get_running_loop().time()
        return ("resting" if rests else "failed"), why

    def path(self, peer: str, channel: str) -> Path:
        """What is remembered of one channel to one machine."""
        return self._paths[peer, channel]

    def shut_out(self, peer: str) -> bool:
        """Whether one of us two was revoked."""
        return bool({peer, self._core.machine} & self._core.membership.roster.revoked.keys())

    async def dial(self, peer: str, way: Way) -> Link:
        """A link to a peer, which proves that it is there. Raises: Unreachable, Refused."""
        path, loop = self._paths[peer, way.channel], asyncio.get_running_loop()
        began_s = loop.time()
        try:
            link = await self._channels[way.channel].dial(way.address, peer=peer)
        except MusterError as error:
            # Of addresses that are dialled no more, as those heard on a network, nothing is kept.
            dialled = self.ways(peer).get(way.channel, ())
            path.failed = {a: why for a, why in path.failed.items() if a in dialled}
            path.failed[way.address] = str(error)
            path.health.note(loop.time(), "failed", str(error))
            raise
        path.health.took(loop.time() - began_s)
        path.good = way.address
        path.failed.clear()
        return link

    async def adopt(self, link: Link, address: str) -> None:
        """The life of a link that was dialled there; where that is news, it is remembered."""
        way = Way(link.channel, address)
        self._known = None
        with self.climb(link.peer).ours(link):
            # One that nobody reads must not stand: the other end would speak over it.
            end = "this machine failed to serve it"
            try:
                self._remember(link.peer, way)
                await self._daemon.serve(link)
                end = ""
            except Malformed as error:
                end = str(error)
            except asyncio.CancelledError:
                end = ""
                raise
            finally:
                if end:
                    await link.close(end)

    def _remember(self, peer: str, way: Way) -> None:
        if way not in self._daemon.machine.dials().get(peer, ()):
            try:
                self._daemon.machine.found_at(peer, way)
            except OSError as error:
                # The link matters more than what is known of it after the next start.
                self._core.counters["address-not-kept"] += 1
                say(sentence(f"where {peer[:16]} was reached is not remembered: {error}"))

    async def _keep_relayed(self, peer: str) -> None:
        """Reach a machine through another one, while no link to it can be trusted."""
        backoff = Backoff(random.SystemRandom().random)
        loop = asyncio.get_running_loop()
        while not self.shut_out(peer):
            news = self._news
            if not self._needs_relay(peer):
                await _heard(news, LOOK_S)
                continue
            if self.ways(peer):
                await asyncio.sleep(DIRECT_FIRST_S)
                if not self._needs_relay(peer):
                    continue
            began = loop.time()
            try:
                await self._relays.keep(peer, self.climb(peer).ours)
                pause_ms = backoff.lost(int((loop.time() - began) * 1000))
            except MusterError as error:
                self._core.counters[labelled("relay", error)] += 1
                pause_ms = backoff.failed()
            await _heard(news, pause_ms / 1000)

    def _needs_relay(self, peer: str) -> bool:
        return self.climb(peer).is_cut_off and bool(self._relays.middles(peer))


async def _heard(news: asyncio.Event, within_s: float) -> None:
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within_s):
            await news.wait()
