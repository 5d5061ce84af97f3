"""What may go wrong, and the drawing of it: each seed gets its own random subset (swarm testing)."""

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from muster.store.mark import Mark
from tests.sim.machine import Disk, Machine

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass(frozen=True)
class Faults:
    """One world's faults. `loss` and `duplication` are per frame, `crash` per step, the rest per second."""

    machines: int = 0
    stormy_ms: int = 6_000
    healing_ms: int = 200_000
    tasks: int = 5
    messages: int = 6
    runs: int = 0
    # Runs with a review, which rejects as often as not.
    reviews: int = 0
    # Runs that spend from a pot (money.py).
    money: int = 0
    groups: int = 0
    # How often an agent asks a person for a permission (asking.py).
    approvals: float = 0.0
    # Links that prove nothing, per second.
    strangers: float = 0.0
    # How often what a machine begins outside finds no descriptor.
    # How often a machine gets another name.
    renames: int = 0
    scarce: float = 0.0
    full: float = 0.0
    repository: float = 0.6
    loss: float = 0.0
    duplication: float = 0.0
    delay_ms_max: int = 30
    reorder: bool = False
    crash: float = 0.0
    # Where a crash comes, when not anywhere.
    crash_kind: str = ""
    kill: float = 0.0
    partition: float = 0.0
    one_way: float = 0.0
    # How many links more than one two machines have, and how often one of them falls silent.
    paths: int = 0
    silence: float = 0.0
    # How often a link ends in use, and whether machines look for ways (climbs.py).
    lost: float = 0.0
    climbs: bool = False
    # How often a link ends within what a step sends: behind one of its frames, before the next.
    torn: float = 0.0
    # To which part of what is said of streams a middle does something, and what, when not anything.
    middle: float = 0.0
    middle_does: tuple[str, ...] = ()
    # Whether the last machine is the middle of the links of all others, and hostile; and whether it
    # passes on nothing that others wrote.
    relay: bool = False
    withholds: bool = False
    # To which part of what is left at a place something happens, 0 where there is none; who comes
    # by, all where none is named, and who never has a link.
    place: float = 0.0
    # How often a place loses what it had acknowledged, with each parcel that is left there.
    loses: float = 0.0
    # Whether that place goes on like that for ever.
    crooked: bool = False
    # How often an engine does what it should not with each parcel that is left at it (engine.py), 0
    # where there is none; and how often a place dies with the parcel that is being left.
    engine: float = 0.0
    breaks: float = 0.0
    visitors: tuple[int, ...] = ()
    apart: tuple[int, ...] = ()
    # With how many machines growth of a stream is compared at once; the product's own number is
    # as many as these worlds have.
    near: int = 0
    # Whether a machine with work is gone for a while and others go on with it (succession.py), and
    # how long leases are, the product's own where it is 0.
    gone: bool = False
    lease_ms: int = 0
    snapshot: float = 0.0
    restore: float = 0.0
    # How much of the trace of a restore is restored, too: "", "mark", "generation", "blind".
    restore_kind: str = ""
    clone: float = 0.0
    clock: float = 0.0
    sleep: float = 0.0
    sleep_ms_max: int = 8_000
    hostile: bool = False
    attacks: tuple[str, ...] = ()
    attack: float = 2.0
    revoke: bool = False


PEACE = Faults()

# What a swarm draws from: name -> how strongly, given a random number.
_SWARM: dict[str, Any] = {
    "loss": lambda rng: rng.uniform(0.01, 0.3),
    "duplication": lambda rng: rng.uniform(0.01, 0.5),
    "reorder": lambda rng: True,
    "delay_ms_max": lambda rng: rng.choice((5, 200, 2_000)),
    "crash": lambda rng: rng.uniform(0.001, 0.02),
    "kill": lambda rng: rng.uniform(0.05, 0.4),
    "partition": lambda rng: rng.uniform(0.1, 0.8),
    "one_way": lambda rng: rng.uniform(0.1, 0.5),
    "restore": lambda rng: rng.uniform(0.2, 0.8),
    "clone": lambda rng: 0.3,
    "clock": lambda rng: rng.uniform(0.1, 1.0),
    "sleep": lambda rng: rng.uniform(0.1, 0.4),
    "hostile": lambda rng: True,
    "revoke": lambda rng: True,
    "runs": lambda rng: rng.randint(1, 4),
    "groups": lambda rng: rng.randint(1, 3),
    "strangers": lambda rng: rng.uniform(0.5, 4.0),
    "scarce": lambda rng: rng.uniform(0.05, 0.5),
    "full": lambda rng: rng.uniform(0.1, 0.8),
}
# Rarer than the others, since a world with one of them says less about the rest.
_RARE = {"clone": 0.15, "restore": 0.5, "revoke": 0.2, "hostile": 0.4, "sleep": 0.4}

PROFILES: dict[str, Faults] = {
    "peace": PEACE,
    "busy": Faults(runs=6, groups=4),
    "renames": Faults(
        machines=4, renames=6, kill=0.3, crash=0.005, partition=0.4, sleep=0.2, loss=0.05,
        messages=0,
    ),
    "reviews": Faults(
        machines=4, reviews=8, kill=0.3, crash=0.005, partition=0.4, sleep=0.2, loss=0.05, tasks=1,
        messages=1,
    ),
    "money": Faults(
        machines=4, money=8, kill=0.15, crash=0.003, partition=0.5, sleep=0.1, loss=0.05, tasks=1,
        messages=1, stormy_ms=12_000,
    ),
    "full-disks": Faults(full=2.0, kill=0.2, runs=2),
    "besieged": Faults(
        machines=3, hostile=True, attacks=("shaped", "called"), attack=20.0, runs=4, groups=2,
        strangers=4.0, scarce=0.3,
    ),
    "lossy": Faults(loss=0.3, duplication=0.3, reorder=True, delay_ms_max=300),
    "crash": Faults(crash=0.02, kill=0.3),
    "partition": Faults(partition=1.0, one_way=0.3, kill=0.1),
    "paths": Faults(paths=4, silence=1.5, kill=0.1, partition=0.3, messages=12),
    "climb": Faults(
        machines=3, paths=1, silence=1.5, lost=1.5, climbs=True, kill=0.1, messages=12, tasks=1,
    ),
    "proven-first": Faults(machines=3, paths=1, lost=0.5, climbs=True, messages=4, tasks=0),
    "torn": Faults(torn=0.2, paths=1, messages=12, runs=1),
    "relay": Faults(machines=4, relay=True, middle=0.3, messages=12, runs=1, kill=0.1, lost=0.3),
    "relay-withholds": Faults(machines=4, relay=True, withholds=True, messages=6),
    "middle": Faults(middle=0.3, messages=12, runs=1),
    "places": Faults(
        place=0.4, apart=(0, 1, 2, 3, 4), kill=0.2, crash=0.005, snapshot=1.0, restore=0.3,
        restore_kind="blind", tasks=0, messages=12,
    ),
    "places-beside-links": Faults(place=0.3, partition=2.0, one_way=0.5, kill=0.1, messages=12),
    "gone": Faults(
        machines=4, gone=True, lease_ms=4_000, stormy_ms=32_000, tasks=8, runs=4, messages=2,
        kill=0.03, crash=0.001, repository=0.2,
    ),
    "adoption-ground": Faults(
        machines=4, gone=True, lease_ms=4_000, stormy_ms=24_000, tasks=2, runs=4, messages=0,
        hostile=True, attacks=("adopt",), attack=1.0, repository=0.0,
    ),
    "adoption-epoch": Faults(
        machines=4, gone=True, lease_ms=4_000, stormy_ms=32_000, tasks=4, runs=6, messages=0,
        repository=0.0,
    ),
    "crooked": Faults(
        machines=3, place=0.5, crooked=True, breaks=0.1, partition=1.0, kill=0.2, tasks=1,
        messages=12,
    ),
    "engine": Faults(
        engine=0.3, breaks=0.1, apart=(0, 1, 2, 3, 4), kill=0.2, crash=0.005, tasks=0, messages=12,
    ),
    "engine-and-place": Faults(
        machines=3, engine=0.5, place=0.5, breaks=0.2, apart=(0, 1, 2), kill=0.1, tasks=0,
        messages=12,
    ),
    # Named for the safeguard that it makes necessary; see ablations.py.
    "approval-binding": Faults(
        machines=3, approvals=1.0, tasks=16, messages=0, kill=0.2, crash=0.005, snapshot=1.0,
        restore=0.2, repository=0.2,
    ),
    "receipt-rule": Faults(machines=3, place=0.5, apart=(0, 1, 2), tasks=0, messages=12),
    "offered-again": Faults(
        machines=3, place=0.01, loses=0.4, apart=(0, 1, 2), tasks=0, messages=12
    ),
    "parcel-signature": Faults(machines=3, place=0.3, apart=(0, 1, 2), tasks=0, messages=12),
    "parcel-receiver": Faults(machines=3, place=0.3, apart=(0, 1, 2), tasks=0, messages=12),
    "told-anew": Faults(
        machines=3, place=0.05, apart=(0, 1, 2), snapshot=2.0, restore=0.6, restore_kind="blind",
        tasks=0, messages=16,
    ),
    "heads-at-an-engine": Faults(
        machines=3, engine=0.3, breaks=0.05, apart=(0, 1, 2), tasks=0, messages=12
    ),
    # The last one hears of the second through the first alone.
    "heads-exchange": Faults(
        machines=3, place=0.2, visitors=(0, 2), apart=(2,), tasks=0, messages=0, renames=6
    ),
    "incarnation-guard": Faults(
        machines=3, partition=3.0, snapshot=3.0, restore=1.0, restore_kind="mark", messages=20,
        tasks=0,
    ),
    "own-head-first": Faults(
        machines=3, snapshot=3.0, restore=1.0, restore_kind="blind", messages=20, tasks=4
    ),
    "cursor-in-the-transaction": Faults(machines=3, crash=0.01, crash_kind="before-fsync"),
    "seal-check": Faults(
        machines=3, hostile=True, attacks=("mutate",), attack=8.0, tasks=2,
        messages=20, delay_ms_max=1_500, reorder=True,
    ),
    "signer-check": Faults(machines=3, hostile=True, attacks=("forge",), attack=4.0, tasks=2),
    "middle-seal": Faults(machines=3, middle=0.3, middle_does=("alter",), tasks=2, messages=12),
    "middle-signer": Faults(
        machines=3, middle=0.3, middle_does=("forge", "equivocate"), tasks=2, messages=12
    ),
    "middle-body": Faults(machines=3, middle=0.3, middle_does=("reword",), tasks=2, messages=12),
    "asked-again": Faults(
        machines=3, middle=0.5, middle_does=("withhold", "overtake"), tasks=2, messages=12
    ),
    "evidence-check": Faults(machines=3, hostile=True, attacks=("task",), attack=2.0, tasks=2),
    "fence": Faults(
        machines=3, stormy_ms=70_000, sleep=0.12, sleep_ms_max=70_000, tasks=20, messages=0,
        repository=1.0,
    ),
    "fork-gossip": Faults(machines=4, hostile=True, attacks=("equivocate",), attack=2.0, tasks=2),
    "few-near": Faults(
        machines=6, near=1, hostile=True, attacks=("equivocate", "split"), attack=2.0, tasks=2,
        partition=0.3, messages=12,
    ),
    "money-reserved": Faults(machines=3, money=8, partition=0.3, tasks=0, messages=0),
    "orders-last": Faults(
        machines=3, partition=3.0, snapshot=3.0, restore=1.0, restore_kind="blind", messages=20,
        tasks=0,
    ),
    "poison-is-skipped": Faults(machines=3, hostile=True, attacks=("poison",), attack=4.0, tasks=2),
    "mistakes-are-seen": Faults(
        machines=3, hostile=True, attacks=("shaped",), attack=20.0, runs=2, tasks=2
    ),
    "step-waits-for-room": Faults(full=2.0, messages=12, tasks=3),
    "witness-persists": Faults(
        machines=4, hostile=True, attacks=("split",), attack=6.0, crash=0.04,
        crash_kind="before-fsync", tasks=0, messages=2,
    ),
}  # fmt: skip


def swarm(seed: int) -> Faults:
    """The faults that this seed draws."""
    rng = random.Random(f"swarm/{seed}")
    eager = rng.choice((0.2, 0.4, 0.6))
    chosen = {
        name: draw(rng)
        for name, draw in _SWARM.items()
        if rng.random() < eager * _RARE.get(name, 0.6) / 0.6
    }
    if "restore" in chosen:
        chosen["snapshot"] = 1.0
    # Drawn apart: what a seed drew before it draws still.
    paths = random.Random(f"paths/{seed}")
    if paths.random() < 0.4:
        chosen.update(paths=paths.choice((1, 2, 4)), silence=paths.uniform(0.0, 0.8))
    if paths.random() < 0.5:
        chosen.update(near=1)
    # Drawn apart again, for the same reason.
    lost = random.Random(f"lost/{seed}")
    if lost.random() < 0.2:
        chosen.update(lost=lost.uniform(0.1, 1.5))
    if paths.random() < 0.2:
        chosen.update(place=paths.uniform(0.01, 0.5))
    middle = random.Random(f"swarm-middle/{seed}")
    if middle.random() < 0.25:
        chosen.update(middle=middle.uniform(0.02, 0.4))
    if middle.random() < 0.25:
        chosen.update(torn=middle.uniform(0.01, 0.2))
    engine = random.Random(f"engine/{seed}")
    if engine.random() < 0.15:
        chosen.update(engine=engine.uniform(0.02, 0.5))
    if (chosen.get("place") or chosen.get("engine")) and engine.random() < 0.4:
        chosen.update(breaks=engine.uniform(0.02, 0.3))
    if chosen.get("place") and engine.random() < 0.3:
        chosen.update(crooked=True)
    if middle.random() < 0.1:
        chosen.update(relay=True, middle=middle.uniform(0.02, 0.4))
    away = random.Random(f"swarm-gone/{seed}")
    if chosen.get("place") and away.random() < 0.4:
        chosen.update(loses=away.uniform(0.02, 0.4))
    if away.random() < 0.08:
        chosen.update(gone=True, lease_ms=4_000, stormy_ms=24_000, runs=chosen.get("runs", 2))
        # It is long: what was drawn for a short storm comes as often, and no oftener.
        for name in ("crash", "kill", "restore", "partition", "sleep"):
            chosen[name] = chosen.get(name, 0.0) / 4
    if chosen.get("sleep") and rng.random() < 0.3:
        chosen.update(sleep_ms_max=50_000, stormy_ms=40_000, sleep=0.05)
        for name in ("crash", "kill"):
            chosen[name] = chosen.get(name, 0.0) / 5
    return replace(PEACE, **chosen)


class Injector:
    """Lets faults happen while the storm lasts."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"faults/{world.seed}")
        self.stopped = False
        self.saved: dict[str, tuple[Disk, dict[str, int]]] = {}
        self.blocked: set[tuple[str, str]] = set()

    def start(self) -> None:
        """The storm begins."""
        self._second()
        if self.world.faults.revoke:
            self.world.later(self.rng.randint(500, 3_000), self._revoke)

    def stop(self) -> None:
        self.stopped = True
        self.blocked.clear()
        self.world.network.silent.clear()

    def _second(self) -> None:
        if self.stopped:
            return
        faults = self.world.faults
        for name in (
            "snapshot",
            "kill",
            "partition",
            "one_way",
            "silence",
            "lost",
            "restore",
            "clone",
            "clock",
            "sleep",
            "full",
        ):
            rate = getattr(faults, name)
            if rate and self.rng.random() < rate / 2:
                self.world.later(self.rng.randrange(500), getattr(self, "_" + name))
        self.world.later(500, self._second)

    def _one(self, *, honest: bool = True) -> Machine | None:
        up = [m for m in self.world.machines.values() if m.awake and not (honest and m.hostile)]
        return self.rng.choice(up) if up else None

    def _reached(self, what: str, machine: Machine) -> None:
        self.world.reached[what] += 1
        self.world.trace("fault", f"{what} {machine.place}")

    # --- faults ------------------------------------------------------------------------------

    def _kill(self) -> None:
        machine = self._one()
        if machine is not None and not self.stopped:
            self._reached("kill", machine)
            machine.crash()

    def _partition(self) -> None:
        one, other = self._one(honest=False), self._one(honest=False)
        if self.stopped or one is None or other is None:
            return
        network, span = self.world.network, self.rng.choice((300, 2_000, 6_000))
        others = [other]
        if self.rng.random() < 0.6:
            others = list(self.world.machines.values())
        self._reached("partition", one)
        for each in others:
            if each.id != one.id:
                network.part(one, each)
                self.world.later(span, lambda each=each: network.join(one, each))

    def _one_way(self) -> None:
        one, other = self._one(honest=False), self._one(honest=False)
        if self.stopped or one is None or other is None or one is other:
            return
        self._reached("one-way", one)
        way = (one.place, other.place)
        self.blocked.add(way)
        self.world.later(self.rng.randint(300, 5_000), lambda: self.blocked.discard(way))

    def _silence(self) -> None:
        network = self.world.network
        one, other = self._one(honest=False), self._one(honest=False)
        wires = network.between(one, other) if one is not None and other is not None else []
        if self.stopped or one is None or len(wires) < 2:
            return
        number = self.rng.choice(wires).number
        self._reached("silence", one)
        network.silent.add(number)
        self.world.later(self.rng.randint(300, 9_000), lambda: network.silent.discard(number))

    def _lost(self) -> None:
        """A link ends with what is under way on it."""
        network = self.world.network
        if not self.stopped and network.wires:
            wire = self.rng.choice(list(network.wires.values()))
            self._reached("lost", wire.ends[0])
            network.down(wire, "lost")

    def _clock(self) -> None:
        machine = self._one(honest=False)
        if machine is not None and not self.stopped:
            machine.skew_ms = self.rng.choice((-1, 1)) * self.rng.randrange(600_000)
            self._reached("clock-jump", machine)

    def _sleep(self) -> None:
        machine = self._one()
        if machine is not None and not self.stopped:
            self._reached("sleep", machine)
            machine.fall_asleep(self.rng.randint(500, self.world.faults.sleep_ms_max))

    def _full(self) -> None:
        machine = self._one()
        if machine is not None and not self.stopped:
            self._reached("full", machine)
            span_ms = self.rng.choice((300, 2_000, 12_000))
            machine.no_room_until_ms = self.world.ms + span_ms

    def _snapshot(self) -> None:
        machine = self._one()
        if machine is not None and machine.core is not None and not self.stopped:
            if machine.waits:
                return
            disk = Disk(machine.core.store.image(), machine.disk.mark)
            store = machine.core.store
            mine = (s for s in store.log.streams() if s.machine == machine.id)
            self.saved[machine.place] = (disk, {str(s): store.log.size(s) for s in mine})

    def _restore(self) -> None:
        """A disk is set back to a snapshot: with it the mark, the hardware's id, or both."""
        machine = self._one()
        if machine is None or machine.place not in self.saved or self.stopped:
            return
        disk, sizes = self.saved[machine.place]
        kind = self.world.faults.restore_kind or self.rng.choice(("mark", "generation", "blind"))
        self._reached("restore-" + kind, machine)
        mark = machine.disk.mark if kind == "mark" else disk.mark
        machine.crash()
        machine.disk = Disk(disk.image, mark)
        if kind == "generation":
            machine.generation += 1
        elif kind == "blind" or not self._shows(machine.disk.mark, sizes):
            machine.blind_ms = self.world.ms
        machine.set_back_ms = self.world.ms
        self.world.checker.set_back(machine)

    def _shows(self, mark: Mark | None, sizes: dict[str, int]) -> bool:
        """Whether the mark, which may be a second old, knows of more than the snapshot holds."""
        return mark is None or any(size > sizes.get(s, 0) for s, size in mark.sizes.items())

    def _clone(self) -> None:
        """A copy of a running machine is started elsewhere, and both go on."""
        machine, world = self._one(), self.world
        if machine is None or machine.core is None or self.stopped or world.cloned:
            return
        twin = Machine(world, machine.name, machine.index, f"{machine.place}b")
        twin.disk = Disk(machine.image(), machine.disk.mark)
        twin.generation = machine.generation
        twin.cloned = machine.cloned = True
        if self.rng.random() < 0.5:
            twin.generation += 1
            self._reached("clone-seen", machine)
        else:
            twin.blind_ms = machine.blind_ms = world.ms
            self._reached("clone-blind", machine)
        world.cloned.add(machine.id)
        world.checker.unsure.add(machine.id)
        world.machines[twin.place] = twin
        twin.boot()

    def _revoke(self) -> None:
        """The operator revokes a machine; it goes on writing."""
        world = self.world
        hub = world.founders[0]
        victim = world.founders[-1]
        if not hub.awake or victim.id in world.revoked:
            if not self.stopped:
                world.later(500, self._revoke)
            return
        args = {"name": victim.name, "reason": "test"}

        def then(answer: dict[str, Any]) -> None:
            if answer["ok"]:
                self._reached("revoked", victim)
            else:
                world.checker.surprise("revoke", answer)

        # From now on: a crash may keep the answer from us.
        world.revoked.add(victim.id)
        victim.hostile = True
        statement = world.workload.order(hub, "revoke", victim.name, args)
        world.workload.call(hub, "revoke", args, then, statement)
