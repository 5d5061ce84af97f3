"""What a machine knows of agents: counted from its log, whoever writes what into theirs."""

import asyncio

import pytest
from tests.node.cores import Cores, attempt_ended
from tests.node.test_runs import SLOW, hand_in, wanted
from tests.promise import proves

from muster.node.tasks import trust as rows_of_trust
from muster.node.tasks.trust import Trust
from muster.task import kinds
from muster.task.evidence import task_args
from muster.task.instruction import StartAttempt
from muster.task.trust import NOTHING_KNOWN, TrustFold

CHECK = {"check": "true"}
FAILS = {"check": "true", "do": '{"fail":true}'}


def fleet() -> Cores:
    world = Cores("hub", "studio")
    world.link("hub", "studio")
    world.pass_ms(1_000)
    return world


def noop(world: Cores, name: str, on: str = "hub"):
    """What this machine knows itself of the agent `noop` there."""
    return world[on].core.part(Trust).of(world[name].id, "noop")


@proves("task.trust-once", "task.trust-checked-only")
def test_results_are_counted_as_they_come_and_after_a_start_the_same():
    world = fleet()
    hub, needs = world["hub"], {"needs": {"machine": "studio"}}
    assert noop(world, "studio") == NOTHING_KNOWN
    for more in (CHECK, CHECK, {}, FAILS, CHECK, CHECK, CHECK, {}):
        hub.submit(**needs, **more)
        world.pass_ms(300)
    known = noop(world, "studio")
    # Whoever looks in the step that brings a result has counted it when its turn comes.
    last = hub.entries("task.settle")[-2]
    assert last.body is not None
    hub.core.part(Trust)._forget()
    assert noop(world, "studio") == known
    hub.core.part(Trust)._on_result(last.stream, last)
    assert noop(world, "studio") == known
    assert str(known) == "5 of 6 checked results passed, 3 in a row"
    world.restart("hub")
    assert noop(world, "studio") == known
    hub.core.store.rebuild()
    hub.core.part(Trust)._forget()
    assert noop(world, "studio") == known
    world.link("hub", "studio")
    world.pass_ms(1_000)
    hub.submit(**needs, **FAILS)
    world.pass_ms(500)
    assert noop(world, "studio")[:3] == (5, 2, 0)
    reasons = [
        c[3]
        for e in hub.entries("task.assign")
        for c in kinds.read(kinds.TaskAssign, e.body).candidates
    ]
    assert "chosen: 5 of 6 checked results passed, 3 in a row" in reasons


@proves("task.waiver-rule")
def test_what_a_run_passed_itself_is_left_out_and_what_failed_in_it_is_not():
    world = fleet()
    tasks = [
        world["hub"].submit(needs={"machine": "studio"}, **more)
        for more in (CHECK, CHECK, FAILS, CHECK)
    ]
    world.pass_ms(1_500)
    trust, who = world["hub"].core.part(Trust), (world["studio"].id, "noop")
    assert trust.without((), [who])[who] == noop(world, "studio")
    assert trust.without(tasks[:1], [who])[who][:3] == (2, 1, 1)
    assert trust.without(tasks, [who])[who][:3] == (0, 1, 0)


@proves("task.waiver-rule")
def test_a_rule_looks_at_so_many_of_the_newest_results_and_no_more(monkeypatch):
    world = fleet()
    for more in (CHECK, CHECK, CHECK, FAILS, CHECK, CHECK):
        world["hub"].submit(needs={"machine": "studio"}, **more)
        world.pass_ms(300)
    trust, who = world["hub"].core.part(Trust), (world["studio"].id, "noop")
    monkeypatch.setattr(rows_of_trust, "TRUST_RULE_MAX", 3)
    assert trust.without((), [who])[who][:3] == (2, 1, 2)
    assert noop(world, "studio")[:3] == (5, 1, 2)


@proves("task.trust-seldom")
def test_an_agent_that_did_little_is_known_beside_one_that_did_much(monkeypatch):
    world = fleet()
    for name in ("studio", "hub", "hub", "hub", "hub"):
        world["hub"].submit(needs={"machine": name}, **CHECK)
        world.pass_ms(500)
    monkeypatch.setattr(rows_of_trust, "TRUST_RULE_MAX", 3)
    monkeypatch.setattr(rows_of_trust, "TRUST_SHOWN_MAX", 3)
    trust = world["hub"].core.part(Trust)
    trust._forget()
    little, much = (world["studio"].id, "noop"), (world["hub"].id, "noop")
    assert (trust.of(*little).passed, trust.of(*much).passed) == (1, 3)
    assert {who: known.passed for who, known in trust.without((), [little, much]).items()} == {
        little: 1,
        much: 3,
    }
    shown = asyncio.run(trust.everywhere([little, much]))
    assert (shown[little].passed, shown[much].passed) == (1, 3)
    # As it goes on it is what it would be after a start.
    world["hub"].submit(needs={"machine": "hub"}, **CHECK)
    world.pass_ms(500)
    known = trust.of(*much)
    trust._forget()
    assert trust.of(*much) == known


class Listed(list[str]):
    def __contains__(self, _task: object) -> bool:
        raise AssertionError("looked through for each result")


@proves("task.trust-seldom")
def test_the_tasks_of_a_large_run_are_not_looked_through_for_each_result():
    world = fleet()
    task = world["hub"].submit(needs={"machine": "studio"}, **CHECK)
    world.pass_ms(1_500)
    who = (world["studio"].id, "noop")
    assert world["hub"].core.part(Trust).without(Listed([task]), [who]) == {}


@proves("task.trust-shown")
def test_whoever_lists_what_all_owners_say_lets_others_have_their_turn(monkeypatch):
    world = fleet()
    for _ in range(6):
        world["hub"].submit(needs={"machine": "studio"}, **CHECK)
    world.pass_ms(2_000)
    monkeypatch.setattr(rows_of_trust, "_ROWS", 1)

    async def beside() -> tuple[int, int]:
        listing, turns = asyncio.ensure_future(world["hub"].core.part(Trust).everywhere()), 0
        while not listing.done():
            turns += 1
            await asyncio.sleep(0)
        return turns, (await listing)[world["studio"].id, "noop"].passed

    turns, passed = asyncio.run(beside())
    assert (turns >= 6, passed) == (True, 6)


@proves("task.trust-once")
def test_many_results_of_one_step_each_count_once():
    world = fleet()
    hub = world["hub"]
    assert noop(world, "hub") == NOTHING_KNOWN
    for _ in range(40):
        hub.submit(needs={"machine": "hub"}, **CHECK)
    world.pass_ms(2_000)
    assert noop(world, "hub")[:3] == (40, 0, 40)


@proves("task.trust-once")
def test_the_attempts_of_one_task_are_results_of_their_own_and_none_counts_twice():
    world = fleet()
    hub, task = world["hub"], "ab" * 16
    assert noop(world, "studio") == NOTHING_KNOWN
    shape = {"v": 1, "agent": ["noop"], "needs": {"machine": "studio"}, **FAILS}
    args = task_args(kinds.TaskOpen(task=task, template=shape))
    statement = world.sign("task", task, hub, args)
    item = {"task": task, "template": shape, "statement": statement, "retries": 2}
    assert hub.call("submit", {"tasks": [item]})["ok"]
    world.pass_ms(120_000)
    row = hub.task(task)
    assert (row.state, row.epoch_count) == ("failed", 3)
    assert noop(world, "studio")[:3] == (0, 3, 0)


def forge(world: Cores, name: str, about: str, count: int = 3) -> None:
    """A member writes openings, assignments and settlements that nobody ordered."""
    core = world[name].core
    for number in range(count):
        task, epoch = f"{about}{number}", (1, 1)
        with core.store.transaction():
            core.now = world.now()
            opened = core.append_body(kinds.TaskOpen(task, {"agent": "noop", "do": "{}", **CHECK}))
            gave = kinds.TaskAssign(task, epoch, world[name].id, "noop", 1000)
            given = core.append_body(gave, cause=(opened.id,))
            core.append_body(kinds.TaskSettle(task, "done", epoch, "said"), cause=(given.id,))
            core._settle_down()
            core._sign()
        world.carry_out(world[name], core._released())
    world.drain()
    world.pass_ms(3_000)


@proves("task.trust-forged")
def test_what_a_member_settles_without_an_order_counts_for_nobody_else():
    world = fleet()
    hub = world["hub"]
    forge(world, "studio", "forged")
    assert len(hub.entries("task.settle")) == 3, "the hub has read it"
    assert noop(world, "studio") == NOTHING_KNOWN
    assert asyncio.run(hub.core.part(Trust).everywhere()) == {}


@proves("task.trust-forged")
def test_what_another_owner_settled_under_an_order_is_shown_and_decides_nothing():
    world = fleet()
    world["studio"].submit(needs={"machine": "studio"}, **CHECK)
    world.pass_ms(2_000)
    studio = (world["studio"].id, "noop")
    for name in ("hub", "studio"):
        shown = asyncio.run(world[name].core.part(Trust).everywhere())
        assert shown[studio][:3] == (1, 0, 1)
    assert noop(world, "studio", on="studio")[:3] == (1, 0, 1)
    assert noop(world, "studio", on="hub") == NOTHING_KNOWN


@proves("task.trust-checked-only")
@pytest.mark.parametrize("kind", ["task.open", "task.assign", "task.retry", "task.settle"])
def test_the_fold_wants_the_owners_entries_alone(kind):
    assert kind in TrustFold.kinds
    assert not any(each.startswith("attempt.") for each in TrustFold.kinds)


@proves("task.trust-checked-only")
@pytest.mark.parametrize("said", ["I could not", ""])
def test_an_agent_that_fails_without_a_word_has_failed(said):
    hub = Cores("hub")["hub"]
    hand_in(hub, SLOW)
    (start,) = wanted(hub, StartAttempt)
    place = (start.assign.task, start.assign.epoch)
    hub.step(attempt_ended(*place, "failed", summary=said, reason="the check failed"))
    assert hub.task(start.assign.task).state == "failed"
    assert hub.core.part(Trust).of(hub.id, "shell")[:3] == (0, 1, 0)
