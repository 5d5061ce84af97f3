"""How much is written down: by one attempt, and in one scope.

Rule 1: it is counted where it is written, and refused there: what came from another machine is
kept, whatever it was counted as over there.
Rule 2: an attempt ends with its daemon, so what it wrote is counted in memory.
"""

from typing import TYPE_CHECKING, Final

from muster.errors import Refused
from muster.limits import MEMORY_RECORDS_MAX, MEMORY_WRITES_PER_ATTEMPT_MAX
from muster.log.stream import Scope
from muster.memory.fold import VERSION
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.call.answers import Call
    from muster.node.core import Core

# Attempts that are remembered, the newest: no machine runs so many at once.
_ATTEMPTS_MAX: Final = 1_000
# After so many writes of ours the records of a scope are counted again: it costs some milliseconds.
_COUNTED_EVERY: Final = 200
HALF_FULL: Final = "memory-half-full"


class Quotas(Part):
    """See the rules at the top of this file."""

    name = "quotas"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._written: dict[str, int] = {}
        # How many records a scope has, and how many more may be written before they are counted.
        self._records: dict[Scope, tuple[int, int]] = {}

    def take(self, call: "Call", scope: Scope, key: str) -> None:
        """One more is written down. Raises: Refused where that would be too many."""
        if call.task:
            written = self._written.get(call.task, 0)
            if written >= MEMORY_WRITES_PER_ATTEMPT_MAX:
                raise Refused(
                    f"this attempt has written down {written} things, which is all that one may: "
                    "join what belongs together under one key, and name the rest in your summary"
                )
        if not self._core.tables.rows(VERSION, key=key, limit=1):
            self._take_record(scope)
        if call.task:
            self._written.pop(call.task, None)
            self._written[call.task] = written + 1
            if len(self._written) > _ATTEMPTS_MAX:
                del self._written[next(iter(self._written))]

    def _take_record(self, scope: Scope) -> None:
        """A key that is new here: one more record in its scope."""
        count, left = self._records.get(scope, (0, 0))
        if not left:
            count, left = self._count(scope), _COUNTED_EVERY
        if count >= MEMORY_RECORDS_MAX:
            raise Refused(
                f"{count:,} things are known here, and no more than {MEMORY_RECORDS_MAX:,} may be: "
                "`muster memories` lists them, `muster refute` and `muster forget` end some"
            )
        self._records[scope] = (count + 1, left - 1)
        if count + 1 >= MEMORY_RECORDS_MAX // 2 and not self._core.incidents.is_open(HALF_FULL):
            title = f"{count + 1:,} things are known, of {MEMORY_RECORDS_MAX:,} that may be"
            detail = "look through `muster memories`: refute what is wrong, forget what is old"
            self._core.incidents.open(HALF_FULL, "warning", title, detail)

    def _count(self, scope: Scope) -> int:
        streams = [s for s in self._core.log.streams() if s.scope == scope]
        return self._core.tables.count(VERSION, "key", streams)
