"""The daemon's end of an attempt's listeners: they arrive once, before the command begins.

What is inside a sandbox reaches the daemon over these sockets alone, and only while it serves them.
"""

import asyncio
import contextlib
import json
import socket
from collections.abc import Callable
from typing import Final

from muster.agent.sandbox.profile import PORTS_MAX

OnListeners = Callable[[dict[int, socket.socket]], None]
"""Takes the listening sockets by their port inside; they are whoever's that takes them. None, where
they were made and did not arrive whole."""
_BYTES_MAX: Final = 4096


class Handover:
    """One attempt's; `theirs` is for its shim to inherit."""

    def __init__(self, on_listeners: OnListeners) -> None:
        self._on_listeners = on_listeners
        self._loop = asyncio.get_running_loop()
        self._ours, self._theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._ours.setblocking(False)
        self._loop.add_reader(self._ours, self._take)

    @property
    def theirs(self) -> int:
        return self._theirs.fileno()

    def passed(self) -> None:
        """The shim has its end."""
        self._theirs.close()

    def close(self) -> None:
        """Nothing comes any more; harmless when repeated."""
        self._theirs.close()
        if self._ours.fileno() >= 0:
            self._loop.remove_reader(self._ours)
            self._ours.close()

    def _take(self) -> None:
        try:
            said, handles, _, _ = socket.recv_fds(self._ours, _BYTES_MAX, PORTS_MAX)
        except BlockingIOError:
            return
        except OSError:
            said, handles = b"", []
        self.close()
        made = [socket.socket(fileno=handle) for handle in handles]
        ports: list[int] = []
        # What says no numbers hands nothing over: below it counts as none.
        with contextlib.suppress(ValueError):
            ports = [int(port) for port in json.loads(said)]
        if said and len(ports) != len(made):
            # What has no room for another descriptor gets some of them, or none.
            for each in made:
                each.close()
            ports, made = [], []
        elif not said:
            return
        for each in made:
            each.setblocking(False)
        self._on_listeners(dict(zip(ports, made, strict=True)))
