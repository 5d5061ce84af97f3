"""An agent asks for a permission that only a person gives: who hears of it, and who answers.

The agent is scripted_agent.py on studio; the person sits at the hub.
"""

import json

import pytest

from tests.e2e import agents
from tests.e2e.agents import below, lines, muster, prompt, settled, tasks
from tests.e2e.fleet import until
from tests.promise import proves

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

SPEC = """\
muster: 1
name: {name}
phases:
  work:
    agent: [planner]
    do: {do}
    check: 'true'
    retries: 0
"""


@pytest.fixture(scope="module")
def fleet():
    with agents.planning() as made:
        yield made


def asked(fleet, name, title="call the dentist"):
    """A run whose agent waits for a permission; the run and what `muster questions` lists."""
    steps = ({"ask": "other", "title": title}, {"text": "That was all."})
    text = SPEC.format(name=name, do=prompt(*steps))
    args = {"base": "", "repo": "", "spec": text, "values": {}}
    run = fleet.hub.order("run", name, args)["run"]
    (question,) = until(lambda: open_questions(fleet), "the agent asks", within_s=60)
    return run, question


def open_questions(fleet):
    said = muster(fleet, fleet.hub, "questions", "--on", "all", "--json")
    assert said.code == 0, said
    return said.value["studio"]


def incidents(fleet):
    rows = fleet.hub.ask("incidents")
    return [r["title"] for r in rows if r["open"] and r["key"].startswith("question-")]


@proves("agent.answered-by-a-person", "approval.chain")
@pytest.mark.parametrize(("word", "option"), [("allow", "allow_once"), ("deny", "reject_once")])
def test_a_person_elsewhere_is_told_that_an_agent_waits_and_answers_it(fleet, word, option):
    run, question = asked(fleet, f"say-{word}")
    assert (question["title"], question["tool"]) == ("call the dentist", "other")
    assert question["actor"] == "planner@studio"
    (title,) = until(lambda: incidents(fleet), "the fleet hears of it")
    assert "planner@studio waits for a permission" in title
    assert "dentist" not in title, "what is asked stays in the journal"
    said = muster(fleet, fleet.hub, "answer", question["question"][:12], word)
    assert said.code == 0, said
    assert settled(fleet, run)["state"] == "done"
    told = lines(muster(fleet, fleet.hub, "logs", question["task"], "--json"))
    kinds = [e["kind"] for e in told]
    assert kinds.index("agent.ask") < kinds.index("agent.decision")
    assert ("agent.use" in kinds) == (word == "allow")
    decision = next(e for e in told if e["kind"] == "agent.decision")
    assert (decision["by"], decision["option"]) == ("op:alice", option), decision
    assert any(f"the person said {option}" in e.get("text", "") for e in told)
    assert open_questions(fleet) == []
    until(lambda: not incidents(fleet), "the fleet hears that it is over")
    late = muster(fleet, fleet.hub, "answer", question["question"], "allow")
    assert (late.code, "alice answered it" in late.err) == (6, True), late
    late = muster(fleet, fleet.hub, "answer", question["task"], "deny")
    assert (late.code, "nobody waits" in late.err) == (6, True), late


@proves("agent.answered-by-a-person", "approval.shown")
def test_a_machine_without_the_operators_key_answers_nothing(fleet):
    run, question = asked(fleet, "not-you")
    unread = muster(fleet, fleet.hub, "answer", question["task"], "allow")
    assert (unread.code, "nothing was answered" in unread.err) == (3, True), unread
    assert "call the dentist" in unread.err, "it is shown before anybody is asked"
    said = muster(fleet, fleet["studio"], "answer", question["question"], "allow")
    assert (said.code, "operator.seed" in said.err) == (4, True), said
    assert open_questions(fleet) == [question]
    assert muster(fleet, fleet.hub, "cancel", question["task"]).code == 0
    settled(fleet, run)
    until(lambda: not open_questions(fleet), "a question ends with its attempt")
    until(lambda: not incidents(fleet), "and so does its incident")


@proves("agent.question-ends", "approval.time")
def test_a_question_ends_with_a_killed_daemon(fleet):
    run, question = asked(fleet, "killed")
    studio = fleet["studio"]
    until(lambda: incidents(fleet), "the fleet hears of it")
    studio.kill()
    until(lambda: not below(studio), lambda: str(below(studio)), within_s=20)
    muster(fleet, fleet.hub, "cancel", question["task"])
    studio.start()
    allow = ("answer", question["question"], "allow")
    until(lambda: "is withdrawn" in muster(fleet, fleet.hub, *allow).err, "the fleet reads so")
    until(lambda: not incidents(fleet), lambda: json.dumps(fleet.hub.ask("incidents")))
    settled(fleet, run)
    assert tasks(fleet, run)["work"]["state"] == "cancelled"
