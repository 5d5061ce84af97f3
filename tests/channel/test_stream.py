"""What a stream promises, over the channel in memory and over real links: one suite for all."""

import asyncio
import os
import random
from collections import Counter
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from tests.channel.rigs import RIGS, crossed, drained, run
from tests.promise import proves

from muster.channel import frame as frames
from muster.channel import stream as streams
from muster.channel.base import Link
from muster.channel.flow import PLAIN, RELAYED, TYPES, Flow, Terms
from muster.channel.frame import Type
from muster.channel.stream import Stream, splice
from muster.errors import Malformed, Unreachable
from muster.limits import OUTBOX_BYTES_MAX, RELAY_GRANT_BYTES_MIN
from muster.node.daemon import OUTBOX_FRAMES_MAX, Outbox

WINDOW, CHUNK = PLAIN.window, PLAIN.data_max
DATA = random.Random(7).randbytes(3 * WINDOW + 12_345)


class End:
    """One end of a link and its streams, as a daemon has them."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.outbox = Outbox(link, OUTBOX_BYTES_MAX, lambda: pytest.fail("it is flooded"))
        self.flows: dict[int, Flow] = {}
        # What came, in order: the channel of each DATA frame.
        self.came: list[int] = []
        self._tasks = [asyncio.create_task(each) for each in (self.read(), self.outbox.run())]

    def put(self, channel: int, kind: Type, payload: bytes) -> None:
        self.outbox.put(frames.encode(kind, channel, payload), bulk=kind is not Type.CREDIT)
        self.outbox.release()

    def stream(self, channel: int, terms: Terms = PLAIN) -> Stream:
        flow = Flow(lambda kind, payload: self.put(channel, kind, payload), terms)
        self.flows[channel] = flow
        return Stream(flow, self.drained)

    async def drained(self) -> None:
        while len(self.outbox.quick) + len(self.outbox.bulk) > OUTBOX_FRAMES_MAX:
            self.outbox.room.clear()
            await self.outbox.room.wait()

    async def read(self) -> None:
        try:
            while True:
                found = frames.decode(await self.link.receive())
                assert found.type in TYPES
                if found.type is Type.DATA:
                    self.came.append(found.channel)
                self.flows[found.channel].feed(found.type, found.payload)
        except Unreachable:
            for flow in self.flows.values():
                flow.feed(Type.CLOSE, b"")

    async def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)


Scenario = Callable[[End, End], Coroutine[Any, Any, None]]


@pytest.fixture(params=["memory", "ipc", "http", "relay"])
def over(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[[Scenario], None]:
    """Runs a scenario between the two ends of a link."""

    def play(scenario: Scenario) -> None:
        async def linked() -> None:
            async with RIGS[request.param](tmp_path).connected() as (near, far):
                ends = End(near), End(far)
                await scenario(*ends)
                for end in ends:
                    await end.close()

        run(linked())

    return play


async def whole(stream: Stream) -> bytes:
    found = b""
    while data := await stream.receive():
        found += data
    return found


async def settle(turns: int = 50) -> None:
    for _ in range(turns):
        await asyncio.sleep(0.001)


@proves("channel.stream-whole")
def test_bytes_arrive_whole_and_in_order_both_ways_and_one_direction_may_end_first(over) -> None:
    async def scenario(near: End, far: End) -> None:
        here, there = near.stream(5), far.stream(5)

        async def echo() -> None:
            while data := await there.receive():
                await there.send(data)
            await there.send(b"and that was it")
            there.flow.close("")

        echoing = asyncio.create_task(echo())
        got = asyncio.create_task(whole(here))
        await here.send(DATA)
        here.flow.put(b"")
        assert await got == DATA + b"and that was it"
        await echoing

    over(scenario)


@proves("channel.stream-bounded")
def test_a_reader_that_does_not_read_holds_the_writer_at_one_window(over) -> None:
    async def scenario(near: End, far: End) -> None:
        here, there = near.stream(5), far.stream(5)
        sending = asyncio.create_task(here.send(DATA))
        await settle()
        assert not sending.done()
        assert len(there.flow.waiting) == WINDOW
        assert (len(near.outbox.bulk), here.flow.room) == (0, 0)
        # What was asked for is dealt with at the next question, not before.
        assert len(await there.receive()) == WINDOW
        await settle()
        assert len(there.flow.waiting) == 0
        assert len(DATA) == WINDOW + len((await asyncio.gather(rest(there), sending))[0])

    async def rest(stream: Stream) -> bytes:
        found = b""
        while len(found) < len(DATA) - WINDOW:
            found += await stream.receive()
        return found

    over(scenario)


@proves("channel.stream-ends")
def test_an_error_in_the_middle_is_one_sentence_at_the_far_end_after_what_was_sent(over) -> None:
    async def scenario(near: End, far: End) -> None:
        here, there = near.stream(5), far.stream(5)
        await here.send(b"the first half")
        here.flow.close("the disk is gone")
        assert await there.receive() == b"the first half"
        for _ in range(2):
            with pytest.raises(Unreachable, match=r"^the disk is gone$"):
                await there.receive()
        with pytest.raises(Unreachable, match="the disk is gone"):
            await there.send(b"x")

    over(scenario)


@proves("channel.stream-ends")
def test_whoever_waits_for_room_or_for_bytes_hears_that_the_other_side_left(over) -> None:
    async def scenario(near: End, far: End) -> None:
        here, there = near.stream(5), far.stream(5)
        waiting = [asyncio.create_task(w) for w in (here.send(DATA), here.receive(), here.gone())]
        await settle()
        there.flow.close()
        for task in waiting[:2]:
            with pytest.raises(Unreachable, match="hung up"):
                await task
        await waiting[2]

    over(scenario)


@proves("channel.stream-ends")
def test_a_link_that_goes_takes_its_streams_along(over) -> None:
    async def scenario(near: End, far: End) -> None:
        here, there = near.stream(5), far.stream(6)
        waiting = [asyncio.create_task(stream.receive()) for stream in (here, there)]
        await settle(5)
        await near.link.close("enough")
        for task in waiting:
            with pytest.raises(Unreachable):
                await task

    over(scenario)


@proves("channel.stream-rules")
def test_an_end_that_ignores_credit_is_cut_and_its_neighbour_goes_on(over) -> None:
    async def scenario(near: End, far: End) -> None:
        there, beside = far.stream(5), far.stream(7)
        near.stream(5)
        neighbour = near.stream(7)
        for _ in range(WINDOW // CHUNK + 1):
            near.put(5, Type.DATA, bytes(CHUNK))
            await near.drained()
        with pytest.raises(Malformed, match="not granted"):
            await there.gone()
            await there.receive()
        assert len(there.flow.waiting) == 0, "nothing of it is kept"
        got = asyncio.create_task(whole(beside))
        await neighbour.send(DATA)
        neighbour.flow.close("")
        assert await got == DATA

    over(scenario)


@proves("channel.stream-fair")
def test_two_streams_of_one_link_take_turns(over) -> None:
    async def scenario(near: End, far: End) -> None:
        senders = [near.stream(channel) for channel in (5, 7)]
        readers = [far.stream(channel) for channel in (5, 7)]
        got = asyncio.gather(*(whole(each) for each in readers))

        async def say(stream: Stream) -> None:
            await stream.send(DATA)
            stream.flow.close("")

        # The first has filled its window before the second begins.
        first = asyncio.create_task(say(senders[0]))
        await asyncio.sleep(0)
        await asyncio.gather(first, say(senders[1]))
        assert await got == [DATA, DATA]
        seen, ahead = Counter[int](), 0
        for channel in far.came[: len(far.came) // 2]:
            seen[channel] += 1
            ahead = max(ahead, abs(seen[5] - seen[7]))
        assert ahead <= 2 * WINDOW // CHUNK

    over(scenario)


# --- the rules, frame by frame ---------------------------------------------------------------------


def fed(*frames_: tuple[Type, bytes], terms: Terms = PLAIN) -> Flow:
    flow = Flow(lambda _kind, _payload: None, terms)
    for each in frames_:
        flow.feed(*each)
    return flow


@proves("channel.stream-rules", "git.flow-control")
@pytest.mark.parametrize(
    "given",
    [
        [(Type.DATA, bytes(CHUNK))] * (WINDOW // CHUNK + 1),
        [(Type.DATA, bytes(CHUNK + 1))],
        [(Type.DATA, b""), (Type.DATA, b"more")],
        [(Type.CREDIT, b"\0\0\0\1")],
        [(Type.CREDIT, b"1")],
        [(Type.CREDIT, b"")],
        [(Type.CREDIT, b"\0\0\0\0")],
    ],
)
def test_who_breaks_a_rule_ends_the_stream_and_fills_no_memory(given) -> None:
    flow = fed(*given)
    assert (flow.broken, bool(flow.waiting)) == (True, False)
    assert flow.closed is not None
    flow.feed(Type.DATA, b"after that nothing is heard")
    assert not flow.waiting


@proves("node.relay-bounds")
def test_on_the_terms_of_relays_a_frame_costs_more_than_its_bytes_and_crumbs_are_refused() -> None:
    sent: list[tuple[Type, bytes]] = []
    flow = Flow(lambda *each: sent.append(each), RELAYED)
    while flow.room == RELAYED.data_max:
        flow.put(bytes(flow.room))
    left = flow.room
    assert left == RELAYED.window % (RELAYED.data_max + RELAYED.frame_cost) - RELAYED.frame_cost
    for crumb in (b"\0\0\0\1", (RELAY_GRANT_BYTES_MIN - 1).to_bytes(4, "big")):
        assert fed((Type.CREDIT, crumb), terms=RELAYED).broken
    flow.feed(Type.CREDIT, RELAY_GRANT_BYTES_MIN.to_bytes(4, "big"))
    assert (flow.broken, flow.room) == (False, RELAYED.data_max)
    assert fed((Type.DATA, b""), terms=RELAYED).broken, "no direction ends alone"
    full = [(Type.DATA, bytes(RELAYED.data_max))] * (RELAYED.window // RELAYED.data_max)
    assert fed(*full, terms=RELAYED).broken, "the frames are over what was granted"


@proves("channel.stream-rules")
@pytest.mark.parametrize(
    ("last", "said"),
    [
        (b"", "the other side hung up"),
        (b'{"code": 0}', ""),
        (b'{"code": 1, "error": "no room"}', "no room"),
        (b'{"code": 1}', "the other side hung up"),
        (b"[]", "the other side hung up"),
        (b"{" * 9000, "the other side hung up"),
        (b'{"code": 1, "error": "' + b"x" * 9000 + b'"}', None),
    ],
)
def test_whatever_a_close_says_is_an_end_and_a_sentence_of_bounded_length(last, said) -> None:
    flow = fed((Type.CLOSE, last))
    assert flow.closed is not None
    assert len(flow.closed) <= 1000
    assert said in (flow.closed, None)


# --- joined to something else ------------------------------------------------------------------------


@proves("channel.stream-joined")
def test_two_joined_streams_are_one_and_the_end_of_one_is_the_end_of_the_other() -> None:
    async def scenario() -> None:
        (near, one), (other, far) = crossed(), crossed()
        here, there = Stream(near, drained), Stream(far, drained)
        joined = asyncio.create_task(splice(Stream(one, drained), Stream(other, drained)))
        got = asyncio.create_task(whole(there))
        await here.send(DATA)
        near.put(b"")
        assert await got == DATA
        await there.send(b"the answer")
        far.close("and a sentence")
        assert await here.receive() == b"the answer"
        with pytest.raises(Unreachable, match=r"^and a sentence$"):
            await here.receive()
        await joined

    run(scenario())


@proves("channel.stream-joined", "channel.stream-ends")
def test_what_was_sent_before_an_end_goes_through_the_middle_before_it() -> None:
    async def scenario() -> None:
        (near, one), (other, far) = crossed(), crossed()
        here, there = Stream(near, drained), Stream(far, drained)
        data = DATA[: WINDOW // 2]
        # All of it is in the middle, and the end behind it, before the middle has its first turn.
        await here.send(data)
        near.close("and a sentence")
        await settle(2)
        joined = asyncio.create_task(splice(Stream(one, drained), Stream(other, drained)))
        got = b""
        while len(got) < len(data):
            got += await there.receive()
        assert got == data
        with pytest.raises(Unreachable, match=r"^and a sentence$"):
            await there.receive()
        await joined

    run(scenario())


@proves("channel.stream-joined", "channel.stream-bounded")
def test_an_end_behind_the_middle_that_reads_nothing_costs_the_middle_a_window_at_most() -> None:
    async def scenario() -> None:
        (near, one), (other, far) = crossed(), crossed()
        here = Stream(near, drained)
        joined = asyncio.create_task(splice(Stream(one, drained), Stream(other, drained)))
        sending = asyncio.create_task(here.send(bytes(10 * WINDOW)))
        await settle()
        assert not sending.done()
        assert len(one.waiting) <= WINDOW
        assert len(far.waiting) == WINDOW
        # It left without a word, and the far end, which takes nothing, is told in a while.
        sending.cancel()
        near.close()
        await asyncio.wait_for(joined, 5)
        await settle(5)
        assert far.closed is not None

    streams._END_S, before = 0.05, streams._END_S
    try:
        run(scenario())
    finally:
        streams._END_S = before


@proves("channel.stream-joined")
def test_the_middle_cuts_both_ends_where_one_breaks_the_rules() -> None:
    async def scenario() -> None:
        (near, one), (other, far) = crossed(), crossed()
        joined = asyncio.create_task(splice(Stream(one, drained), Stream(other, drained)))
        for _ in range(WINDOW // CHUNK + 1):
            one.feed(Type.DATA, bytes(CHUNK))
        with pytest.raises(Malformed):
            await joined
        await settle(5)
        assert (near.closed, far.closed) == ("the other side hung up",) * 2
        assert not far.waiting

    run(scenario())


class Program:
    """Two pipes, as to a program."""

    def __init__(self) -> None:
        (self._in_read, self._in_write), (self._out_read, self._out_write) = os.pipe(), os.pipe()
        self.read = os.fdopen(self._in_read, "rb", 0)
        self.write = os.fdopen(self._out_write, "wb", 0)

    async def pair(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        reader = asyncio.StreamReader()
        self.reading, _ = await loop.connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(self._out_read, "rb", 0)
        )
        transport, protocol = await loop.connect_write_pipe(
            asyncio.streams.FlowControlMixin, os.fdopen(self._in_write, "wb", 0)
        )
        self.writer = asyncio.StreamWriter(transport, protocol, None, loop)
        return reader, self.writer

    async def close(self) -> None:
        for end in (self.reading, self.writer, self.read, self.write):
            end.close()
        await settle(4)


@proves("git.flow-control", "channel.stream-joined")
def test_a_program_is_joined_to_a_stream_until_it_has_said_everything() -> None:
    async def scenario() -> None:
        program = Program()
        near, far = crossed()
        here, there = Stream(near, drained), Stream(far, drained)
        joined = asyncio.create_task(there.join(*await program.pair()))
        heard = asyncio.create_task(asyncio.to_thread(program.read.readall))
        await here.send(DATA)
        near.put(b"")
        assert await heard == DATA, "the end of one direction is an end for the program"
        assert not joined.done()
        saying = asyncio.create_task(asyncio.to_thread(program.write.write, DATA))
        await settle()
        assert len(near.waiting) == WINDOW
        assert not saying.done()
        got = asyncio.create_task(whole(here))
        await saying
        program.write.close()
        await joined
        assert await got == DATA
        await program.close()

    asyncio.run(scenario())


@proves("git.flow-control", "channel.stream-joined")
@pytest.mark.parametrize("stuck", [False, True])
def test_a_program_is_let_go_when_the_far_end_leaves_also_where_it_reads_nothing(stuck) -> None:
    async def scenario() -> None:
        program = Program()
        near, far = crossed()
        there = Stream(far, drained)
        joined = asyncio.create_task(there.join(*await program.pair()))
        if stuck:
            sending = asyncio.create_task(Stream(near, drained).send(DATA))
            await settle()
            sending.cancel()
        near.close()
        with pytest.raises(Unreachable, match="hung up"):
            await asyncio.wait_for(joined, 5)
        await program.close()

    asyncio.run(scenario())
