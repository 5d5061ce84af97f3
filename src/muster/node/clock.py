"""The only place that reads a clock.

Two readings travel together as `Now`. `wall_ms` is what people call the time; it may jump either
way, so it only dates things. `boot_ms` measures durations and counts the time a machine slept:
`time.monotonic` stops in suspend on Linux, so a laptop that slept eight hours would still believe
in a thirty-second lease. Linux has CLOCK_BOOTTIME for that; elsewhere the monotonic clock is the
best there is.
"""

import time

from muster.task.instruction import Now

_BOOT = getattr(time, "CLOCK_BOOTTIME", None)


def boot_ms() -> int:
    """Milliseconds since this machine booted, sleep included where the platform can tell."""
    if _BOOT is not None:
        return time.clock_gettime_ns(_BOOT) // 1_000_000
    return time.monotonic_ns() // 1_000_000


def read() -> Now:
    """Both clocks, now."""
    return Now(boot_ms(), time.time_ns() // 1_000_000)
