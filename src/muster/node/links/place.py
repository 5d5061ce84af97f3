"""One place where machines leave parcels for each other: what goes there, and what comes.

Rule 1: nothing is given to the core that did not prove who wrote it, for us (fleet/parcel.py). What
does not is counted and forgotten: it would be refused every time.
Rule 2: one parcel at a time is dealt with, and the place forgets it after its commit. While the
disk is full the next one waits where it is.
Rule 3: a place that is away costs nothing but a look now and then.
"""

import asyncio
import random
from collections import defaultdict
from typing import Final

from muster.channel import Spec
from muster.channel.backoff import Backoff
from muster.channel.base import Packet, Post, PostOptions
from muster.errors import Broken, Exhausted, Malformed, MusterError, Refused, Unreachable
from muster.fleet.parcel import FRAME
from muster.node.counter import DECLARED, labelled
from muster.node.links.health import Health, Outcome
from muster.node.links.paces import GAPS_S, pace_of
from muster.node.links.parcel_box import ParcelBox
from muster.node.links.parcel_desk import Desk
from muster.node.runtime import Runtime
from muster.node.services.parcels import ParcelLeft, Parcels

DECLARED[__name__] = {
    "parcels-left": "A parcel was left in a mailbox.",
    "parcels-refused-<error>": "What lay in a mailbox is no parcel of this fleet for this machine.",
    "post-<error>": "A place for parcels could not be used.",
}

# Somebody speaks at a place for so long after the last parcel: the next is waited for.
URGENT_S: Final = 120.0
# What the core deals with, by its place and its name: more than one place may hold the same parcel.
Taken = dict[tuple[str, str], asyncio.Event]


class Place:
    """One post, and how it goes there."""

    def __init__(
        self, daemon: Runtime, spec: Spec, options: PostOptions, post: Post, desk: Desk
    ) -> None:
        self.name, self.where, self.post, self.desk = spec.name, options.place, post, desk
        self.pace, self.core, self._daemon = pace_of(spec.name, options), daemon.core, daemon
        # What became of what was left for a machine and of its answers, since the start.
        self.health = defaultdict[str, Health](Health)
        # Why it could not be used the last time, by whom it was used for; "" is this machine.
        self.failed: dict[str, MusterError] = {}
        # To whom something was left, and who left something, since the start.
        self.met: set[str] = set()
        # When somebody last left something here that was said after this machine had spoken.
        self.proven_ms: dict[str, int] = {}
        self.closed = False
        self._spoken_s = -URGENT_S

    def leave(self, box: ParcelBox) -> None:
        self._daemon.supervisor.run("mailbox", self._leave(box))

    async def _leave(self, box: ParcelBox) -> None:
        """Leave all that is to be said, in as few parcels as it fits into."""
        said = False
        try:
            while box:
                items = box.items()
                said = said or any(each.type == FRAME for each in items)
                try:
                    raw = self.desk.write(box.peer, items)
                except Malformed as error:
                    self.core.counters[labelled("post", error)] += 1
                    continue
                if not await self._put(box, raw):
                    box.clear()
                    return
                await asyncio.sleep(GAPS_S[self.name])
        finally:
            box.busy = False
            # Also where it failed: what is due is looked at anew.
            if said:
                self._daemon.post(ParcelLeft(box.number))

    async def _put(self, box: ParcelBox, raw: bytes) -> bool:
        """Whether it lies there; it is tried until then, or until nobody is to have it."""
        # Of this parcel alone: a mailbox that is full makes nobody else wait.
        backoff = Backoff(random.SystemRandom().random)
        while self.core.part(Parcels).box(box.number)[1]:
            try:
                await self.post.put(raw, to=box.peer)
            except (Unreachable, Exhausted, Broken) as error:
                await self._rest(box.peer, error, backoff)
                continue
            self._worked(box.peer, "left")
            self.core.counters["parcels-left"] += 1
            return True
        return False

    async def take(self, there: asyncio.Event, taken: Taken) -> None:
        """Deal with what lies there for us, for ever; `there` is set while the disk has room."""
        backoff = Backoff(random.SystemRandom().random)
        while not self.closed:
            try:
                packets = await self.post.take()
                if packets:
                    await self._deal(packets, there, taken)
                    await self.post.ack([each.id for each in packets])
                    continue
            except (Unreachable, Exhausted, Broken) as error:
                await self._rest("", error, backoff)
                continue
            self.failed.pop("", None)
            backoff = Backoff(random.SystemRandom().random)
            now_s = asyncio.get_running_loop().time()
            await self.post.news(urgent=now_s - self._spoken_s < URGENT_S)

    async def _deal(self, packets: list[Packet], there: asyncio.Event, taken: Taken) -> None:
        found = []
        for packet in packets:
            # Each is up to a megabyte, and nobody else waits for all of them.
            await asyncio.sleep(0)
            try:
                found.append(self.desk.open(self.name, packet))
            except Refused as error:
                self.core.counters[labelled("parcels-refused", error)] += 1
        # A place has no order; what a machine said first is heard first, its last life at the end.
        for event in sorted(found, key=lambda e: (e.peer, e.sent_ms, e.said.number)):
            await there.wait()
            dealt = taken[event.place, event.id] = asyncio.Event()
            self._daemon.post(event)
            await dealt.wait()
            answers = event.heard_life == self.core.part(Parcels).life
            self._worked(event.peer, "answers" if answers else "speaks")
            if answers:
                self.proven_ms[event.peer] = self.core.now.boot_ms

    def _worked(self, peer: str, outcome: Outcome) -> None:
        self.health[peer].note_again(asyncio.get_running_loop().time(), outcome)
        self.failed.pop(peer, None)
        self.met.add(peer)
        self._spoken_s = asyncio.get_running_loop().time()

    async def _rest(self, used_for: str, error: MusterError, backoff: Backoff) -> None:
        self.failed[used_for] = error
        for peer in [used_for] if used_for else self.health:
            self.health[peer].note_again(asyncio.get_running_loop().time(), "failed", str(error))
        self.core.counters[labelled("post", error)] += 1
        await asyncio.sleep(backoff.failed() / 1000)
