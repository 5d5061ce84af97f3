"""The mailboxes of one machine, at all its places, and how they are.

Rule 1: what is said to a machine gathers until its mailbox took what was said before, and is
bounded: what finds no room is dropped, and offered again by whoever keeps the streams.
Rule 2: what becomes of one place (place.py) costs no other a moment.
"""

import asyncio
from functools import partial
from typing import TYPE_CHECKING, Final, cast

from muster.channel.base import Post, Visitor
from muster.errors import Broken, Unreachable
from muster.fleet.parcel import BLOB_PART, BLOB_WANT, Item
from muster.log.post import NEVER
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED, labelled
from muster.node.host import clock
from muster.node.link import Tried, Try
from muster.node.links.asides import Asides
from muster.node.links.blob_parcels import BlobParcels, Check
from muster.node.links.parcel_box import ParcelBox
from muster.node.links.parcel_desk import Desk
from muster.node.links.place import Place, Taken
from muster.node.runtime import Runtime
from muster.node.services.parcels import (
    AsideCame,
    LookAt,
    Parcels,
    ParcelTaken,
    PlaceOpened,
    PostsDue,
)

if TYPE_CHECKING:
    from muster.channel.git import GitPost

DECLARED[__name__] = {
    "place-<what>-<error>": "What came of a packet or place failed, and the rest went on.",
}

# Whoever meets in a repository looks there so often at most (channel/git.py).
TELLINGS_APART_S: Final = 2.0


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
            secrets=desk.names.secrets, reads_names=desk.names.reads,
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
        links, tries = self._core.ways_to, self._core.tries_of
        self._core.ways_to = lambda peer: [*links(peer), *self.shown(peer)]
        self._core.tries_of = lambda peer: sorted(
            [*tries(peer), *self.tries(peer)], key=lambda each: each.ms_ago
        )

    def _survived(self, what: str, error: Exception) -> None:
        self._core.counters[labelled("place", what, error)] += 1

    def post_of(self, name: str) -> Post | None:
        """The place of this name that this machine uses."""
        return self._places[name].post if name in self._places else None

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

    def tries(self, peer: str) -> list[Try]:
        """What became of what was left for a machine at each place, and when it spoke there."""
        now_s = asyncio.get_running_loop().time()
        return [
            Try(place.name, round((now_s - each.at_s) * 1000), each.outcome, each.why)
            for place in self._places.values()
            if peer in place.health
            for each in place.health[peer].noted
        ]

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
