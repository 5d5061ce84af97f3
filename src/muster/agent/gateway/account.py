"""The calls of one attempt, as they are told: those that cost something, and the rest in sums.

Rule 1: a flood tells no more than a trickle. Calls that used something are told one by one, up to
so many; of all others the first of each kind, and what follows is told in sums at the end.
Rule 2: a sum loses no token, no money and no byte of what it is the sum of.
"""

from collections.abc import Callable
from typing import Final

from muster.agent.gateway.call import Call
from muster.agent.gateway.usage import Usage

# A long day's work of an agent; each is an entry of the journal.
USED_TOLD_MAX: Final = 2_000
# Chosen arbitrarily: three APIs, eight endings and the statuses that servers have are fewer.
KINDS_MAX: Final = 100

_Kind = tuple[str, str, int, str]


class Account:
    """Tells calls, and sums up what is too much to be told."""

    def __init__(self, tell: Callable[[Call], None]) -> None:
        self._tell = tell
        self._used = 0
        self._kinds: set[_Kind] = set()
        self._sums: dict[tuple[str, ...], Call] = {}

    def add(self, call: Call) -> None:
        """Tell it, now or in a sum."""
        if call.usage != Usage():
            self._used += 1
            now = self._used <= USED_TOLD_MAX
        else:
            # What is asked for is the agent's to choose; why a budget refused is ours.
            why = call.why if call.ending == "spent" else ""
            kind = call.api, call.ending, call.status, why
            now = kind not in self._kinds and len(self._kinds) < KINDS_MAX
            if now:
                self._kinds.add(kind)
        if now:
            self._tell(call)
        else:
            self._sum(call)

    def close(self) -> None:
        """Tell the sums."""
        for each in self._sums.values():
            self._tell(each)
        self._sums.clear()

    def _sum(self, more: Call) -> None:
        key: tuple[str, ...] = more.api, more.ending, str(more.status), more.model, more.answered
        if key not in self._sums and len(self._sums) >= KINDS_MAX:
            key = more.api, more.ending
        so_far = self._sums.get(key)
        self._sums[key] = more if so_far is None else _both(so_far, more)


def _both(one: Call, other: Call) -> Call:
    """Two sums as one: what each has of its own is left out, what both have stays."""
    names = "method", "path", "model", "answered", "why"
    same = {name: v for name in names if (v := getattr(one, name)) == getattr(other, name)}
    return Call(
        **{**dict.fromkeys(names, ""), **same},
        api=one.api,
        ending=one.ending,
        status=one.status if one.status == other.status else 0,
        usage=one.usage + other.usage,
        usd_millionths=one.usd_millionths + other.usd_millionths,
        estimated=one.estimated or other.estimated,
        sent_bytes=one.sent_bytes + other.sent_bytes,
        got_bytes=one.got_bytes + other.got_bytes,
        ms=one.ms + other.ms,
        times=one.times + other.times,
    )
