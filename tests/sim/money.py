"""Money in the simulated fleet: a pot that one machine keeps, and attempts that spend from it.

An attempt of a dear agent calls its model again and again; its gateway begins a call while anything
is left of what the attempt was given, and what a call costs is known when it has ended. What the
world really spent is added up here, whatever any machine comes to believe.
"""

import random
from typing import TYPE_CHECKING, Final

from muster.node.tasks.attempt_body import AttemptEvent
from muster.task.budget import METERED, MILLION, MoneyTerms
from muster.task.instruction import StartAttempt
from muster.task.kinds import Epoch

if TYPE_CHECKING:
    from tests.sim.outside import Outside
    from tests.sim.world import World

DEAR: Final = "claude"
MOST: Final = MILLION
CALL_MAX: Final = 40_000
PAUSE_MS: Final = 120
SPEC: Final = """\
muster: 1
name: dear-{number}
phases:
  one: {{agent: claude, do: sleep 1.5, check: 'true', deadline: 60s, budget: {{usd: '0.30'}}}}
  two: {{agent: claude, do: sleep 2, check: 'true', deadline: 60s}}
"""


class Money:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"money/{world.seed}")
        self.spent = self.began = 0
        # What attempts that run have used.
        self._used: dict[tuple[str, Epoch], int] = {}

    def terms(self) -> MoneyTerms:
        """What each machine's owner says of it."""
        return MoneyTerms("m1", month=MOST, attempt=MOST // 5)

    def specs(self) -> list[str]:
        return [SPEC.format(number=number) for number in range(self.world.faults.money)]

    def begin(self, outside: "Outside", effect: StartAttempt) -> None:
        """The agent of an attempt is asked, where it is a dear one."""
        if effect.assign.agent != DEAR:
            return
        place = effect.assign.task, effect.assign.epoch
        self.began += 1
        self._used[place] = 0
        outside.machine.arrive(AttemptEvent(*place, "agent.prompt", {}))
        self._later(outside, effect)

    def _later(self, outside: "Outside", effect: StartAttempt) -> None:
        outside.later(PAUSE_MS, lambda: self._call(outside, effect))

    def _call(self, outside: "Outside", effect: StartAttempt) -> None:
        place, most = (effect.assign.task, effect.assign.epoch), effect.limits.usd_millionths
        if not outside.machine.attempts.get(place) or (most and self._used[place] >= most):
            return
        cost = self.rng.randint(1_000, CALL_MAX)
        self._used[place] += cost
        self.spent += cost
        told = {"usd_millionths": cost, "usage": {"input": 1}}
        outside.machine.arrive(AttemptEvent(*place, "agent.call", told))
        self.world.reached["model-call"] += 1
        if self.spent > MOST + self.began * CALL_MAX:
            what = f"{self.spent} were spent of {MOST} by {self.began} attempts"
            self.world.checker.fail("I20", what)
        self._later(outside, effect)

    def usage(self, task: str, epoch: Epoch) -> dict[str, int]:
        """What the end of an attempt says that it used; nothing of one that costs nothing."""
        used = self._used.get((task, epoch))
        return {} if used is None else {METERED: 1, "tokens": 1, "usd_millionths": used}
