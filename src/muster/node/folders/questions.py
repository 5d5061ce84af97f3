"""What the thread of the folders asks the core by events; the effects that answer come by the loop.

Whoever has begun to ask may do something else before he waits for the answer.
"""

import queue
import threading
from collections.abc import Callable
from itertools import count
from typing import Final

from muster.errors import Unreachable
from muster.node import event as ev
from muster.node.host import clock
from muster.node.services.context import FilesAnswered

# Longer than any step.
_ANSWER_S_MAX: Final = 60.0


class Stopped(Unreachable):
    """The daemon ends."""


class Questions:
    """All that were asked; `send` gives the core an event, `ending` says that the daemon ends."""

    def __init__(self, send: Callable[[ev.Event], None], ending: threading.Event) -> None:
        self._send, self._ending = send, ending
        self._slots: dict[int, queue.SimpleQueue[FilesAnswered]] = {}
        self._numbers = count(1)

    def answered(self, effect: FilesAnswered) -> None:
        """The core has answered; the loop calls this."""
        if (slot := self._slots.get(effect.number)) is not None:
            slot.put(effect)

    def ask(self, make: Callable[[int], ev.Event]) -> FilesAnswered:
        """What the core answers to the event that is made of a number. Raises: Unreachable."""
        return self.begin(make)()

    def begin(self, make: Callable[[int], ev.Event]) -> Callable[[], FilesAnswered]:
        """As `ask`; what is returned waits for the answer, and is to be called."""
        number, slot = next(self._numbers), queue.SimpleQueue[FilesAnswered]()
        self._slots[number] = slot
        self._send(make(number))

        def answer() -> FilesAnswered:
            try:
                until_ms = clock.boot_ms() + int(_ANSWER_S_MAX * 1000)
                while clock.boot_ms() < until_ms:
                    try:
                        return slot.get(timeout=0.5)
                    except queue.Empty:
                        if self._ending.is_set():
                            raise Stopped("the daemon ends") from None
                raise Unreachable("this machine is too busy to say what is to lie in the folder")
            finally:
                del self._slots[number]

        return answer
