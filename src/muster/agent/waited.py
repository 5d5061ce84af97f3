"""How long an attempt has waited for people: its time limit does not count that.

Rule 1: both ends of the attempt read it off the same events: the shim, which keeps the limit, and
the daemon, which ends a shim that does not.
Rule 2: only the standard library and limits.py, because the shim imports this file on every start.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from muster.limits import APPROVAL_MS_MAX

# All in all: an agent that asks without end, and works meanwhile, has not all the time there is.
WAITED_S_MAX: Final = APPROVAL_MS_MAX / 1000


class Waited:
    """Of one attempt, by the clock that it is given."""

    def __init__(self, clock_s: Callable[[], float]) -> None:
        self._clock_s = clock_s
        self._open: set[str] = set()
        self._since = self._total = 0.0

    def heard(self, kind: str, fields: Mapping[str, Any]) -> None:
        """An event of the attempt."""
        ask = str(fields.get("ask") or "")
        if kind == "agent.ask" and ask:
            if not self._open:
                self._since = self._clock_s()
            self._open.add(ask)
        elif kind == "agent.decision" and ask in self._open:
            self._open.remove(ask)
            if not self._open:
                self._total += self._clock_s() - self._since

    @property
    def goes_on(self) -> bool:
        """Whether it waits now, and may."""
        return bool(self._open) and self.seconds < WAITED_S_MAX

    @property
    def seconds(self) -> float:
        """So far, the wait that goes on included."""
        waits = self._clock_s() - self._since if self._open else 0.0
        return min(self._total + waits, WAITED_S_MAX)
