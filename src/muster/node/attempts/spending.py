"""What an attempt spends, while it does: told when it is nearly all, and ended when it is.

Rule 1: what passed its gateway counts; what its agent says stands beside that. Without a gateway
there is the agent's word alone, which is marked so.
Rule 2: at 80 % of any limit it is told once, and its agent is asked to finish, where it can be.
Rule 3: whose call was refused for its budget has its say, and a little time to end by itself.
"""

import asyncio
from collections.abc import Callable, Mapping
from typing import Any, Final

from muster.agent.gateway.call import Call
from muster.agent.gateway.meter import Meter
from muster.agent.gateway.prices import known
from muster.errors import Refused
from muster.task import budget
from muster.task.budget import Amount
from muster.task.problem import shown

# Claude Code and Codex end within two seconds of a refusal; who asks on and on is ended.
GRACE_S: Final = 10.0
FINISH: Final = (
    "Most of what this task may cost is used up. Finish now: write down what you have in the files "
    "that you were asked for, and end. What is not written when it is all used up is lost."
)


class Spending:
    """See the rules at the top of this file."""

    def __init__(self, limits: Amount, tell: Callable[..., None]) -> None:
        self._limits, self._tell = limits, tell
        self._nearly = self._estimated = False
        self.meter: Meter | None = None
        # Whether its agent reaches its model by a gateway alone.
        self.metered = False
        # Why a call of its agent's model was refused for its budget; "" where none was.
        self.spent = ""
        # What ends the agent, and what says something to it, once it runs.
        self.ends: Callable[[str], None] = lambda _why: None
        self.steers: Callable[[str], None] = lambda _words: None

    def attends(self, running: Any) -> None:
        """Its agent runs."""
        self.ends = running.cancel
        if running.is_steered:
            self.steers = running.steer

    def check(self, model: str, day: str) -> None:
        """Raises: Refused where a limit in dollars is for a model that has no price."""
        if model and self._limits.usd_millionths and known(day).of(model) is None:
            raise Refused(
                f"nobody has said what the model {shown(model)} costs, and this task has a limit "
                "in dollars; give it a budget in tokens, or add the model to the prices"
            )

    def called(self, call: Call) -> None:
        """A call has ended."""
        self._estimated |= call.estimated
        if call.ending == "spent" and not self.spent:
            self.spent = budget.SPENT + call.why
            asyncio.get_running_loop().call_later(GRACE_S, self.ends, self.spent)
        if not self._nearly and (part := self._part()) >= budget.NEARLY:
            self._nearly = True
            self._tell("agent.budget", used=part, **self._sums())
            if not self.spent:
                self.steers(FINISH)

    def usage(self, reported: Mapping[str, int], *, began: bool) -> dict[str, int]:
        """What its end says that it used; {} where nobody knows."""
        if not self.metered and (began or not self._limits):
            return dict(reported)
        # Who never began used nothing, for certain.
        found = {budget.METERED: 1}
        if self.meter is not None:
            used = self.meter.used
            found |= {
                "tokens": used.tokens, "input_tokens": used.prompt, "output_tokens": used.output,
                "usd_millionths": self.meter.usd_millionths, "unpriced_tokens": self.meter.unpriced,
                "estimated": int(self._estimated),
            }  # fmt: skip
        if said := budget.reported_tokens(reported):
            found[budget.REPORTED] = said
        return {name: n for name, n in found.items() if n}

    def _part(self) -> int:
        """How much of its tightest limit is used, in parts of a hundred."""
        if self.meter is None:
            return 0
        parts = [
            (self.meter.used.tokens, self._limits.tokens),
            (self.meter.usd_millionths, self._limits.usd_millionths),
        ]
        return max((used * 100 // most for used, most in parts if most), default=0)

    def _sums(self) -> dict[str, Any]:
        assert self.meter is not None
        return {
            "tokens": self.meter.used.tokens, "tokens_max": self._limits.tokens,
            "usd_millionths": self.meter.usd_millionths,
            "usd_millionths_max": self._limits.usd_millionths,
        }  # fmt: skip
