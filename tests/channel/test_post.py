"""What `channel/base.py` promises of mailboxes, held against every one of them."""

import random
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from tests.channel.memory_post import MemoryPost, Place
from tests.channel.rigs import run
from tests.promise import proves

from muster.channel.base import Post
from muster.errors import Exhausted, Malformed, Unreachable
from muster.limits import PACKET_BYTES_MAX


@dataclass
class Rig:
    """Three machines at one place, and what can happen to it."""

    near: Post
    far: Post
    third: Post
    away: Callable[[bool], None]
    fill: Callable[[], None]


def memory() -> Rig:
    place, rng = Place(), random.Random(7)

    def away(is_away: bool) -> None:
        place.away = is_away

    def fill() -> None:
        place.room = 0

    near, far, third = (MemoryPost(place, name, rng.shuffle) for name in ("near", "far", "third"))
    return Rig(near, far, third, away, fill)


@pytest.fixture(params=[memory], ids=["memory"])
def rig(request) -> Rig:
    return request.param()


@proves("channel.post-nothing-lost")
def test_what_is_put_is_taken_whole_until_it_is_acknowledged_and_never_again(rig):
    async def scenario() -> None:
        sent = {bytes([n]) * 1000 for n in range(20)}
        for packet in sorted(sent):
            await rig.near.put(packet, to="far")
        for _ in range(3):
            assert {each.body for each in await rig.far.take()} == sent
        taken = await rig.far.take()
        await rig.far.ack([each.id for each in taken[:5]])
        left = {each.body for each in taken[5:]}
        assert {each.body for each in await rig.far.take()} == left
        await rig.far.ack([each.id for each in taken])
        await rig.far.ack([each.id for each in taken])
        assert await rig.far.take() == []

    run(scenario())


@proves("channel.post-nothing-lost")
def test_so_many_are_taken_at_once_and_the_rest_after_them(rig):
    async def scenario() -> None:
        for number in range(10):
            await rig.near.put(bytes([number]), to="far")
        seen = set()
        while taken := await rig.far.take(3):
            assert len(taken) <= 3
            seen |= {each.body for each in taken}
            await rig.far.ack([each.id for each in taken])
        assert len(seen) == 10

    run(scenario())


@proves("channel.post-for-one")
def test_nobody_takes_or_acknowledges_what_is_for_another(rig):
    async def scenario() -> None:
        await rig.near.put(b"for far", to="far")
        assert await rig.third.take() == await rig.near.take() == []
        (waiting,) = await rig.far.take()
        await rig.third.ack([waiting.id, "no such packet"])
        assert [each.body for each in await rig.far.take()] == [b"for far"]

    run(scenario())


@proves("channel.post-says-so")
def test_a_place_that_is_away_or_full_and_a_packet_that_is_too_large_are_said(rig):
    async def scenario() -> None:
        with pytest.raises(Malformed):
            await rig.near.put(b"x" * (PACKET_BYTES_MAX + 1), to="far")
        await rig.near.put(b"x" * 1000, to="far")
        rig.away(True)
        with pytest.raises(Unreachable):
            await rig.near.put(b"x", to="far")
        with pytest.raises(Unreachable):
            await rig.far.take()
        with pytest.raises(Unreachable):
            await rig.far.ack(["1"])
        rig.away(False)
        assert [each.body for each in await rig.far.take()] == [b"x" * 1000]
        rig.fill()
        with pytest.raises(Exhausted):
            await rig.near.put(b"y", to="far")
        assert len(await rig.far.take()) == 1

    run(scenario())
