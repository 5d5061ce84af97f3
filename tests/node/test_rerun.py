"""To run again what a run was ordered to do: what is kept, what runs, and what is refused."""

from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.cores import Cores, One, attempt_ended
from tests.node.test_ended_work import revoke
from tests.node.test_live_view import View
from tests.node.test_runs import (
    DONE,
    EACH,
    OTHER,
    SLOW,
    end,
    hand_in,
    know,
    origin_read,
    renew,
    state,
    wanted,
)
from tests.promise import proves

from muster.node.attempts import setup
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks import attempt_body
from muster.node.tasks import results as yields
from muster.node.tasks.bases import BaseFound, FindBase, Matched, MatchGlob
from muster.node.tasks.runs import RunService
from muster.task.instruction import Fenced, MoveBranch, Promoted, RaiseFence, StartAttempt

THREE = """\
muster: 1
name: chain
phases:
  build: {agent: shell, do: "echo 1", check: "true"}
  other: {agent: shell, do: "echo 1", check: "true"}
  test:
    after: build
    agent: shell
    do: echo "$MUSTER_BUILD_OUTPUT $MUSTER_BUILD_SUMMARY"
    check: "true"
  ship: {after: [test, other], agent: shell, do: "echo 3", check: "true"}
"""
REPO = THREE.replace("name: chain", "name: chain\nrepo: main")
HUMAN = """\
muster: 1
name: chain
phases:
  agree: {by: human, do: Is it good}
  build: {after: agree, agent: shell, do: "true", check: "true"}
"""


@pytest.fixture
def hub() -> One:
    world = Cores("hub")
    know(world["hub"])
    return world["hub"]


def over(machine: One, **ends: str) -> dict[str, dict[str, Any]]:
    """Every attempt that is given ends, as `ends` says of its phase; what each was given."""
    seen: dict[str, dict[str, Any]] = {}
    for _ in range(12):
        for each in wanted(machine, RaiseFence):
            machine.step(Fenced(each.task, each.epoch, ""))
        for start in wanted(machine, StartAttempt):
            phase, place = start.open.phase, (start.assign.task, start.assign.epoch)
            seen[phase] = {"base": start.open.base, "values": dict(start.open.values)}
            status = ends.get(phase, "done")
            more = {"commit": DONE} if start.open.repo and status == "done" else {}
            values = {"output": f"out of {phase}"}
            machine.step(attempt_ended(*place, status, summary=phase, values=values, **more))
        for each in wanted(machine, MoveBranch):
            machine.step(Promoted(each.task, each.epoch, each.commit))
    return seen


def order(machine: One, run: str, **args: Any) -> Any:
    return machine.call("rerun", {"run": run, **args})


def again(machine: One, run: str, **args: Any) -> str:
    """Order it, as the command does; the new run."""
    answer = order(machine, run, **args)
    assert answer["ok"], answer
    run: str = taken(machine, answer["value"])["value"]["run"]
    origin_read(machine)
    return run


def taken(machine: One, said: dict[str, Any], **other: Any) -> Any:
    args = {name: said[name] for name in ("base", "repo", "spec", "values")} | other
    if said["kept"]:
        args["kept"] = said["kept"]
    return machine.order("run", said["name"], {**args, **other})


def view(machine: One, run: str) -> dict[str, Any]:
    return machine.call("runs", {"run": run})["value"]


@proves("cli.rerun")
def test_of_a_failed_run_what_is_done_is_kept_and_the_rest_runs_with_its_results(hub):
    first = hand_in(hub, THREE)
    over(hub, test="failed")
    assert state(hub, first) == "failed"
    said = order(hub, first, failed=True)["value"]
    assert said["kept"] == {"build": first, "other": first}
    assert said["phases"] == ["test", "ship"]
    second = again(hub, first, failed=True)
    seen = over(hub)
    assert list(seen) == ["test", "ship"]
    assert seen["test"]["values"]["build"]["output"] == "out of build"
    assert state(hub, second) == "done"
    assert len(hub.entries("task.open")) == 3 + 2, "nothing is copied"
    found = view(hub, second)
    assert {each["phase"]: each["run"] for each in found["tasks"]} == {
        "build": first, "other": first, "test": second, "ship": second,
    }  # fmt: skip
    assert {name: each["state"] for name, each in found["progress"].items()} == dict.fromkeys(
        ("build", "other", "test", "ship"), "done"
    )


@proves("cli.rerun", "git.prerequisites-merged")
def test_what_an_attempt_starts_from_has_the_name_of_the_phase_that_was_kept(hub):
    first = hand_in(hub, REPO)
    over(hub, test="failed")
    again(hub, first, failed=True)
    for each in wanted(hub, RaiseFence):
        hub.step(Fenced(each.task, each.epoch, ""))
    (start,) = wanted(hub, StartAttempt)
    assert (start.open.phase, start.open.base) == ("test", DONE)
    one = setup.AttemptSetup(SimpleNamespace(core=hub.core), start)  # type: ignore[arg-type]
    labels = {base.label for base in attempt_body.bases(start.open.base, one.settled_before())}
    assert labels <= {"build", "other"}


@proves("node.versions-mix", "openings.old-orders")
def test_an_older_machine_gets_no_task_of_an_order_that_it_cannot_read(hub):
    def since() -> set[str]:
        given = [found["values"]["run"].get("since", "") for found in over(hub).values()]
        assert given
        return set(given)

    first = hand_in(hub, THREE)
    assert since() == {""}, "whatever an older one reads may go there"
    again(hub, first, **{"from": "test"})
    assert since() == {"0.3"}, "the opening of a run that keeps phases is unread there"
    hand_in(hub, THREE.replace('do: "echo 3"', 'sandbox: off, do: "echo 3"'))
    assert since() == {"0.3"}, "an older one refuses a key that it does not know"
    pushed = {"push-branch": "main", "push-commit": DONE, "push-before": ""}
    spec = REPO.replace("name: chain", "name: chain\non: push")
    args = {"base": DONE, "repo": "main", "spec": spec, "values": pushed}
    run = hub.order("run", "chain", args)["value"]["run"]
    for _ in wanted(hub, FindBase):
        hub.step(BaseFound(run, DONE))
    assert since() == {"0.3"}


@proves("cli.rerun")
def test_from_a_phase_on_it_and_what_comes_after_it_run_although_they_are_done(hub):
    first = hand_in(hub, THREE)
    over(hub)
    second = again(hub, first, **{"from": "test"})
    assert list(over(hub)) == ["test", "ship"]
    assert state(hub, second) == "done"
    third = again(hub, second, **{"from": "ship"})
    kept = order(hub, second, **{"from": "ship"})["value"]["kept"]
    assert kept == {"build": first, "other": first, "test": second}, "each from where it ran"
    assert list(over(hub)) == ["ship"]
    assert state(hub, third) == "done"


@proves("cli.rerun")
def test_a_whole_rerun_keeps_nothing_and_is_ordered_as_any_run(hub):
    first = hand_in(hub, THREE)
    over(hub)
    second = again(hub, first)
    assert second != first
    assert set(over(hub)) == {"build", "other", "test", "ship"}
    assert b"kept" not in hub.entries("run.open")[-1].body


@proves("cli.rerun")
def test_commits_are_merged_as_before_and_the_base_is_the_commit_of_the_first_run(hub):
    args = {"base": "side", "repo": "main", "spec": REPO, "values": {}}
    first = hub.order("run", "chain", args)["value"]["run"]
    (asked,) = wanted(hub, FindBase)
    assert asked.base == "side"
    hub.step(BaseFound(first, OTHER))
    over(hub, test="failed", other="failed")
    said = order(hub, first, failed=True)["value"]
    assert said["base"] == OTHER
    assert order(hub, first, failed=True, **{"fresh-base": True})["value"]["base"] == "side"
    second = again(hub, first, failed=True)
    (asked,) = wanted(hub, FindBase)
    hub.step(BaseFound(second, OTHER))
    seen = over(hub)
    assert seen["test"]["base"] == DONE, "the commit that build made in the first run"
    assert seen["other"]["base"] == OTHER
    assert state(hub, second) == "done"


@proves("cli.rerun")
def test_a_decision_of_a_person_and_the_matches_of_an_each_are_kept(hub):
    first = hand_in(hub, HUMAN)
    hub.order("decide", "chain/agree", {"task": "chain/agree", "answer": "yes"})
    over(hub, build="failed")
    second = again(hub, first, failed=True)
    assert list(over(hub)) == ["build"]
    assert state(hub, second) == "done"

    spec = EACH + "  last: {after: all, agent: shell, do: 'true', check: 'true'}\n"
    first = hand_in(hub, spec, "swarm")
    wanted(hub, MatchGlob)
    hub.step(Matched(first, "all", ("src/a", "src/b")))
    over(hub, last="failed")
    second = again(hub, first, failed=True)
    assert wanted(hub, MatchGlob) == []
    assert over(hub)["last"]["base"] == DONE
    assert state(hub, second) == "done"


@proves("cli.rerun")
def test_of_a_race_the_one_that_won_counts_again(hub):
    spec = THREE.replace('do: "echo 1", check: "true"}', 'do: "echo 1", check: "true", race: 2}', 1)
    first = hand_in(hub, spec)
    lost, won = wanted(hub, StartAttempt)
    place = (won.assign.task, won.assign.epoch)
    hub.step(attempt_ended(*place, "done", summary="won", values={"output": "by the second"}))
    hub.step(attempt_ended(lost.assign.task, lost.assign.epoch, "killed"))
    over(hub, test="failed")
    second = again(hub, first, failed=True)
    assert over(hub)["test"]["values"]["build"]["output"] == "by the second"
    assert state(hub, second) == "done"


@proves("cli.rerun")
@pytest.mark.parametrize("how", ["restart", "renew"])
def test_a_rerun_goes_on_after_a_restart_and_in_a_new_incarnation(hub, how):
    first = hand_in(hub, THREE)
    over(hub, test="failed")
    second = again(hub, first, failed=True)
    world = hub.world
    if how == "restart":
        world.restart("hub")
    else:
        renew(world, "hub")
    know(hub)
    world.pass_ms(30_000)
    assert set(hub.core.part(RunService).runs) == {second}
    over(hub)
    world.pass_ms(5_000)
    over(hub)
    assert state(hub, second) == "done"


@proves("cli.rerun")
def test_another_machine_computes_the_same_and_works_on_it(hub):
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    know(hub)
    world.link("hub", "studio")
    far = THREE.replace('"echo 3"', '"echo $MUSTER_BUILD_OUTPUT"').replace(
        "agent: shell", "agent: shell, needs: {label: far}"
    ).replace("    agent: shell, needs: {label: far}\n", "    agent: shell\n    needs: {label: far}\n")  # fmt: skip
    studio.step(FactsChanged(studio.facts(labels=("far",))))
    world.pass_ms(3_000)
    first = hand_in(hub, far)
    for _ in range(3):
        world.drain()
        over(studio, test="failed")
    assert state(hub, first) == "failed"
    second = again(hub, first, failed=True)
    for _ in range(4):
        world.drain()
        over(studio)
    assert state(hub, second) == "done"
    assert [row["phase"] for row in view(studio, second)["tasks"]].count("build") == 1
    assert studio.core.counters.get("unproven-run-bad-body", 0) == 0


@proves("cli.rerun")
def test_deliverables_of_a_kept_phase_without_a_repository_are_those_of_the_run_that_made_them(hub):
    first = hand_in(hub, THREE)
    blob = f"blob:{'ab' * 32}:5:report.txt"
    for start in wanted(hub, StartAttempt):
        place = (start.assign.task, start.assign.epoch)
        hub.step(attempt_ended(*place, "done", artefacts=[blob], values={"output": "1"}))
    over(hub, test="failed")
    second = again(hub, first, failed=True)
    over(hub)
    assert state(hub, second) == "done"
    found = hub.call("artefacts", {"task": f"{second}/build"})["value"]
    assert found == hub.call("artefacts", {"task": f"{first}/build"})["value"]
    assert [(each["path"], each["sha256"]) for each in found["artefacts"]] == [
        ("report.txt", "ab" * 32)
    ]


@proves("cli.rerun")
@pytest.mark.parametrize("gone", ["away", "revoked"])
def test_what_a_machine_did_is_kept_although_it_is_gone_by_now(gone):
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    know(hub)
    world.link("hub", "studio")
    facts = studio.facts(labels=("far",), agents={"codex": "", "shell": ""})
    studio.step(FactsChanged(facts))
    world.pass_ms(3_000)
    far = THREE.replace(
        '{agent: shell, do: "echo 1"', '{agent: codex, needs: {label: far}, do: "echo 1"', 1
    )
    first = hand_in(hub, far)
    did = set[str]()
    for _ in range(4):
        world.drain()
        did |= over(studio, other="failed").keys()
        over(hub, other="failed")
    assert "build" in did
    assert state(hub, first) == "failed"
    world.cut("studio")
    if gone == "revoked":
        revoke(world, "studio", hub)
    world.pass_ms(90_000)
    second = again(hub, first, failed=True)
    seen = over(hub)
    assert "build" not in seen
    assert state(hub, second) == "done"
    assert order(hub, first, failed=True)["value"]["kept"]["build"] == first


@proves("cli.rerun")
def test_values_that_are_too_large_for_an_entry_are_read_where_the_phase_ran(hub):
    world = Cores("hub", "studio")
    hub, studio = world["hub"], world["studio"]
    know(hub)
    spec = THREE.replace('"echo 3"', 'echo "$MUSTER_BUILD_OUTPUT $MUSTER_TEST_OUTPUT"')
    first = hand_in(hub, spec)
    for _ in range(2):
        for start in wanted(hub, StartAttempt):
            place = (start.assign.task, start.assign.epoch)
            large = {"output": start.open.phase[0] * 40_000}
            hub.step(attempt_ended(*place, "done", values=large))
    over(hub, ship="failed")
    assert state(hub, first) == "failed"
    second = again(hub, first, failed=True)
    (start,) = wanted(hub, StartAttempt)
    world.link("hub", "studio")
    world.pass_ms(1_000)
    wanted_hash = yields.results_of(start.open)
    found = yields.gathered(studio.core.store, hub.id, second, ["build", "test", "other"])
    assert wanted_hash
    assert yields.digest(found) == wanted_hash
    assert {each.run for several in found.values() for each in several} == {first}


@proves("cli.rerun")
def test_who_follows_it_sees_what_was_kept_and_why_names_the_run(hub, monkeypatch):
    first = hand_in(hub, THREE)
    over(hub, test="failed")
    second = again(hub, first, failed=True)
    assert View(hub, second).row("build")[-1].startswith(f"kept from run {first[:12]}")
    found = hub.call("why", {"task": f"{second}/build"})["value"]
    assert found["task"]["run"] == first
    assert found["kept_by"] == second
    assert "kept_by" not in hub.call("why", {"task": f"{first}/build"})["value"]


@proves("cli.rerun-is-checked")
@pytest.mark.parametrize(
    ("kept", "kind", "sentence"),
    [
        ({"test": "{first}"}, "Malformed", "test comes after build, which is to run again"),
        ({"build": "{first}", "test": "{first}"}, "Refused", "test of run"),
        ({"build": "f" * 32}, "NotFound", "owns no run"),
        ({"nope": "{first}"}, "Malformed", "no phase"),
        ({"build": "{open}"}, "Conflict", "goes on still"),
        ({"build": "{other}"}, "Refused", "something else"),
        ({"build": "{second}"}, "Refused", "keep it from that earlier run"),
    ],
)
def test_an_order_to_keep_what_is_not_so_is_refused_and_nothing_is_written(
    hub, kept, kind, sentence
):
    first = hand_in(hub, THREE)
    over(hub, test="failed")
    names = {"first": first, "second": again(hub, first, failed=True)}
    over(hub, test="failed")
    names["other"] = hand_in(hub, THREE + "# other\n")
    over(hub)
    said = order(hub, first, failed=True)["value"]
    names["open"] = taken(hub, {**said, "kept": {}}, values={})["value"]["run"]
    before = len(hub.entries("order.take"))
    meant = {phase: run.format(**names) for phase, run in kept.items()}
    error = taken(hub, said, kept=meant)["error"]
    assert error["kind"] == kind
    assert sentence in error["text"]
    assert len(hub.entries("run.open")) == 4
    assert len(hub.entries("order.take")) == before


@proves("cli.rerun-is-checked")
def test_what_was_not_signed_is_not_kept(hub):
    first = hand_in(hub, THREE)
    over(hub, test="failed")
    said = order(hub, first, failed=True)["value"]
    args = {name: said[name] for name in ("base", "repo", "spec", "values")}
    statement = hub.world.sign("run", "chain", hub, args)
    answer = hub.call("run", {**args, "kept": said["kept"]}, statement=statement)
    assert answer["ok"] is False
    assert len(hub.entries("run.open")) == 1


@proves("cli.rerun-is-checked")
def test_an_order_to_keep_counts_once_by_who_may_order_and_on_the_machine_it_is_for(hub):
    first = hand_in(hub, THREE)
    over(hub, test="failed")
    said = order(hub, first, failed=True)["value"]
    args = {name: said[name] for name in ("base", "kept", "repo", "spec", "values")}
    world, studio = hub.world, Cores("hub", "studio")["studio"]
    member = studio.identity.signer("seal")
    for kind, more in (("Denied", {"signer": member}), ("Denied", {"to": studio.id})):
        statement = world.sign("run", "chain", hub, args, **more)
        assert hub.call("run", args, statement=statement)["error"]["kind"] == kind
    assert len(hub.entries("run.open")) == 1
    statement = world.sign("run", "chain", hub, args)
    assert hub.call("run", args, statement=statement)["value"]["fresh"]
    over(hub)
    assert hub.call("run", args, statement=statement)["error"]["kind"] == "Conflict"
    assert len(hub.entries("run.open")) == 2


@proves("cli.rerun")
def test_what_cannot_run_again_is_refused_with_what_to_do(hub):
    first = hand_in(hub, SLOW)
    assert order(hub, first)["error"]["kind"] == "Conflict"
    end(hub)
    end(hub)
    assert "every phase" in order(hub, first, failed=True)["error"]["text"]
    error = order(hub, first, **{"from": "nope"})["error"]
    assert (error["kind"], "first, second" in error["text"]) == ("NotFound", True)
    assert order(hub, first, failed=True, **{"from": "first"})["error"]["kind"] == "Malformed"
