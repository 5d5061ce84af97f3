"""What may go wrong, and the drawing of it: each seed gets its own random subset (swarm testing)."""

import random
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.sim.world import World


@dataclass(frozen=True)
class Faults:
    """One world's faults. Rates are per event or per second; 0 is never."""

    machines: int = 0
    stormy_ms: int = 8_000
    healing_ms: int = 150_000
    tasks: int = 6
    messages: int = 8
    loss: float = 0.0
    duplication: float = 0.0
    delay_ms_max: int = 30
    reorder: bool = False
    crash: float = 0.0


PEACE = Faults()


class Injector:
    """Lets faults happen while the storm lasts."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"faults/{world.seed}")
        self.stopped = False

    def start(self) -> None:
        """The storm begins."""

    def stop(self) -> None:
        self.stopped = True


__all__ = ["PEACE", "Faults", "Injector", "replace"]
