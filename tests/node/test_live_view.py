"""What a terminal shows of a run: real entries of real cores, heard over the verb, as a picture."""

from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores, One, attempt_ended
from tests.node.test_runs import (
    EACH,
    SLOW,
    end,
    hand_in,
    know,
    wanted,
)
from tests.promise import proves

from muster.cli import picture as cli_picture
from muster.cli import run_progress, text
from muster.cli.picture import picture
from muster.cli.run_progress import RunProgress
from muster.limits import LEASE_MS
from muster.log import canon
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.attempt_body import AttemptStage
from muster.node.tasks.bases import Matched, MatchGlob
from muster.task.instruction import Fenced, MoveBranch, Promoted, RaiseFence, StartAttempt
from muster.verbs import run as run_verb

HUMAN = """\
muster: 1
name: chain
phases:
  build: {agent: shell, do: "true", check: "true"}
  review: {after: build, by: human, do: Is it good}
"""
RACE = """\
muster: 1
name: race
phases:
  build: {agent: shell, do: "true", check: "true", race: 2}
"""


class View:
    """Somebody who follows a run on a machine, and what the terminal shows."""

    def __init__(self, machine: One, run: str, channel: int = 12) -> None:
        self.machine, self.progress = machine, RunProgress()
        machine.raw(
            canon.encode({"args": {"live": True, "run": run, "waits": True}, "verb": "watch"}),
            channel=channel,
        )

    def lines(self, width: int = 140, height: int = 24) -> list[str]:
        heard, self.machine.answers = self.machine.answers, []
        for each in heard:
            # The answers to orders come over the same link.
            if not {"cancelled", "answer"} & each["value"].keys():
                self.progress.hear(each["value"])
        return picture(self.progress, width, height)

    def row(self, label: str) -> list[str]:
        """The cells of the line of a phase or, with two blanks before it, of a task."""
        (found,) = [each for each in self.lines() if f"{each}  ".startswith(f"{label}  ")]
        return [part.strip() for part in found.split("  ") if part.strip()]


@pytest.fixture
def world(monkeypatch) -> Cores:
    world = Cores("hub", "studio")
    know(world["hub"])
    monkeypatch.setattr(text, "now_ms", lambda: WALL_MS + world.ms)
    monkeypatch.setattr(run_progress, "boot_ms", lambda: world.ms)
    return world


@pytest.fixture
def hub(world) -> One:
    return world["hub"]


def far(world: Cores) -> None:
    """The studio works as well, and alone has the label far."""
    hub, studio = world["hub"], world["studio"]
    world.link("hub", "studio")
    studio.step(FactsChanged(studio.facts(labels=("far",))))
    world.pass_ms(3_000)
    wanted(hub, StartAttempt)


AWAY = SLOW.replace("agent: shell", "agent: shell\n    needs: {label: far}", 1)


@proves("cli.live-view")
def test_a_phase_runs_on_its_machine_and_the_next_one_waits_for_it(world, hub):
    view = View(hub, hand_in(hub, SLOW))
    assert view.row("first") == ["first", "running", "hub", "shell", "0 s", "0 s ago"]
    assert view.row("second") == ["second", "waiting", "for first"]
    world.pass_ms(7_000)
    assert view.row("first")[4] == "7 s"
    assert "0 of 2 phases done, 1 running" in view.lines()[0]
    end(hub)
    assert view.row("first")[:2] == ["first", "done"]
    assert view.row("second")[:3] == ["second", "running", "hub"]
    end(hub)
    assert view.progress.end == {} or view.progress.end["settled"] == "done"
    view.lines()
    assert view.progress.end["settled"] == "done"


@proves("cli.live-view")
def test_what_an_attempt_is_at_and_its_last_sign_of_life_come_from_another_machine_at_once(world):
    far(world)
    hub, studio = world["hub"], world["studio"]
    view = View(hub, hand_in(hub, AWAY))
    world.drain()
    (start,) = wanted(studio, StartAttempt)
    studio.step(AttemptStage(start.assign.task, start.assign.epoch, "checking"))
    world.drain()
    assert view.row("first")[:3] == ["first", "checking", "studio"], "before any beat was due"
    world.frozen.add("studio")
    world.pass_ms(4_000)
    assert view.row("first")[5] == "4 s ago"


@proves("cli.live-view")
def test_a_takeover_is_said_with_its_reason_while_it_waits_and_while_it_runs_again(world):
    far(world)
    hub, studio = world["hub"], world["studio"]
    view = View(hub, hand_in(hub, AWAY))
    (start,) = wanted(studio, StartAttempt)
    world.cut("studio")
    world.pass_ms(LEASE_MS + 1_000)
    row = view.row("first")
    assert row[:2] == ["first", "taken over"]
    said = "taken over from studio: the lease ended without a word"
    assert said in row[2]
    studio.step(attempt_ended(start.assign.task, start.assign.epoch, "killed"))
    far(world)
    row = view.row("first")
    assert row[1:3] == ["running", "studio"]
    assert row[-1] == f"attempt 2; {said}"
    late = View(hub, hub.call("runs", {})["value"][0]["run"], 13)
    assert late.row("first")[-1] == f"attempt 2; {said}", "also to who comes later"


@proves("cli.live-view")
def test_a_failed_try_is_said_with_its_reason_and_the_next_has_its_number(world, hub):
    view = View(
        hub, hand_in(hub, SLOW.replace('check: "true"', 'check: "true"\n    retries: 1', 1))
    )
    (start,) = wanted(hub, StartAttempt)
    place = (start.assign.task, start.assign.epoch)
    hub.step(attempt_ended(*place, "failed", summary="all is well", reason="3 tests fail"))
    assert view.row("first") == ["first", "retrying", "try 1 failed on hub: 3 tests fail"]
    world.pass_ms(2_000)
    assert view.row("first")[1] == "running"
    assert view.row("first")[-1] == "attempt 2; try 1 failed on hub: 3 tests fail"


@proves("cli.live-view")
def test_what_comes_after_a_failure_is_skipped_and_the_reason_comes_before_the_agents_words(hub):
    view = View(hub, hand_in(hub, SLOW))
    (start,) = wanted(hub, StartAttempt)
    place = (start.assign.task, start.assign.epoch)
    hub.step(attempt_ended(*place, "failed", summary="all is well", reason="3 tests fail"))
    assert view.row("first")[1] == "failed"
    assert view.row("first")[-1] == "3 tests fail"
    assert view.row("second") == [
        "second",
        "skipped",
        "first is failed: its task failed: 3 tests fail",
    ]
    assert view.progress.end["settled"] == "failed"


@proves("cli.live-view")
def test_a_race_is_done_with_its_first_and_shows_each_racer(hub):
    view = View(hub, hand_in(hub, RACE, "race"))
    assert view.row("build") == ["build", "running", "0 of 2 done, 2 running"]
    first, _ = wanted(hub, StartAttempt)
    hub.step(attempt_ended(first.assign.task, first.assign.epoch, "done", summary="won"))
    number = first.open.instance
    other = {"1": "2", "2": "1"}[number]
    assert view.row("build")[:2] == ["build", "done"]
    assert view.row(f"  {number}")[1] == "done"
    assert view.row(f"  {other}")[1] == "cancelled"
    assert f"racer {number} on hub passed first" in view.row(f"  {other}")[-1]


@proves("cli.live-view")
def test_each_match_has_a_line_and_many_are_folded_into_one_that_says_how_many(hub):
    run = hand_in(hub, EACH, "swarm")
    view = View(hub, run)
    assert view.row("all")[:2] == ["all", "queued"]
    wanted(hub, MatchGlob)
    hub.step(Matched(run, "all", tuple(f"src/{n:02}" for n in range(40))))
    for each in wanted(hub, RaiseFence):
        hub.step(Fenced(each.task, each.epoch, ""))
    assert view.row("all")[2] == "0 of 40 done, 2 running, 38 queued"
    lines = view.lines(height=10)
    assert len(lines) == 9, "the cursor stands below them"
    assert [each.split()[0] for each in lines[2:4]] == ["src/00", "src/01"], "those that run"
    assert lines[-2] == "  and 35 more: 35 queued"


@proves("cli.live-view")
def test_a_phase_that_waits_for_a_person_says_what_to_type(hub):
    view = View(hub, hand_in(hub, HUMAN))
    end(hub)
    row = view.row("review")
    assert row[1] == "waiting for you"
    typed = f"answer: `muster decide {view.progress.head['run'][:12]}/review yes|no`"
    for width in (len(typed), 80, 140):
        assert typed in view.lines(width), "whole, however narrow it is"
    hub.call("why", {"task": f"{view.progress.head['run'][:12]}/review"})
    hub.order("decide", "chain/review", {"task": "chain/review", "answer": "yes", "note": "so"})
    assert view.row("review")[1] == "done"
    where = hub.call("journal.where", {"task": "chain/review"})["value"]
    assert (where["person"], where["note"], where["state"]) == (True, "so", "done")
    assert "person" not in hub.call("journal.where", {"task": "chain/build"})["value"]


@proves("cli.live-view")
def test_a_cancelled_run_shows_what_was_cancelled_and_what_is_skipped(hub):
    run = hand_in(hub, SLOW)
    view = View(hub, run)
    hub.order("cancel", run, {"what": run, "reason": "wrong branch"})
    assert view.row("first")[1] == "cancelled"
    assert view.row("first")[-1] == "the run was cancelled: wrong branch"
    assert view.row("second")[1] == "skipped"
    assert view.progress.end["settled"] == "cancelled"


@proves("cli.live-view")
def test_another_machine_follows_from_its_copy_of_the_log(world):
    far(world)
    hub, studio = world["hub"], world["studio"]
    run = hand_in(hub, SLOW.replace("agent: shell", "agent: shell\n    needs: {label: far}"))
    world.drain()
    view = View(studio, run)
    assert view.row("first")[1:3] == ["running", "studio"]
    assert view.row("second") == ["second", "waiting", "for first"]
    end(studio)
    world.drain()
    assert view.row("second")[1:3] == ["running", "studio"]
    end(studio)
    world.drain()
    view.lines()
    assert view.progress.end["settled"] == "done"


@proves("cli.live-view")
def test_what_a_member_writes_about_anothers_run_is_not_shown(world):
    far(world)
    hub, studio = world["hub"], world["studio"]
    run = hand_in(hub, SLOW)
    view = View(hub, run)
    view.lines()
    with studio.core.store.transaction():
        studio.core.append("run.settle", canon.encode({"outcome": "done", "run": run}))
    world.pass_ms(500)
    assert len(hub.entries("run.settle")) == 1
    world.drain()
    assert view.row("first")[1] == "running"
    assert view.progress.end == {}


@proves("cli.live-view")
@pytest.mark.parametrize("width", [20, 40, 80, 200])
def test_no_line_is_wider_than_the_terminal_whatever_is_said(world, hub, width):
    spec = SLOW.replace("first", "a-phase-with-a-very-long-name-indeed")
    view = View(hub, hand_in(hub, spec))
    (start,) = wanted(hub, StartAttempt)
    evil = "\x1b[2J漢字" * 60 + "\u202e"
    hub.step(attempt_ended(start.assign.task, start.assign.epoch, "failed", reason=evil))
    lines = view.lines(width)
    assert all(text.width_of(each) <= width for each in lines)
    assert not any(mark in "".join(lines) for mark in "\x1b\u202e")
    assert any("failed" in each for each in lines)
    few = view.lines(width, 4)
    assert len(few) <= 4


@proves("cli.live-view")
def test_signs_of_life_and_phases_without_tasks_are_told_only_to_who_asks(hub):
    run = hand_in(hub, SLOW)
    hub.raw(canon.encode({"args": {"run": run}, "verb": "watch"}), channel=12)
    hub.world.pass_ms(20_000)
    told: list[Any] = [each["value"] for each in hub.answers]
    assert [each["state"] for each in told] == ["leased"], (
        "as a reader of an older version knows it"
    )


@proves("cli.live-view")
def test_of_a_run_with_more_tasks_than_a_list_shows_each_is_told_and_counted(hub, monkeypatch):
    monkeypatch.setattr(run_verb, "LIMIT_MAX", 2)
    run = hand_in(hub, EACH, "swarm")
    wanted(hub, MatchGlob)
    hub.step(Matched(run, "all", tuple(f"src/{n:02}" for n in range(5))))
    view = View(hub, run)
    assert view.row("all")[2].startswith("0 of 5 done")
    for each in wanted(hub, RaiseFence):
        hub.step(Fenced(each.task, each.epoch, ""))
    for _ in range(5):
        for start in wanted(hub, StartAttempt):
            place = (start.assign.task, start.assign.epoch)
            good = start.open.instance != "src/00"
            hub.step(attempt_ended(*place, "done" if good else "failed"))
        for each in wanted(hub, MoveBranch):
            hub.step(Promoted(each.task, each.epoch, each.commit))
        for each in wanted(hub, RaiseFence):
            hub.step(Fenced(each.task, each.epoch, ""))
    found = hub.call("runs", {"run": run})["value"]
    assert found["state"] == "failed"
    assert len(found["tasks"]) == 2
    assert found["progress"]["all"]["reason"].startswith("1 of 5 tasks failed")
    assert hub.call("rerun", {"run": run, "failed": True})["value"]["phases"] == ["all"]


@proves("cli.live-view")
def test_of_ten_thousand_tasks_only_those_with_a_line_are_drawn(hub, monkeypatch):
    progress, made = RunProgress(), list[str]()
    head = {"run": "1" * 32, "name": "big", "opened_ms": 1, "now_ms": 1}
    progress.hear({**head, "phases": {"all": {"after": [], "many": "each"}}})
    for number in range(10_000):
        state = "leased" if number % 1000 == 7 else "queued"
        told = {"phase": "all", "instance": f"src/{number}", "task": f"{number:032x}"}
        progress.hear({**told, "state": state, "reason": "", "machine": "hub"})
    real = cli_picture._row
    monkeypatch.setattr(cli_picture, "_row", lambda *args: made.append(args[2]) or real(*args))
    lines = picture(progress, 100, 30)
    assert len(lines) == 29
    assert len(made) < 30
    assert sum("  running" in each for each in lines[2:]) == 10, "those that run come first"


@proves("cli.live-view")
def test_what_was_taken_over_while_it_was_checked_runs_again_and_says_nothing_of_the_old_stage(
    world,
):
    far(world)
    hub, studio = world["hub"], world["studio"]
    view = View(hub, hand_in(hub, AWAY))
    world.drain()
    (start,) = wanted(studio, StartAttempt)
    studio.step(AttemptStage(start.assign.task, start.assign.epoch, "checking"))
    world.drain()
    assert view.row("first")[1] == "checking"
    told = [{**each["value"]} for each in hub.told[12]]
    change = next(each for each in reversed(told) if each.get("phase") == "first")
    view.progress.hear({**change, "state": "queued", "losses": 1, "reason": "the lease ended"})
    assert view.row("first")[1] == "taken over"
    assert view.progress.heard_ms_ago(("first", "")) is None
    view.progress.hear({**change, "losses": 1, "changed_ms": WALL_MS + world.ms})
    assert view.row("first")[1] == "running"
