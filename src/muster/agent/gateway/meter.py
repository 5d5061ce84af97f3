"""What the calls of an attempt have used, and whether another may begin.

Rule 1: pure: no clock, no loop. Whoever waits for room asks again when a call has ended.
Rule 2: a call begins only where something is left, and asks for no more output than that; what its
prompt costs is known when it has ended. So the limit is passed by one call of each that runs.
Rule 3: every call that began is settled exactly once, also one that was cut off.
"""

from collections.abc import Callable
from typing import Final

import msgspec

from muster.agent.gateway.prices import Prices
from muster.agent.gateway.usage import Usage

_MILLION: Final = 1_000_000
# Of a call that says no most of its own: what models answer at once, at the most.
UNSAID_OUTPUT: Final = 32_000


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the attempt may use; 0 is no limit."""

    tokens: int = 0
    usd_millionths: int = 0


class Reserved(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may begin."""

    call: int
    model: str
    output_max: int
    """What is asked of the model at the most; 0 where that is left to it."""


class Full(msgspec.Struct, frozen=True, kw_only=True):
    """A call that may not begin."""

    why: str
    """A sentence."""
    waits: bool = False
    """Whether there may be room when one of those that run has ended."""


class Meter:
    """The tokens and the money of one attempt."""

    def __init__(self, limits: Limits, prices: Prices) -> None:
        self._limits = limits
        self._prices = prices
        self._cost = 0
        """In millionths of a millionth of a dollar."""
        self._held: dict[int, tuple[int, int]] = {}
        """Of each call that runs: the tokens and the cost that are kept for its output."""
        self._calls = 0
        self._followers: list[Callable[[], None]] = []
        self.used = Usage()
        self.unpriced = 0
        """Tokens of models that have no price: `usd_millionths` does not have them."""
        self.refused = 0

    @property
    def usd_millionths(self) -> int:
        """What it has cost, rounded up."""
        return -(-self._cost // _MILLION)

    @property
    def running(self) -> int:
        return len(self._held)

    def follow(self, told: Callable[[], None]) -> None:
        """Have this called whenever a call has been settled: those that wait look again."""
        self._followers.append(told)

    def room(self) -> str:
        """Why no call may begin, as a sentence; "" where one may."""
        most = self._limits
        if most.tokens and self.used.tokens >= most.tokens:
            return (
                f"the budget of this task is spent: {self.used.tokens} of {most.tokens} tokens; "
                "give it more, and begin it again"
            )
        if most.usd_millionths and self.usd_millionths >= most.usd_millionths:
            return (
                f"the budget of this task is spent: {usd(self.usd_millionths)} of "
                f"{usd(most.usd_millionths)}; give it more, and begin it again"
            )
        return ""

    def reserve(self, model: str, output_max: int = 0, output_min: int = 1) -> Reserved | Full:
        """Room for one call of this model that asks for as much output; 0 where it does not say.

        Less output than `output_min` is of no use to it.
        """
        if why := self.room():
            self.refused += 1
            return Full(why=why)
        price = self._prices.of(model)
        if self._limits.usd_millionths and price is None:
            self.refused += 1
            return Full(
                why=f"nobody has said what the model {model[:80]!r} costs, and the budget of this "
                "task is in dollars; give it a budget in tokens, or add the model to the prices"
            )
        rate = price.output if price is not None else 0
        now, later = self._left(rate, held=True), self._left(rate, held=False)
        if now is not None and now < output_min:
            if later is not None and later < output_min:
                self.refused += 1
                return Full(
                    why=f"the budget of this task is spent: {max(0, later)} tokens are left, and "
                    f"this call needs {output_min}; give it more, and begin it again"
                )
            return Full(why="calls that run may use all that is left", waits=True)
        wanted = output_max or UNSAID_OUTPUT
        granted = wanted if now is None else min(wanted, now)
        self._calls += 1
        self._held[self._calls] = (granted, granted * rate)
        # Who does not say is told nothing as long as there is enough for the longest answer.
        unsaid = not output_max and granted == wanted
        return Reserved(call=self._calls, model=model, output_max=0 if unsaid else granted)

    def settle(self, reserved: Reserved, usage: Usage, answered: str = "") -> int:
        """Count what a call used, by the price of the model that answered; what it cost.

        In millionths of a dollar, rounded up. A second settlement of a call counts nothing.
        """
        if self._held.pop(reserved.call, None) is None:
            return 0
        cost = self._spend(reserved.model, usage, answered)
        for told in self._followers:
            told()
        return cost

    def _spend(self, asked: str, usage: Usage, answered: str) -> int:
        self.used += usage
        price = self._prices.of(answered) or self._prices.of(asked)
        if price is None:
            self.unpriced += usage.tokens
            return 0
        cost = price.of(usage)
        self._cost += cost
        return -(-cost // _MILLION)

    def _left(self, rate: int, *, held: bool) -> int | None:
        """The tokens of output that may still come at this rate; None where nothing limits them.

        With `held`, without what is kept for calls that run.
        """
        tokens = sum(each for each, _ in self._held.values()) if held else 0
        cost = sum(each for _, each in self._held.values()) if held else 0
        left = []
        if self._limits.tokens:
            left.append(self._limits.tokens - self.used.tokens - tokens)
        if self._limits.usd_millionths and rate:
            left.append((self._limits.usd_millionths * _MILLION - self._cost - cost) // rate)
        return min(left) if left else None


def usd(millionths: int) -> str:
    """As people read it: `$1.25`; small sums to the millionth."""
    whole, rest = divmod(millionths, _MILLION)
    text = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"${whole}.{text}"
