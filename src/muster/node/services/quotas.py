"""How much is written down: by one attempt or session, and in one scope.

Rule 1: it is counted where it is written, and refused there: what came from another machine is
kept, whatever it was counted as over there.
Rule 2: a program may begin any number of sessions: all of a machine have a bound together.
Rule 3: an attempt ends with its daemon, and a session's token does, so what they wrote is counted
in memory.
"""

from collections import deque
from typing import TYPE_CHECKING, Final

from muster.errors import Refused
from muster.limits import (
    MEMORY_RECORDS_MAX,
    MEMORY_WRITES_OF_SESSIONS_MAX,
    MEMORY_WRITES_PER_ATTEMPT_MAX,
    MEMORY_WRITES_PER_MS,
)
from muster.log.stream import Scope
from muster.memory.fold import VERSION
from muster.node.part import Part
from muster.node.services.showings import Showings

if TYPE_CHECKING:
    from muster.node.call.answers import Call
    from muster.node.core import Core

# Attempts and sessions that are remembered, the newest: no machine has so many at once.
_READERS_MAX: Final = 1_000
# After so many writes of ours the records of a scope are counted again: it costs some milliseconds.
_COUNTED_EVERY: Final = 200
HALF_FULL: Final = "memory-half-full"


class Quotas(Part):
    """See the rules at the top of this file."""

    name = "quotas"

    def __init__(self, core: "Core") -> None:
        self._core = core
        # When each attempt and session wrote: of a session, what is no longer ago than counts.
        self._written: dict[str, deque[int]] = {}
        # When any session of this machine did, of the last hour.
        self._of_sessions: deque[int] = deque(maxlen=MEMORY_WRITES_OF_SESSIONS_MAX)
        # How many records a scope has, and how many more may be written before they are counted.
        self._records: dict[Scope, tuple[int, int]] = {}

    def take(self, call: "Call", scope: Scope, key: str) -> None:
        """One more is written down. Raises: Refused where that would be too many."""
        reader, now_ms = self._core.part(Showings).reader(call), self._core.now.boot_ms
        written = self._written.get(str(reader), deque[int]())
        if reader is not None:
            if not reader.task:
                while written and now_ms - written[0] >= MEMORY_WRITES_PER_MS:
                    written.popleft()
            if len(written) >= MEMORY_WRITES_PER_ATTEMPT_MAX:
                who = "attempt has" if reader.task else "session has, in one hour,"
                raise Refused(
                    f"this {who} written down {len(written)} things, which is all that one may: "
                    "join what belongs together under one key, and name the rest in your summary"
                )
            if not reader.task:
                self._check_sessions(now_ms)
        self.take_record(scope, key)
        if reader is not None:
            self._written.pop(str(reader), None)
            self._written[str(reader)] = written
            written.append(now_ms)
            if not reader.task:
                self._of_sessions.append(now_ms)
            if len(self._written) > _READERS_MAX:
                del self._written[next(iter(self._written))]

    def _check_sessions(self, now_ms: int) -> None:
        """Raises: Refused where all sessions of this machine together wrote too much."""
        there, most = self._of_sessions, MEMORY_WRITES_OF_SESSIONS_MAX
        if len(there) == most and now_ms - there[0] < MEMORY_WRITES_PER_MS:
            left = (MEMORY_WRITES_PER_MS - (now_ms - there[0])) // 60_000 + 1
            raise Refused(
                f"the sessions on {self._core.name} have written down {most} things in one hour, "
                f"which is all that they may together: try again in {left} min, or let a person "
                "write it down"
            )

    def take_record(self, scope: Scope, key: str) -> None:
        """One more record in a scope, where nothing was known there under this key.

        Raises: Refused where that would be too many.
        """
        known = self._core.tables.rows_of_each(VERSION, 1, ("-seq",), key=key)
        if all(row.stream.scope != scope for row in known):
            self._take_record(scope)

    def _take_record(self, scope: Scope) -> None:
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
