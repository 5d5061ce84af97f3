"""What happened and no step has heard of yet, in its order.

Rule: whoever reads frames waits for `room` before the next. A step takes a bounded amount, so what
links bring faster would fill the memory; and what this machine owes itself waits behind it.
"""

import asyncio
from collections import deque
from typing import Final

from muster.limits import STEP_FRAMES_BYTES_MAX
from muster.node import event as ev

# A frame without a payload is work and memory as well; chosen arbitrarily.
_FRAME_BYTES_MIN: Final = 256
# So much waits for steps before nothing more is read: enough that none of them finds too little.
WAITING_BYTES_MAX: Final = 4 * STEP_FRAMES_BYTES_MAX


class EventQueue:
    """See the rule at the top of this file."""

    def __init__(self) -> None:
        self._events: deque[ev.Event] = deque()
        self._bytes = 0
        self._room = asyncio.Event()
        self._room.set()

    def __len__(self) -> int:
        return len(self._events)

    def put(self, event: ev.Event) -> None:
        """Whatever it is, it is taken: what is no frame is our own."""
        self._events.append(event)
        self._count(_weight(event))

    def take(self) -> list[ev.Event]:
        """What the next step hears: as much as it may, and at least one."""
        taken: list[ev.Event] = []
        left = STEP_FRAMES_BYTES_MAX
        while self._events and (not taken or _weight(self._events[0]) <= left):
            event = self._events.popleft()
            left -= _weight(event)
            taken.append(event)
            self._count(-_weight(event))
        return taken

    async def room(self) -> None:
        """Returns once little enough waits."""
        while not self._room.is_set():
            await self._room.wait()

    def _count(self, size: int) -> None:
        self._bytes += size
        if self._bytes <= WAITING_BYTES_MAX:
            self._room.set()
        else:
            self._room.clear()


def _weight(event: ev.Event) -> int:
    return max(len(event.payload), _FRAME_BYTES_MIN) if isinstance(event, ev.Arrived) else 0
