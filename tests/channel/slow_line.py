"""A slow line to a server on this computer: so many bytes a second come through, and no more."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator

# What waits in the line itself.
_HELD_BYTES = 64 * 1024
_PIECE_BYTES = 16 * 1024


class SlowLine:
    """It carries `rate` bytes a second from the server; what goes to it is not held up."""

    def __init__(self, port: int, rate: int) -> None:
        self._to, self._rate = port, rate
        self.port = 0
        # What came through from the server.
        self.carried = 0

    @contextlib.asynccontextmanager
    async def opened(self) -> AsyncIterator["SlowLine"]:
        async with asyncio.TaskGroup() as tasks:
            lines = set[asyncio.Task[None]]()
            listener = await asyncio.start_server(
                lambda *ends: lines.add(tasks.create_task(self._line(*ends))), "127.0.0.1", 0
            )
            self.port = listener.sockets[0].getsockname()[1]
            try:
                yield self
            finally:
                listener.close()
                for each in lines:
                    each.cancel()

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with socket.socket() as near:
            near.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _HELD_BYTES)
            near.setblocking(False)
            await asyncio.get_running_loop().sock_connect(near, ("127.0.0.1", self._to))
            from_server, to_server = await asyncio.open_connection(sock=near, limit=_HELD_BYTES)
            ways = (self._carry(from_server, writer, self._rate), self._carry(reader, to_server, 0))
            try:
                await asyncio.gather(*ways)
            except ConnectionError:
                pass
            finally:
                for each in (writer, to_server):
                    each.transport.abort()

    async def _carry(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, rate: int
    ) -> None:
        loop = asyncio.get_running_loop()
        free_s = loop.time()
        while piece := await reader.read(_PIECE_BYTES):
            if rate:
                self.carried += len(piece)
                free_s = max(free_s, loop.time()) + len(piece) / rate
                await asyncio.sleep(free_s - loop.time())
            writer.write(piece)
            await writer.drain()
        writer.close()
