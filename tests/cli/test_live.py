"""Following a run: what is said while nothing happens."""

from typing import Any

from muster.cli.live import Watchman
from tests.promise import proves


class Door:
    json = False

    def __init__(self, *candidates: dict[str, Any]) -> None:
        self.candidates = candidates
        self.said: list[str] = []

    def ask(self, verb: str, _args: Any, **_more: Any) -> Any:
        if verb == "why":
            return {"now": {"candidates": list(self.candidates)}}
        queued = {"task": "ab" * 16, "state": "queued", "phase": "one", "instance": ""}
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
