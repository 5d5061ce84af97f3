"""Frames that have arrived at one end of a link and wait for its reader.

Rule 1: it holds a bounded number of bytes: `full` tells the writer's side to stop.
Rule 2: what arrived before the end is still read; then every read raises Unreachable.
Rule 3: `cut` is the end from this side: nothing more is read, the waiting reader wakes at once.

The channels that count bytes themselves (ipc, memory) share it; WebSockets bring their own.
"""

import asyncio
from collections import deque
from collections.abc import Callable

from muster.channel.base import gone
from muster.errors import Unreachable
from muster.limits import LINK_UNREAD_BYTES_MAX, LINK_UNREAD_FRAMES_MAX


class Inbox:
    """A bounded queue with one reader."""

    def __init__(self, channel: str, on_room: Callable[[], None]) -> None:
        """`on_room` is called each time a read ended a full inbox."""
        self._channel = channel
        self._on_room = on_room
        self._frames: deque[bytes] = deque()
        self._unread_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._end: str | None = None

    @property
    def full(self) -> bool:
        return (
            self._unread_bytes >= LINK_UNREAD_BYTES_MAX
            or len(self._frames) >= LINK_UNREAD_FRAMES_MAX
        )

    @property
    def ended(self) -> str | None:
        """The reason of the end, None while there is none."""
        return self._end

    def put(self, frame: bytes) -> None:
        """Add a frame; after the end it is dropped. Never waits: look at `full`."""
        if self._end is None:
            self._frames.append(frame)
            self._unread_bytes += len(frame)
            self._wake()

    async def get(self) -> bytes:
        """The next frame. Raises Unreachable after the last one."""
        while not self._frames:
            if self._end is not None:
                raise Unreachable(gone(self._channel, self._end))
            assert self._waiter is None, "a link has one reader at a time"
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        was_full = self.full
        frame = self._frames.popleft()
        self._unread_bytes -= len(frame)
        if was_full and not self.full:
            self._on_room()
        return frame

    def end(self, reason: str) -> None:
        """No frame follows. The first reason counts."""
        if self._end is None:
            self._end = reason
            self._wake()

    def cut(self, reason: str) -> None:
        """End it and drop what was not read."""
        self._frames.clear()
        self._unread_bytes = 0
        self.end(reason)

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
