"""The proxy of one attempt: what the enclosed program reaches, it reaches through this.

Rule 1: nothing a program says ends the daemon or reaches anybody before it was checked: the name
        by the rules, the address that it leads to, and in a tunnel the server that TLS names.
Rule 2: all is bounded: what is held, what is waited for, connections at once, bytes each way.
        Who reads slowly slows down whoever writes to them, and nobody else.
Rule 3: what becomes of each connection is told once (decision.py).
Rule 4: an end of one direction is passed on as that; the other one goes on until it ends, too.
Rule 5: after `close` nothing of it runs.

    proxy = Proxy(Rules.read(["api.example.com"]), tell, Upstreams(os.environ))
    await proxy.serve(listening)        # a socket inside the sandbox
    ...
    await proxy.close()
"""

import asyncio
import socket
from asyncio import StreamReader, StreamWriter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from muster.agent.egress import request as http
from muster.agent.egress.answer import Answer
from muster.agent.egress.decision import Account, Decision
from muster.agent.egress.rules import Rules
from muster.agent.egress.tunnel import ALERT, Tunnel
from muster.agent.egress.upstream import Upstreams
from muster.agent.egress.way import READ_BYTES, Connect, Ends, Resolve, Way, connect, resolve
from muster.errors import (
    MISTAKE,
    MISTAKES,
    Denied,
    Exhausted,
    Malformed,
    MusterError,
    Refused,
    Silent,
    Unreachable,
)

_STATUS: Final[tuple[tuple[type[MusterError], int], ...]] = (
    (Denied, 403),
    (Malformed, 400),
    (Exhausted, 503),
    (Silent, 504),
    (Unreachable, 502),
)
_OPENED: Final = b"HTTP/1.1 200 Connection established\r\n\r\n"
# For what a refused program still sends, so that its system does not throw the answer away.
_LINGER_S: Final = 1.0
_OVER: Final = "the attempt was over"


@dataclass(frozen=True, slots=True)
class Bounds:
    """What one attempt may keep busy."""

    # A package manager opens some 16 at once, a browser 30; two descriptors each are the daemon's.
    connections: int = 64
    # Chosen arbitrarily; a request is one packet or a few.
    head_s: float = 15.0
    hello_s: float = 30.0
    # A model thinks for minutes before its first word, and says nothing meanwhile.
    idle_s: float = 15 * 60.0
    # Chosen arbitrarily: more than what work is sent out for, less than a disk is worth.
    sent_bytes: int = 2**30
    received_bytes: int = 2**34


class Proxy:
    """See the top of this file. Made in the loop that it runs in."""

    def __init__(
        self,
        rules: Rules,
        tell: Callable[[Decision], None],
        upstreams: Upstreams | None = None,
        *,
        bounds: Bounds = Bounds(),
        resolve: Resolve = resolve,
        connect: Connect = connect,
        is_spare: Callable[[int], bool] = lambda _: True,
    ) -> None:
        """`is_spare` says of a new descriptor whether it leaves the daemon enough of them."""
        self.bounds = bounds
        self.sent_bytes = self.received_bytes = 0
        self.account = Account(tell)
        self._is_spare = is_spare
        self.way = Way(rules, upstreams or Upstreams({}), resolve, connect)
        self._servers: list[asyncio.Server] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._closed = False
        self._used_up = ""

    async def serve(self, listening: socket.socket) -> None:
        """Take connections from now on; the socket is ours."""
        self._servers.append(
            await asyncio.start_server(self._taken, sock=listening, limit=READ_BYTES)
        )

    async def close(self) -> None:
        """Cut off what is open, and tell what was not told."""
        self._closed = True
        for server in self._servers:
            server.close()
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        await self.way.close()
        self.account.close()

    def spend(self, *, sent: int = 0, received: int = 0) -> None:
        """Raises: Exhausted where that is more than it may; then nothing goes on any more."""
        if self.sent_bytes + sent > self.bounds.sent_bytes:
            self._used_up = f"this attempt may send {self.bounds.sent_bytes} bytes, and no more"
        if self.received_bytes + received > self.bounds.received_bytes:
            most = self.bounds.received_bytes
            self._used_up = f"this attempt may receive {most} bytes, and no more"
        if self._used_up:
            raise Exhausted(self._used_up)
        self.sent_bytes += sent
        self.received_bytes += received

    def _taken(self, reader: StreamReader, writer: StreamWriter) -> None:
        if self._closed:
            writer.transport.abort()
            return
        why = ""
        if len(self._tasks) >= self.bounds.connections:
            why = f"{self.bounds.connections} connections are open at once, and no more may be"
        elif not self._is_spare(writer.get_extra_info("socket").fileno()):
            why = "this machine has too many files open to make another connection; try it later"
        if why:
            self.account.add(Decision("", 0, allowed=False, why=why))
            writer.write(_answer(Exhausted(why)))
            writer.close()
            return
        task = asyncio.ensure_future(_Connection(self, reader, writer).run())
        self._tasks.add(task)
        # A mistake of ours ends one connection; that nobody asks for it makes the loop tell of it.
        task.add_done_callback(self._tasks.discard)


class _Connection:
    """What one program asked for, from its first byte to the last."""

    def __init__(self, proxy: Proxy, reader: StreamReader, writer: StreamWriter) -> None:
        self._proxy, self._reader, self._writer = proxy, reader, writer
        self._loop = asyncio.get_running_loop()
        self._host, self._port = "", 0
        self._allowed = False
        self._sent = self._received = 0
        self._outside: StreamWriter | None = None
        # What a refusal is said with: of http until a tunnel was opened, of TLS in one.
        self._says: Callable[[MusterError], bytes] = _answer
        self._idle: asyncio.Timeout | None = None
        self._moved_s = 0.0

    async def run(self) -> None:
        """Raises nothing that came from outside."""
        began_s = self._loop.time()
        why = _OVER
        try:
            why = await self._judged()
        except MISTAKES:
            why = MISTAKE
            raise
        finally:
            for each in (self._writer, self._outside):
                if each is not None:
                    each.transport.abort()
            if self._host or why not in {"", _OVER}:
                ms = round((self._loop.time() - began_s) * 1000)
                spent = self._sent, self._received, ms
                told = Decision(self._host, self._port, self._allowed, why, *spent)
                self._proxy.account.add(told)

    async def _judged(self) -> str:
        """Why it did not end by itself, "" where it did."""
        try:
            asked = await self._asked()
            if asked is not None:
                await self._carry(asked)
        except MusterError as error:
            await self._refuse(error)
            return str(error)
        except OSError:
            return "the connection was cut off"
        return ""

    async def _asked(self) -> http.Request | None:
        """What is asked for; None where nothing was. Raises: Malformed, OSError."""
        try:
            async with asyncio.timeout(self._proxy.bounds.head_s):
                head = await self._reader.readuntil(http.HEAD_END)
        except TimeoutError as error:
            raise Malformed("what was asked did not come in time") from error
        except asyncio.LimitOverrunError as error:
            raise Malformed("what was asked is too long") from error
        except asyncio.IncompleteReadError as error:
            if not error.partial:
                return None
            raise Malformed("what was asked ends in its middle") from error
        if len(head) > http.HEAD_BYTES_MAX:
            raise Malformed("what was asked is too long")
        return http.read(head)

    async def _carry(self, asked: http.Request) -> None:
        """Raises: MusterError, OSError."""
        self._host, self._port = asked.host, asked.port
        self._proxy.spend()
        tunnel = Tunnel(asked.host, asked.port) if asked.tunnel else None
        ends, upstream = await self._proxy.way.open(asked.host, asked.port, tunnel=asked.tunnel)
        self._outside = ends[1]
        try:
            if tunnel is not None:
                await self._begin(ends, tunnel)
            self._allowed = True
            async with asyncio.timeout(self._proxy.bounds.idle_s) as self._idle:
                self._moved_s = self._loop.time()
                if tunnel is not None:
                    await self._both(self._up(ends, tunnel), self._down(ends))
                else:
                    opens = None if upstream is None else upstream.opens
                    await self._give(ends, asked.head(opens))
                    await self._both(self._upload(ends, asked), self._down(ends, Answer()), last=1)
                    await self._linger()
                await self._flushed(ends)
        except TimeoutError as error:
            raise Silent("nothing moved for too long") from error

    async def _begin(self, ends: Ends, tunnel: Tunnel) -> None:
        """Open a tunnel; TLS gets into it once its hello is whole. Raises: MusterError, OSError."""
        await _put(self._writer, _OPENED)
        self._says = lambda _: ALERT if tunnel.waits else b""
        try:
            async with asyncio.timeout(self._proxy.bounds.hello_s):
                while tunnel.waits:
                    data = await self._reader.read(READ_BYTES)
                    if not data:
                        raise Malformed("the tunnel was closed before TLS began")
                    await self._give(ends, tunnel.feed(data))
        except TimeoutError as error:
            raise Malformed("the TLS hello did not come in time") from error

    async def _up(self, ends: Ends, tunnel: Tunnel) -> None:
        """From the program, as long as it speaks."""
        try:
            while data := await self._reader.read(READ_BYTES):
                await self._give(ends, tunnel.feed(data))
            await self._give(ends, tunnel.end())
        except Refused:
            self._allowed = False
            raise
        _end(ends[1])

    async def _upload(self, ends: Ends, asked: http.Request) -> None:
        """The body of a request; what comes behind it goes nowhere."""
        body = http.Body(asked.length)
        while data := await self._reader.read(READ_BYTES):
            await self._give(ends, body.feed(data))
        # Many a server takes the end of one direction for the end of both: it is not passed on.
        if not body.whole:
            raise Malformed("the body of the request ends in its middle")

    async def _down(self, ends: Ends, answer: Answer | None = None) -> None:
        """From the host, as long as it speaks; in a tunnel as it is."""
        while data := await ends[0].read(READ_BYTES):
            self._proxy.spend(received=len(data))
            self._received += len(data)
            await self._tell(data if answer is None else answer.feed(data))
            self._moved()
        if answer is not None:
            await self._tell(answer.end())
        _end(self._writer)

    async def _tell(self, data: bytes) -> None:
        if data:
            # In the middle of an answer, ours would be taken for a part of it.
            self._says = lambda _: b""
            await _put(self._writer, data)

    async def _give(self, ends: Ends, data: bytes) -> None:
        if not data:
            return
        self._proxy.spend(sent=len(data))
        self._sent += len(data)
        await _put(ends[1], data)
        self._moved()

    def _moved(self) -> None:
        """Whoever moves is not idle; seldom enough that it costs nothing."""
        now_s, idle_s = self._loop.time(), self._proxy.bounds.idle_s
        if self._idle is not None and now_s - self._moved_s > idle_s / 16:
            self._moved_s = now_s
            if not self._idle.expired():
                self._idle.reschedule(now_s + idle_s)

    async def _both(self, *works: Coroutine[Any, Any, None], last: int | None = None) -> None:
        """Until both have ended, or the `last` of them. Raises: what one of them raises."""
        tasks = [asyncio.ensure_future(each) for each in works]
        left = set(tasks)
        try:
            while left and not (last is not None and tasks[last].done()):
                done, left = await asyncio.wait(left, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            for task in tasks:
                # Of two that failed the first is told.
                if not task.cancelled():
                    task.exception()

    async def _flushed(self, ends: Ends) -> None:
        """Returns when what was said last has gone, too. Raises: OSError."""
        for each in (self._writer, ends[1]):
            each.close()
            await each.wait_closed()

    async def _refuse(self, error: MusterError) -> None:
        """Say why, where somebody is there to hear it."""
        # Whoever hung up wants no answer any more; that it was refused is counted before.
        with suppress(OSError):
            if said := self._says(error):
                await asyncio.wait_for(_put(self._writer, said), _LINGER_S)
                _end(self._writer)
                await self._linger()

    async def _linger(self) -> None:
        """Take what still comes, or the system would throw away what was said last."""
        # Whoever sends for longer than this is cut off in the middle.
        with suppress(TimeoutError):
            async with asyncio.timeout(_LINGER_S):
                while await self._reader.read(READ_BYTES):
                    pass


async def _put(writer: StreamWriter, data: bytes) -> None:
    """Raises: OSError where it is gone, which uvloop calls a RuntimeError."""
    try:
        writer.write(data)
    except RuntimeError as error:
        raise ConnectionResetError("the connection is gone") from error
    await writer.drain()


def _end(writer: StreamWriter) -> None:
    """Say no more; where it is gone there is nobody to say it to."""
    # Where it is gone there is nobody to say it to.
    with suppress(OSError, RuntimeError):
        writer.write_eof()


def _answer(error: MusterError) -> bytes:
    """A refusal as http: many a program shows the first line alone, so the sentence is in it."""
    status = next(code for kind, code in _STATUS if isinstance(error, kind))
    said = str(error).encode("ascii", "replace")
    head = b"HTTP/1.1 %d %s\r\nContent-Type: text/plain\r\nConnection: close\r\n" % (status, said)
    return head + b"Content-Length: %d\r\n\r\n%s\n" % (len(said) + 1, said)
