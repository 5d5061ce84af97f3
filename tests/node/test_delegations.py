"""Who may hand on work: by whose word, who sees it, and who takes it back."""

import json

from tests.node.delegating import ASK, PARENT, Fleet, ask, asked, begun, refusal
from tests.promise import proves

from muster.node.incarnations.own_incarnation import FactsChanged


@proves("delegation.default-deny")
def test_without_a_grant_no_agent_of_a_machine_hands_on_anything_and_is_told_what_would_let_it():
    world = Fleet()
    before = world["mac1"].sizes()
    assert "muster grant machine:mac1 delegate" in refusal(ask(world["mac1"]))
    assert world["mac1"].sizes() == before


@proves("delegation.by-grant")
def test_by_a_grant_a_session_asks_another_machine_and_hears_how_it_ended():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    assert world.state(run) == "open"
    start = world.started("mac2")
    assert start.open.run == run
    world.done("mac2", "a missing import")
    assert world.state(run) == "done"
    (message,) = world["mac1"].entries("message.send")
    assert "a missing import" in json.loads(message.body)["text"]
    assert json.loads(message.body)["about"] == run


@proves("delegation.by-attempt")
def test_by_its_spec_the_agent_of_a_task_asks_another_machine():
    world = Fleet()
    token = world.begin("{}")
    run = asked(world["mac1"], token)
    world.pass_ms(2_000)
    assert world.started("mac2").open.run == run
    world.done("mac2")
    assert world.state(run) == "done"


@proves("delegation.default-deny")
def test_a_task_whose_spec_says_nothing_hands_on_nothing_though_its_machine_may():
    world = Fleet()
    world.grant("mac1")
    token = world.begin(text=PARENT.replace("    may: {delegate: %s}\n", ""))
    assert "may: {delegate" in refusal(ask(world["mac1"], token))


@proves("delegation.default-deny")
def test_only_who_handed_it_on_takes_it_back_and_nobody_asks_from_elsewhere():
    world = Fleet()
    world.grant("mac1")
    token = world.begin("{runs: 2}")
    mine, other = asked(world["mac1"], token), asked(world["mac1"], text=["another"])
    world.pass_ms(2_000)
    answer = world["mac1"].call("withdraw", {"run": other}, capability=token)
    assert "handed on by somebody else" in refusal(answer)
    assert world.state(other) == "open"
    assert world["mac1"].call("withdraw", {"run": mine}, capability=token)["ok"]
    world.pass_ms(2_000)
    assert world.state(mine) == "cancelled"
    for verb, args in (("delegate", ASK), ("withdraw", {"run": other})):
        statement = world.sign(verb, "*", world["mac1"], args)
        answer = world["hub"].call(verb, args, on="mac1", statement=statement)
        assert "each on its own machine" in refusal(answer)


@proves("delegation.old-machines")
def test_a_machine_that_cannot_check_the_chain_gets_none_of_it():
    world = Fleet()
    world.grant("mac1")
    world["mac2"].step(FactsChanged(world["mac2"].facts(agents={"claude": ""}, muster="0.2.9")))
    world.pass_ms(1_000)
    run = asked(world["mac1"])
    world.pass_ms(5_000)
    assert begun(world) == []
    assert world.state(run) == "open"
    answer = world["hub"].call("why", {"task": run})
    assert "its Muster 0.2.9 cannot read what was ordered" in str(answer)


@proves("delegation.visible")
def test_whoever_looks_sees_which_agent_handed_it_on_and_the_person_who_let_it():
    world = Fleet()
    id = world.grant("mac1")
    token = world.begin("{depth: 2}")
    by_grant, by_task = asked(world["mac1"]), asked(world["mac1"], token, text=["another"])
    world.pass_ms(5_000)
    for where in ("hub", "mac1", "mac2"):
        seen = world[where].call("runs", {"run": by_grant})["value"]
        assert seen["handed_on"] == {"by": "mac1", "person": "alice", "grant": id}
        seen = world[where].call("why", {"task": by_task})["value"]["handed_on"]
        parent = world.started("mac1").assign.task
        assert seen == {"by": "claude@mac1", "person": "alice", "task": parent}
        listed = world[where].call("runs", {"more": True})["value"]
        assert {r["run"]: r["by"] for r in listed}[by_task] == "claude@mac1"
    kinds_of = {
        e["kind"] for e in world["hub"].call("explain", {"task": by_task})["value"]["entries"]
    }
    assert {"delegation.open", "run.open", "task.assign"} <= kinds_of
