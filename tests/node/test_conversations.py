"""What whoever writes to somebody, or reads, relies on: between real cores, over links that come and go."""

from typing import Any

import pytest
from tests.node.cores import Cores, One
from tests.promise import proves

from muster.log import canon
from muster.log.stream import scope_group, scope_to
from muster.message import kinds
from muster.message.fold import READING
from muster.store.store import Draft


@pytest.fixture
def world() -> Cores:
    world = Cores("hub", "studio", "laptop")
    for one, other in (("hub", "studio"), ("hub", "laptop"), ("studio", "laptop")):
        world.link(one, other)
    world.pass_ms(1_000)
    return world


def ok(answer: Any) -> Any:
    assert answer["ok"], answer
    return answer["value"]


def send(one: One, to: str, text: str = "hi", **more: Any) -> str:
    message: str = ok(one.order("send", to, {"text": text, "to": to, **more}))["message"]
    one.world.pass_ms(1_000)
    return message


def reply(one: One, message: str, text: str) -> str:
    answer: str = ok(one.order("reply", message, {"message": message, "text": text}))["message"]
    one.world.pass_ms(1_000)
    return answer


def ack(one: One, message: str, note: str = "") -> Any:
    answer = one.order("ack", message, {"message": message, "note": note})
    one.world.pass_ms(1_000)
    return answer


def change(keeper: One, **how: Any) -> dict[str, Any]:
    thread: dict[str, Any] = ok(keeper.order("thread", "plans", {"name": "plans", **how}))
    keeper.world.pass_ms(1_000)
    return thread


def texts(one: One, **args: Any) -> list[str]:
    return [m["text"] for m in ok(one.call("inbox", {"all": True, **args}))]


def said(one: One) -> list[str]:
    """What this machine shows of the thread; nothing where it knows of none."""
    answer = one.call("threads", {"name": "plans"})
    return [m["text"] for m in answer["value"][0]["messages"]] if answer["ok"] else ["none"]


def states(one: One, message: str) -> dict[str, str]:
    """How far a message came with each recipient, as its sender shows it."""
    (shown,) = [each for each in ok(one.call("sent", {})) if each["message"] == message]
    return {f"{to['agent']}@{to['machine']}".strip("@"): to["state"] for to in shown["to"]}


def away(world: Cores, name: str) -> None:
    world.cut(name)
    world.pass_ms(1_000)


def back(world: Cores, name: str) -> None:
    for other in world.machines:
        if other != name:
            world.link(other, name)
    world.pass_ms(4_000)


# --- answers ------------------------------------------------------------------------------------


@proves("message.answers-go-back")
def test_an_answer_goes_to_whoever_wrote_and_to_nobody_else(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    asked = send(hub, "studio", "when?")
    answer = reply(studio, asked, "at noon")
    assert texts(hub) == ["at noon"]
    assert texts(laptop) == []
    (item,) = ok(hub.call("inbox", {}))
    assert (item["message"], item["thread"], item["machine"]) == (answer, asked, "studio")
    reply(hub, answer, "good")
    assert texts(studio) == ["when?", "good"]
    assert ok(studio.call("inbox", {"all": True}))[-1]["thread"] == asked, "one conversation"


@proves("message.answers-go-back")
def test_an_answer_to_what_was_said_to_all_is_seen_by_all_and_is_for_its_writer(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    answer = reply(studio, send(hub, "all", "who is up?"), "I am")
    assert (texts(hub), texts(laptop)) == (["I am"], ["who is up?"])
    assert states(studio, answer) == {"hub": "stored"}


@proves("message.answers-go-back")
def test_an_answer_to_an_agent_is_for_that_agent(world):
    hub, studio = world["hub"], world["studio"]
    body = canon.encode(kinds.MessageSend([studio.id], "I am done"))
    with hub.core.store.transaction():
        draft = Draft("message.send", "shell@hub", (), body)
        (entry,) = hub.core.append_all(scope_to(studio.id), [draft])
        hub.core._sign()
    world.carry_out(hub, hub.core._released())
    world.pass_ms(1_000)
    reply(studio, entry.id.hex(), "well done")
    assert texts(hub, agent="shell") == ["well done"]
    assert texts(hub, agent="noop") == []


@proves("message.answers-go-back")
def test_whoever_did_not_get_a_message_cannot_answer_or_act_on_it(world):
    hub, laptop = world["hub"], world["laptop"]
    message = send(hub, "studio", "between us")
    before = laptop.sizes()
    for verb, args in (("reply", {"text": "I too"}), ("ack", {})):
        answer = laptop.order(verb, message, {"message": message, **args})
        assert answer["error"]["kind"] == "NotFound"
    assert len(laptop.entries("message.send") + laptop.entries("message.act")) == 0
    assert laptop.sizes().keys() == before.keys()


# --- how far a message came -----------------------------------------------------------------------


@proves("message.states-go-forward")
def test_the_sender_sees_each_step_with_each_recipient_apart(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    away(world, "laptop")
    message = send(hub, "all", "look")
    assert states(hub, message) == {"studio": "stored", "laptop": "waiting"}
    ok(studio.call("inbox", {"mark": True}))
    world.pass_ms(1_000)
    assert states(hub, message) == {"studio": "read", "laptop": "waiting"}
    back(world, "laptop")
    assert states(hub, message) == {"studio": "read", "laptop": "stored"}
    ok(ack(laptop, message, "done here"))
    assert states(hub, message) == {"studio": "read", "laptop": "acted"}
    ok(laptop.call("inbox", {"all": True, "mark": True}))
    world.restart("hub")
    assert states(hub, message) == {"studio": "read", "laptop": "acted"}, "no step is taken back"


@proves("message.states-go-forward")
def test_who_acted_has_read_and_what_came_of_it_is_told_to_the_sender_alone(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    message = send(hub, "studio", "move the tests")
    assert ok(ack(studio, message, "moved them")) == {"message": message, "state": "acted"}
    assert ok(studio.call("inbox", {})) == []
    (item,) = ok(studio.call("inbox", {"all": True}))
    assert (item["read"], item["acted"]) == (True, True)
    (act,) = hub.entries("message.act")
    assert b"moved them" in act.body
    assert laptop.entries("message.act") == []


@proves("message.states-go-forward")
def test_a_second_word_of_a_reader_changes_nothing(world):
    hub, studio = world["hub"], world["studio"]
    message = send(hub, "studio")
    ok(ack(studio, message, "first"))
    ok(ack(studio, message, "second"))
    (row,) = hub.core.tables.rows(READING, message=bytes.fromhex(message))
    assert row.text == "first"


@proves("message.states-go-forward")
def test_what_one_agent_read_is_a_step_of_that_agent_alone(world):
    hub, studio = world["hub"], world["studio"]
    first, second = send(hub, "shell@studio", "one"), send(hub, "noop@studio", "two")
    ok(studio.call("inbox", {"agent": "shell", "mark": True}))
    world.pass_ms(1_000)
    assert states(hub, first) == {"shell@studio": "read"}
    assert states(hub, second) == {"noop@studio": "stored"}


@proves("message.states-go-forward")
def test_what_was_marked_once_is_not_written_again(world):
    hub, studio = world["hub"], world["studio"]
    send(hub, "studio")
    for _ in range(3):
        ok(studio.call("inbox", {"all": True, "mark": True}))
    assert len(studio.entries("message.read")) == 1


@proves("message.states-go-forward")
def test_only_what_was_sent_from_here_is_listed_as_sent(world):
    hub, studio = world["hub"], world["studio"]
    send(studio, "all", "theirs")
    assert ok(hub.call("sent", {})) == []


# --- whoever is away ------------------------------------------------------------------------------


@proves("message.kept-until-delivered")
def test_what_is_for_a_machine_that_is_away_waits_through_a_kill_and_comes_in_order(world):
    hub, laptop = world["hub"], world["laptop"]
    away(world, "laptop")
    sent = [send(hub, "laptop", f"m{n}") for n in range(3)]
    world.restart("hub")
    world.link("hub", "studio")
    world.pass_ms(4_000)
    sent.append(send(hub, "laptop", "m3"))
    assert [states(hub, each) for each in sent] == [{"laptop": "waiting"}] * 4
    back(world, "laptop")
    assert texts(laptop) == ["m0", "m1", "m2", "m3"]
    assert [states(hub, each) for each in sent] == [{"laptop": "stored"}] * 4


@proves("message.kept-until-delivered")
def test_what_was_said_to_all_comes_from_a_third_machine_while_its_sender_is_away(world):
    away(world, "laptop")
    send(world["hub"], "all", "the tests moved")
    away(world, "hub")
    world.link("studio", "laptop")
    world.pass_ms(4_000)
    assert texts(world["laptop"]) == ["the tests moved"]


# --- who reads ------------------------------------------------------------------------------------


def holds(one: One, text: str) -> bool:
    """Whether this machine has these words anywhere in what it stores."""
    store = one.core.store
    found = [e.body or b"" for s in store.log.streams() for e in store.log.slice(s, 0, 1 << 30)]
    return any(text.encode() in body for body in found)


@proves("message.read-by-those-alone")
def test_a_message_to_one_machine_is_held_by_no_other(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    message = send(hub, "studio", "between us")
    reply(studio, message, "nobody else")
    stream = hub.core.membership.own(scope_to(studio.id))
    assert holds(hub, "nobody else")
    assert holds(studio, "between us")
    assert not holds(laptop, "between us")
    assert not holds(laptop, "nobody else")
    assert laptop.core.log.size(stream) == 0
    assert texts(laptop) == []


@proves("message.read-by-those-alone")
def test_a_thread_is_seen_by_its_members_and_there_is_none_for_others(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    shown = change(hub, add=["studio"])
    assert (shown["keeper"], shown["members"]) == ("hub", ["hub", "studio"])
    send(studio, "thread:plans", "among us")
    assert said(hub) == said(studio) == ["among us"]
    assert (said(laptop), ok(laptop.call("threads", {}))) == (["none"], [])
    assert not holds(laptop, "among us")
    before = len(laptop.entries("message.send"))
    answer = laptop.order("send", "thread:plans", {"to": "thread:plans", "text": "me too"})
    assert answer["error"]["kind"] == "NotFound"
    assert len(laptop.entries("message.send")) == before


@proves("message.members-change")
def test_who_is_taken_in_reads_everything_or_what_comes_from_now_on(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    change(hub)
    ok(hub.order("thread", "plans", {"name": "plans", "add": ["studio"]}))
    send(hub, "thread:plans", "of before")
    change(hub, add=["laptop"], fresh=True)
    assert said(laptop) == []
    assert not holds(laptop, "of before")
    send(hub, "thread:plans", "of later")
    assert (said(laptop), said(studio)) == (["of later"], ["of before", "of later"])
    assert texts(laptop) == ["of later"]


@proves("message.members-change")
def test_who_is_put_out_keeps_what_it_had_and_gets_nothing_more(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    change(hub, add=["studio", "laptop"])
    send(hub, "thread:plans", "of before")
    assert change(hub, remove=["laptop"])["members"] == ["hub", "studio"]
    send(hub, "thread:plans", "of later")
    assert said(studio) == ["of before", "of later"]
    assert said(laptop) == ["none"]
    assert holds(laptop, "of before")
    assert not holds(laptop, "of later")
    answer = laptop.order("send", "thread:plans", {"to": "thread:plans", "text": "still here"})
    assert answer["error"]["kind"] == "NotFound"
    change(hub, add=["laptop"])
    assert said(laptop) == ["of before", "of later"], "taken in again it reads the rest"


@proves("message.members-change")
def test_only_its_keeper_changes_a_thread_whoever_uses_the_name(world):
    hub, studio = world["hub"], world["studio"]
    change(hub, add=["studio"])
    change(studio, add=["laptop"])
    members = {scope: set(those) for scope, those in hub.core.roster.groups.items()}
    assert members == {
        scope_group(hub.id, "plans"): {hub.id, studio.id},
        scope_group(studio.id, "plans"): {studio.id, world["laptop"].id},
    }


@proves("message.members-change")
def test_a_name_that_is_none_leaves_no_half_of_a_change(world):
    hub = world["hub"]
    for how in ({"add": ["studio", "nobody"]}, {"add": ["studio"], "remove": ["nobody"]}):
        answer = hub.order("thread", "plans", {"name": "plans", **how})
        assert answer["error"]["kind"] == "NotFound"
    assert hub.core.roster.groups == {}


# --- order, keys and words ------------------------------------------------------------------------


@proves("message.inbox")
def test_every_reader_has_the_same_order_whichever_way_messages_came(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    change(hub, add=["studio", "laptop"])
    away(world, "laptop")
    for number, one in enumerate((hub, studio, hub, studio)):
        send(one, "thread:plans", f"m{number}")
    send(laptop, "thread:plans", "alone")
    back(world, "laptop")
    orders = {tuple(said(one)) for one in (hub, studio, laptop)}
    assert orders == {("m0", "m1", "m2", "m3", "alone")}


@proves("message.key-counts-once")
def test_a_key_holds_through_a_kill_and_is_each_senders_own(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    first = send(hub, "laptop", "pay", key="invoice-7")
    world.restart("hub")
    back(world, "hub")
    assert send(hub, "laptop", "pay", key="invoice-7") == first
    assert send(studio, "laptop", "pay", key="invoice-7") != first
    assert texts(laptop) == ["pay", "pay"]


@proves("message.bad-ones-are-refused")
@pytest.mark.parametrize("text", ["", " ", "\n\t"])
def test_a_message_without_a_word_is_refused_and_not_written(world, text):
    hub = world["hub"]
    answer = hub.order("send", "all", {"to": "all", "text": text})
    assert answer["error"]["kind"] == "Malformed"
    assert hub.entries("message.send") == []
