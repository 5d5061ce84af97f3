"""When to dial again: bounds, jitter and reset, without a clock."""

import random

from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.channel.backoff import Backoff
from muster.limits import BACKOFF_MS_MAX, BACKOFF_STABLE_MS


@proves("channel.backoff")
def test_the_bound_doubles_up_to_half_a_minute() -> None:
    backoff = Backoff(lambda: 1.0)
    assert [backoff.failed() for _ in range(9)] == [
        500,
        1000,
        2000,
        4000,
        8000,
        16000,
        30000,
        30000,
        30000,
    ]


@proves("channel.backoff")
def test_a_stable_link_starts_over_and_a_short_one_does_not() -> None:
    backoff = Backoff(lambda: 1.0)
    for _ in range(4):
        backoff.failed()
    assert backoff.lost(lived_ms=BACKOFF_STABLE_MS - 1) == 8000
    assert backoff.lost(lived_ms=BACKOFF_STABLE_MS) == 500


@proves("channel.backoff")
@given(st.integers(0, 2**32), st.integers(0, 200))
def test_a_pause_is_always_within_its_bound(seed: int, failures: int) -> None:
    backoff, highest = Backoff(random.Random(seed).random), Backoff(lambda: 1.0)
    for _ in range(failures):
        assert 0 <= backoff.failed() < highest.failed() <= BACKOFF_MS_MAX


@proves("channel.backoff")
def test_a_fleet_comes_back_spread_out() -> None:
    fleet = [Backoff(random.Random(seed).random) for seed in range(100)]
    pauses = [[machine.failed() for _ in range(8)][-1] for machine in fleet]
    in_each_third = [
        sum(third * 10_000 <= p < (third + 1) * 10_000 for p in pauses) for third in range(3)
    ]
    assert min(in_each_third) > 15
