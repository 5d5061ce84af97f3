"""Signs of life: what a machine that has nothing to say leaves in a mailbox for who listens for it.

Rule 1: whoever is quiet leaves nothing at a place for hours (post.py, rule 5), so that its silence
there says nothing. To whom it matters a sign is left as often as was asked for, and no more often
than the place bears, while no link reaches that machine.
Rule 2: a sign offers nothing, so that nobody answers. It is no other try of what was said before,
and puts none off.
"""

from collections.abc import Mapping

from muster.log.pace import Pace
from muster.log.session import Session
from muster.log.stream import MachineId


class Signs:
    """To whom signs are left, and when."""

    def __init__(self) -> None:
        self._every_ms: dict[MachineId, int] = {}
        # By mailbox when something was last said, and whether that was a sign alone.
        self._said_ms: dict[int, int] = {}
        self._alone: set[int] = set()

    def ask(self, every_ms: Mapping[MachineId, int]) -> bool:
        """Leave these machines a sign so often, and no others; whether that is new."""
        before, self._every_ms = self._every_ms, dict(every_ms)
        return before != self._every_ms

    def due_ms(self, session: Session, pace: Pace) -> list[int]:
        """When the next one is due in a mailbox; nothing where none is."""
        every_ms = self._every_ms.get(session.peer)
        if every_ms is None:
            return []
        return [self._said_ms.get(session.link, 0) + max(every_ms, pace.sign_ms)]

    def is_due(self, session: Session, pace: Pace, now_ms: int) -> bool:
        """Whether a sign is to be left where nothing else is said."""
        due = any(ms <= now_ms for ms in self.due_ms(session, pace))
        self._alone |= {session.link} if due else set()
        return due

    def said(self, number: int, now_ms: int) -> None:
        """Something is said in a mailbox: that is a sign as well."""
        self._said_ms[number] = now_ms

    def was_alone(self, number: int) -> bool:
        """Whether a sign was all that was said in a mailbox; asked once."""
        alone = number in self._alone
        self._alone.discard(number)
        return alone
