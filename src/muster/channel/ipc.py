"""The Unix socket between the daemon and the programs of the same person on the same machine.

Rule 1: only the same user gets in. The folder is 0700, the socket 0600, and the kernel is
        asked who is on the other end (both ends ask), so a loosened mode is not enough. Where a
        daemon of root encloses its attempts, the socket of one is its user's, and only that enters.
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
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final, cast

from muster import limits
from muster.channel.base import Link, LinkTasks, OnLink
from muster.channel.frame import farewell, prefixed, short_reason
from muster.channel.framed import FramedLink
from muster.channel.ipc_client import is_of_sandbox, peer_uid
from muster.channel.unproven import is_spare
from muster.errors import Broken, Conflict, Denied, Malformed, Unreachable, unable

if sys.platform != "win32":
    import fcntl

NAME: Final = "ipc"


class IpcLink(FramedLink, asyncio.Protocol):
    """One end of a connected Unix socket."""

    channel = NAME

    def __init__(self, listener: "IpcListener | None" = None) -> None:
        super().__init__()
        # Why the far end was not let in; None for every link that a user gets to see.
        self.refusal: str | None = None
        self._listener = listener
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport
        self._buffer = bytearray()
        self._lost = asyncio.Event()
        self._silence: asyncio.TimerHandle | None = None

    @property
    def ready(self) -> bool:
        return (
            self.ended is None
            and self._may_write.is_set()
            and not self._transport.is_closing()
            and not self._transport.get_write_buffer_size()
        )

    def _write(self, frames: Sequence[bytes]) -> None:
        """In one piece, because uvloop makes a system call of every piece."""
        self._transport.write(b"".join(map(prefixed, frames)))
        self.counters.count_out(frames)

    async def close(self, reason: str) -> None:
        if not self._lost.is_set() and not self._transport.is_closing():
            self._transport.write(farewell(reason))
            self._transport.close()
        self.cut(short_reason(reason))
        try:
            async with asyncio.timeout(limits.LINK_CLOSE_TIMEOUT_MS / 1000):
                await self._lost.wait()
        except TimeoutError:
            # The peer reads nothing, so the farewell cannot get out.
            self._transport.abort()
            await self._lost.wait()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # A cast, because the transports of uvloop are no subclasses.
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=limits.LINK_UNSENT_BYTES_MAX)
        connected = transport.get_extra_info("socket")
        uid, ours = peer_uid(connected), os.getuid()
        if self._listener is not None and self._listener.user:
            ours = self._listener.user
        if uid != ours and not (self._listener is None and is_of_sandbox(uid)):
            self.refusal = f"uid {uid} is not uid {ours}, whose daemon this is; run it as that user"
            self._refuse(self.refusal)
        elif self._listener is not None:
            if not self._listener.admit(self, connected.fileno()):
                self._refuse("too many programs talk to this daemon; close some, and try again")
                return
            silent_s = limits.LINK_LOCAL_SILENT_MS_MAX / 1000
            self._silence = self._loop.call_later(silent_s, self.too_silent)
            self._listener.hosting.adopt(self)

    def too_silent(self) -> None:
        """Cut a program that opened a link and never said a thing."""
        if not self.spoke:
            self._refuse("nothing was said for too long")

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            self._take_frames(self._buffer)
        except Malformed as malformed:
            self._refuse(str(malformed))
            return
        if self.ended is not None:
            self._transport.close()
        elif self.full:
            self._transport.pause_reading()

    def _refuse(self, reason: str) -> None:
        """Tell the far end why and drop the link."""
        self._transport.write(farewell(reason))
        self._transport.close()
        self.end(short_reason(reason))
        if self._listener is not None:
            self._listener.turned_away.add(self)

    def _on_room(self) -> None:
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def pause_writing(self) -> None:
        # A closing transport still flushes, but nobody may wait for it any more.
        if self.ended is None:
            self._may_write.clear()

    def resume_writing(self) -> None:
        self._may_write.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.end(f"connection lost ({exc})" if exc else "the peer hung up")
        self._lost.set()
        if self._silence is not None:
            self._silence.cancel()
        if self._listener is not None:
            self._listener.turned_away.discard(self)
            self._listener.links.pop(self, None)


class IpcListener:
    """The daemon's side. Made by `IpcChannel.listen`."""

    def __init__(self, path: Path, lock: int, on_link: OnLink, user: int = 0) -> None:
        self.address = str(path)
        # Who gets in where it is not ourselves.
        self.user = user
        self.hosting = LinkTasks(on_link)
        # Links of other users on their way out: they have no life, but they have a socket.
        self.turned_away: set[IpcLink] = set()
        # In the order in which they came.
        self.links: dict[IpcLink, None] = {}
        self.server: asyncio.Server | None = None
        self._path = path
        self._lock = lock

    def admit(self, link: IpcLink, descriptor: int) -> bool:
        """Whether there is a place for one more; the oldest that never spoke loses its own."""
        full = len(self.links) >= limits.LINKS_LOCAL_MAX
        if full or not is_spare(descriptor, limits.DESCRIPTORS_KEPT_LOCAL):
            silent = next((each for each in self.links if not each.spoke), None)
            if silent is None:
                return False
            del self.links[silent]
            silent.too_silent()
        self.links[link] = None
        return True

    @property
    def listens(self) -> bool:
        return self.server is not None and self.server.is_serving()

    async def close(self) -> None:
        server, self.server = self.server, None
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
        _check_path(address)
        if peer:
            raise Denied(f"the ipc channel cannot prove machine {peer}; dial it by http")
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(limits.HANDSHAKE_TIMEOUT_MS / 1000):
                _, link = await loop.create_unix_connection(IpcLink, address)
        except (OSError, TimeoutError) as error:
            raise Unreachable(
                f"no daemon answers at {address} ({error}); start it with `muster up`"
            ) from error
        if link.refusal is not None:
            await link.close(link.refusal)
            raise Denied(link.refusal)
        return link

    async def listen(self, address: str, on_link: OnLink, *, user: int = 0) -> IpcListener:
        """Listen at a path; `user` is the uid that gets in instead of ours, 0 for nobody else."""
        _check_path(address)
        path, loop = Path(address), asyncio.get_running_loop()
        try:
            path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            found = path.parent.stat()
        except OSError as error:
            what = f"cannot use socket folder {path.parent} ({error}); choose another"
            raise unable(what, error) from error
        # An existing folder is never tightened here: it might be /tmp or somebody's home.
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise Broken(f"socket folder {path.parent} is open to other users; `chmod 700` it")
        try:
            lock = os.open(path.with_name(path.name + ".lock"), os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise unable(f"cannot lock socket {path} ({error}); check its folder", error) from error
        with contextlib.ExitStack() as undo:
            undo.callback(os.close, lock)
            try:
                # As long as the listener lives, so two daemons never judge one socket file at once.
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise Conflict(f"another daemon listens at {path}; stop it first") from error
            listener = IpcListener(path, lock, on_link, user)
            listening = _bind(path, user)
            listener.server = await loop.create_unix_server(
                lambda: IpcLink(listener), sock=listening
            )
            undo.pop_all()
        return listener


def _check_path(address: str) -> None:
    """Raises Broken where no Unix socket can tell its peer, or the kernel cannot hold the path."""
    if sys.platform == "win32":
        raise Broken("the ipc channel needs Unix sockets with peer credentials; use Linux or macOS")
    size = len(os.fsencode(address))
    if size > limits.SOCKET_PATH_BYTES_MAX:
        raise Broken(
            f"socket path of {size} bytes, the kernel takes {limits.SOCKET_PATH_BYTES_MAX}:"
            f" {address}; choose a shorter folder"
        )


def _bind(path: Path, user: int = 0) -> socket.socket:
    """A socket there, in the place of one on which nobody listens any more."""
    if os.path.lexists(path):
        if not path.is_socket():
            raise Broken(f"{path} is there and is not a socket; move it away")
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            # A Unix connect either succeeds, is refused, or would block on a full backlog.
            probe.setblocking(False)
            try:
                probe.connect(str(path))
            except (ConnectionRefusedError, FileNotFoundError):
                # Nobody listens there: a daemon that was killed left its socket.
                path.unlink(missing_ok=True)
            except OSError as error:
                what = f"{path} is in use ({error}); stop the other daemon first"
                raise Conflict(what) from error
            else:
                raise Conflict(f"another program listens at {path}; stop it first")
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
        if user:
            os.chown(path, user, user)
    except OSError as error:
        listening.close()
        raise unable(f"cannot listen at {path} ({error}); check its folder", error) from error
    return listening
