"""What a hostile member says it was let, asked for or told is believed by nobody without its evidence."""

import json
from functools import partial

import msgspec
import pytest
from tests.node.delegating import DAY_MS, PARENT, Fleet, Forger, asked, begun, forge, whole, whys
from tests.promise import proves

from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.followers import Followers
from muster.node.tasks.runs import RunService
from muster.task import kinds
from muster.task.delegation_fold import DELEGATION
from muster.task.delegation_kinds import DelegationOpen, DelegationRefuse, DelegationWithdraw


@proves("delegation.evidence")
def test_the_owner_refuses_what_no_grant_and_no_attempt_lets():
    world = Fleet()
    forger = Forger(world, "mac1")
    assert "no assignment" in whys(world, forger.asks("mac2"))
    assert "no operator's grant" in whys(world, forger.asks("mac2", grant="0" * 64))
    assert begun(world) == []
    assert world["mac2"].core.counters["delegations-refused"] == 2


@proves("delegation.evidence")
def test_the_owner_refuses_another_machines_grant_key_attempt_and_order():
    world = Fleet()
    id = world.grant("hub")
    forger, other = Forger(world, "mac1"), world["mac2"].core
    assert "no operator's grant" in whys(world, forger.asks("mac2", grant=id))
    forger.asks("mac2", grant=id, signer=other.membership.signer("statement"))
    assert other.counters["delegations-forged"] == 1
    world["hub"].step(FactsChanged(world["hub"].facts(agents={"claude": ""})))
    world.begin(text=(PARENT % "{runs: 3}").replace("mac1", "mac2"), where="mac2")
    (assign,) = world["mac1"].entries("task.assign")
    assert "for another machine" in whys(world, forger.asks("mac2", cause=(assign.id,)))
    assert begun(world) == [world.started("mac2").open.run]


@proves("delegation.evidence")
def test_the_owner_refuses_what_is_wider_than_the_spec_of_the_attempt_and_more_than_it_says():
    world = Fleet()
    world.begin("{machine: hub}")
    (assign,) = world["mac1"].entries("task.assign")
    forger = Forger(world, "mac1")
    assert "is not bound to hub" in whys(world, forger.asks("mac2", cause=(assign.id,)))
    narrow = whole(needs="{machine: hub}")["spec"]
    second = forger.asks("mac2", cause=(assign.id,), text=narrow)
    assert "more runs are handed on than the 1" in whys(world, second)


@proves("delegation.evidence")
def test_a_run_under_an_id_that_its_order_does_not_give_is_never_begun():
    world = Fleet()
    forger, id = Forger(world, "mac1"), world.grant("mac1")
    forger.asks("mac2", run="1" * 32, grant=id)
    assert begun(world) == []
    assert not world["hub"].core.tables.rows(DELEGATION)
    assert world["mac2"].core.counters["delegations-forged"] == 1


@proves("delegation.only-its-own")
def test_nobody_has_refused_what_another_machine_asked_for_by_asking_for_it_first():
    world = Fleet()
    world.grant("mac1")
    world.cut("mac1")
    run = asked(world["mac1"])
    (entry,) = world["mac1"].entries("delegation.open")
    body = msgspec.json.decode(entry.body, type=DelegationOpen)
    # What a machine on its way can read: its order, and so the id of its run.
    for each in (body, msgspec.structs.replace(body, statement="00", spec="x")):
        hub = world["hub"].core
        forge(world["hub"], partial(hub.append_body, each, actor="claude@hub"))
        world.pass_ms(2_000)
    assert world["mac2"].core.counters["delegations-forged"] == 2
    world.link("hub", "mac1")
    world.pass_ms(10_000)
    assert begun(world) == [run]
    assert world.state(run, by="mac1") == "open"
    assert not world["mac2"].entries("delegation.refuse")


@proves("delegation.only-its-own")
@pytest.mark.parametrize("whose", ["operator", "agent"])
@pytest.mark.parametrize("anew", [False, True])
def test_no_other_member_withdraws_a_run_by_saying_that_it_asked_for_it(whose, anew):
    world = Fleet()
    world.begin("{machine: hub}" if whose == "operator" else "{}")
    run = next(iter(world["hub"].core.part(RunService).runs))
    if whose == "agent":
        world.grant("mac1", "hub")
        run = asked(world["mac1"], machine=["hub"])
        world.pass_ms(2_000)
    (opening,) = (e for e in world["hub"].entries("run.open") if run in str(e.body))
    opened = msgspec.json.decode(opening.body, type=kinds.RunOpen)
    if anew:
        # What a machine that had to begin a new stream has: its own opening, repeated.
        hub = world["hub"].core
        forge(
            world["hub"],
            lambda: hub.append("run.open", opening.body, cause=(opening.id,), actor="muster"),
        )
        repeated = world["hub"].entries("run.open")[-1]
        hub.part(RunService).runs[run].opened = repeated.id
    other = world["mac2"].core
    for statement in ("00", opened.statement):
        claim = DelegationOpen(run, world["hub"].id, statement, "x")
        forge(world["mac2"], partial(other.append_body, claim, actor="claude@mac2"))
        world.pass_ms(2_000)
        taken = DelegationWithdraw(run, "because I say so")
        forge(world["mac2"], partial(other.append_body, taken, actor="claude@mac2"))
        world.pass_ms(2_000)
    runs = world["hub"].core.part(RunService)
    assert not runs.runs[run].progress.cancelled
    assert runs.runs[run].handed_on == (whose == "agent")
    runs.runs.clear()
    forge(world["hub"], runs.adopt)
    # Whoever reads it back is not told either that an agent wants it.
    assert runs.runs[run].handed_on == (whose == "agent")
    if whose == "agent":
        assert world["mac1"].call("withdraw", {"run": run})["ok"]
        world.pass_ms(2_000)
        assert world.state(run, by="mac1") == "cancelled"


@proves("delegation.only-its-own")
def test_nobody_but_its_owner_says_that_what_was_handed_on_has_ended():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    told = list[str]()
    world["mac1"].core.part(Followers).follow(run, lambda said: told.append(str(said)))
    other = world["hub"].core
    for said in (DelegationRefuse(run, "no"), kinds.RunSettle(run, "failed")):
        forge(world["hub"], partial(other.append_body, said))
        world.pass_ms(1_000)
    assert "{}" not in told
    assert world.state(run) == "open"
    assert not world["mac1"].entries("message.send")


@proves("delegation.evidence")
def test_a_worker_refuses_what_a_hostile_owner_begins_all_the_same():
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger = Forger(world, "mac1")
    for more, reason in (
        ({}, "delegation-missing"),
        ({"grant": "0" * 64}, "delegation-not-allowed"),
        ({"grant": world.grant("mac1", "hub")}, "delegation-too-wide"),
    ):
        run = forger.asks("mac1", **more)
        forger.opens(run, "mac1")
        assert begun(world) == []
        refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
        assert reason in refused
    good = forger.asks("mac1", grant=world.grant("mac1"))
    assert begun(world) == [good]


@proves("delegation.never-wider")
@pytest.mark.parametrize("bounds", [{}, {"agents": ("claude",)}, {"agents": ("shell",)}])
def test_what_names_no_agent_is_begun_by_no_owner_and_done_by_no_worker(bounds):
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger, id = Forger(world, "mac1"), world.grant("mac1", **bounds)
    nobody = whole(needs="{machine: mac2}")["spec"].replace("    agent: claude\n", "")
    assert "says nobody to do it" in whys(world, forger.asks("mac2", grant=id, text=nobody))
    forger.opens(forger.asks("mac1", grant=id, text=nobody), "mac1")
    assert begun(world) == []
    refused = [json.loads(e.body) for e in world["mac2"].entries("attempt.refuse")]
    assert {each["reason"] for each in refused} == {"delegation-too-wide"}
    assert "says nobody to do it" in refused[0]["text"]


@proves("delegation.evidence")
def test_a_worker_refuses_a_run_that_was_handed_on_and_keeps_what_another_did():
    world = Fleet()
    world.link("mac1", "mac2")
    world.pass_ms(8_000)
    forger, kept = Forger(world, "mac1"), {"other": "1" * 32}
    two = (
        whole(needs="{machine: mac2}")["spec"] + "  other: {agent: claude, do: x, check: 'true'}\n"
    )
    run = forger.asks("mac1", text=two, kept=kept, grant=world.grant("mac1"))
    forger.opens(run, "mac1", kept)
    assert begun(world) == []
    refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
    assert set(refused) == {"delegation-too-wide"}


@proves("delegation.evidence")
def test_a_worker_refuses_what_was_asked_for_after_the_grant_had_ended():
    world = Fleet()
    world.link("mac1", "mac2")
    id = world.grant("mac1", days=1)
    world.pass_ms(8_000)
    world.ms += DAY_MS
    world.pass_ms(8_000)
    forger = Forger(world, "mac1")
    forger.opens(forger.asks("mac1", grant=id), "mac1")
    assert begun(world) == []
    refused = [json.loads(e.body)["reason"] for e in world["mac2"].entries("attempt.refuse")]
    assert set(refused) == {"delegation-not-allowed"}
