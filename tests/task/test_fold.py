"""Entries about work become rows, and what breaks a rule is skipped and changes nothing."""

import pytest
from tests.promise import proves
from tests.task.world import BUILD, OWNER, STUDIO, Stream

from muster.log.fold import NO_ENTRY, Skip
from muster.task import kinds
from muster.task.fold import (
    ADOPTION,
    AGAIN,
    ATTEMPT,
    LATE,
    RUN,
    AttemptFold,
    DecisionFold,
    EndingFold,
    TaskFold,
)

OPEN = kinds.TaskOpen("t1", {"do": "make"}, run="r1", phase="test", retries=2)
ASSIGN = kinds.TaskAssign("t1", (1, 1), BUILD, "shell", 30_000)


def stream(*bodies):
    made = Stream(OWNER)
    for body in bodies:
        made.append(body)
    assert made.skipped == []
    return made


def skips(made, body, reason):
    before = dict(made.rows.held)
    made.append(body)
    assert made.skipped == [reason]
    assert made.rows.held == before


@proves("task.owner-decides")
def test_the_owners_entries_lead_a_task_through_its_life():
    made = stream(OPEN, ASSIGN)
    assert made.task("t1").state == "leased"
    assert made.task("t1").machine == BUILD
    made.append(kinds.TaskExpire("t1", (1, 1), "silence"))
    assert (made.task("t1").state, made.task("t1").losses, made.task("t1").tries) == (
        "queued",
        1,
        0,
    )
    made.append(kinds.TaskAssign("t1", (1, 2), BUILD, "shell", 30_000))
    made.append(kinds.TaskRetry("t1", (1, 2), "failed", "exit 1"))
    assert (made.task("t1").losses, made.task("t1").tries) == (1, 1)
    made.append(kinds.TaskAssign("t1", (2, 3), BUILD, "shell", 30_000))
    last = made.append(kinds.TaskSettle("t1", "done", (2, 3), summary="green", commit="c0ffee"))
    row = made.task("t1")
    assert (row.state, row.epoch, row.summary, row.commit_id) == ("done", (2, 3), "green", "c0ffee")
    assert row.settled == last.id
    assert made.skipped == []


@proves("task.owner-decides")
def test_a_workers_entries_never_touch_the_task_table():
    made = stream(OPEN, ASSIGN)
    before = made.task("t1")
    made.append(kinds.AttemptStart("t1", (1, 1), "shell"))
    made.append(kinds.AttemptFinish("t1", (1, 1), "done", "green"))
    assert made.task("t1") == before
    assert not AttemptFold.kinds & TaskFold.kinds
    assert not DecisionFold.kinds & TaskFold.kinds


@proves("task.epochs-rise")
@pytest.mark.parametrize("epoch", [(1, 1), (1, 0), (0, 99)])
def test_an_assignment_under_an_epoch_that_is_not_higher_is_skipped(epoch):
    made = stream(OPEN, ASSIGN, kinds.TaskExpire("t1", (1, 1), "silence"))
    skips(made, kinds.TaskAssign("t1", epoch, BUILD, "shell", 30_000), "epoch-not-higher")


@proves("task.epochs-rise")
@pytest.mark.parametrize(
    "body",
    [
        kinds.TaskSettle("t1", "done", (1, 0)),
        kinds.TaskExpire("t1", (2, 1), "silence"),
        kinds.TaskRetry("t1", (1, 2), "failed", "exit 1"),
    ],
)
def test_an_end_under_another_epoch_than_the_lease_is_skipped(body):
    skips(stream(OPEN, ASSIGN), body, "stale-epoch")


@proves("task.settles-once")
@pytest.mark.parametrize(
    "body",
    [
        kinds.TaskSettle("t1", "failed", (1, 1)),
        kinds.TaskCancel("t1", "no"),
        kinds.TaskRetry("t1", (1, 1), "failed", "exit 1"),
        kinds.TaskExpire("t1", (1, 1), "silence"),
        kinds.TaskAssign("t1", (9, 9), BUILD, "shell", 30_000),
    ],
)
def test_nothing_changes_a_settled_task(body):
    made = stream(OPEN, ASSIGN, kinds.TaskSettle("t1", "done", (1, 1)))
    skips(made, body, "illegal-transition")


def test_a_late_result_has_a_row_of_its_own_and_leaves_the_task_alone():
    made = stream(OPEN, ASSIGN, kinds.TaskSettle("t1", "done", (1, 1)))
    before = made.task("t1")
    made.append(kinds.TaskLate("t1", (1, 0), BUILD, "done", "abc"))
    assert made.task("t1") == before
    assert made.rows.get(LATE, "t1", 1, 0) is not None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (OPEN, "task-exists"),
        (kinds.TaskSettle("t2", "done"), "no-such-task"),
        (kinds.TaskLate("t2", (1, 1), BUILD), "no-such-task"),
        (kinds.TaskSettle("t1", "done"), "illegal-transition"),
        (kinds.TaskExpire("t1", (0, 0), "silence"), "illegal-transition"),
        (kinds.RunSettle("r1", "done"), "no-such-run"),
    ],
)
def test_what_the_table_does_not_allow_is_skipped(body, reason):
    skips(stream(OPEN), body, reason)


def test_a_run_is_opened_once_and_settled_once():
    opened = kinds.RunOpen("r1", "notes", "muster: 1", "00")
    made = stream(opened, kinds.RunSettle("r1", "done", "all"))
    assert made.rows.get(RUN, "r1").state == "done"
    skips(made, kinds.RunSettle("r1", "failed"), "illegal-transition")
    made.skipped.clear()
    skips(made, opened, "run-exists")


def test_a_task_for_a_person_waits_and_the_first_decision_counts():
    made = stream(kinds.TaskOpen("t1", {"by": "human", "do": "approve"}))
    assert made.task("t1").state == "waiting"
    skips(made, ASSIGN, "illegal-transition")
    made.skipped.clear()
    made.append(kinds.TaskDecide("t1", "approve", "00"))
    assert made.task("t1").state == "waiting"
    skips(made, kinds.TaskDecide("t1", "reject", "00"), "already-decided")


def test_an_attempt_is_started_once_and_ended_once():
    made = stream(kinds.AttemptStart("t1", (1, 1), "shell", {"make": "4.3"}))
    skips(made, kinds.AttemptStart("t1", (1, 1), "shell"), "attempt-started")
    made.skipped.clear()
    made.append(kinds.AttemptFinish("t1", (1, 1), "failed", "red", "exit 1"))
    assert made.rows.get(ATTEMPT, "t1", 1, 1).state == "failed"
    skips(made, kinds.AttemptRefuse("t1", (1, 1), "busy"), "attempt-over")


@proves("task.folds-are-total")
@pytest.mark.parametrize("kind", sorted(kinds.KINDS))
@pytest.mark.parametrize(
    "raw", [b"{}", b"null", b"[]", b'{"task":1}', b"\xff", b"", b'{"task":"t1","x":1}', b"{" * 99]
)
def test_a_body_that_is_none_is_skipped_whatever_the_kind(kind, raw):
    made = stream(OPEN)
    before = dict(made.rows.held)
    made.append_raw(kind, raw)
    assert made.skipped == ["bad-body"]
    assert made.rows.held == before
    made.skipped.clear()
    erased = made.entries[-1].without_body()
    fold = next(f for f in made.folds if kind in f.kinds)
    with pytest.raises(Skip, match="no-body"):
        list(fold.apply(erased, made.rows))


def test_the_fold_knows_every_kind():
    folds = (TaskFold, AttemptFold, DecisionFold, EndingFold)
    assert set().union(*(fold.kinds for fold in folds)) == set(kinds.KINDS)


ADOPT = kinds.TaskAdopt("r1", STUDIO, 7)
INHERIT = kinds.TaskInherit("t1", "r1", "done", "test", epoch=(3, 2), machine=BUILD, agent="shell",
                            summary="green", reason="", commit="c0ffee")  # fmt: skip


@proves("adopt.goes-on", "adopt.one-owner")
def test_what_a_machine_goes_on_with_is_a_row_beside_its_own_work_and_never_its_own():
    made = Stream(OWNER)
    order = made.append(kinds.WorkEnd("t9", "00"))
    taken = made.append(ADOPT, at_ms=5)
    (row,) = made.rows.every(ADOPTION)
    assert row[1:] == ("r1", STUDIO, 7, 5, taken.id)
    # Once; of what others had; and nothing that it opened itself.
    made.append(kinds.TaskAdopt("r1", BUILD, 9))
    made.append(kinds.TaskAdopt("r2", OWNER, 9))
    made.append(OPEN)
    made.append(kinds.TaskAdopt("t1", STUDIO, 9))
    made.append(kinds.RunOpen("r3", "notes", "spec", ""))
    made.append(kinds.TaskAdopt("r3", STUDIO, 9))
    assert made.skipped == ["adopted-already", "its-own", "its-own", "its-own"]
    assert [each.what for each in made.rows.every(ADOPTION)] == ["r1"]
    # It opens again what it adopted, as its own.
    made.append(kinds.RunOpen("r1", "notes", "spec", ""), [order.id, taken.id])
    assert {each.run for each in made.rows.every(RUN)} == {"r1", "r3"}


@proves("adopt.goes-on")
def test_what_had_ended_keeps_how_it_ended_and_which_entries_say_so():
    other = Stream(STUDIO)
    cited = [
        other.append(body).id for body in (OPEN, ASSIGN, kinds.TaskSettle("t1", "done", (1, 1)))
    ]
    made = Stream(OWNER)
    made.append(INHERIT)
    assert made.skipped == ["not-adopted"]
    taken = made.append(ADOPT)
    made.append(INHERIT, [taken.id, *cited])
    row = made.task("t1")
    assert (row.state, row.run, row.phase, row.epoch) == ("done", "r1", "test", (3, 2))
    assert (row.machine, row.agent, row.summary, row.commit_id) == (
        BUILD,
        "shell",
        "green",
        "c0ffee",
    )
    assert [row.opened, row.assigned, row.settled] == cited
    made.append(INHERIT, [taken.id, *cited])
    made.append(kinds.TaskAssign("t1", (9, 9), BUILD, "shell", 30_000))
    made.append(OPEN)
    assert made.skipped[1:] == ["task-exists", "illegal-transition", "task-exists"]
    # Of what a person decided, or what ended before anybody had it, fewer entries speak.
    opened, _, settled = cited
    for n, causes in enumerate(([opened, opened, settled], [opened], [])):
        name = f"u{n}"
        made.append(kinds.TaskInherit(name, "r1", "cancelled"), [taken.id, *causes])
        row = made.task(name)
        assert row.opened == (causes[0] if causes else NO_ENTRY)
        assert row.assigned == NO_ENTRY
        assert row.settled == (causes[2] if len(causes) > 2 else NO_ENTRY)


@proves("task.owner-decides", "adopt.one-owner")
def test_a_run_and_a_task_are_called_by_their_ids_and_one_order_begins_one_run():
    made = Stream(OWNER)
    made.append(kinds.RunOpen("r1", "notes", "spec", "00ff"))
    made.append(OPEN)
    assert [row.id for row in made.rows.every(RUN)] == ["r1"]
    assert made.task("t1").id == "t1"
    # The same order under another name, however its hex is written, is the first one's again.
    for name, statement in (("r2", "00ff"), ("r3", "00FF")):
        again = made.append(kinds.RunOpen(name, "notes", "spec", statement))
        (row,) = [each for each in made.rows.every(AGAIN) if each.run == name]
        assert (row.run, row.entry) == (name, again.id)
    assert [row.run for row in made.rows.every(RUN)] == ["r1"]
    made.append(kinds.RunSettle("r2", "done"))
    made.append(kinds.RunSettle("r1", "done", "green"))
    made.append(kinds.RunSettle("r1", "failed"))
    made.append(kinds.RunOpen("r1", "notes", "spec", ""))
    assert made.skipped == ["no-such-run", "illegal-transition", "run-exists"]
    assert [(row.state, row.summary) for row in made.rows.every(RUN)] == [("done", "green")]
