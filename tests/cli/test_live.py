"""Following a run: what is said while nothing happens."""

from typing import Any

from muster.cli import live
from muster.cli.live import Watchman
from muster.verbs import doctor
from tests.promise import proves


class Door:
    json = False

    def __init__(self, *candidates: dict[str, Any], reason: str = "", past: str = "") -> None:
        self.candidates = candidates
        self.reason, self.past = reason, past
        self.said: list[str] = []

    def ask(self, verb: str, _args: Any, **_more: Any) -> Any:
        if verb == "why":
            return {"now": {"candidates": list(self.candidates), "reason": self.reason}}
        queued = {"task": "ab" * 16, "state": "queued", "phase": "one", "instance": ""}
        queued["reason"] = self.past
        return [queued, {**queued, "task": "cd" * 16, "state": "leased"}]

    def say(self, text: str) -> None:
        self.said.append(text)


AWAY = {"machine": "build", "fits": False, "reasons": ["away"]}
OTHER = {"machine": "studio", "fits": False, "reasons": ["no label tests"]}


@proves("cli.a-run-says-what-it-waits-for")
def test_who_follows_a_run_is_told_once_why_no_machine_takes_a_task():
    door: Any = Door(OTHER, AWAY)
    watchman = Watchman(door, "run", "")
    watchman.look()
    watchman.look()
    assert len(door.said) == 1
    assert "one waits" in door.said[0]
    assert "studio: no label tests, build: away" in door.said[0]


@proves("cli.a-run-says-what-it-waits-for")
def test_nothing_is_said_of_a_task_that_only_waits_its_turn():
    door: Any = Door({"machine": "studio", "fits": True, "reasons": []}, AWAY)
    Watchman(door, "run", "").look()
    assert door.said == []


FITS = {"machine": "studio", "fits": True, "reasons": []}


@proves("cli.a-run-says-what-it-waits-for")
def test_who_follows_a_run_is_told_what_keeps_a_task_that_a_machine_could_take():
    door: Any = Door(FITS, reason="there is no repository 'main' here")
    watchman = Watchman(door, "run", "")
    watchman.look()
    watchman.look()
    assert len(door.said) == 1
    assert "one waits: there is no repository 'main' here" in door.said[0]


@proves("cli.a-run-says-what-it-waits-for")
def test_what_was_told_as_it_happened_is_not_told_again():
    door: Any = Door(FITS, reason="exit code 1", past="exit code 1")
    Watchman(door, "run", "").look()
    assert door.said == []


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
    door: Any = Waiting()
    (check,) = doctor._waiting(door)
    assert (check.name, check.state, check.text) == (
        "work",
        "note",
        "a waits: the repository is gone",
    )


@proves("cli.a-run-says-what-it-waits-for")
def test_a_dumb_terminal_gets_a_line_for_each_change(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    change = {"phase": "one", "instance": "", "state": "leased", "machine": "studio"}
    door: Any = Door()
    assert live._watch(door, iter([change, {"settled": "done"}])) == "done"
    assert capsys.readouterr().out == "one: running on studio\n"
