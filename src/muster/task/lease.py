"""Time limits on the right to try. Both sides compute; neither trusts the other's clock.

Rule 1: a lease is measured on the boot clock of whoever measures it, and that clock counts sleep.
Rule 2: the worker's lease ends before the owner's can: it is shorter by LEASE_MARGIN_MS, and it
        runs from a moment that is certainly not later than the owner's start.
Rule 3: nothing here reads a clock; `now` is an argument.

THE MARK. How does a worker know when the owner started to count, without a common clock? With each
beat the worker sends a mark: its own clock. The owner gives the newest mark back with whatever it
grants. The owner granted after it had the mark, so the worker may count from the mark: at the
latest as long as the owner does, however long the answer was under way. An assignment that was
delayed for an hour carries an old mark and starts nothing; the worker beats first and asks.

A mark is `<session>:<ms>`; the session is a random word of the worker's process, so that a mark
from before a restart or a reboot (where the boot clock began again) means nothing.
"""

from typing import Final

from muster import limits

# What a fresh worker needs to have left, to begin at once instead of asking first.
START_LEFT_MS: Final = limits.BEAT_MS


def worker_lease_ms(lease_ms: int) -> int:
    """How long a worker may count on a lease that the owner gave for `lease_ms`."""
    return max(0, lease_ms - min(limits.LEASE_MARGIN_MS, lease_ms // 2))


def make_mark(session: str, now_ms: int) -> str:
    """The worker's clock, as the owner gives it back."""
    return f"{session}:{now_ms}"


def lease_end_ms(mark: str, session: str, lease_ms: int) -> int:
    """When the worker's right to try ends on its clock; 0 for a mark of another session."""
    word, colon, ms = mark.rpartition(":")
    if not colon or word != session or not ms.isascii() or not ms.isdigit() or len(ms) > 16:
        return 0
    return int(ms) + worker_lease_ms(lease_ms)
