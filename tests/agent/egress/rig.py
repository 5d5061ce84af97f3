"""A proxy on a loopback socket, and servers behind names that only its resolver knows.

    async with Rig(rules, {"a.test": PUBLIC}) as rig:
        said = await rig.ask(b"CONNECT evil.test:443 HTTP/1.1\r\n\r\n")

What the proxy connects to is noted in `dialled`, and led to the server of the rig. When the rig ends, no
task of the proxy and no connection is left.
"""

import asyncio
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any, Self

from muster.agent.egress import Bounds, Decision, Proxy, Rules, Upstreams
from muster.agent.egress.way import Ends

# Of no network of documentation, or it would not be public.
PUBLIC = "198.41.0.4"
RULES = Rules.read(
    ["allowed.test", "allowed.test:80", "allowed.test:9418", "rebind.test", "inside.test", "own.test", "*.below.test"],
    local=["nas.lan:443"],
)  # fmt: skip
ADDRESSES = {
    "allowed.test": [PUBLIC],
    "evil.test": [PUBLIC],
    "a.below.test": [PUBLIC],
    "rebind.test": ["127.0.0.1"],
    "inside.test": ["192.168.1.5", "169.254.169.254", "::1", "fe80::1", "::ffff:10.0.0.1"],
    "nas.lan": ["127.0.0.1"],
}
Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Any]


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while data := await reader.read(65536):
            writer.write(data)
            await writer.drain()
        writer.write_eof()
    writer.close()


class Rig:
    """See the top of this file."""

    def __init__(
        self,
        serve: Serve = echo,
        *,
        rules: Rules = RULES,
        addresses: dict[str, Sequence[str]] = ADDRESSES,
        bounds: Bounds | None = None,
        environment: dict[str, str] | None = None,
        kernel_bytes: int | None = None,
        is_spare: Callable[[int], bool] = lambda _: True,
    ) -> None:
        self.told: list[Decision] = []
        self.dialled: list[tuple[str, int]] = []
        self.looked_up: list[str] = []
        self._given = rules, addresses, bounds or Bounds(), environment or {}
        self._moved = asyncio.Event()
        self._kernel_bytes, self._is_spare = kernel_bytes, is_spare
        self._serve, self._work = serve, set[Any]()

    async def __aenter__(self) -> Self:
        rules, addresses, bounds, environment = self._given
        self.site = await asyncio.start_server(self._served, "127.0.0.1", 0)
        self.port = self.site.sockets[0].getsockname()[1]

        async def resolve(host: str, port: int) -> Sequence[str]:
            self.looked_up.append(host)
            self._moved.set()
            if host not in addresses:
                raise socket.gaierror(socket.EAI_NONAME, "no such name")
            return addresses[host]

        async def connect(address: str, port: int) -> Ends:
            self.dialled.append((address, port))
            self._moved.set()
            return await asyncio.open_connection("127.0.0.1", self.port)

        self.proxy = Proxy(
            rules, self._tell, Upstreams(environment),
            bounds=bounds, resolve=resolve, connect=connect, is_spare=self._is_spare,
        )  # fmt: skip
        listening = socket.create_server(("127.0.0.1", 0))
        if self._kernel_bytes is not None:
            # What the system holds of it for each connection that is taken.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, self._kernel_bytes)
        self.address = listening.getsockname()
        await self.proxy.serve(listening)
        return self

    async def __aexit__(self, *error: object) -> None:
        await self.proxy.close()
        left = {task for task in asyncio.all_tasks() if "egress" in repr(task.get_coro())}
        assert left - {asyncio.current_task()} == set()
        self.site.close()
        for each in self._work:
            each.cancel()
        if self._work:
            await asyncio.wait(self._work)

    def _served(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        async def one() -> None:
            try:
                await self._serve(reader, writer)
            finally:
                writer.close()

        task = asyncio.ensure_future(one())
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def open(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address[:2])

    async def ask(self, *said: bytes, end: bool = False) -> bytes:
        """All that is answered to this, until the proxy hangs up."""
        reader, writer = await self.open()
        answer = b""
        with suppress(ConnectionError):
            for each in said:
                writer.write(each)
                await writer.drain()
            if end:
                writer.write_eof()
            while data := await reader.read(65536):
                answer += data
        writer.close()
        return answer

    async def tunnel(
        self, target: bytes = b"allowed.test:443"
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """One that was opened; what is said into it is still to be judged."""
        reader, writer = await self.open()
        writer.write(b"CONNECT " + target + b" HTTP/1.1\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 200 "), head
        return reader, writer

    def _tell(self, decision: Decision) -> None:
        self.told.append(decision)
        self._moved.set()

    async def until(self, true: Callable[[], object]) -> None:
        """Returns when it is so; looked at whenever something is told, looked up or dialled."""
        while not true():
            self._moved.clear()
            await self._moved.wait()

    async def over(self, count: int = 1) -> list[Decision]:
        """What was told, when so much was."""
        await self.until(lambda: len(self.told) >= count)
        return self.told
