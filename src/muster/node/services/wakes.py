"""Which live sessions rest, and who waits beside one to wake it.

Rule 1: a session rests when a hook of its program said that a turn is over, or that it began, and
nothing made it go on. One that was not heard of for `SESSION_SILENT_MS` may rest: a person stops a
turn without a word, and a program that works keeps for later what comes in. One that is woken by a
prompt keeps nothing: it rests when it says so.
Rule 2: one program waits beside a session, the one that came last; all of them are few, and the one
that has waited longest goes.
Rule 3: nothing is asked again and again: whoever waits looks when a message came for its
agent, when its session begins to rest, when a session of its agent changed, and when what another
one was handed may be shown to it. The session heard of last looks first.
Rule 4: all of it is in memory. After a restart those that wait come back, and which sessions rest
is known when they are silent.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from muster.limits import SESSION_SILENT_MS, SESSION_WAITS_MAX, SESSIONS_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import StreamName
from muster.message.kinds import MessageSend
from muster.message.session import SessionRow, SessionState
from muster.node.part import Part
from muster.node.services.sessions import Sessions

if TYPE_CHECKING:
    from muster.node.core import Core

# What whoever waits is told: to look.
_LOOK: Final = "look"
# A session, by its agent and what its program calls it: it may have no address yet.
Key = tuple[str, str]


class Wait:
    """One program that waits; `over` says that it need not any more."""

    def __init__(self, pid: int, tell: Callable[[Any], None], told: Callable[[Any], None]) -> None:
        self.pid, self.over = pid, False
        # From within a step, and from anywhere else.
        self.tell, self.told = tell, told


class Wakes(Part):
    """See the rules at the top of this file."""

    name = "wakes"

    def __init__(self, core: "Core") -> None:
        self._core, self._sessions = core, core.part(Sessions)
        self._waiting: dict[Key, Wait] = {}
        # Whether a session rests, and the program that said so.
        self._rests: dict[Key, tuple[int, bool]] = {}
        # Agents that something came for in this step: their sessions look when it is done.
        self._due: set[str] = set()
        core.on("message.send", self._came)
        core.on("session.state", self._changed)

    # --- who waits ------------------------------------------------------------------------

    def begin(self, key: Key, wait: Wait) -> None:
        """It waits now; not within a step."""
        before = self._waiting.pop(key, None)
        self._waiting[key] = wait
        if before is None and len(self._waiting) > SESSION_WAITS_MAX:
            before = self._waiting.pop(next(iter(self._waiting)))
        if before is not None:
            before.over = True
            before.told(_LOOK)

    def end(self, key: Key, wait: Wait) -> None:
        """It waits no more."""
        if self._waiting.get(key) is wait:
            del self._waiting[key]

    def left_ms(self, row: SessionRow, wait: Wait, *, silence: bool) -> int | None:
        """For how long it is not to be woken yet: 0 where it rests, None until it says something.

        Without `silence` what said that it works is believed, for however long.
        """
        heard = self._rests.get((row.agent, row.own))
        if heard == (wait.pid, True):
            return 0
        if heard is not None and not silence:
            return None
        return max(0, SESSION_SILENT_MS - self._sessions.silent_ms(row))

    # --- what happens ---------------------------------------------------------------------

    def says(self, row: SessionRow, pid: int, *, rests: bool) -> None:
        """A turn of it is over, or it began; or it has something to do."""
        key = (row.agent, row.own)
        self._rests.pop(key, None)
        self._rests[key] = (pid, rests)
        if len(self._rests) > SESSIONS_MAX:
            del self._rests[next(iter(self._rests))]
        if rests and (wait := self._waiting.get(key)) is not None:
            wait.tell(_LOOK)

    def ended(self, agent: str, own: str) -> None:
        """Its program said that it is over."""
        self._rests.pop((agent, own), None)
        if (wait := self._waiting.get((agent, own))) is not None:
            wait.over = True
            wait.tell(_LOOK)

    def _came(self, _stream: StreamName, entry: Entry) -> None:
        # What is for everybody wakes nobody, and a look costs more than this.
        if self._waiting and (sent := body_or_none(entry, MessageSend)) is not None:
            agents = {agent for agent, _ in self._waiting}
            named = {agent for agent in agents if f"{agent}@{self._core.machine}" in sent.to}
            self._look(named)

    def _changed(self, _stream: StreamName, entry: Entry) -> None:
        if self._waiting and (state := body_or_none(entry, SessionState)) is not None:
            self._look({state.agent})

    def _look(self, agents: set[str]) -> None:
        if agents and not self._due:
            self._core.when_done(self._tell)
        self._due |= agents

    def _tell(self) -> None:
        due, self._due = self._due, set()

        def heard_ms(found: tuple[Key, Wait]) -> int:
            row = self._sessions.of(*found[0])
            return self._sessions.heard_ms(row) if row is not None else 0

        found = [each for each in self._waiting.items() if each[0][0] in due]
        for _, wait in sorted(found, key=heard_ms, reverse=True):
            wait.tell(_LOOK)
