"""How much of one machine's entries is taken, over time.

Rule 1: a machine may write whatever it likes, and everybody who may hold it keeps it for ever. So
what is taken of one writer has a bound, whoever passes it on: a large first part at once, so that
a history comes quickly, and then so much a minute.
Rule 2: what is held back is not refused. Its writer offers it again, and it comes a little later.
Rule 3: what comes back of our own earlier streams is ours, and never held back.
"""

from muster.limits import INTAKE_BYTES_MAX, INTAKE_BYTES_PER_MINUTE
from muster.log.stream import MachineId


class Intake:
    """See the rules at the top of this file. `held_back` are the writers that had to wait."""

    def __init__(self, me: MachineId) -> None:
        self._me = me
        # Of each writer: the room that is left, and when that was.
        self._room: dict[MachineId, tuple[int, int]] = {}
        self.held_back: set[MachineId] = set()

    def admits(self, writer: MachineId, size: int, now_ms: int) -> bool:
        """Whether so many bytes of a writer are taken now; counts them where they are."""
        if writer == self._me:
            return True
        left, at_ms = self._room.get(writer, (INTAKE_BYTES_MAX, now_ms))
        gained = max(0, now_ms - at_ms) * INTAKE_BYTES_PER_MINUTE // 60_000
        left = min(INTAKE_BYTES_MAX, left + gained)
        admitted = size <= left
        self._room[writer] = (left - size if admitted else left, now_ms if gained else at_ms)
        if not admitted:
            self.held_back.add(writer)
        elif left > INTAKE_BYTES_MAX // 2:
            self.held_back.discard(writer)
        return admitted

    def forget(self, writer: MachineId) -> None:
        """The writer was revoked: nothing of it is taken any more."""
        self._room.pop(writer, None)
        self.held_back.discard(writer)
