"""The word that opens a port: who does not know it hears nothing, not even what is there.

A dialer puts a name into its first message (the server name of TLS's ClientHello) that only members
of the fleet, and whoever was invited, can make:

    <base32 of HMAC-SHA256(key, hour ":" listener)>.invalid
    key       HMAC-SHA256("muster/knock/v1", id of the fleet), which every invitation holds
    hour      whole hours of the dialer's clock since 1970
    listener  id of the machine that is dialled; "" by who joins, and knows none

Rule 1: a listener looks at the first message without taking it, and hangs up without a byte where
        the name is not one of its own, of this hour or one beside it.
Rule 2: the word is no proof of anything: whoever knows it meets TLS, and is judged there as ever.
Rule 3: a dialer always knocks: who does not listen for it reads over it.
Rule 4: what is not whole yet is waited for, as long as the door lets anybody wait.
"""

import asyncio
import base64
import hmac
import socket
import sys
from collections.abc import Callable
from typing import Final

HOUR_MS: Final = 3_600_000
# A hello with every key share that there is has two thousand.
HELLO_BYTES_MAX: Final = 8 * 1024
_AFTER: Final = ".invalid"
_LOOK_S: Final = 0.01
_LOOK_S_MAX: Final = 0.25


def knock_name(fleet: str, listener: str, wall_ms: int) -> str:
    """The name for a listener, at this time."""
    key = hmac.digest(b"muster/knock/v1", fleet.encode(), "sha256")
    said = hmac.digest(key, f"{wall_ms // HOUR_MS}:{listener}".encode(), "sha256")
    return base64.b32encode(said).decode().rstrip("=").lower() + _AFTER


class Knock:
    """What a machine says at another's port, and listens for at its own.

    `closed` says whether all who may come know the word. `clock` is another reading of the time,
    whose hours open, too: a clock that was just set is not believed at once, and may be right.
    """

    def __init__(
        self,
        fleet: str,
        machine: str,
        wall_ms: Callable[[], int],
        closed: Callable[[], bool],
        clock: Callable[[], int] | None = None,
    ) -> None:
        self._fleet, self._machine = fleet, machine
        self._wall_ms, self._closed, self._clock = wall_ms, closed, clock or wall_ms

    def name(self, listener: str) -> str:
        """What is said at the port of this machine, "" for one that is not known.

        A machine of another fleet is named behind that fleet.
        """
        return knock_name(self._fleet, listener.rpartition("/")[2], self._wall_ms())

    def opens(self, name: str) -> bool:
        """Whether this is the word, at our port and about now."""
        good = [
            knock_name(self._fleet, listener, max(0, now_ms + beside * HOUR_MS))
            for now_ms in (self._wall_ms(), self._clock())
            for listener in (self._machine, "")
            for beside in (-1, 0, 1)
        ]
        # All of them, whichever it is: how long it takes says nothing.
        return sum([hmac.compare_digest(name.encode(), each.encode()) for each in good]) > 0

    async def heard(self, connected: socket.socket) -> bool:
        """Whether a connection begins with the word; nothing of what it said is taken."""
        if not self._closed():
            return True
        if sys.platform != "win32":
            await _readable(connected)
        pause_s = _LOOK_S
        while True:
            try:
                # No bytes send nothing; but it fails once the door has hung up, while what was said
                # before that can be looked at for ever.
                connected.send(b"")
                said = connected.recv(HELLO_BYTES_MAX, socket.MSG_PEEK)
            except (BlockingIOError, InterruptedError):
                said = None
            except OSError:
                return False
            name = None if said is None else server_name(said)
            if name is not None:
                return bool(name) and self.opens(name)
            if said is not None and (not said or len(said) >= HELLO_BYTES_MAX):
                return False
            # The rest of a hello that came in two packets; nothing tells of it without taking it.
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, _LOOK_S_MAX)


async def _readable(connected: socket.socket) -> None:
    """Returns when something was said, or the connection ended."""
    loop = asyncio.get_running_loop()
    said = asyncio.Event()
    loop.add_reader(connected, said.set)
    try:
        await said.wait()
    finally:
        loop.remove_reader(connected)


# --- the ClientHello (RFC 8446, 4.1.2; RFC 6066, 3) --------------------------------------------

_HANDSHAKE: Final = 22
_CLIENT_HELLO: Final = 1
_SERVER_NAME: Final = 0


def server_name(said: bytes) -> str | None:
    """The server name in a ClientHello; "" where there is none, None while more is to come.

    Ours is in one record; in several nobody writes it who knows the word.
    """
    start = bytes((_HANDSHAKE, 3))
    if said[:2] != start[: len(said[:2])]:
        return ""
    if len(said) < 5:
        return None
    size = int.from_bytes(said[3:5], "big")
    if not 4 <= size <= HELLO_BYTES_MAX - 6:
        return ""
    if len(said) < 5 + size:
        # What begins as no hello needs not be waited for.
        return None if said[5:6] in (b"", bytes((_CLIENT_HELLO,))) else ""
    return _named(said[5 : 5 + size])


def _named(message: bytes) -> str:
    if message[0] != _CLIENT_HELLO or int.from_bytes(message[1:4], "big") != len(message) - 4:
        return ""
    try:
        # Version and random; then session, ciphers and compressions, each behind its size.
        at = 4 + 2 + 32
        for width in (1, 2, 1):
            _, at = _field(message, at, width)
        extensions, _ = _field(message, at, 2)
        at = 0
        while at < len(extensions):
            kind = int.from_bytes(extensions[at : at + 2], "big")
            body, at = _field(extensions, at + 2, 2)
            if kind == _SERVER_NAME:
                names, _ = _field(body, 0, 2)
                # The type of a host's name is 0.
                host, end = _field(names, 1, 2)
                return host.decode("ascii") if names[:1] == b"\0" and end == len(names) else ""
    except ValueError:
        # It ends before it should, or is no ASCII.
        return ""
    return ""


def _field(raw: bytes, at: int, width: int) -> tuple[bytes, int]:
    """What stands behind its size, and where it ends. Raises: ValueError."""
    begin = at + width
    end = begin + int.from_bytes(raw[at:begin], "big")
    if end > len(raw) or begin > len(raw):
        raise ValueError("cut short")
    return raw[begin:end], end
