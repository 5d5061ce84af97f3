"""What an agent handed on is one row of its own asker, and nobody else's run."""

from tests.promise import proves
from tests.task.world import BUILD, OWNER, Stream

from muster.log.stream import MachineId
from muster.task.delegation_fold import DELEGATION, REFUSED, DelegationFold, RefusalFold
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw
from muster.task.identity import run_id

RUN = run_id(MachineId(OWNER), "00")
ASKED = DelegationOpen(RUN, OWNER, "00", "spec", grant="g1")


@proves("delegation.once")
def test_what_is_asked_for_twice_is_one_run_and_keeps_its_first_source():
    stream = Stream(BUILD, folds=(DelegationFold(),))
    first = stream.append(ASKED, actor="scout@build")
    stream.append(DelegationOpen(RUN, OWNER, "00", "spec", grant="g2"))
    row = stream.rows.get(DELEGATION, RUN)
    assert row is not None
    assert (row.entry, row.source, row.actor, row.withdrawn) == (first.id, "g1", "scout@build", 0)
    assert stream.skipped == ["delegation-exists"]


@proves("delegation.once")
def test_what_names_the_run_of_another_order_is_no_row():
    stream = Stream(BUILD, folds=(DelegationFold(),))
    stream.append(DelegationOpen(RUN, BUILD, "00", "spec"))
    stream.append(DelegationOpen(RUN, OWNER, "01", "spec"))
    assert stream.skipped == ["delegation-other-run"] * 2
    assert stream.rows.held == {}


@proves("delegation.budget")
def test_without_a_grant_the_first_cause_is_what_is_counted():
    stream = Stream(BUILD, folds=(DelegationFold(),))
    cause = stream.append(DelegationWithdraw("other"))
    stream.append(DelegationOpen(RUN, OWNER, "00", "spec"), [cause.id])
    row = stream.rows.get(DELEGATION, RUN)
    assert row is not None
    assert row.source == cause.id.hex()
    uncaused = Stream(BUILD, folds=(DelegationFold(),))
    uncaused.append(DelegationOpen(RUN, OWNER, "00", "spec"))
    assert [each.source for each in uncaused.rows.every(DELEGATION)] == [""]


@proves("delegation.ends")
def test_only_what_was_asked_for_is_withdrawn():
    stream = Stream(BUILD, folds=(DelegationFold(),))
    stream.append(DelegationWithdraw(RUN))
    stream.append(ASKED)
    stream.append(DelegationWithdraw(RUN))
    assert [each.withdrawn for each in stream.rows.every(DELEGATION)] == [1]
    assert stream.skipped == ["no-such-delegation"]


@proves("delegation.evidence")
def test_an_owner_refuses_a_run_once():
    stream = Stream(OWNER, folds=(RefusalFold(),))
    stream.append(DelegationRefuse(RUN, "too wide"))
    stream.append(DelegationRefuse(RUN, "another word"))
    assert [each.reason for each in stream.rows.every(REFUSED)] == ["too wide"]
    assert stream.skipped == ["refused-before"]
