"""Entries about approvals become rows: one for each, in the stream of the machine where it waits.

Rule 1: what a chain shows is checked here: the states in their order (approval.py), the hash the
same in all of them, and the statement a genuine order for exactly this answer. An account of a
chat signs nothing: that it pressed is the word of the machine where the agent waits.
Rule 2: whether its signer may answer was decided by the machine that took the order, which cites
it, as of every order. Time is not looked at: the stamps of a machine whose clock was set back run
ahead of its clock, and what was used must be used for everybody.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from muster.errors import Refused
from muster.fleet.statement import args_hash, is_target, open_statement
from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, Rows, Skip, Table, body_as
from muster.log.stream import FLEET, FleetId, StreamName
from muster.task.approval import VERB, State, Step, args_of, binds, id_of, state_after
from muster.task.approval_kinds import (
    ApprovalAnswer,
    ApprovalAsk,
    ApprovalExpire,
    ApprovalUse,
    ApprovalWithdraw,
)


class ApprovalRow(NamedTuple):
    stream: StreamName
    id: str
    task: str
    epoch_order: int
    epoch_count: int
    # The class, for whoever may answer some classes and not others.
    sort: str
    hash: str
    state: State
    # Whose signature answered it, or which account of a chat; "" before.
    operator: str
    until_ms: int
    asked_ms: int
    changed_ms: int
    asked: EntryId
    answered: EntryId


APPROVAL: Final = Table(
    "approval", ApprovalRow, indexes=(("state", "asked_ms"), ("task",)), ids=True
)

_STEPS: Final[dict[str, type[Any]]] = {
    "approval.answer": ApprovalAnswer,
    "approval.use": ApprovalUse,
    "approval.expire": ApprovalExpire,
    "approval.withdraw": ApprovalWithdraw,
}


class ApprovalFold:
    """The stream of a machine whose agents ask."""

    name = "approval"
    tables = (APPROVAL,)
    kinds = frozenset({"approval.ask", *_STEPS})

    def __init__(self, fleet: FleetId) -> None:
        self._fleet = fleet

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        if entry.stream.scope != FLEET:
            raise Skip("wrong-scope")
        if entry.header.kind == "approval.ask":
            return (_asked(entry, rows),)
        step: Step = body_as(entry, _STEPS[entry.header.kind])
        row = rows.get(APPROVAL, step.id)
        if row is None:
            raise Skip("approval-unknown")
        state = state_after(row.state, step)
        if state is None:
            raise Skip("approval-over")
        if isinstance(step, ApprovalAnswer | ApprovalUse) and not binds(step.hash, row.hash):
            raise Skip("approval-other-action")
        fresh = row._replace(state=state, changed_ms=entry.header.t[0])
        if isinstance(step, ApprovalAnswer):
            operator = self._signer(entry, step)
            fresh = fresh._replace(operator=operator, answered=entry.id)
        return (fresh,)

    def _signer(self, entry: Entry, step: ApprovalAnswer) -> str:
        """Who signed exactly this answer, or which account pressed it. Raises: Skip."""
        if step.account:
            if step.statement:
                raise Skip("approval-other-answer")
            return step.account
        try:
            said = open_statement(step.statement.encode(), self._fleet)
        except (Refused, UnicodeError) as error:
            raise Skip("bad-statement") from error
        wanted = (VERB, step.id, args_hash(args_of(step.id, step.hash, step.answer)))
        if (said.verb, said.object, said.args) != wanted:
            raise Skip("approval-other-answer")
        if not is_target(said, entry.stream.machine):
            raise Skip("other-target")
        return said.operator


def _asked(entry: Entry, rows: Rows) -> ApprovalRow:
    body = body_as(entry, ApprovalAsk)
    if not binds(body.id, id_of(body.hash)):
        raise Skip("approval-other-id")
    if rows.get(APPROVAL, body.id) is not None:
        raise Skip("approval-known")
    now_ms = entry.header.t[0]
    return ApprovalRow(
        rows.stream, body.id, body.task, *body.epoch, body.sort, body.hash, "open", "",
        body.until_ms, now_ms, now_ms, entry.id, NO_ENTRY,
    )  # fmt: skip
