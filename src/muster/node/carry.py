"""One blob on its way between two machines: DATA one way, CREDIT the other, CLOSE at the end.

Rule 1: nobody's memory grows because somebody else is slow: the receiver grants again what it has
written, never what merely arrived.
Rule 2: the receiver believes only the size and the hash that the entry names; what is not exactly
that leaves nothing behind.
Rule 3: when nothing moves for a while the transfer is over, on both sides.

`docs/spec/task.md` section 7 has the frames.
"""

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterable
from typing import Final

from muster import limits
from muster.errors import Malformed, MusterError, Unreachable
from muster.git.serve import Kind
from muster.store.blobs import Incoming

Send = Callable[[Kind, bytes], Awaitable[None]]
Progress = Callable[[int], None]

_GRANT_BYTES: Final = limits.BLOB_WINDOW_BYTES // 4
_SILENCE_S: Final = limits.BLOB_SILENCE_MS_MAX / 1000


class Giver:
    """The sending side; `feed` takes the frames of the far side and never raises."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._room = limits.BLOB_WINDOW_BYTES
        self._moved = asyncio.Event()
        self._gone = ""

    def feed(self, kind: Kind, payload: bytes) -> None:
        if kind == "credit" and len(payload) == 4:
            self._room += int.from_bytes(payload, "big")
            if self._room > limits.BLOB_WINDOW_BYTES:
                self._gone = "the other side granted more than it was sent"
        else:
            self._gone = "the other side hung up"
        self._moved.set()

    async def run(self, chunks: Iterable[bytes]) -> None:
        """Send everything, and how it ended. Raises nothing: the far side hears what went wrong."""
        try:
            for chunk in chunks:
                for at in range(0, len(chunk), limits.BLOB_DATA_BYTES_MAX):
                    part = chunk[at : at + limits.BLOB_DATA_BYTES_MAX]
                    await self._wait_for(len(part))
                    await self._send("data", part)
        except MusterError as error:
            await self._end({"code": 1, "error": str(error)})
            return
        await self._end({"code": 0})

    async def _wait_for(self, room: int) -> None:
        while self._room < room and not self._gone:
            self._moved.clear()
            try:
                async with asyncio.timeout(_SILENCE_S):
                    await self._moved.wait()
            except TimeoutError as error:
                raise Unreachable("the other side took nothing for too long") from error
        if self._gone:
            raise Unreachable(self._gone)
        self._room -= room

    async def _end(self, how: dict[str, object]) -> None:
        await self._send("close", json.dumps(how).encode())


class Taker:
    """The receiving side; `feed` takes the frames of the far side and never raises."""

    def __init__(self, send: Send) -> None:
        self._send = send
        self._granted = limits.BLOB_WINDOW_BYTES
        # Bytes, not frames: a million frames of one byte each must cost a million bytes.
        self._waiting = bytearray()
        self._moved = asyncio.Event()
        self._fault: MusterError | None = None
        self._whole = False

    def feed(self, kind: Kind, payload: bytes) -> None:
        if self._fault is not None or self._whole:
            return
        if kind == "data" and 0 < len(payload) <= self._granted:
            self._granted -= len(payload)
            self._waiting += payload
        elif kind == "close":
            self._close(payload)
        else:
            self._fault = Malformed("the other side sent what it was not granted")
        self._moved.set()

    def _close(self, payload: bytes) -> None:
        try:
            how = json.loads(payload or b"{}")
            code, text = how.get("code"), str(how.get("error", ""))[: limits.SENTENCE_CHARS_MAX]
        except (ValueError, AttributeError, RecursionError):
            code, text = None, ""
        if code == 0:
            self._whole = True
        else:
            self._fault = Unreachable(text or "the link was cut in the middle of a transfer")

    async def run(self, blob: Incoming, sha256: str, size: int, progress: Progress) -> None:
        """Write everything; durable on return. The caller keeps `blob` in its context.

        Raises: Forged where it is something else, Malformed where the far side breaks the rules,
        Unreachable where it stops, Broken where our disk refuses.
        """
        owed = 0
        while True:
            data, self._waiting = bytes(self._waiting), bytearray()
            if data:
                blob.write(data)
                owed += len(data)
                progress(blob.size)
            if self._fault is not None:
                raise self._fault
            if self._whole and not self._waiting:
                break
            if owed >= _GRANT_BYTES:
                self._granted += owed
                await self._send("credit", owed.to_bytes(4, "big"))
                owed = 0
            await self._wait()
        # The disk may take its time to be sure; the rest of the machine goes on.
        await asyncio.to_thread(blob.keep, sha256, size)

    async def _wait(self) -> None:
        if self._waiting or self._whole or self._fault is not None:
            return
        self._moved.clear()
        try:
            async with asyncio.timeout(_SILENCE_S):
                await self._moved.wait()
        except TimeoutError as error:
            raise Unreachable("nothing came for too long in the middle of a transfer") from error
