"""Links through a machine in the middle: asking for one, being asked, and being the middle.

Rule 1: only links of our own carry a relay, and only between live machines: one hop, so no loops.
Rule 2: the middle grants nothing and learns nothing; it counts, and cuts what is over the bounds.
Rule 3: of two machines that ask for each other at once, the one with the smaller id is served.
Rule 4: one relayed link to each machine, the newest; whoever asked for it ends it (climb.py).

`docs/adr/0019-spokes-through-the-hub.md` says why.
"""

import contextlib
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from muster.channel.base import Link
from muster.channel.relay import RelayChannel
from muster.channel.stream import splice
from muster.channel.tunnel import TunnelLink
from muster.errors import Conflict, Malformed, MusterError, Unreachable
from muster.limits import RELAY_MIDDLES_MAX, RELAYS_PER_MINUTE_MAX
from muster.node import event as ev
from muster.node.call.streams import Served
from muster.node.counter import DECLARED, spend
from muster.node.runtime import Runtime

DECLARED[__name__] = {
    "relays-unproven": "Who came through a third machine did not prove to be who it said.",
    "relays-broken": "A link that was passed on between two machines broke the rules on one side.",
    "relays": "Links of two other machines that this one began to pass on.",
    "relayed-bytes": "Bytes of links of other machines that this one passed on.",
}

ASK: Final = "relay"
SERVE: Final = "relay.serve"
_MINUTE_MS: Final = 60_000

Ours = Callable[[Link], AbstractContextManager[Any]]


class Relays:
    """The relayed links of one machine, and those that it carries for others."""

    def __init__(self, daemon: Runtime, channel: RelayChannel) -> None:
        self._daemon = daemon
        self.channel = channel
        self._asking: set[str] = set()
        self._links: dict[str, TunnelLink] = {}
        self._begun: dict[str, deque[int]] = {}

    def middles(self, peer: str) -> list[str]:
        """The machines that may have a link to `peer`: those that we have one to, first whose link
        is not in doubt, and of these the hubs.
        """
        core = self._daemon.core
        links = {
            str(machine): link
            for machine in sorted(core.roster.machines)
            if machine not in (peer, core.machine)
            and (link := core.link_to(machine, direct=True)) is not None
        }
        hubs, in_doubt = set(core.leads()), core.sync.paths.proofs.is_doubted
        found = sorted(links, key=lambda machine: (in_doubt(links[machine]), machine not in hubs))
        return found[:RELAY_MIDDLES_MAX]

    async def keep(self, peer: str, ours: Ours = contextlib.nullcontext) -> None:
        """Open a link to `peer` through somebody and serve it to its end: until then it is one of
        `ours`. Raises: Unreachable.
        """
        if peer in self._asking:
            raise Conflict("it is being asked for already")
        self._asking.add(peer)
        last: MusterError = Unreachable("there is no machine in the middle")
        try:
            for middle in self.middles(peer):
                number = self._daemon.core.link_to(middle, direct=True)
                if number is None:
                    continue
                try:
                    async with self._daemon.streams.call(number, ASK, {"to": peer}) as stream:
                        link = self.channel.open(stream.flow, serves=False)
                        await link.prove(peer)
                        self._asking.discard(peer)
                        with ours(link):
                            await self._serve(link, peer, middle)
                        return
                except MusterError as error:
                    if peer not in self._asking:
                        raise
                    last = error
        finally:
            self._asking.discard(peer)
        raise last

    async def probe(self, peer: str) -> None:
        """Have `peer` prove through somebody that it is there. Raises: Unreachable, Refused."""
        for middle in self.middles(peer):
            number = self._daemon.core.link_to(middle, direct=True)
            if number is not None:
                async with self._daemon.streams.call(number, ASK, {"to": peer}) as stream:
                    link = self.channel.open(stream.flow, serves=False)
                    await link.prove(peer)
                    await link.close("it was asked whether anybody is there")
                return
        raise Unreachable("there is no machine in the middle")

    async def serve(self, call: ev.Perform, stream: Served) -> None:
        """The middle of this call says that `from` wants a link: that machine must prove it."""
        daemon, peer = self._daemon, str(call.args.get("from", ""))
        middle = self._own_link(call)
        daemon.core.roster.machine(peer)
        if peer in (daemon.core.machine, middle):
            raise Malformed("a relay joins two machines through a third one")
        if peer in self._asking and daemon.core.machine < peer:
            raise Conflict("this machine is asking for that one itself")
        stream.accept()
        link = self.channel.open(stream.flow, serves=True)
        try:
            await link.prove(peer)
        except MusterError:
            daemon.core.counters["relays-unproven"] += 1
            return
        await self._serve(link, peer, middle)

    async def carry(self, call: ev.Perform, stream: Served) -> None:
        """Join the asking machine and the one it wants, for as long as both stay."""
        core, to = self._daemon.core, str(call.args.get("to", ""))
        self._own_link(call)
        begun = self._begun.setdefault(call.peer, deque())
        if not spend(begun, RELAYS_PER_MINUTE_MAX, _MINUTE_MS, core.now.boot_ms):
            raise Conflict("this machine asks for relays faster than any needs them; wait a minute")
        record = core.roster.machine(to)
        if to in (core.machine, call.peer):
            raise Malformed("a relay joins two machines through a third one")
        target = core.link_to(to, direct=True)
        if target is None:
            raise Unreachable(f"{record.name} has no link to this machine either; try again later")
        core.counters["relays"] += 1
        async with self._daemon.streams.call(target, SERVE, {"from": call.peer}) as there:
            stream.accept()
            try:
                await splice(stream, there)
            except Malformed:
                core.counters["relays-broken"] += 1
            finally:
                core.counters["relayed-bytes"] += stream.flow.taken + there.flow.taken

    def _own_link(self, call: ev.Perform) -> str:
        """Whose link this is. Raises: Malformed where it runs through a third machine itself."""
        link = self._daemon.core.links.get(call.link)
        if link is None or link.through:
            raise Malformed("a relayed link carries no relay")
        return link.peer

    async def _serve(self, link: TunnelLink, peer: str, through: str) -> None:
        before = self._links.get(peer)
        self._links[peer] = link
        try:
            if before is not None:
                await before.close("there is a newer link")
            await self._daemon.serve(link, through=through)
        except Malformed as error:
            await link.close(str(error))
        finally:
            await link.close("done")
            if self._links.get(peer) is link:
                del self._links[peer]
