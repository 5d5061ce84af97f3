"""HTTP/1.1 over asyncio's streams, both ways. The one file that imports h11.

Rule 1: a message is read and written anew: how the other side framed it never goes on.
Rule 2: what is read is bounded before it is whole; whoever waits says for how long.
Rule 3: what is not in order is Malformed, with a sentence and nothing of what was sent.
"""

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Final, NamedTuple

import h11

from muster.errors import Malformed, Unreachable

Headers = list[tuple[str, str]]

# Servers of models send some two thousand; clients with long lists of betas some more.
HEAD_BYTES_MAX: Final = 64 * 1024
_READ_BYTES: Final = 64 * 1024
_WRITTEN_BYTES: Final = 256 * 1024
# A server says `103 Early Hints` once.
_INFORMATIONAL_MAX: Final = 8


class TooLarge(Malformed):
    """A body that is longer than may be."""


class Asked(NamedTuple):
    """The head of a request; the names of headers are in small letters."""

    method: str
    target: str
    headers: Headers


class Answered(NamedTuple):
    """The head of an answer."""

    status: int
    headers: Headers


class Inbound:
    """The connection of a client."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.SERVER, max_incomplete_event_size=HEAD_BYTES_MAX)

    @property
    def may_answer(self) -> bool:
        """Whether nothing has been answered yet."""
        return self._h11.our_state in (h11.IDLE, h11.SEND_RESPONSE)

    @property
    def is_whole(self) -> bool:
        """Whether all of the request has been read."""
        return self._h11.their_state is h11.DONE

    async def request(self) -> Asked | None:
        """The next request; None where the client has hung up between two."""
        if self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}:
            self._h11.start_next_cycle()
        event = await self._next()
        if isinstance(event, h11.ConnectionClosed) or event is h11.PAUSED:
            return None
        if not isinstance(event, h11.Request):
            raise Malformed("the request is not in the form of HTTP")
        names = [name for name, _ in event.headers]
        if b"transfer-encoding" in names and b"content-length" in names:
            # Of two lengths each reader may believe another.
            raise Malformed("the request says its length twice")
        return Asked(event.method.decode(), event.target.decode("latin-1"), _texts(event.headers))

    async def body(self, most: int, take: Callable[[int], None]) -> bytearray:
        """All of the request's body; `take` is told of each piece. Raises: TooLarge."""
        whole = bytearray()
        while not isinstance(event := await self._next(), h11.EndOfMessage):
            if not isinstance(event, h11.Data):
                raise Malformed("the request ended in the middle")
            if len(whole) + len(event.data) > most:
                raise TooLarge(f"the request is longer than {most} bytes")
            take(len(event.data))
            whole += event.data
        return whole

    def head(self, answer: Answered) -> None:
        self._send(h11.Response(status_code=answer.status, headers=_bytes(answer.headers)))

    async def piece(self, data: bytes) -> None:
        """Sent at once; returns when the client keeps up."""
        self._send(h11.Data(data=data))
        await self._writer.drain()

    async def end(self) -> None:
        """The answer is whole."""
        self._send(h11.EndOfMessage())
        await self._writer.drain()

    @property
    def goes_on(self) -> bool:
        """Whether another request may come."""
        return self._h11.states == {h11.CLIENT: h11.DONE, h11.SERVER: h11.DONE}

    def _send(self, event: h11.Event) -> None:
        try:
            raw = self._h11.send(event)
        except h11.LocalProtocolError as error:
            # The answer was longer or shorter than it said.
            raise Malformed("the answer has not the length that it says") from error
        self._writer.write(raw or b"")

    async def _next(self) -> object:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                if self._h11.they_are_waiting_for_100_continue:
                    self._send(h11.InformationalResponse(status_code=100, headers=[]))
                self._h11.receive_data(await self._reader.read(_READ_BYTES))
        except h11.RemoteProtocolError as error:
            raise Malformed("the request is not in the form of HTTP") from error
        return event


class Outbound:
    """The connection to a server, for one request."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT, max_incomplete_event_size=HEAD_BYTES_MAX)

    async def ask(self, method: str, target: str, headers: Headers, body: bytes) -> None:
        """Returns when it is on its way; piece by piece, or TLS would have all of it once more."""
        view = memoryview(body)
        pieces = (view[at : at + _WRITTEN_BYTES] for at in range(0, len(view), _WRITTEN_BYTES))
        try:
            self._write(h11.Request(method=method, target=target, headers=_bytes(headers)))
            for piece in pieces:
                self._write(h11.Data(data=bytes(piece)))
                await self._writer.drain()
            self._write(h11.EndOfMessage())
        except h11.LocalProtocolError as error:
            raise Malformed("the request has letters that HTTP does not know") from error
        await self._writer.drain()

    def _write(self, event: h11.Event) -> None:
        self._writer.write(self._h11.send(event) or b"")

    async def answer(self) -> Answered:
        """The head of the answer, past what is only informational."""
        for _ in range(_INFORMATIONAL_MAX):
            event = await self._next()
            if isinstance(event, h11.Response):
                return Answered(event.status_code, _texts(event.headers))
            if not isinstance(event, h11.InformationalResponse):
                break
        raise Unreachable("it hung up without an answer")

    async def piece(self) -> bytes | None:
        """The next bytes of the answer, as soon as they are there; None where it is whole."""
        event = await self._next()
        if isinstance(event, h11.Data):
            return bytes(event.data)
        if isinstance(event, h11.EndOfMessage):
            return None
        raise Unreachable("it hung up in the middle of its answer")

    async def pieces(self) -> AsyncIterator[bytes]:
        while (piece := await self.piece()) is not None:
            yield piece

    def abort(self) -> None:
        """Hang up at once."""
        self._writer.transport.abort()

    async def _next(self) -> object:
        try:
            while (event := self._h11.next_event()) is h11.NEED_DATA:
                self._h11.receive_data(await self._reader.read(_READ_BYTES))
        except h11.RemoteProtocolError as error:
            raise Unreachable("what it answers is not in the form of HTTP, or cut off") from error
        return event


def _texts(headers: object) -> Headers:
    return [(n.decode("latin-1"), v.decode("latin-1")) for n, v in headers]  # type: ignore[attr-defined]


def _bytes(headers: Headers) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in headers]
