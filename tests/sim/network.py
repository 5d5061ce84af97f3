"""Links between simulated machines: what is sent may be lost, doubled, late, or in another order.

Two machines may have several links; each of them may be silent for a while, as a dead one is.

Rule 1: a link belongs to two running processes. When one of them dies, or a partition parts
them, the link is gone for good and the other end learns of it; a new one has new numbers.
Rule 2: what a link carries is frames, as bytes; only a mute one looks at their types.
"""

import random
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from muster.channel import FIRST
from muster.channel import frame as frames
from muster.channel.frame import Type
from muster.node import event as ev

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

# The channel of links that are not of the best one.
WORSE = "sim"
BATCH_MS = 4
HEALTHY_MS = 20
DIAL_MS_MIN, DIAL_MS_MAX = 20, 300


@dataclass(slots=True)
class Wire:
    """One link: its two ends, and when the last frame towards each will have arrived."""

    number: int
    ends: "tuple[Machine, Machine]"
    channel: str
    since_ms: int = 0
    # The machine in the middle, where there is one.
    through: "Machine | None" = None
    up: bool = True
    last_ms: dict[str, int] = field(default_factory=dict)

    def other(self, machine: "Machine") -> "Machine":
        return self.ends[1] if self.ends[0] is machine else self.ends[0]


def _greets(frame: bytes) -> bool:
    return frames.decode(frame).type is Type.HELLO


class Network:
    """Every link of one world."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.wires: dict[int, Wire] = {}
        self.healthy = False
        self.parted: set[frozenset[str]] = set()
        # Links that carry nothing and say nothing of it.
        self.silent: set[int] = set()
        # Links that carry the greeting and nothing else.
        self.mute: set[int] = set()
        # Which end of a link sends so many frames more before it ends.
        self._left: dict[int, tuple[str, int]] = {}
        self._tearing = random.Random(f"torn/{world.seed}")
        self._dialling: set[frozenset[str]] = set()
        self._last = 10

    # --- links ---------------------------------------------------------------------------

    def between(self, one: "Machine", other: "Machine") -> list[Wire]:
        return [w for w in self.wires.values() if one in w.ends and other in w.ends]

    def of(self, machine: "Machine") -> list[Wire]:
        return [w for w in self.wires.values() if machine in w.ends]

    def dial_all(self, machine: "Machine") -> None:
        """The machine runs: it and every other dial each other, each pair after its own delay."""
        for other in self.world.machines.values():
            if other is not machine and other.id != machine.id:
                self.dial(machine, other)

    def dial(self, one: "Machine", other: "Machine", after_ms: int = 0) -> None:
        pair = frozenset((one.place, other.place))
        if pair in self._dialling:
            return
        self._dialling.add(pair)
        delay = after_ms + self.world.rng.randint(DIAL_MS_MIN, DIAL_MS_MAX)
        self.world.later(delay, lambda: self._dialled(one, other, pair))

    def _dialled(self, one: "Machine", other: "Machine", pair: frozenset[str]) -> None:
        world = self.world
        self._dialling.discard(pair)
        there = self._there(one, other)
        if not (one.awake and other.awake) or pair in self.parted or there > world.faults.paths:
            return
        if {one.index, other.index} & set(world.faults.apart):
            return
        middle = world.middle.middle_of(one, other)
        if middle and not (self.between(one, middle) and self.between(middle, other)):
            self.dial(one, other, 1_000)
            return
        better = {wire.channel for wire in self.between(one, other)} >= {FIRST}
        worse = better or not world.faults.climbs
        self.link(one, other, WORSE if worse else FIRST, through=middle)
        if there < world.faults.paths:
            self.dial(one, other)

    def _there(self, one: "Machine", other: "Machine") -> int:
        """How many links of two machines are no reason to dial: what is silent may be dead."""
        climbs = self.world.faults.climbs
        wires = self.between(one, other)
        return sum(not climbs or wire.number not in self.silent for wire in wires)

    def link(
        self, one: "Machine", other: "Machine", channel: str, *, mute: bool = False,
        through: "Machine | None" = None,
    ) -> None:  # fmt: skip
        """A link stands; a mute one carries the greeting and nothing else."""
        self._last += 1
        wire = Wire(self._last, (one, other), channel, self.world.ms, through)
        self.world.reached["relayed"] += through is not None
        self.wires[wire.number] = wire
        if mute:
            self.mute.add(wire.number)
        self.world.trace("link", f"{one.place} {other.place} {wire.number}")
        for end in wire.ends:
            peer = wire.other(end)
            by = through.id if through is not None else ""
            end.arrive(ev.LinkUp(wire.number, peer.id, False, channel, by))

    def seek(self, machine: "Machine", number: int) -> None:
        """A machine is told that nothing is answered over a link: it dials once more."""
        wire = self.wires.get(number)
        if wire is not None and self.world.faults.climbs:
            self.world.reached["sought"] += 1
            self.dial(machine, wire.other(machine))

    def part(self, one: "Machine", other: "Machine") -> None:
        """A partition between two machines."""
        self.parted.add(frozenset((one.place, other.place)))
        for wire in self.between(one, other):
            self.down(wire, "partition")

    def join(self, one: "Machine", other: "Machine") -> None:
        self.parted.discard(frozenset((one.place, other.place)))
        self.dial(one, other)

    def down(self, wire: Wire, reason: str) -> None:
        """The link is gone; both ends learn of it, as far as they live."""
        if self.wires.pop(wire.number, None) is None:
            return
        wire.up = False
        self.world.trace("cut", f"{wire.number} {reason}")
        for end in wire.ends:
            if end.core is not None:
                end.arrive(ev.LinkDown(wire.number))
        one, other = wire.ends
        self.dial(one, other, 500 if reason == "lost" else 2_000)
        for each in list(self.wires.values()):
            if each.through in wire.ends and wire.other(each.through) in each.ends:
                self.down(each, "middle")

    def died(self, machine: "Machine") -> None:
        """A process is gone: its links are, too."""
        for wire in [wire for wire in self.wires.values() if wire.through is machine]:
            self.down(wire, "middle")
        for wire in self.of(machine):
            del self.wires[wire.number]
            wire.up = False
            other = wire.other(machine)
            if other.core is not None:
                other.arrive(ev.LinkDown(wire.number))

    # --- frames ----------------------------------------------------------------------------

    def batch(self, sender: "Machine", effects: list[ev.Effect]) -> None:
        """What a step wants sent leaves now; a link may end between two frames of it."""
        rng, torn = self._tearing, self.world.faults.torn
        if not torn or self.healthy or rng.random() >= torn:
            return
        sent = Counter(effect.link for effect in effects if isinstance(effect, ev.Send))
        free = self.wires.keys() - self._left.keys()
        links = [n for n, frames in sent.items() if frames > 1 and n in free]
        if links:
            number = rng.choice(links)
            self._left[number] = (sender.place, rng.randrange(1, sent[number]))

    def _is_beyond(self, wire: Wire, sender: "Machine") -> bool:
        """Whether a frame comes after the last one that a link carries; its end is then near."""
        place, left = self._left.get(wire.number, ("", 0))
        if place != sender.place:
            return False
        self._left[wire.number] = (place, left - 1)
        if left == 0:
            self.world.reached["torn"] += 1
            # What went before it arrives.
            ends_ms = max([self.world.ms, *wire.last_ms.values()]) + 1
            self.world.at(ends_ms, lambda: self.down(wire, "lost"))
        return left <= 0

    def send(self, sender: "Machine", number: int, frame: bytes) -> None:
        world, wire = self.world, self.wires.get(number)
        if wire is None or sender not in wire.ends:
            return
        world.counts["frames"] += 1
        if self._is_beyond(wire, sender):
            return
        for each in world.middle.passes_on(wire, sender, frame):
            self.carry(wire, sender, each)

    def carry(self, wire: Wire, sender: "Machine", frame: bytes) -> None:
        """A frame goes over a link, as well as it does."""
        world, number = self.world, wire.number
        faults, rng = world.faults, world.rng
        if self.healthy:
            if number in self.silent or (number in self.mute and not _greets(frame)):
                return
            at = (world.ms // HEALTHY_MS + 1) * HEALTHY_MS
            self._deliver_at(at, wire, wire.other(sender), frame)
            return
        if faults.loss and rng.random() < faults.loss:
            world.reached["loss"] += 1
            return
        if (sender.place, wire.other(sender).place) in world.injector.blocked:
            world.reached["one-way-loss"] += 1
            return
        if number in self.silent:
            world.reached["silence"] += 1
            return
        copies = 1
        if faults.duplication and rng.random() < faults.duplication:
            world.reached["duplication"] += 1
            copies = 2
        for _ in range(copies):
            at = world.ms + 1 + int(rng.random() ** 3 * faults.delay_ms_max)
            # What arrives within a few milliseconds is one batch, as for the daemon.
            at += -at % BATCH_MS
            self._deliver_at(at, wire, wire.other(sender), frame)

    def _deliver_at(self, at: int, wire: Wire, to: "Machine", frame: bytes) -> None:
        last = wire.last_ms.get(to.place, 0)
        if at < last:
            if self.world.faults.reorder and not self.healthy:
                self.world.reached["reorder"] += 1
            else:
                at = last
        wire.last_ms[to.place] = max(at, last)
        self.world.at(at, lambda: self._deliver(wire, to, frame))

    def _deliver(self, wire: Wire, to: "Machine", frame: bytes) -> None:
        if wire.up and to.core is not None:
            found = frames.decode(frame)
            attacker = self.world.attacker
            if attacker is not None and attacker.machine is to:
                attacker.heard = [*attacker.heard[-50:], frame]
            to.arrive(ev.Arrived(wire.number, found.type, found.channel, found.payload))
