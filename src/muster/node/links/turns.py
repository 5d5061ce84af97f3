"""Turns for what only so many may begin at once; who has precedence waits behind no other."""

import asyncio
from collections import deque


class Turns:
    """See the top of this file."""

    def __init__(self, count: int) -> None:
        self._free = count
        self._first, self._others = deque[asyncio.Future[None]](), deque[asyncio.Future[None]]()

    async def acquire(self, *, first: bool) -> None:
        """Returns when it is our turn; `release` ends it."""
        if self._free:
            self._free -= 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        (self._first if first else self._others).append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                # It was given to us, and is somebody else's now.
                self.release()
            raise

    def release(self) -> None:
        """The next one may begin."""
        for queue in (self._first, self._others):
            while queue:
                turn = queue.popleft()
                # Whoever waited may be gone.
                if not turn.done():
                    turn.set_result(None)
                    return
        self._free += 1
