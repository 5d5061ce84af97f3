"""What a live session proposes: a person orders it, or nobody does."""

from typing import Any

import pytest
from tests.node.cores import One
from tests.node.delegating import ASK, Fleet, refusal
from tests.node.test_sessions import opened
from tests.promise import proves

from muster.limits import PROPOSAL_LIFE_MS, PROPOSALS_OF_SESSION_MAX
from muster.node.tasks import proposals
from muster.node.tasks.proposals import Proposals


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
def test_what_was_refused_is_not_asked_again_by_any_session_in_any_writing(world):
    mac1 = world["mac1"]
    one, two = (opened(mac1, own=own, agent="claude") for own in ("a", "b"))
    id = ask(mac1, one)["proposal"]["proposal"]
    word = {"proposal": id, "answer": "no", "reason": "not now"}
    assert mac1.order("proposal.end", id, word)["ok"]
    again = ask(mac1, one)["proposal"]
    assert (again["proposal"], again["state"], again["reason"]) == (id, "refused", "not now")
    assert waiting(mac1) == []
    assert "nothing was changed" in refusal(mac1.order("proposal.end", id, word))
    assert ask(mac1, two)["proposal"]["proposal"] == id
    # Of the same spec in another writing nobody is asked again; of another base somebody is.
    spec = mac1.call("proposal.about", {"proposal": id})["value"]["spec"]
    whole = {"text": [], "agent": [], "machine": []}
    written = f"# please\n{spec}".replace('"why do the tests fail?"', "'why do the tests fail?'")
    assert written.count("'why") == 1
    assert ask(mac1, two, **whole, spec=written)["proposal"]["proposal"] == id
    other = spec.replace("tests fail", "tests still fail")
    assert ask(mac1, two, **whole, spec=other)["proposal"]["state"] == "open"


@proves("door.a-person-approves")
def test_what_waits_is_each_sessions_own(world):
    mac1 = world["mac1"]
    one, two = (opened(mac1, own=own, agent="claude") for own in ("a", "b"))
    ids = [ask(mac1, each)["proposal"]["proposal"] for each in (one, two)]
    assert sorted(waiting(mac1)) == sorted(ids)
    assert len(set(ids)) == 2
    ordered(world, ids[0])
    assert ask(mac1, two)["proposal"]["proposal"] == ids[1]


@proves("door.a-person-approves")
def test_what_was_answered_keeps_nobody_from_proposing_and_is_kept_in_bounds(world, monkeypatch):
    monkeypatch.setattr(proposals, "PROPOSALS_MAX", 2)
    monkeypatch.setattr(proposals, "PROPOSALS_ENDED_MAX", 3)
    mac1 = world["mac1"]
    session = opened(mac1, agent="claude")
    for number in range(5):
        asked = ask(mac1, session, text=[f"do {number}"])["proposal"]
        word = {"proposal": asked["proposal"], "answer": "no"}
        assert mac1.order("proposal.end", asked["proposal"], word)["ok"]
    assert len(mac1.core.part(Proposals)._known) == 3
    assert ask(mac1, session, text=["do 4"])["proposal"]["state"] == "refused"
    for number in (5, 6):
        assert ask(mac1, session, text=[f"do {number}"])["proposal"]["state"] == "open"
    more = {**ASK, "text": ["one more"]}
    assert "may not hand on" in refusal(mac1.call("delegate", more, capability=session["token"]))


@proves("door.a-person-approves")
def test_who_has_no_right_key_hears_of_no_proposal_however_the_ids_begin(world):
    mac1 = world["mac1"]
    session = opened(mac1, agent="claude")
    keys = [ask(mac1, session, text=[f"do {n}"])["proposal"]["page"][-32:] for n in range(2)]
    known = mac1.core.part(Proposals)._known
    alike = {f"3fa9{id[4:]}": each for id, each in known.items()}
    for id, each in alike.items():
        each.id = id
    known.clear()
    known.update(alike)
    assert "more than one" in refusal(mac1.call("proposal.about", {"proposal": "3fa9"}))
    said = refusal(mac1.call("proposal.about", {"proposal": "3fa9", "key": "ab" * 16}))
    assert "no session of mac1 proposes" in said
    assert not any(id in said for id in alike)
    found = mac1.call("proposal.about", {"proposal": "3fa9", "key": keys[1]})
    assert found["value"]["proposal"] == list(alike)[1]


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
