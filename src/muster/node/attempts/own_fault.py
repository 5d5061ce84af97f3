"""What fails in an attempt and is this machine's, or nobody's, whatever the agent did before."""

from typing import Final

from muster.errors import Conflict, Damaged, Exhausted, MusterError, Unreachable


class Stuck(MusterError):
    """Processes that the kernel does not let go."""


class Unserved(MusterError):
    """What an enclosed attempt reaches this machine by did not begin."""


OURS: Final = (Unreachable, Exhausted, Damaged, Conflict, Stuck, Unserved)
