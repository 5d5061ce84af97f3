"""The terminal of a person elsewhere: a pseudo terminal, read and written as the loop allows.

Rule: its descriptor is waited for, and not given to the loop, which reads pipes and sockets.
"""

import asyncio
import contextlib
import fcntl
import os
import pty
import struct
import termios
from collections.abc import Callable
from typing import Any


class Terminal:
    """One end of it; the `other` is the program's, and closed here once that has it."""

    def __init__(self, rows: int, columns: int) -> None:
        self._ours, self.other = pty.openpty()
        os.set_blocking(self._ours, False)
        self._waiting = b""
        self.resize(rows, columns)

    def resize(self, rows: int, columns: int) -> None:
        """It is that large now: whoever is in front of it is told by the kernel."""
        # The terminal is closed: nobody is in front of it any more.
        with contextlib.suppress(OSError):
            size = struct.pack("HHHH", rows, columns, 0, 0)
            fcntl.ioctl(self._ours, termios.TIOCSWINSZ, size)

    async def read(self, most: int) -> bytes:
        """What was written to it; nothing when nobody has its other end any more."""
        loop = asyncio.get_running_loop()
        while self._ours >= 0:
            try:
                return os.read(self._ours, most)
            except BlockingIOError:
                await _until(loop.add_reader, loop.remove_reader, self._ours)
            except OSError:
                # How Linux says that it is over.
                break
        return b""

    def write(self, data: bytes) -> None:
        """What is typed; `drain` hands it over."""
        self._waiting += data

    async def drain(self) -> None:
        loop = asyncio.get_running_loop()
        while self._waiting and self._ours >= 0:
            try:
                self._waiting = self._waiting[os.write(self._ours, self._waiting) :]
            except BlockingIOError:
                await _until(loop.add_writer, loop.remove_writer, self._ours)
            except OSError as error:
                raise ConnectionError("nobody is at the terminal any more") from error

    def close(self) -> None:
        """Hang up; once is enough."""
        self.handed_over()
        if self._ours >= 0:
            os.close(self._ours)
            self._ours = -1

    def handed_over(self) -> None:
        """The program has its end."""
        if self.other >= 0:
            os.close(self.other)
            self.other = -1


async def _until(add: Callable[..., Any], remove: Callable[[int], Any], descriptor: int) -> None:
    ready = asyncio.get_running_loop().create_future()

    def now() -> None:
        if not ready.done():
            ready.set_result(None)

    add(descriptor, now)
    try:
        await ready
    finally:
        remove(descriptor)
