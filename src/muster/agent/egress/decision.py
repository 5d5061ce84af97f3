"""What the proxy decided, as it is told: where to, whether it was allowed, and how much went.

Rule 1: no path, no query and no header is in it; a host only where it is the name of one.
Rule 2: a flood tells no more than a trickle: so many are told one by one, and of the same refusal
        the first. The rest is counted, and told in sums when the attempt is over.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Final

# Chosen arbitrarily: more than a person reads, and less than a page of the journal.
REFUSED_TOLD_MAX: Final = 100
# An installation of many packages makes some hundred connections.
ALLOWED_TOLD_MAX: Final = 500
OTHERS: Final = "others"


@dataclass(frozen=True, slots=True)
class Decision:
    """One connection, or with `times` above 1 so many that ended alike.

    `host` is "" where none was named. `why` is why it was refused, or what ended one that was
    allowed before its time; "" for one that ended by itself. `ms` is how long it took.
    """

    host: str
    port: int
    allowed: bool
    why: str = ""
    sent_bytes: int = 0
    received_bytes: int = 0
    ms: int = 0
    times: int = 1


class Account:
    """Tells decisions, and sums up what is too much to be told."""

    def __init__(self, tell: Callable[[Decision], None]) -> None:
        self.allowed = self.refused = 0
        self._tell = tell
        self._seen: set[tuple[str, int, str]] = set()
        self._sums: dict[tuple[str, int, bool, str], Decision] = {}

    def add(self, decision: Decision) -> None:
        """Tell it, now or in a sum."""
        if decision.allowed:
            self.allowed += 1
            if self.allowed <= ALLOWED_TOLD_MAX:
                self._tell(decision)
                return
        else:
            self.refused += 1
            key = decision.host, decision.port, decision.why
            if key not in self._seen and len(self._seen) < REFUSED_TOLD_MAX:
                self._seen.add(key)
                self._tell(decision)
                return
            if key not in self._seen:
                decision = replace(decision, host=OTHERS, port=0, why="")
        self._sum(decision)

    def close(self) -> None:
        """Tell the sums."""
        for each in self._sums.values():
            self._tell(each)
        self._sums.clear()

    def _sum(self, more: Decision) -> None:
        key = more.host, more.port, more.allowed, more.why
        if key not in self._sums and len(self._sums) >= REFUSED_TOLD_MAX + ALLOWED_TOLD_MAX:
            key = OTHERS, 0, more.allowed, ""
            more = replace(more, host=OTHERS, port=0, why="")
        so_far = self._sums.get(key)
        self._sums[key] = (
            more
            if so_far is None
            else replace(
                so_far,
                sent_bytes=so_far.sent_bytes + more.sent_bytes,
                received_bytes=so_far.received_bytes + more.received_bytes,
                ms=so_far.ms + more.ms,
                times=so_far.times + 1,
            )
        )
