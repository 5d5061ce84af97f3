"""What was handed on is done once, and its result reaches whoever asked, also after a sleep or a restart."""

from functools import partial

import msgspec
from tests.node.delegating import DAY_MS, Fleet, ask, asked, begun, forge, refusal
from tests.promise import proves

from muster.node.tasks.asked_work import AskedWork
from muster.node.tasks.delegations import Delegations
from muster.task.delegation_kinds import DelegationOpen


@proves("delegation.once")
def test_under_one_key_and_for_the_same_words_there_is_one_run():
    world = Fleet()
    world.grant("mac1")
    first = asked(world["mac1"], key="k1")
    assert ask(world["mac1"], key="k1")["value"] == {"run": first, "fresh": False, "owner": "mac2"}
    assert "take another key" in refusal(ask(world["mac1"], key="k1", text=["something else"]))
    assert asked(world["mac1"]) == first
    world.pass_ms(2_000)
    world.done("mac2")
    assert asked(world["mac1"], key="k1") == first
    again = asked(world["mac1"])
    assert again != first
    world.pass_ms(2_000)
    assert len(world["mac1"].entries("delegation.open")) == 2
    assert len(world["mac2"].entries("run.open")) == 2


@proves("delegation.once")
def test_a_key_is_its_askers_own():
    world = Fleet()
    world.grant("mac1")
    token = world.begin()
    assert asked(world["mac1"], token, key="k") != asked(world["mac1"], key="k")


@proves("delegation.reaches-sleepers")
def test_who_sleeps_while_its_work_is_done_finds_the_result_in_its_inbox_once():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(1_000)
    world.cut("mac1")
    world.pass_ms(60_000)
    world.done("mac2", "it was the clock")
    world.link("hub", "mac1")
    world.pass_ms(10_000)
    unread = world["mac1"].call("inbox", {})["value"]
    assert ["it was the clock" in each["text"] for each in unread] == [True]
    assert world.state(run) == "done"


@proves("delegation.reaches-sleepers")
def test_an_owner_that_was_away_begins_it_when_it_is_back_and_not_after_a_day():
    world = Fleet()
    world.grant("mac1")
    world.cut("mac2")
    run = asked(world["mac1"])
    world.pass_ms(60_000)
    assert world.state(run) == "asked"
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(run) == "open"
    world.cut("mac2")
    late = asked(world["mac1"], text=["too late"])
    world.ms += DAY_MS + 1
    world.link("hub", "mac2")
    world.pass_ms(10_000)
    assert world.state(late) == "refused"


@proves("delegation.once")
def test_an_owner_that_starts_anew_begins_nothing_twice_and_nobody_is_told_twice():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    world.done("mac2")
    world.cut("hub")
    refused = asked(world["mac1"], text=["too late"])
    assert world["mac1"].call("withdraw", {"run": refused})["ok"]
    world.link("hub", "mac1")
    world.link("hub", "mac2")
    world.pass_ms(8_000)
    names = ("run.open", "delegation.refuse", "message.send")
    before = {name: len(world["mac1"].entries(name)) for name in names}
    assert before == {"run.open": 1, "delegation.refuse": 1, "message.send": 2}
    for name in ("mac1", "mac2"):
        for part in (AskedWork, Delegations):
            forge(world[name], world[name].core.part(part).start)
        world.pass_ms(5_000)
    assert {name: len(world["mac1"].entries(name)) for name in names} == before
    assert world.state(run) == "done"


@proves("delegation.once")
def test_an_order_that_another_machine_shows_again_begins_nothing():
    world = Fleet()
    world.grant("mac1")
    run = asked(world["mac1"])
    world.pass_ms(2_000)
    (entry,) = world["mac1"].entries("delegation.open")
    body = msgspec.json.decode(entry.body, type=DelegationOpen)
    for name in ("hub", "mac2"):
        core = world[name].core
        forge(world[name], partial(core.append_body, body, actor="claude@mac1"))
        world.pass_ms(5_000)
    assert begun(world) == [run]
    assert len(world["mac2"].entries("run.open")) == 1
