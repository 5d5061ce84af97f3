"""What a live session proposes: a person orders it, or nobody does."""

from typing import Any

import pytest
from tests.node.cores import One
from tests.node.test_delegations import ASK, Fleet, refusal
from tests.node.test_sessions import opened
from tests.promise import proves

from muster.limits import PROPOSAL_LIFE_MS, PROPOSALS_OF_SESSION_MAX


@pytest.fixture
def world() -> Fleet:
    return Fleet()


def ask(one: One, session: dict[str, Any], **changes: Any) -> dict[str, Any]:
    answer = one.call("delegate", {**ASK, **changes}, capability=session["token"])
    assert answer["ok"], answer
    one.world.pass_ms(500)
    return answer["value"]


def waiting(one: One) -> list[str]:
    return [each["task"] for each in one.call("questions", {})["value"]]


def incidents(one: One) -> list[str]:
    rows = one.call("incidents", {})["value"]
    return [each["title"] for each in rows if each["open"] and each["key"].startswith("proposal-")]


def ordered(world: Fleet, id: str) -> str:
    """A person says yes: the run first, as the command does, then the word about it."""
    mac1 = world["mac1"]
    known = mac1.call("proposal.about", {"proposal": id})["value"]
    wanted = {"base": known["base"], "repo": known["repo"], "spec": known["spec"], "values": {}}
    begun = world["hub"].order("run", known["name"], wanted)["value"]
    word = {"proposal": id, "answer": "yes", "run": begun["run"], "owner": "hub"}
    answer = mac1.order("proposal.end", id, word)
    assert answer["ok"], answer
    world.pass_ms(1_000)
    return str(begun["run"])


@proves("door.a-person-approves")
def test_what_nothing_lets_a_session_hand_on_waits_for_a_person_who_orders_it_as_their_own(world):
    mac1 = world["mac1"]
    session = opened(mac1, agent="claude")
    answer = ask(mac1, session)
    asked = answer["proposal"]
    assert (answer["run"], asked["state"]) == ("", "open")
    assert "muster grant machine:mac1 delegate" in asked["because"]
    assert asked["command"] == f"muster answer {asked['proposal'][:12]} yes"
    assert waiting(mac1) == [asked["proposal"]]
    assert [asked["proposal"][:12] in each for each in incidents(mac1)] == [True]
    assert not any("tests fail" in each for each in incidents(world["hub"])), "never what for"
    assert mac1.entries("delegation.open") == []
    run = ordered(world, asked["proposal"])
    assert (waiting(mac1), incidents(mac1)) == ([], [])
    assert ask(mac1, session)["run"] == run
    args = {"agent": session["address"].partition("@")[0] + "#" + session["session"]}
    (told,) = mac1.call("inbox", args, capability=session["token"])["value"]
    assert f"ordered by op:alice: run {run[:12]}" in told["text"]
    runs = world["hub"].call("runs", {"more": True})["value"]
    assert [(each["run"], each["by"]) for each in runs] == [(run, "alice")]


@proves("door.a-person-approves")
def test_no_token_socket_or_page_says_a_persons_word(world):
    mac1 = world["mac1"]
    session = opened(mac1, agent="claude")
    id = ask(mac1, session)["proposal"]["proposal"]
    word = {"proposal": id, "answer": "yes", "run": "ab" * 16, "owner": "hub"}
    for more in ({}, {"capability": session["token"]}):
        answer = mac1.call("proposal.end", word, **more)
        assert "signature" in refusal(answer)
    assert mac1.call("proposal.about", {"proposal": id, "key": "other"})["ok"] is False
    assert ask(mac1, session)["proposal"]["state"] == "open"
    assert waiting(mac1) == [id]


@proves("door.a-person-approves")
def test_what_was_refused_is_not_asked_again_and_each_session_has_its_own(world):
    mac1 = world["mac1"]
    one, two = (opened(mac1, own=own, agent="claude") for own in ("a", "b"))
    id = ask(mac1, one)["proposal"]["proposal"]
    word = {"proposal": id, "answer": "no", "reason": "not now"}
    assert mac1.order("proposal.end", id, word)["ok"]
    again = ask(mac1, one)["proposal"]
    assert (again["proposal"], again["state"], again["reason"]) == (id, "refused", "not now")
    assert waiting(mac1) == []
    assert "nothing was changed" in refusal(mac1.order("proposal.end", id, word))
    assert ask(mac1, two)["proposal"]["proposal"] != id


@proves("door.a-person-approves")
def test_proposals_are_bounded_end_after_a_day_and_with_the_daemon(world):
    mac1 = world["mac1"]
    session = opened(mac1, agent="claude")
    for number in range(PROPOSALS_OF_SESSION_MAX):
        assert ask(mac1, session, text=[f"do {number}"])["proposal"]["state"] == "open"
    more = {**ASK, "text": ["one more"]}
    assert "may not hand on" in refusal(mac1.call("delegate", more, capability=session["token"]))
    world.ms += PROPOSAL_LIFE_MS
    world.pass_ms(2_000)
    assert (waiting(mac1), incidents(mac1)) == ([], [])
    ask(mac1, session)
    assert len(incidents(mac1)) == 1
    world.restart("mac1")
    world.link("hub", "mac1")
    world.pass_ms(3_000)
    assert (waiting(mac1), incidents(mac1)) == ([], [])


@proves("door.a-person-approves", "delegation.default-deny")
def test_the_agent_of_a_task_and_a_program_without_a_session_propose_nothing(world):
    mac1 = world["mac1"]
    assert "may not hand on" in refusal(mac1.call("delegate", ASK))
    token = world.begin(text=PLAIN)
    assert "may not hand on" in refusal(mac1.call("delegate", ASK, capability=token))
    assert waiting(mac1) == []


@proves("delegation.never-wider", "door.a-person-approves")
def test_what_is_wider_than_a_grant_is_proposed_as_well(world):
    world.grant("mac1", agents=("codex",))
    asked = ask(world["mac1"], opened(world["mac1"], agent="claude"))["proposal"]
    assert "may not be handed on" in asked["because"]


PLAIN = """\
muster: 1
name: parent
phases:
  lead:
    agent: claude
    needs: {machine: mac1}
    do: "Work"
    check: "true"
"""
