"""The only place that reads a clock.

Two readings travel together as `Now`. `wall_ms` is what people call the time; it may jump either
way, so it only dates things. `boot_ms` measures durations and counts the time a machine slept:
`time.monotonic` stops in suspend on Linux, so a laptop that slept eight hours would still believe
in a thirty-second lease. Linux has CLOCK_BOOTTIME for that; elsewhere the monotonic clock is the
best there is.

What is decided for good (an order is too old, a deadline is over, evidence counts no more) must
not be decided by a clock that is wrong for a moment. So the core goes by a `Steady` clock: what the
wall clock said at the start, and the time that passed since. Small corrections are followed at
once; a jump is believed when it has stayed for `CLOCK_TRUST_MS`, or when more of the machines that
are linked go by the new time than by another one: a hub among them, or two. So a member alone, who
may lie about its clock, moves nobody's.
"""

import sys
import time
from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.limits import CLOCK_SKEW_MS
from muster.task.instruction import Now

# On macOS the monotonic clock of the system, other than Python's, counts sleep.
_BOOT = getattr(time, "CLOCK_BOOTTIME", None)
if sys.platform == "darwin":
    _BOOT = time.CLOCK_MONOTONIC


def boot_ms() -> int:
    """Milliseconds since this machine booted, sleep included where the platform can tell."""
    if _BOOT is not None:
        return time.clock_gettime_ns(_BOOT) // 1_000_000
    return time.monotonic_ns() // 1_000_000


# A correction so small is followed at once; a larger one is believed when it stays for so long.
CLOCK_STEP_MS: Final = 2_000
CLOCK_TRUST_MS: Final = 5 * 60_000
# So many members, or one hub, vouch for a time to which our clock jumped.
CLOCK_VOUCHERS_MIN: Final = 2


class Told(NamedTuple):
    """What a linked machine said when it was: its wall clock less the time since our start."""

    offset_ms: int
    hub: bool


class Steady:
    """The wall clock as this machine goes by it; it reads nothing itself."""

    def __init__(self, start: Now) -> None:
        self._offset_ms = start.wall_ms - start.boot_ms
        # Where the wall clock jumped to, and since when it has been there.
        self._other_ms = self._offset_ms
        self._since_ms = start.boot_ms

    @property
    def off_ms(self) -> int:
        """How far the wall clock is from what we go by, ahead or behind (negative)."""
        return self._other_ms - self._offset_ms

    def read(self, now: Now) -> Now:
        """The time to go by, from what both clocks say."""
        found_ms = now.wall_ms - now.boot_ms
        if abs(found_ms - self._other_ms) > CLOCK_STEP_MS:
            self._since_ms = now.boot_ms
        self._other_ms = found_ms
        if abs(self.off_ms) <= CLOCK_STEP_MS or now.boot_ms - self._since_ms >= CLOCK_TRUST_MS:
            self._offset_ms = found_ms
        return Now(now.boot_ms, now.boot_ms + self._offset_ms)

    def heard(self, others: Iterable[Told]) -> None:
        """The times that linked machines go by: where our wall clock jumped to them, we follow.

        They only choose between two times of our own, so whoever lies gains little.
        """
        told = tuple(others)
        new = [each for each in told if abs(each.offset_ms - self._other_ms) <= CLOCK_SKEW_MS]
        vouched = len(new) >= CLOCK_VOUCHERS_MIN or any(each.hub for each in new)
        if abs(self.off_ms) > CLOCK_SKEW_MS and vouched and 2 * len(new) > len(told):
            self._offset_ms = self._other_ms


def read() -> Now:
    """Both clocks, now."""
    return Now(boot_ms(), time.time_ns() // 1_000_000)
