"""The model gateway of an attempt: a server for one agent, in front of one model's API.

Rule 1: the key is here and nowhere inside: not in the agent's environment, not in what it is told.
Rule 2: nothing that either side sends ends anything but its own connection.

It listens on a socket that it is given, and runs in the loop of whoever serves it. Half-closed
clients are answered; one that is gone is noticed by a reset, or when its answer cannot be written.
"""

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Callable, Mapping, Sequence
from typing import Final

from muster.agent.gateway.api import Api
from muster.agent.gateway.call import Call
from muster.agent.gateway.forward import BODY_BYTES_MAX, Forward
from muster.agent.gateway.held import Held
from muster.agent.gateway.http11 import HEAD_BYTES_MAX, Inbound
from muster.agent.gateway.key import Key
from muster.agent.gateway.meter import Meter
from muster.agent.gateway.upstream import Upstream
from muster.errors import MISTAKES, Malformed, MusterError
from muster.limits import MODEL_STALL_S

# An agent has some, and each of those that it hands work to some more; each is two descriptors.
CONNECTIONS_MAX: Final = 32
_REST_S: Final = 300.0
_LINGER_S: Final = 1.0


class Gateway:
    """One agent's way to one API."""

    def __init__(
        self,
        api: Api,
        upstream: str,
        key: Key,
        meter: Meter,
        tell: Callable[[Call], None],
        *,
        headers: Sequence[tuple[str, str]] = (),
        env: Mapping[str, str] = {},
        stall_s: float = MODEL_STALL_S,
        tls: ssl.SSLContext | None = None,
        count: Callable[[str], None] = lambda _: None,
        is_spare: Callable[[int], bool] = lambda _: True,
        held: Held | None = None,
    ) -> None:
        """`headers` go with every call; `env` says which proxy is on the way.

        `is_spare` says of a new descriptor whether it leaves the daemon enough of them; `held` is
        what the gateways of its attempt have in memory.

        Raises: Broken where the address or the proxy is none.
        """
        self._forward = Forward(
            api,
            Upstream(upstream, env, tls),
            key,
            meter,
            tell,
            held=Held() if held is None else held,
            count=count,
            headers=list(headers),
            stall_s=stall_s,
        )
        self._count = count
        self._is_spare = is_spare
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()
        self._talks: set[asyncio.Task[bool]] = set()

    def __repr__(self) -> str:
        return f"Gateway({self._forward.api.name!r}, {self._forward.upstream.address.authority!r})"

    @property
    def running(self) -> int:
        """How many calls have not ended."""
        return self._forward.running

    async def serve(self, sock: socket.socket) -> None:
        """Serve from now on, on a socket that listens; it is closed with the gateway."""
        self._server = await asyncio.start_server(self._accept, sock=sock, limit=HEAD_BYTES_MAX)

    async def close(self) -> None:
        """End every call, and serve no more; each that ran has been told when this returns."""
        if self._server is not None:
            self._server.close()
        for each in self._connections:
            each.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        await asyncio.gather(*self._talks, return_exceptions=True)

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        spare = self._is_spare(writer.get_extra_info("socket").fileno())
        if len(self._connections) >= CONNECTIONS_MAX or not spare:
            self._count("gateway-crowded")
            writer.transport.abort()
            return
        own = asyncio.create_task(self._connection(reader, writer))
        self._connections.add(own)
        own.add_done_callback(self._connections.discard)

    async def _connection(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        talk = asyncio.create_task(self._talk(Inbound(reader, writer)))
        self._talks.add(talk)
        talk.add_done_callback(self._talks.discard)
        gone = asyncio.create_task(writer.wait_closed())
        try:
            await asyncio.wait((talk, gone), return_when=asyncio.FIRST_COMPLETED)
            if talk.done():
                await _hang_up(reader, writer, cleanly=talk.result())
        except (MusterError, *MISTAKES):
            # The client is cut off below, and sees that; how often is counted by whoever made this.
            self._count("gateway-failed")
        finally:
            # At once: whoever closes the gateway may cancel this in the middle of its end.
            writer.transport.abort()
            talk.cancel()
            gone.cancel()
            await asyncio.gather(talk, gone, return_exceptions=True)

    async def _talk(self, link: Inbound) -> bool:
        """One call after another; whether the last was answered to its end."""
        while True:
            try:
                async with asyncio.timeout(_REST_S):
                    asked = await link.request()
                if asked is None:
                    return True
                if not await self._forward.call(link, asked):
                    return False
            except (OSError, TimeoutError):
                return False
            except Malformed as error:
                # What it asks is not known, so it is no call.
                self._count("gateway-refused")
                if not link.may_answer:
                    return False
                # Whoever hung up wants no answer any more; the refusal was counted.
                with contextlib.suppress(OSError, Malformed):
                    await self._forward.refuse(link, 400, str(error))
                return True
            if not link.goes_on:
                return True


async def _hang_up(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, cleanly: bool
) -> None:
    """Close; cleanly, so that an answer is not lost to a client that is still sending."""
    if not cleanly:
        return
    # The answer was said; whoever does not fetch it in time, or is gone, is cut off.
    with contextlib.suppress(OSError, TimeoutError):
        async with asyncio.timeout(_LINGER_S):
            writer.write_eof()
            await writer.drain()
            left = BODY_BYTES_MAX
            while left > 0 and (piece := await reader.read(HEAD_BYTES_MAX)):
                left -= len(piece)
