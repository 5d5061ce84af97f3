"""What the runs of a schedule may use up in a day, and whose money they spend."""

import json
from typing import Any

import pytest
from tests.node.cores import WALL_MS
from tests.node.delegating import Fleet, forge
from tests.node.scheduling import FILE, MINUTE, SLOT, Registers, add
from tests.node.test_budgets import DAY, M, begun, bodies, counted, ends, keep, why
from tests.promise import proves

from muster.node.tasks import schedule_pots, slots
from muster.task import pot
from muster.task.adoption import takeover_args
from muster.task.budget import Amount

SPEC = """\
muster: 1
name: nightly
phases:
  one: {agent: claude, needs: {machine: mac1}, do: x, check: 'true'}
  two: {agent: claude, needs: {machine: mac2}, do: x, check: 'true'}
"""
KEPT = FILE.replace("[hub, studio]", "[hub, mac1]").replace('"repo:main"', "owner")
HOUR = 60 * MINUTE
ONE = "".join(line for line in SPEC.splitlines(True) if "two:" not in line)


@pytest.fixture
def world() -> Fleet:
    return Fleet()


def runs_until(world: Fleet, slot: int) -> None:
    Registers(world).until(slot + 10_000)
    world.pass_ms(2_000)


def told(world: Fleet, kind: str) -> list[Any]:
    return [json.loads(each.body) for each in world["hub"].entries(f"schedule.{kind}")]


@proves("budget.schedule")
def test_the_runs_of_a_day_share_what_their_schedule_may_use_and_then_it_rests_until_tomorrow(
    world,
):
    assert add(world["hub"], KEPT + "budget: {usd: '5.00'}\n", SPEC)["ok"]
    runs_until(world, SLOT)
    (one,), (two,) = begun(world, "mac1"), begun(world, "mac2")
    assert (one.limits, two.limits) == (Amount(0, 5 * M // 2), Amount(0, 5 * M // 2))
    assert {each["pot"] for each in bodies(world, "reserve")} == {"schedule:nightly"}
    ends(world, one, **counted(2 * M))
    ends(world, two, **counted(M))
    runs_until(world, SLOT + 10 * MINUTE)
    third, fourth = begun(world, "mac1")[-1], begun(world, "mac2")[-1]
    assert (third.limits, fourth.limits) == (Amount(0, M), Amount(0, M))
    # The last call of each was under way when nothing was left.
    ends(world, third, **counted(M))
    ends(world, fourth, **counted(M + M // 10))
    runs_until(world, SLOT + 20 * MINUTE)
    assert len(begun(world, "mac1")) == 2
    assert [each["reason"] for each in told(world, "skip")] == [
        "budget: $5.10 of $5.00 are used today (UTC)"
    ]
    shown = world["hub"].call("schedule.show", {"name": "nightly"})["value"]
    assert (shown["budget"], shown["used"]) == ("$5.00", "$5.10")
    # Tomorrow is another day.
    day = 24 * HOUR
    runs_until(world, (WALL_MS // day + 1) * day + 10 * MINUTE)
    assert len(begun(world, "mac1")) > 2


@proves("budget.schedule")
def test_a_run_whose_schedule_has_nothing_left_fails_with_that_and_one_that_has_its_own_keeps_both(
    world,
):
    spec = SPEC.replace("name: nightly", "name: nightly\nbudget: {usd: '9.00'}")
    spec = spec.replace("two: {", "two: {after: [one], ")
    assert add(world["hub"], KEPT + "budget: {usd: '2.00', tokens: 100}\n", spec)["ok"]
    runs_until(world, SLOT)
    (one,) = begun(world, "mac1")
    assert one.limits == Amount(100, 2 * M)
    ends(world, one, **counted(2 * M))
    assert begun(world, "mac2") == []
    (refused,) = bodies(world, "refuse")
    said = (
        "the budget of the schedule nightly for a day is 100 tokens and $2.00: 7 tokens and $2.00"
    )
    assert refused["final"]
    assert said in refused["reason"]
    (run,) = world["hub"].call("runs", {})["value"]
    assert run["state"] == "failed"
    # What was reserved of the run's own is given back.
    assert sorted(each["pot"].partition(":")[0] for each in bodies(world, "settle")) == [
        "run", "run", "schedule",
    ]  # fmt: skip


@proves("budget.schedule")
def test_what_another_keeper_reserved_counts_where_it_is_known(world):
    file = KEPT.replace("[hub, mac1]", "[mac1, hub]") + "budget: {usd: '5.00'}\n"
    assert add(world["hub"], file, ONE)["ok"]
    runs_until(world, SLOT)
    assert len(bodies(world, "reserve", "mac1")) == 1
    ends(world, begun(world, "mac1")[0], **counted(6 * M))
    # The same schedule is hub's first from now on.
    assert add(world["hub"], KEPT + "budget: {usd: '5.00'}\n", ONE)["ok"]
    runs_until(world, SLOT + 20 * MINUTE)
    assert len(begun(world, "mac1")) == 1
    assert told(world, "skip")[-1]["reason"].startswith("budget: $6.00 of $5.00")


@proves("budget.schedule", "budget.settled")
def test_what_a_keeper_that_is_gone_had_reserved_is_back_when_its_attempt_has_ended(world):
    world.link("mac1", "mac2")
    file = KEPT.replace("owner", '"repo:main"') + "budget: {usd: '5.00'}\noverlap: allow\n"
    assert add(world["hub"], file, ONE)["ok"]
    registers = Registers(world)
    registers.until(SLOT + 10_000)
    world.pass_ms(2_000)
    (one,) = begun(world, "mac1")
    assert one.limits == Amount(0, 5 * M)
    world.cut("hub")
    world.frozen.add("hub")
    ends(world, one, **counted(M))
    registers.until(SLOT + 13 * MINUTE)
    world.pass_ms(2_000)
    assert [each.limits for each in begun(world, "mac1")[1:]] == [Amount(0, 4 * M)]


@proves("budget.schedule")
def test_who_goes_on_with_a_run_of_a_schedule_counts_and_nobody_else(world):
    file = KEPT.replace("[hub, mac1]", "[mac1, hub]") + "budget: {usd: '5.00'}\n"
    assert add(world["hub"], file, ONE)["ok"]
    runs_until(world, SLOT)
    hub = world["hub"]
    (each,) = slots.schedules(hub.core).values()
    assert schedule_pots.state(hub.core, each.schedule).held == Amount(0, 5 * M)
    day = pot.day_of(world.now().wall_ms)
    mac2 = world["mac2"]

    def reserve(task: str) -> None:
        body = {"pot": "schedule:nightly", "usd_millionths": M, "worker": mac2.id, "day": day}
        forge(
            mac2, lambda: mac2.core.write("budget.reserve", {**body, "task": task, "epoch": [1, 1]})
        )
        world.pass_ms(1_000)

    reserve("b" * 32)
    assert schedule_pots.state(hub.core, each.schedule).held == Amount(0, 5 * M)
    world.cut("mac1")
    world.frozen.add("mac1")
    gone = world["mac1"].id
    order = world.sign("takeover", gone, mac2, takeover_args(gone))
    assert mac2.call("takeover", takeover_args(gone), statement=order)["ok"]
    world.pass_ms(40_000)
    assert schedule_pots.state(hub.core, each.schedule).held == Amount(0, 6 * M)


@proves("budget.schedule")
def test_a_budget_of_nothing_is_no_budget(world):
    answer = add(world["hub"], KEPT + "budget: {usd: '0.00'}\n", SPEC)
    assert "`budget.usd` is 0" in str(answer)


@proves("budget.schedule")
def test_what_happens_runs_nothing_on_a_day_that_is_used_up(world):
    file = KEPT.replace("{every: 10m, from: 1970-01-01T00:00Z}", "{on: {incident: 'disk-*'}}")
    assert add(world["hub"], file + "budget: {tokens: 7}\n", SPEC.replace("mac2", "mac1"))["ok"]
    world.pass_ms(500)
    core = world["hub"].core
    for key in ("disk-full", "disk-slow"):
        core.when_done(lambda said=key: core.incidents.open(said, "warning", said))
        world["hub"].step()
        world.pass_ms(2 * MINUTE)
        for each in begun(world, "mac1")[:2]:
            ends(world, each, **counted(M))
    assert len(told(world, "fire")) == 1
    (skip,) = told(world, "skip")
    assert skip["reason"] == "budget: 14 tokens of 7 tokens are used today (UTC)"


@proves("budget.payer")
def test_who_signed_a_schedule_pays_for_its_runs(world):
    keep(world, DAY)
    assert add(world["hub"], KEPT, SPEC)["ok"]
    runs_until(world, SLOT)
    (one,) = begun(world, "mac1")
    assert one.limits == Amount(0, 2 * M), why(world, one.assign.task)
    assert {each["pot"] for each in bodies(world, "reserve")} == {"person:alice"}
    ends(world, one, **counted(M))
    spent = world["hub"].call("spend", {"by": "person"})["value"]["spent"]
    assert [(each["what"], each["usd"]) for each in spent] == [("alice", "$1.00")]
    spent = world["hub"].call("spend", {"by": "schedule"})["value"]["spent"]
    assert [(each["what"], each["usd"]) for each in spent] == [("nightly", "$1.00")]
    (decided,) = world["hub"].call("schedule.show", {"name": "nightly"})["value"]["decided"]
    assert (decided["what"], decided["outcome"]) == ("fire", "open")
