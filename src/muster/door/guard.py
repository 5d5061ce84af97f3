"""Who may speak to the door at all: judged before a byte of what is asked is read.

Rule 1: the Host is one of ours, exactly. A page whose name was bound to loopback brings another one
(and may bring no Origin): 421, before anything else.
Rule 2: a page of another origin is refused, 403; no header of ours lets one read an answer.
Rule 3: who asks is known before a byte of the body is read.
Rule 4: a body has a bound, a depth and a time, before anything parses it: 413, 400, 408.
"""

import asyncio
import re
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, Final

from muster.limits import DOOR_BODY_BYTES_MAX, DOOR_REQUEST_S_MAX, JSON_DEPTH_MAX

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]
Admit = Callable[[Scope, Send], Awaitable[Application | None]]
"""What answers a request; None where it was refused, by an answer of its own."""

# On every answer: nothing of it is kept, framed, sniffed or followed.
HEADERS: Final = (
    (b"cache-control", b"no-store"),
    (b"content-security-policy", b"default-src 'none'; frame-ancestors 'none'"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)
# The envelope of a protocol lies around what a call may have.
DEPTH_MAX: Final = JSON_DEPTH_MAX + 8
_STRINGS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"?', re.DOTALL)
_BRACKETS: Final = re.compile(rb"[\[{\]}]")


class Use:
    """When the door was used last."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._busy, self._since_s = 0, now_s()

    def __enter__(self) -> None:
        self._busy += 1

    def __exit__(self, *_: object) -> None:
        self._busy, self._since_s = self._busy - 1, self._now_s()

    def idle_at(self, idle_s: float) -> float:
        """In how many seconds it will have been idle for so long, at the earliest."""
        if self._busy:
            return idle_s
        return self._since_s + idle_s - self._now_s()


class Guard:
    """Lets through what may be asked to what `admit` finds for it, with its body already whole."""

    def __init__(self, admit: Admit, port: int, use: Use) -> None:
        self._admit, self._use = admit, use
        names = (f"localhost:{port}", f"127.0.0.1:{port}")
        self._hosts = frozenset(name.encode() for name in names)
        self._origins = frozenset(f"http://{name}".encode() for name in names)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        with self._use:
            await self._answer(scope, receive, _marked(send))

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> None:
        hosts, origins = _header(scope, b"host"), _header(scope, b"origin")
        if len(hosts) != 1 or hosts[0] not in self._hosts:
            await refuse(send, 421, "this is the door of a Muster machine, by no such name")
            return
        if any(origin not in self._origins for origin in origins):
            await refuse(send, 403, "pages of other origins are not answered here")
            return
        answer = await self._admit(scope, send)
        if answer is None:
            return
        body = await _body(scope, receive, send)
        if body is not None:
            await answer(scope, _given(body, receive), send)


def _header(scope: Scope, name: bytes) -> list[bytes]:
    return [value for key, value in scope["headers"] if key == name]


def _marked(send: Send) -> Send:
    """`send`, with our headers on the answer."""

    async def marked(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", ()), *HEADERS]
        await send(message)

    return marked


async def refuse(send: Send, status: int, sentence: str, *more: tuple[bytes, bytes]) -> None:
    """One sentence as the whole answer."""
    body = f"{sentence}\n".encode()
    headers = [(b"content-type", b"text/plain; charset=utf-8"), *more]
    headers.append((b"content-length", b"%d" % len(body)))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


async def _body(scope: Scope, receive: Receive, send: Send) -> bytes | None:
    """The whole body; None where it was refused, or nobody is there any more."""
    too_large = f"a body of more than {DOOR_BODY_BYTES_MAX} bytes is not read"
    said = _header(scope, b"content-length")
    # h11 has refused what is no number, and two that differ.
    if said and int(said[0]) > DOOR_BODY_BYTES_MAX:
        await refuse(send, 413, too_large)
        return None
    body = bytearray()
    try:
        async with asyncio.timeout(DOOR_REQUEST_S_MAX):
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    return None
                body += message.get("body", b"")
                if len(body) > DOOR_BODY_BYTES_MAX:
                    await refuse(send, 413, too_large)
                    return None
                if not message.get("more_body"):
                    break
    except TimeoutError:
        slow = f"the body did not come within {DOOR_REQUEST_S_MAX:.0f} s"
        await refuse(send, 408, slow, (b"connection", b"close"))
        return None
    if depth(body) > DEPTH_MAX:
        await refuse(send, 400, f"JSON that is nested deeper than {DEPTH_MAX} is not read")
        return None
    return bytes(body)


def depth(body: bytes | bytearray) -> int:
    """How deep lists and objects of a JSON text lie in each other; of other bytes some number."""
    deepest = now = 0
    for found in _BRACKETS.finditer(_STRINGS.sub(b"", body)):
        now += 1 if found.group() in b"[{" else -1
        deepest = max(deepest, now)
    return deepest


def _given(body: bytes, receive: Receive) -> Receive:
    """What an application receives whose body was read already."""
    first = True

    async def given() -> Message:
        nonlocal first
        if first:
            first = False
            return {"type": "http.request", "body": body, "more_body": False}
        return await receive()

    return given
