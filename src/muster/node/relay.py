"""Links through a machine in the middle: asking for one, being asked, and being the middle.

Rule 1: only links of our own carry a relay, and only between live machines: one hop, so no loops.
Rule 2: the middle grants nothing and learns nothing; it counts, and cuts what is over the bounds.
Rule 3: of two machines that ask for each other at once, the one with the smaller id is served.
Rule 4: one relayed link to each machine, the newest; a link of our own ends it.

`docs/adr/0019-spokes-through-the-hub.md` says why.
"""

from collections import deque
from typing import Final

from muster.channel.relay import Kind, Put, RelayChannel, RelayLink
from muster.channel.tls import Credentials
from muster.errors import Conflict, Malformed, MusterError, Unreachable
from muster.limits import RELAY_MIDDLES_MAX, RELAYS_PER_MINUTE_MAX
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.loop import Loop
from muster.node.passing import TYPES, Watch, pass_on, refusal

DECLARED[__name__] = {
    "relays-unproven": "Who came through a third machine did not prove to be who it said.",
    "relays": "Links of two other machines that this one began to pass on.",
    "relayed-bytes": "Bytes of links of other machines that this one passed on.",
}

ASK: Final = "relay"
SERVE: Final = "relay.serve"
_MINUTE_MS: Final = 60_000


class Relays:
    """The relayed links of one machine, and those that it carries for others."""

    def __init__(self, daemon: Loop, channel: RelayChannel) -> None:
        self._daemon = daemon
        self._channel = channel
        self._asking: set[str] = set()
        self._links: dict[str, RelayLink] = {}
        self._begun: dict[str, deque[int]] = {}

    def renew(self, credentials: Credentials) -> None:
        """Show new credentials from the next handshake on."""
        self._channel.renew(credentials)

    # --- asking ----------------------------------------------------------------------------------

    def middles(self, peer: str) -> list[str]:
        """The machines that may have a link to `peer`, hubs first: those that we have one to."""
        core = self._daemon.core
        found = [
            str(machine)
            for machine in sorted(core.roster.machines)
            if machine not in (peer, core.machine) and core.link_to(machine, direct=True)
        ]
        hubs = {hub.machine for hub in core.roster.hubs()}
        return sorted(found, key=lambda machine: machine not in hubs)[:RELAY_MIDDLES_MAX]

    async def keep(self, peer: str) -> None:
        """Open a link to `peer` through somebody and serve it to its end. Raises: Unreachable."""
        if peer in self._asking:
            raise Conflict("it is being asked for already")
        self._asking.add(peer)
        try:
            link, through, key = await self._first(peer)
        finally:
            self._asking.discard(peer)
        await self._serve(link, peer, through, key)

    async def _first(self, peer: str) -> tuple[RelayLink, str, tuple[int, int]]:
        last: MusterError = Unreachable("there is no machine in the middle")
        for middle in self.middles(peer):
            number = self._daemon.core.link_to(middle, direct=True)
            if number is None:
                continue
            channel = next(self._daemon.core.links[number].numbers)
            link = self._channel.dialling(self._putter(number, channel))
            self._daemon.tunnel(number, channel, link.feed, relay=True)
            try:
                answer = await self._daemon.hands.ask_on(number, channel, ASK, {"to": peer})
                if not answer.get("ok"):
                    raise refusal(answer.get("error", {}))
                await link.prove(peer)
            except MusterError as error:
                last = error
                await link.close("it came to nothing")
                self._daemon.close_tunnel(number, channel)
                continue
            return link, middle, (number, channel)
        raise last

    # --- being asked -----------------------------------------------------------------------------

    async def serve(self, call: ev.Perform) -> None:
        """The middle of this call says that `from` wants a link: that machine must prove it."""
        daemon, peer = self._daemon, str(call.args.get("from", ""))
        middle = self._own_link(call)
        daemon.core.roster.machine(peer)
        if peer in (daemon.core.machine, middle):
            raise Malformed("a relay joins two machines through a third one")
        if peer in self._asking and daemon.core.machine < peer:
            raise Conflict("this machine is asking for that one itself")
        link = self._channel.serving(self._putter(call.link, call.channel))
        daemon.tunnel(call.link, call.channel, link.feed, relay=True)
        daemon.answer(call, {"ok": True, "value": {"channel": call.channel}})
        try:
            await link.prove(peer)
        except MusterError:
            daemon.core.counters["relays-unproven"] += 1
            daemon.close_tunnel(call.link, call.channel)
            return
        await self._serve(link, peer, middle, (call.link, call.channel))

    # --- being the middle ------------------------------------------------------------------------

    async def carry(self, call: ev.Perform) -> None:
        """Join the asking machine and the one it wants, for as long as both stay."""
        core, to = self._daemon.core, str(call.args.get("to", ""))
        self._own_link(call)
        self._count(call.peer)
        record = core.roster.machine(to)
        if to in (core.machine, call.peer):
            raise Malformed("a relay joins two machines through a third one")
        target = core.link_to(to, direct=True)
        if target is None:
            raise Unreachable(f"{record.name} has no link to this machine either; try again later")
        watch = Watch()
        core.counters["relays"] += 1
        try:
            await pass_on(self._daemon, call, target, SERVE, {"from": call.peer}, watch)
        finally:
            core.counters["relayed-bytes"] += watch.passed

    def _own_link(self, call: ev.Perform) -> str:
        """Whose link this is. Raises: Malformed where it runs through a third machine itself."""
        link = self._daemon.core.links.get(call.link)
        if link is None or link.through:
            raise Malformed("a relayed link carries no relay")
        return link.peer

    def _count(self, peer: str) -> None:
        """Raises: Conflict for a machine that asks for one relay after the other."""
        now_ms = self._daemon.core.now.boot_ms
        begun = self._begun.setdefault(peer, deque())
        while begun and begun[0] <= now_ms - _MINUTE_MS:
            begun.popleft()
        if len(begun) >= RELAYS_PER_MINUTE_MAX:
            raise Conflict("this machine asks for relays faster than any needs them; wait a minute")
        begun.append(now_ms)

    # --- both ends -------------------------------------------------------------------------------

    def direct(self, peer: str) -> None:
        """A link of our own to this machine is up: the relayed one is not needed any more."""
        link = self._links.get(peer)
        if link is not None:
            self._daemon.supervisor.run("relay-end", link.close("there is a direct link"))

    def _putter(self, number: int, channel: int) -> Put:
        def put(kind: Kind, payload: bytes) -> None:
            self._daemon.put(number, TYPES[kind], channel, payload)

        return put

    async def _serve(self, link: RelayLink, peer: str, through: str, key: tuple[int, int]) -> None:
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
            self._daemon.close_tunnel(*key)
            if self._links.get(peer) is link:
                del self._links[peer]
