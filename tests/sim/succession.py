"""A machine with work is gone for a while, and others go on with it, by an operator's orders.

It dies, or is cut off from everybody, or from its stand-in alone. One machine was named to stand in
for it; perhaps another one is ordered to take over as well, and neither hears of the other. Then it
is back, before the world heals or when it does.
"""

import random
from typing import TYPE_CHECKING, Any

from muster.task.adoption import TAKEOVER, takeover_args
from muster.task.standin import STANDIN, standin_args

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

AFTER_MS = 3_000


class Succession:
    """See the top of this file: the first machine is the one that goes, the second its stand-in."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"succession/{world.seed}")
        # Whom an operator ordered to go on with the work of whoever is gone.
        self.heirs: set[str] = set()

    def start(self) -> None:
        if not self.world.faults.gone:
            return
        gone, heir, other, *_ = self.world.founders
        args = standin_args(gone.id, heir.id, AFTER_MS)
        self._order(self.rng.choice((gone, heir, other)), STANDIN, gone, heir, args, 1_000)
        went_ms = self.rng.randint(5_000, 9_000)
        self.world.later(went_ms, lambda: self._go(gone, heir))
        if self.rng.random() < 0.6:
            at = self.rng.choice((heir, other))
            ordered_ms = went_ms + self.rng.randint(1_000, 9_000)
            self._order(at, TAKEOVER, gone, at, takeover_args(gone.id), ordered_ms)

    def _order(
        self, at: "Machine", verb: str, gone: "Machine", heir: "Machine", args: Any, after_ms: int
    ) -> None:
        world = self.world

        def ask() -> None:
            if not at.awake or world.healed:
                return
            # From now on: a crash may keep the answer from us.
            self.heirs.add(heir.id)
            statement = world.workload.order(at, verb, gone.id, args)
            world.workload.call(at, verb, args, answered, statement)

        def answered(answer: dict[str, Any]) -> None:
            if answer["ok"]:
                world.reached[verb] += 1
            else:
                world.checker.surprise(verb, answer)

        world.later(after_ms, ask)

    def _go(self, gone: "Machine", heir: "Machine") -> None:
        world, how = self.world, self.rng.choice(("dead", "dead", "cut-off", "cut-from-heir"))
        if not gone.awake or world.healed:
            return
        world.reached[f"gone-{how}"] += 1
        world.trace("gone", how)
        away_ms = self.rng.randint(6_000, 20_000)
        if how == "dead":
            gone.gone = True
            gone.crash()
            world.later(away_ms, lambda: self._back(gone))
            return
        others = [heir] if how == "cut-from-heir" else [m for m in world.founders if m is not gone]
        for each in others:
            world.network.part(gone, each)
            world.later(away_ms, lambda each=each: world.network.join(gone, each))

    @staticmethod
    def _back(gone: "Machine") -> None:
        if gone.gone:
            gone.gone = False
            gone.boot()
