"""Permissions that agents wait for: the first answer counts, and whoever comes later hears so."""

import pytest
from tests.node.cores import Cores
from tests.promise import proves

from muster.errors import Conflict
from muster.node.tasks.approvals import AnswerAttempt, Approvals
from muster.node.tasks.attempt_body import AttemptEvent

TASK = "ab" * 16


def asked(approvals, ask, kind="agent.ask", **fields):
    with approvals.core.store.transaction():
        approvals.happened(AttemptEvent(TASK, (1, 1), kind, {"ask": ask, **fields}, "a@hub"))


@proves("agent.first-answer")
def test_the_first_answer_counts_and_the_second_is_told_who_gave_it():
    core = Cores("hub")["hub"].core
    approvals = core.part(Approvals)
    asked(approvals, "1")
    asked(approvals, "2")
    wanted = []
    core.do = wanted.append
    assert approvals.answer(TASK, "1", "op:alice", allow=True).ask == "1"
    with pytest.raises(Conflict, match="op:alice has answered that already"):
        approvals.answer(TASK, "1", "op:bob", allow=False)
    assert [each.ask for each in approvals.listing()] == ["2"], "nobody waits for the other"
    assert approvals.answer(TASK, "", "op:bob", allow=False).ask == "2"
    assert wanted == [
        AnswerAttempt(TASK, (1, 1), "1", True, "op:alice"),
        AnswerAttempt(TASK, (1, 1), "2", False, "op:bob"),
    ]
    asked(approvals, "1", "agent.decision", by="op:alice")
    with core.store.transaction():
        approvals.over(TASK)
    with pytest.raises(Conflict, match="waits for an answer"):
        approvals.answer(TASK, "1", "op:bob", allow=False)
    asked(approvals, "1")
    assert approvals.answer(TASK, "1", "op:bob", allow=False), "another attempt counts anew"
