"""The web server of the door: bounded in connections, bytes and time.

Rule 1: whoever connects and says nothing, or says it slowly, is cut; where too many are here the
one that asks nothing for the longest time goes first.
Rule 2: it ends by itself when nobody used it for a while, and with the daemon that started it.
What it serves then has a second to end.
Rule 3: one that cannot speak to agents ends as well, and says why.
"""

import asyncio
import contextlib
import itertools
import os
import signal
import socket
import sys
from collections.abc import Generator
from typing import Any, Final

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from muster.door.app import App
from muster.door.guard import Guard, Use
from muster.limits import DOOR_HEADERS_BYTES_MAX, DOOR_REQUEST_S_MAX, DOOR_VISITORS_MAX

# A client that keeps its connection saves a millisecond for each call.
KEPT_S: Final = 75
ENDING_S: Final = 1
_STDIN: Final = 0


def serve(listening: socket.socket, daemon: str, port: int, idle_s: float) -> str:
    """Answer at this socket until nobody did anything for `idle_s`, or the daemon is gone.

    Returns why it had to end before, "" where it had not.
    """
    return asyncio.run(_serve(listening, daemon, port, idle_s))


async def _serve(listening: socket.socket, daemon: str, port: int, idle_s: float) -> str:
    loop = asyncio.get_running_loop()
    use = Use(loop.time)
    async with App(daemon, lambda: _say("speaks")) as app:
        server = _Server(
            uvicorn.Config(
                Guard(app.admit, port, use),
                http=_Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                log_level="error",
                access_log=False,
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEPT_S,
                timeout_graceful_shutdown=ENDING_S,
                limit_concurrency=DOOR_VISITORS_MAX,
                h11_max_incomplete_event_size=DOOR_HEADERS_BYTES_MAX,
            )
        )
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, server.end)
        loop.add_reader(_STDIN, server.hear, _STDIN)
        watching = [
            asyncio.create_task(_end_when_idle(server, use, idle_s)),
            asyncio.create_task(_end_when_failed(server, app)),
        ]
        try:
            await server.serve(sockets=[listening])
        finally:
            for each in watching:
                each.cancel()
        return app.why


async def _end_when_idle(server: "_Server", use: Use, idle_s: float) -> None:
    left_s = idle_s
    while left_s > 0:
        await asyncio.sleep(left_s)
        left_s = use.idle_at(idle_s)
    server.end()


async def _end_when_failed(server: "_Server", app: App) -> None:
    await app.failed.wait()
    server.end()


def _say(word: str) -> None:
    """To the daemon: `ready`, and `speaks` when the first agent is answered."""
    # The daemon is gone, which ends this process too.
    with contextlib.suppress(OSError):
        sys.stdout.write(f"{word}\n")
        sys.stdout.flush()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        """Ours are handled by the loop: whoever is told to end has ended well."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        _say("ready")

    def end(self) -> None:
        self.should_exit = True

    def hear(self, number: int) -> None:
        """The daemon says nothing over this; it is there as long as the daemon is."""
        if not os.read(number, 4096):
            asyncio.get_running_loop().remove_reader(number)
            self.end()


class _Connection(H11Protocol):
    """One connection; see Rule 1."""

    _born = itertools.count()

    def __init__(self, *args: Any, **more: Any) -> None:
        super().__init__(*args, **more)
        self._late: asyncio.TimerHandle | None = None
        self.number = next(self._born)

    @property
    def _asks(self) -> bool:
        """Whether a request of it is under way."""
        return self.cycle is not None and not self.cycle.response_complete

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        there = [each for each in self.connections if isinstance(each, _Connection)]
        silent = [each for each in there if not each._asks and each is not self]
        if len(there) >= DOOR_VISITORS_MAX and silent:
            min(silent, key=lambda each: each.number).cut()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._unwatch()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._asks:
            self._unwatch()
        else:
            self._watch()

    def cut(self) -> None:
        self.connections.discard(self)
        self.transport.abort()

    def _watch(self) -> None:
        if self._late is None:
            self._late = self.loop.call_later(DOOR_REQUEST_S_MAX, self.cut)

    def _unwatch(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None
