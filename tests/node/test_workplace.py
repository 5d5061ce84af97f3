"""Where an attempt works when the one before it was cut off, and what of it waits on the disk."""

import asyncio
import os
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest
from tests.node.test_attempt import OK, EffectRunner, _hurried, home, trial
from tests.promise import proves

from muster.agent.base import AgentEvent, Outcome
from muster.agent.catalogue import AgentEntry
from muster.agent.marks import Marks
from muster.node.attempts import effect_runner, workplace
from muster.node.attempts.attempt import ENDS
from muster.node.attempts.setup import BEGUN, GO_ON
from muster.node.attempts.workplace import (
    KEPT_MS_MAX,
    CutOff,
    home_of,
    left_behind,
    sweep,
    waiting,
)
from muster.node.host import clock

__all__ = ["_hurried", "home"]

SESSION = {"agent": "shell", "text": "go", "session": "s7"}
OVER = Outcome(status="cancelled", summary="ended")


AGENT = AgentEntry(title="x", driver="acp", program="x", command=("x",), version_probe=("x",))


def hands(home: Any, outcome: Outcome) -> EffectRunner:
    """A machine whose `shell` is an agent that is asked in words."""
    made = EffectRunner(home.path, outcome)
    made.agents["shell"] = AGENT
    return made


def cut_off(home: Any, **changes: Any) -> CutOff:
    """What an attempt leaves that this daemon's end cut off."""
    effects = hands(home, OVER)
    made = trial(home, effects, repo="", **changes)
    effects.does = lambda: (
        effects.on_event(AgentEvent("agent.prompt", SESSION)),
        (made.workplace.path / "half.txt").write_text("half"),
        (
            home_of(made.workplace.path).mkdir(),
            (home_of(made.workplace.path) / "session.jsonl").write_text("s7"),
        ),
        made.stop(ENDS),
    )  # type: ignore[func-returns-value]

    started = effects.start

    def heard(order: Any, on_event: Any, serve: Any) -> Any:
        effects.on_event = on_event
        return started(order, on_event, serve)

    effects.start = heard  # type: ignore[method-assign]
    asyncio.run(made.run())
    found = waiting(Path(home.work))
    return found[0] if found else None  # type: ignore[return-value]


@proves("agent.goes-on")
def test_what_this_daemons_end_cuts_off_waits_and_the_next_attempt_goes_on_with_it(home):
    left = cut_off(home)
    assert (left.session, left.agent) == ("s7", "shell")
    assert (Path(home.work) / f"{left.folder}.home/session.jsonl").read_text() == "s7"
    effects = hands(home, OK)
    again = trial(home, effects, repo="")
    end = asyncio.run(again.run())
    (order,) = effects.ordered
    assert (order.resume, order.resume_opened_ms) == ("s7", left.opened_ms)
    assert order.go_on.startswith(GO_ON)
    assert Path(order.cwd).name == left.folder
    assert end.status == "done"
    assert not list(Path(home.work).iterdir()), "what was gone on with and done is gone"


@proves("agent.goes-on")
def test_whoever_begins_anew_in_such_a_folder_is_told_of_it(home):
    cut_off(home)
    made = trial(home, hands(home, OK), repo="")
    asyncio.run(made.run())
    assert made.daemon.effects.ordered[0].prompt.startswith(BEGUN)


@proves("agent.goes-on")
@pytest.mark.parametrize("why", ["a newer attempt was assigned here", "the run was cancelled"])
def test_what_ended_for_any_other_reason_leaves_nothing(home, monkeypatch, why):
    monkeypatch.setattr("tests.node.test_workplace.ENDS", why)
    assert cut_off(home) is None
    assert not list(Path(home.work).iterdir())


@proves("agent.goes-on")
@pytest.mark.parametrize("session", ["--dangerous", "../up", "a b", "", "x" * 200])
def test_a_session_that_would_be_more_than_a_name_is_not_gone_on_with(home, monkeypatch, session):
    monkeypatch.setitem(SESSION, "session", session)
    assert cut_off(home) is None


@proves("agent.goes-on")
def test_another_agent_another_owner_and_a_review_begin_anew(home):
    left = cut_off(home)
    work = Path(home.work)
    for field, value in (("agent", "claude"), ("owner", "ff" * 32), ("task", "cd" * 16)):
        other = msgspec.structs.replace(left, **{field: value})
        (work / f"{left.folder}.session").write_bytes(msgspec.json.encode(other))
        effects = hands(home, OK)
        asyncio.run(trial(home, effects, repo="").run())
        assert effects.ordered[0].resume == "", field


@proves("agent.goes-on")
@pytest.mark.parametrize("raw", [b"", b"[]", b"{}", b"x" * 5000, b'{"version": 2, "task": "t"}'])
def test_a_note_of_no_form_is_as_good_as_absent(tmp_path, raw):
    (tmp_path / "t-1-1").mkdir()
    (tmp_path / "t-1-1.session").write_bytes(raw)
    os.symlink("/etc/passwd", tmp_path / "l-1-1.session")
    assert waiting(tmp_path) == []


@proves("agent.goes-on")
def test_what_waited_for_a_day_is_removed_and_what_is_worked_in_stays(home, monkeypatch):
    left = cut_off(home)
    made = trial(home, hands(home, OK), repo="")
    asyncio.run(sweep(made.daemon, []))
    assert (Path(home.work) / left.folder).is_dir()
    later = clock.read()._replace(wall_ms=left.opened_ms + KEPT_MS_MAX)
    monkeypatch.setattr(workplace.clock, "read", lambda: later)
    asyncio.run(sweep(made.daemon, [Path(home.work) / left.folder]))
    assert (Path(home.work) / left.folder).is_dir()
    asyncio.run(sweep(made.daemon, []))
    assert not list(Path(home.work).iterdir())


@proves("agent.over-before-the-next")
def test_a_folder_in_which_something_lives_on_is_not_gone_on_with(home, monkeypatch):
    left = cut_off(home)
    assert [each.folder for each in waiting(Path(home.work))] == [left.folder]
    monkeypatch.setattr(Marks, "end_all", lambda _self: [Path(home.work) / left.folder])
    asyncio.run(left_behind(SimpleNamespace(home=home)))  # type: ignore[arg-type]
    assert waiting(Path(home.work)) == []


@proves("agent.over-before-the-next")
def test_what_a_dead_daemon_left_is_ended_before_any_folder_is_cleared(home, monkeypatch):
    done: list[str] = []

    async def then(name: str, *_: object) -> str:
        done.append(name)
        return name

    monkeypatch.setattr(effect_runner, "left_behind", partial(then, "ended"))
    monkeypatch.setattr(effect_runner, "person_path", partial(then, "path"))
    machine = SimpleNamespace(config=SimpleNamespace(path=""), doubts=True)
    made = SimpleNamespace(
        repos=Path(home.repos), mirrors=SimpleNamespace(prepare=lambda: None),
        worktrees=SimpleNamespace(clear=partial(then, "cleared")),
        daemon=SimpleNamespace(home=home, machine=machine, core=None),
    )  # fmt: skip
    asyncio.run(effect_runner.EffectRunner.prepare(made))  # type: ignore[arg-type]
    assert done[0] == "ended"
    assert "cleared" in done
