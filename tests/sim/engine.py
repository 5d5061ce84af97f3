"""An engine that forgets: the mailboxes of a NATS server, as channel/nats.py uses them.

For each machine a queue: what is left has a number, one of the same bytes is kept once, what was
given belongs to the process that it was given to for a while, and is gone when it is dealt with.

`Faults.engine` is how often it does otherwise, with each parcel that is left there. It loses what it
had acknowledged (the newest, some in the middle, all), goes back to what it held some time ago, gives
in another order, gives again what was dealt with, and gives what nobody left. Nobody is told of it.
"""

import hashlib
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Final

from tests.sim.places import Place
from tests.sim.shelf import lost

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

# So long what was given is given to nobody else.
GIVEN_MS: Final = 30_000
DEALT_MAX: Final = 100
MISDEEDS: Final = (
    "loses-tail", "loses-middle", "loses-all", "goes-back", "reorders", "repeats", "invents", "away",
)  # fmt: skip
Queues = dict[str, dict[int, bytes]]


class Engine(Place):
    """See the top of this file."""

    name = "engine"

    def __init__(self, world: "World") -> None:
        super().__init__(world)
        self._queues: Queues = {}
        # What it held some time ago.
        self._before: Queues = {}
        # To which process what was given, and until when.
        self._given: dict[tuple[str, int], tuple[tuple[str, int], int]] = {}
        self._names: set[bytes] = set()
        self._dealt: list[tuple[str, bytes]] = []
        self._shuffles: set[str] = set()
        self._last = 0
        self._misdeeds: dict[str, Callable[[], None]] = {
            "goes-back": self._go_back,
            "reorders": self._reorder,
            "repeats": self._repeat,
            "invents": self._invent,
            "away": self.goes_away,
        }

    def keep(self, peer: str, raw: bytes) -> None:
        name = hashlib.sha256(raw).digest()
        if name not in self._names:
            self._names.add(name)
            self._append(peer, raw)
        if not self.honest and self.rng.random() < self.world.faults.engine:
            what = self.rng.choice(MISDEEDS)
            self.did(what)
            if what.startswith("loses-"):
                self._lose(what.removeprefix("loses-"))
            else:
                self._misdeeds[what]()

    def _append(self, peer: str, raw: bytes) -> None:
        self._last += 1
        self._queues.setdefault(peer, {})[self._last] = raw

    def shows(self, machine: "Machine") -> Iterable[tuple[str, bytes]]:
        queue, process = self._queues.get(machine.id, {}), (machine.place, machine.starts)
        numbers = sorted(queue)
        if machine.id in self._shuffles:
            self._shuffles.discard(machine.id)
            self.rng.shuffle(numbers)
        for number in numbers:
            holder, until_ms = self._given.get((machine.id, number), (process, 0))
            if holder == process or until_ms <= self.world.ms:
                self._given[machine.id, number] = process, self.world.ms + GIVEN_MS
                yield str(number), queue[number]

    def forget(self, machine: "Machine", name: str) -> None:
        raw = self._queues.get(machine.id, {}).pop(int(name), None)
        self._given.pop((machine.id, int(name)), None)
        if raw is not None:
            self._dealt = [*self._dealt[-DEALT_MAX:], (machine.id, raw)]

    # --- what it does otherwise --------------------------------------------------------------

    def _lose(self, what: str) -> None:
        for queue in self._queues.values():
            for name in lost([str(number) for number in sorted(queue)], what):
                del queue[int(name)]

    def _go_back(self) -> None:
        """Its disk is an older one: what came since is gone, and what was dealt with is there."""
        now = {peer: dict(queue) for peer, queue in self._queues.items()}
        self._queues, self._before = self._before, now
        self._given.clear()
        # Which bytes it has seen it reads from what it holds.
        held = (raw for queue in self._queues.values() for raw in queue.values())
        self._names = {hashlib.sha256(raw).digest() for raw in held}

    def _reorder(self) -> None:
        self._shuffles |= self._queues.keys()

    def _repeat(self) -> None:
        for peer, raw in self.rng.sample(self._dealt, min(3, len(self._dealt))):
            self._append(peer, raw)

    def _invent(self) -> None:
        """Bytes that nobody left, and parcels where nobody left them."""
        peers = [machine.id for machine in self.world.founders]
        self._append(self.rng.choice(peers), self.rng.randbytes(self.rng.choice((0, 40, 2_000))))
        for _, raw in self.rng.sample(self._dealt, min(3, len(self._dealt))):
            self._append(self.rng.choice(peers), raw)
            self._append(self.rng.choice(peers), raw[: self.rng.randrange(len(raw) + 1)])
