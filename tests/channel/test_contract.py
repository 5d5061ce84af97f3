"""What `channel/base.py` promises, held against every channel and both event loops."""

import asyncio
import contextlib
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
from tests.channel.memory import pair
from tests.channel.rigs import LOOPS, RIGS, Rig, run, short_folder
from tests.promise import proves

from muster.channel import CHANNELS
from muster.channel.base import Link, LinkTasks
from muster.channel.frame import Type, encode
from muster.errors import Denied, Malformed, Unreachable
from muster.limits import FRAME_BYTES_MAX, FRAME_PAYLOAD_BYTES_MAX


class World:
    """A rig and the loop it runs on."""

    def __init__(self, rig: Rig, loop: str) -> None:
        self.rig = rig
        self._loop = loop

    def run(self, scenario: Coroutine[Any, Any, None]) -> None:
        run(scenario, self._loop)


@pytest.fixture(params=[f"{rig}-{loop}" for rig in RIGS for loop in LOOPS])
def world(request: pytest.FixtureRequest) -> Iterator[World]:
    rig, loop = request.param.split("-")
    with short_folder() as folder:
        yield World(RIGS[rig](folder), loop)


def numbered(number: int, size: int = 16) -> bytes:
    return encode(Type.DATA, number, bytes([number % 256]) * size)


async def turns(count: int) -> None:
    """Let everybody who can go on do so, without a clock."""
    for _ in range(count):
        await asyncio.sleep(0)


@proves("channel.in-order")
def test_frames_that_are_sent_together_arrive_one_by_one_in_order(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            together = [numbered(n, size=n * 7) for n in range(10)]
            await near.send_all(together)
            await near.send(numbered(10))
            assert [await far.receive() for _ in range(11)] == [*together, numbered(10)]

    world.run(scenario())


@proves("channel.in-order")
def test_frames_sent_without_a_turn_of_the_loop_keep_their_place(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            assert near.ready
            near.send_all_nowait([numbered(0), numbered(1)])
            await near.send(numbered(2))
            near.send_all_nowait([numbered(3)])
            assert [await far.receive() for _ in range(4)] == [numbered(n) for n in range(4)]
            with pytest.raises(Malformed):
                near.send_all_nowait([numbered(4), b"x" * (FRAME_BYTES_MAX + 1)])
            await near.send(numbered(5))
            assert await far.receive() == numbered(5)

    world.run(scenario())


@proves("channel.backpressure")
def test_a_link_is_not_ready_while_its_far_end_is_slow_or_gone(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            frame, sent = numbered(1, size=FRAME_PAYLOAD_BYTES_MAX // 2), 0
            while near.ready:
                near.send_all_nowait([frame])
                sent += 1
                await asyncio.sleep(0)
            for _ in range(sent):
                assert await far.receive() == frame
            await near.close("done")
            assert not near.ready

    world.run(scenario())


@proves("channel.oversize-refused")
def test_of_frames_sent_together_none_is_sent_when_one_is_too_large(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            with pytest.raises(Malformed):
                await near.send_all([numbered(1), b"x" * (FRAME_BYTES_MAX + 1)])
            await near.send(numbered(2))
            assert await far.receive() == numbered(2)

    world.run(scenario())


@proves("channel.in-order")
def test_frames_arrive_whole_and_in_order_in_both_directions(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):

            async def push(link: Link) -> None:
                for number in range(100):
                    await link.send(numbered(number, size=number * 7))

            async def pull(link: Link) -> list[bytes]:
                return [await link.receive() for _ in range(100)]

            _, _, at_far, at_near = await asyncio.gather(
                push(near), push(far), pull(far), pull(near)
            )
            assert at_far == at_near == [numbered(n, size=n * 7) for n in range(100)]

    world.run(scenario())


@proves("channel.in-order")
def test_the_largest_frame_goes_through(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            largest = numbered(7, FRAME_PAYLOAD_BYTES_MAX)
            assert len(largest) == FRAME_BYTES_MAX
            await near.send(largest)
            assert await far.receive() == largest

    world.run(scenario())


@proves("channel.oversize-refused")
def test_an_oversize_frame_is_refused_before_a_byte_is_sent(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            with pytest.raises(Malformed, match="split it"):
                await near.send(bytes(FRAME_BYTES_MAX + 1))
            await near.send(b"still works")
            assert await far.receive() == b"still works"
            assert near.counters.frames_out == 1

    world.run(scenario())


@proves("channel.close-reason")
def test_the_far_end_learns_why_a_link_was_closed(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            await near.send(b"last frame")
            await near.close("lease lost ☾")
            assert await far.receive() == b"last frame"
            with pytest.raises(Unreachable, match="lease lost ☾"):
                await far.receive()

    world.run(scenario())


@proves("channel.close-reason")
def test_a_long_reason_is_cut_between_characters(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            await near.close("☾" * 200)
            with pytest.raises(Unreachable, match="☾" * 41) as caught:
                await far.receive()
            assert "☾" * 42 not in str(caught.value)

    world.run(scenario())


@proves("channel.gone-is-unreachable")
def test_after_a_close_every_call_at_both_ends_is_unreachable(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            await far.close("done")
            for _ in range(2):
                for link in (near, far):
                    with pytest.raises(Unreachable):
                        await link.receive()
                    with pytest.raises(Unreachable):
                        await link.send(b"too late")
            assert near.counters.frames_out == far.counters.frames_out == 0
            await far.close("again")
            await near.close("again")

    world.run(scenario())


@proves("channel.close-cuts-waits")
def test_a_close_wakes_the_waiting_receivers_of_both_ends(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            waiting = [asyncio.create_task(link.receive()) for link in (near, far)]
            await asyncio.sleep(0)
            await near.close("cut")
            done, _ = await asyncio.wait(waiting, timeout=2)
            assert len(done) == 2
            for task in waiting:
                assert isinstance(task.exception(), Unreachable)

    world.run(scenario())


async def fill(link: Link) -> tuple[int, "asyncio.Task[None]"]:
    """Send largest frames until a send waits: (how many went, the waiting send)."""
    sent = 0
    while True:
        task = asyncio.create_task(link.send(numbered(sent, FRAME_PAYLOAD_BYTES_MAX)))
        done, _ = await asyncio.wait([task], timeout=0.2)
        if not done:
            return sent, task
        sent += 1
        # Of them a kernel keeps up to 32 MiB for a receiver (tcp_rmem), and 4 MiB for a sender.
        assert sent < 160, "40 MiB were taken for a reader that reads nothing"


@proves("channel.backpressure")
def test_a_slow_reader_makes_the_sender_wait_and_then_loses_nothing(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            sent, waiting = await fill(near)
            for number in range(sent + 1):
                assert await far.receive() == numbered(number, FRAME_PAYLOAD_BYTES_MAX)
            await waiting

    world.run(scenario())


@proves("channel.backpressure")
def test_many_waiting_senders_share_one_bounded_buffer(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            sent, waiting = await fill(near)
            more = [
                asyncio.create_task(near.send(numbered(200 + n, FRAME_PAYLOAD_BYTES_MAX)))
                for n in range(20)
            ]
            await turns(100)
            # A cancelled send was not sent or is sent whole; what arrives now was buffered.
            for task in more:
                task.cancel()
            await asyncio.wait(more)
            last = asyncio.create_task(near.send(b"last"))
            arrived = 0
            while await far.receive() != b"last":
                arrived += 1
            assert sent + 1 <= arrived <= sent + 2
            await asyncio.gather(waiting, last)

    world.run(scenario())


@proves("channel.backpressure")
def test_senders_that_wake_together_still_take_turns(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            sent, waiting = await fill(near)
            more = [
                asyncio.create_task(near.send(numbered(200 + n, FRAME_PAYLOAD_BYTES_MAX)))
                for n in range(60)
            ]
            await turns(100)
            # Enough is read to wake the senders once; most must find the buffer full again.
            for _ in range(sent // 2 + 1):
                await far.receive()
            await asyncio.wait([waiting, *more], return_when=asyncio.FIRST_COMPLETED)
            await turns(100)
            for task in more:
                task.cancel()
            await asyncio.wait([waiting, *more])
            went = sum(not task.cancelled() for task in more)
            last = asyncio.create_task(near.send(b"last"))
            arrived = sent // 2 + 1
            while await far.receive() != b"last":
                arrived += 1
            assert arrived <= sent + 1 + went + 1
            await last

    world.run(scenario())


@proves("channel.gone-is-unreachable")
def test_who_closes_a_link_reads_nothing_more_from_it(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            for _ in range(3):
                await near.send(b"unread")
            assert await far.receive() == b"unread"
            await far.close("heard enough")
            with pytest.raises(Unreachable, match="heard enough"):
                await far.receive()

    world.run(scenario())


@proves("channel.close-cuts-waits")
def test_a_close_frees_a_sender_that_waits_for_a_dead_reader(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, _):
            _, waiting = await fill(near)
            async with asyncio.timeout(3):
                await near.close("tired of waiting")
            with contextlib.suppress(Unreachable):
                await waiting
            with pytest.raises(Unreachable):
                await near.send(b"more")

    world.run(scenario())


@proves("channel.in-order")
def test_concurrent_senders_do_not_mix_their_bytes(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            frames = [numbered(n, 1000 * (n % 40)) for n in range(120)]
            senders = [asyncio.create_task(near.send(frame)) for frame in frames]
            arrived = [await far.receive() for _ in frames]
            await asyncio.gather(*senders)
            assert sorted(arrived) == sorted(frames)

    world.run(scenario())


@proves("channel.many-links")
def test_one_listener_carries_many_links_apart(world: World) -> None:
    async def scenario() -> None:
        async def echo(link: Link) -> None:
            while True:
                await link.send(await link.receive())

        listener = await world.rig.listen(echo)
        links = [await world.rig.near.dial(listener.address) for _ in range(12)]

        async def talk(number: int, link: Link) -> None:
            for turn in range(5):
                await link.send(numbered(number * 10 + turn))
                assert await link.receive() == numbered(number * 10 + turn)

        await asyncio.gather(*(talk(n, link) for n, link in enumerate(links)))
        await listener.close()
        for link in links:
            with pytest.raises(Unreachable):
                await link.receive()
            await link.close("over")

    world.run(scenario())


@proves("channel.in-order")
def test_a_cancelled_receive_loses_no_frame(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            for _ in range(3):
                waiting = asyncio.create_task(far.receive())
                await asyncio.sleep(0)
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
            await near.send(b"one")
            assert await far.receive() == b"one"

    world.run(scenario())


@proves("channel.link-life")
def test_a_link_ends_with_its_handler_and_a_failure_is_not_silent(world: World) -> None:
    async def scenario() -> None:
        complaints: list[Any] = []
        asyncio.get_running_loop().set_exception_handler(lambda _, c: complaints.append(c))

        async def fail(link: Link) -> None:
            if await link.receive() == b"break":
                raise ZeroDivisionError

        listener = await world.rig.listen(fail)
        for word in (b"break", b"return"):
            link = await world.rig.near.dial(listener.address)
            await link.send(word)
            with pytest.raises(Unreachable):
                await link.receive()
            await link.close("over")
        await listener.close()
        assert [type(c["exception"]) for c in complaints] == [ZeroDivisionError]

    world.run(scenario())


@proves("channel.gone-is-unreachable")
def test_where_nobody_listens_a_dial_is_unreachable(world: World) -> None:
    async def scenario() -> None:
        async def idle(link: Link) -> None:
            await link.receive()

        listener = await world.rig.listen(idle)
        await listener.close()
        await listener.close()
        with pytest.raises(Unreachable):
            await world.rig.near.dial(listener.address)

    world.run(scenario())


@proves("channel.peer-proven")
def test_a_dial_for_another_machine_is_refused(world: World) -> None:
    async def scenario() -> None:
        lives: list[Link] = []

        async def idle(link: Link) -> None:
            lives.append(link)
            with contextlib.suppress(Unreachable):
                await link.receive()

        listener = await world.rig.listen(idle)
        with pytest.raises(Denied):
            await world.rig.near.dial(listener.address, peer="ee" * 32)
        await listener.close()
        assert lives == []

    world.run(scenario())


@proves("channel.statistics")
def test_both_ends_count_the_same_frames_and_bytes(world: World) -> None:
    async def scenario() -> None:
        async with world.rig.connected() as (near, far):
            for size in (0, 10, 300):
                await near.send(bytes(size))
                await far.receive()
            out, came = near.counters, far.counters
            assert (out.frames_out, out.bytes_out) == (3, 310)
            assert (came.frames_in, came.bytes_in) == (3, 310)
            assert came.frames_out == out.frames_in == 0
            assert out.since <= asyncio.get_running_loop().time()

    world.run(scenario())


@proves("channel.link-life")
def test_a_life_cancelled_before_its_first_step_still_closes_its_link() -> None:
    async def scenario() -> None:
        async def never(link: Link) -> None:
            raise AssertionError(link)

        near, far = pair()
        hosting = LinkTasks(never)
        hosting.adopt(far)
        await hosting.close()
        with pytest.raises(Unreachable, match="listener is closed"):
            await near.receive()

    run(scenario())


def test_every_channel_is_in_the_suite() -> None:
    here = Path(__file__).parents[2] / "src" / "muster" / "channel"
    parts = {
        "__init__",
        "base",
        "frame",
        "framed",
        "backoff",
        "ipc_client",
        "tls",
        "address",
        "unproven",
        "flow",
        "stream",
        "strand",
        "sealed",
        "nats_client",
        "nats_pull",
        "nats_waits",
        "tunnel",
        "hand",
        "listening",
        "knock",
        "ssh_client",
        "sftp",
        "far_files",
        "s3",
        "s3_answer",
        "git_shelf",
        "mdns",
        "folder_watch",
        "nats_lease",
        "turn",
        "wake",
    }
    # Mailboxes have a suite of their own.
    parts |= {spec.name for spec in CHANNELS if spec.shape == "post"}
    assert {path.stem for path in here.glob("*.py")} - parts == set(RIGS) - {"memory"}
