"""A person who need not be asked, in runs between real daemons; and who is asked again."""

import json

import pytest

from tests.e2e import agents
from tests.e2e.agents import begin, muster, settled
from tests.e2e.fleet import Fleet, until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(240)]

SPEC = """\
muster: 1
name: careful
repo: main
phases:
  feature:
    agent: shell
    needs: {{machine: studio}}
    do: seq {lines} > {file}
    deliver: {file}
    check: {check}
  sign-off:
    by: human
    do: Look at it.
    after: feature
    unless: {{lines: 5, passed: 1}}
  ship:
    agent: shell
    do: cp {file} shipped
    deliver: shipped
    after: sign-off
"""


@pytest.fixture
def fleet():
    with Fleet(["hub", "studio"]) as made:
        made.hub.home.put_seed("operator.seed", made.operator_seed)
        made.add_repository()
        made.start()
        yield made


def hand_in(fleet, number, *, lines=3, check="'true'"):
    spec = SPEC.format(file=f"f{number}", lines=lines, check=check)
    return begin(fleet, spec, "careful")


def asked(fleet, run):
    """The question of the run, once it is asked."""

    def waits():
        tasks = fleet.hub.ask("runs", {"run": run})["tasks"]
        return [t for t in tasks if t["phase"] == "sign-off" and t["state"] == "waiting"]

    return until(waits, "the person is asked")[0]["task"]


@proves("task.waiver-recorded", "task.waiver-rule")
def test_nobody_is_asked_about_a_small_change_of_an_agent_that_passed_often_enough(fleet):
    first = hand_in(fleet, 1)
    task = asked(fleet, first)
    question = fleet.hub.ask("why", {"task": task})["question"]
    assert "asked: 3 lines, 0 passed in a row of shell@studio" in question
    said = muster(fleet, fleet.hub, "decide", task[:12], "yes")
    assert said.code == 0, said
    assert settled(fleet, first)["state"] == "done"
    second = settled(fleet, hand_in(fleet, 2))
    assert second["state"] == "done", json.dumps(second, indent=1)
    (task,) = [t for t in second["tasks"] if t["phase"] == "sign-off"]
    rule = "(rule: at most 5 lines, 1 passed in a row)"
    assert task["summary"] == f"not asked: 3 lines, 1 passed in a row {rule}"
    said = muster(fleet, fleet.hub, "why", task["task"])
    assert "not asked: 3 lines, 1 passed in a row" in said.out
    assert not [i for i in fleet.hub.ask("incidents") if i["open"]]
    # A larger change is looked at by somebody.
    question = fleet.hub.ask("why", {"task": asked(fleet, hand_in(fleet, 3, lines=6))})["question"]
    assert f"asked: more than 5 lines, 2 passed in a row of shell@studio {rule}" in question
    # And so is everything, once it failed.
    assert settled(fleet, hand_in(fleet, 4, check="'false'"))["state"] == "failed"
    question = fleet.hub.ask("why", {"task": asked(fleet, hand_in(fleet, 5))})["question"]
    assert "asked: 3 lines, 0 passed in a row of shell@studio" in question


@proves("task.waiver-recorded")
def test_an_owner_that_is_killed_decides_the_same_from_its_log(fleet):
    for number in (1, 2):
        settled_or_asked = hand_in(fleet, number)
        if number == 1:
            muster(fleet, fleet.hub, "decide", asked(fleet, settled_or_asked)[:12], "yes")
        assert settled(fleet, settled_or_asked)["state"] == "done"
    fleet.hub.kill()
    fleet.hub.start()
    until(lambda: "studio" in fleet.hub.linked(), "the studio is back")
    view = settled(fleet, hand_in(fleet, 3))
    (task,) = [t for t in view["tasks"] if t["phase"] == "sign-off"]
    assert task["summary"].startswith("not asked: 3 lines, 2 passed in a row")


PLANNED = """\
muster: 1
name: planned
repo: main
phases:
  work:
    agent: planner
    do: {do}
    deliver: made.txt
    check: {check}
"""


@proves("task.trust-shown")
def test_the_list_of_agents_shows_what_was_checked_of_each(fleet):
    fleet["studio"].stop()
    agents.give_planner(fleet["studio"])
    fleet["studio"].start()
    until(lambda: "planner" in agents.agents_of(fleet, "studio"), "the planner is known")
    script = [{"write": "made.txt", "content": "x"}, {"text": "I made it."}]
    do = json.dumps(f"Make it. @@script {json.dumps(script)}")
    for check, state in (("test -s made.txt", "done"), ("'false'", "failed"), ("'true'", "done")):
        view = settled(fleet, begin(fleet, PLANNED.format(do=do, check=check), "planned"))
        assert view["state"] == state, json.dumps(view, indent=1)
    for machine in (fleet.hub, fleet["studio"]):
        rows = {r["agent"]: r for r in machine.ask("agents") if r["machine"] == "studio"}
        planner = rows["planner"]
        assert (planner["passed"], planner["failed"], planner["streak"]) == (2, 1, 1)
        # Only who settled them decides by them.
        own = "2 of 3 checked results passed" if machine is fleet.hub else ""
        assert planner["trust"] == own
    said = muster(fleet, fleet.hub, "agents", "studio")
    assert "2 of 3 passed" in said.out, said
