"""A gateway on loopback between a client of bytes and a scripted server of a model.

    async with staged(answer) as stage:
        client = await stage.client()
        await client.send(request(b'{"model": "m", "max_tokens": 9}'))

`answer` is a coroutine for each connection of the gateway: `async def answer(model: Peer)`.
"""

import asyncio
import contextlib
import json
import socket
from collections import Counter

from muster.agent.gateway.apis import APIS
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Limits, Meter
from muster.agent.gateway.prices import known
from muster.agent.gateway.server import Gateway

KEY = "sk-real-0123456789abcdef"
MODEL = "claude-sonnet-5"
# A test that would wait for ever fails instead.
PATIENCE_S = 20


class Peer:
    """One end of a connection, in bytes."""

    def __init__(self, reader, writer):
        self.reader, self.writer = reader, writer

    async def send(self, raw):
        self.writer.write(raw)
        await self.writer.drain()

    async def until(self, mark):
        return await asyncio.wait_for(self.reader.readuntil(mark), PATIENCE_S)

    async def all(self):
        """Everything until the other side has ended, or reset, the connection."""
        whole = b""
        with contextlib.suppress(ConnectionError):
            while piece := await asyncio.wait_for(self.reader.read(65_536), PATIENCE_S):
                whole += piece
        return whole

    async def request(self):
        """The head and the body of a request with a length."""
        head = await self.until(b"\r\n\r\n")
        lengths = [line for line in head.split(b"\r\n") if line.startswith(b"content-length:")]
        size = int(lengths[0].partition(b":")[2]) if lengths else 0
        return head, await asyncio.wait_for(self.reader.readexactly(size), PATIENCE_S)

    async def answer(self):
        """The status, the head and the body of an answer with a length."""
        head = await self.until(b"\r\n\r\n")
        lower = head.lower()
        size = int(lower.partition(b"content-length:")[2].partition(b"\r\n")[0] or 0)
        body = await asyncio.wait_for(self.reader.readexactly(size), PATIENCE_S)
        return int(head.split(b" ")[1]), head, body

    def reset(self):
        """Hang up without a word."""
        self.writer.transport.abort()


class Stage:
    def __init__(self, gateway, meter, at):
        self.gateway, self.meter, self.at = gateway, meter, at
        self.told, self.counts, self.requests = [], Counter(), []
        self.news = asyncio.Event()
        self.peers = []

    def tell(self, call):
        self.told.append(call)
        self.news.set()

    async def client(self):
        peer = Peer(*await asyncio.open_connection(*self.at))
        self.peers.append(peer)
        return peer

    async def told_of(self, number=1):
        """The calls that were told, once there are so many."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.told) < number:
                self.news.clear()
                await self.news.wait()
        return self.told

    async def ask(self, body=None, **how):
        """One call on a connection of its own: status, head, body."""
        client = await self.client()
        await client.send(request(body, **how))
        try:
            return await client.answer()
        finally:
            client.writer.close()


def request(
    body=None, *, method="POST", path="/v1/messages", headers=(), host="127.0.0.1", stream=False
):
    if body is None:
        body = {
            "model": MODEL,
            "max_tokens": 100,
            "messages": [],
            **({"stream": True} if stream else {}),
        }
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "x-api-key: placeholder", *headers]
    if raw or method == "POST":
        lines += ["content-type: application/json", f"content-length: {len(raw)}"]
    return "\r\n".join([*lines, "", ""]).encode() + raw


def whole(status=200, body=None, headers=()):
    """An answer with a length."""
    said = MESSAGE if body is None else body
    raw = said if isinstance(said, bytes) else json.dumps(said).encode()
    lines = [f"HTTP/1.1 {status} OK", "content-type: application/json", *headers]
    return "\r\n".join([*lines, f"content-length: {len(raw)}", "", ""]).encode() + raw


def event(said):
    return f"event: {said['type']}\ndata: {json.dumps(said)}\n\n".encode()


def chunk(raw):
    return b"%x\r\n%s\r\n" % (len(raw), raw)


MESSAGE = {
    "id": "msg_1", "type": "message", "model": MODEL, "content": [],
    "usage": {"input_tokens": 10, "output_tokens": 5},
}  # fmt: skip
START = {
    "type": "message_start",
    "message": {**MESSAGE, "usage": {"input_tokens": 10, "output_tokens": 1}},
}
END = {"type": "message_delta", "delta": {}, "usage": {"output_tokens": 5}}
STREAM_HEAD = (
    b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nrequest-id: req_7\r\n"
    b"transfer-encoding: chunked\r\n\r\n"
)


@contextlib.asynccontextmanager
async def staged(answer, *, api="anthropic", limits=None, meter=None, base="", **options):
    """A gateway before a scripted server; both are gone afterwards."""
    tasks = []

    async def serve(reader, writer):
        tasks.append(asyncio.current_task())
        peer = Peer(reader, writer)
        try:
            await answer(peer)
        except (OSError, asyncio.IncompleteReadError):
            pass  # The gateway hung up.
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    meter = meter or Meter(limits or Limits(), known("2026-11-28"))
    url = options.pop("url", f"http://127.0.0.1:{port}{base}")
    made = Stage(None, meter, None)
    made.port = port
    gateway = Gateway(
        APIS[api], url, options.pop("key", Key(KEY)), meter, made.tell,
        count=lambda name: made.counts.update([name]), **options,
    )  # fmt: skip
    made.gateway = gateway
    sock = socket.create_server(("127.0.0.1", 0))
    made.at = sock.getsockname()
    await gateway.serve(sock)
    try:
        yield made
    finally:
        await gateway.close()
        server.close()
        for each in tasks:
            each.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for peer in made.peers:
            peer.writer.transport.abort()
        await asyncio.gather(
            *(peer.writer.wait_closed() for peer in made.peers), return_exceptions=True
        )
