"""A stream over one channel of a link: bytes both ways, in order, with credit, to one end.

Rule 1: `send` waits for the far end's credit and for the link; so who is slow slows one stream
        down, and the streams of one link take turns.
Rule 2: what was received counts as dealt with when the next is asked for, and is granted then.
Rule 3: the end is told once. What goes wrong here is one sentence there; a cut, or a rule that the
        far end broke, is raised here by whatever waits.

    async with streams.call(link, "blob.serve", args) as stream:    # raises its refusal
        while data := await stream.receive():
            file.write(data)

    async def serve(daemon, call, stream):                          # a verb that runs as `stream`
        ...                                                         # raises: the call is refused
        stream.accept()
        await stream.send(data)                                     # raises: the far end hears why
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from typing import Any, Final

from muster import limits
from muster.channel.flow import PLAIN, Flow
from muster.errors import Malformed, Unreachable

_END_S: Final = limits.STREAM_END_MS_MAX / 1000


class Stream:
    """See the top of this file. `drained` waits while the link has much to send."""

    def __init__(self, flow: Flow, drained: Callable[[], Awaitable[None]]) -> None:
        self.flow = flow
        # A stream in which nothing moves for so long is over; None for one that may be quiet.
        self.silence_s: float | None = None
        # Where it begins in what was asked for, as the far end says.
        self.at = 0
        self._drained = drained
        self._moved = asyncio.Event()
        flow.moved = self._fed

    def _fed(self) -> None:
        self._moved.set()

    async def _until(self, true: Callable[[], object], silence_s: float | None) -> None:
        try:
            async with asyncio.timeout(silence_s):
                while not true() and self.flow.closed is None:
                    self._moved.clear()
                    await self._moved.wait()
        except TimeoutError as error:
            raise Unreachable("nothing moved for too long in the middle of a stream") from error

    def check(self) -> None:
        """Raises: Malformed where the far end broke a rule, Unreachable where it left."""
        if self.flow.broken:
            raise Malformed(self.flow.closed)
        if self.flow.closed:
            raise Unreachable(self.flow.closed)

    async def receive(self) -> bytes:
        """The next bytes, b"" after the last. Raises: as `check`."""
        self.flow.give_back()
        await self._until(lambda: self.flow.waiting or self.flow.ended, self.silence_s)
        data = self.flow.take()
        if not data:
            self.check()
        return data

    async def send(self, data: bytes) -> None:
        """Returns when all of it was handed over. Raises: as `check`."""
        left = memoryview(data)
        while left:
            await self._until(lambda: self.flow.room, self.silence_s)
            room = self.flow.room
            if not room:
                self.check()
                raise Unreachable("the other side ended the stream")
            self.flow.put(bytes(left[:room]))
            left = left[room:]
            await self._drained()

    async def gone(self) -> None:
        """Returns when the far end left, for whatever reason."""
        await self._until(lambda: False, None)

    async def join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Carry both ways until the reader has ended. Raises: as `check`."""

        async def give() -> None:
            while chunk := await reader.read(PLAIN.data_max):
                await self.send(chunk)
            self.flow.put(b"")

        async def take() -> None:
            # The program may have ended before it read everything; its answer is still to come.
            # uvloop reports a closed pipe as a RuntimeError, asyncio as a ConnectionError.
            while data := await self.receive():
                # It reads no more, and its answer says why.
                with suppress(ConnectionError, RuntimeError):
                    writer.write(data)
                    await writer.drain()
            # It has ended before, and needs no end of what it reads.
            with suppress(ConnectionError, RuntimeError):
                writer.write_eof()
            await self.gone()

        await _first(give(), take(), self.gone())
        self.check()


async def splice(one: Stream, other: Stream) -> None:
    """Join two streams until one ends, and end the other likewise. Raises: Malformed."""

    async def pump(source: Stream, sink: Stream) -> None:
        # One of the two is gone: whoever waits for this pump ends the other likewise.
        with suppress(Unreachable):
            while data := await source.receive():
                await sink.send(data)
            if source.flow.closed is None:
                sink.flow.put(b"")
                await source.gone()

    try:
        pumps = pump(one, other), pump(other, one)
        await _first(*pumps, _after(one), _after(other))
        for each in (one, other):
            if each.flow.broken:
                each.check()
    finally:
        for source, sink in ((one, other), (other, one)):
            if source.flow.closed is not None:
                sink.flow.close(last=source.flow.last)


async def _after(stream: Stream) -> None:
    """What came before its end may still be on its way on for a while."""
    await stream.gone()
    await asyncio.sleep(0 if stream.flow.broken else _END_S)


async def _first(*works: Coroutine[Any, Any, None]) -> None:
    """Until the first has ended, which ends the others. Raises: what it raised."""
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.result()
