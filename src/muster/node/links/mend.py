"""A better channel that is broken is mended from both ends, because a worse one has carried.

Rule 1: who hears entries by a poorer way than there could be looks after its own end of the better
ones, and asks the other machine to look after its: over the very link, or in a parcel.
Rule 2: what is asked names a channel and chooses nothing else: the machine does what it does by
itself sooner or later, for the machine that asks, and where nothing is wrong that is nothing.
Rule 3: once a minute for each machine and channel, whether it asks or is asked.
"""

from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from math import inf
from typing import Final

from muster.errors import MusterError, Refused
from muster.fleet.parcel import MEND, Item
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled, spend
from muster.node.link import cost
from muster.node.links.paths import Cascade
from muster.node.runtime import Runtime
from muster.node.services.mending import MendAsked, PoorWay

DECLARED[__name__] = {
    "mends-asked": "A machine was asked to mend a channel that is better than the one it used.",
    "mends-not-asked-<error>": "A machine could not be asked to mend a channel.",
    "mends": "A channel to a machine was looked after because that one asked.",
    "mends-too-often": "A machine asked for the same channel again within a minute.",
    "mends-of-what-is-none": "A machine asked to mend what is no channel here.",
}

VERB: Final = "path.mend"
_MINUTE_MS: Final = 60_000
# Looking at the machine anew asks programs: whoever asks, it is done so often at most.
_TOLD_APART_MS: Final = 5_000


class Mends:
    """See the rules above. `leave` puts an item into a mailbox, `tell_facts` says where we are."""

    def __init__(
        self,
        daemon: Runtime,
        paths: Cascade,
        leave: Callable[[int, Item], None],
        tell_facts: Callable[[], Awaitable[None]],
    ) -> None:
        self._daemon, self._core, self._paths = daemon, daemon.core, paths
        self._leave, self._tell_facts = leave, tell_facts
        self._asked = defaultdict[tuple[str, str], deque[int]](deque)
        self._mended = defaultdict[tuple[str, str], deque[int]](deque)
        self._told_ms = -_TOLD_APART_MS

    @ev.effect(PoorWay)
    def on_poor_way(self, effect: PoorWay) -> None:
        """Look after what is better than this way, at both ends."""
        link = self._core.links.get(effect.link)
        if link is None and effect.link > 0:
            # It is gone, and with it the way to ask.
            return
        now_ms = self._core.now.boot_ms
        for channel in self._broken(effect.peer, inf if link is None else link.cost):
            if spend(self._asked[effect.peer, channel], 1, _MINUTE_MS, now_ms):
                self._daemon.supervisor.run("mend", self._mend(effect.peer, channel))
                self._ask(effect.link, channel)

    def _broken(self, peer: str, price: float) -> list[str]:
        """The channels that cost less than this, that lead between us two, and do not now."""
        paths, ways = self._paths, self._paths.ways(peer)
        stands = {
            link.channel
            for number, link in self._core.links.items()
            if link.peer == peer and not link.through and not paths.climb(peer).is_in_doubt(number)
        }
        return [
            name
            for name in paths.names
            if cost(name) < price and name not in stands and (name in ways or paths.listens(name))
        ]

    def _ask(self, link: int, channel: str) -> None:
        self._core.counters["mends-asked"] += 1
        if link < 0:
            self._leave(link, Item(MEND, channel.encode()))
        else:
            self._daemon.supervisor.run("mend-asked", self._ask_over(link, channel))

    async def _ask_over(self, link: int, channel: str) -> None:
        try:
            number = next(self._core.links[link].numbers)
            answer = await self._daemon.streams.ask(link, number, VERB, {"channel": channel})
            if not answer.get("ok"):
                # An older one does not know the verb.
                raise Refused("it cannot be asked to mend a channel")
        except MusterError as error:
            self._core.counters[labelled("mends-not-asked", error)] += 1

    @ev.effect(MendAsked)
    def on_asked(self, effect: MendAsked) -> None:
        """As `asked`, by a parcel."""
        self.asked(effect.peer, effect.channel.decode("ascii", "replace"))

    def asked(self, peer: str, channel: str) -> bool:
        """A machine asks that a channel between it and us be mended; whether that is done now."""
        counters = self._core.counters
        if channel not in self._paths.names:
            counters["mends-of-what-is-none"] += 1
            return False
        if not spend(self._mended[peer, channel], 1, _MINUTE_MS, self._core.now.boot_ms):
            counters["mends-too-often"] += 1
            return False
        counters["mends"] += 1
        self._daemon.supervisor.run("mend", self._mend(peer, channel))
        return True

    async def _mend(self, peer: str, channel: str) -> None:
        """Dial again, listen where nobody listens any more, and say where we are now."""
        self._paths.dial_anew(peer, channel)
        async with self._daemon.supervisor.attempt("listen-again"):
            await self._paths.listen_again(channel)
        if (now_ms := self._core.now.boot_ms) - self._told_ms >= _TOLD_APART_MS:
            self._told_ms = now_ms
            async with self._daemon.supervisor.attempt("facts"):
                await self._tell_facts()
