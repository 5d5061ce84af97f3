"""Places where simulated machines leave parcels for each other, and what becomes of them there.

There are two, each where its faults say so: the shelf, which is hostile (shelf.py), and the engine,
which forgets (engine.py). This file is how a machine goes there, which is as the daemon does
(node/links/posts.py): what is said gathers, is left in parcels one after the other, and what could
not be left is tried again as it is, until the process ends.

A place may die amid that (`Faults.breaks`): what was left before lies there, of the parcel with
which it died nobody knows, and the rest waits.

Nothing is sealed here: age draws numbers of its own, and a seed would not replay. So a place reads
all, and changes what it likes.
"""

import random
from collections.abc import Iterable
from typing import TYPE_CHECKING

from muster.errors import Refused
from muster.fleet.parcel import FRAME, Item
from muster.limits import PARCEL_BYTES_MAX
from muster.log.pace import Pace
from muster.node.links.parcel_desk import Desk
from muster.node.services.parcels import (
    LookAt,
    ParcelLeft,
    Parcels,
    ParcelTaken,
    PlaceOpened,
    PostsDue,
)

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

PACE = Pace(1_000, 8_000, 600_000, 8 * 1024 * 1024)
# How often a machine comes by.
COME_MS_MIN, COME_MS_MAX = 50, 600
TAKEN_MAX = 64
# Where a place dies amid what is left, a parcel has so few frames, or there is only one.
FRAMES_MAX = 3
AWAY_MS = (300, 2_000, 8_000)


class Place:
    """One place. What lies there, and what is done to it, is its kind's affair."""

    name = ""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"{self.name}/{world.seed}")
        # What each process said and has not left yet, by its mailbox; and what it tries again.
        self._said: dict[tuple[str, int], dict[int, list[bytes]]] = {}
        self._again: dict[tuple[str, int], dict[int, bytes]] = {}
        self._away_until_ms = 0

    # --- what a kind of place does ---------------------------------------------------------

    def keep(self, peer: str, raw: bytes) -> None:
        """A parcel was left for this machine."""
        raise NotImplementedError

    def shows(self, machine: "Machine") -> Iterable[tuple[str, bytes]]:
        """What this machine sees there now: a name and a parcel each."""
        raise NotImplementedError

    def forget(self, machine: "Machine", name: str) -> None:
        """The machine has dealt with what it saw under this name."""
        raise NotImplementedError

    @property
    def honest(self) -> bool:
        """Whether it does what it is told, and nothing else."""
        return self.world.healed

    def goes_away(self) -> None:
        self._away_until_ms = self.world.ms + self.rng.choice(AWAY_MS)

    def did(self, what: str) -> None:
        self.world.reached[f"{self.name}-{what}"] += 1
        self.world.trace(self.name, what)

    # --- what a machine does there -----------------------------------------------------------

    def open(self, machine: "Machine") -> None:
        """A process begins, and comes by from now on."""
        machine.arrive(PlaceOpened(self.name, PACE))
        assert machine.core is not None
        self._come_later(machine, Desk(machine.core), machine.starts)

    def _come_later(self, machine: "Machine", desk: Desk, start: int) -> None:
        def come() -> None:
            if machine.starts != start or machine.core is None:
                return
            if machine.awake and self._is_there() and not machine.waits:
                self._leave(machine, desk)
                if self._is_there():
                    self._take(machine, desk)
            self._come_later(machine, desk, start)

        self.world.later(self.rng.randint(COME_MS_MIN, COME_MS_MAX), come)

    def _is_there(self) -> bool:
        return self.world.ms >= self._away_until_ms

    def say(self, machine: "Machine", box: int, frame: bytes) -> None:
        """The machine has something for a mailbox here."""
        said = self._said.setdefault((machine.place, machine.starts), {})
        said.setdefault(box, []).append(frame)

    def _leave(self, machine: "Machine", desk: Desk) -> None:
        assert machine.core is not None
        process = machine.place, machine.starts
        said, again = self._said.get(process, {}), self._again.setdefault(process, {})
        for box, frames in list(said.items()):
            _, peer = machine.core.part(Parcels).box(box)
            before = 0
            while peer and (box in again or frames):
                raw = again.pop(box, b"") or desk.parcel(peer, self._items(frames))
                if self._dies():
                    self.did("dies-amid" if before or frames else "dies")
                    if self.rng.random() < 0.5:
                        # It lies there, and nobody heard so.
                        self._left(peer, raw)
                    again[box] = raw
                    self.goes_away()
                    return
                self._left(peer, raw)
                before += 1
            del said[box]
            again.pop(box, None)
            machine.arrive(ParcelLeft(box))

    def _items(self, frames: list[bytes]) -> list[Item]:
        """What goes into the next parcel."""
        most = self.rng.randint(1, FRAMES_MAX) if self.world.faults.breaks else len(frames)
        items, left = list[Item](), PARCEL_BYTES_MAX
        while frames and len(items) < most and (left := left - len(frames[0]) - 5) >= 0:
            items.append(Item(FRAME, frames.pop(0)))
        return items

    def _dies(self) -> bool:
        breaks = self.world.faults.breaks
        return bool(breaks) and not self.world.healed and self.rng.random() < breaks

    def _left(self, peer: str, raw: bytes) -> None:
        self.world.counts["parcels"] += 1
        self.world.checker.left(peer, raw)
        self.keep(peer, raw)

    def _take(self, machine: "Machine", desk: Desk) -> None:
        for name, raw in list(self.shows(machine))[:TAKEN_MAX]:
            try:
                came = desk.judge(self.name, name, raw)
            except Refused as error:
                self.world.reached["parcel-" + type(error).__name__.lower()] += 1
                self.forget(machine, name)
                continue
            self.world.checker.took(machine, raw)
            machine.arrive(came)


class Places:
    """Every place of one world."""

    def __init__(self, world: "World", places: Iterable[Place]) -> None:
        self.world = world
        self._places = {place.name: place for place in places}
        self.there = bool(self._places)

    def open(self, machine: "Machine") -> None:
        """A process begins, and comes by at each place from now on."""
        visitors = self.world.faults.visitors
        if machine.index in visitors or not visitors:
            for place in self._places.values():
                place.open(machine)

    def say(self, machine: "Machine", box: int, frame: bytes) -> None:
        """The machine has something for a mailbox."""
        assert machine.core is not None
        name, peer = machine.core.part(Parcels).box(box)
        # Of two copies that run none gives receipts, so its writers leave what is new here as well.
        self.world.checker.sent(machine, frame, counts=peer not in self.world.cloned)
        if name:
            self._places[name].say(machine, box, frame)

    def look_at(self, machine: "Machine", effect: LookAt) -> None:
        """Something will be due then, in this process."""
        start = machine.starts
        at_ms = min(effect.at_ms + machine.booted_ms, self.world.ms + 10_000_000)
        due = lambda: machine.when_awake(start, lambda: machine.arrive(PostsDue()))  # noqa: E731
        self.world.at(at_ms, due)

    def forget(self, machine: "Machine", effect: ParcelTaken) -> None:
        self._places[effect.place].forget(machine, effect.id)
