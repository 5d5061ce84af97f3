"""The faults of the in-process channel come from their seed and from nothing else."""

import random
from collections.abc import Callable

import pytest
from tests.channel.memory import Faults, pair
from tests.channel.rigs import run
from tests.promise import proves

from muster.errors import Unreachable


@proves("channel.memory-faults")
def test_one_seed_cuts_the_link_at_one_frame() -> None:
    async def frames_until_loss(seed: int) -> int:
        near, far = pair(faults=Faults(random.Random(seed).random, loss=0.2))
        for number in range(1000):
            try:
                await near.send(b"frame")
            except Unreachable:
                with pytest.raises(Unreachable, match="seeded"):
                    await far.receive()
                return number
            assert await far.receive() == b"frame"
        return -1

    async def scenario() -> None:
        lengths = [await frames_until_loss(seed) for seed in range(20)]
        assert lengths == [await frames_until_loss(seed) for seed in range(20)]
        assert len(set(lengths)) > 5

    run(scenario())


@proves("channel.memory-faults")
def test_random_delays_keep_the_order_and_the_close_comes_last() -> None:
    async def scenario() -> None:
        agenda: list[tuple[float, int, Callable[[], None]]] = []

        def schedule(delay_s: float, callback: Callable[[], None]) -> None:
            agenda.append((delay_s, len(agenda), callback))

        faults = Faults(random.Random(7).random, delay_s_max=3.0, schedule=schedule)
        near, far = pair(faults=faults)
        for number in range(10):
            await near.send(b"%d" % number)
        await near.close("over")
        assert far.counters.frames_in == 0
        for _, _, callback in sorted(agenda, key=lambda item: item[:2]):
            callback()
        assert [await far.receive() for _ in range(10)] == [b"%d" % n for n in range(10)]
        with pytest.raises(Unreachable, match="over"):
            await far.receive()

    run(scenario())
