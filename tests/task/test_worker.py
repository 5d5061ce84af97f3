"""What a worker does with an assignment, and when it stops."""

import msgspec
import pytest
from tests.promise import proves
from tests.task.world import BUILD, OWNER, STUDIO, machine, of

from muster import limits
from muster.log.entry import EntryId
from muster.task import kinds
from muster.task.causes import Unproven
from muster.task.instruction import Draft, Now, StartAttempt, StopAttempt
from muster.task.lease import worker_lease_ms
from muster.task.open_task import Beat
from muster.task.worker import Assignment, SendBeat, Unfinished, Worker

ENTRY = EntryId(b"a" * 32)
WORK_MS = worker_lease_ms(limits.LEASE_MS)


def now(ms):
    return Now(ms, 1_790_000_000_000 + ms)


def given(name="t1", epoch=(1, 1), mark="s1:1000", owner=OWNER, unproven=None, **changes):
    template = changes.pop("template", {"agent": "shell", "do": "make"})
    known = {"machine": BUILD, "agent": "shell", "lease_ms": limits.LEASE_MS, "mark": mark}
    assign = kinds.TaskAssign(name, epoch, **{**known, **changes})
    return Assignment(owner, ENTRY, assign, kinds.TaskOpen(name, template), unproven)


def worker(**changes):
    return Worker(machine(BUILD, **changes), "s1")


def refusals(out):
    return [(b.task, b.reason) for b in of(out, kinds.AttemptRefuse)]


def drafts(out):
    return [each.body for each in out if isinstance(each, Draft)]


def test_a_proven_assignment_starts_at_once_with_the_versions_it_works_with():
    one = worker()
    template = {"agent": "shell", "do": "make", "needs": {"tools": {"python": ">=3"}}}
    one.accept(given(template=template), now(2000))
    out = one.flush()
    start = of(out, kinds.AttemptStart)[0]
    assert start.tools == {"python": "Python 3.12.1"}
    assert [type(e) for e in out] == [Draft, StartAttempt]
    assert one.holds("t1") == (1, 1)


@proves("task.duplicates-start-once")
def test_an_assignment_counts_once_whatever_is_repeated():
    one = worker()
    for _ in range(3):
        one.accept(given(), now(2000))
    assert len(of(one.flush(), StartAttempt)) == 1
    one.accept(given(epoch=(1, 0)), now(2000))
    one.accept(given(epoch=(0, 9)), now(2000))
    assert one.flush() == []
    one.ended(kinds.AttemptFinish("t1", (1, 1), "done"))
    one.flush()
    one.accept(given(), now(2000))
    assert one.flush() == []


@proves("task.refusal-has-a-reason")
@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"unproven": Unproven("statement-missing", "no order")}, "statement-missing"),
        ({"template": {"do": "x", "needs": {"tools": {"python": ">=3.13"}}}}, "misfit"),
        ({"template": {"do": "x", "needs": {"os": "windows"}}}, "misfit"),
        ({"template": {"do": "x", "needs": {"colour": "red"}}}, "bad-needs"),
        ({"agent": "claude"}, "other-agent"),
    ],
)
def test_what_is_not_proven_or_does_not_fit_is_refused_and_never_starts(changes, reason):
    one = worker()
    one.accept(given(**changes), now(2000))
    out = one.flush()
    assert refusals(out) == [("t1", reason)]
    assert of(out, StartAttempt) == []
    assert one.statistics() == {"asking": 0, "running": 0, "ending": 0}


def test_an_assignment_for_another_machine_is_nothing():
    one = worker()
    one.accept(given(machine=STUDIO), now(2000))
    assert one.flush() == []


@proves("task.slots")
def test_a_worker_refuses_more_than_its_slots_whoever_asks():
    one = worker(slots={"": 1})
    one.accept(given("t1"), now(2000))
    one.accept(given("t2", owner=STUDIO), now(2000))
    assert refusals(one.flush()) == [("t2", "busy")]
    one.ended(kinds.AttemptFinish("t1", (1, 1), "done"))
    one.accept(given("t2", (1, 2), owner=STUDIO), now(2000))
    assert len(of(one.flush(), StartAttempt)) == 1


@proves("task.one-holder")
def test_another_owner_cannot_touch_an_attempt_by_using_its_name():
    one = worker()
    one.accept(given(), now(2000))
    one.flush()
    one.accept(given(epoch=(9, 9), owner=STUDIO), now(2000))
    assert refusals(one.flush()) == [("t1", "other-owner")]
    one.stop(STUDIO, "t1", (1, 1), "mine now")
    one.beat_answered(STUDIO, "s1:2000", [], [("t1", (1, 1))], now(2000))
    assert one.flush() == []
    assert one.holds("t1") == (1, 1)


# --- leases --------------------------------------------------------------------------------------


def assert_lasts_until(one, ms):
    one.tick(now(ms - 1))
    assert of(one.flush(), StopAttempt) == []
    one.tick(now(ms))
    assert len(of(one.flush(), StopAttempt)) == 1


@proves("task.worker-ends-first")
def test_without_an_answer_the_worker_ends_its_process_tree_before_the_owners_lease_ends():
    one = worker()
    one.accept(given(mark="s1:1000"), now(1500))
    one.flush()
    one.tick(now(1000 + WORK_MS - 1))
    assert one.flush() == []
    one.tick(now(1000 + WORK_MS))
    assert of(one.flush(), StopAttempt) == [
        StopAttempt("t1", (1, 1), "the lease could not be renewed in time")
    ]
    assert one.holds("t1") is None
    one.ended(kinds.AttemptFinish("t1", (1, 1), "done", "half", commit="c0"))
    finish = drafts(one.flush())[0]
    assert (finish.status, finish.commit) == ("killed", "")


@proves("task.worker-ends-first")
def test_a_beat_renews_from_the_moment_of_the_question_not_of_the_answer():
    one = worker()
    one.accept(given(mark="s1:1000"), now(1500))
    one.beats([OWNER], now(9_000))
    sent = of(one.flush(), SendBeat)[0]
    assert sent == SendBeat(OWNER, "s1:9000", (Beat("t1", (1, 1)),))
    one.beat_answered(OWNER, sent.mark, [("t1", (1, 1))], [], now(20_000))
    one.beat_answered(OWNER, "s1:2000", [("t1", (1, 1))], [], now(20_000))
    assert_lasts_until(one, 9_000 + WORK_MS)


@proves("task.worker-ends-first")
@pytest.mark.parametrize("mark", ["", "s0:1000", "s1:1000"])
def test_a_delayed_assignment_starts_only_after_the_owner_said_so_again(mark):
    one = worker()
    one.accept(given(mark=mark), now(3_600_000))
    out = one.flush()
    assert of(out, StartAttempt) == []
    assert of(out, SendBeat)[0].holds == (Beat("t1", (1, 1)),)
    one.beat_answered(OWNER, "s1:3600000", [("t1", (1, 1))], [], now(3_600_050))
    assert len(of(one.flush(), StartAttempt)) == 1
    assert_lasts_until(one, 3_600_000 + WORK_MS)


@proves("task.worker-ends-first")
def test_a_delayed_assignment_that_the_owner_took_back_never_starts():
    one = worker()
    one.accept(given(mark=""), now(3_600_000))
    one.flush()
    one.beat_answered(OWNER, "s1:3600000", [], [("t1", (1, 1))], now(3_600_050))
    out = one.flush()
    assert of(out, StartAttempt) == []
    assert refusals(out) == [("t1", "no-lease")]
    assert one.statistics()["asking"] == 0


def test_an_assignment_whose_owner_never_answers_is_given_up():
    one = worker()
    one.accept(given(mark=""), now(10_000))
    one.flush()
    one.tick(now(10_000 + limits.LEASE_MS))
    assert refusals(one.flush()) == [("t1", "no-lease")]


@proves("task.cancel")
def test_an_attempt_is_ended_by_order_and_by_a_newer_assignment():
    one = worker()
    one.accept(given("t1"), now(2000))
    one.accept(given("t2"), now(2000))
    one.flush()
    one.stop(OWNER, "t1", (1, 1), "no longer wanted")
    one.stop(OWNER, "t1", (1, 1), "again")
    assert of(one.flush(), StopAttempt) == [StopAttempt("t1", (1, 1), "no longer wanted")]
    one.accept(given("t2", (1, 2)), now(2000))
    out = one.flush()
    assert of(out, StopAttempt) == [StopAttempt("t2", (1, 1), "a newer attempt was assigned here")]
    assert refusals(out) == [("t2", "busy")]


@proves("task.withdrawn-never-begins")
def test_what_a_revoked_owner_assigned_beyond_its_cut_never_begins_and_what_runs_is_ended():
    cut, kept = EntryId(b"c" * 32), EntryId(b"d" * 32)
    one = worker(slots={"": 4})
    one.accept(given("runs")._replace(entry=cut), now(2000))
    one.flush()
    one.accept(given("fresh")._replace(entry=cut), now(2000))
    one.accept(given("odd", agent="none")._replace(entry=cut), now(2000))
    one.accept(given("asks", mark="s0:1")._replace(entry=cut), now(2000))
    one.accept(given("stays")._replace(entry=kept), now(2000))
    one.withdraw(lambda entry: entry == cut)
    out = one.flush()
    assert [each.assign.task for each in of(out, StartAttempt)] == ["stays"]
    assert [each.task for each in of(out, StopAttempt)] == ["runs"]
    assert [type(each) for each in drafts(out)] == [kinds.AttemptStart]
    assert one.running() == ["stays"]


@proves("task.withdrawn-never-begins")
def test_what_was_stopped_and_withdrawn_in_the_step_that_brought_it_never_begins():
    one = worker()
    one.accept(given(), now(2000))
    one.stop(OWNER, "t1", (1, 1), "cancelled")
    one.withdraw(lambda entry: entry == ENTRY)
    assert of(one.flush(), StartAttempt) == []
    assert one.running() == []


def test_an_end_of_something_else_is_nothing():
    one = worker()
    one.accept(given(), now(2000))
    one.flush()
    assert one.ended(kinds.AttemptFinish("t1", (1, 9), "done")) is None
    assert one.ended(kinds.AttemptFinish("t2", (1, 1), "done")) is None
    assert one.flush() == []
    assert one.holds("t1") == (1, 1)


def test_a_finish_cites_the_assignment_and_the_start():
    one = worker()
    one.accept(given(), now(2000))
    started = of(one.flush(), Draft)[0]
    draft = one.ended(kinds.AttemptFinish("t1", (1, 1), "done", "green"))
    assert draft is not None
    assert draft.causes == (ENTRY, started)


@proves("task.restart-keeps-work")
@proves("task.faults-are-the-machines")
def test_what_fails_before_the_agent_begins_is_a_refusal_and_frees_its_slot():
    one = worker(slots={"": 1})
    one.accept(given(), now(2000))
    one.flush()
    assert one.ended(kinds.AttemptRefuse("t1", (1, 9), "fault-agent", "another epoch")) is None
    draft = one.ended(kinds.AttemptRefuse("t1", (1, 1), "fault-agent", "not logged in"))
    assert refusals(one.flush()) == [("t1", "fault-agent")]
    assert len(draft.causes) == 2
    assert one.ended(kinds.AttemptRefuse("t1", (1, 1), "fault-agent", "again")) is None
    one.accept(given("t2"), now(2000))
    assert of(one.flush(), StartAttempt), "the slot is free"
    one.stop(OWNER, "t2", (1, 1), "cancelled")
    one.flush()
    one.ended(kinds.AttemptRefuse("t2", (1, 1), "fault-repo", "too late"))
    assert [b.status for b in of(one.flush(), kinds.AttemptFinish)] == ["killed"]


@proves("task.logins-are-facts")
def test_a_worker_refuses_what_its_agent_has_no_account_for_and_says_which_login_is_missing():
    """Its owner had not heard of it yet."""
    one = worker(logins={"shell": "no"})
    one.accept(given(), now(2000))
    assert refusals(one.flush()) == [("t1", "fault-login")]
    one.machine = machine(BUILD, logins={"shell": "yes"})
    one.accept(given("t2"), now(2000))
    assert of(one.flush(), StartAttempt)


def test_a_worker_that_starts_anew_says_what_it_lost():
    one = worker()
    one.restore([Unfinished("t1", (1, 1), ENTRY, OWNER)])
    finish = drafts(one.flush())[0]
    assert (finish.status, finish.reason) == ("killed", "the worker started anew")
    one.accept(given(), now(2000))
    assert one.flush() == []


def test_progress_goes_with_the_beats():
    one = worker()
    one.accept(given(), now(2000))
    one.progressed("t1", (1, 1), "half way")
    one.progressed("t1", (9, 9), "not mine")
    one.beats([OWNER, STUDIO], now(2000))
    sent = of(one.flush(), SendBeat)
    assert [beat.holds for beat in sent] == [(Beat("t1", (1, 1), "half way"),), ()]


@proves("spec.review-another-machine")
def test_a_machine_does_not_judge_what_it_did_whoever_asks_it_to():
    one, assignment = worker(muster="0.3.0"), given()
    values = {"run": {"reviews": "yes", "apart": BUILD}}
    opened = msgspec.structs.replace(assignment.opened, values=values)
    one.accept(assignment._replace(opened=opened), now(2000))
    (refusal,) = of(one.flush(), kinds.AttemptRefuse)
    assert (refusal.reason, refusal.text) == (
        "misfit", "did the work itself, and a reviewer works on another machine",
    )  # fmt: skip


@proves("task.refusal-has-a-reason")
def test_a_worker_says_what_it_holds_of_whom_and_nothing_of_what_is_over():
    one = worker(agents={"shell": "", "claude": ""})
    one.accept(given(), now(2000))
    delayed = {"mark": "s0:1000"}
    one.accept(given("t2", owner=STUDIO, **delayed), now(2000))
    assert one.statistics() == {"asking": 1, "running": 1, "ending": 0}
    assert one.owners() == {OWNER, STUDIO}
    assert {each.assign.task for each in one.given()} == {"t1", "t2"}
    assert one.running() == ["t1"]
    assert (one.holds("t1"), one.holds("t2"), one.holds("t3")) == ((1, 1), None, None)
    assert (one.assignment("t1"), one.assignment("t2")) == (ENTRY, None)
    assert (one.owner_of("t1"), one.owner_of("t2"), one.owner_of("t3")) == (OWNER, STUDIO, "")
    assert one.lease_ms_min() == limits.LEASE_MS
    one.ended(kinds.AttemptFinish("t1", (1, 1), "done"))
    one.flush()
    assert one.statistics() == {"asking": 1, "running": 0, "ending": 0}
    assert (one.owners(), one.owner_of("t1"), one.running()) == ({STUDIO}, "", [])
    # What the machine itself does not let is refused with its sentence.
    strict = worker()
    strict.refuses = lambda _: "its folder is not allowed here"
    strict.accept(given(), now(2000))
    assert refusals(strict.flush()) == [("t1", "misfit")]
