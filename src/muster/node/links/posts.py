"""The mailboxes of one machine: who takes what lies there, and leaves what is to be said.

Rule 1: nothing is given to the core that did not prove who wrote it, for us (fleet/parcel.py). What
does not is counted and forgotten: it would be refused every time.
Rule 2: one parcel at a time is dealt with, and the place forgets it after its commit. While the
disk is full the next one waits where it is.
Rule 3: what is said to a machine gathers until its mailbox took what was said before, and is
bounded: what finds no room is dropped, and offered again by whoever keeps the streams.
Rule 4: a place that is away costs nothing but a look now and then, and no other place a moment.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable
from functools import partial
from typing import Final

from muster.channel import Spec
from muster.channel import frame as frames
from muster.channel.backoff import Backoff
from muster.channel.base import Own, Packet, Post
from muster.errors import Exhausted, Malformed, Refused, Unreachable
from muster.fleet.parcel import FRAME, ITEM_HEAD_BYTES, Heard, Item, read_parcel, write_parcel
from muster.limits import PARCEL_BYTES_MAX, PARCEL_ITEMS_MAX
from muster.log.pace import Pace
from muster.log.post import NEVER
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.core import Core
from muster.node.counter import DECLARED, labelled
from muster.node.host import clock
from muster.node.link import Tried
from muster.node.runtime import Runtime
from muster.node.services.parcels import (
    LookAt,
    ParcelCame,
    ParcelLeft,
    Parcels,
    ParcelTaken,
    PlaceOpened,
    PostsDue,
)

DECLARED[__name__] = {
    "parcels-left": "A parcel was left in a mailbox.",
    "parcels-refused-<error>": "What lay in a mailbox is no parcel of this fleet for this machine.",
    "parcels-without-room": "Something for a mailbox was dropped: too much waits for it.",
    "post-<error>": "A place for parcels could not be used.",
}

# How soon the next parcel for the same machine is left.
GAP_S: Final = 0.1
# Somebody speaks at a place for so long after the last parcel: the next is waited for.
URGENT_S: Final = 120.0
PACES: Final = {"drop": Pace(5_000, 300_000, 600_000, 8 * 1024 * 1024)}


class Desk:
    """How parcels of one machine are written, sealed, opened and judged."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._secret = core.membership.identity.secret("age")
        self._number = 0

    def write(self, to: str, items: Iterable[Item]) -> bytes:
        """One sealed parcel. Raises: Malformed where the receiver has no key for it."""
        from muster.channel import sealed  # noqa: PLC0415 - it stands on an extra

        public = self._core.membership.key_of(MachineId(to), "age")
        if public is None:
            raise Malformed("there is no key to seal a parcel with for a machine not known here")
        return sealed.seal(self.parcel(to, items), public)

    def parcel(self, to: str, items: Iterable[Item]) -> bytes:
        """One parcel, the next of this process."""
        core, parcels = self._core, self._core.part(Parcels)
        self._number += 1
        mine, membership = Heard(parcels.life, self._number), core.membership
        about = (membership.identity, membership.fleet, to, mine, parcels.heard(to))
        return write_parcel(*about, max(0, core.now.wall_ms), items)

    def open(self, place: str, packet: Packet) -> ParcelCame:
        """What lay in our mailbox. Raises: Refused."""
        from muster.channel import sealed  # noqa: PLC0415 - as above

        raw = sealed.open_sealed(packet.body, self._secret)
        return self.judge(place, packet.id, raw)

    def judge(self, place: str, id: str, raw: bytes) -> ParcelCame:
        """What one parcel says, once it proved whose word it is. Raises: Refused."""
        core = self._core
        machines = core.roster.machines
        parcel, items = read_parcel(
            raw,
            core.membership.fleet,
            core.machine,
            lambda machine: machine in machines,
        )
        found = [frames.decode(item.body) for item in items if item.type == FRAME]
        return ParcelCame(
            place,
            id,
            parcel.machine,
            Heard(parcel.life, parcel.number),
            parcel.heard_life,
            tuple((frame.type, frame.payload) for frame in found),
        )


class ParcelBox:
    """What is to be left for one machine at one place; used as the outbox of a link."""

    def __init__(self, place: "Place", number: int, peer: str) -> None:
        self.place, self.number, self.peer = place, number, peer
        self._quick: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        self._room = place.pace.flight_bytes
        self.busy = False

    def __bool__(self) -> bool:
        return bool(self._quick or self._bulk)

    def put(self, frame: bytes, *, bulk: bool) -> None:
        if len(frame) > self._room:
            self.place.core.counters["parcels-without-room"] += 1
            return
        self._room -= len(frame)
        (self._bulk if bulk else self._quick).append(frame)

    def release(self) -> None:
        """Leave it as soon as what was before it lies there."""
        if not self.busy:
            self.busy = True
            self.place.leave(self)

    def items(self) -> list[Item]:
        """What goes into the next parcel."""
        found: list[Item] = []
        left = PARCEL_BYTES_MAX
        while (queue := self._quick or self._bulk) and len(found) < PARCEL_ITEMS_MAX:
            left -= len(queue[0]) + ITEM_HEAD_BYTES
            if left < 0:
                break
            found.append(Item(FRAME, queue.popleft()))
            self._room += len(found[-1].body)
        return found


class Place:
    """One post, and how it goes there."""

    def __init__(self, daemon: Runtime, spec: Spec, where: str, post: Post, desk: Desk) -> None:
        self.name, self.where, self.post, self.desk = spec.name, where, post, desk
        self.pace, self.core, self._daemon = PACES[spec.name], daemon.core, daemon
        # Why it could not be used the last time, by whom it was used for; "" is this machine.
        self.failed: dict[str, str] = {}
        # To whom something was left, and who left something, since the start.
        self.met: set[str] = set()
        self.closed = False
        self._spoken_s = -URGENT_S

    def leave(self, box: ParcelBox) -> None:
        self._daemon.supervisor.run("mailbox", self._leave(box))

    async def _leave(self, box: ParcelBox) -> None:
        """Leave all that is to be said, in as few parcels as it fits into."""
        try:
            while box:
                try:
                    raw = self.desk.write(box.peer, box.items())
                except Malformed as error:
                    self.core.counters[labelled("post", error)] += 1
                    continue
                if not await self._put(box, raw):
                    return
                await asyncio.sleep(GAP_S)
        finally:
            box.busy = False
        self._daemon.post(ParcelLeft(box.number))

    async def _put(self, box: ParcelBox, raw: bytes) -> bool:
        """Whether it lies there; it is tried until then, or until nobody is to have it."""
        # Of this parcel alone: a mailbox that is full makes nobody else wait.
        backoff = Backoff(random.SystemRandom().random)
        while self.core.part(Parcels).box(box.number)[1]:
            try:
                await self.post.put(raw, to=box.peer)
            except (Unreachable, Exhausted) as error:
                await self._rest(box.peer, error, backoff)
                continue
            self._worked(box.peer)
            self.core.counters["parcels-left"] += 1
            return True
        return False

    async def take(self, there: asyncio.Event, taken: dict[str, asyncio.Event]) -> None:
        """Deal with what lies there for us, for ever; `there` is set while the disk has room."""
        backoff = Backoff(random.SystemRandom().random)
        while not self.closed:
            try:
                packets = await self.post.take()
                if packets:
                    await self._deal(packets, there, taken)
                    await self.post.ack([each.id for each in packets])
                    continue
            except (Unreachable, Exhausted) as error:
                await self._rest("", error, backoff)
                continue
            self.failed.pop("", None)
            backoff = Backoff(random.SystemRandom().random)
            now_s = asyncio.get_running_loop().time()
            await self.post.news(urgent=now_s - self._spoken_s < URGENT_S)

    async def _deal(
        self, packets: list[Packet], there: asyncio.Event, taken: dict[str, asyncio.Event]
    ) -> None:
        found = []
        for packet in packets:
            try:
                found.append(self.desk.open(self.name, packet))
            except Refused as error:
                self.core.counters[labelled("parcels-refused", error)] += 1
        # A place has no order; what a machine said first is heard first.
        for event in sorted(found, key=lambda e: (e.peer, e.said)):
            await there.wait()
            dealt = taken[event.id] = asyncio.Event()
            self._daemon.post(event)
            await dealt.wait()
            self._worked(event.peer)

    def _worked(self, peer: str) -> None:
        self.failed.pop(peer, None)
        self.met.add(peer)
        self._spoken_s = asyncio.get_running_loop().time()

    async def _rest(self, used_for: str, error: Unreachable | Exhausted, backoff: Backoff) -> None:
        self.failed[used_for] = str(error)
        self.core.counters[labelled("post", error)] += 1
        await asyncio.sleep(backoff.failed() / 1000)


class Mailboxes:
    """Every place of this machine; see the rules at the top of this file."""

    def __init__(self, daemon: Runtime, own: Own, there: asyncio.Event) -> None:
        self._daemon, self._core, self._there = daemon, daemon.core, there
        self._places: dict[str, Place] = {}
        self._boxes: dict[int, ParcelBox] = {}
        # What the core deals with, by the name of the parcel.
        self._taken: dict[str, asyncio.Event] = {}
        self._timer: asyncio.TimerHandle | None = None
        desk = Desk(daemon.core)
        for spec, options in daemon.machine.config.posts():
            # Without it a machine that is told to use a place says so, and does not begin.
            spec._replace(module="muster.channel.sealed").load()
            post = spec.load().open_channel(options, own)
            self._places[spec.name] = Place(daemon, spec, options.place, post, desk)
        # The ways to a machine are over links, and then these.
        links = self._core.ways_to
        self._core.ways_to = lambda peer: [*links(peer), *self.shown(peer)]

    def begin(self) -> None:
        """Take what lies there, now and for ever."""
        for place in self._places.values():
            self._daemon.post(PlaceOpened(place.name, place.pace))
            take = partial(place.take, self._there, self._taken)
            self._daemon.supervisor.keep("mailboxes", take)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for place in self._places.values():
            place.closed = True
            await place.post.close()

    def box(self, number: int) -> ParcelBox | None:
        """Where to put what is to be said to a mailbox; None where there is none of this number."""
        found = self._boxes.get(number)
        if found is None and number < 0:
            place, peer = self._core.part(Parcels).box(number)
            if place:
                found = self._boxes[number] = ParcelBox(self._places[place], number, peer)
        return found

    def shown(self, peer: str) -> list[Tried]:
        """The places where something may be left for a machine, and what came of each."""
        found = []
        for place in self._places.values():
            error = place.failed.get("") or place.failed.get(peer, "")
            state = "failed" if error else "worked" if peer in place.met else "untried"
            found.append(Tried(place.name, place.where, state, error))
        return found

    @ev.effect(ParcelTaken)
    def _was_dealt_with(self, effect: ParcelTaken) -> None:
        dealt = self._taken.pop(effect.id, None)
        if dealt is not None:
            dealt.set()

    @ev.effect(LookAt)
    def _look_at(self, effect: LookAt) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if effect.at_ms < NEVER:
            wait_s = max(0, effect.at_ms - clock.boot_ms()) / 1000
            later = asyncio.get_running_loop().call_later
            self._timer = later(wait_s, self._daemon.post, PostsDue())
