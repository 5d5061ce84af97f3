"""A call that goes on as a stream: who is told what, when, and what is left of it."""

import asyncio
import json
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from tests.node.desks import Desk, desks
from tests.promise import proves

from muster.channel.flow import PLAIN
from muster.channel.frame import Type
from muster.channel.stream import Stream
from muster.errors import Conflict, Denied, Malformed, NotFound, Unreachable
from muster.limits import LINK_STREAMS_MAX
from muster.log import canon
from muster.node import event as ev
from muster.node.call import streams
from muster.node.call.router import Router
from muster.node.daemon import Daemon

Handler = Callable[[ev.Perform, Stream], Coroutine[Any, Any, Any]]


@pytest.fixture
def two(tmp_path: Path) -> list[Desk]:
    return desks(tmp_path, "hub", "studio", links=(("hub", "studio"),))


def asked(two: list[Desk], handler: Handler, use: Callable[[Stream], Any]) -> Desk:
    """The hub calls a stream of the studio, which handles it so, and uses it; the studio."""
    hub, studio = two
    studio.handle = handler  # type: ignore[method-assign]

    async def scenario() -> None:
        async with asyncio.timeout(10):
            try:
                async with hub.streams.call(next(iter(hub.far)), "blob.serve", {}) as stream:
                    await use(stream)
            finally:
                await asyncio.gather(*studio._tasks, return_exceptions=True)

    try:
        asyncio.run(scenario())
    finally:
        assert (hub.open, studio.open) == ([], [])
    return studio


def last_words(desk: Desk) -> list[Any]:
    return [json.loads(raw or b"{}") for kind, raw in desk.sent if kind is Type.CLOSE]


@proves("node.streams-are-calls")
def test_until_it_accepts_a_handler_refuses_as_every_verb_does(two):
    async def refuses(_call, _stream):
        raise NotFound("there is no such thing")

    with pytest.raises(NotFound, match="no such thing"):
        asked(two, refuses, lambda _stream: pytest.fail("it was refused"))
    assert two[1].sent == [], "no stream was ever there"


@proves("node.streams-are-calls")
@pytest.mark.parametrize(
    ("error", "said"),
    [
        (Denied("no\n\x1b[2J more"), "No \ufffd[2j more"),
        (
            KeyError("secret detail"),
            "this machine failed at blob.serve; its log says how (`muster status` names it)",
        ),
    ],
)
def test_what_goes_wrong_in_a_stream_is_one_sentence_at_the_far_end(two, error, said):
    async def fails(_call, stream):
        stream.accept()
        await stream.send(b"so far")
        raise error

    async def use(stream):
        assert await stream.receive() == b"so far"
        with pytest.raises(Unreachable) as caught:
            await stream.receive()
        assert str(caught.value).lower() == said.lower()

    studio = asked(two, fails, use)
    assert [each["code"] for each in last_words(studio)] == [1]


@proves("node.streams-are-calls")
def test_a_handler_that_is_done_ends_its_stream_well_and_answers_nothing_more(two):
    async def gives(_call, stream):
        stream.accept()
        await stream.send(b"all of it")
        return {"never": "said"}

    async def use(stream):
        assert [await stream.receive(), await stream.receive()] == [b"all of it", b""]

    assert last_words(asked(two, gives, use)) == [{"code": 0}]


@proves("node.streams-end-with-the-caller")
def test_a_caller_that_leaves_ends_the_handler_of_its_stream(two):
    ended: list[str] = []

    async def waits(_call, stream):
        stream.accept()
        try:
            await stream.receive()
        except Unreachable as error:
            ended.append(str(error))
            raise

    async def use(_stream):
        await asyncio.sleep(0)

    asked(two, waits, use)
    assert ended == ["the other side hung up"]


@proves("node.streams-end-with-the-caller")
def test_a_link_that_goes_ends_the_streams_of_both_its_ends(two):
    ended: list[str] = []

    async def waits(_call, stream):
        stream.accept()
        try:
            await stream.receive()
        except Unreachable as error:
            ended.append(str(error))
            raise

    async def use(stream):
        for desk in two:
            for link in desk.far:
                desk.streams.link_down(link)
        await stream.receive()

    with pytest.raises(Unreachable):
        asked(two, waits, use)
    assert ended == ["the other side hung up"]


@proves("node.streams-end-with-the-caller")
def test_an_answer_that_does_not_come_is_not_waited_for_for_ever(two, monkeypatch):
    monkeypatch.setattr(streams, "ANSWER_S", 0.05)
    hung_up: list[bool] = []

    async def thinks(_call, stream):
        left = asyncio.Event()
        stream.on_hang_up = left.set
        await left.wait()
        hung_up.append(True)

    with pytest.raises(Unreachable, match=r"no answer to blob\.serve"):
        asked(two, thinks, lambda _stream: pytest.fail("nobody answered"))
    assert hung_up == [True], "and whoever thinks about it hears that"
    router = two[0].core.part(Router)
    assert (router.asked, router._parts) == ({}, {})
    (number,) = two[0].far
    router.on_reply(two[0].core.links[number], 1, b"+" + b"x" * 1_000)
    assert router._parts == {}, "and what comes of it after all is not kept"


@proves("node.streams-end-with-the-caller")
def test_a_call_whose_link_went_before_it_was_begun_opens_no_stream(two):
    hub, studio = two
    (number,) = studio.far
    studio.gone.add(number)
    call = ev.Perform(number, 31, "blob.serve", {}, hub.core.machine)
    with pytest.raises(Unreachable, match="gone"):
        studio.streams.open(call)
    assert studio.open == []


@proves("node.streams-bounded")
def test_a_link_has_so_many_streams_and_one_that_ends_makes_place(two):
    hub, _ = two
    link = next(iter(hub.far))

    async def scenario() -> None:
        calls = [ev.Perform(link, n, "git.serve", {}, "") for n in range(1, 101)]
        open_ = [hub.streams.open(call) for call in calls]
        for stream in open_[:LINK_STREAMS_MAX]:
            stream.accept()
        with pytest.raises(Conflict, match="as many streams as one may have"):
            open_[-1].accept()
        with pytest.raises(Malformed, match="has a stream already"):
            hub.streams.open(calls[0])
        relayed = hub.streams.open(ev.Perform(link, 500, "relay.serve", {}, ""))
        relayed.accept()

        async def nothing() -> None:
            pass

        await hub.streams.serve(calls[0], open_[0], nothing())
        open_[-1].accept()

    hub.answer = lambda *_args, **_named: None  # type: ignore[method-assign]
    asyncio.run(scenario())


@proves("node.streams-are-calls")
def test_frames_that_come_with_their_call_are_handed_back_after_it(two):
    machine = two[0].one
    machine.effects.clear()
    args = {"machine": "hub", "repo": "x", "service": "git-upload-pack"}
    call = json.dumps({"args": args, "verb": "git.connect"}, separators=(",", ":"))
    machine.step(
        ev.Arrived(1, Type.CALL, 9, call.encode()),
        ev.Arrived(1, Type.DATA, 9, b"at once"),
        ev.Arrived(1, Type.CLOSE, 9, b""),
    )
    begun = [e for e in machine.effects if isinstance(e, ev.Perform | ev.Stray)]
    assert [type(each) for each in begun] == [ev.Perform, ev.Stray, ev.Stray]
    assert begun[1:] == [
        ev.Stray(1, Type.DATA, 9, b"at once"),
        ev.Stray(1, Type.CLOSE, 9, b""),
    ]


@proves("node.streams-are-calls")
def test_what_a_step_told_waits_for_its_reader_and_what_was_too_much_is_said(two, monkeypatch):
    monkeypatch.setattr(streams, "STREAM_NEWS_MAX", 3)
    hub, _ = two

    async def scenario() -> None:
        stream = hub.streams.open(ev.Perform(1, 7, "watch", {}, ""))
        for news in ("a", "a", "b", "a"):
            hub.streams.told(ev.Told(1, 7, news))
        assert [await stream.hear() for _ in range(3)] == ["a", "b", "a"]
        assert await stream.hear(0.01) is None
        for news in range(5):
            hub.streams.told(ev.Told(1, 7, news))
        assert [await stream.hear() for _ in range(3)] == [0, 1, 2]
        with pytest.raises(Conflict, match="follow it again"):
            await stream.hear()
        hub.streams.told(ev.Told(1, 8, "nobody is there"))

    asyncio.run(scenario())


# --- passed on --------------------------------------------------------------------------------------


@pytest.fixture
def three(tmp_path: Path) -> list[Desk]:
    return desks(tmp_path, *("hub", "studio", "laptop"), links=STAR)


STAR = (("hub", "studio"), ("hub", "laptop"))


def passed_on(three: list[Desk], reply: bytes) -> list[ev.Effect]:
    """What the hub does about a call of the studio's for the laptop, when that one answers."""
    hub, studio, laptop = three
    world = hub.one.world
    call = {"args": {}, "on": "laptop", "verb": "some.newer-verb"}
    to_hub, to_laptop = next(iter(studio.far)), hub.core.link_to(laptop.core.machine)
    number = next(hub.core.links[to_laptop].numbers) + 2
    world.frozen.add("laptop")
    studio.core.send(to_hub, Type.CALL, 31, canon.encode(call))
    world.carry_out(studio.one, studio.core._released())
    world.drain()
    hub.one.effects.clear()
    hub.one.step(ev.Arrived(to_laptop, Type.REPLY, number, reply))
    return [each for each in hub.one.effects if isinstance(each, ev.Join)]


@proves("node.streams-are-passed-on")
@pytest.mark.parametrize("end", ["link", "target"])
def test_a_call_one_of_whose_links_is_gone_when_it_is_accepted_is_not_joined(three, end):
    hub = three[0]
    (join,) = passed_on(three, b'.{"ok":true,"value":{"channel":3}}')
    hub.gone.add(getattr(join, end))
    with pytest.raises(Unreachable, match="gone"):
        hub.streams.join(join)
    assert hub.open == [], "neither of the two keeps its place"


@proves("node.streams-are-passed-on")
def test_a_call_that_was_passed_on_and_is_accepted_is_joined_whatever_verb_it_is(three):
    hub, studio, laptop = three
    (join,) = passed_on(three, b'.{"ok":true,"value":{"channel":3}}')
    assert (join.channel, join.target) == (31, hub.core.link_to(laptop.core.machine))
    assert hub.core.link_to(studio.core.machine) == join.link
    data = bytes(3_000_000)

    async def scenario() -> None:
        joined = asyncio.ensure_future(hub.streams.join(join))
        here = studio.streams._begin(next(iter(studio.far)), join.channel, PLAIN)
        there = laptop.streams._begin(next(iter(laptop.far)), join.number, PLAIN)
        sending = asyncio.ensure_future(here.send(data))
        got = b""
        while len(got) < len(data):
            got += await there.receive()
        await sending
        there.flow.close("and that was all")
        with pytest.raises(Unreachable, match="and that was all"):
            await here.receive()
        await joined
        assert (got, hub.open) == (data, [])

    asyncio.run(scenario())


@proves("node.streams-are-passed-on")
@pytest.mark.parametrize(
    "reply",
    [
        b'*{"ok":true,"value":{"channel":3}}',
        b'.{"ok":false,"error":{"kind":"Denied","text":"no","exit":4}}',
        b'.{"ok":true,"value":{"channel":3,"and":1}}',
        b'.{"ok":true,"value":"x"}',
        b".",
    ],
)
def test_any_other_answer_to_a_call_that_was_passed_on_is_handed_back(three, reply):
    assert passed_on(three, reply) == []


@proves("node.streams-are-passed-on", "node.streams-bounded")
def test_a_joined_call_that_has_no_place_leaves_nothing_of_it(three):
    (join,) = passed_on(three, b'.{"ok":true,"value":{"channel":3}}')
    hub = three[0]
    for number in range(LINK_STREAMS_MAX):
        hub.streams._begin(join.target, 1_000 + number, PLAIN)
    with pytest.raises(Conflict):
        hub.streams.join(join)
    assert len(hub.open) == LINK_STREAMS_MAX
    put: list[Any] = []
    half: Any = SimpleNamespace(
        streams=hub.streams,
        supervisor=SimpleNamespace(run=pytest.fail),
        put=lambda *frame: put.append(frame),
        answer=lambda _call, answer: put.append(answer["error"]["kind"]),
    )
    Daemon._join(half, join)
    end = (join.target, Type.CLOSE, join.number, b"")
    assert put == [end, "Conflict"], "both ends are told"


@proves("node.streams-are-calls")
def test_nothing_overtakes_what_came_before_the_stream_was_begun():
    """The core hands it back after its step; what comes meanwhile waits behind it."""
    put: Any = None
    these = streams.Streams(put, put, put, put, lambda _: True)
    frame = (1, Type.DATA, 5)
    assert not these.feed(*frame, b"one")
    stream = these._begin(1, 5, PLAIN)
    assert not these.feed(*frame, b"two"), "the first one is on its way through the core"
    arrived = [ev.Arrived(*frame, raw) for raw in (b"one", b"two")]
    for each in arrived:
        assert these.feed_late(each.link, each.type, each.channel, each.payload)
        these.heard([each])
    assert these.feed(*frame, b"three")
    assert stream.flow.take() == b"onetwothree"
    assert not these.feed(1, Type.DATA, 6, b"of none")
    these.link_down(1)
    these.heard([ev.Arrived(1, Type.DATA, 6, b"of none")])
    assert not these._behind
