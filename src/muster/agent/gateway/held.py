"""How much of requests the gateways of one attempt have in memory at once.

Rule 1: what is counted is what came; the copy that is made of it lives as long as one step takes.
Rule 2: nobody waits for room while he holds some, or two would wait for each other: who does not
fit is refused at once, and his client tries again.
"""

from typing import Final

from muster.errors import Exhausted

# Two of the longest there are, and some hundred of those that are usual.
HELD_BYTES_MAX: Final = 64 * 1024 * 1024


class Held:
    """Bytes of requests; one for all gateways of an attempt."""

    def __init__(self) -> None:
        self.bytes = 0

    def take(self, count: int) -> None:
        """Raises: Exhausted where that is more than there may be."""
        if self.bytes + count > HELD_BYTES_MAX:
            raise Exhausted(
                f"the calls of this task have more than {HELD_BYTES_MAX} bytes on their way at "
                "once; try again when some have gone"
            )
        self.bytes += count

    def give_back(self, count: int) -> None:
        self.bytes -= count
