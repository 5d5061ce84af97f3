"""What work may use up, of one attempt, of a run and of a person, as types and as sums.

Rule 1: money is whole millionths of a dollar, and 0 is no limit.
Rule 2: of several limits the tightest holds, part by part.
Rule 3: who has a gateway is counted there (`METERED`); all else is what an agent says of itself,
and an estimate.
"""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Final, NamedTuple

import msgspec
from msgspec import Meta, Struct

from muster.duration import duration_ms
from muster.errors import Malformed
from muster.task.text_types import Duration, matching

MILLION: Final = 1_000_000
# The reason of a task that ended because nothing was left begins so.
SPENT: Final = "budget: "
# In the usage of an attempt: it was counted by a gateway, and not by its agent.
METERED: Final = "metered"
# Beside that, what the agent itself said it used.
REPORTED: Final = "reported_tokens"
# More than this between the two, in parts of a hundred, is an incident.
DIFFERENCE: Final = 10
# At so much of its limit, in parts of a hundred, an attempt is told to finish.
NEARLY: Final = 80

_FORM: Final = r"^[0-9]{1,6}(\.[0-9]{1,2})?$"
_DOLLARS: Final = re.compile(_FORM)
Usd = Annotated[str, matching(_FORM, "is not an amount of dollars; write it as 2.50")]


class Amount(Struct, frozen=True, omit_defaults=True):
    """Tokens and money: a limit, in which 0 is none, or what was used."""

    tokens: Annotated[int, Meta(ge=0)] = 0
    usd_millionths: Annotated[int, Meta(ge=0)] = 0

    def __bool__(self) -> bool:
        return bool(self.tokens or self.usd_millionths)

    def __add__(self, other: "Amount") -> "Amount":
        return Amount(self.tokens + other.tokens, self.usd_millionths + other.usd_millionths)

    def is_above(self, most: "Amount") -> bool:
        """Whether any part is more than this limit says of it."""
        return 0 < most.tokens < self.tokens or 0 < most.usd_millionths < self.usd_millionths

    def of(self, most: "Amount") -> "Amount":
        """Only the parts that a limit says anything of."""
        tokens, cost = self.tokens, self.usd_millionths
        return Amount(tokens if most.tokens else 0, cost if most.usd_millionths else 0)

    def within(self, other: "Amount") -> "Amount":
        """Of two limits the tighter one, part by part."""
        return Amount(
            _tighter(self.tokens, other.tokens),
            _tighter(self.usd_millionths, other.usd_millionths),
        )


def _tighter(one: int, other: int) -> int:
    return min(one, other) if one and other else one or other


class Budget(Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What one attempt may use up."""

    tokens: Annotated[int, Meta(ge=1, le=1_000_000_000)] | None = None
    usd: Usd | None = None

    @property
    def usd_millionths(self) -> int:
        return millionths(self.usd)

    @property
    def amount(self) -> Amount:
        return Amount(self.tokens or 0, self.usd_millionths)


class RunBudget(Budget, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all attempts of a run may use up together, and how long after its beginning."""

    time: Duration | None = None

    @property
    def time_ms(self) -> int:
        """0 where nothing is said."""
        return duration_ms(self.time) if self.time else 0


class MoneyTerms(NamedTuple):
    """What the owner of a machine says of money: who keeps it, and on the keeper how much there is.

    `keeper` is a machine's name, "" where nobody is asked; 0 is no limit. `attempt` is what an
    attempt reserves of which nothing else says how much it may cost.
    """

    keeper: str = ""
    day: int = 0
    month: int = 0
    attempt: int = 0


class Used(NamedTuple):
    """What an attempt used. Not `known`: nobody said anything of it."""

    amount: Amount = Amount()
    estimated: bool = False
    known: bool = True


# By the names that agents have for them; where they say a sum, that counts.
_PARTS: Final = (
    *("input_tokens", "output_tokens", "cache_read_input_tokens", "cache_creation_input_tokens"),
    *("thought_tokens", "cached_read_tokens", "cached_write_tokens"),
)


def reported_tokens(usage: Mapping[str, int]) -> int:
    """The tokens that an agent says it used, 0 where it says nothing."""
    said = usage.get("total_tokens") or sum(usage.get(name, 0) for name in _PARTS)
    return max(0, said)


def used(usage: Mapping[str, int]) -> Used:
    """What the `usage` of an attempt's end says."""
    cost = max(0, usage.get("usd_millionths", 0))
    if METERED in usage:
        amount = Amount(max(0, usage.get("tokens", 0)), cost)
        return Used(amount, estimated=bool(usage.get("estimated")))
    amount = Amount(reported_tokens(usage), cost)
    return Used(amount, estimated=True, known=bool(amount))


def difference(usage: Mapping[str, int]) -> int:
    """By how many parts of a hundred what an agent says is off what its gateway counted.

    0 where only one of them says anything, or they agree as far as that is to be expected.
    """
    counted, said = usage.get("tokens", 0), usage.get(REPORTED, 0)
    if not _both_say(usage):
        return 0
    off = (said - counted) * 100 // counted
    return off if abs(off) > DIFFERENCE else 0


def agrees(usage: Mapping[str, int]) -> bool:
    """Whether both say something of it, and the same."""
    return _both_say(usage) and not difference(usage)


def _both_say(usage: Mapping[str, int]) -> bool:
    return METERED in usage and usage.get("tokens", 0) > 0 and usage.get(REPORTED, 0) > 0


def amount_of(raw: object) -> Amount:
    """A limit as an order or an entry has it. Raises: Malformed."""
    try:
        return msgspec.convert(raw or {}, Amount, strict=True)
    except msgspec.ValidationError as error:
        raise Malformed(f"the budget of this task cannot be read: {error}") from error


def attempt_limit(template: Mapping[str, Any], instead: Mapping[str, int]) -> Amount:
    """What one attempt may use up by what was signed.

    What a run was given `instead` takes the place of every budget of its spec.
    """
    return amount_of(instead or template.get("budget"))


def run_limit(said: RunBudget | None, instead: Mapping[str, int]) -> Amount:
    """What all attempts of a run may use up by what was signed."""
    if instead:
        return amount_of(instead)
    return said.amount if said is not None else Amount()


def millionths(dollars: str | None) -> int:
    """`2.50` in millionths of a dollar, 0 for nothing."""
    whole, _, cents = (dollars or "0").partition(".")
    return int(whole) * MILLION + int(cents.ljust(2, "0")) * 10_000


def parsed(text: str) -> Amount:
    """`usd=5.00`, `tokens=200000`, or both with a comma between. Raises: Malformed."""
    found = dict[str, int]()
    for each in text.split(","):
        name, _, value = each.strip().partition("=")
        if name == "usd" and _DOLLARS.fullmatch(value):
            found["usd_millionths"] = millionths(value)
        elif name == "tokens" and value.isascii() and value.isdigit() and len(value) <= 10:
            found["tokens"] = int(value)
    if len(found) != len(text.split(",")) or not all(found.values()):
        raise Malformed(
            f"{text[:60]!r} is no budget; write usd=5.00, tokens=200000, or both with a comma"
        )
    return Amount(**found)


def usd(amount: int) -> str:
    """As people read it: `$1.25`; small sums to the millionth."""
    whole, rest = divmod(amount, MILLION)
    text = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"${whole}.{text}"


def said(amount: Amount) -> str:
    """A sum as people read it."""
    parts = [f"{amount.tokens} tokens"] if amount.tokens else []
    parts += [usd(amount.usd_millionths)] if amount.usd_millionths else []
    return " and ".join(parts) or "nothing"
