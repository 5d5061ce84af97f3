"""When to dial again.

Rule: pure. The caller brings the randomness, measures how long a link lived, and waits.

Full jitter: the pause is drawn from the whole of [0, bound), and the bound doubles with every
failure up to 30 s. A fleet whose hub restarts comes back spread out, not in one stampede
(with "half jitter" or none the clients stay in step). A link that lived for 10 s was a good
one: the next loss starts from the first bound again. A link that is accepted and dropped
at once does not, or two machines that disagree would dial each other in a hot loop.
"""

from collections.abc import Callable

from muster.limits import BACKOFF_FIRST_MS, BACKOFF_MS_MAX, BACKOFF_STABLE_MS


class Backoff:
    """The pauses between tries to reach one address."""

    def __init__(self, draw: Callable[[], float]) -> None:
        """`draw` returns a number in [0, 1), such as `random.Random(seed).random`."""
        self._draw = draw
        self._failures = 0

    def failed(self) -> int:
        """A try failed: milliseconds to wait before the next."""
        # The shift is bounded, or a week of failures would build a huge integer.
        bound_ms = min(BACKOFF_MS_MAX, BACKOFF_FIRST_MS << min(self._failures, 16))
        self._failures += 1
        return int(self._draw() * bound_ms)

    def lost(self, lived_ms: int) -> int:
        """A link that lived so long is gone: milliseconds to wait before the next try."""
        if lived_ms >= BACKOFF_STABLE_MS:
            self._failures = 0
        return self.failed()
