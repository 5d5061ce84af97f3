"""What people see of a phase that others review: in the table of a run, and live."""

from typing import Any

from muster.cli.picture import picture
from muster.cli.run_progress import RunProgress
from muster.cli.show.run import graph
from tests.promise import proves

PHASES = {
    "feature": {"after": [], "many": "", "agent": ["claude"], "human": False},
    "verdict": {"after": ["feature"], "many": "", "review": "feature"},
}


def task(phase: str, instance: str, state: str, summary: str = "") -> dict[str, Any]:
    return {
        "task": f"{phase}{instance}", "phase": phase, "instance": instance, "state": state,
        "summary": summary, "machine": "build", "agent": "codex", "run": "r1", "commit": "",
        "opened_ms": 1, "changed_ms": 1000,
    }  # fmt: skip


REJECTED = [
    task("feature", "", "done", "made it"),
    task("verdict", "", "done", "reject: no test"),
]


def live(tasks: list[dict[str, Any]]) -> dict[str, str]:
    """The lines of the terminal, by what they begin with."""
    progress = RunProgress()
    progress.hear({"run": "r1", "name": "pair", "opened_ms": 1, "now_ms": 2, "phases": PHASES})
    for each in tasks:
        progress.hear(each)
    return {(line.split() or [""])[0]: line for line in picture(progress, 160, 24)}


def listed(tasks: list[dict[str, Any]]) -> dict[str, str]:
    run = {"run": "r1", "name": "pair", "state": "open", "summary": "", "tasks": tasks}
    lines = graph({**run, "phases": PHASES, "progress": {}}).splitlines()
    return {(line.split() or [""])[0]: line for line in lines}


@proves("cli.review-rounds")
def test_a_round_that_was_rejected_is_not_shown_as_done_and_says_what_follows():
    tasks = [*REJECTED, task("feature", "round:2", "leased")]
    row = listed(tasks)["feature"]
    assert "rejected" in row
    assert "round 2 follows; made it" in row
    assert " done " not in row
    lines = live(tasks)
    assert "1 rejected" in lines["feature"]
    assert "0 of 2 done" in lines["feature"]
    assert lines["pair"].endswith("1 of 2 phases done, 1 running")


@proves("cli.review-rounds")
def test_the_last_round_that_was_rejected_is_not_shown_as_done_either():
    assert "rejected" in listed(REJECTED)["feature"]
    assert "rejected" in live(REJECTED)["feature"]


@proves("cli.review-rounds")
def test_a_round_that_was_accepted_is_done():
    tasks = [
        *REJECTED,
        task("feature", "round:2", "done", "mended"),
        task("verdict", "round:2", "done", "accept"),
    ]
    assert "rejected" not in listed(tasks)["feature[round:2]"]
    assert "done" in live(tasks)["feature"]
