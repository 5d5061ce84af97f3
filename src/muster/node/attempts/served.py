"""What of the daemon serves one sandbox: its ports, and the socket of its attempt.

Rule 1: what serves it begins with it and ends with it; what there was to tell is told by then.
Rule 2: all of it or nothing: an attempt of which something is not served is ended, and is no fault
of its agent.
"""

import asyncio
import contextlib
import itertools
import os
import socket
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from muster.channel.ipc import IpcChannel, IpcListener
from muster.node.counter import DECLARED
from muster.node.host.home import Home
from muster.node.runtime import Runtime

DECLARED[__name__] = {
    "sandbox-unserved": "What serves a sandbox did not begin, and its attempt was ended for it.",
}

# The names of sockets: the path of one has room for a few letters.
_numbers: Final = itertools.count()

Listeners = Mapping[int, socket.socket]


class Server(Protocol):
    """What serves ports of a sandbox."""

    async def serve(self, listeners: Listeners, /) -> None: ...

    async def close(self) -> None: ...


class Served:
    """See the top of this file. `lost` is why not all of it began, and is told to `ends`."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self.lost = ""
        self.ends: Callable[[str], None] = lambda _: None
        self.ports: list[int] = []
        self._servers: list[Server] = []
        self._begun: list[asyncio.Task[Any]] = []
        self._socket: IpcListener | None = None

    def add(self, ports: list[int], server: Server) -> None:
        """Let this serve these ports inside."""
        self.ports += ports
        self._servers.append(server)

    async def listen(self, task: str, user: int) -> str:
        """The path of a socket on which this task's agent alone is heard. Raises: as IpcChannel."""
        daemon = self._daemon
        path = Path(daemon.home.socket_of_session).with_name(f"a{next(_numbers) % 4096:03x}")
        serve = partial(daemon.serve, local=True, attempt=task)
        self._socket = await IpcChannel().listen(str(path), serve, user=user)
        return str(path)

    def take(self, listeners: Listeners) -> None:
        """Begin to serve."""
        if set(listeners) != set(self.ports):
            for each in listeners.values():
                each.close()
            self._lose()
            return
        for server in self._servers:
            begun = self._daemon.supervisor.run("sandbox", server.serve(listeners))
            begun.add_done_callback(self._has_begun)
            self._begun.append(begun)

    def _has_begun(self, task: asyncio.Task[Any]) -> None:
        if not task.cancelled() and not task.result():
            self._lose()

    def _lose(self) -> None:
        self._daemon.core.counters["sandbox-unserved"] += 1
        self.lost = "this machine could not serve its sandbox"
        self.ends(self.lost)

    async def close(self) -> None:
        """End all of it, whatever fails of it; what there was to tell is told by then."""
        async with AsyncExitStack() as ends:
            if self._socket is not None:
                # Nobody else ever listens there: the number of an attempt is its own.
                ends.callback(_remove, f"{self._socket.address}.lock")
                ends.push_async_callback(self._socket.close)
            for server in self._servers:
                ends.push_async_callback(server.close)
            if self._begun:
                await asyncio.wait(self._begun)


def clear(home: Home) -> None:
    """Remove the sockets of attempts that a daemon before us left. None is open by now."""
    for each in Path(home.socket_of_session).parent.glob("a[0-9a-f]*"):
        _remove(str(each))


def _remove(path: str) -> None:
    # It was never made, or went with its folder; where it stays nobody listens at it.
    with contextlib.suppress(OSError):
        os.unlink(path)
