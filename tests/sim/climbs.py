"""What becomes of a message when the way that it would go dies, in a world that is whole otherwise.

Two machines have links over a better channel and over worse ones; who is told that nothing is
answered over a link (`Seek`) dials once more. After the storm, when all is at rest:

1. a link of the better channel comes to everybody, greets, and swallows all else: what is said
   goes over the links that carry, at once;
2. every link that stands falls silent, and one that is dialled now would carry: what is said
   arrives over such a one, within `FOUND_MS`.
"""

from typing import TYPE_CHECKING, Any, Final

from muster.channel import FIRST
from muster.log.refresh import REFRESH_MS
from muster.log.session import RETRY_MS
from muster.log.stream import FLEET

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

# As fast as a round trip and a tick; a link that swallows costs three seconds at least.
AT_ONCE_MS: Final = 2_500
# Twenty seconds are promised; the rest is what a daemon needs for a dial, which costs nothing here.
FOUND_MS: Final = 12_000
# The longest wait for a refresh, and for what it shows to be asked for.
PAST_MS: Final = REFRESH_MS * 5 // 4 + 2 * RETRY_MS + 4_000


class Climbs:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self._stored: dict[tuple[str, str], bool] = {}

    def play(self) -> None:
        """Both, one after the other. Raises: Violation."""
        network = self.world.network
        pairs = [(one, other) for one in self._live() for other in self._live() if one is not other]
        for one, other in pairs:
            if one.index < other.index:
                for wire in network.between(one, other):
                    if wire.channel == FIRST:
                        network.down(wire, "lost")
                network.link(one, other, FIRST, mute=True)
        self.world.run_until(self.world.ms + 100)
        self._say(pairs, AT_ONCE_MS, "beside a better link that swallows")
        network.silent |= set(network.wires)
        self._say(pairs, FOUND_MS, "when every link had fallen silent")
        network.silent.clear()
        network.mute.clear()

    def past_the_middle(self) -> None:
        """The middle of all links withholds what others wrote: it comes past it. Raises: Violation.

        What two alone may hold goes over the link that the middle cannot read, at once. What it may
        hold itself is its to pass on; the two ends find out with the refresh that it did not.
        """
        world = self.world
        world.middle.withholds = True
        honest = [machine for machine in self._live() if not machine.hostile]
        pairs = [(one, other) for one in honest for other in honest if one is not other]
        self._say(pairs, AT_ONCE_MS, "through a middle that withholds")
        for machine in honest:
            world.workload.say(machine, "all", "past the middle", wait=False)
        world.run_until(world.ms + 100)
        logs = [machine.core.log for machine in honest if machine.core is not None]
        sizes = {
            stream: log.size(stream)
            for log, machine in zip(logs, honest, strict=True)
            for stream in log.streams()
            if stream.machine == machine.id and stream.scope == FLEET
        }

        def is_held() -> bool:
            return all(log.size(stream) >= size for log in logs for stream, size in sizes.items())

        if not world.run_until(world.ms + PAST_MS, is_held):
            world.checker.fail("I17", f"the middle kept what was written for {PAST_MS} ms")
        world.reached["past-the-middle"] += 1

    def _live(self) -> "list[Machine]":
        return [machine for machine in self.world.founders if machine.awake]

    def _say(self, pairs: "list[tuple[Machine, Machine]]", within_ms: int, when: str) -> None:
        """Everybody says something to everybody, and has the receipts in time. (I17)"""
        world = self.world
        self._stored = dict.fromkeys([(one.place, other.name) for one, other in pairs], False)
        for one, other in pairs:
            world.workload.say(one, other.name, f"{when}: {other.name}", self._note, wait=True)
        world.run_until(world.ms + within_ms, lambda: all(self._stored.values()))
        late = [
            f"{place} to {name}" for (place, name), stored in self._stored.items() if not stored
        ]
        if late:
            world.checker.fail("I17", f"{when}, not within {within_ms} ms: {', '.join(late)}")
        world.reached["climb"] += len(pairs)

    def _note(self, machine: "Machine", to: str, answer: dict[str, Any]) -> None:
        if answer["ok"] and answer["value"]["state"] == "stored":
            self._stored[machine.place, to] = True
