"""A place where simulated machines leave parcels for each other, and what it does with them.

It withholds parcels, changes a byte, gives them twice or again much later, in any order, and it is away
for a while; or it loses what it had acknowledged: the newest, some in the middle, all. When the world heals it does what it is told: it keeps what lies there, and gives it.

Nothing is sealed here: age draws numbers of its own, and a seed would not replay.
"""

import random
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

NAME = "shelf"
PACE = Pace(1_000, 8_000, 600_000, 8 * 1024 * 1024)
# How often a machine comes by.
COME_MS_MIN, COME_MS_MAX = 50, 600
KEPT_MAX = 200


class Places:
    """The one place of a world; `faults.place` says how often it does something to a parcel."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"places/{world.seed}")
        # By receiver and the parcel's name there.
        self.lying: dict[str, dict[str, bytes]] = {}
        self.kept: list[tuple[str, bytes]] = []
        # What each process said and has not left yet, by its mailbox.
        self._said: dict[tuple[str, int], dict[int, list[bytes]]] = {}
        self._away_until_ms = 0
        self._number = 0

    def open(self, machine: "Machine") -> None:
        """A process begins, and comes by from now on."""
        faults = self.world.faults
        if faults.place and (machine.index in faults.visitors or not faults.visitors):
            machine.arrive(PlaceOpened(NAME, PACE))
            assert machine.core is not None
            self._come_later(machine, Desk(machine.core), machine.starts)

    def _come_later(self, machine: "Machine", desk: Desk, start: int) -> None:
        def come() -> None:
            if machine.starts != start or machine.core is None:
                return
            if machine.awake and self.world.ms >= self._away_until_ms and not machine.waits:
                self._leave(machine, desk)
                self._take(machine, desk)
            self._come_later(machine, desk, start)

        self.world.later(self.rng.randint(COME_MS_MIN, COME_MS_MAX), come)

    def say(self, machine: "Machine", box: int, frame: bytes) -> None:
        """The machine has something for a mailbox."""
        assert machine.core is not None
        _, peer = machine.core.part(Parcels).box(box)
        # Of two copies that run none gives receipts, so its writers leave what is new here as well.
        self.world.checker.sent(machine, frame, counts=peer not in self.world.cloned)
        said = self._said.setdefault((machine.place, machine.starts), {})
        said.setdefault(box, []).append(frame)

    def look_at(self, machine: "Machine", effect: LookAt) -> None:
        """Something will be due then, in this process."""
        start = machine.starts
        at_ms = min(effect.at_ms + machine.booted_ms, self.world.ms + 10_000_000)
        due = lambda: machine.when_awake(start, lambda: machine.arrive(PostsDue()))  # noqa: E731
        self.world.at(at_ms, due)

    def forget(self, machine: "Machine", effect: ParcelTaken) -> None:
        self.lying.get(machine.id, {}).pop(effect.id, None)

    def _leave(self, machine: "Machine", desk: Desk) -> None:
        assert machine.core is not None
        for box, frames in self._said.pop((machine.place, machine.starts), {}).items():
            _, peer = machine.core.part(Parcels).box(box)
            while frames and peer:
                items, left = [], PARCEL_BYTES_MAX
                while frames and (left := left - len(frames[0]) - 5) >= 0:
                    items.append(Item(FRAME, frames.pop(0)))
                self._put(peer, desk.parcel(peer, items))
            machine.arrive(ParcelLeft(box))

    def _put(self, peer: str, raw: bytes) -> None:
        world, rng = self.world, self.rng
        world.counts["parcels"] += 1
        if not world.healed and rng.random() < world.faults.place:
            what = rng.choice(("withhold", "mutate", "double", "replay", "away"))
            world.reached["place-" + what] += 1
            world.trace("place", what)
            if what == "withhold":
                return
            if what == "mutate":
                at = rng.randrange(len(raw))
                raw = raw[:at] + bytes([raw[at] ^ 1 << rng.randrange(8)]) + raw[at + 1 :]
            elif what == "double":
                self._lie(peer, raw)
            elif what == "replay" and self.kept:
                self._lie(*rng.choice(self.kept))
            elif what == "away":
                self._away_until_ms = world.ms + rng.choice((300, 2_000, 8_000))
        self.kept = [*self.kept[-KEPT_MAX:], (peer, raw)]
        self._lie(peer, raw)
        if world.faults.loses and not world.healed and rng.random() < world.faults.loses:
            self._lose()

    def _lose(self) -> None:
        """What lies here is gone, and nobody is told."""
        what = self.rng.choice(("tail", "middle", "all"))
        self.world.reached["place-loses-" + what] += 1
        for lying in self.lying.values():
            names = sorted(lying, key=int)
            half = len(names) // 2
            lost = {"tail": names[half:], "middle": names[half : half + 1], "all": names}[what]
            for name in lost:
                del lying[name]

    def _lie(self, peer: str, raw: bytes) -> None:
        self._number += 1
        self.lying.setdefault(peer, {})[str(self._number)] = raw

    def _take(self, machine: "Machine", desk: Desk) -> None:
        lying = self.lying.get(machine.id, {})
        names = sorted(lying)
        self.rng.shuffle(names)
        for name in names[:64]:
            try:
                came = desk.judge(NAME, name, lying[name])
            except Refused as error:
                self.world.reached["parcel-" + type(error).__name__.lower()] += 1
                del lying[name]
                continue
            machine.arrive(came)
