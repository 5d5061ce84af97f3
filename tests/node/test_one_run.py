"""One order is one run, whatever the machine that owns it calls it, and how often it begins it."""

import json
from functools import partial
from typing import Any

import msgspec
import pytest
from tests.node.delegating import Fleet, Forger, begun, forge, whole
from tests.node.test_delegation_dates import backdates
from tests.promise import proves

from muster.log.stream import Incarnation
from muster.node.incarnations.own_incarnation import OwnIncarnation
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import RunService
from muster.task import kinds
from muster.task.evidence import run_args
from muster.task.fold import RUN
from muster.task.identity import run_id

SPEC = str(whole(needs="{machine: mac2}")["spec"])


class Ordered:
    """A person's run of mac1, whose work is mac2's; mac1 is hostile from then on."""

    def __init__(self) -> None:
        self.world = world = Fleet()
        world.link("mac1", "mac2")
        world.pass_ms(8_000)
        self.owner = Forger(world, "mac1").one
        bare = kinds.RunOpen("-", "whole", SPEC, "")
        raw = world.sign("run", "whole", self.owner, run_args(bare), life_ms=3_600_000)
        self.statement = raw.encode().hex()
        self.run = run_id(self.owner.id, self.statement)

    def begins(self, run: str, statement: str = "") -> None:
        body = kinds.RunOpen(run, "whole", SPEC, statement or self.statement)
        service = self.owner.core.part(RunService)
        forge(self.owner, partial(service.open, body, (), "op:alice"))
        self.world.pass_ms(5_000)

    def anew(self, number: int) -> None:
        """The owner begins another stream."""
        core = self.owner.core
        forge(self.owner, lambda: core.membership.renewed(Incarnation(f"{number:032x}")))
        forge(self.owner, core.part(OwnIncarnation)._open_incarnation)

    def refused(self) -> list[str]:
        entries = self.world["mac2"].entries("attempt.refuse")
        return [json.loads(each.body)["reason"] for each in entries]

    def listed(self, where: str) -> list[str]:
        value = self.world[where].call("runs", {})["value"]
        return [each["run"] for each in value]


@proves("task.one-order-one-run")
@pytest.mark.parametrize("first", ["own", "other"])
def test_an_order_begins_one_run_by_whatever_ids_its_owner_opens_it(first: str) -> None:
    it = Ordered()
    # Older machines called their runs at random: the first one counts, whatever it is called.
    runs = [it.run, "a" * 32] if first == "own" else ["a" * 32, it.run]
    for run in (*runs, "b" * 32, "0" * 32):
        it.begins(run)
    assert begun(it.world) == runs[:1]
    assert set(it.refused()) == {"run-begun-before"}
    for where in ("hub", "mac2"):
        assert it.listed(where) == runs[:1]


@proves("task.one-order-one-run")
@pytest.mark.parametrize("spelled", [str.upper, lambda text: text[:2] + " " + text[2:]])
def test_an_order_that_is_spelled_otherwise_is_no_other_order(spelled: Any) -> None:
    it = Ordered()
    it.begins(it.run)
    other = spelled(it.statement)
    it.begins(run_id(it.owner.id, other), other)
    assert begun(it.world) == [it.run]
    alone = Ordered()
    alone.begins(run_id(alone.owner.id, other), spelled(alone.statement))
    assert begun(alone.world) == []


@proves("task.one-order-one-run")
@pytest.mark.parametrize("back_ms", [0, 3_600_000])
def test_in_another_stream_of_its_owner_an_order_begins_no_other_run(back_ms: int) -> None:
    it = Ordered()
    it.begins(it.run)
    for number in (1, 2):
        backdates(it.owner, -back_ms, every=True)
        it.anew(number)
        it.begins(f"{number:032x}")
    assert begun(it.world) == [it.run]
    assert it.listed("hub") == it.listed("mac2") == [it.run]


@proves("task.one-order-one-run")
def test_whoever_hears_of_two_runs_of_one_order_in_any_order_counts_the_same_one() -> None:
    it = Ordered()
    it.begins("b" * 32)
    assert it.listed("mac2") == ["b" * 32]
    it.anew(1)
    # Its own id is that of the order, which no other run can have.
    it.begins(it.run)
    assert it.listed("hub") == it.listed("mac2") == [it.run]
    it.anew(2)
    it.begins("0" * 32)
    assert it.listed("hub") == it.listed("mac2") == [it.run]
    for where in ("hub", "mac2"):
        owned = it.world[where].core.part(Ownership)
        assert [owned.owner(RUN, run) for run in (it.run, "b" * 32, "0" * 32)] == [
            it.owner.id, None, None
        ]  # fmt: skip


@proves("task.one-order-one-run")
def test_an_order_for_every_machine_begins_no_run_on_any() -> None:
    it = Ordered()
    args = {"base": "", "repo": "", "spec": SPEC, "values": {}}
    world = it.world
    raw = world.sign("run", "whole", it.owner, args, to="fleet")
    it.begins(run_id(it.owner.id, raw.encode().hex()), raw.encode().hex())
    assert begun(world) == []
    answer = world["hub"].call("run", args, statement=raw)
    assert "every one" in answer["error"]["text"]
    assert it.listed("hub") == []


@proves("task.one-order-one-run", "task.why")
def test_what_an_owner_began_beside_a_run_is_told_where_either_is_asked_about() -> None:
    it = Ordered()
    it.begins(it.run)
    it.begins("a" * 32)
    hub = it.world["hub"]
    (task,) = hub.call("tasks", {"run": it.run})["value"]
    for verb in ("why", "explain"):
        (again,) = hub.call(verb, {"task": task["task"]})["value"]["again"]
        assert again["run"] == "a" * 32
    assert hub.call("runs", {"run": it.run})["value"]["again"][0]["run"] == "a" * 32
    for verb, args in (("why", {"task": "aaaa"}), ("runs", {"run": "a" * 32})):
        error = hub.call(verb, args)["error"]
        assert (error["kind"], error["exit"]) == ("NotFound", 5)
        assert "one order is one run" in error["text"]
        assert it.run[:12] in error["text"]


@proves("task.one-order-one-run")
def test_a_place_of_a_run_has_one_task_by_whatever_ids_its_owner_opens_it() -> None:
    it = Ordered()
    it.begins(it.run)
    assert begun(it.world) == [it.run]
    core = it.owner.core
    opened, given = (it.owner.entries(kind)[-1] for kind in ("task.open", "task.assign"))
    body = msgspec.structs.replace(kinds.read(kinds.TaskOpen, opened.body), task="c" * 32)
    assign = kinds.read(kinds.TaskAssign, given.body)
    assign = msgspec.structs.replace(assign, task="c" * 32)

    def forged() -> None:
        again = core.append_body(body, cause=opened.causes)
        core.append_body(assign, cause=(again.id,))

    forge(it.owner, forged)
    it.world.pass_ms(5_000)
    assert begun(it.world) == [it.run]
    assert it.refused() == ["task-other-id"]
    assert [each["task"] for each in it.world["hub"].call("tasks", {})["value"]] != ["c" * 32]


def test_an_order_that_is_none_makes_nobody_judge_again_what_others_began() -> None:
    it = Ordered()
    it.begins(it.run)
    assert it.listed("hub") == [it.run]
    judged = dict(it.world["hub"].core.part(Ownership)._rank)
    it.begins("1" * 32, "aa")
    it.anew(7)
    it.begins("2" * 32, "aa")
    assert judged
    assert it.world["hub"].core.part(Ownership)._rank.items() >= judged.items()
    assert it.listed("hub") == [it.run]
