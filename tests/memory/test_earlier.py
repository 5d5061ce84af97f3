"""What earlier work came to, told line by line."""

from tests.promise import proves

from muster.log.entry import EntryId
from muster.memory.earlier import Decision, Outcome, Try, of_runs, of_this_task

ONE, TWO, THREE, FOUR = (EntryId(bytes([n]) * 32) for n in range(1, 5))


@proves("memory.earlier-is-a-view")
def test_of_this_task_the_failed_tries_are_told_the_newest_first():
    tries = [
        Try(ONE, "build", "shell@build", 1_000, "no linker", "ab" * 16),
        Try(TWO, "studio", "claude@studio", 2_000, "2 tests failed", "ab" * 16),
    ]
    lines = of_this_task(tries)
    assert [(each.id, each.by, each.says, each.text) for each in lines] == [
        (TWO, "claude@studio", "it failed:", "2 tests failed"),
        (ONE, "shell@build", "it failed:", "no linker"),
    ]


@proves("memory.earlier-is-a-view")
def test_of_a_run_the_outcome_what_failed_before_it_and_what_people_said_stand_together():
    failed = Try(ONE, "build", "shell@build", 1_000, "pass --no-lto")
    outcome = Outcome(
        TWO, "hub", "claude@build", 2_000, "7d5e" * 8, "done", 1, "built with --no-lto", (failed,)
    )
    decided = Decision(THREE, "hub", "op:alice", 3_000, "7d5e" * 8, "review", "reject", "no tests")
    silent = Decision(FOUR, "hub", "op:alice", 3_000, "7d5e" * 8, "sign-off", "approve", "")
    lines = of_runs([([outcome], [decided, silent])])
    assert [(each.id, each.by, each.says, each.text) for each in lines] == [
        (TWO, "claude@build", "run 7d5e7d5e: done after 1 that failed:", "built with --no-lto"),
        (ONE, "shell@build", "a try in run 7d5e7d5e failed:", "pass --no-lto"),
        (THREE, "op:alice", "run 7d5e7d5e: a person said no to review:", "no tests"),
    ]
    assert [each.machine for each in lines] == ["hub", "build", "hub"]
