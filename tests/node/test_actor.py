"""A person's word arrives as a person's, however it was typed; and a thread has a keeper."""

from typing import Any

import msgspec
import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.fleet.kinds import OrderTake
from muster.fleet.machine import Operator
from muster.log import canon
from muster.log.stream import FLEET, Incarnation, StreamName
from muster.store.store import Draft
from muster.verbs.table import VERBS


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        made.link(one, other)
    made.pass_ms(1_000)
    return made


def last(machine: One) -> tuple[str, str, str]:
    item = machine.call("inbox", {"all": True})["value"][-1]
    return item["from"], item["trust"], item["text"]


@proves("message.person-is-proven")
@pytest.mark.parametrize(
    "args",
    [
        {"to": "studio", "text": ["come", "here"]},
        {"to": "studio", "text": ["come here"]},
        {"to": "studio", "text": "come here"},
        {"to": "studio", "text": ["come", "here"], "key": "k"},
        {"to": "studio", "text": ["come", "here"], "wait": True},
        {"to": "shell@studio", "text": ["come here"]},
        {"to": "role:workstation", "text": ["come here"]},
        {"to": "all", "text": ["come here"]},
    ],
)
def test_what_an_operator_says_is_a_persons_wherever_it_is_read(world, args):
    answer = world["hub"].order("send", str(args["to"]), args)
    assert answer["ok"], answer
    world.pass_ms(1_000)
    assert last(world["studio"]) == ("op:alice", "person", "come here")


@proves("message.person-is-proven")
def test_every_argument_that_is_signed_with_a_message_is_known_to_the_proof():
    """Another one would make each message of a person a machine's."""
    signed = {a.name for v in ("send", "reply") for a in VERBS[v].args if not a.unsigned}
    terms = {"priority", "expires", "alarm"}
    assert signed == {"to", "message", "text", "key", "wait"} | terms


@proves("message.person-is-proven")
def test_an_answer_and_a_word_in_a_thread_are_a_persons_too(world):
    hub, studio = world["hub"], world["studio"]
    assert hub.order("thread", "plans", {"name": "plans", "add": ["studio", "laptop"]})["ok"]
    world.pass_ms(1_000)
    sent: Any = hub.order("send", "thread:plans", {"to": "thread:plans", "text": ["when?"]})
    assert sent["ok"], sent
    world.pass_ms(1_000)
    assert last(studio) == ("op:alice", "person", "when?")
    start = sent["value"]["message"][:9]
    assert studio.order("reply", start, {"message": start, "text": ["at", "noon"]})["ok"]
    world.pass_ms(1_000)
    assert last(hub) == ("op:alice", "person", "at noon")
    (view,) = world["laptop"].call("threads", {"name": "plans"})["value"]
    assert [(m["from"], m["trust"]) for m in view["messages"]] == [("op:alice", "person")] * 2


@proves("message.threads-have-a-keeper")
def test_of_two_threads_of_one_name_each_is_reached_by_its_keeper(world):
    """Any machine can open a thread of any name, and add whom it likes."""
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    for keeper in (hub, studio):
        other = {"name": "ops", "add": ["laptop"]}
        assert keeper.order("thread", "ops", other)["ok"]
    world.pass_ms(1_000)
    unclear = laptop.order("send", "thread:ops", {"to": "thread:ops", "text": ["hi"]})["error"]
    assert unclear["kind"] == "Refused"
    assert "thread:ops@hub" in unclear["text"]
    assert "thread:ops@studio" in unclear["text"]
    to = "thread:ops@hub"
    assert laptop.order("send", to, {"to": to, "text": ["hi"]})["ok"]
    world.pass_ms(1_000)
    assert last(hub) == ("op:alice", "person", "hi")
    assert studio.call("inbox", {"all": True})["value"] == []
    assert len(laptop.call("threads", {"name": "ops"})["value"]) == 2
    (one,) = laptop.call("threads", {"name": "ops@studio"})["value"]
    assert one["keeper"] == "studio"


@proves("message.person-is-proven")
def test_a_key_that_was_shut_out_says_nothing_more_for_its_person(world):
    """What it said before stays said. A member that goes on with the key dates as it likes."""
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    args = {"to": "all", "text": ["before"]}
    assert studio.order("send", "all", args)["ok"]
    world.pass_ms(1_000)
    second = Operator(b"p" * 32)
    added = {"name": "bob", "key": second.key}
    assert hub.order("operator.add", "bob", added)["ok"]
    statement = world.sign("revoke", "alice", hub, {"name": "alice"}, signer=second.statement)
    assert hub.call("revoke", {"name": "alice"}, statement=statement)["ok"]
    signed = world.sign("send", "all", studio, {**args, "text": ["after"]})
    world.pass_ms(1_000)
    take = canon.encode(msgspec.to_builtins(OrderTake("0" * 64, signed)))
    core = studio.core
    with core.store.transaction():
        took = core.append("order.take", take, actor="op:alice")
        body = canon.encode({"text": "after", "to": ["all"]})
        core.append("message.send", body, cause=(took.id,), actor="op:alice")
        core.store.seal_dirty(core.membership.signer("seal"))
    core.sync.after_commit(core.now.boot_ms)
    world.pass_ms(4_000)
    found = [(m["from"], m["trust"], m["text"]) for m in laptop.call("inbox", {})["value"]]
    assert found == [("op:alice", "person", "before"), ("studio", "machine", "after")]


def says(
    machine: One, kind: str, body: Any, cause: Any = (), stream: Any = None, after: Any = None
) -> Any:
    """A member writes what it likes, into any stream of its own, under the stamp after another."""
    core = machine.core
    core.now = machine.world.now()
    with core.store.transaction():
        if after is not None:
            core.store._stamp = after.stamp
        made = core.store.append(
            stream or core.membership.own(FLEET),
            [Draft(kind, "op:alice", tuple(cause), canon.encode(body))],
            core.now.wall_ms if after is None else after.stamp.ms,
        )
        core.store.seal_dirty(core.membership.signer("seal"))
        core.sync.grew(made[0].stream)
    core.sync.after_commit(core.now.boot_ms)
    machine.world.pass_ms(1_000)
    return made[0]


@proves("message.one-order-one-message")
def test_the_machine_that_took_an_order_to_send_sends_it_once_in_the_persons_name(world):
    """It has the order, and could say the same again whenever it likes."""
    studio, laptop = world["studio"], world["laptop"]
    args = {"to": "all", "text": ["pay"]}
    assert studio.order("send", "all", args)["ok"]
    world.pass_ms(1_000)
    (took,) = [e for e in studio.entries("order.take") if e.header.author == studio.id]
    body = {"text": "pay", "to": ["all"]}
    says(studio, "message.send", body, (took.id,))
    for number in ("e", "f"):
        # In other incarnations of its own it says it right after, as if it had taken it there.
        other = StreamName(studio.id, Incarnation(number * 32), FLEET)
        # Nothing in a stream counts that is dated before what it has.
        (began, *_) = studio.entries("machine.open")
        says(studio, "machine.open", {"record": studio.record.decode()}, (), other, after=began)
        if number == "e":
            says(studio, "message.send", body, (took.id,), other, after=took)
            continue
        raw = canon.decode(took.body, "an order", size_max=9_999)
        again = says(studio, "order.take", raw, (), other)
        says(studio, "message.send", body, (again.id,), other, after=again)
    found = [(m["from"], m["trust"]) for m in laptop.call("inbox", {"all": True})["value"]]
    assert sorted(found) == [("op:alice", "person"), *[("studio", "machine")] * 3]


@proves("message.one-order-one-message")
def test_each_of_several_orders_to_say_the_same_is_a_persons(world):
    args = {"to": "laptop", "text": ["again"]}
    for _ in range(3):
        assert world["studio"].order("send", "laptop", args)["ok"]
    world.pass_ms(1_000)
    items = world["laptop"].call("inbox", {"all": True})["value"]
    assert [m["trust"] for m in items] == ["person"] * 3
