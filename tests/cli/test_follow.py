"""Following a run: what is said while nothing happens."""

from typing import Any

from muster.cli import follow
from muster.verbs import doctor
from tests.promise import proves


class CommandContext:
    json = False

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)


WAITS = {"phase": "one", "instance": "", "task": "ab" * 16, "fits": False}


@proves("cli.a-run-says-what-it-waits-for")
def test_what_keeps_a_task_waiting_is_said_and_is_no_change(capsys):
    context: Any = CommandContext()
    change = {"phase": "one", "state": "leased", "task": "ab" * 16}
    no = {**WAITS, "waits": "studio: no label tests; build: away"}
    gone = {**WAITS, "fits": True, "waits": "there is no repository 'main' here"}
    follow._watch(context, iter([no, change, gone, {"settled": "done"}]))
    assert capsys.readouterr().out == "one: running\n"
    assert (
        "one waits for a machine that fits (studio: no label tests; build: away)" in context.said[0]
    )
    assert "one waits: there is no repository 'main' here" in context.said[1]
    assert all("`muster why abababababab` says more" in each for each in context.said)


FITS = {"machine": "studio", "fits": True, "reasons": []}


class Waiting:
    """A daemon with two tasks that wait."""

    def ask(self, verb: str, args: Any) -> Any:
        if verb == "tasks":
            rows = [("a" * 32, "queued"), ("b" * 32, "queued"), ("c" * 32, "leased")]
            return [{"task": task, "state": state, "phase": task[0]} for task, state in rows]
        assert verb == "why"
        reason = "the repository is gone" if args["task"][0] == "a" else ""
        return {"now": {"candidates": [FITS], "reason": reason}}


@proves("cli.doctor-finds")
def test_doctor_says_what_keeps_work_waiting():
    context: Any = Waiting()
    (check,) = doctor._waiting(context)
    assert (check.name, check.state, check.text) == (
        "work",
        "note",
        "a waits: the repository is gone",
    )


@proves("cli.a-run-says-what-it-waits-for")
def test_a_dumb_terminal_gets_a_line_for_each_change(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    change = {"phase": "one", "instance": "", "state": "leased", "machine": "studio", "task": "ab"}
    context: Any = CommandContext()
    assert follow._watch(context, iter([change, {"settled": "done"}])) == "done"
    assert capsys.readouterr().out == "one: running on studio\n"
