"""The Unix socket between the daemon and the programs of the same person on the same machine.

Rule 1: only the same user gets in. The folder is 0700, the socket 0600, and the kernel is
        asked who is on the other end (both ends ask), so a loosened mode is not enough.
Rule 2: a socket file is removed only by who holds its lock, and only if nobody listens on it.
Rule 3: the uid is all this channel proves; `peer` is always "".
Rule 4: there are only so many programs here at once. One that says nothing goes first, and soon in
        any case; where all of them talk, one more is told to come back.

The blocking counterpart for commands is `ipc_client`; it speaks the same bytes and imports
no asyncio. Windows has no user-checked counterpart here yet (a named pipe will be): Broken.
"""

import asyncio
import contextlib
import os
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, cast

from muster.channel.base import Link, LinkStatistics, LinkTasks, OnLink, gone
from muster.channel.frame import (
    LENGTH_BYTES,
    check_size,
    farewell,
    prefixed,
    read_length,
    short_reason,
)
from muster.channel.inbox import Inbox
from muster.channel.unproven import is_spare
from muster.errors import Broken, Conflict, Denied, Malformed, Unreachable, unable
from muster.limits import (
    DESCRIPTORS_KEPT_LOCAL,
    HANDSHAKE_TIMEOUT_MS,
    LINK_CLOSE_TIMEOUT_MS,
    LINK_LOCAL_SILENT_MS_MAX,
    LINK_UNSENT_BYTES_MAX,
    LINKS_LOCAL_MAX,
    SOCKET_PATH_BYTES_MAX,
)

if sys.platform != "win32":
    import fcntl

NAME: Final = "ipc"


class IpcLink(asyncio.Protocol):
    """One end of a connected Unix socket."""

    channel: Final = NAME
    peer: Final = ""

    def __init__(self, listener: "IpcListener | None" = None) -> None:
        self.peer_uid = -1
        # Why the far end was not let in; None for every link that a user gets to see.
        self.refusal: str | None = None
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._inbox = Inbox(NAME, self._resume_reading)
        self._counters = LinkStatistics(self._loop.time())
        self._may_write = asyncio.Event()
        self._may_write.set()
        self._lost = asyncio.Event()
        # Whether a whole frame ever came.
        self.spoke = False
        self._silence: asyncio.TimerHandle | None = None

    # --- what the user of a link calls ---

    async def send(self, frame: bytes) -> None:
        await self.send_all((frame,))

    async def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            check_size(frame)
        await self._wait_writable()
        self._write(frames)
        if not self._may_write.is_set():
            await self._wait_writable()

    @property
    def ready(self) -> bool:
        return (
            self._inbox.ended is None
            and self._may_write.is_set()
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def send_all_nowait(self, frames: Sequence[bytes]) -> None:
        assert self.ready, "somebody else is sending, or the link is gone"
        for frame in frames:
            check_size(frame)
        self._write(frames)

    def _write(self, frames: Sequence[bytes]) -> None:
        """In one piece, because uvloop makes a system call of every piece."""
        self._transport.write(b"".join(map(prefixed, frames)))
        for frame in frames:
            self._counters.count_out(len(frame))

    async def receive(self) -> bytes:
        frame = await self._inbox.get()
        self._counters.count_in(len(frame))
        return frame

    async def close(self, reason: str) -> None:
        if not self._lost.is_set() and not self._transport.is_closing():
            self._transport.write(farewell(reason))
            self._transport.close()
        self._inbox.cut(short_reason(reason))
        self._may_write.set()
        try:
            async with asyncio.timeout(LINK_CLOSE_TIMEOUT_MS / 1000):
                await self._lost.wait()
        except TimeoutError:
            # The peer reads nothing, so the farewell cannot get out.
            self._transport.abort()
            await self._lost.wait()

    def statistics(self) -> dict[str, float]:
        return self._counters.as_dict()

    async def _wait_writable(self) -> None:
        # After each wake the gate may be shut again by the sender that woke first: without
        # the loop, a hundred waiting senders would all write into one full buffer.
        while not self._may_write.is_set():
            await self._may_write.wait()
        if (reason := self._inbox.ended) is not None:
            raise Unreachable(gone(NAME, reason))

    # --- what the event loop calls ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because the transports of uvloop are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=LINK_UNSENT_BYTES_MAX)
        try:
            self.peer_uid = peer_uid(transport.get_extra_info("socket"))
        except Denied as denied:
            self.refusal = str(denied)
            self._cut(self.refusal)
            if self._listener is not None:
                self._listener.turned_away.add(self)
            return
        if self._listener is not None:
            number = transport.get_extra_info("socket").fileno()
            if not self._listener.admit(self, number):
                self._cut("too many programs talk to this daemon; close some, and try again")
                self._listener.turned_away.add(self)
                return
            self._silence = self._loop.call_later(LINK_LOCAL_SILENT_MS_MAX / 1000, self.too_silent)
            self._listener.hosting.adopt(self)

    def too_silent(self) -> None:
        """Cut a program that opened a link and never said a thing."""
        if not self.spoke:
            self._cut("nothing was said for too long")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._take_frames()
        except Malformed as malformed:
            self._cut(str(malformed))
            return
        if self._inbox.full:
            self._transport.pause_reading()

    def _take_frames(self) -> None:
        start = 0
        while len(self._buffer) - start >= LENGTH_BYTES:
            size, last = read_length(bytes(self._buffer[start : start + LENGTH_BYTES]))
            end = start + LENGTH_BYTES + size
            if len(self._buffer) < end:
                break
            body = bytes(self._buffer[start + LENGTH_BYTES : end])
            start = end
            if last:
                self._inbox.end(body.decode(errors="replace"))
                self._transport.close()
                break
            self._inbox.put(body)
            self.spoke = True
        del self._buffer[:start]

    def _cut(self, reason: str) -> None:
        """Refuse the far end: tell it why and drop the link."""
        self._transport.write(farewell(reason))
        self._transport.close()
        self._inbox.end(short_reason(reason))
        self._may_write.set()

    def _resume_reading(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        # A closing transport still flushes, but nobody may wait for it any more.
        if self._inbox.ended is None:
            self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._inbox.end(f"connection lost ({exc})" if exc else "the peer hung up")
        self._may_write.set()
        self._lost.set()
        if self._silence is not None:
            self._silence.cancel()
        if self._listener is not None:
            self._listener.turned_away.discard(self)
            self._listener.links.pop(self, None)


class IpcListener:
    """The daemon's side. Made by `IpcChannel.listen`."""

    def __init__(self, path: Path, lock: int, on_link: OnLink) -> None:
        self.address = str(path)
        self.hosting = LinkTasks(on_link)
        # Links of other users on their way out: they have no life, but they have a socket.
        self.turned_away: set[IpcLink] = set()
        # In the order in which they came.
        self.links: dict[IpcLink, None] = {}
        self._path = path
        self._lock = lock
        self._server: asyncio.Server | None = None

    async def start(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(lambda: IpcLink(self), sock=listening)

    def admit(self, link: IpcLink, descriptor: int) -> bool:
        """Whether there is a place for one more; the oldest that never spoke loses its own."""
        if len(self.links) >= LINKS_LOCAL_MAX or not is_spare(descriptor, DESCRIPTORS_KEPT_LOCAL):
            silent = next((each for each in self.links if not each.spoke), None)
            if silent is None:
                return False
            del self.links[silent]
            silent.too_silent()
        self.links[link] = None
        return True

    async def close(self) -> None:
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        # The loop may have accepted a socket that has not reached us yet; this brings it here.
        for _ in range(3):
            await asyncio.sleep(0)
        await self.hosting.close()
        for link in tuple(self.turned_away):
            await link.close("the listener is closed")
        self._path.unlink(missing_ok=True)
        os.close(self._lock)


class IpcChannel:
    """Unix sockets; the address is a path."""

    name: Final = NAME

    async def dial(self, address: str, *, peer: str = "") -> Link:
        check_platform()
        check_path(address)
        if peer:
            raise Denied(f"the ipc channel cannot prove machine {peer}; dial it by http")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(HANDSHAKE_TIMEOUT_MS / 1000):
                _, link = await loop.create_unix_connection(IpcLink, address)
        except (OSError, TimeoutError) as error:
            raise Unreachable(
                f"no daemon answers at {address} ({error}); start it with `muster up`"
            ) from error
        if link.refusal is not None:
            await link.close(link.refusal)
            raise Denied(link.refusal)
        return link

    async def listen(self, address: str, on_link: OnLink) -> IpcListener:
        check_platform()
        check_path(address)
        path = Path(address)
        _check_folder(path.parent)
        lock = _take_lock(path)
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, lock)
            listener = IpcListener(path, lock, on_link)
            await listener.start(_bind(path))
            undo.pop_all()
        return listener


def check_platform() -> None:
    """Raises Broken where there is no Unix socket that can tell its peer."""
    if sys.platform == "win32":
        raise Broken("the ipc channel needs Unix sockets with peer credentials; use Linux or macOS")


def check_path(address: str) -> None:
    """Raises Broken when the kernel could not hold the path."""
    size = len(os.fsencode(address))
    if size > SOCKET_PATH_BYTES_MAX:
        raise Broken(
            f"socket path of {size} bytes, the kernel takes {SOCKET_PATH_BYTES_MAX}:"
            f" {address}; choose a shorter folder"
        )


def peer_uid(connected: Any) -> int:
    """The uid at the other end, as the kernel knows it. Raises Denied for any other than ours."""
    if sys.platform == "linux":
        raw = connected.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12)
        _, uid, _ = struct.unpack("3i", raw)
    else:
        # LOCAL_PEERCRED of the BSDs and macOS: struct xucred begins with u32 version, u32 uid.
        raw = connected.getsockopt(0, 1, 76)
        _, uid = struct.unpack_from("2I", raw)
    if uid != os.getuid():
        raise Denied(
            f"uid {uid} is not uid {os.getuid()}, whose daemon this is; run it as that user"
        )
    return int(uid)


def _check_folder(folder: Path) -> None:
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except OSError as error:
        what = f"cannot use socket folder {folder} ({error}); choose another"
        raise unable(what, error) from error
    # An existing folder is never tightened here: it might be /tmp or somebody's home.
    if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
        raise Broken(f"socket folder {folder} is open to other users; `chmod 700` it")


def _take_lock(path: Path) -> int:
    """Held as long as the listener lives, so two daemons never judge one socket file at once."""
    try:
        lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    except OSError as error:
        raise unable(f"cannot lock socket {path} ({error}); check its folder", error) from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(lock)
        raise Conflict(f"another daemon listens at {path}; stop it first") from error
    return lock


def _bind(path: Path) -> socket.socket:
    _remove_stale(path)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
    except OSError as error:
        listening.close()
        raise unable(f"cannot listen at {path} ({error}); check its folder", error) from error
    return listening


def _remove_stale(path: Path) -> None:
    if not os.path.lexists(path):
        return
    if not path.is_socket():
        raise Broken(f"{path} is there and is not a socket; move it away")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # A Unix connect either succeeds, is refused, or would block on a full backlog.
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            path.unlink(missing_ok=True)
            return
        except OSError as error:
            raise Conflict(f"{path} is in use ({error}); stop the other daemon first") from error
    raise Conflict(f"another program listens at {path}; stop it first")
