"""Runs and their owner through real cores: what is started, what is read back, what is repeated."""

import json
from typing import Any

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.promise import proves

from muster.log import canon
from muster.node import event as ev
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks import runs
from muster.node.tasks.bases import BaseFound, FindBase, Matched, MatchGlob
from muster.node.tasks.followers import Followers
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.runs import RunService
from muster.task import check as checks
from muster.task.fold import RUN
from muster.task.identity import branch_of
from muster.task.instruction import (
    Fenced,
    MoveBranch,
    Promoted,
    RaiseFence,
    StartAttempt,
    StopAttempt,
)
from muster.task.spec import parse
from muster.verbs import waits

CHAIN = """\
muster: 1
name: chain
phases:
  first:
    agent: noop
    do: "{}"
    check: "true"
  second:
    after: first
    agent: noop
    do: "{}"
    check: "true"
"""
SLOW = CHAIN.replace("noop", "shell").replace('do: "{}"', "do: sleep 1")
REPO = SLOW.replace("name: chain", "name: chain\nrepo: main")
EACH = """\
muster: 1
name: swarm
repo: main
phases:
  all:
    each: "src/*/"
    agent: shell
    do: ls "$MUSTER_EACH_PATH"
    check: "true"
"""
OTHER, DONE = "1" * 40, "2" * 40


def hand_in(machine: One, spec: str, name: str = "chain") -> str:
    args = {"base": "", "repo": "main" if "repo:" in spec else "", "spec": spec, "values": {}}
    answer = machine.order("run", name, args)
    assert answer["ok"], answer
    origin_read(machine)
    return str(answer["value"]["run"])


def origin_read(machine: One) -> None:
    """The repositories of runs that name no base are as their origins have them."""
    for asked in [e for e in machine.effects if isinstance(e, FindBase) and not e.base]:
        machine.effects.remove(asked)
        machine.step(BaseFound(asked.run))


def state(machine: One, run: str) -> str:
    """As the newest of our rows says."""
    rows = machine.core.tables.rows(RUN, run=run)
    return max(rows, key=lambda r: r.changed_ms).state


def wanted(machine: One, kind: type) -> list[Any]:
    """Effects of a kind since the last look."""
    found = [e for e in machine.effects if isinstance(e, kind)]
    machine.effects[:] = [e for e in machine.effects if not isinstance(e, kind)]
    return found


def end(machine: One, status: str = "done", **more: Any) -> None:
    """End the one attempt that was started here."""
    (start,) = wanted(machine, StartAttempt)
    task, epoch = start.assign.task, start.assign.epoch
    machine.step(attempt_ended(task, epoch, status, summary=status, **more))


def fence(machine: One, reason: str = "") -> RaiseFence:
    (asked,) = wanted(machine, RaiseFence)
    machine.step(Fenced(asked.task, asked.epoch, reason))
    return asked  # type: ignore[no-any-return]


def promote(machine: One, reason: str = "", *, again: bool = False) -> MoveBranch:
    (asked,) = wanted(machine, MoveBranch)
    machine.step(Promoted(asked.task, asked.epoch, asked.commit, reason, again))
    return asked  # type: ignore[no-any-return]


def renew(world: Cores, name: str) -> None:
    """The machine starts in a new incarnation, as after a restore."""
    machine = world[name]
    machine.incarnation = type(machine.incarnation)(machine.core.draw(16).hex())
    world.restart(name)


@pytest.fixture
def hub() -> One:
    world = Cores("hub")
    know(world["hub"])
    return world["hub"]


def know(machine: One) -> None:
    """It looks at itself, and has beaten once, so that work begins as soon as it is assigned."""
    machine.step(FactsChanged(machine.facts(repositories=["main"], tools={"git": "2.40"})))
    machine.world.pass_ms(3_000)


@proves("node.graph-in-order")
def test_a_phase_begins_when_the_one_before_it_is_done_and_the_run_ends_with_the_last(hub):
    run = hand_in(hub, SLOW)
    end(hub)
    assert state(hub, run) == "open"
    end(hub)
    assert state(hub, run) == "done"
    assert len(hub.entries("task.settle")) == 2
    assert not hub.core.part(RunService).runs


@proves("node.graph-in-order")
def test_a_failed_phase_fails_the_run_and_what_depends_on_it_never_begins(hub):
    run = hand_in(hub, SLOW)
    end(hub, "failed", reason="no")
    assert state(hub, run) == "failed"
    assert wanted(hub, StartAttempt) == []
    assert len(hub.entries("task.open")) == 1


@proves("node.old-specs-end")
def test_a_run_whose_source_an_older_version_took_is_read_back_shown_and_ends(hub, monkeypatch):
    spec = CHAIN.replace("agent: noop", "agent: shell").replace('"{}"', "echo ${first.summary}")
    assert not hub.order("run", "chain", {"base": "", "repo": "", "spec": spec, "values": {}})["ok"]
    monkeypatch.setattr(checks, "admit", lambda text, *_, **__: parse(text))
    run = hand_in(hub, spec)
    monkeypatch.undo()
    hub.world.restart("hub")
    hub.world.pass_ms(3_000)
    assert set(hub.call("runs", {"run": run})["value"]["phases"]) == {"first", "second"}
    end(hub, "failed", reason="it refers to ${first.summary} in shell source")
    assert state(hub, run) == "failed"


@proves("cli.skipped-phases-say-why")
def test_a_phase_that_never_began_says_which_one_failed_before_it(hub):
    run = hand_in(hub, CHAIN.replace('do: "{}"', "do: '{\"fail\":true}'", 1))
    hub.world.pass_ms(60_000)
    assert state(hub, run) == "failed"
    progress = hub.call("runs", {"run": run})["value"]["progress"]
    assert progress["first"]["state"] == "failed"
    assert progress["second"]["state"] == "skipped"
    assert "first" in progress["second"]["reason"]


@proves("node.fence-before-lease")
def test_nobody_gets_a_lease_before_the_fence_has_taken_its_epoch(hub):
    hand_in(hub, REPO)
    assert hub.entries("task.assign") == []
    asked = fence(hub)
    (assign,) = hub.entries("task.assign")
    assert f'"epoch":[{asked.epoch[0]},{asked.epoch[1]}]'.encode() in assign.body


@proves("node.fence-before-lease")
def test_a_fence_that_refuses_is_asked_again_later_under_a_higher_epoch(hub):
    hand_in(hub, REPO)
    first = fence(hub, "the disk is full")
    assert hub.entries("task.assign") == []
    hub.world.pass_ms(2_000)
    assert fence(hub).epoch > first.epoch
    assert len(hub.entries("task.assign")) == 1


@proves("node.promotion-settles")
def test_a_phase_is_done_only_when_its_branch_stands_at_the_commit(hub):
    run = hand_in(hub, REPO)
    fence(hub)
    end(hub, commit=DONE)
    assert hub.entries("task.settle") == []
    moved = promote(hub)
    assert (moved.branch, moved.commit) == (branch_of(run, "first"), DONE)
    assert len(hub.entries("task.settle")) == 1
    (second,) = wanted(hub, RaiseFence)
    opened = next(e for e in hub.entries("task.open") if second.task.encode() in e.body)
    assert DONE.encode() in opened.body, "the second phase starts from the first one's commit"


@proves("node.promotion-settles")
def test_a_branch_that_cannot_be_moved_now_is_tried_again_and_one_that_may_not_fails_the_attempt(
    hub,
):
    run = hand_in(hub, REPO)
    fence(hub)
    end(hub, commit=DONE)
    promote(hub, "the remote is away", again=True)
    hub.world.pass_ms(1_500)
    promote(hub, "not what was attempted")
    assert state(hub, run) == "failed"


@proves("node.restart-takes-up")
@pytest.mark.parametrize("at", ["fencing", "running", "promoting"])
def test_a_restart_takes_up_a_run_at_any_point_and_ends_it_once(hub, at):
    run = hand_in(hub, REPO)
    if at == "fencing":
        hub.world.restart("hub")
        know(hub)
        fence(hub)
        end(hub, commit=DONE)
        promote(hub)
    elif at == "running":
        fence(hub)
        hub.world.restart("hub")
        know(hub)
        fence(hub)
        end(hub, commit=DONE)
        promote(hub)
    else:
        fence(hub)
        end(hub, commit=DONE)
        hub.world.restart("hub")
        know(hub)
        promote(hub)
    fence(hub)
    end(hub, commit=OTHER)
    promote(hub)
    assert state(hub, run) == "done"
    assert len(hub.entries("run.settle")) == 1
    assert len(hub.entries("task.settle")) == 2


@proves("node.restart-takes-up")
def test_a_run_goes_on_in_a_new_incarnation_and_is_settled_there_once_for_good(hub):
    run = hand_in(hub, SLOW)
    end(hub)
    task = next(iter(hub.core.part(RunService).runs[run].tasks.values()))
    renew(hub.world, "hub")
    hub.world.pass_ms(4_000)
    end(hub)
    assert state(hub, run) == "done"
    assert hub.task(task).state == "done"
    kinds = ("run.open", "run.settle", "task.open", "task.settle", "task.assign")
    before = {kind: len(hub.entries(kind)) for kind in kinds}
    for _ in range(2):
        hub.world.restart("hub")
        hub.world.pass_ms(4_000)
        assert hub.core.part(RunService).runs == {}
        assert hub.core.part(OwnerService).owner.statistics()["open"] == 0
    assert {kind: len(hub.entries(kind)) for kind in kinds} == before
    assert hub.core.tables.skipped() == []
    assert [r["state"] for r in hub.call("runs", {})["value"]] == ["done"]
    assert [t["state"] for t in hub.call("tasks", {"all": True})["value"]] == ["done", "done"]


@proves("node.matches")
def test_an_each_phase_asks_for_its_matches_once_and_opens_a_task_for_each(hub):
    run = hand_in(hub, EACH, "swarm")
    (asked,) = wanted(hub, MatchGlob)
    assert asked.glob == "src/*/"
    hub.step(Matched(run, "all", ("src/a", "src/b")))
    hub.step(Matched(run, "all", ("src/c",)))
    fences = wanted(hub, RaiseFence)
    assert len(fences) == len(hub.entries("task.open")) == 2
    for each in fences:
        hub.step(Fenced(each.task, each.epoch, ""))
    for start in wanted(hub, StartAttempt):
        hub.step(attempt_ended(start.assign.task, start.assign.epoch, "done", commit=DONE))
    moves = wanted(hub, MoveBranch)
    assert len({m.branch for m in moves}) == 2
    for each in moves:
        hub.step(Promoted(each.task, each.epoch, each.commit))
    assert state(hub, run) == "done"


@proves("node.matches")
def test_a_glob_that_cannot_be_listed_ends_the_run_with_the_reason(hub):
    run = hand_in(hub, EACH, "swarm")
    wanted(hub, MatchGlob)
    hub.step(Matched(run, "all", (), "there is no repository 'main' here"))
    assert state(hub, run) == "failed"
    assert b"no repository" in hub.entries("run.settle")[0].body


@proves("node.matches")
@pytest.mark.parametrize(
    "name",
    ["why?.txt", "10:30.md", "a*b", 'say"so"', "<x>", "a|b", "end.", "end ", "tab\tx", "line\nx",
     "back\\slash", "\udcff.txt", "x" * 201, "é" * 150, "${run.id}", "-rf", "../up", ""],
)  # fmt: skip
def test_a_match_that_no_task_can_have_fails_its_phase_by_name_and_nothing_else(hub, name):
    both = EACH + "  plain:\n    agent: noop\n    do: '{}'\n    check: 'true'\n"
    run = hand_in(hub, both, "swarm")
    (asked,) = wanted(hub, MatchGlob)
    hub.step(Matched(run, asked.phase, ("src/fine", name)))
    assert state(hub, run) == "open", "the other phase goes on"
    assert [json.loads(e.body)["phase"] for e in hub.entries("task.open")] == ["plain"]
    hub.world.restart("hub")
    know(hub)
    hub.world.pass_ms(5_000)
    (asked,) = wanted(hub, MatchGlob)
    hub.step(Matched(run, asked.phase, ("src/fine", name)))
    assert hub.core.part(RunService).runs[run].progress.barred["all"].startswith("src/*/ matches ")


@proves("node.matches")
def test_more_matches_than_a_phase_may_have_fail_it_with_their_number(hub):
    run = hand_in(hub, EACH, "swarm")
    wanted(hub, MatchGlob)
    found = tuple(f"src/{n}" for n in range(257))
    hub.step(Matched(run, "all", found, count=100_000))
    assert state(hub, run) == "failed"
    assert b"100000 paths, at most 256" in hub.entries("run.settle")[0].body
    shown = hub.call("runs", {"run": run})["value"]["progress"]["all"]
    assert shown["state"] == "failed"
    assert shown["reason"].startswith("src/*/ matches 100000 paths")
    assert hub.entries("task.open") == []


@proves("node.matches", "node.base")
def test_a_repository_out_of_reach_is_asked_again_and_ends_nothing(hub):
    run = hand_in(hub, EACH.replace("repo: main", "repo: main\nbase: side"), "swarm")
    (asked,) = wanted(hub, FindBase)
    assert (asked.repo, asked.base) == ("main", "side")
    hub.step(BaseFound(run, reason="the hub is away", again=True))
    assert wanted(hub, FindBase) == []
    hub.world.pass_ms(2_000)
    assert len(wanted(hub, FindBase)) == 1
    hub.step(BaseFound(run, OTHER))
    (asked,) = wanted(hub, MatchGlob)
    assert asked.commit == OTHER, "matches are those of the commit that the run starts from"
    hub.step(Matched(run, "all", (), "the hub is away", again=True))
    hub.world.pass_ms(2_000)
    assert len(wanted(hub, MatchGlob)) == 1
    assert state(hub, run) == "open"


@proves("node.repository-waited-for")
def test_a_run_says_for_which_repository_it_waits_and_asks_with_growing_pauses(hub):
    run = hand_in(hub, EACH.replace("repo: main", "repo: main\nbase: side"), "swarm")
    told: list[dict[str, Any]] = []
    hub.core.part(Followers).follow(run, told.append)
    wanted(hub, FindBase)
    pauses = []
    for _ in range(9):
        hub.step(BaseFound(run, reason="the hub is away", again=True))
        shown = hub.call("runs", {"run": run})["value"]["progress"]["all"]
        assert (shown["state"], "main is out of reach" in shown["reason"]) == ("waiting", True)
        assert "the hub is away" in shown["reason"]
        seconds = 0
        while not wanted(hub, FindBase):
            hub.world.pass_ms(1_000)
            seconds += 1
        pauses.append(seconds)
    assert pauses[0] <= 2
    assert pauses == sorted(pauses)
    assert 50 <= pauses[-1] <= 61, "whoever mended it waits no longer than a minute"
    assert [(each["phase"], each["state"]) for each in told] == [("all", "queued")], "said once"
    assert "main is out of reach" in told[0]["reason"]
    hub.raw(canon.encode({"args": {"run": run}, "verb": "watch"}), channel=12)
    assert "main is out of reach" in str(hub.answers), "also to who follows it later"
    hub.step(BaseFound(run, OTHER))
    wanted(hub, MatchGlob)
    shown = hub.call("runs", {"run": run})["value"]["progress"]["all"]
    assert "out of reach" not in shown["reason"]
    hub.step(Matched(run, "all", (), "the hub went", again=True))
    shown = hub.call("runs", {"run": run})["value"]["progress"]["all"]
    assert shown["reason"].endswith("the hub went")


@proves("node.base")
@pytest.mark.parametrize("ordered", [True, False])
def test_every_first_phase_starts_from_the_base_that_was_ordered_or_that_the_spec_names(
    hub, ordered
):
    spec = REPO.replace("repo: main", "repo: main\nbase: side")
    args = {"base": "other" if ordered else "", "repo": "main", "spec": spec, "values": {}}
    run = hub.order("run", "chain", args)["value"]["run"]
    (asked,) = wanted(hub, FindBase)
    assert asked.base == ("other" if ordered else "side")
    assert hub.entries("task.open") == [], "nothing begins before it is known where"
    hub.step(BaseFound(run, OTHER))
    (opened,) = hub.entries("task.open")
    assert json.loads(opened.body)["base"] == OTHER


@proves("node.base")
def test_a_base_that_is_not_there_fails_the_run_with_its_name(hub):
    run = hand_in(hub, REPO.replace("repo: main", "repo: main\nbase: relase-2"))
    hub.step(BaseFound(run, reason="Repository 'main' has no branch \"relase-2\""))
    assert state(hub, run) == "failed"
    assert b"relase-2" in hub.entries("run.settle")[0].body
    assert hub.entries("task.open") == []


@proves("node.base")
def test_a_run_that_waits_for_its_base_can_be_cancelled(hub):
    run = hand_in(hub, REPO.replace("repo: main", "repo: main\nbase: side"))
    assert hub.order("cancel", run, {"what": run})["ok"]
    assert state(hub, run) == "cancelled"


@proves("node.run-bounded")
def test_a_phase_that_would_make_a_run_too_large_fails_with_the_bound(hub, monkeypatch):
    monkeypatch.setattr(runs, "RUN_TASKS_MAX", 3)
    run = hand_in(hub, EACH, "swarm")
    hub.step(Matched(run, "all", ("src/a", "src/b", "src/c", "src/d")))
    assert state(hub, run) == "failed"
    assert b"at most 3 tasks" in hub.entries("run.settle")[0].body


@proves("node.run-bounded")
def test_a_phase_that_would_merge_more_commits_than_can_be_fails_before_it_starts(hub, monkeypatch):
    monkeypatch.setattr(runs, "GIT_BASES_MAX", 1)
    other = "  other:\n    agent: shell\n    do: sleep 1\n    check: 'true'\n"
    run = hand_in(hub, REPO.replace("after: first", "after: [first, other]") + other)
    for each in wanted(hub, RaiseFence):
        hub.step(Fenced(each.task, each.epoch))
    for number, start in enumerate(wanted(hub, StartAttempt)):
        commit = str(number + 1) * 40
        hub.step(attempt_ended(start.assign.task, start.assign.epoch, "done", commit=commit))
    for each in wanted(hub, MoveBranch):
        hub.step(Promoted(each.task, each.epoch, each.commit))
    assert state(hub, run) == "failed"
    assert b"starts from 2 commits, and 1 is the most" in hub.entries("run.settle")[0].body


@proves("node.cancel")
def test_a_cancelled_run_stops_what_runs_and_opens_nothing_more(hub):
    run = hand_in(hub, SLOW)
    (start,) = wanted(hub, StartAttempt)
    assert hub.order("cancel", run, {"what": run, "reason": "enough"})["ok"]
    (stop,) = wanted(hub, StopAttempt)
    assert (stop.task, stop.epoch) == (start.assign.task, start.assign.epoch)
    assert state(hub, run) == "cancelled"
    hub.step(attempt_ended(stop.task, stop.epoch, "done", commit=DONE))
    assert hub.task(stop.task).state == "cancelled"
    assert wanted(hub, StartAttempt) == []
    again = hub.order("cancel", run, {"what": run})
    assert again["ok"] is False


@proves("node.same-run-once")
def test_the_same_spec_handed_in_while_it_runs_is_the_same_run(hub):
    run = hand_in(hub, SLOW)
    args = {"base": "", "repo": "", "spec": SLOW, "values": {}}
    answer = hub.order("run", "chain", args)["value"]
    assert (answer["run"], answer["fresh"]) == (run, False)
    assert len(hub.entries("run.open")) == 1
    other = hub.order("run", "chain", args, options={"again": True})["value"]
    assert other["fresh"] is True


def test_a_match_becomes_a_safe_and_unmistakable_part_of_a_branch_name():
    matches = ("src/a", "src-a", "src/a/", "../x", "", "é")
    words = {branch_of("r", "p", match).removeprefix("muster/r/") for match in matches}
    assert len(words) == 6
    assert all(set(w) <= set("abcdefghijklmnopqrstuvwxyz0123456789-") for w in words)


@proves("node.restart-takes-up")
def test_a_run_goes_on_when_a_peer_shows_that_this_owner_was_set_back():
    """hub: run opened, image taken, more written; then the image comes back and meets its peer."""
    world = Cores("hub", "studio")
    world["studio"].step(FactsChanged(world["studio"].facts(agents={})))
    world.link("hub", "studio")
    hub = world["hub"]
    know(hub)
    run = hand_in(hub, SLOW)
    world.drain()
    image = hub.core.store.image()
    assert hub.order("send", "studio", {"text": ["later"], "to": "studio"})["ok"]
    world.pass_ms(1_000)
    old = hub.incarnation
    world.restart("hub", image)
    world.pass_ms(3_000)
    assert len(hub.core.part(RunService).runs) == 1
    world.link("hub", "studio")
    world.pass_ms(4_000)
    assert hub.core.membership.incarnation != old
    # What it had begun before is asked to stop; the attempt of the new incarnation counts.
    (stop,) = wanted(hub, StopAttempt)
    wanted(hub, StartAttempt)
    hub.step(attempt_ended(stop.task, stop.epoch, "killed"))
    world.pass_ms(10_000)
    end(hub)
    world.pass_ms(1_000)
    end(hub)
    world.pass_ms(1_000)
    assert state(hub, run) == "done"
    assert hub.core.part(RunService).runs == {}
    assert [r["state"] for r in world["studio"].call("runs", {})["value"]] == ["done"]
    assert hub.core.tables.skipped() == []


# --- who follows ------------------------------------------------------------------------------------


def follow(machine: One, run: str) -> list[dict[str, Any]]:
    """What whoever follows the run is told, as it comes."""
    machine.raw(canon.encode({"args": {"run": run}, "verb": "watch"}), channel=12)
    told = machine.answers
    machine.answers = []
    return [each["value"] for each in told]


def told(machine: One) -> list[tuple[str, str, str, int]]:
    heard, machine.answers = machine.answers, []
    values = [each["value"] for each in heard]
    return [
        (v["phase"], v["state"], v["machine"], v.get("tries", 0)) for v in values if "phase" in v
    ]


@proves("task.moves-are-told")
def test_whoever_follows_a_run_hears_of_every_assignment_loss_retry_and_end(hub):
    run = hand_in(hub, SLOW.replace('check: "true"', 'check: "true"\n    retries: 1', 1))
    begun = follow(hub, run)
    assert [(v["phase"], v["state"], v["machine"]) for v in begun] == [("first", "leased", "hub")]
    assert begun[0]["changed_ms"] >= begun[0]["opened_ms"] > 0
    (start,) = wanted(hub, StartAttempt)
    task, epoch = start.assign.task, start.assign.epoch
    hub.step(attempt_ended(task, epoch, "failed", summary="I did it", reason="no such file"))
    failure = hub.answers[0]["value"]
    assert (failure["state"], failure["reason"]) == ("queued", "no such file")
    assert told(hub) == [("first", "queued", "hub", 1)]
    hub.world.pass_ms(2_000)
    assert told(hub) == [("first", "leased", "hub", 1)]
    end(hub)
    # What a step leads to is told once, at its end.
    assert told(hub) == [("first", "done", "hub", 1), ("second", "leased", "hub", 0)]
    (start,) = wanted(hub, StartAttempt)
    hub.step(attempt_ended(start.assign.task, start.assign.epoch, "killed", reason="gone"))
    assert told(hub)[:1] == [("second", "queued", "hub", 0)]


def kept(machine: One) -> list[tuple[str, bool]]:
    """What is said of tasks that wait."""
    heard, machine.answers = machine.answers, []
    values = [each["value"] for each in heard]
    return [(v["waits"], v["fits"]) for v in values if "waits" in v]


@pytest.fixture
def waiting() -> tuple[One, str]:
    """A run whose first task waits for a machine that went away."""
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    know(hub)
    world.link("hub", "studio")
    studio.step(FactsChanged(studio.facts(labels=("far",))))
    world.pass_ms(500)
    world.cut("studio")
    run = hand_in(hub, SLOW.replace("agent: shell", "agent: shell\n    needs: {label: far}", 1))
    hub.raw(canon.encode({"args": {"run": run, "waits": True}, "verb": "watch"}), channel=15)
    return hub, run


@proves("cli.a-run-says-what-it-waits-for")
def test_who_follows_a_run_is_told_once_why_no_machine_takes_a_task(waiting):
    hub, run = waiting
    hub.world.pass_ms(2_500)
    assert kept(hub) == [], "one on its way never waits so long"
    hub.world.pass_ms(1_000)
    assert kept(hub) == [("hub: no label far; studio: away", False)]
    hub.world.pass_ms(120_000)
    assert kept(hub) == []
    assert follow(hub, run)[0]["state"] == "queued"
    hub.world.pass_ms(4_000)
    assert kept(hub) == [], "a reader that does not ask for it is told changes alone"


@proves("cli.a-run-says-what-it-waits-for")
def test_what_keeps_a_task_that_only_waited_its_turn_is_told_when_it_is_known(waiting, monkeypatch):
    hub, _ = waiting
    found = iter([("", True), ("", True), ("there is no repository 'main' here", True)])
    monkeypatch.setattr(waits, "waits_for", lambda _core, _task: next(found))
    hub.world.pass_ms(12_000)
    assert kept(hub) == []
    hub.world.pass_ms(20_000)
    assert kept(hub) == [("there is no repository 'main' here", True)]


@proves("task.moves-are-told")
def test_a_follower_that_cannot_be_told_keeps_no_other_from_hearing(hub):
    run = hand_in(hub, SLOW)
    told: list[dict[str, Any]] = []

    def fails(change: dict[str, Any]) -> None:
        raise KeyError(change.get("phase", ""))

    for watcher in (fails, told.append):
        hub.core.part(Followers).follow(run, watcher)
    end(hub)
    hub.world.pass_ms(500)
    end(hub)
    hub.world.pass_ms(500)
    assert state(hub, run) == "done"
    assert [change["state"] for change in told if change.get("phase") == "first"][-1] == "done"
    assert told[-1]["settled"] == "done"
    assert hub.core.counters["failed-watch"] >= 3


@proves("task.a-settled-run-waits-for-nothing")
def test_no_phase_of_a_run_that_is_over_is_shown_as_one_that_could_begin(hub):
    run = hand_in(hub, SLOW)
    reason = {"what": run, "reason": "not any more"}
    assert hub.order("cancel", run, reason)["ok"]
    hub.world.pass_ms(500)
    end(hub, "killed")
    hub.world.pass_ms(500)
    assert state(hub, run) == "cancelled"
    progress = hub.call("runs", {"run": run})["value"]["progress"]
    assert {name: each["state"] for name, each in progress.items()} == {
        "first": "cancelled", "second": "skipped"
    }  # fmt: skip
    # Ended from outside before its second phase was opened, as by a failure of the run itself.
    run = hand_in(hub, SLOW.replace("name: chain", "name: chain  # 2"))
    end(hub)
    hub.core.part(RunService)._fail(run, "it was more than could be written")
    hub.step(ev.Tick())
    progress = hub.call("runs", {"run": run})["value"]["progress"]
    assert not {"ready", "waiting", "running"} & {each["state"] for each in progress.values()}


@proves("git.follow-before-runs", "git.origin-away-is-said")
def test_a_run_begins_once_its_repository_followed_its_origin_and_says_where_it_could_not(hub):
    args = {"base": "", "repo": "main", "spec": REPO, "values": {}}
    run = hub.order("run", "chain", args)["value"]["run"]
    told: list[dict[str, Any]] = []
    hub.core.part(Followers).follow(run, told.append)
    (asked,) = wanted(hub, FindBase)
    assert (asked.repo, asked.base) == ("main", "")
    assert hub.entries("task.open") == []
    hub.step(BaseFound(run, note="its origin was not read"))
    (opened,) = hub.entries("task.open")
    assert "base" not in json.loads(opened.body), "its tasks start from what is newest then"
    assert [each["note"] for each in told if "note" in each] == ["its origin was not read"]
    assert hub.core.counters["run-without-origin"] == 1
    hub.raw(canon.encode({"args": {"run": run}, "verb": "watch"}), channel=12)
    assert "its origin was not read" in str(hub.answers), "also to who follows it later"
    # What has begun is not asked for again after a start.
    hub.world.restart("hub")
    assert wanted(hub.world["hub"], FindBase) == []
