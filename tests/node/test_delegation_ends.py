"""What nothing lets any more is not begun: its grant ended, its attempt is over, its machine is out."""

import json

import pytest
from tests.node.cores import WALL_MS
from tests.node.delegating import DAY_MS, Fleet, ask, asked, begun, refusal, whys
from tests.promise import proves

from muster.fleet.capability import make_capability
from muster.node.call.authorize import Authorizer
from muster.task.instruction import StartAttempt


@proves("delegation.ends")
def test_a_grant_that_is_taken_back_or_has_ended_lets_nothing_more():
    world = Fleet()
    world.take(world.grant("mac1"))
    assert "muster grant machine:mac1" in refusal(ask(world["mac1"]))
    world.grant("mac1", days=1)
    world.pass_ms(1_000)
    world.ms += DAY_MS
    assert "muster grant machine:mac1" in refusal(ask(world["mac1"]))


@proves("delegation.ends")
def test_what_waits_for_its_owner_when_the_grant_ends_is_not_begun():
    world = Fleet()
    world.grant("mac1", days=1)
    world.cut("mac2")
    world.ms += DAY_MS // 2
    run = asked(world["mac1"])
    world.ms += DAY_MS // 2 + 10_000
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
    assert "has ended" in whys(world, run)


@proves("delegation.ends")
def test_the_agent_of_an_attempt_that_ends_has_nothing_of_what_its_machine_may():
    world = Fleet()
    world.grant("mac1")
    token, capability = make_capability(
        bytes(32), task="t9", agent="claude", verbs=("delegate",), until_ms=WALL_MS + DAY_MS
    )
    world["mac1"].core.part(Authorizer).allow_agent(capability)
    assert "about to end" in refusal(ask(world["mac1"], token))


@proves("delegation.ends")
def test_what_waits_for_its_owner_when_the_grant_is_taken_back_is_not_begun():
    world = Fleet()
    id = world.grant("mac1")
    world.cut("mac2")
    run = asked(world["mac1"])
    world.take(id)
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
    assert not world["mac2"].entries("run.open")
    (message,) = world["mac1"].entries("message.send")
    assert "no operator's grant" in json.loads(message.body)["text"]


@proves("delegation.ends")
@pytest.mark.parametrize("how", ["revoked", "taken"])
def test_what_waits_for_a_slot_when_its_machine_is_revoked_or_its_grant_taken_never_begins(how):
    world = Fleet()
    id = world.grant("mac1")
    for number in range(3):
        last = asked(world["mac1"], text=[str(number)])
        world.pass_ms(2_000)
    begun = [e.open.run for e in world["mac2"].effects if isinstance(e, StartAttempt)]
    assert len(begun) == 2
    assert last not in begun
    if how == "revoked":
        assert world["hub"].order("revoke", "mac1", {"name": "mac1"})["ok"]
    else:
        world.take(id)
    world.pass_ms(2_000)
    world.done("mac2")
    world.pass_ms(10_000)
    begun = [e.open.run for e in world["mac2"].effects if isinstance(e, StartAttempt)]
    assert last not in begun
    assert world.state(last, "mac2") == "failed"


@proves("delegation.ends")
def test_what_the_agent_of_an_attempt_asked_for_is_not_begun_once_its_machine_is_revoked():
    world = Fleet()
    token = world.begin("{machine: hub, runs: 3}")
    world.cut("mac1")
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    for number in range(3):
        # Two run, and the third waits for a slot.
        last = asked(world["mac1"], token, text=[str(number)], machine=["hub"])
    world.cut("mac1")
    world.link("mac1", "hub")
    world.pass_ms(5_000)
    assert len(begun(world, "hub")) == 2
    assert world["hub"].order("revoke", "mac1", {"name": "mac1"})["ok"]
    world.done("hub")
    world.pass_ms(10_000)
    assert last not in begun(world, "hub")
    assert world.state(last, "hub") == "failed"


@proves("delegation.ends")
def test_what_was_withdrawn_before_its_owner_heard_of_it_is_not_begun():
    world = Fleet()
    world.grant("mac1")
    world.cut("mac2")
    run = asked(world["mac1"])
    assert world["mac1"].call("withdraw", {"run": run[:8]})["ok"]
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
    assert not world["mac2"].entries("run.open")
    assert "already" in refusal(world["mac1"].call("withdraw", {"run": run}))


@proves("delegation.ends")
def test_what_the_agent_of_an_attempt_that_is_over_asked_for_is_not_begun():
    world = Fleet()
    token = world.begin()
    world.cut("mac2")
    run = asked(world["mac1"], token)
    world.done("mac1")
    assert "no running task" in refusal(ask(world["mac1"], token, text=["more"]))
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "refused"
