"""A fleet in one process: real cores over real SQLite, a network and clocks that obey one seed.

A `World` holds computers (some crashed, some cloned), what is under way between them, and one
queue of what happens when. Everything random comes from `random.Random` of the seed, nothing reads
a clock, so a seed replays to the same trace: `digest` is a hash over every event.

    world = World(seed, faults)
    world.run()          # a time of faults, then a time of healing; raises Violation
"""

import hashlib
import heapq
import random
from collections import Counter
from collections.abc import Callable

from muster.fleet.machine import Authority, Operator
from muster.fleet.record import sign_operator
from tests.sim.asking import Asking
from tests.sim.attacker import Attacker
from tests.sim.climbs import Climbs
from tests.sim.crowd import Crowd
from tests.sim.engine import Engine
from tests.sim.faults import Faults, Injector
from tests.sim.invariants import Checker
from tests.sim.machine import CRASHES, WALL_MS, Machine
from tests.sim.middle import Middle
from tests.sim.money import Money
from tests.sim.network import Network
from tests.sim.outside import Outside
from tests.sim.places import Places
from tests.sim.repository import Repository
from tests.sim.shelf import Shelf
from tests.sim.succession import Succession
from tests.sim.workload import Workload

TICK_MS = 200
TICK_IDLE_MS = 500


class World:
    """See the top of this file."""

    def __init__(self, seed: int, faults: Faults, *, show: bool = False) -> None:
        self.seed = seed
        self.faults = faults
        self.show = show
        self.rng = random.Random(f"muster/{seed}")
        self.ms = 0
        self.counts: Counter[str] = Counter()
        self.reached: Counter[str] = Counter()
        self._queue: list[tuple[int, int, Callable[[], None]]] = []
        self._number = 0
        self._hash = hashlib.sha256()
        self.healed = False
        self.authority = Authority(random.Random(f"{seed}/ca").randbytes(32))
        self.operator = Operator(random.Random(f"{seed}/op").randbytes(32))
        self.fleet = self.authority.fleet
        self.operator_record = sign_operator(self.authority, self.operator.key, "alice", WALL_MS)
        self.network = Network(self)
        self.middle = Middle(self)
        there = [(faults.place, Shelf), (faults.engine, Engine)]
        self.places = Places(self, [place(self) for often, place in there if often])
        self.checker = Checker(self)
        self.workload = Workload(self)
        self.crowd = Crowd(self)
        self.asking = Asking(self)
        self.repository = Repository(self)
        self.succession = Succession(self)
        self.money = Money(self)
        self.machines: dict[str, Machine] = {}
        self.founders: list[Machine] = []
        count = faults.machines or self.rng.randint(3, 5)
        self.founders = [Machine(self, f"m{i}", i) for i in range(count)]
        self.machines = {m.place: m for m in self.founders}
        self.injector = Injector(self)
        self.revoked: set[str] = set()
        self.cloned: set[str] = set()
        self.middle.begin()
        self.attacker = Attacker(self, self.founders[-1]) if faults.hostile else None

    # --- time ------------------------------------------------------------------------------

    def outside(self, machine: Machine) -> Outside:
        """What a machine that starts finds outside of it."""
        return Outside(self, machine, self.workload.rng)

    def at(self, ms: int, what: Callable[[], None]) -> None:
        self._number += 1
        heapq.heappush(self._queue, (max(ms, self.ms), self._number, what))

    def later(self, delay_ms: int, what: Callable[[], None]) -> None:
        self.at(self.ms + delay_ms, what)

    def tick_ms(self) -> int:
        return TICK_IDLE_MS if self.healed else TICK_MS

    def run_until(self, ms: int, done: Callable[[], bool] | None = None) -> bool:
        """Let things happen until then, or until `done`; True when it was done."""
        look = self.ms + 1_000
        while self._queue and self._queue[0][0] <= ms:
            self.ms, _, what = heapq.heappop(self._queue)
            what()
            if done is not None and self.ms >= look:
                look = self.ms + 1_000
                if done():
                    return True
        self.ms = ms
        return done is not None and done()

    def trace(self, what: str, text: str = "") -> None:
        line = f"{self.ms} {what} {text}"
        self._hash.update(line.encode())
        if self.show:
            print(line)

    def digest(self) -> str:
        """A hash over the trace so far."""
        return self._hash.hexdigest()

    # --- life --------------------------------------------------------------------------------

    def run(self) -> None:
        """A time of faults, then healing. Raises: Violation."""
        for machine in self.founders:
            machine.boot()
        self.run_until(1_500)
        self.injector.start()
        if self.attacker is not None:
            self.attacker.start()
        self.workload.start()
        self.crowd.start()
        self.succession.start()
        self.run_until(self.faults.stormy_ms)
        if self.faults.withholds:
            Climbs(self).past_the_middle()
        self.heal()
        if not self.run_until(self.ms + self.faults.healing_ms, self.checker.settled):
            self.checker.fail("liveness", self.checker.unsettled())
        if self.faults.climbs:
            Climbs(self).play()
            if not self.run_until(self.ms + self.faults.healing_ms, self.checker.settled):
                self.checker.fail("liveness", self.checker.unsettled())
        self.checker.finally_()

    def heal(self) -> None:
        """Nothing fails any more: everybody runs, everybody reaches everybody."""
        self.trace("heal")
        self.healed = self.network.healthy = True
        self.injector.stop()
        self.network.parted.clear()
        for machine in list(self.machines.values()):
            machine.no_room_until_ms, machine.gone = 0, False
            if machine.core is None:
                machine.boot()
            elif machine.asleep:
                machine.wake()
            self.network.dial_all(machine)
        self.workload.stop()

    def draw_crash(self, machine: Machine) -> str | None:
        """Whether this step ends in a crash, and where."""
        crash = self.faults.crash
        if self.healed or not crash or machine.hostile or self.rng.random() >= crash:
            return None
        kind = self.faults.crash_kind or self.rng.choice(CRASHES)
        self.reached["crash-" + kind] += 1
        return kind

    def crashed(self, machine: Machine) -> None:
        """A process died; it is started again after a while."""
        self.trace("crash", machine.place)
        delay = self.rng.choice((50, 500, 3_000)) if not self.healed else 50
        stays = lambda: machine.core is not None or machine.retired or machine.gone  # noqa: E731
        self.later(delay, lambda: stays() or machine.boot())

    def close(self) -> None:
        for machine in self.machines.values():
            if machine.core is not None:
                machine.count()
                machine.core.store.close()
                machine.core = None
