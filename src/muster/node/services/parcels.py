"""Parcels of mailboxes: what one says reaches the streams, and what is due is said.

Rule 1: a parcel came through hands that may keep it, and give it again in a year. Entries and
receipts prove themselves and may come at any time. What only says how things stand counts where it
is the newest that this process of its writer said; what asks for entries, only where the writer
knew that this very process runs. So nothing old moves anything back.
Rule 2: no presence comes of it: nobody is called, assigned work or thought to be here for a parcel.
Rule 3: a parcel is forgotten by its place after the commit of the step that dealt with it, whatever
came of it: it is never read twice. What failed was not receipted, so its writer says it again.
"""

from collections import OrderedDict
from typing import TYPE_CHECKING

import msgspec

from muster.channel.frame import Type
from muster.errors import Malformed, Refused
from muster.fleet.parcel import BLOB_WANT, MEND, Heard, Item
from muster.limits import LIVES_REMEMBERED
from muster.log import wire
from muster.log.pace import Pace
from muster.log.post import NEVER
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.incarnations.lives import Lives
from muster.node.part import Part
from muster.node.services.mending import MendAsked

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "parcels-came": "A parcel of a machine of this fleet was dealt with.",
    "parcels-again": "A parcel came that is older than another of the same process.",
}


# What moves something back, or is answered each time.
_ASKS = (wire.Want, wire.Witnessed, wire.Probe, wire.Prove)


class PlaceOpened(ev.Event, frozen=True):
    """There is a place where machines leave parcels for each other."""

    place: str
    pace: Pace


class ParcelCame(ev.Event, frozen=True):
    """A parcel was taken, and proved to be by `peer` for this machine; `id` names it there."""

    place: str
    id: str
    peer: str
    said: Heard
    # The writer's wall clock, which orders what is taken together.
    sent_ms: int
    # The life that the writer heard last of this machine.
    heard_life: str
    frames: tuple[tuple[Type, bytes], ...]
    # What it says beside the streams (node/links/asides.py).
    asides: tuple[Item, ...] = ()


class ParcelLeft(ev.Event, frozen=True):
    """All that was said to a mailbox lies there now."""

    box: int


class PostsDue(ev.Event, frozen=True):
    """The time that `LookAt` named has come."""


class ParcelTaken(ev.Effect, frozen=True):
    """What the parcel said is durable: the place may forget it."""

    place: str
    id: str


class AsideCame(ev.Effect, frozen=True):
    """Something beside the streams came in a parcel of the machine of this mailbox.

    `newer`: the parcel is the newest of its process, and no old one that a place gives again.
    """

    box: int
    item: Item
    newer: bool


class LookAt(ev.Effect, frozen=True):
    """Bring `PostsDue` at this time, and no other: milliseconds since the start."""

    at_ms: int


class Parcels(Part):
    """The mailboxes of this machine: one for each other machine, at each place."""

    name = "parcels"
    effects = (ParcelTaken, AsideCame, LookAt)

    def __init__(self, core: "Core") -> None:
        self._core, self._posts = core, core.sync.posts
        self._life = core.part(Lives).life
        self._places: dict[str, Pace] = {}
        self._boxes: dict[tuple[str, str], int] = {}
        self._dealt: list[ParcelTaken] = []
        self._look_at_ms = NEVER
        # Of each machine the newest number of each of its lives, and what to say was heard of it.
        self._newest: dict[str, OrderedDict[str, int]] = {}
        self._heard: dict[str, Heard] = {}
        core.on(PlaceOpened, self._opened)
        core.on(ParcelCame, self._came)
        core.on(ParcelLeft, lambda event: self._posts.left(event.box, core.now.boot_ms))
        core.on(PostsDue, lambda _: self._woken())
        core.on(ev.RosterChanged, lambda _: self._open())
        core.on(ev.MachineHere, lambda _: self._posts.links_changed())
        core.on(ev.MachineGone, lambda _: self._posts.links_changed())
        # Apart: what fails in one of them takes nothing from the other.
        core.on(ev.Committed, lambda _: self._forget())
        core.on(ev.Committed, lambda _: self._look())

    @property
    def life(self) -> str:
        """The life of this process, which its parcels name."""
        return self._life

    def heard(self, peer: str) -> Heard:
        """The newest parcel of a machine that counted."""
        return self._heard.get(peer, Heard())

    def box(self, number: int) -> tuple[str, str]:
        """The place and the machine of a mailbox; of one that is no more, two empty words."""
        return next((key for key, each in self._boxes.items() if each == number), ("", ""))

    def number(self, place: str, peer: str) -> int | None:
        """The mailbox of a machine at a place; None where there is none."""
        return self._boxes.get((place, peer))

    def _opened(self, event: PlaceOpened) -> None:
        self._places[event.place] = event.pace
        self._open()

    def _open(self) -> None:
        """A mailbox for each machine that is in the fleet, and for none that is not any more."""
        core = self._core
        peers = core.roster.machines.keys() - {core.machine}
        for key in [key for key in self._boxes if key[1] not in peers]:
            del self._boxes[key]
        for peer in self._newest.keys() - peers:
            del self._newest[peer]
            self._heard.pop(peer, None)
        for place, pace in self._places.items():
            fresh = [MachineId(p) for p in sorted(peers) if (place, p) not in self._boxes]
            if fresh:
                numbers = self._posts.open(place, fresh, pace, core.now.boot_ms)
                self._boxes |= {(place, p): n for p, n in zip(fresh, numbers, strict=True)}

    def _came(self, event: ParcelCame) -> None:
        # Before anything is done: what fails below is undone, and this is not (rule 3).
        self._dealt.append(ParcelTaken(event.place, event.id))
        core, number = self._core, self._boxes.get((event.place, event.peer))
        if number is None:
            return
        core.counters["parcels-came"] += 1
        lives = self._newest.setdefault(event.peer, OrderedDict())
        newer = event.said.number > lives.get(event.said.life, -1)
        if lives and event.said.life not in lives:
            # Another process than the one that was told all, at whichever place.
            for (_, peer), box in self._boxes.items():
                if peer == event.peer:
                    self._posts.began_anew(box, core.now.boot_ms)
        if newer:
            lives[event.said.life] = event.said.number
            lives.move_to_end(event.said.life)
            if len(lives) > LIVES_REMEMBERED:
                lives.popitem(last=False)
            self._heard[event.peer] = event.said
            core.tell(ev.LeftWord(event.peer))
        else:
            core.counters["parcels-again"] += 1
        who = core.membership.name_of(MachineId(event.peer))
        asks = newer and event.heard_life == self._life
        for type, raw in event.frames:
            core.guard.run("parcel", who, self._frame, number, who, type, raw, newer, asks)
        for item in event.asides:
            if item.type == MEND:
                if newer:
                    core.do(MendAsked(event.peer, item.body))
            elif asks or item.type != BLOB_WANT:
                core.do(AsideCame(number, item, newer))
        if newer:
            self._posts.heard(number, core.now.boot_ms)

    def _frame(  # noqa: PLR0917 - what a frame is, and how far it counts
        self, number: int, who: str, type: Type, raw: bytes, newer: bool, asks: bool
    ) -> None:
        streams, now = self._core.replication, self._core.now
        try:
            match type:
                case Type.SEGMENT:
                    streams.on_segment(number, raw, *now)
                case Type.OFFER | Type.WANT | Type.COSIGN:
                    message = wire.decode(raw)
                    if isinstance(message, wire.Offer):
                        # Nobody answers a greeting here, so none is said to be whole.
                        heads = message.heads if newer else []
                        message = msgspec.structs.replace(message, heads=heads, whole=False)
                    elif isinstance(message, _ASKS) and not asks:
                        return
                    streams.on_said(number, message, *now)
                case _:
                    raise Malformed(f"a {type.name} frame has no place in a parcel")
        except Refused as error:
            self._core.note(f"refused from {who}: {error}")
            streams.fault(number, error)

    def _woken(self) -> None:
        # Should it be a moment too early, it is asked for once more.
        self._look_at_ms = NEVER

    def _forget(self) -> None:
        dealt, self._dealt = self._dealt, []
        for each in dealt:
            self._core.do(each)

    def _look(self) -> None:
        core = self._core
        at_ms = self._posts.look(core.now.boot_ms)
        if at_ms != self._look_at_ms:
            self._look_at_ms = at_ms
            core.do(LookAt(at_ms))
