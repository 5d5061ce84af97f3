"""The command's side of the Unix socket: blocking, and quick to import.

Rule 1: nothing but `socket` and what the interpreter has loaded anyway; a command starts in
        less than 100 ms, and asyncio alone would take half of that.
Rule 2: the daemon must run as the same user: a socket somebody else put there is refused. In the
        sandbox of an attempt the socket was put there by whoever made the sandbox, and the
        kernel shows a user of outside as the one that it has for all of them.

    with Client(path, timeout_s=5) as client:
        client.send(frame)
        reply = client.receive()
"""

import os
import socket
import struct
import sys
from contextlib import AbstractContextManager
from typing import Final

from muster.channel.frame import LENGTH_BYTES, check_size, prefixed, read_length
from muster.errors import Broken, Denied, Silent, Unreachable
from muster.limits import SOCKET_PATH_BYTES_MAX

ENCLOSED: Final = "MUSTER_ENCLOSED"
"""A variable that every enclosed attempt has."""
UID_OF_OUTSIDE: Final = 65534
"""What the kernel shows of a user that a user namespace does not have (user_namespaces(7))."""


def peer_uid(connected: socket.socket) -> int:
    """The uid at the other end, as the kernel knows it."""
    if sys.platform == "linux":
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", raw)
    else:
        # LOCAL_PEERCRED of the BSDs and macOS: struct xucred begins with u32 version, u32 uid.
        _, uid = struct.unpack_from("2I", connected.getsockopt(0, 1, 76))
    return int(uid)


def is_of_sandbox(uid: int) -> bool:
    """Whether we are an enclosed attempt, and this is how a user of outside looks from here."""
    return uid == UID_OF_OUTSIDE and ENCLOSED in os.environ


def _called(uid: int) -> str:
    """A user as `sudo -u` takes one."""
    import pwd  # noqa: PLC0415 - not on every platform

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"'#{uid}'"


class Client(AbstractContextManager["Client"]):
    """A connection to the daemon of this user."""

    def __init__(self, path: str, timeout_s: float) -> None:
        """Connect. `timeout_s` bounds every single wait.

        Raises Unreachable (no daemon), Denied (another user's), Broken (path, platform).
        """
        if sys.platform == "win32":
            raise Broken("commands need a Unix socket to reach the daemon; use Linux or macOS")
        if len(os.fsencode(path)) > SOCKET_PATH_BYTES_MAX:
            raise Broken(
                f"socket path over the {SOCKET_PATH_BYTES_MAX} bytes the kernel takes: {path};"
                " choose a shorter folder"
            )
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(timeout_s)
        try:
            self._socket.connect(path)
            uid = peer_uid(self._socket)
            if uid != os.getuid() and not is_of_sandbox(uid):
                raise Denied(
                    f"the program that listens at {path} runs as {_called(uid)}, not as you: if "
                    "it is that user's machine, give the command as that user: `sudo -u "
                    f"{_called(uid)} …`; else `ps -fu {uid}` shows what it is"
                )
        except OSError as error:
            self._socket.close()
            raise Unreachable(
                f"no daemon answers at {path} ({error}); start it with `muster up`"
            ) from error
        except Denied:
            self._socket.close()
            raise

    def send(self, frame: bytes) -> None:
        """Send one frame whole. Raises Malformed and Unreachable."""
        check_size(frame)
        try:
            self._socket.sendall(prefixed(frame))
        except OSError as error:
            raise Unreachable(f"the daemon took no more bytes ({error}); try again") from error

    def receive(self) -> bytes:
        """The next frame. Raises Silent (too long), Unreachable (closed) and Malformed."""
        size, last = read_length(self._read(LENGTH_BYTES))
        body = self._read(size)
        if last:
            raise Unreachable(f"the daemon closed the link: {body.decode(errors='replace')}")
        return body

    def _read(self, size: int) -> bytes:
        # A frame is read into one buffer of its announced and already bounded size.
        buffer = bytearray(size)
        view = memoryview(buffer)
        filled = 0
        while filled < size:
            try:
                count = self._socket.recv_into(view[filled:])
            except TimeoutError as error:
                raise Silent("the daemon is silent; see `muster doctor`") from error
            except OSError as error:
                raise Unreachable(f"the daemon is gone ({error}); try again") from error
            if count == 0:
                raise Unreachable("the daemon hung up; see `muster doctor`")
            filled += count
        return bytes(buffer)

    def fileno(self) -> int:
        """For `select`: readable means that a frame has begun to arrive."""
        return self._socket.fileno()

    def __exit__(self, *_: object) -> None:
        self._socket.close()
