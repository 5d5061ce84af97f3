"""The live sessions of agent programs on this machine: their addresses, tokens and signs of life.

Rule 1: a session is registered in this machine's private stream, so that it keeps its address when
the program resumes it, when the daemon restarts, and when the machine comes back from a backup.
Rule 2: a token is 32 random bytes in memory: whoever shows it is that session, and may ask for what
the agent of any task may (messages, memory). It is no authority beyond that, and ends with the
daemon; a program then asks for another one, under the same address.
Rule 3: a sign of life is kept in memory alone: it would be an entry at each use of a tool.
Rule 4: a program's server of tools knows less of its session than its hooks do: both say whose
child they are, and what the hook says counts. A server that had another one, or none, asks anew.
Rule 5: a session that nobody went on with for `SESSION_GONE_MS` is gone, and so is one that its
program said nobody will resume. What was for it is for its agent then.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Final

from msgspec.structs import replace

from muster.errors import Denied, NotFound
from muster.fleet.capability import make_capability, read_token
from muster.limits import SESSION_GONE_MS, SESSION_TOKENS_MAX, SESSIONS_MAX
from muster.log.stream import JOURNAL, FleetId
from muster.message.session import (
    SESSION,
    SessionFold,
    SessionRow,
    SessionState,
    check_session,
    session_name,
)
from muster.node.call.authorize import Authorizer
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

# The id of a session whose program told its server of tools none.
UNTOLD: Final = "stdio-"
# So long what a program had started may outlive it.
_ENDING_MS: Final = 10_000
# Long, for it ends with the daemon anyway.
_TOKEN_MS: Final = 90 * 24 * 3_600_000


class Sessions(Part):
    """See the rules at the top of this file."""

    name = "sessions"

    def __init__(self, core: "Core") -> None:
        self._core, self._orders = core, core.part(Authorizer)
        # When each was heard of last, by our clock and since the machine began; the newest last.
        self._heard: dict[str, tuple[int, int]] = {}
        # What is kept of each one's tokens, the newest last; and whose each is.
        self._tokens: dict[str, list[str]] = {}
        self._whose: dict[str, str] = {}
        # The session of a program that runs, by its agent and process.
        self._runs: dict[tuple[str, int], str] = {}
        # What a program started, by what that calls itself; and when a program said that it ends.
        self._tools: dict[str, tuple[str, int]] = {}
        self._ended_ms: dict[tuple[str, int], int] = {}
        self._since_ms, self._began_ms = core.now.wall_ms, core.now.boot_ms

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (SessionFold(),)

    def start(self) -> None:
        self._since_ms, self._began_ms = self._core.now.wall_ms, self._core.now.boot_ms

    # --- which there are ------------------------------------------------------------------

    def find(self, name: str) -> SessionRow:
        """The session of a name. Raises: NotFound."""
        found = self._newest(name=name)
        if found is None:
            raise NotFound(
                f"there is no session {name[:60]!r} on {self._core.name}; `muster sessions` lists "
                "those that are"
            )
        return found

    def of(self, agent: str, own: str) -> SessionRow | None:
        """The session that an agent program calls so, if it was ever here."""
        return self._newest(agent=agent, own=own)

    def newest(self) -> list[SessionRow]:
        """Those that changed last, each once, the newest first; a bounded number."""
        rows = self._core.tables.rows(
            SESSION, writer=self._core.machine, order=("-at_ms",), limit=SESSIONS_MAX
        )
        found: dict[str, SessionRow] = {}
        for row in rows:
            found.setdefault(row.name, row)
        return list(found.values())

    def heard_ms(self, row: SessionRow) -> int:
        """When it was last heard of; before the daemon's start nobody knows, and that counts."""
        heard = self._heard.get(row.name)
        return heard[0] if heard is not None else max(row.at_ms, self._since_ms)

    def silent_ms(self, row: SessionRow) -> int:
        """For how long it was not heard of, or the daemon did not run; no clock changes that."""
        return self._core.now.boot_ms - self._heard.get(row.name, (0, self._began_ms))[1]

    def is_gone(self, row: SessionRow) -> bool:
        """Whether nobody will go on with it, as far as anyone can tell."""
        return row.state == "gone" or self.silent_ms(row) > SESSION_GONE_MS

    def wanted(self, name: str) -> Callable[[str], bool]:
        """Whether a session of this name gets what is for another one (or "", none alone).

        It does where that was never here, or is gone: then it is for the agent.
        """
        known: dict[str, bool] = {"": True, name: True}

        def is_wanted(other: str) -> bool:
            if other not in known:
                row = self._newest(name=other)
                known[other] = row is None or self.is_gone(row)
            return known[other]

        return is_wanted

    def _newest(self, **equals: Any) -> SessionRow | None:
        rows = self._core.tables.rows(
            SESSION, writer=self._core.machine, order=("-at_ms",), limit=1, **equals
        )
        return rows[0] if rows else None

    # --- how they change ------------------------------------------------------------------

    def open(self, agent: str, own: str, project: str = "", branch: str = "") -> SessionRow:
        """The session is here and goes on, with this folder and branch; its address stays.

        Raises: Malformed where it can be none.
        """
        before = self.of(agent, own)
        if before is None:
            name = session_name(agent, own, project, self._is_taken)
            body = SessionState(name, agent, own, project, branch)
        else:
            body = replace(
                _body(before), state="open", project=project or before.project,
                branch=branch or before.branch,
            )  # fmt: skip
        return self._write(body, before)

    def change(self, row: SessionRow, **fields: Any) -> SessionRow:
        """The session with another mode or state."""
        return self._write(replace(_body(row), **fields), row)

    def heard(self, name: str) -> None:
        """It gave a sign of life."""
        self._heard.pop(name, None)
        self._heard[name] = (self._core.now.wall_ms, self._core.now.boot_ms)
        if len(self._heard) > SESSIONS_MAX:
            del self._heard[next(iter(self._heard))]

    def _is_taken(self, name: str) -> bool:
        return self._newest(name=name) is not None

    def _write(self, body: SessionState, before: SessionRow | None) -> SessionRow:
        check_session(body)
        self.heard(body.session)
        if before is not None and body == _body(before):
            return before
        core = self._core
        entry = core.append_body(body, scope=JOURNAL, actor=f"{body.agent}@{core.name}")
        # As the fold will say it: the table has it when this step ends.
        return SessionRow(
            core.membership.own(JOURNAL), body.session, body.agent, body.own, body.project,
            body.branch, body.mode, body.state, entry.header.t[0],
        )  # fmt: skip

    # --- programs that run ----------------------------------------------------------------

    def of_program(self, agent: str, pid: int) -> SessionRow | None:
        """The open session of a program that runs; None where nobody told of one."""
        name = self._runs.get((agent, pid))
        row = self._newest(name=name) if name is not None else None
        return row if row is not None and row.state == "open" else None

    def runs_in(self, row: SessionRow, pid: int) -> None:
        """This is the session of the program now; tokens of the one it had before count no more."""
        before = self.of_program(row.agent, pid)
        if pid <= 0 or (before is not None and before.name == row.name):
            return
        if before is not None:
            self.forget(before)
            if before.own.startswith(UNTOLD):
                self.change(before, state="gone")
        self.left(row.agent, pid)
        self._runs[row.agent, pid] = row.name
        if len(self._runs) > SESSIONS_MAX:
            del self._runs[next(iter(self._runs))]

    def left(self, agent: str, pid: int) -> None:
        """The program went on to another session."""
        self._runs.pop((agent, pid), None)
        self._ended_ms.pop((agent, pid), None)

    def ended(self, agent: str, pid: int) -> None:
        """The program said that it ends: what it started asks a moment longer than itself."""
        self.left(agent, pid)
        if pid <= 0:
            return
        self._ended_ms[agent, pid] = self._core.now.boot_ms
        if len(self._ended_ms) > SESSIONS_MAX:
            del self._ended_ms[next(iter(self._ended_ms))]

    def started(self, agent: str, pid: int, own: str) -> None:
        """The program started what calls itself so."""
        self._tools.pop(own, None)
        self._tools[own] = (agent, pid)
        if len(self._tools) > SESSIONS_MAX:
            del self._tools[next(iter(self._tools))]

    def is_ending(self, agent: str, pid: int, own: str) -> bool:
        """Whether the program that started this ended a moment ago, and no session of it began
        since.
        """
        ended_ms = self._ended_ms.get((agent, pid))
        fresh = ended_ms is not None and self._core.now.boot_ms - ended_ms < _ENDING_MS
        return fresh and self._tools.get(own) == (agent, pid)

    # --- tokens ---------------------------------------------------------------------------

    def token(self, row: SessionRow) -> str:
        """A new token of a session; the oldest of too many counts no more."""
        core = self._core
        token, capability = make_capability(
            core.draw(32), task=row.name, agent=row.agent, until_ms=core.now.wall_ms + _TOKEN_MS,
            verbs=tuple(each.name for each in core.verbs.values() if each.agents),
        )  # fmt: skip
        self._orders.allow_session(capability)
        mine = self._tokens[row.name] = [*self._tokens.pop(row.name, ()), capability.sha256]
        self._whose[capability.sha256] = row.name
        old = [mine.pop(0)] if len(mine) > SESSION_TOKENS_MAX else []
        if len(self._tokens) > SESSIONS_MAX:
            old += self._tokens.pop(next(iter(self._tokens)))
        for each in old:
            del self._whose[each]
            self._orders.forget_session(each)
        return token

    def of_token(self, token: str) -> SessionRow:
        """Whose token that is, which is a sign of life. Raises: Denied, Malformed."""
        name = self._whose.get(read_token(token)[1])
        if name is None:
            raise Denied(
                "no live session has this token: ask for another one, it ends with the daemon"
            )
        self.heard(name)
        return self.find(name)

    def forget(self, row: SessionRow) -> None:
        """Its tokens count no more."""
        for each in self._tokens.pop(row.name, ()):
            del self._whose[each]
            self._orders.forget_session(each)


def _body(row: SessionRow) -> SessionState:
    where = (row.project, row.branch)
    return SessionState(row.name, row.agent, row.own, *where, row.mode, row.state)
