"""A way to a door for programs that cannot say who asks: it adds the token to each request.

It passes everything else on as it came, but for its own port, which becomes the door's.
"""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


@asynccontextmanager
async def bearing(port: int, token: str) -> AsyncIterator[int]:
    """The port at which whoever comes is the session of this token, at the door of `port`."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, to = await asyncio.open_connection("127.0.0.1", port)
        back = asyncio.create_task(_pipe(there, writer))
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                size = re.search(rb"(?i)\r\ncontent-length: *(\d+)", head)
                head = re.sub(rb"(localhost|127\.0\.0\.1):%d\b" % own, rb"\1:%d" % port, head)
                to.write(head[:-2] + f"Authorization: Bearer {token}\r\n\r\n".encode())
                to.write(await reader.readexactly(int(size[1])) if size else b"")
                await to.drain()
        to.close()
        back.cancel()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    own = server.sockets[0].getsockname()[1]
    async with server:
        yield own


async def _pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(65536):
            writer.write(piece)
            await writer.drain()
    writer.close()
