"""Calls: who may ask what, how answers come back, and how calls are passed on."""

import json
from typing import Any

import pytest
from tests.arguments import good
from tests.node.cores import LOCAL, Cores, One
from tests.promise import proves

from muster.channel.frame import Type
from muster.errors import Conflict, Malformed
from muster.fleet.folds import DENIAL, ORDER
from muster.limits import CALL_BYTES_MAX, CALL_HOPS_MAX, REPLY_PART_BYTES, STRANGER_CALLS_MAX
from muster.log import canon
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.call.answers import Answers
from muster.node.call.authorize import Authorizer
from muster.node.call.router import Router
from muster.node.incarnations.own_incarnation import FactsChanged
from muster.node.tasks.followers import Followers
from muster.verbs.declaration import Nothing
from muster.verbs.table import VERBS


@pytest.fixture
def world() -> Cores:
    made = Cores("hub", "studio", "laptop")
    made.link("hub", "studio")
    made.link("hub", "laptop")
    made.pass_ms(500)
    return made


def kind(answer: object) -> str:
    assert isinstance(answer, dict), answer
    return "ok" if answer["ok"] else str(answer["error"]["kind"])


@proves("node.calls-are-checked")
@pytest.mark.parametrize(
    "payload",
    [
        b"", b"null", b"[]", b"{}", b'{"verb":"status","args":{},"extra":1}', b'{"verb":"status","args":[]}',
        b'{ "args":{},"verb":"status"}', b'{"args":{},"verb":"status","verb":"stop"}',
        b'{"args":{},"hops":-1,"verb":"status"}', b'{"args":{},"hops":3,"verb":"status"}',
        b'{"args":{"a":1.5},"verb":"status"}', b'{"args":{},"verb":"' + b"x" * 70_000 + b'"', b"\xff\xfe",
    ],
)  # fmt: skip
def test_a_call_of_another_form_is_refused_with_a_sentence(world, payload):
    before = world["hub"].sizes()
    assert kind(world["hub"].raw(payload)) == "Malformed"
    assert world["hub"].sizes() == before


@proves("node.calls-are-checked")
@pytest.mark.parametrize(
    "verb", ["", "no-such", "__init__", "Status", "init", "up", "rebuild", "x" * 60]
)
def test_only_verbs_of_the_table_that_a_daemon_answers_can_be_called(world, verb):
    assert kind(world["hub"].call(verb, {})) == "NotFound"


@proves("node.calls-are-checked")
def test_a_verb_of_each_need_is_refused_to_whoever_brings_less(world):
    hub = world["hub"]
    stranger = world.stranger("hub")
    member = next(n for n, each in hub.core.links.items() if each.peer)
    before = hub.sizes()
    for verb in VERBS.values():
        if verb.runs == "client":
            continue
        args = good(verb)
        if verb.auth != "nothing":
            stranger = world.stranger("hub")
            assert kind(hub.call(verb.name, args, stranger)) == "Denied", verb.name
        # A program of the same user is no machine of the fleet.
        if verb.auth in ("order", "agent", "peer"):
            assert kind(hub.call(verb.name, args)) == "Denied", verb.name
        if verb.auth in ("order", "agent", "local"):
            payload = canon.encode({"args": args, "verb": verb.name})
            effects = hub.core.step([ev.Arrived(member, Type.CALL, 5, payload)], world.now())
            (sent,) = [e for e in effects if isinstance(e, ev.Send)]
            assert b'"Denied"' in sent.frame, verb.name
    assert hub.sizes() == before


@proves("node.large-answers")
def test_an_answer_larger_than_a_frame_comes_in_parts(world):
    hub = world["hub"]
    for number in range(8):
        args = {"text": [f"{number}" * 30_000], "to": "all"}
        assert hub.order("send", "all", args)["ok"]
    payload = canon.encode({"args": {}, "verb": "sent"})
    effects = hub.core.step([ev.Arrived(LOCAL, Type.CALL, 4, payload)], world.now())
    parts = [e.frame[6:] for e in effects if isinstance(e, ev.Send)]
    assert len(parts) > 1
    assert all(len(p) <= REPLY_PART_BYTES + 1 for p in parts)
    assert [p[:1] for p in parts] == [b"+"] * (len(parts) - 1) + [b"."]
    whole = json.loads(b"".join(p[1:] for p in parts))
    assert len(whole["value"]) == 8


@proves("node.calls-are-passed-on")
def test_a_call_for_a_machine_behind_the_hub_is_passed_on_and_its_answer_comes_back(world):
    studio, laptop = world["studio"], world["laptop"]
    args = {"text": ["through the hub"], "to": "all"}
    signed = world.sign("send", "all", laptop, args)
    answer = studio.call("send", args, statement=signed, on="laptop")
    assert kind(answer) == "ok"
    assert [e.header.author for e in laptop.entries("message.send")] == [laptop.id]
    # The very same call once more, by another way: the order is spent.
    assert kind(world["hub"].call("send", args, statement=signed, on="laptop")) == "Conflict"


@proves("node.passing-on-adds-nothing")
def test_an_order_for_one_machine_is_not_obeyed_by_another_it_is_passed_to(world):
    args = {"text": ["not for you"], "to": "all"}
    signed = world.sign("send", "all", world["hub"], args)
    answer = world["studio"].call("send", args, statement=signed, on="laptop")
    assert kind(answer) == "Denied"
    assert world["laptop"].entries("message.send") == []


@proves("node.passing-on-adds-nothing")
def test_local_and_peer_verbs_are_not_reached_by_passing_on(world):
    for verb in VERBS.values():
        if verb.auth in ("local", "peer") and verb.runs != "client":
            args = good(verb)
            answer = world["studio"].call(verb.name, args, on="laptop")
            assert kind(answer) == "Denied", verb.name


@proves("node.calls-are-passed-on")
def test_a_call_for_a_machine_that_is_away_or_lost_on_the_way_says_so(world):
    studio = world["studio"]
    assert kind(studio.call("status", {}, on="nobody")) == "NotFound"
    world.cut("laptop")
    assert kind(studio.call("status", {}, on="laptop")) == "Unreachable"
    world.link("hub", "laptop")
    hub: One = world["hub"]
    args = {"text": ["x"], "to": "all"}
    signed = world.sign("send", "all", world["laptop"], args)
    link = hub.core.link_to(world["laptop"].id)
    hub.answers.clear()
    payload = canon.encode({"args": args, "on": "laptop", "statement": signed, "verb": "send"})
    hub.step(ev.Arrived(LOCAL, Type.CALL, 6, payload), ev.LinkDown(link))
    assert kind(hub.answers[-1]) == "Unreachable"


@proves("remote.nobody-between")
def test_an_order_with_a_stream_goes_over_a_link_to_its_machine_or_not_at_all(world):
    studio, hub, laptop = world["studio"], world["hub"], world["laptop"]
    of_machine = [v for v in VERBS.values() if v.of_machine]
    assert {v.name for v in of_machine} >= {"exec", "file.read", "file.write"}

    def answer(of: One, verb, link=LOCAL):
        args = good(verb)
        args[verb.object], args["asker"] = f"{laptop.id}", studio.id
        return of.call(verb.name, args, link, on="laptop", statement="x")

    for verb in of_machine:
        said = answer(studio, verb)
        assert kind(said) == "Unreachable"
        assert "`muster reach laptop HOST:PORT`" in said["error"]["text"]
        # A hub that has that link is no way either, for whoever asks it to be.
        hub.answers.clear()
        link = hub.core.link_to(studio.id)
        counted = hub.core.counters["call-unreachable"]
        answer(hub, verb, link)
        assert hub.core.counters["call-unreachable"] == counted + 1
        assert laptop.core.counters["call-denied"] == 0
    world.link("studio", "laptop")
    for number, verb in enumerate(of_machine, 1):
        # It came to the machine itself, which looks for the signature.
        assert kind(answer(studio, verb)) not in ("ok", "Unreachable")
        assert studio.core.part(Router)._forwards == {}
        assert number


@proves("node.calls-are-passed-on")
def test_a_call_is_not_sent_back_to_where_it_came_from(world):
    """The hub is a way to every machine, but not for what it asks of us."""
    hub, studio = world["hub"], world["studio"]
    call = canon.encode({"args": {}, "on": "laptop", "verb": "status"})
    hub.core.send(hub.core.link_to(studio.id), Type.CALL, 40, call)
    hub.step(ev.Tick())
    world.drain()
    assert studio.core.counters["call-unreachable"] == 1
    assert hub.core.part(Router)._forwards == {}


@proves("node.calls-wait-for-the-head")
def test_an_order_that_comes_before_our_head_is_confirmed_waits_and_is_then_done(world):
    hub = world["hub"]
    hub.dials = True
    world.restart("hub")
    assert not hub.core.settled
    args = {"text": ["early"], "to": "all"}
    assert hub.order("send", "all", args) is None
    assert hub.entries("message.send") == []
    assert kind(hub.call("status", {})) == "ok", "questions are answered at once"
    world.pass_ms(4_000)
    assert hub.core.settled, "nobody is there to ask: it goes on alone"
    assert kind(hub.answers[-1]) == "ok"
    assert len(hub.entries("message.send")) == 1


@proves("node.streams-end-with-the-caller")
def test_a_follower_that_hangs_up_is_forgotten(world):
    hub = world["hub"]
    hub.step(FactsChanged(hub.facts()))
    world.pass_ms(300)
    spec = 'muster: 1\nname: one\nphases:\n  a:\n    agent: shell\n    do: sleep 1\n    check: "true"\n'
    args = {"base": "", "repo": "", "spec": spec, "values": {}}
    run = hub.order("run", "one", args)["value"]["run"]
    hub.raw(canon.encode({"args": {"run": run}, "verb": "watch"}), channel=12)
    assert len(hub.core.part(Followers).watchers[run]) == 1
    hub.step(ev.Arrived(LOCAL, Type.CLOSE, 12, b""))
    hang_up_at_once = (
        ev.Arrived(LOCAL, Type.CALL, 14, canon.encode({"args": {"run": run}, "verb": "watch"})),
        ev.Arrived(LOCAL, Type.CLOSE, 14, b""),
    )
    hub.step(*hang_up_at_once)
    assert run not in hub.core.part(Followers).watchers
    assert (hub.serving.tasks, hub.serving.streams._open) == (set(), {})


class Half:
    """A verb whose handler writes, wants something done, and only then sees that it may not."""

    name, auth, runs, object, args, data = "half", "order", "step", "", (), ()
    operators_only = writes = agents = of_machine = False
    refuses = True

    def load(self):
        return self.answer

    def answer(self, core: Any, call: Any, ask: Nothing) -> Any:
        core.append("message.send", b"{}", cause=call.cites, actor=call.actor)
        core.append("message.send", b"{}", scope="journal")
        core.do(ev.Note("half"))
        assert core.tables.rows(ORDER), "it reads, too"
        call.more({"half": True})
        if self.refuses:
            raise Conflict("not now")
        return {"whole": True}


@proves("node.refused-changes-nothing")
def test_a_call_that_its_handler_refuses_midway_changes_nothing_and_spends_no_order(world):
    hub, half = world["hub"], Half()
    hub.core.part(Router).verbs = {**hub.core.part(Router).verbs, "half": half}
    before = hub.sizes()
    fine = {"text": ["fine"], "to": "all"}
    events = [
        ev.Arrived(LOCAL, Type.CALL, number, canon.encode(call))
        for number, call in (
            (3, {"args": fine, "statement": world.sign("send", "all", hub, fine), "verb": "send"}),
            (5, {"args": {}, "statement": world.sign("half", "*", hub, {}), "verb": "half"}),
        )
    ]
    hub.answers.clear()
    hub.effects.clear()
    hub.step(*events)
    assert [kind(a) for a in hub.answers] == ["ok", "Conflict"]
    assert not [e for e in hub.effects if isinstance(e, ev.Note)]
    own = str(hub.core.membership.own(FLEET))
    # An order taken, its message, and one word about the refusal.
    assert hub.sizes() == {**before, own: before[own] + 3}
    assert [e.header.kind for e in hub.core.log.slice(hub.core.membership.own(FLEET), before[own])
            ] == ["order.take", "message.send", "order.deny"]  # fmt: skip
    (denied,) = hub.core.tables.rows(DENIAL)
    assert (denied.verb, denied.reason) == ("half", "not now")
    assert b"muster/statement" not in (hub.entries("order.deny")[0].body or b"")
    # The reason is gone; the order was for this, and it counts once.
    half.refuses = False
    assert kind(hub.raw(events[1].payload)) == "ok"
    assert kind(hub.raw(events[1].payload)) == "Conflict"
    assert len(hub.entries("message.send")) == 3


@proves("node.refused-changes-nothing")
def test_a_refused_order_among_many_is_written_down_though_the_rest_is_taken_back(world):
    """`deny` may come from inside of a handler: that somebody was refused stays."""
    hub, half = world["hub"], Half()

    def answer(core: Any, call: Any, ask: Nothing) -> Any:
        core.append("message.send", b"{}")
        core.part(Authorizer).deny("somebody", "task", "x", Conflict("a part of it"))
        raise Conflict("all of it")

    half.answer = answer
    half.auth = "local"
    hub.core.part(Router).verbs = {**hub.core.part(Router).verbs, "half": half}
    before = hub.own_size
    assert kind(hub.call("half", {})) == "Conflict"
    assert hub.own_size == before + 1
    assert [d.reason for d in hub.core.tables.rows(DENIAL)] == ["a part of it"]


@proves("node.strangers-cut")
def test_a_stranger_that_goes_on_calling_is_cut_and_costs_nothing_more(world):
    hub = world["hub"]
    link = world.stranger("hub")
    sizes = hub.sizes()
    for _ in range(STRANGER_CALLS_MAX):
        assert kind(hub.call("enrol", {"request": "x"}, link)) == "Malformed"
    hub.effects.clear()
    assert hub.call("enrol", {"request": "x"}, link) is None
    cuts = [e for e in hub.effects if isinstance(e, ev.Cut)]
    assert [c.link for c in cuts] == [link]
    for _ in range(50):
        assert hub.call("enrol", {"request": "x"}, link) is None
    assert len([e for e in hub.effects if isinstance(e, ev.Cut)]) == 1
    assert hub.core.counters["call-malformed"] == STRANGER_CALLS_MAX
    assert hub.sizes() == sizes
    assert kind(hub.call("enrol", {"request": "x"}, world.stranger("hub"))) == "Malformed"


@proves("node.calls-end-after-hops")
def test_a_call_that_was_passed_on_often_enough_goes_no_further(world):
    """Two hubs that each think the other knows the way would pass it to and fro for ever."""
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    link = next(n for n, each in studio.core.links.items() if each.peer == hub.id)
    asked = []
    calls = laptop.core.frames[Type.CALL]
    laptop.core.frames[Type.CALL] = lambda *a: asked.append(a)

    def passed_on(hops: int) -> None:
        call = {"args": {}, "hops": hops, "on": laptop.id, "verb": "status"}
        studio.core.send(link, Type.CALL, 40 + hops, canon.encode(call))
        studio.step(ev.Tick())
        world.drain()

    for hops in range(CALL_HOPS_MAX):
        passed_on(hops)
    assert len(asked) == CALL_HOPS_MAX
    passed_on(CALL_HOPS_MAX)
    assert len(asked) == CALL_HOPS_MAX, "it went round once more"
    assert hub.core.counters["call-unreachable"] == 1
    hops = [json.loads(payload)["hops"] for _, _, payload in asked]
    assert hops == list(range(1, CALL_HOPS_MAX + 1)), "each passing on is counted"
    laptop.core.frames[Type.CALL] = calls


@proves("node.calls-end-with-their-links")
def test_whoever_asked_over_a_link_that_goes_is_told_once(world):
    hub, studio = world["hub"], world["studio"]
    world.frozen.add("studio")
    told: list[Any] = []
    hub.core.part(Router).ask(studio.id, "facts", {}, told.append)
    hub.step(ev.LinkDown(hub.core.link_to(studio.id)))
    assert [kind(each) for each in told] == ["Unreachable"]
    assert hub.core.part(Router).asked == {}


@proves("node.calls-end-with-their-links")
def test_a_call_that_was_passed_on_ends_at_its_far_end_when_its_caller_is_gone(world):
    hub, studio, laptop = world["hub"], world["studio"], world["laptop"]
    heard: list[tuple[Type, int]] = []
    for type_ in (Type.CALL, Type.CLOSE):
        laptop.core.frames[type_] = lambda _, channel, __, type_=type_: heard.append(
            (type_, channel)
        )
    call = canon.encode({"args": {}, "on": "laptop", "verb": "status"})
    studio.core.send(studio.core.link_to(hub.id), Type.CALL, 40, call)
    studio.step(ev.Tick())
    world.drain()
    world.cut("studio")
    world.drain()
    ((_, channel), closed) = heard
    assert closed == (Type.CLOSE, channel)
    assert hub.core.part(Router)._forwards == {}


@proves("node.calls-end-with-their-links")
def test_what_was_to_end_when_a_caller_hangs_up_ends_when_its_link_goes(world):
    hub, ended = world["hub"], list[int]()
    answers = hub.core.part(Answers)
    gone, stays = (world.join("hub", "studio")[0] for _ in range(2))
    for link in (gone, stays):
        hub.step(ev.LinkUp(link, world["studio"].id, False, "http"))
        answers.open[link, 3] = lambda link=link: ended.append(link)
    hub.step(ev.LinkDown(gone))
    assert (ended, list(answers.open)) == ([gone], [(stays, 3)])


@proves("node.answers-bounded")
def test_an_answer_longer_than_any_is_refused_and_nothing_of_it_is_kept(world):
    hub, router = world["hub"].core, world["hub"].core.part(Router)
    number = hub.link_to(world["studio"].id)
    told: list[Any] = []
    forget = router.ask(world["studio"].id, "facts", {}, told.append)
    ((_, channel),) = router.asked
    part = b"+" + b"x" * (1 << 20)
    with pytest.raises(Malformed, match="longer"):
        for _ in range(CALL_BYTES_MAX // (1 << 20) + 1):
            router.on_reply(hub.links[number], channel, part)
    assert [kind(each) for each in told] == ["Malformed"]
    assert (router.asked, router._parts) == ({}, {})
    forget()


@proves("node.answers-bounded")
@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b'{"ok":"yes"}',
        b'{"ok":false,"error":"no"}',
        b'{"error":{}}',
        b"[" * 9_000,
    ],
)
def test_an_answer_that_is_none_is_told_as_one_and_as_a_fault_of_the_link(world, raw):
    hub, router = world["hub"].core, world["hub"].core.part(Router)
    number = hub.link_to(world["studio"].id)
    told: list[Any] = []
    router.ask(world["studio"].id, "facts", {}, told.append)
    ((_, channel),) = router.asked
    with pytest.raises(Malformed):
        router.on_reply(hub.links[number], channel, b"." + raw)
    assert [kind(each) for each in told] == ["Malformed"]


@proves("node.streams-end-with-the-caller")
def test_a_call_that_waits_for_our_history_is_forgotten_with_its_caller(world):
    hub = world["hub"]
    hub.core.settled = False
    number = hub.core.link_to(world["studio"].id)
    statement = world.sign("journal", "ab" * 16, hub, {"task": "ab" * 16})
    call = {"args": {"task": "ab" * 16}, "statement": statement, "verb": "journal"}
    hub.step(ev.Arrived(number, Type.CALL, 31, canon.encode(call)))
    assert len(hub.core.part(Router).waiting) == 1
    hub.step(ev.Arrived(number, Type.CLOSE, 31, b""))
    assert hub.core.part(Router).waiting == []
