"""The links of our own to one machine: which channel is dialled when, and which link may end.

Rule 1: a dead first choice costs a second. While no link stands the channels are dialled in their
order, the next as soon as one failed, or beside it when it has not answered within a second. The
first link that stands is used; what was dialled before goes on to its own end, and counts if it is
better.
Rule 2: while only a worse link stands the better channels are tried again, often at first; while
the best stands nobody is dialled.
Rule 3: a link over which nothing is answered is in doubt until an answer comes over it. It is not
closed, but the channels are tried as if it were not there; its own once more, after a while.
Rule 4: a worse link that we asked for, a relayed one as well, ends when a better one is proven and
nothing more went over the worse one for a while.
"""

import asyncio
import contextlib
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from muster.channel.backoff import Backoff
from muster.channel.base import Link
from muster.errors import Denied, MusterError
from muster.fleet.facts import Way
from muster.limits import BACKOFF_STABLE_MS, PROOF_MS
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.incarnations.own_incarnation import ShutOut
from muster.node.link import RELAYED_COST, cost
from muster.node.links.addresses import NEXT_S, first_that_stands
from muster.node.links.health import Health
from muster.node.links.turns import Turns
from muster.node.runtime import Runtime

DECLARED[__name__] = {"dial-<error>": "A machine was not reached at an address."}

# How long the second of two machines leaves the dialling to the first.
SECOND_DIALLER_S: Final = 2.0
# Without news the links are looked at this often.
LOOK_S: Final = 30.0
# How often a better channel is tried while a worse one carries: at first, and from when on less.
BETTER_S: Final = 8.0
BETTER_LATER_S: Final = 30.0
BETTER_AT_FIRST_S: Final = 600.0
# Who lost a link within this is dialled before others.
LOST_S: Final = 60.0
# How long nothing goes over a worse link before it ends, and how often that is looked at.
IDLE_S: Final = 5.0
IDLE_LOOK_S: Final = 1.0
# How long a link has to be there to count as one that stands.
STABLE_S: Final = BACKOFF_STABLE_MS / 1000


@dataclass(slots=True)
class Path:
    """One channel to one peer; times by the clock of the loop."""

    backoff: Backoff = field(default_factory=lambda: Backoff(random.SystemRandom().random))
    began_s: float = 0.0
    rests_until_s: float = 0.0
    # The address that worked last, and why the others did not since then.
    good: str = ""
    failed: dict[str, str] = field(default_factory=dict)
    health: Health = field(default_factory=Health)
    # The last link over it was there for a moment only.
    fell: bool = False


@dataclass(slots=True)
class _Up:
    """A link that stands."""

    link: Link
    came_s: float
    cost: int
    # Since when nothing goes over it though it is worse than another.
    idle_s: float | None = None
    # How many frames had gone over it then, either way.
    frames: int = 0


class Ways(Protocol):
    """Where machines are reached; `dials` is a place for each dial that begins."""

    least_cost: int
    dials: Turns

    def ways(self, peer: str) -> dict[str, list[str]]: ...

    def path(self, peer: str, channel: str) -> Path: ...

    def shut_out(self, peer: str) -> bool: ...

    async def dial(self, peer: str, way: Way) -> Link: ...

    async def adopt(self, link: Link, address: str) -> None: ...


class Climb:
    """See the rules at the top of this file."""

    def __init__(self, daemon: Runtime, cascade: Ways, peer: str) -> None:
        self._daemon, self._core = daemon, daemon.core
        self._cascade, self._peer = cascade, peer
        self._proofs = self._core.sync.paths.proofs
        self._up: dict[int, _Up] = {}
        self._lost_s = -LOST_S
        self._ours: list[Link] = []
        # When each channel that is being dialled began to be, none where it waits for its turn.
        self._dials: dict[str, float | None] = {}
        # Channels that failed since one of the others had its turn.
        self._tried: set[str] = set()
        self._addresses: dict[str, list[str]] = {}
        self._waits_until_s = 0.0
        # Since when a link stands and a better one does not.
        self._worse_since_s: float | None = None
        self._stirred = asyncio.Event()

    # --- what happens ---------------------------------------------------------------------

    def stir(self) -> None:
        """Look again: something is different."""
        self._stirred.set()

    @contextlib.contextmanager
    def ours(self, link: Link) -> Iterator[None]:
        """This link is one that we dialled, or had relayed, until it is gone."""
        self._ours.append(link)
        try:
            yield
        finally:
            if link in self._ours:
                self._ours.remove(link)

    def came(self, number: int, link: Link, through: str = "") -> None:
        """A link is up, whoever dialled, perhaps through a third machine."""
        self._up[number] = _Up(link, _now_s(), cost(link.channel, through))
        self._health(link).note(_now_s(), "stands")

    def went(self, number: int, link: Link, why: str) -> None:
        """It is gone; whoever dialled it does so again, and the other one leaves it the time."""
        was_relayed = self._up.pop(number).cost >= RELAYED_COST
        health = self._health(link)
        health.note(_now_s(), "gone", why)
        health.proven_ms = self._proofs.proven_ms(number) or health.proven_ms
        if link in self._ours:
            self._ours.remove(link)
        elif not was_relayed:
            self._wait_for_the_first()
        self._lost_s = self._lost_s if was_relayed else _now_s()

    def doubt(self, number: int) -> None:
        """What was said over this link was not answered: the other end may see the same."""
        if number in self._up:
            self._health(self._up[number].link).note(_now_s(), "answers nothing")
        if self._is_second():
            self._wait_for_the_first()
        self.stir()

    def _health(self, link: Link) -> Health:
        return self._cascade.path(self._peer, link.channel).health

    def is_in_doubt(self, number: int) -> bool:
        """Whether what was said over this link was not answered."""
        return self._proofs.is_doubted(number)

    @property
    def is_cut_off(self) -> bool:
        """Whether no link stands, or each of them is in doubt."""
        return self._best() is None

    # --- looking ----------------------------------------------------------------------------

    async def keep(self) -> None:
        """Keep the best link that there can be, for as long as the machine is in the fleet."""
        if self._is_second():
            self._wait_for_the_first()
        while not self._cascade.shut_out(self._peer):
            # Before it is looked: what happens meanwhile is looked at as well.
            self._stirred.clear()
            within_s = self._look(_now_s())
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(within_s):
                    await self._stirred.wait()

    def _is_second(self) -> bool:
        """It was told of us as we were of it: one of us waits, so that there is one link."""
        return self._peer not in self._daemon.machine.dials() and self._peer < self._core.machine

    def _wait_for_the_first(self) -> None:
        self._waits_until_s = _now_s() + SECOND_DIALLER_S

    def _look(self, now_s: float) -> float:
        """Do what is due; in how many seconds to look again, unless something happens before."""
        best = self._best()
        # While the best that there can be stands, nothing needs to be looked up.
        ways = {} if best == self._cascade.least_cost else self._cascade.ways(self._peer)
        for channel, addresses in ways.items():
            if sorted(addresses) != self._addresses.get(channel):
                # A new address may be the one that works.
                self._addresses[channel] = sorted(addresses)
                path = self._cascade.path(self._peer, channel)
                path.began_s = path.rests_until_s = 0.0
        wanted = [c for c in ways if not self._is_linked(c) and (best is None or cost(c) < best)]
        due_s = self._judge(wanted, best, now_s)
        due_s = min(due_s, self._end_worse(best, now_s), self._dial_next(wanted, ways, now_s))
        return max(0.0, due_s - now_s)

    def _is_linked(self, channel: str) -> bool:
        """Whether it is not to be dialled: one whose link is in doubt is dialled once more, for a
        new link may come where the old one is dead.
        """
        links = [number for number, up in self._up.items() if up.link.channel == channel]
        doubts = [self._proofs.doubted_ms(number) for number in links]
        late_ms = self._core.now.boot_ms - PROOF_MS
        return len(links) > 1 or any(ms is None or ms > late_ms for ms in doubts)

    def _judge(self, wanted: list[str], best: int | None, now_s: float) -> float:
        """Note since when only a worse link stands; when to look again."""
        stood = [
            now_s - up.came_s >= STABLE_S
            for number, up in self._up.items()
            if not self._proofs.is_doubted(number) and up.cost == best
        ]
        if not self._up:
            self._worse_since_s = None
        elif wanted:
            self._worse_since_s = now_s if self._worse_since_s is None else self._worse_since_s
        elif any(stood):
            # One that comes and goes is no better one.
            self._worse_since_s = None
        return now_s + (LOOK_S if self._worse_since_s is None or wanted else STABLE_S)

    def _best(self) -> int | None:
        """What the best link costs that is trusted."""
        trusted = self._proofs.trusted(self._up)
        return min((self._up[number].cost for number in trusted), default=None)

    def _dial_next(self, wanted: list[str], ways: dict[str, list[str]], now_s: float) -> float:
        """Begin one dial, where it is time; when to look again."""
        if wanted and now_s < self._waits_until_s:
            return self._waits_until_s
        since = [s for channel, s in self._dials.items() if channel in wanted]
        young = [s for s in since if s is None or now_s < s + NEXT_S]
        if young:
            # One that waits for its turn says so when it begins.
            return min((s + NEXT_S for s in young if s is not None), default=now_s + LOOK_S)
        rests = {c: self._rests_until_s(c) for c in wanted if c not in self._dials}
        ready = [c for c in rests if rests[c] <= now_s]
        if not ready:
            return min((*rests.values(), now_s + LOOK_S))
        # What failed costs a try and no more: first the others have theirs.
        if self._tried.issuperset(ready):
            self._tried.clear()
        channel = next(c for c in ready if c not in self._tried)
        self._tried.add(channel)
        self._dials[channel] = None
        failed = self._cascade.path(self._peer, channel).failed
        addresses = sorted(ways[channel], key=lambda each: each in failed)
        self._daemon.supervisor.run("dial", self._dial(channel, addresses))
        return now_s + NEXT_S

    def _rests_until_s(self, channel: str) -> float:
        """Until when a channel is not dialled again."""
        path, worse_s = self._cascade.path(self._peer, channel), self._worse_since_s
        if worse_s is None:
            return path.rests_until_s
        if path.fell and path.began_s - worse_s < BETTER_AT_FIRST_S:
            return path.rests_until_s
        if path.began_s - worse_s < BETTER_AT_FIRST_S:
            return min(path.rests_until_s, path.began_s + BETTER_S)
        return path.began_s + BETTER_LATER_S

    def _end_worse(self, best: int | None, now_s: float) -> float:
        """End links that are not needed any more; when to look again."""
        due_s, believed = now_s + LOOK_S, [n for n in self._up if self._proofs.is_believed(n)]
        if len(believed) < len(self._up):
            # Nobody says when an answer comes.
            due_s = now_s + IDLE_LOOK_S
        for number, up in self._up.items():
            worse = best is not None and bool(believed) and up.cost > best
            if not worse or up.link not in self._ours:
                up.idle_s = None
                continue
            due_s = now_s + IDLE_LOOK_S
            frames = up.link.counters.frames_in + up.link.counters.frames_out
            if up.idle_s is None or frames != up.frames or self._daemon.is_busy(number):
                up.idle_s, up.frames = now_s, frames
            elif now_s - up.idle_s < IDLE_S - IDLE_LOOK_S or not self._carries_now(best):
                continue
            elif now_s - up.idle_s >= IDLE_S:
                up.idle_s = now_s
                self._daemon.supervisor.run("dial-end", up.link.close(_BETTER))
        return due_s

    def _carries_now(self, price: int | None) -> bool:
        """Whether a link of this price carried just now; where that is not known it is asked."""
        late_ms = self._core.now.boot_ms - PROOF_MS
        for number in self._proofs.trusted(self._up):
            if self._up[number].cost != price:
                continue
            if (self._proofs.proven_ms(number) or 0) >= late_ms:
                return True
            self._daemon.post(ev.Prove(number))
        return False

    # --- dialling -----------------------------------------------------------------------------

    async def _dial(self, channel: str, addresses: Sequence[str]) -> None:
        """Dial over one channel, and serve the link that stands to its end."""
        path, loop = self._cascade.path(self._peer, channel), asyncio.get_running_loop()
        found = None
        try:
            found = await self._reached(channel, addresses)
        finally:
            # Also where it ended by a mistake of ours: what fails at once must not go on at once.
            if found is None:
                path.rests_until_s = loop.time() + path.backoff.failed() / 1000
                path.fell = False
                if not set(addresses).issuperset(self._cascade.ways(self._peer).get(channel, ())):
                    # An address became known meanwhile, and may be the one that works.
                    path.began_s = path.rests_until_s = 0.0
            del self._dials[channel]
            self.stir()
        if found is None:
            return
        self._tried.clear()
        link, address = found
        best = self._best()
        if best is not None and best < cost(channel):
            await link.close(_BETTER)
            return
        began_s = loop.time()
        try:
            await self._cascade.adopt(link, address)
        finally:
            path.fell = loop.time() - began_s < STABLE_S
            pause_ms = path.backoff.lost(int((loop.time() - began_s) * 1000))
            path.rests_until_s = loop.time() + pause_ms / 1000
            self.stir()

    async def _reached(self, channel: str, addresses: Sequence[str]) -> tuple[Link, str] | None:
        """The link that stands at the first of the addresses that answers, and which that is."""
        path = self._cascade.path(self._peer, channel)
        path.failed = {each: why for each, why in path.failed.items() if each in addresses}

        def is_over(error: MusterError) -> bool:
            # What a machine says of its address may be anything, too.
            self._core.counters[labelled("dial", error)] += 1
            if isinstance(error, Denied) and error.proof:
                self._daemon.post(ShutOut(error.proof))
            best = self._best()
            there = best is not None and best <= cost(channel)
            return there or self._cascade.shut_out(self._peer)

        return await first_that_stands(addresses, partial(self._in_turn, channel), is_over)

    async def _in_turn(self, channel: str, address: str) -> Link:
        """Dial as soon as few enough others begin to. Raises: Unreachable, Refused."""
        loop, path = asyncio.get_running_loop(), self._cascade.path(self._peer, channel)
        worked = bool(path.good) and path.good not in path.failed
        lost = loop.time() - self._lost_s < LOST_S
        await self._cascade.dials.acquire(first=worked or lost)
        begins = True

        def began() -> None:
            nonlocal begins
            if begins:
                begins = False
                self._cascade.dials.release()

        # One that hangs keeps nobody from dialling.
        timer = loop.call_later(NEXT_S, began)
        if self._dials[channel] is None:
            self._dials[channel] = path.began_s = loop.time()
            self.stir()
        try:
            return await self._cascade.dial(self._peer, Way(channel, address))
        finally:
            timer.cancel()
            began()


def _now_s() -> float:
    return asyncio.get_running_loop().time()


_BETTER: Final = "there is a better link"
