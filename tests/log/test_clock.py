"""Hybrid logical time: forward only, near the wall clock, deaf to mad clocks."""

from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.limits import CLOCK_AHEAD_MS_MAX
from muster.log.clock import ZERO, Stamp, merge, tick

TIMES = st.integers(0, 2**50)
STAMPS = st.builds(Stamp, TIMES, st.integers(0, 1000))


@proves("log.clock-forward")
@given(STAMPS, TIMES)
def test_a_tick_is_always_later(last, now_ms):
    assert tick(last, now_ms) > last


@proves("log.clock-forward")
@given(STAMPS, STAMPS, TIMES)
def test_a_merge_is_later_than_our_own_last_stamp(last, seen, now_ms):
    assert merge(last, seen, now_ms) > last


@proves("log.clock-forward")
@given(STAMPS, STAMPS, TIMES)
def test_a_merge_is_later_than_what_was_seen_unless_that_is_far_ahead(last, seen, now_ms):
    if seen.ms <= now_ms + CLOCK_AHEAD_MS_MAX:
        assert merge(last, seen, now_ms) > seen


@proves("log.clock-clamped")
@given(STAMPS, st.lists(STAMPS, max_size=20), TIMES)
def test_no_number_of_future_stamps_moves_us_far_beyond_the_wall_clock(last, seen, now_ms):
    ours = Stamp(min(last.ms, now_ms), last.n)
    for each in seen:
        ours = merge(ours, each, now_ms)
    assert ours.ms <= now_ms + CLOCK_AHEAD_MS_MAX


@proves("log.clock-near")
def test_with_a_clock_that_runs_the_stamp_is_the_wall_clock():
    assert tick(ZERO, 5) == Stamp(5, 0)
    assert tick(Stamp(5, 0), 5) == Stamp(5, 1)
    assert tick(Stamp(5, 9), 4) == Stamp(5, 10)
    assert merge(Stamp(5, 9), Stamp(7, 3), 6) == Stamp(7, 4)
    assert merge(Stamp(5, 9), Stamp(7, 3), 8) == Stamp(8, 0)
