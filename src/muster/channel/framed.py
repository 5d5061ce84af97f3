"""A link whose frames go over bytes that the channel itself carries: its two queues.

Rule 1: what arrived and was not read is bounded: `full` tells the channel to stop reading.
Rule 2: what arrived before the end is still read; then every call raises Unreachable.
Rule 3: `cut` is the end from this side: nothing more is read, whoever waits wakes at once.
Rule 4: while the gate is shut nobody writes, however many wait.

`ipc` and `relay` are made of it; WebSockets bring queues of their own.
"""

import asyncio
from abc import abstractmethod
from collections import deque
from collections.abc import Sequence

from muster.channel.base import Link, LinkStatistics, gone
from muster.channel.frame import LENGTH_BYTES, check_size, read_length
from muster.errors import Unreachable
from muster.limits import LINK_UNREAD_BYTES_MAX, LINK_UNREAD_FRAMES_MAX


class FramedLink(Link):
    """A channel adds `_write`, `_on_room`, `ready` and `close`."""

    peer = ""
    # A length that only says that the far end is there, where the channel has one.
    sign = b""

    def __init__(self) -> None:
        self.counters = LinkStatistics(asyncio.get_running_loop().time())
        self.ended: str | None = None
        """The reason of the end, None while there is none."""
        # Why nothing more can be sent, where that is so before the last frame was read.
        self._over = ""
        # Whether a whole frame ever came, and how often the far end only said that it is there.
        self.spoke = False
        self._signs = 0
        self._frames: deque[bytes] = deque()
        self._unread_bytes = 0
        self._reader: asyncio.Future[None] | None = None
        self._may_write = asyncio.Event()
        self._may_write.set()

    async def send_all(self, frames: Sequence[bytes]) -> None:
        check_size(*frames)
        await self._wait_writable()
        self._write(frames)
        if not self._may_write.is_set():
            await self._wait_writable()

    async def _wait_writable(self) -> None:
        # After each wake the gate may be shut again by the sender that woke first: without
        # the loop, a hundred waiting senders would all write into one full buffer.
        while not self._may_write.is_set():
            await self._may_write.wait()
        if self._over or self.ended is not None:
            raise Unreachable(gone(self.channel, self.ended or self._over))

    @property
    def full(self) -> bool:
        """Whether so much waits for the reader that nothing more may come."""
        return (
            self._unread_bytes >= LINK_UNREAD_BYTES_MAX
            or len(self._frames) >= LINK_UNREAD_FRAMES_MAX
        )

    @abstractmethod
    def _on_room(self) -> None:
        """A read ended the time in which nothing more could come."""

    def _take_frames(self, raw: bytearray) -> None:
        """Take what is whole off the bytes that came. Raises Malformed."""
        start = 0
        while len(raw) - start >= LENGTH_BYTES and self.ended is None:
            body = start + LENGTH_BYTES
            head = bytes(raw[start:body])
            if head == self.sign:
                self._signs += 1
                start = body
                continue
            size, last = read_length(head)
            if len(raw) < body + size:
                break
            start = body + size
            if last:
                self.end(raw[body:start].decode(errors="replace"))
            else:
                self._arrive(bytes(raw[body:start]))
        del raw[:start]

    def _arrive(self, frame: bytes) -> None:
        if self.ended is None:
            self._frames.append(frame)
            self._unread_bytes += len(frame)
            self.spoke = True
            self._wake()

    async def receive(self) -> bytes:
        while not self._frames:
            if self.ended is not None:
                raise Unreachable(gone(self.channel, self.ended))
            assert self._reader is None, "a link has one reader at a time"
            self._reader = asyncio.get_running_loop().create_future()
            try:
                await self._reader
            finally:
                self._reader = None
        was_full = self.full
        frame = self._frames.popleft()
        self._unread_bytes -= len(frame)
        self.counters.frames_in += 1
        self.counters.bytes_in += len(frame)
        if was_full and not self.full:
            self._on_room()
        return frame

    def end(self, reason: str) -> None:
        """No frame follows, and nobody waits to send one. The first reason counts."""
        if self.ended is None:
            self.ended = reason
            self._wake()
        self._may_write.set()

    def cut(self, reason: str) -> None:
        """End it and drop what was not read."""
        self._frames.clear()
        self._unread_bytes = 0
        self.end(reason)

    def _wake(self) -> None:
        if self._reader is not None and not self._reader.done():
            self._reader.set_result(None)
