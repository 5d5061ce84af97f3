"""How a followed run is told: where each task is, since when, and what happened to it before."""

import pytest

from muster.cli import run_progress as courses
from muster.cli import show
from muster.cli.picture import picture
from muster.cli.run_progress import RunProgress
from tests.promise import proves

NOW = 1_790_000_000_000
TASK = {
    "phase": "build", "instance": "", "task": "ab" * 16, "state": "queued", "machine": "",
    "agent": "", "tries": 0, "losses": 0, "reason": "", "summary": "", "commit": "",
    "opened_ms": NOW - 60_000, "changed_ms": NOW - 60_000,
}  # fmt: skip


@pytest.fixture
def course(monkeypatch):
    monkeypatch.setattr(courses, "now_ms", lambda: NOW)
    monkeypatch.setattr(courses, "boot_ms", lambda: 1_000)
    return RunProgress()


def lines(course: RunProgress, width: int = 120, height: int = 24) -> list[str]:
    return picture(course, width, height)


def row(course: RunProgress, label: str) -> str:
    """The line of a phase or of a task, without what aligns it."""
    (found,) = [each for each in lines(course) if each.startswith(label)]
    return "  ".join(part.strip() for part in found.split("  ") if part.strip())


def hear(course: RunProgress, **changes) -> str:
    return course.line(course.hear({**TASK, **changes}))


@proves("cli.a-followed-run-tells-its-course")
def test_a_task_that_runs_is_shown_on_its_machine_and_since_when(course):
    assert hear(course) == "build: queued"
    assert hear(course, state="leased", machine="studio", changed_ms=NOW - 12_000) == (
        "build: running on studio"
    )
    assert row(course, "build") == "build  running  studio  12 s  12 s ago"


@proves("cli.a-followed-run-tells-its-course")
def test_a_takeover_and_a_failed_try_are_said_with_their_reason(course):
    hear(course, state="leased", machine="studio", changed_ms=NOW - 12_000)
    lost = {"losses": 1, "reason": "the lease ended without a word", "machine": "studio"}
    assert hear(course, **lost) == (
        "build: queued again  (taken from 1 machine)  the lease ended without a word"
    )
    assert row(course, "build") == (
        "build  taken over  taken over from studio: the lease ended without a word"
    ), "the machine that lost it has it no more"
    moved = {"state": "leased", "machine": "laptop", "losses": 1, "tries": 2}
    assert hear(course, **moved, changed_ms=NOW) == (
        "build: running on laptop  (taken from 1 machine, 2 tries failed)"
    )


@proves("cli.a-followed-run-tells-its-course")
def test_the_end_says_how_long_it_took_and_the_reason_before_the_agents_words(course):
    hear(course, state="leased", machine="studio", changed_ms=NOW - 12_000)
    end = {"state": "failed", "machine": "studio", "changed_ms": NOW - 2_000, "tries": 1,
           "summary": "all is well", "reason": "the check failed: 3 errors"}  # fmt: skip
    assert hear(course, **end) == "build: failed on studio after 10 s  the check failed: 3 errors"
    done = {"state": "done", "machine": "studio", "changed_ms": NOW, "summary": "12 files"}
    assert hear(course, **done) == "build: done on studio after 12 s  12 files"


@proves("cli.a-followed-run-tells-its-course")
def test_a_task_that_had_ended_before_anybody_looked_took_what_its_rows_say(course):
    done = {"state": "done", "machine": "studio", "changed_ms": NOW - 55_000}
    assert hear(course, **done) == "build: done on studio after 5 s"


@proves("cli.a-followed-run-tells-its-course")
def test_each_instance_has_a_row_of_its_own_and_a_person_is_told_what_to_type(course):
    hear(course, instance="a", state="leased", machine="studio", changed_ms=NOW)
    hear(course, instance="b", state="waiting")
    assert [each.split("  ")[0] for each in lines(course)[1:-1]] == ["build", "", ""]
    assert lines(course)[-1] == "answer: `muster decide abababababab yes|no`"
    assert "muster decide abababababab" in row(course, "  b")


@proves("cli.a-followed-run-tells-its-course")
def test_what_a_machine_says_reaches_the_terminal_without_control_characters(course):
    told = hear(course, state="leased", machine="stu\x1b[2Jdio", losses=1, reason="a\x07b")
    assert "\x1b" not in told
    assert "\x07" not in told


@proves("cli.a-followed-run-tells-its-course", "node.repository-waited-for")
def test_a_phase_that_waits_for_a_repository_says_so_until_it_has_tasks(course):
    away = "repository main is out of reach and is asked again: the hub is away"
    assert (
        hear(course, task="", reason=away)
        == f"build: queued  {away}"[: len("build: queued  ") + 80]
    )
    hear(course, instance="src/a", task="cd" * 16)
    assert list(course.tasks) == [("build", "src/a")]


@proves("cli.live-view")
def test_a_clock_of_the_reader_that_jumps_moves_no_time_on_the_screen(course, monkeypatch):
    course.hear({"run": "1" * 32, "opened_ms": NOW - 60_000, "now_ms": NOW, "phases": {}})
    hear(course, state="leased", machine="studio", changed_ms=NOW - 5_000)
    for jumped_ms in (-3_600_000, 3_600_000):
        monkeypatch.setattr(courses, "now_ms", lambda jumped_ms=jumped_ms: NOW + jumped_ms)
        monkeypatch.setattr("time.time_ns", lambda j=jumped_ms: (NOW + j) * 1_000_000)
        assert course.elapsed_ms() == 60_000
        assert course.took_ms(("build", "")) == 5_000


@proves("cli.ids-anywhere")
def test_reasons_have_ids_as_people_type_them_in_lists_and_in_the_live_view(course):
    reason = f"the attempt of {'ab' * 32} was never pushed"
    shown = "the attempt of abababababab was never pushed"
    hear(course, state="leased", machine="studio")
    hear(course, machine="studio", tries=1, reason=reason)
    assert shown in row(course, "build")
    assert shown in hear(course, state="failed", tries=1, reason=reason)
    task = {**TASK, "state": "failed", "reason": reason}
    left = {"t_ms": NOW, "reason": reason}
    decided = {"t_ms": NOW, "machine": "studio", "agent": "shell", "epoch": [1, 1],
               "left": left, "candidates": []}  # fmt: skip
    for value in (
        show.text("why", {"task": task, "decisions": [decided], "claims": []}),
        show.text("tasks", [task]),
    ):
        assert shown in value
        assert "ab" * 32 not in value


@proves("cli.people-read-waiting-for-you")
def test_what_waits_for_a_person_is_called_so_wherever_a_person_reads():
    task = {**TASK, "run": "cd" * 16, "state": "waiting", "phase": "ok", "reason": ""}
    run = {
        "run": "cd" * 16, "name": "tidy", "state": "open", "summary": "", "opened_ms": NOW,
        "changed_ms": NOW, "owner": "hub", "repo": "", "tasks": [task],
        "phases": {"ok": {"after": []}, "then": {"after": ["ok"]}},
        "progress": {"ok": {"state": "running", "reason": ""},
                     "then": {"state": "waiting", "reason": ""}},
    }  # fmt: skip
    why = {"task": task, "decisions": [], "question": "is it good?"}
    lines = show.text("runs", run).splitlines()
    assert "waiting for you" in next(line for line in lines if line.startswith("ok"))
    assert "waiting for you" not in next(line for line in lines if line.startswith("then"))
    assert "waiting for you" in show.text("tasks", [task]).splitlines()[1]
    assert "waiting for you" in show.text("why", why).splitlines()[0]
