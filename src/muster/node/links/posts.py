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
from collections.abc import Iterable
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from muster.channel import Spec
from muster.channel import frame as frames
from muster.channel.backoff import Backoff
from muster.channel.base import Packet, Post, PostOptions, Visitor
from muster.errors import Broken, Exhausted, Malformed, MusterError, Refused, Unreachable
from muster.fleet.parcel import (
    ASIDES,
    BLOB_PART,
    BLOB_WANT,
    FRAME,
    Heard,
    Item,
    read_parcel,
    write_parcel,
)
from muster.limits import PARCEL_ASIDES_MAX
from muster.log.post import NEVER
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.core import Core
from muster.node.counter import DECLARED, labelled
from muster.node.host import clock
from muster.node.link import Tried
from muster.node.links.asides import Asides
from muster.node.links.blob_parcels import BlobParcels, Check
from muster.node.links.paces import GAPS_S, pace_of
from muster.node.links.parcel_box import ParcelBox
from muster.node.runtime import Runtime
from muster.node.services.parcels import (
    AsideCame,
    LookAt,
    ParcelCame,
    ParcelLeft,
    Parcels,
    ParcelTaken,
    PlaceOpened,
    PostsDue,
)

if TYPE_CHECKING:
    from muster.channel.git import GitPost

DECLARED[__name__] = {
    "parcel-frames-unknown": "A frame in a parcel is none that this version knows.",
    "parcels-left": "A parcel was left in a mailbox.",
    "parcels-refused-<error>": "What lay in a mailbox is no parcel of this fleet for this machine.",
    "place-<what>-<error>": "What came of a packet or place failed, and the rest went on.",
    "post-<error>": "A place for parcels could not be used.",
}

# Whoever meets in a repository looks there so often at most (channel/git.py).
TELLINGS_APART_S: Final = 2.0
# Somebody speaks at a place for so long after the last parcel: the next is waited for.
URGENT_S: Final = 120.0
# What the core deals with, by its place and its name: more than one place may hold the same parcel.
Taken = dict[tuple[str, str], asyncio.Event]


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
        found = [frame for item in items if item.type == FRAME for frame in self._frame(item)]
        return ParcelCame(
            place,
            id,
            parcel.machine,
            Heard(parcel.life, parcel.number),
            parcel.sent_ms,
            parcel.heard_life,
            tuple((frame.type, frame.payload) for frame in found),
            tuple([item for item in items if item.type in ASIDES][:PARCEL_ASIDES_MAX]),
        )

    def _frame(self, item: Item) -> list[frames.Frame]:
        """The frame of an item; none where this version cannot read it, and a later one may."""
        try:
            return [frames.decode(item.body)]
        except Malformed:
            self._core.counters["parcel-frames-unknown"] += 1
            return []


class Place:
    """One post, and how it goes there."""

    def __init__(
        self, daemon: Runtime, spec: Spec, options: PostOptions, post: Post, desk: Desk
    ) -> None:
        self.name, self.where, self.post, self.desk = spec.name, options.place, post, desk
        self.pace, self.core, self._daemon = pace_of(spec.name, options), daemon.core, daemon
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
            self._worked(box.peer)
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
            self._worked(event.peer)
            if event.heard_life == self.core.part(Parcels).life:
                self.proven_ms[event.peer] = self.core.now.boot_ms

    def _worked(self, peer: str) -> None:
        self.failed.pop(peer, None)
        self.met.add(peer)
        self._spoken_s = asyncio.get_running_loop().time()

    async def _rest(self, used_for: str, error: MusterError, backoff: Backoff) -> None:
        self.failed[used_for] = error
        self.core.counters[labelled("post", error)] += 1
        await asyncio.sleep(backoff.failed() / 1000)


class Mailboxes:
    """Every place of this machine; see the rules at the top of this file."""

    def __init__(self, daemon: Runtime, there: asyncio.Event, check: Check) -> None:
        """`there` is set while the disk has room, `check` says who may have which blob."""
        self._daemon, self._core, self._there = daemon, daemon.core, there
        self._places: dict[str, Place] = {}
        self._boxes: dict[int, ParcelBox] = {}
        self._taken: Taken = {}
        self._timer: asyncio.TimerHandle | None = None
        # Repositories of ours of which all were told just now; and that moved since.
        self._telling: dict[str, asyncio.TimerHandle] = {}
        self._untold: set[str] = set()
        desk = Desk(daemon.core)
        visitor = Visitor(
            daemon.core.machine, daemon.home.path, self._survived,
            daemon.core.membership.identity.signer("nats").sign,
            lambda: daemon.machine.credentials(),  # noqa: PLW0108 - as they are then
            variables=daemon.home.variables, wall_ms=lambda: clock.read().wall_ms,
        )  # fmt: skip
        for spec, options in daemon.machine.config.posts():
            # Without it a machine that is told to use a place says so, and does not begin.
            spec._replace(module="muster.channel.sealed").load()
            post = spec.load().open_channel(options, visitor)
            self._places[spec.name] = Place(daemon, spec, options, post, desk)
        self.names = tuple(self._places)
        self._asides = Asides(self._core, self.leave_aside)
        self.blobs = BlobParcels(daemon, self._places, self.box, check)
        # The ways to a machine are over links, and then these.
        links = self._core.ways_to
        self._core.ways_to = lambda peer: [*links(peer), *self.shown(peer)]

    def _survived(self, what: str, error: Exception) -> None:
        self._core.counters[labelled("place", what, error)] += 1

    def begin(self) -> None:
        """Take what lies there, now and for ever."""
        for place in self._places.values():
            self._daemon.post(PlaceOpened(place.name, place.pace))
            take = partial(place.take, self._there, self._taken)
            self._daemon.supervisor.keep("mailboxes", take)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        for telling in self._telling.values():
            telling.cancel()
        for place in self._places.values():
            place.closed = True
            await place.post.close()

    def left_in(self, repo: str) -> None:
        """Parcels were left in a repository of ours: whoever has its place there looks now.

        All are told at once, and after a pause of all that was left meanwhile.
        """
        if repo in self._telling:
            self._untold.add(repo)
            return
        self._tell(repo)

    def _tell(self, repo: str) -> None:
        core, loop = self._core, asyncio.get_running_loop()
        self._telling[repo] = loop.call_later(TELLINGS_APART_S, self._told, repo)
        self.moved(core.machine, repo)
        for machine in {link.peer for link in core.links.values() if link.peer}:
            told = self._daemon.effects.ask(machine, "git.moved", {"repo": repo})
            self._daemon.supervisor.run("git-moved", told)

    def _told(self, repo: str) -> None:
        del self._telling[repo]
        if repo in self._untold:
            self._untold.remove(repo)
            self._tell(repo)

    def moved(self, machine: str, repo: str) -> None:
        """Parcels were left in a repository that a machine keeps; whose place it is looks there."""
        if (place := self._kept_by(machine)) is not None and place.where.endswith(f"/{repo}"):
            cast("GitPost", place.post).ring()

    def came(self, machine: str) -> None:
        """A link to a machine is up: what it told of while there was none was not heard."""
        if (place := self._kept_by(machine)) is not None:
            cast("GitPost", place.post).ring()

    def _kept_by(self, machine: str) -> Place | None:
        """The place that is a repository of this machine, if it is one."""
        place, name = self._places.get("git"), self._core.membership.name_of(MachineId(machine))
        keepers = (f"muster::{name}/", f"muster::{machine}/")
        return place if place is not None and place.where.startswith(keepers) else None

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
            error = place.failed.get("") or place.failed.get(peer)
            state = "worked" if peer in place.met else "untried"
            if error is not None:
                state = "broken" if isinstance(error, Broken) else "failed"
            said = "" if error is None else str(error)
            found.append(Tried(place.name, place.where, state, said))
        return found

    def proven_ms(self, place: str, peer: str) -> int | None:
        """When a machine last answered by a place, in `boot_ms`; None before it did."""
        return self._places[place].proven_ms.get(peer)

    def waiting(self, place: str, peer: str) -> int:
        """Bytes that are still to be left for a machine at a place."""
        number = self._core.part(Parcels).number(place, peer)
        box = None if number is None else self._boxes.get(number)
        return 0 if box is None else box.waiting

    async def ping(self, place: str, peer: str) -> None:
        """Returns when a machine has proved, by a parcel, that it comes by. Raises: Unreachable."""
        number, name = self._core.part(Parcels).number(place, peer), self._core.membership.name_of
        if number is None:
            raise Unreachable(f"there is no mailbox of {name(MachineId(peer))} here yet; try later")
        await self._asides.ping(number, name(MachineId(peer)))

    def leave_aside(self, number: int, aside: Item) -> None:
        """Leave something beside the streams in this mailbox, soon."""
        box = self.box(number)
        if box is not None:
            box.put_aside(aside)

    @ev.effect(AsideCame)
    def _aside_came(self, effect: AsideCame) -> None:
        of_blob = effect.item.type in {BLOB_WANT, BLOB_PART}
        (self.blobs.came if of_blob else self._asides.came)(effect)

    @ev.effect(ParcelTaken)
    def _was_dealt_with(self, effect: ParcelTaken) -> None:
        dealt = self._taken.pop((effect.place, effect.id), None)
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
