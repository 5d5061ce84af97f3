"""What agents of this machine wait for: permissions that a person must give, each for one action.

Rule 1: the chain of a question is written here (task/approval.py says how it goes); what is asked
stays in the journal, and in memory, because the agent that waits for it does.
Rule 2: a yes goes to the agent's driver, which looks at the action again; only what it tells then,
where it is the same, is used, and the use is durable before the agent hears of it.
Rule 3: the fleet hears that somebody is needed, and of what class; never what is asked.
Rule 4: an attempt ends with its daemon, so what an earlier one asked is withdrawn.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from muster.agent.permission import LATE
from muster.errors import Conflict
from muster.limits import APPROVAL_MS, APPROVAL_MS_MAX
from muster.log.entry import EntryId
from muster.log.kind import kind_of
from muster.log.stream import FLEET, FleetId
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.tasks.attempt_body import AttemptEvent
from muster.node.tasks.ownership import attempts_of
from muster.task import approval
from muster.task.approval import Chains, Standing, Step
from muster.task.approval_fold import APPROVAL, ApprovalFold
from muster.task.approval_kinds import (
    Answer,
    ApprovalAsk,
    ApprovalExpire,
    ApprovalUse,
    ApprovalWithdraw,
)
from muster.task.kinds import Epoch, body_bytes

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "approvals-too-many": "An attempt asked for more permissions at once than anybody reads.",
    "approvals-changed": "An action was another one when its permission was to be used.",
}

INCIDENT: Final = "question-"


class AnswerAttempt(ev.Effect, frozen=True):
    """A word about a permission that an agent asked for (agent/permission.py)."""

    task: str
    epoch: Epoch
    ask: str
    word: str
    by: str


class Question(NamedTuple):
    """One permission that an agent waits for."""

    id: str
    hash: str
    sort: str
    task: str
    ask: str
    epoch: Epoch
    actor: str
    asked_ms: int
    until_ms: int
    fields: Mapping[str, Any]


class Approvals(Part):
    """The open questions of one machine."""

    name = "questions"
    effects = (AnswerAttempt,)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._chains = Chains()
        # What is asked, by the approval's id, and its id by what the attempt calls it.
        self._questions: dict[str, Question] = {}
        self._ids: dict[tuple[str, Epoch, str], str] = {}
        self._tidy = False
        core.part(Authorizer).wider[approval.VERB] = self.class_object
        core.on(ev.NewIncarnation, self._asked_anew)

    @staticmethod
    def folds(fleet: FleetId) -> tuple[ApprovalFold, ...]:
        return (ApprovalFold(fleet),)

    def class_object(self, id: str) -> str:
        """What a grant for the class of an approval names; "" for what waits nowhere here."""
        found = self._questions.get(id)
        return approval.grant_object(found.sort) if found is not None else ""

    @property
    def needs_tick(self) -> bool:
        return bool(self._questions)

    def tick(self) -> None:
        """End what is over its time; once, what was asked before we were stopped."""
        if not self._tidy:
            self._tidy = True
            self._withdraw_earlier()
        for end in self._chains.late(self.core.now):
            found = self._questions[end.id]
            self._write(end)
            self._close(end.id, LATE)
            self._tell(found, "deny", LATE)

    def _withdraw_earlier(self) -> None:
        core, why = self.core, "the daemon was restarted"
        known = {_incident(each) for each in self._questions}
        for key in core.incidents.own(INCIDENT).keys() - known:
            core.incidents.close(key, why)
        own = core.membership.own(FLEET)
        for state in sorted(approval.WAITS):
            # In a stream that ended nothing can be said any more: those end by their time.
            for each in core.tables.rows(APPROVAL, stream=own, state=state):
                if each.id not in self._questions:
                    core.append_body(ApprovalWithdraw(each.id, why), cause=(each.asked,))

    def _asked_anew(self, _event: ev.NewIncarnation) -> None:
        """The stream that tells of them ended, and their chains: each is asked once more."""
        for each in list(self._questions.values()):
            why = "it is asked anew: this machine opened a new incarnation"
            found = self._chains.get(each.id)
            if found is not None and found.state in approval.WAITS:
                # Where it could be written it would mean nothing: nobody reads on there.
                self._chains.took(ApprovalWithdraw(each.id, why))
            self._close(each.id, why)
            self._tell(each, "again")

    # --- the attempt -------------------------------------------------------------------------

    def named(self, event: AttemptEvent) -> AttemptEvent:
        """The event as the journal has it: what is asked, under the name that the fleet knows."""
        if event.kind != "agent.ask":
            return event
        fields = {**event.fields, "approval": approval.id_of(self._hash(event))}
        return replace(event, fields=fields)

    def happened(self, event: AttemptEvent) -> None:
        """Take notice of an attempt's event: a question, its use, its end, or none of them."""
        ask = str(event.fields.get("ask", ""))
        if event.kind == "agent.ask":
            self._asked(event, ask)
            return
        id = self._ids.get((event.task, event.epoch, ask))
        if id is None:
            return
        if event.kind == "agent.use":
            self._used(self._questions[id], self._hash(event))
        elif event.kind == "agent.decision":
            by = str(event.fields.get("by", ""))
            found = self._chains.get(id)
            if found is not None and found.state in approval.WAITS:
                self._write(ApprovalExpire(id) if by == LATE else ApprovalWithdraw(id, by[:200]))
            self._close(id, by)

    def _hash(self, event: AttemptEvent) -> str:
        """The whole action as the driver tells it, of this very attempt."""
        core, action = self.core, str(event.fields.get("action", ""))
        here = (core.membership.fleet, core.machine)
        return approval.hash_of(*here, event.task, event.epoch, action)

    def _asked(self, event: AttemptEvent, ask: str) -> None:
        core, key = self.core, (event.task, event.epoch, ask)
        hash = self._hash(event)
        id = approval.id_of(hash)
        if not self._chains.has_room(event.task, event.epoch) or id in self._questions:
            core.counters["approvals-too-many"] += 1
            self.core.do(AnswerAttempt(*key, "deny", "this machine: it asks for too much at once"))
            return
        within_ms = event.fields.get("within_ms")
        within_ms = within_ms if isinstance(within_ms, int) else APPROVAL_MS
        within_ms = max(0, min(within_ms, APPROVAL_MS_MAX))
        now = core.now
        until_ms = now.wall_ms + within_ms
        sort = str(event.fields.get("class") or "other")
        body = ApprovalAsk(id, event.task, event.epoch, hash, until_ms, sort)
        self._append(body, self._began(event.task, event.epoch))
        self._chains.asked(body, now.boot_ms + within_ms)
        self._questions[id] = Question(
            id, hash, sort, event.task, ask, event.epoch, event.actor, now.wall_ms, until_ms,
            dict(event.fields),
        )  # fmt: skip
        self._ids[key] = id
        short = id[:12]
        core.incidents.open(
            _incident(id),
            # An agent waits, and its machine: people hear of it at once, not in the morning.
            "warning",
            f"{event.actor} waits for a permission ({sort}): `muster questions --on all` shows "
            f"which, `muster answer {short} allow|deny` answers",
        )

    def _used(self, question: Question, hash: str) -> None:
        """A yes is to be used: once, now, for what was asked and nothing else."""
        try:
            step = self._chains.use(question.id, hash, self.core.now)
        except Conflict as error:
            self._tell(question, "deny", str(error))
            return
        self._write(step)
        if isinstance(step, ApprovalUse):
            self._tell(question, "use")
            return
        late = isinstance(step, ApprovalExpire)
        if not late:
            self.core.counters["approvals-changed"] += 1
        self._tell(question, "deny" if late else "again", LATE if late else "")

    def over(self, task: str) -> None:
        """The attempt ended, and its questions with it."""
        why = "the attempt is over"
        for each in self._chains.of_attempt(task):
            self._write(ApprovalWithdraw(each.asked.id, why))
        for id in [id for id, each in self._questions.items() if each.task == task]:
            self._close(id, why)

    def _close(self, id: str, reason: str) -> None:
        found = self._questions.pop(id)
        self._ids.pop((found.task, found.epoch, found.ask), None)
        self.core.incidents.close(_incident(id), reason)

    def _tell(self, question: Question, word: str, by: str = "") -> None:
        self.core.do(AnswerAttempt(question.task, question.epoch, question.ask, word, by))

    # --- people ------------------------------------------------------------------------------

    def listing(self) -> list[Question]:
        """What waits for an answer, the oldest first."""
        waiting = [each for each in self._chains.waiting() if each.state == "open"]
        return [self._questions[each.asked.id] for each in waiting]

    def answer(  # noqa: PLR0917 - the order, and by whom it was signed
        self, id: str, hash: str, answer: Answer, by: str, statement: str, order: EntryId,
        *, account: str = "",
    ) -> Question:  # fmt: skip
        """Take the first word that counts: a signed one, or that of an account of a chat.

        `order` is the entry that took it, or the press. Raises: NotFound, Conflict, Denied.
        """
        said = (id, hash, answer, statement)
        body = self._chains.answer(*said, self.core.now, account=account)
        found = self._questions[id]
        self._write(body, (order,), by)
        self._tell(found, answer, by)
        return found

    # --- writing -----------------------------------------------------------------------------

    def _write(self, step: Step, cause: tuple[EntryId, ...] = (), by: str = "") -> Standing:
        self._append(step, cause, by or "muster")
        return self._chains.took(step, by)

    def _append(
        self, body: ApprovalAsk | Step, cause: tuple[EntryId, ...], actor: str = "muster"
    ) -> None:
        self.core.append(kind_of(type(body)), body_bytes(body), cause=cause, actor=actor)

    def _began(self, task: str, epoch: Epoch) -> tuple[EntryId, ...]:
        rows = attempts_of(self.core, self.core.machine, task, epoch)
        return (rows[-1].started,) if rows else ()


def _incident(id: str) -> str:
    return f"{INCIDENT}{id}"
