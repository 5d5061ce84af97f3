"""Who is dialled, where and when: a link to every machine of the fleet, by the shortest way.

Rule 1: whoever has an address is dialled there; whom no link reaches is asked for through others.
Rule 2: one link for each pair: of two machines that know each other's address one waits.
Rule 3: who was shut out stays out: it need not knock for ever.
"""

import asyncio
import contextlib
import random
from functools import partial
from typing import Final

from muster.channel.backoff import Backoff
from muster.channel.base import Link
from muster.channel.http import HttpChannel
from muster.errors import Denied, Malformed, MusterError
from muster.fleet.roster import Roster
from muster.node import event as ev
from muster.node import reach
from muster.node.counter import DECLARED, labelled
from muster.node.loop import Loop
from muster.node.relay import Relays

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


class Dialler:
    """Keeps the links of one machine."""

    def __init__(self, daemon: Loop, http: HttpChannel, relays: Relays) -> None:
        self._daemon = daemon
        self._core = daemon.core
        self._http = http
        self._relays = relays
        self._dialled: set[str] = set()
        self._wanted: set[str] = set()
        # Where each machine was dialled last with success.
        self._good: dict[str, str] = {}
        # Replaced each time a link comes or goes.
        self._news = asyncio.Event()

    def begin(self) -> None:
        """Dial, now and whenever a machine or an address becomes known."""
        loop = asyncio.get_running_loop()

        def changed(_after: Roster, _before: Roster | None) -> None:
            loop.call_soon(self.look)

        self._core.standing.on_change.append(changed)
        self.look()

    def look(self) -> None:
        """Begin to keep a link to everybody to whom none is kept yet."""
        keep, core = self._daemon.supervisor.keep, self._core
        for peer in self.addresses().keys() - self._dialled:
            self._dialled.add(peer)
            keep("dial", partial(self._keep_direct, peer))
        for peer in core.roster.machines.keys() - self._wanted - {core.machine}:
            self._wanted.add(peer)
            keep("relay", partial(self._keep_relayed, peer))

    def stir(self) -> None:
        """A link of our own came or went: who has none may be reached by another way now."""
        news, self._news = self._news, asyncio.Event()
        news.set()

    def addresses(self) -> dict[str, tuple[str, ...]]:
        """Whom to dial, and where: who was given to us, and every machine that says it listens.

        Two machines that only know the hub would otherwise never hear what is for them alone.
        """
        given = self._daemon.machine.dials()
        return reach.places(given, self._core.standing.roster, self._core.machine)

    def _shut_out(self, peer: str) -> bool:
        return bool({peer, self._core.machine} & self._core.standing.roster.revoked.keys())

    async def _keep_direct(self, peer: str) -> None:
        """Keep one link to a machine up, whoever dialled, for as long as it is in the fleet."""
        backoff = Backoff(random.SystemRandom().random)
        loop = asyncio.get_running_loop()
        if peer not in self._daemon.machine.dials() and peer < self._core.machine:
            # It was told of us as we were of it: one of us waits, so that there is one link.
            await asyncio.sleep(SECOND_DIALLER_S)
        tries = 0
        while not self._shut_out(peer):
            known = self.addresses().get(peer, ())
            if not known or self._core.link_to(peer, direct=True) is not None:
                await asyncio.sleep(SECOND_DIALLER_S)
                continue
            began, address = loop.time(), self._next_of(peer, known, tries)
            try:
                link = await self._http.dial(address, peer=peer)
            except MusterError as error:
                # What a machine says of its address may be anything, too.
                self._core.counters[labelled("dial", error)] += 1
                if isinstance(error, Denied) and error.proof:
                    self._daemon.post(ev.ShutOut(error.proof))
                # The next address that is known of it is tried at once, then all after a pause.
                tries += 1
                pause_ms = backoff.failed() if tries % len(known) == 0 else 0
                await asyncio.sleep(pause_ms / 1000)
                continue
            tries = 0
            await self.adopt(link, address)
            await asyncio.sleep(backoff.lost(int((loop.time() - began) * 1000)) / 1000)

    def _next_of(self, peer: str, known: tuple[str, ...], tries: int) -> str:
        """The address to try now: where it was found before comes first."""
        good = self._good.get(peer, "")
        return sorted(known, key=lambda address: address != good)[tries % len(known)]

    async def adopt(self, link: Link, address: str) -> None:
        """The life of a link that was dialled there; where that is news, it is remembered."""
        self._good[link.peer] = address
        if address not in self._daemon.machine.dials().get(link.peer, ()):
            self._daemon.machine.found_at(link.peer, address)
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
            if peer in self.addresses():
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
