"""Machines of `cores.py` with a place where they leave parcels for each other.

    world = Places("hub", "studio")          # no link leads from one to the other
    world.pass_ms(1000)                      # parcels go, too

A parcel lies in the place until the step that dealt with it was committed. `world.lying` is what
lies there by receiver, `world.left` every parcel that was ever left, by writer and receiver.
"""

from collections.abc import Collection, Iterable
from typing import Any

from tests.node.cores import TICK_MS, Cores, One

from muster.channel.base import Packet
from muster.channel.frame import Type
from muster.errors import Refused
from muster.fleet.parcel import FRAME, Item
from muster.limits import PARCEL_BYTES_MAX
from muster.log import segment as segments
from muster.log import wire
from muster.log.pace import Pace
from muster.node import event as ev
from muster.node.links.paces import PACES
from muster.node.links.parcel_desk import Desk
from muster.node.services.parcels import (
    LookAt,
    ParcelLeft,
    Parcels,
    ParcelTaken,
    PlaceOpened,
    PostsDue,
)

PLACE = "shelf"
# Another one, where a machine opens it.
OTHER = "attic"


class Places(Cores):
    """See the top of this file."""

    def __init__(
        self, *names: str, pace: Pace = PACES["drop"], visitors: Collection[str] = (), **more: Any
    ) -> None:
        self.pace = pace
        # By the name of the machine.
        self.lying: dict[str, dict[str, bytes]] = {}
        # Of what was left elsewhere than at the first place: where.
        self.elsewhere: dict[str, str] = {}
        self.desks: dict[str, Desk] = {}
        self.look_at: dict[str, int] = {}
        self.said: dict[tuple[str, int], list[bytes]] = {}
        self.left: list[tuple[str, str, bytes]] = []
        self.refused: list[str] = []
        # Machines that do not come by, and whether the place is away.
        self.absent: set[str] = set()
        self.away = False
        # Machines from which the first place takes nothing.
        self.full: set[str] = set()
        self._number = 0
        super().__init__(*names, **more)
        for machine in self.machines.values():
            if machine.name in (visitors or self.machines):
                self.open(machine)

    def open(self, machine: One) -> None:
        """The machine goes to the place from now on; again after a restart."""
        self.desks[machine.name] = Desk(machine.core)
        self.said = {key: value for key, value in self.said.items() if key[0] != machine.name}
        machine.step(PlaceOpened(PLACE, self.pace))

    def carry_out(self, machine: One, effects: list[ev.Effect]) -> None:
        others = []
        for effect in effects:
            match effect:
                case ev.Send(link=number) if number < 0:
                    self.said.setdefault((machine.name, number), []).append(effect.frame)
                case ParcelTaken():
                    self.lying.get(machine.name, {}).pop(effect.id, None)
                case LookAt():
                    self.look_at[machine.name] = effect.at_ms
                case _:
                    others.append(effect)
        super().carry_out(machine, others)

    def pass_ms(self, ms: int) -> None:
        for _ in range(ms // TICK_MS):
            super().pass_ms(TICK_MS)
            self.come_by()

    def come_by(self) -> None:
        """Each machine leaves what it has to say, then takes what is for it."""
        alive = [m for m in self.machines.values() if m.name not in self.frozen]
        for machine in alive:
            if self.now().boot_ms >= self.look_at.get(machine.name, 1 << 60):
                machine.step(PostsDue())
        for machine in [] if self.away else alive:
            self.leave(machine)
        for machine in [] if self.away else alive:
            if machine.name not in self.absent and machine.name in self.desks:
                self.take(machine)
        self.drain()

    def restart(self, name: str, image: bytes | None = None) -> None:
        """Kill a machine; what it had said and not left is gone with it."""
        super().restart(name, image)
        self.look_at.pop(name, None)
        self.open(self[name])

    def frames(self, since: int = 0) -> list[tuple[str, str, Any]]:
        """What was left since then: by whom, for whom, and each message or segment."""
        found = []
        for writer, to, packet in self.left[since:]:
            opened = self.desks[to].open(PLACE, Packet("", packet))
            for type, raw in opened.frames:
                read = segments.decode if type is Type.SEGMENT else wire.decode
                found.append((writer, to, read(raw)))
        return found

    def leave(self, machine: One) -> None:
        for name, number in [key for key in self.said if key[0] == machine.name]:
            frames = self.said.pop((name, number))
            place, peer = machine.core.part(Parcels).box(number)
            if place == PLACE and name in self.full:
                continue
            to = next((m for m in self.machines.values() if m.id == peer), None)
            while frames and to is not None:
                items, left = [], PARCEL_BYTES_MAX
                while frames and (left := left - len(frames[0]) - 5) >= 0:
                    items.append(Item(FRAME, frames.pop(0)))
                self.put(machine, to, self.desks[name].write(peer, items), place)
            machine.step(ParcelLeft(number))

    def put(self, machine: One, to: One, packet: bytes, place: str = PLACE) -> None:
        self._number += 1
        if place != PLACE:
            self.elsewhere[str(self._number)] = place
        self.lying.setdefault(to.name, {})[str(self._number)] = packet
        self.left.append((machine.name, to.name, packet))

    def take(self, machine: One, packets: Iterable[Packet] = ()) -> None:
        """Deal with what lies there, or with something else."""
        lying = self.lying.get(machine.name, {})
        for packet in list(packets) or [Packet(*each) for each in lying.items()]:
            try:
                place = self.elsewhere.get(packet.id, PLACE)
                came = self.desks[machine.name].open(place, packet)
            except Refused as error:
                self.refused.append(f"{type(error).__name__}: {error}")
                lying.pop(packet.id, None)
                continue
            machine.step(came)
