"""What runs and people may use up: asked for before an attempt begins, settled when it has ended."""

import json
from typing import Any

import pytest
from tests.node.cores import attempt_ended
from tests.node.delegating import Fleet, asked, forge
from tests.promise import proves

from muster.log import canon
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.attempt_body import AttemptEvent
from muster.node.tasks.pots import ASKED_OF_ONE_MAX, Pots
from muster.node.tasks.purse import Purse
from muster.task import budget, budget_kinds, kinds, pot
from muster.task.budget import Amount, MoneyTerms
from muster.task.budget_fold import SETTLEMENT
from muster.task.causes import Unproven
from muster.task.instruction import StartAttempt, StopAttempt

M = budget.MILLION
ONE = """\
muster: 1
name: parent
%s
phases:
  lead: {agent: claude, needs: {machine: mac1}, do: x, check: 'true'%s}
"""
TWO = (
    ONE
    + """\
  also: {agent: claude, needs: {machine: mac2}, do: x, check: 'true'}
  last: {after: [lead, also], agent: claude, needs: {machine: mac1}, do: x, check: 'true'}
"""
)
DAY = MoneyTerms("hub", day=5 * M, attempt=2 * M)


def keep(world: Fleet, terms: MoneyTerms = DAY) -> None:
    for one in world.machines.values():
        one.core.settings = {**one.core.settings, "money": terms}


def order(world: Fleet, spec: str, key: str = "", **more: Any) -> str:
    args = {"base": "", "repo": "", "spec": f"{spec}# {key}", "values": {}, **more}
    answer = world["hub"].order("run", "parent", args)
    assert answer["ok"], answer
    world.pass_ms(1_500)
    return str(answer["value"]["run"])


def begun(world: Fleet, where: str) -> list[StartAttempt]:
    return [e for e in world[where].effects if isinstance(e, StartAttempt)]


def ends(world: Fleet, start: StartAttempt, status: Any = "done", **usage: int) -> None:
    where = next(n for n, m in world.machines.items() if m.id == start.assign.machine)
    place = (start.assign.task, start.assign.epoch, status)
    world[where].step(attempt_ended(*place, "it is fine", usage=usage))
    world.pass_ms(1_500)


def counted(cost: int) -> dict[str, int]:
    return {"metered": 1, "tokens": 7, "usd_millionths": cost}


def bodies(world: Fleet, kind: str, where: str = "hub") -> list[dict[str, Any]]:
    return [json.loads(e.body) for e in world[where].entries(f"budget.{kind}")]


def why(world: Fleet, task: str) -> str:
    return str(world["hub"].call("why", {"task": task})["value"])


@proves("budget.run")
def test_the_attempts_of_a_run_share_its_budget_and_where_nothing_is_left_a_task_fails():
    world = Fleet()
    run = order(world, TWO % ("budget: {usd: '3.00', tokens: 100}", ", budget: {usd: '2.00'}"))
    (lead,), (also,) = begun(world, "mac1"), begun(world, "mac2")
    assert lead.limits == Amount(50, 2 * M)
    # Whoever says nothing has an equal share of what is left.
    assert also.limits == Amount(50, M)
    ends(world, lead, **counted(1_900_000))
    ends(world, also, **counted(1_300_000))
    assert [each["usd_millionths"] for each in bodies(world, "settle")] == [1_900_000, 1_300_000]
    assert len(begun(world, "mac1")) == 1
    (last,) = bodies(world, "refuse")
    assert last["final"]
    assert (
        "the budget of this run is 100 tokens and $3.00: 14 tokens and $3.20 are used"
        in (last["reason"])
    )
    row = world["hub"].call("runs", {"run": run})["value"]
    assert row["state"] == "failed"
    assert "budget: " in str(row)
    # A machine of before skips these entries: nothing but the new tables reads them.
    for each in (budget_kinds.BudgetAsk, budget_kinds.BudgetReserve, budget_kinds.BudgetSettle):
        assert each.__struct_config__.forbid_unknown_fields


@proves("budget.older")
def test_a_run_with_a_budget_goes_to_nobody_who_cannot_read_it():
    world = Fleet()
    old = world["mac1"].facts(agents={"claude": ""}, muster="0.2.9")
    world["mac1"].step(FactsChanged(old))
    world.pass_ms(1_000)
    order(world, ONE % ("budget: {tokens: 9}", ""))
    assert begun(world, "mac1") == []
    order(world, ONE % ("", ", budget: {tokens: 9}"))
    assert [each.limits for each in begun(world, "mac1")] == [Amount(9)]


@proves("budget.reserved-first")
@proves("budget.waits")
def test_a_persons_money_is_reserved_first_and_who_gets_none_waits_and_says_so():
    world = Fleet()
    keep(world)
    order(world, ONE % ("", ", budget: {usd: '3.00'}"))
    order(world, (ONE % ("", "")).replace("mac1", "mac2"), key="b")
    (first,), (second,) = begun(world, "mac1"), begun(world, "mac2")
    assert (first.limits, second.limits) == (Amount(0, 3 * M), Amount(0, 2 * M))
    assert {each["pot"] for each in bodies(world, "reserve")} == {"person:alice"}
    ends(world, first, **counted(4 * M))
    run = order(world, ONE % ("", ""), key="c")
    assert len(begun(world, "mac1")) == 1
    (task,) = world["hub"].call("tasks", {"run": run})["value"]
    said = why(world, task["task"])
    assert "the money of alice is $5.00: $4.00 are used, $2.00 are held" in said
    # It is there again when others have given back.
    ends(world, second, **counted(0))
    world.pass_ms(40_000)
    assert begun(world, "mac1")[-1].limits == Amount(0, M)
    # A shell costs nothing, and asks nobody.
    asks = len(bodies(world, "ask"))
    world["hub"].submit(agent=["shell"], do="true")
    world.pass_ms(1_000)
    assert len(bodies(world, "ask")) == asks


@proves("budget.waits")
def test_who_cannot_reach_the_keeper_waits_and_what_runs_goes_on_until_the_money_of_a_day_is_new():
    world = Fleet()
    keep(world, MoneyTerms("mac2", day=M, attempt=M))
    world.frozen.add("mac2")
    run = order(world, ONE % ("", ""))
    world.pass_ms(20_000)
    assert begun(world, "mac1") == []
    (task,) = world["hub"].call("tasks", {"run": run})["value"]
    assert "mac2, which keeps the money, said nothing" in why(world, task["task"])
    world.frozen.clear()
    world.drain()
    world.pass_ms(60_000)
    (start,) = begun(world, "mac1")
    # What was reserved for the attempt that gave up was given back.
    assert ["usd_millionths" in each for each in bodies(world, "settle", "mac2")][:1] == [False]
    world.frozen.add("mac2")
    ends(world, start, **counted(M))
    assert world["hub"].task(task["task"]).state == "done"
    world.frozen.clear()
    world.drain()
    order(world, ONE % ("", ""), key="b")
    assert len(begun(world, "mac1")) == 1
    assert bodies(world, "refuse", "mac2")[-1]["reason"].endswith("with the next day (UTC)")
    world.ms += 24 * 3_600_000
    world.pass_ms(200_000)
    assert len(begun(world, "mac1")) == 2


@proves("budget.crash")
def test_a_keeper_that_restarts_forgets_nothing_and_a_dead_attempt_counts_with_what_is_known():
    world = Fleet()
    keep(world)
    order(world, ONE % ("", ", budget: {usd: '3.00'}"))
    (start,) = begun(world, "mac1")
    place = (start.assign.task, start.assign.epoch)
    world.restart("hub")
    world.link("hub", "mac1")
    keep(world)
    assert [p.reserved for _, p in world["hub"].core.part(Pots).parts("person:alice").values()] == [
        Amount(0, 3 * M)
    ]
    call = {"usd_millionths": 700_000, "usage": {"input": 5, "output": 6}}
    world["mac1"].step(AttemptEvent(*place, "agent.prompt", {}))
    world["mac1"].step(AttemptEvent(*place, "agent.call", call))
    world["mac1"].step(AttemptEvent(*place, "agent.call", call))
    world.restart("mac1")
    keep(world)
    world.link("hub", "mac1")
    world.pass_ms(5_000)
    settled = bodies(world, "settle")
    assert (settled[0]["usd_millionths"], settled[0]["estimated"]) == (1_400_000, True)


@proves("budget.crash")
def test_an_end_that_says_nothing_counts_with_all_and_one_of_somebody_else_with_nothing():
    world = Fleet()
    keep(world)
    order(world, ONE % ("", ", budget: {usd: '3.00'}"))
    (start,) = begun(world, "mac1")
    place, mac2 = (start.assign.task, start.assign.epoch), world["mac2"]
    for end in (
        kinds.AttemptFinish(*place, "done", usage=counted(0)),
        kinds.AttemptRefuse(*place, "busy"),
    ):
        forge(mac2, lambda end=end: mac2.core.append_body(end))
        world.pass_ms(1_000)
    assert bodies(world, "settle") == []
    ends(world, start)
    assert bodies(world, "settle") == [
        {
            "epoch": list(start.assign.epoch), "estimated": True, "pot": "person:alice",
            "task": start.assign.task, "usd_millionths": 3 * M,
        }
    ]  # fmt: skip


@proves("budget.reserved-first")
def test_what_is_cancelled_while_it_waits_for_its_money_never_begins_and_costs_nothing():
    world = Fleet()
    keep(world, MoneyTerms("mac2", day=M))
    world.frozen.add("mac2")
    run = order(world, ONE % ("", ""))
    answer = world["hub"].order("cancel", run, {"what": run, "reason": ""})
    assert answer["ok"], answer
    world.pass_ms(3_000)
    assert not any(isinstance(e, StartAttempt | StopAttempt) for e in world["mac1"].effects)
    world.frozen.clear()
    world.drain()
    world.pass_ms(3_000)
    assert [each.get("usd_millionths", 0) for each in bodies(world, "settle", "mac2")] == [0]


@proves("budget.payer")
def test_what_an_agent_hands_on_is_paid_by_the_person_it_works_for():
    world = Fleet()
    keep(world)
    token = world.begin("{}")
    asked(world["mac1"], token)
    world.pass_ms(2_000)
    assert len(begun(world, "mac2")) == 1
    assert [each["pot"] for each in bodies(world, "reserve")] == ["person:alice"] * 2
    world.grant("mac1")
    asked(world["mac1"], text=["another"])
    world.pass_ms(2_000)
    # Nothing is left of five dollars but one, and it says so.
    assert bodies(world, "refuse")[-1]["pot"] == "person:alice"


@proves("budget.reserved-first")
def test_nobody_but_the_keeper_lets_an_attempt_begin_and_no_forged_asking_spends():
    world = Fleet()
    keep(world, MoneyTerms("mac2", day=M))
    world.frozen.add("mac2")
    order(world, ONE % ("", ""))
    (ask,) = world["mac1"].entries("budget.ask")
    body = json.loads(ask.body)
    forged = {"task": body["task"], "epoch": body["epoch"], "pot": "person:alice",
              "worker": world["mac1"].id, "day": 20261128, "usd_millionths": 9 * M}  # fmt: skip
    hub = world["hub"]
    forge(hub, lambda: hub.core.write("budget.reserve", forged))
    world.pass_ms(1_000)
    assert begun(world, "mac1") == []
    # An asking without an assignment, or for another's, is answered by nobody.
    asks = {"task": body["task"], "epoch": body["epoch"]}
    forge(hub, lambda: hub.core.write("budget.ask", asks))
    world.frozen.clear()
    world.drain()
    world.pass_ms(1_000)
    assert {each["worker"] for each in bodies(world, "reserve", "mac2")} == {world["mac1"].id}


@proves("budget.waits")
def test_a_keeper_that_nobody_knows_keeps_work_waiting_and_is_named():
    world = Fleet()
    keep(world, MoneyTerms("nas"))
    run = order(world, ONE % ("", ""))
    (task,) = world["hub"].call("tasks", {"run": run})["value"]
    assert task["state"] == "queued"
    assert "`keeper` under [money] of config.toml" in why(world, task["task"])


@proves("budget.crash")
def test_who_takes_a_run_over_counts_what_its_owner_before_had_reserved():
    world, run = Fleet(), "a" * 32
    hub, mac1 = world["hub"], world["mac1"]
    place = {"task": "b" * 32, "epoch": [1, 1], "pot": f"run:{run}", "tokens": 7}
    reserved = {**place, "worker": hub.id, "day": 20261128}
    forge(mac1, lambda: mac1.core.write("budget.reserve", reserved))
    world.pass_ms(1_000)
    pots = [one.core.part(Pots) for one in world.machines.values()]
    assert [len(each.parts(f"run:{run}")) for each in pots] == [0, 1, 0]
    adopt = {"what": run, "of": mac1.id, "generation": 1}
    forge(hub, lambda: hub.core.write("task.adopt", adopt))
    world.pass_ms(1_000)
    assert [len(each.parts(f"run:{run}")) for each in pots] == [1, 1, 0]
    # Of people's money nobody takes anything over.
    assert pots[0].parts("person:alice") == {}


@proves("budget.settled")
def test_an_end_that_came_while_its_keeper_was_away_is_settled_when_it_is_back():
    world = Fleet()
    keep(world)
    order(world, ONE % ("", ", budget: {usd: '3.00'}"))
    (start,) = begun(world, "mac1")
    world.cut("hub")
    place = (start.assign.task, start.assign.epoch, "done")
    world["mac1"].step(attempt_ended(*place, "it is fine", usage=counted(M)))
    world.restart("hub")
    keep(world)
    # The end is here before anybody said how far our own log goes.
    world.link("hub", "mac1")
    assert world["hub"].entries("attempt.finish")
    world.pass_ms(30_000)
    assert [each["usd_millionths"] for each in bodies(world, "settle")] == [M]


@proves("budget.settled")
def test_what_ended_before_it_could_be_proven_is_settled_as_it_is_reserved(monkeypatch):
    world = Fleet()
    keep(world)
    with monkeypatch.context() as patch:
        patch.setattr(Pots, "_prove", lambda *_: missing())
        order(world, ONE % ("", ", budget: {usd: '3.00'}"))
        world.pass_ms(14_500)
        assert len(world["hub"].entries("attempt.refuse")) == 1
    world.pass_ms(1_000)
    first = bodies(world, "reserve")[0]
    assert [(e["task"], e["epoch"]) for e in bodies(world, "settle")][:1] == [
        (first["task"], first["epoch"])
    ]


def missing() -> None:
    raise Unproven("open-missing", "it is under way")


@proves("budget.settled")
@pytest.mark.parametrize("when", ["before", "between", "after", "twice"])
def test_who_takes_a_run_over_settles_what_its_owner_before_had_reserved(when):
    world, run = Fleet(), "a" * 32
    hub, mac1, mac2 = world["hub"], world["mac1"], world["mac2"]
    place = {"task": "b" * 32, "epoch": [1, 1]}
    reserved = {"pot": f"run:{run}", "tokens": 70, "worker": mac2.id, "day": 20261128, **place}
    end = kinds.AttemptFinish("b" * 32, (1, 1), "done", usage=counted(0))
    writes = {
        "end": lambda: forge(mac2, lambda: mac2.core.append_body(end)),
        "reserve": lambda: forge(mac1, lambda: mac1.core.write("budget.reserve", reserved)),
        "adopt": lambda: adopts(hub, mac1.id, run),
    }
    for step in {
        "before": ("end", "adopt", "reserve"),
        "between": ("reserve", "end", "adopt"),
        "after": ("reserve", "adopt", "end"),
        "twice": ("reserve", "adopt", "end"),
    }[when]:
        if when == "twice" and step == "adopt":
            # Its owner had taken it over from another one, as well.
            adopts(mac2, mac1.id, run)
            adopts(hub, mac2.id, run)
        else:
            writes[step]()
        world.pass_ms(1_000)
    parts = hub.core.part(Pots).parts(f"run:{run}")
    assert [part.settled for _, part in parts.values()] == [Amount(7)]
    # A run that is not ours is settled by others.
    asked_for = [e for e in hub.entries("budget.settle") if e.header.author == hub.id]
    assert len(asked_for) == 1


def adopts(one: Any, of: str, run: str) -> None:
    adopt = {"what": run, "of": of, "generation": 1}
    forge(one, lambda: one.core.write("task.adopt", adopt))


@proves("budget.bounded")
def test_a_worker_that_asks_for_more_than_its_phase_may_use_gets_what_was_signed(monkeypatch):
    """An assignment of ten cents is no key to the whole pot."""

    def asks(self: Purse, *args: Any) -> Any:
        _, limits, waits = genuine(self, *args)
        return Amount(9_000_000, 9 * M), limits, waits

    genuine = Purse._asks
    monkeypatch.setattr(Purse, "_asks", asks)
    world = Fleet()
    keep(world, MoneyTerms("hub", day=9 * M, attempt=2 * M))
    two = TWO % ("budget: {usd: '4.00', tokens: 100}", ", budget: {usd: '0.10'}")
    order(world, two)
    reserved = {
        (e["pot"].partition(":")[0], e["worker"]): (e.get("tokens", 0), e["usd_millionths"])
        for e in bodies(world, "reserve")
    }
    mac1, mac2 = world["mac1"].id, world["mac2"].id
    # Whose phase says nothing has its share of the run, and of a person what the keeper says.
    assert reserved == {
        ("run", mac1): (50, 100_000), ("person", mac1): (0, 100_000),
        ("run", mac2): (50, 3_900_000), ("person", mac2): (0, 2 * M),
    }  # fmt: skip


@proves("budget.bounded")
def test_an_end_that_says_it_used_far_more_than_it_had_drains_no_pot_and_is_an_incident():
    world = Fleet()
    keep(world, MoneyTerms("hub", day=900 * M, attempt=M))
    order(world, ONE % ("", ", budget: {usd: '20.00'}"))
    (start,) = begun(world, "mac1")
    ends(world, start, metered=1, tokens=7, usd_millionths=800 * M)
    assert bodies(world, "settle")[-1]["usd_millionths"] == 40 * M
    key = f"spent-{world['mac1'].id[:16]}"
    assert world["hub"].core.incidents.is_open(key)
    # Of a small sum one call may be many times that, and no limit bounds nothing.
    order(world, ONE % ("", ", budget: {usd: '0.01'}"), key="b")
    ends(world, begun(world, "mac1")[-1], metered=1, tokens=9 * M, usd_millionths=3 * M)
    last = bodies(world, "settle")[-1]
    assert (last["tokens"], last["usd_millionths"]) == (9 * M, 3 * M)
    assert not world["hub"].core.incidents.is_open(key)


@proves("budget.bounded")
def test_nobody_takes_the_place_of_anothers_asking_or_all_places_there_are(monkeypatch):
    world = Fleet()
    keep(world)
    with monkeypatch.context() as patch:
        patch.setattr(Pots, "_prove", lambda *_: missing())
        order(world, ONE % ("", ", budget: {usd: '3.00'}"))
        (ask,) = world["hub"].entries("budget.ask")
        body, mac2 = json.loads(ask.body), world["mac2"]
        place = {"task": body["task"], "epoch": body["epoch"]}
        nothing = world["hub"].entries("machine.open")[-1].id.hex()

        def forged() -> None:
            cause = (bytes.fromhex(nothing[:-8] + "00000000"),)
            for number in range(300):
                more = {"epoch": [1, 1_000 + number]} if number else {}
                mac2.core.append("budget.ask", canon.encode({**place, **more}), cause=cause)

        forge(mac2, forged)
        world.pass_ms(500)
        assert len(world["hub"].core.part(Pots)._waiting) == 1 + ASKED_OF_ONE_MAX
    world.pass_ms(1_500)
    assert [e["worker"] for e in bodies(world, "reserve")] == [world["mac1"].id]
    assert len(begun(world, "mac1")) == 1


@proves("budget.reserved-first")
def test_what_is_left_of_a_month_is_read_from_that_month_alone():
    world = Fleet()
    keep(world, MoneyTerms("hub", month=5 * M, attempt=M))
    hub = world["hub"]
    day = pot.day_of(hub.core.now.wall_ms)
    months = {day - 100: 1, day // 100 * 100 + 1: 2, day: 4}
    for number, (at, usd) in enumerate(months.items()):
        place = {"task": f"{number:032x}", "epoch": [1, 1], "pot": "person:alice"}
        sum_ = {**place, "usd_millionths": usd}
        forge(hub, lambda at=at, sum_=sum_: hub.core.write(
            "budget.reserve", {**sum_, "worker": hub.id, "day": at}
        ))  # fmt: skip
        forge(hub, lambda sum_=sum_: hub.core.write("budget.settle", sum_))
    pots = hub.core.part(Pots)
    assert {at for at, _ in pots.parts("person:alice").values()} == set(months)
    this = pots.parts("person:alice", pot.month_of(day)).values()
    assert sorted((at, part.settled.usd_millionths) for at, part in this) == sorted(
        (at, usd) for at, usd in months.items() if at != day - 100
    )
    settled = {row.task: row.day for row in hub.core.tables.rows(SETTLEMENT)}
    assert list(settled.values()) == list(months)
    # By its index, and once for each asking.
    reads = []
    rows = type(hub.core.tables).rows

    def counts(self: Any, table: Any, **more: Any) -> Any:
        if more.get("pot") == "person:alice" and "task" not in more:
            reads.append((table.name, more["above"]))
        return rows(self, table, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(hub.core.tables), "rows", counts)
        order(world, ONE % ("", ""))
    since = {"day": pot.month_of(day) - 1}
    assert reads == [("settlement", since), ("reservation", since)]


@proves("budget.reserved-first")
def test_a_member_that_repeats_anothers_order_as_its_own_gets_nothing_of_the_persons_money():
    world = Fleet()
    keep(world, MoneyTerms("hub", day=9 * M, attempt=M))
    order(world, ONE % ("", ""))
    before, mac1 = len(bodies(world, "reserve")), world["mac1"]

    def forged() -> None:
        core, last, body = mac1.core, (), {}
        for kind in ("run.open", "task.open", "task.assign"):
            (genuine,) = (e for e in mac1.entries(kind) if e.header.author == world["hub"].id)
            body = json.loads(genuine.body or b"{}")
            body |= {"epoch": [1, 99]} if kind == "task.assign" else {}
            last = (core.append(kind, canon.encode(body), cause=last).id,)
        asks = {"task": body["task"], "epoch": body["epoch"], "usd_millionths": 2 * M}
        core.append("budget.ask", canon.encode(asks), cause=last)

    forge(mac1, forged)
    world.pass_ms(3_000)
    assert len(bodies(world, "ask")) == 2
    assert len(bodies(world, "reserve")) == before


@proves("budget.cross-check")
@pytest.mark.parametrize(("said", "severity"), [(8, ""), (20, "warning"), (3, "notice")])
def test_an_agent_that_says_otherwise_than_its_gateway_is_an_incident(said, severity):
    world = Fleet()
    order(world, ONE % ("", ""))
    (start,) = begun(world, "mac1")
    ends(world, start, metered=1, tokens=8, usd_millionths=5, reported_tokens=said)
    found = [e for e in world["mac1"].entries("incident.open") if b"usage-claude" in e.body]
    assert [json.loads(e.body)["severity"] for e in found] == [severity] * bool(severity)
    incidents = world["mac1"].core.incidents
    # It is over when a later one agrees, and not where nothing is said.
    for number, later in enumerate((0, 8)):
        assert incidents.is_open("usage-claude") == bool(severity)
        order(world, ONE % ("", ""), key=f"{number}")
        ends(world, begun(world, "mac1")[-1], metered=1, tokens=8, reported_tokens=later)
    assert not incidents.is_open("usage-claude")
    assert len(world["mac1"].entries("incident.close")) == bool(severity)


@proves("budget.time")
def test_the_time_of_a_run_is_over_for_all_of_its_tasks_also_after_a_restart():
    world = Fleet()
    run = order(world, ONE % ("budget: {time: 1m}", ""))
    assert len(begun(world, "mac1")) == 1
    world.restart("hub")
    world.link("hub", "mac1")
    world.pass_ms(62_000)
    row = world["hub"].call("runs", {"run": run})["value"]
    assert (row["state"], "the deadline passed" in str(row)) == ("failed", True)


@proves("budget.spend")
def test_it_is_told_who_spent_what_on_what_and_what_of_it_is_an_estimate():
    world = Fleet()
    token = world.begin("{}")
    asked(world["mac1"], token)
    world.pass_ms(2_000)
    (lead,), (helper,) = begun(world, "mac1"), begun(world, "mac2")
    ends(world, helper, input_tokens=3, output_tokens=4, usd_millionths=20_000)
    ends(world, lead, **counted(1_500_000))
    # What was never given to it counts for nothing.
    mac2 = world["mac2"]
    lie = kinds.AttemptFinish("f" * 32, (1, 1), "done", usage=counted(9 * M))
    forge(mac2, lambda: mac2.core.append_body(lie))
    world.pass_ms(1_000)

    def told(by: str, **more: str) -> list[tuple[Any, ...]]:
        value = world["hub"].call("spend", {"by": by, **more})["value"]
        return [
            (e["what"], e["usd"], e["tokens"], e["attempts"], e["estimated"])
            for e in value["spent"]
        ]

    both = ("$1.52", 14, 2, "7 tokens and $0.02")
    assert told("person") == [("alice", *both)]
    assert told("agent") == [("claude", *both)]
    assert told("day") == [("2026-09-21", *both)]
    one, other = ("$1.50", 7, 1, ""), ("$0.02", 7, 1, "7 tokens and $0.02")
    assert told("machine") == [("mac1", *one), ("mac2", *other)]
    (parent, *rest), _ = told("run")
    assert (parent.split()[0], *rest) == ("parent", *one)
    assert told("person", since="1s") == []
    assert not world["hub"].call("spend", {"since": "soon"})["ok"]


@proves("budget.retry")
def test_what_ended_at_its_budget_goes_on_with_more_from_what_it_had_made():
    world = Fleet()
    spec = TWO % ("budget: {usd: '1.00'}", ", budget: {usd: '0.50'}")
    run = order(world, spec)
    (lead,), (also,) = begun(world, "mac1"), begun(world, "mac2")
    place = (also.assign.task, also.assign.epoch, "failed", "x", "budget: it is spent", "c" * 40)
    world["mac2"].step(attempt_ended(*place, usage=counted(500_000)))
    ends(world, lead, **counted(400_000))
    assert world["hub"].call("runs", {"run": run})["value"]["state"] == "failed"
    for asked_for, sentence in (
        ({"budget": "usd=5"}, "give --failed or --from with it"),
        ({"failed": True, "budget": "5"}, "'5' is no budget; write usd=5.00"),
        ({"failed": True, "budget": "usd=0.00"}, "is no budget"),
    ):
        answer = world["hub"].call("rerun", {"run": run, **asked_for})
        assert sentence in answer["error"]["text"]
    asked_for = {"run": run, "failed": True, "budget": "usd=5.00, tokens=90"}
    again = world["hub"].call("rerun", asked_for)["value"]
    assert (again["budget"], again["after"], again["phases"]) == (
        {"tokens": 90, "usd_millionths": 5 * M}, run, ["also", "last"],
    )  # fmt: skip
    names = ("base", "repo", "spec", "values", "kept", "budget", "after")
    args = {name: again[name] for name in names}
    # What was signed is what counts: another budget than that is another order.
    signed = world.sign("run", "parent", world["hub"], {**args, "budget": {"tokens": 9}})
    assert not world["hub"].call("run", args, statement=signed)["ok"]
    answer = world["hub"].order("run", "parent", args)
    assert answer["ok"], answer
    world.pass_ms(1_500)
    second = begun(world, "mac2")[-1]
    assert (second.limits, second.open.base) == (Amount(90, 5 * M), "c" * 40)
    # A run that goes on still is not gone on with.
    answer = world["hub"].order("run", "parent", {**args, "after": answer["value"]["run"]})
    assert "goes on still" in answer["error"]["text"]
    ends(world, second, **counted(3 * M))
    last = begun(world, "mac1")[-1]
    assert (last.open.phase, last.limits) == ("last", Amount(83, 2 * M))
