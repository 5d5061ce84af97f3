"""Where a run that is reviewed or held against a rule began: one commit, which its log has."""

import json

import pytest
from tests.node.cores import Cores
from tests.node.test_rerun import order, taken
from tests.node.test_runs import (
    DONE,
    OTHER,
    end,
    fence,
    promote,
    renew,
    state,
    wanted,
)
from tests.promise import proves

from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.bases import BaseFound, FindBase
from muster.node.tasks.waivers import CountLines, LinesCounted

HEAD = "muster: 1\nname: chain\nrepo: main\nphases:\n"
WORK = "  feature: {agent: shell, do: echo hi, deliver: a}\n"
RULE = "  sign-off: {by: human, do: look, after: feature, unless: {lines: 5, passed: 1}}\n"
HELD, FREE = HEAD + WORK + RULE, HEAD + WORK


@pytest.fixture
def hub():
    world = Cores("hub")
    hub = world["hub"]
    hub.step(FactsChanged(hub.facts(repositories=["main"], tools={"git": "2.40"})))
    return hub


def begin(hub, spec, commit=OTHER, **more):
    args = {"base": "", "repo": "main", "spec": spec, "values": {}, **more}
    run = str(hub.order("run", "chain", args)["value"]["run"])
    (asked,) = wanted(hub, FindBase)
    hub.step(BaseFound(run, commit if asked.newest else ""))
    return run


def opened(hub):
    return json.loads(hub.entries("task.open")[-1].body)


def worked(hub):
    fence(hub)
    end(hub, commit=DONE)
    promote(hub)


@proves("task.waiver-where-it-began")
def test_what_is_held_against_where_it_began_begins_at_one_commit_that_its_log_has(hub):
    begin(hub, HELD)
    assert opened(hub)["base"] == OTHER
    worked(hub)
    (count,) = wanted(hub, CountLines)
    assert (count.bases, count.commits, count.most) == (OTHER, DONE, 5)


@proves("task.waiver-where-it-began")
def test_what_nothing_is_held_against_begins_at_what_is_newest_when_it_begins(hub):
    begin(hub, FREE)
    assert "base" not in opened(hub)


@proves("task.waiver-where-it-began")
@pytest.mark.parametrize("base", ["", "side"])
@pytest.mark.parametrize("start", [Cores.restart, renew])
def test_after_a_start_it_began_where_it_began_wherever_the_branch_is_by_then(hub, base, start):
    begin(hub, HELD, base=base)
    worked(hub)
    (before,) = wanted(hub, CountLines)
    start(hub.world, "hub")
    hub = hub.world["hub"]
    hub.world.pass_ms(4_000)
    assert wanted(hub, FindBase) == []
    assert wanted(hub, CountLines) == [before]
    assert before.bases == OTHER


@proves("task.waiver-where-it-began")
def test_what_a_rerun_keeps_began_where_it_began_in_the_earlier_run(hub):
    first = begin(hub, HELD)
    worked(hub)
    hub.step(LinesCounted(first, "sign-off", None, "away"))
    (task,) = (t["task"] for t in hub.call("runs", {"run": first})["value"]["tasks"][-1:])
    answer = hub.order("decide", task, {"task": task, "answer": "no"})
    assert answer["ok"], answer
    assert state(hub, first) == "failed"
    wanted(hub, CountLines)
    said = order(hub, first, failed=True)["value"]
    second = taken(hub, said)["value"]["run"]
    assert len(wanted(hub, FindBase)) == 1
    # Meanwhile the default branch is at what was made.
    hub.step(BaseFound(second, DONE))
    (count,) = wanted(hub, CountLines)
    assert (count.run, count.commits) == (second, DONE)
    assert OTHER in count.bases.split()


@proves("task.waiver-where-it-began")
def test_where_the_repository_cannot_say_what_is_newest_the_person_is_asked(hub):
    run = begin(hub, HELD, commit="")
    assert "base" not in opened(hub)
    worked(hub)
    (count,) = wanted(hub, CountLines)
    assert count.bases == ""
    hub.step(LinesCounted(run, "sign-off", None, "it is not known at which commit the run began"))
    assert opened(hub)["values"]["run"]["rule"].startswith("asked: it is not known at which commit")
    assert state(hub, run) == "open"
