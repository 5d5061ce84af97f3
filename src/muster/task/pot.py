"""A pot that attempts spend from: who gets how much of it, and who waits.

Rule 1: what is reserved counts as used until it is settled; so all that runs together never has
more than there is, whatever becomes of it and whoever hears of it late.
Rule 2: an attempt that ends without a word counts with all that it had reserved.
Rule 3: pure. One machine keeps a pot, and it alone writes what is reserved and settled.

    reserve ── the attempt runs ── settle
    kept       held to it by        what it used
               its gateway

An attempt that says how much it needs gets that, or waits until others have given back; one that
says nothing gets an equal share of what is left. A call's prompt is known afterwards: so a pot is
passed by at most one call of each attempt that runs.
"""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Final, NamedTuple

from muster.task.budget import MILLION, Amount

# What one call costs at most: a million tokens is the largest prompt of any model, five dollars the
# dearest of it that is usual.
CALL_MOST: Final = Amount(1_000_000, 5 * MILLION)
# More of anything nobody uses, and sums of it fit into a row.
_USED_MAX: Final = 10**15

# (task, order, count): an attempt.
Key = tuple[str, int, int]


class Part(NamedTuple):
    """One reservation, and what came of it; None while its attempt may still spend."""

    reserved: Amount
    settled: Amount | None = None


class State(NamedTuple):
    """What there is of a pot, what is used up, and what is held by attempts that have not ended."""

    most: Amount
    used: Amount
    held: Amount


class Share(NamedTuple):
    """What an attempt gets; or why it gets nothing: `wait` for others to give back, or `spent`."""

    amount: Amount = Amount()
    none: str = ""


WAIT: Final = "wait"
SPENT: Final = "spent"


def state(most: Amount, parts: Iterable[Part]) -> State:
    """Where a pot of so much stands."""
    used, held = Amount(), Amount()
    for part in parts:
        if part.settled is None:
            held += part.reserved
        else:
            used += part.settled
    return State(most, used, held)


def share(states: Iterable[State], want: Amount, sharers: int = 1) -> Share:
    """What an attempt that wants so much (0: whatever there is) gets of pots that all must give.

    `sharers` are the attempts that are to begin and want no certain amount, this one with them.
    """
    got = want
    for each in states:
        tokens = _part(each.most.tokens, each.used.tokens, each.held.tokens, want.tokens, sharers)
        cost = _part(
            each.most.usd_millionths, each.used.usd_millionths, each.held.usd_millionths,
            want.usd_millionths, sharers,
        )  # fmt: skip
        for found in (tokens, cost):
            if isinstance(found, str):
                return Share(none=found)
        assert isinstance(tokens, int)
        assert isinstance(cost, int)
        got = got.within(Amount(tokens, cost))
    return Share(got)


def _part(most: int, used: int, held: int, want: int, sharers: int) -> int | str:
    if not most:
        return want
    if used >= most:
        return SPENT
    left = most - used - held
    if left <= 0:
        return WAIT
    if not want:
        return max(1, left // max(1, sharers))
    if want <= left:
        return want
    # What others hold may come back: less than was asked for would end it too early.
    return WAIT if held else left


def day_of(at_ms: int) -> int:
    """A day (UTC) as a number: 20261128; 0 where it is no time."""
    try:
        at = datetime.fromtimestamp(at_ms / 1000, UTC)
    except (ValueError, OverflowError, OSError):
        return 0
    return at.year * 10_000 + at.month * 100 + at.day


def month_of(day: int) -> int:
    """The first day of its month."""
    return day // 100 * 100 + 1


def counted(used: Amount, reserved: Amount) -> Amount:
    """With what an attempt counts that says it used so much.

    Its last call may cost more than was left. Whoever says more still is not believed: it would
    empty the pot of all others. A part without a limit is no part of any pot.
    """
    return Amount(
        _counted(used.tokens, reserved.tokens, CALL_MOST.tokens),
        _counted(used.usd_millionths, reserved.usd_millionths, CALL_MOST.usd_millionths),
    )


def _counted(used: int, reserved: int, call: int) -> int:
    return min(used, reserved + max(reserved, call) if reserved else _USED_MAX)


def months_parts(parts: Mapping[Key, tuple[int, Part]], day: int) -> list[Part]:
    """Those of the month of a day, by the day on which each was reserved."""
    return [part for at, part in parts.values() if at // 100 == day // 100]


def days_parts(parts: Mapping[Key, tuple[int, Part]], day: int) -> list[Part]:
    """Those of a day."""
    return [part for at, part in parts.values() if at == day]
