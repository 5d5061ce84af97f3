"""Permissions that agents wait for, on the machine where they wait: one action, one word, one use."""

import hashlib
import json
from typing import Any

import pytest
from tests.node.cores import WALL_MS, Cores
from tests.promise import proves

from muster.fleet.grant import Grant, sign_give
from muster.fleet.machine import Operator
from muster.limits import APPROVAL_MS, APPROVALS_OPEN_MAX
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.replica.forks import Regressed
from muster.node.tasks.approvals import AnswerAttempt, Approvals
from muster.node.tasks.attempt_body import AttemptEvent
from muster.task.approval import args_of
from muster.task.approval_fold import APPROVAL

TASK, EPOCH = "ab" * 16, (1, 1)
BOB = Operator(b"bob".ljust(32))


class World(Cores):
    """A hub where people are, and studio, where an agent asks."""

    def __init__(self) -> None:
        super().__init__("hub", "studio")
        self.link("hub", "studio")
        self.pass_ms(4_000)
        self.at = self["studio"]

    def happened(self, kind: str, ask: str, action: str = "rm a", **fields: Any) -> list[str]:
        """An event of the agent's driver; the words that it is told."""
        number = hashlib.sha256(action.encode()).hexdigest()
        said = {"ask": ask, "action": number, "class": "command", **fields}
        before = len(self.at.effects)
        self.at.step(AttemptEvent(TASK, EPOCH, kind, said, "planner@studio"))
        self.pass_ms(500)
        return self.words(before)

    def words(self, before: int = 0) -> list[str]:
        found = self.at.effects[before:]
        return [each.word for each in found if isinstance(each, AnswerAttempt)]

    def asks(self, ask: str = "1", action: str = "rm a", **fields: Any) -> Any:
        """The question, as its machine lists it."""
        self.happened("agent.ask", ask, action, **fields)
        return self.listed()[-1]

    def listed(self) -> list[Any]:
        return self.at.call("questions", {})["value"]

    def says(self, row: Any, answer: str = "allow", hash: str = "", signer: Any = None) -> str:
        """A person's order; "ok", or what they are told instead."""
        args = args_of(row["question"], hash or row["hash"], answer)
        order = self.sign("approve", row["question"], self.at, args, signer=signer)
        return self.shows(args, order)

    def shows(self, args: Any, order: str) -> str:
        said = self.at.call("approve", args, statement=order)
        self.pass_ms(500)
        return "ok" if said["ok"] else said["error"]["text"]

    def state(self, row: Any, on: str = "hub") -> str:
        """How it stands, as another machine reads it."""
        (found,) = self[on].core.tables.rows(APPROVAL, id=row["question"])
        return found.state

    def waits(self) -> list[str]:
        rows = self["hub"].call("incidents", {})["value"]
        return [r["title"] for r in rows if r["open"] and r["key"].startswith("question-")]


@pytest.fixture
def world() -> World:
    return World()


@proves("approval.one-action", "approval.chain", "agent.first-answer")
def test_a_yes_of_a_person_elsewhere_is_used_once_for_what_was_asked(world):
    row = world.asks(title="rm a", input="rm -rf a")
    about = world.at.call("approval.about", {"task": TASK})["value"]
    assert (about["hash"], about["input"], about["title"]) == (row["hash"], "rm -rf a", "rm a")
    assert (row["sort"], row["until_ms"] - row["asked_ms"]) == ("command", APPROVAL_MS)
    (entry,) = world["hub"].entries("approval.ask")
    assert "rm" not in entry.body.decode()
    assert len(world.waits()) == 1
    args = args_of(row["question"], row["hash"], "allow")
    order = world.sign("approve", row["question"], world.at, args)
    assert world.shows(args, order) == "ok"
    assert (world.words(), world.state(row), world.listed()) == (["allow"], "allowed", [])
    assert "was taken already" in world.shows(args, order), "the order shown again"
    assert "op:alice has answered that already" in world.says(row, "deny"), "the second person"
    assert world.happened("agent.use", "1") == ["use"]
    assert world.state(row) == "used"
    assert world.happened("agent.use", "1") == ["deny"], "a yes is used up"
    world.happened("agent.decision", "1", by="op:alice")
    assert world.waits() == []
    assert "is used" in world.says(row)
    told = [e.header.kind for e in world["hub"].entries("approval.use")]
    assert told == ["approval.use"]
    (answered,) = world["hub"].entries("approval.answer")
    (cited,) = answered.causes
    assert cited in [e.id for e in world["hub"].entries("order.take")]


@proves("approval.one-action")
def test_what_has_changed_since_it_was_asked_is_asked_about_anew(world):
    row = world.asks()
    assert world.says(row) == "ok"
    assert world.happened("agent.use", "1", "rm b") == ["again"]
    assert world.state(row) == "withdrawn"
    assert world.at.core.counters["approvals-changed"] == 1
    world.happened("agent.decision", "1", "rm b", by="it changed since it was asked")
    fresh = world.asks("2", "rm b")
    assert fresh["question"] != row["question"]
    assert "another action" in world.says(fresh, hash=row["hash"]), "the old yes is no new one"
    assert world.says(fresh) == "ok"
    assert world.happened("agent.use", "2", "rm b") == ["use"]


@proves("approval.first-word", "approval.by-class")
def test_who_was_granted_a_class_answers_that_class_and_no_other(world):
    key = BOB.statement
    row = world.asks()
    assert "may not order approve" in world.says(row, signer=key)
    assert world.state(row) == "open"
    grant = Grant("class:command", key.public.hex(), WALL_MS + 86_400_000, "approve")
    raw = sign_give(
        world.operator.statement, world.fleet, grant, nonce=bytes(16), issued_ms=WALL_MS
    )
    shown = {"object": grant.object, "to": grant.to, "until_ms": grant.until_ms, "verb": "approve"}
    options = {"grant": shown, "statement": raw.decode()}
    given = world["hub"].order("grant", "approve", {"to": grant.to, "verb": "approve"},
                               options=options)  # fmt: skip
    assert given["ok"], given
    world.pass_ms(1_000)
    other = world.asks("2", "curl x", **{"class": "network-host"})
    assert "may not order approve" in world.says(other, signer=key)
    assert "may not order approve" in world.says({**row, "question": "0" * 32}, signer=key)
    assert world.says(row, signer=key) == "ok"
    assert (world.state(row), world.state(other)) == ("allowed", "open")


@proves("approval.time", "agent.question-ends")
def test_it_ends_with_its_time_its_attempt_and_its_daemon(world):
    late = world.asks(within_ms=3_000)
    rest = world.asks("2", "rm b")
    before = len(world.at.effects)
    world.pass_ms(4_000)
    assert (world.state(late), world.words(before)) == ("expired", ["deny"])
    assert "nobody can answer that" in world.says(late)
    over = world.asks("3", "rm c")
    with world.at.core.store.transaction():
        world.at.core.part(Approvals).over(TASK)
    world.at.step(ev.Tick())
    world.pass_ms(1_000)
    assert [world.state(each) for each in (rest, over)] == ["withdrawn"] * 2
    killed = world.asks("4", "rm d")
    assert world.says(killed) == "ok"
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    assert (world.state(killed), world.waits()) == ("withdrawn", []), "a yes to nobody"
    assert "no agent waits for approval" in world.says(killed)
    assert world.happened("agent.use", "4", "rm d") == []


@proves("approval.chain", "approval.time")
def test_in_a_new_incarnation_what_waits_is_asked_anew(world):
    open_, allowed = world.asks(), world.asks("2", "rm b")
    assert world.says(allowed) == "ok"
    before = len(world.at.effects)
    with world.at.core.store.transaction():
        own = world.at.core.membership.own(FLEET)
        world.at.core.tell(Regressed(own, "for this test"))
    world.at.step(ev.Tick())
    world.pass_ms(2_000)
    assert (world.words(before), world.listed(), world.waits()) == (["again"] * 2, [], [])
    assert "is withdrawn" in world.says(open_)
    assert world.happened("agent.use", "2", "rm b") == []
    fresh = world.asks("3", "rm b, with another nonce")
    assert world.says(fresh) == "ok"
    assert world.happened("agent.use", "3", "rm b, with another nonce") == ["use"]
    assert world.state(fresh) == "used"


@proves("approval.time")
def test_an_attempt_that_asks_too_much_at_once_is_told_no(world):
    for number in range(APPROVALS_OPEN_MAX):
        assert world.happened("agent.ask", str(number), str(number)) == []
    assert world.happened("agent.ask", "more", "more") == ["deny"]
    assert len(world.listed()) == APPROVALS_OPEN_MAX
    assert world.at.core.counters["approvals-too-many"] == 1


@proves("node.versions-mix", "approval.chain")
def test_a_machine_of_before_skips_what_it_does_not_know_and_reads_it_once_it_does(monkeypatch):
    with monkeypatch.context() as before:
        before.setattr(Approvals, "folds", staticmethod(lambda fleet: ()))
        world = World()
    world.restart("studio")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    row = world.asks()
    assert world.says(row) == "ok"
    hub = world["hub"]
    assert len(hub.entries("approval.answer")) == 1
    assert hub.core.tables.skipped() == []
    world.restart("hub")
    assert world.state(row) == "allowed"


@proves("agent.answered-by-a-person")
def test_where_an_approval_waits_is_found_by_its_id_its_task_or_by_being_the_oldest(
    world, monkeypatch
):
    first, second = world.asks(), world.asks("2", "rm b")
    # However many others wait, an id finds its own.
    monkeypatch.setattr("muster.verbs.approval._LOOKED_MAX", 1)
    find = lambda text: world["hub"].call("approval.find", {"id": text})  # noqa: E731
    place = {"approval": first["question"], "task": TASK, "machine": world.at.id}
    assert find("")["value"] == find(first["question"][:10])["value"] == place
    assert find(second["question"])["value"]["approval"] == second["question"]
    assert world.says(first, "deny") == "ok"
    assert "is denied (alice answered it)" in find(first["question"])["error"]["text"]
    assert find("")["value"]["approval"] == second["question"]
    assert "nothing that waits" in find("0" * 32)["error"]["text"]
    assert json.dumps(find("")["value"]).count("rm") == 0
