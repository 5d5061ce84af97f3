"""Hybrid logical time: wall milliseconds that never run backwards.

Rule 1: nothing here reads a clock; `now_ms` is an argument.
Rule 2: a stamp orders and informs. It never decides whether an entry is accepted.

A stamp is `(ms, n)`: the wall clock, and a counter for stamps within one millisecond or
while the wall clock stands behind what was already seen. An entry's stamp is later than
everything its writer had seen, so causes sort before effects even between machines whose
clocks disagree. A clock far ahead would drag the whole fleet with it, so what others say
moves our own time at most CLOCK_AHEAD_MS_MAX beyond our wall clock.
"""

from typing import NamedTuple

from muster.limits import CLOCK_AHEAD_MS_MAX


class Stamp(NamedTuple):
    """A moment: wall milliseconds since 1970, then a counter."""

    ms: int
    n: int


ZERO = Stamp(0, 0)


def tick(last: Stamp, now_ms: int) -> Stamp:
    """Return the stamp of a new entry: later than `last`, at `now_ms` when that is possible."""
    if now_ms > last.ms:
        return Stamp(now_ms, 0)
    return Stamp(last.ms, last.n + 1)


def merge(last: Stamp, seen: Stamp, now_ms: int) -> Stamp:
    """Return our clock after seeing another machine's stamp: later than `last`.

    It is later than `seen` too, unless `seen` lies so far in the future that following it
    would be obeying a broken or hostile clock.
    """
    limit = now_ms + CLOCK_AHEAD_MS_MAX
    if seen.ms > limit:
        seen = Stamp(limit, 0)
    return tick(max(last, seen), now_ms)
