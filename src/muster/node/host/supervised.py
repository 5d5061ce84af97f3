"""How far the daemon is, told to systemd where that started it: sd_notify(3).

Rule 1: that it lives is told by the loop that does its steps: one that is blocked says nothing, and
is started anew (`WatchdogSec=` in unit.py).
Rule 2: systemd listens to us alone: what the daemon starts has none of these variables.
"""

import asyncio
import contextlib
import os
import socket
from collections.abc import MutableMapping


class Supervised:
    """What systemd wants to hear of, as its variables say; nothing where they are not there."""

    def __init__(self, environ: MutableMapping[str, str] = os.environ) -> None:
        self._place = environ.pop("NOTIFY_SOCKET", "")
        pid, usec = environ.pop("WATCHDOG_PID", ""), environ.pop("WATCHDOG_USEC", "")
        ours = usec.isdecimal() and pid in ("", str(os.getpid()))
        # Told twice in the time after which systemd gives up on us.
        self._pause_s = int(usec) / 2_000_000 if ours else 0.0

    def say(self, word: str) -> None:
        if self._place:
            at = f"\0{self._place[1:]}" if self._place.startswith("@") else self._place
            # A systemd that does not listen ends us by its own watch.
            with (
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out,
                contextlib.suppress(OSError),
            ):
                out.sendto(word.encode(), at)

    def ready(self) -> None:
        """It answers; from now on this loop says that it lives."""
        self.say("READY=1")
        if self._pause_s:
            self._live(asyncio.get_running_loop())

    def _live(self, loop: asyncio.AbstractEventLoop) -> None:
        self.say("WATCHDOG=1")
        loop.call_later(self._pause_s, self._live, loop)
