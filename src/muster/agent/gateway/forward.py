"""The way of one call: from what an agent asks to what a model answers, and what is told of it.

Rule 1: every call that is paid for has room first, and is settled, however it ends; a call that
cannot be counted is not free.
Rule 2: what a model answers goes on at once, piece by piece, unchanged, and is read along.
Rule 3: the key goes into the request and nowhere else; what a client sends in its place is dropped.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import msgspec

from muster.agent.gateway.api import Api, Ask, Body, Route, passes, read_body, route_of
from muster.agent.gateway.call import Call, Ending
from muster.agent.gateway.held import Held
from muster.agent.gateway.http11 import Answered, Asked, Headers, Inbound, Outbound, TooLarge
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Full, Meter, Reserved
from muster.agent.gateway.reading import Reading
from muster.agent.gateway.upstream import Upstream
from muster.agent.gateway.usage import Usage, named
from muster.errors import Exhausted, Malformed, Refused, Unreachable

# What Anthropic takes at the most; the others take less.
BODY_BYTES_MAX: Final = 32 * 1024 * 1024
# An answer of 128,000 tokens in events of a hundred bytes, ten times.
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
# An error is a page; what is longer is cut.
_ERROR_BYTES_MAX: Final = 256 * 1024
_CONNECT_S: Final = 30.0
# Everything is on this machine: an honest client needs milliseconds.
_REQUEST_S: Final = 60.0
# Said by servers for the way between us and them, or about themselves as a site.
_OF_THE_WAY: Final = frozenset(
    {
        *("connection", "keep-alive", "transfer-encoding", "content-length", "upgrade", "trailer"),
        *("te", "proxy-authenticate", "proxy-connection", "set-cookie", "location", "alt-svc"),
        *("strict-transport-security", "server", "date"),
    }
)
_REQUEST_IDS: Final = ("request-id", "x-request-id", "x-goog-request-id")


class _Ended(Exception):
    """A call ended otherwise than by its answer."""

    def __init__(self, ending: Ending, status: int, why: str) -> None:
        super().__init__(why)
        self.ending: Ending = ending
        self.status = status


class _Running:
    """A call, as far as it has come."""

    def __init__(self, asked: Asked, began: float) -> None:
        self.asked = asked
        self.began = began
        self.path = ""
        self.ask = Ask("")
        self.held = 0
        """Bytes of it that are in memory."""
        self.sent_bytes = 0
        self.reserved: Reserved | None = None
        self.reading: Reading | None = None
        self.was_asked = False
        """Whether the model's server may have begun to work on it."""
        self.server_status = 0
        self.status = 0
        self.request_id = ""
        self.first_ms = -1
        self.usage = Usage()
        self.usd_millionths = 0
        self.estimated = False


class Forward:
    """What the calls of one agent have in common."""

    def __init__(
        self,
        api: Api,
        upstream: Upstream,
        key: Key,
        meter: Meter,
        tell: Callable[[Call], None],
        *,
        held: Held,
        count: Callable[[str], None],
        headers: Headers,
        stall_s: float,
    ) -> None:
        self.api = api
        self.upstream = upstream
        self._key = key
        self._meter = meter
        self._held = held
        self._tell = tell
        self._count = count
        self._headers = headers
        self._stall_s = stall_s
        self.running = 0
        """Calls that have not ended."""
        self._freed = asyncio.Event()
        meter.follow(self._wake)

    def _wake(self) -> None:
        freed, self._freed = self._freed, asyncio.Event()
        freed.set()

    async def call(self, link: Inbound, asked: Asked) -> bool:
        """One call from its head to what is told of it; whether it was answered to its end."""
        loop = asyncio.get_running_loop()
        running = _Running(asked, loop.time())
        ending: Ending = "left"
        why = ""
        self.running += 1
        try:
            await self._pass(link, running)
            ending = "answered"
        except _Ended as ended:
            ending, why = ended.ending, str(ended)
            if not link.may_answer:
                return False
            running.status = ended.status
            await self.refuse(link, ended.status, why)
        finally:
            self.running -= 1
            self._release(running)
            self._settle(running)
            self._tell(self._told(running, ending, why))
            self._count(f"gateway-{ending}")
        return True

    async def _pass(self, link: Inbound, running: _Running) -> None:
        """Answer a call by what the model answers. Raises: _Ended."""
        route, target = self._routed(running)
        body = [await self._outgoing_body(link, running, route)]
        try:
            async with asyncio.timeout(_CONNECT_S):
                server = await self.upstream.open()
        except (Unreachable, TimeoutError) as error:
            where = self.upstream.address.authority
            raise _Ended("unreachable", 502, str(error) or f"{where} does not answer") from error
        try:
            await self._relay(link, running, server, target, body)
        except TimeoutError as error:
            why = f"the model said nothing for {self._stall_s:g} seconds, and was hung up on"
            raise _Ended("stalled", 504, why) from error
        except (Unreachable, Malformed, OSError) as error:
            why = f"{self.upstream.address.authority}: {error}"
            raise _Ended("broken", 502, why) from error
        finally:
            server.abort()

    def _routed(self, running: _Running) -> tuple[Route, str]:
        """The kind of call, and what is asked of the server. Raises: _Ended."""
        asked, api = running.asked, self.api
        path, _, query = asked.target.partition("?")
        below = path.removeprefix(api.base) if path.startswith(f"{api.base}/") else ""
        route = route_of(api, asked.method, below)
        if route is None:
            raise _Ended(
                "refused",
                404,
                f"the gateway of this task passes the calls of the {api.name} API that ask a "
                f"model, and {asked.method[:10]} {path[:100]!r} is none of them",
            )
        running.path = below
        if any(name == "content-encoding" for name, _ in asked.headers):
            raise _Ended("refused", 400, "a request is read here, and must not be compressed")
        kept = [each for each in query.split("&") if each.partition("=")[0] in api.parameters]
        return route, self.upstream.target(below) + ("?" if kept else "") + "&".join(kept)

    async def _outgoing_body(self, link: Inbound, running: _Running, route: Route) -> bytes:
        """What is sent on of what the client sends, once there is room for it. Raises: _Ended."""

        def take(count: int) -> None:
            self._held.take(count)
            running.held += count

        try:
            async with asyncio.timeout(_REQUEST_S):
                raw = await link.body(BODY_BYTES_MAX, take)
            running.sent_bytes = len(raw)
            if route.method != "POST":
                return bytes(raw)
            body = read_body(raw)
            if route.counted:
                await self._reserve(running, body)
            sent = msgspec.json.encode(body)
        except TooLarge as error:
            raise _Ended("refused", 413, f"{error}; send less") from error
        except Exhausted as error:
            raise _Ended("refused", 503, str(error)) from error
        except Refused as error:
            raise _Ended("refused", 400, str(error)) from error
        running.sent_bytes = len(sent)
        return sent

    def _release(self, running: _Running) -> None:
        """What the client sent is no longer in memory."""
        self._held.give_back(running.held)
        running.held = 0

    async def _reserve(self, running: _Running, body: Body) -> None:
        """Room for a call, as soon as there is some. Raises: _Ended, Refused."""
        running.ask = ask = self.api.ask(running.path, body)
        while isinstance(
            got := self._meter.reserve(ask.model, ask.output_max, ask.output_min), Full
        ):
            if not got.waits:
                raise _Ended("spent", 400, got.why)
            await self._freed.wait()
        running.reserved = got
        changed = got.output_max if got.output_max != ask.output_max else 0
        self.api.limit(running.path, body, changed)

    async def _relay(
        self, link: Inbound, running: _Running, server: Outbound, target: str, body: list[bytes]
    ) -> None:
        """Ask, and let what is answered through; the body is taken out of its list for that."""
        running.was_asked = True
        async with asyncio.timeout(self._stall_s):
            await server.ask(running.asked.method, target, self._outgoing(running), body.pop())
            self._release(running)
            answer = await server.answer()
        said = {name: value for name, value in answer.headers if name in _REQUEST_IDS}
        running.request_id = next((named(said, name) for name in _REQUEST_IDS if name in said), "")
        running.server_status = answer.status
        if 300 <= answer.status < 400:
            raise Unreachable("it points elsewhere, and nothing is followed")
        kind = next((v for n, v in answer.headers if n == "content-type"), "")
        running.reading = reading = Reading(self.api, kind)
        if answer.status >= 400:
            await self._relay_error(link, running, server, answer)
            return
        length = [("content-length", v) for n, v in answer.headers if n == "content-length"]
        running.status = answer.status
        link.head(Answered(answer.status, [*self._returned(answer.headers), *length]))
        while True:
            async with asyncio.timeout(self._stall_s):
                piece = await server.piece()
            if piece is None:
                break
            _first(running)
            reading.feed(piece)
            if reading.got_bytes > ANSWER_BYTES_MAX:
                raise Unreachable(f"its answer is longer than {ANSWER_BYTES_MAX} bytes")
            await self._write(link, piece)
        reading.end()
        await self._write(link, None)

    async def _relay_error(
        self, link: Inbound, running: _Running, server: Outbound, answer: Answered
    ) -> None:
        """What a model's server refuses, whole: it may quote what it was sent."""
        whole = bytearray()
        async with asyncio.timeout(self._stall_s):
            async for piece in server.pieces():
                _first(running)
                whole += piece
                if len(whole) > _ERROR_BYTES_MAX:
                    break
        text = self._key.hide(bytes(whole[:_ERROR_BYTES_MAX]).decode("latin-1"))
        running.status = answer.status
        length = ("content-length", str(len(text)))
        link.head(Answered(answer.status, [*self._returned(answer.headers), length]))
        await self._write(link, text.encode("latin-1"))
        await self._write(link, None)

    async def _write(self, link: Inbound, piece: bytes | None) -> None:
        """Send what came, None is the end of it. Raises: _Ended."""
        try:
            async with asyncio.timeout(self._stall_s):
                await (link.end() if piece is None else link.piece(piece))
        except TimeoutError as error:
            raise _Ended("slow", 0, "the agent did not read what its model answered") from error
        except OSError as error:
            raise _Ended("left", 0, "the agent hung up") from error

    def _outgoing(self, running: _Running) -> Headers:
        """The headers of a call: what passes of the client's, ours, and the key."""
        passing = [(n, v) for n, v in running.asked.headers if passes(self.api, n)]
        own = [("host", self.upstream.address.authority), *self.upstream.headers]
        own += [("accept-encoding", "identity"), ("connection", "close"), *self._headers]
        own.append(self._key.line(self.api.key))
        replaced = {name for name, _ in own}
        kept = [(name, value) for name, value in passing if name not in replaced]
        if running.asked.method == "POST":
            own.append(("content-length", str(running.sent_bytes)))
        return [*own, *kept]

    def _returned(self, headers: Headers) -> Headers:
        """The headers of an answer that go on to the client, and never the key."""
        return [(n, self._key.hide(v)) for n, v in headers if n not in _OF_THE_WAY]

    async def refuse(self, link: Inbound, status: int, sentence: str) -> None:
        """Answer in the API's own form; no time to try again is ever said."""
        said = self.api.refusal(status, f"muster: {sentence}.")
        raw = msgspec.json.encode(said)
        # Anthropic's clients try again unless they are told not to.
        headers = [("content-type", "application/json"), ("content-length", str(len(raw)))]
        headers += [("x-should-retry", "false")] if status < 500 else []
        headers += [] if link.is_whole else [("connection", "close")]
        link.head(Answered(status, headers))
        await link.piece(raw)
        await link.end()

    def _settle(self, running: _Running) -> None:
        """What a call used, by its answer; a server that refused it has done nothing."""
        if running.reserved is None:
            return
        answered = ""
        if running.was_asked and running.server_status < 300:
            running.reading = reading = running.reading or Reading(self.api, "")
            running.usage, running.estimated = reading.usage(running.sent_bytes)
            answered = reading.answer.model
        if running.estimated:
            self._count("gateway-estimated")
        running.usd_millionths = self._meter.settle(running.reserved, running.usage, answered)

    def _told(self, running: _Running, ending: Ending, why: str) -> Call:
        reading, got = running.reading, running.reserved
        limited = got is not None and got.output_max != running.ask.output_max
        return Call(
            api=self.api.name,
            method=running.asked.method[:10],
            path=running.path,
            ending=ending,
            status=running.status,
            model=running.ask.model,
            answered=reading.answer.model if reading else "",
            id=reading.answer.id if reading else "",
            request_id=running.request_id,
            usage=running.usage,
            usd_millionths=running.usd_millionths,
            estimated=running.estimated,
            output_max=got.output_max if got is not None and limited else 0,
            sent_bytes=running.sent_bytes,
            got_bytes=reading.got_bytes if reading else 0,
            first_ms=running.first_ms,
            ms=_ms(running),
            why=why,
        )


def _ms(running: _Running) -> int:
    return round((asyncio.get_running_loop().time() - running.began) * 1000)


def _first(running: _Running) -> None:
    """Something of the answer has come."""
    if running.first_ms < 0:
        running.first_ms = _ms(running)
