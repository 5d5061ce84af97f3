"""What agents of this machine wait for: permissions that a person must give.

Rule 1: a question lives in memory, because the agent that waits for it does; it is over when it is
answered, when its time is up, or with its attempt. The journal keeps what was asked and decided.
Rule 2: the first answer counts. Whoever answers later is told so, and who answered.
Rule 3: the fleet hears that somebody is needed, never what is asked: that stays in the journal.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from muster.errors import Conflict, Refused
from muster.fleet import folds
from muster.node import event as ev
from muster.node.part import Part
from muster.node.tasks.attempt_body import AttemptEvent
from muster.task.kinds import Epoch

if TYPE_CHECKING:
    from muster.node.core import Core

INCIDENT: Final = "question-"


class AnswerAttempt(ev.Effect, frozen=True):
    """A person's answer to a permission that an agent asked for."""

    task: str
    epoch: Epoch
    ask: str
    allow: bool
    by: str


class Question(NamedTuple):
    """One permission that an agent waits for."""

    task: str
    ask: str
    epoch: Epoch
    actor: str
    asked_ms: int
    fields: Mapping[str, Any]


class Approvals(Part):
    """The open questions of one machine."""

    name = "questions"
    effects = (AnswerAttempt,)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._open: dict[tuple[str, str], Question] = {}
        # Who answered what is still open: its agent has not heard yet.
        self._answered: dict[tuple[str, str], str] = {}
        self._tidy = False

    def tick(self) -> None:
        """Whoever asked before we were stopped waits no more; once, when we may write."""
        if self._tidy:
            return
        self._tidy = True
        asked = {_incident(*key) for key in self._open}
        for row in self.core.tables.rows(folds.INCIDENT, writer=self.core.machine, open=1):
            if row.key.startswith(INCIDENT) and row.key not in asked:
                self.core.incidents.close(row.key, "the daemon was restarted")

    def happened(self, event: AttemptEvent) -> None:
        """Take notice of an attempt's event: a question, a decision, or neither."""
        key = (event.task, str(event.fields.get("ask", "")))
        if event.kind == "agent.ask":
            now_ms = self.core.now.wall_ms
            self._open[key] = Question(*key, event.epoch, event.actor, now_ms, dict(event.fields))
            short = event.task[:12]
            self.core.incidents.open(
                _incident(*key),
                "notice",
                f"{event.actor} waits for a permission: `muster logs {short}` shows which, "
                f"`muster answer {short} yes|no` answers",
            )
        elif event.kind == "agent.decision" and key in self._open:
            self._close(key, str(event.fields.get("by", "")))

    def over(self, task: str) -> None:
        """The attempt ended, and its questions with it."""
        for key in [key for key in self._open if key[0] == task]:
            self._close(key, "the attempt is over")

    def _close(self, key: tuple[str, str], reason: str) -> None:
        del self._open[key]
        self._answered.pop(key, None)
        self.core.incidents.close(_incident(*key), reason)

    def listing(self) -> list[Question]:
        """What waits for an answer, the oldest first."""
        waiting = (each for key, each in self._open.items() if key not in self._answered)
        return sorted(waiting, key=lambda q: q.asked_ms)

    def answer(self, task: str, ask: str, by: str, *, allow: bool) -> Question:
        """Give the one answer to the one question of a task. Raises: as `find`."""
        found = self.find(task, ask)
        self._answered[found.task, found.ask] = by
        self.core.do(AnswerAttempt(found.task, found.epoch, found.ask, allow, by))
        return found

    def find(self, task: str, ask: str = "") -> Question:
        """The one question of a task. Raises: Conflict without one, Refused with several."""
        found = [q for q in self.listing() if q.task == task and ask in ("", q.ask)]
        before = [
            by for key, by in self._answered.items() if key[0] == task and ask in ("", key[1])
        ]
        if not found and before:
            raise Conflict(
                f"{before[-1]} has answered that already, and the first answer counts; "
                f"`muster logs {task[:12]}` shows what was decided"
            )
        if not found:
            raise Conflict(
                f"no agent of {self.core.name} waits for an answer about task {task[:12]}; "
                "`muster questions --on all` lists who does"
            )
        if len(found) > 1:
            listed = ", ".join(f"{q.ask} ({q.fields.get('title', '')})" for q in found)
            raise Refused(f"the agent asked more than one thing: {listed}; say --question NUMBER")
        return found[0]


def _incident(task: str, ask: str) -> str:
    return f"{INCIDENT}{task[:32]}-{ask}"
