"""A folder on a far host is a mailbox, too, by the sshd there and nothing of ours.

It is the place of `drop` at `sftp://user@host[:port]/path`, with its rules and names of files.

Rule 1: the host is who `known_hosts` of the person says it is; one that is not known, or shows
another key, gets nothing. What lies there is trusted with no more than a folder here.
Rule 2: a packet is written beside, made durable where that sshd can, and renamed. Its folder cannot
be made durable from here: what a power cut there takes is not receipted, and left again.
Rule 3: no link is followed that is seen. Who may put one there in that very moment gains nothing:
what is read counts by the hash that its name says, and what is written is sealed.
Rule 4: one connection, begun when it is used, with a time for everything that is asked of it. A
look at much, or over a slow line, ends with what it has, and the next one goes on there.
"""

import asyncio
import contextlib
import errno
import getpass
import hashlib
import re
import secrets
import stat
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from muster.address import check_address, split_address
from muster.channel.base import Packet, Visitor
from muster.channel.turn import NAME as PACKET
from muster.channel.turn import Looks, Lying, sha256_of, writer_of
from muster.errors import USED_UP, Broken, Exhausted, Malformed, Unreachable
from muster.extra import bring
from muster.limits import MAILBOX_BYTES_MAX, PACKET_BYTES_MAX, POST_TAKEN_MAX

if TYPE_CHECKING:
    from muster.channel.far_files import FarFile, Files

T = TypeVar("T")

SCHEME: Final = "sftp://"
# Nobody rings: so often it is looked at.
DEADLINE_S: Final = 60
URGENT_S: Final = 5
GO_ON_S: Final = 1
# Everything that is done at once there is done within this, or it hangs.
HANGS_S: Final = 60.0
# A look ends after so long, or with packets of so much.
LOOK_S: Final = 20.0
LOOK_BYTES: Final = 16 * 1024 * 1024
_READ_MAX: Final = 4 * POST_TAKEN_MAX
_PASSED_OVER_MAX: Final = 4096
# A time there is in whole seconds, so what is not whole now may be whole under the same marks.
_LOOKS_APART: Final = 20
_LEFT: Final = re.compile(r"\.tmp-[0-9a-f]{16}\Z")
_LEFT_S: Final = 3_600
_USER: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}\Z")
_PORT: Final = 22


class Where(NamedTuple):
    user: str
    host: str
    port: int
    path: str


def split(place: str) -> Where:
    """What `sftp://[user@]host[:port]/path` says; `/~/` is the home there. Raises: Malformed."""
    account, slash, path = place.removeprefix(SCHEME).partition("/")
    user, at, where = account.rpartition("@")
    if not slash or not path or "\0" in path or (at and not _USER.match(user)):
        raise Malformed(f"{place[:80]!r} is no place: write sftp://user@host/path")
    portless = where.endswith("]") or ":" not in where
    host, port = split_address(check_address(f"{where}:{_PORT}" if portless else where))
    return Where(user, host, port, path.removeprefix("~/") if path.startswith("~/") else f"/{path}")


class SftpPost:
    """See the rules at the top of this file."""

    name = "drop"

    def __init__(
        self, place: str, key: str, known_hosts: str, visitor: Visitor, deadline_s: int
    ) -> None:
        self._place, self._where = place, split(place)
        self._key, self._known_hosts = key, known_hosts
        self._machine, self._survived = visitor.machine, visitor.survived
        self._deadline_s = deadline_s
        self._files: Files | None = None
        self._turn = asyncio.Lock()
        # When what is done now hangs.
        self._within: asyncio.Timeout | None = None
        self._bell = asyncio.Event()
        self._closed = False
        # Files that are not what their names say, as they were, and at which look they are read
        # again; in which order files are read, and whether the last look did not see all.
        self._passed_over: OrderedDict[str, tuple[tuple[int, int], int]] = OrderedDict()
        self._names, self._order = visitor.names, Looks["FarFile"]()
        self._goes_further = False
        self._looks = 0

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > PACKET_BYTES_MAX:
            raise Malformed(
                f"a packet has {len(packet)} bytes; at most {PACKET_BYTES_MAX} are left"
            )
        await self._do(lambda files: self._put(files, packet, to))

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        return await self._do(lambda files: self._take(files, most))

    async def ack(self, ids: Sequence[str]) -> None:
        names = [f"{each}.mp" for each in ids]
        await self._do(lambda files: self._forget(files, [n for n in names if PACKET.match(n)]))

    async def news(self, *, urgent: bool) -> None:
        if self._closed:
            return
        deadline_s = self._deadline_s or (URGENT_S if urgent else DEADLINE_S)
        if self._goes_further:
            deadline_s = min(deadline_s, GO_ON_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._bell.wait()

    async def close(self) -> None:
        self._closed = True
        self._bell.set()
        await self._hang_up()

    # --- the connection -----------------------------------------------------------------------

    async def _do(self, work: "Callable[[Files], Awaitable[T]]") -> T:
        """Do something over there. Raises: Unreachable, Exhausted, Broken."""
        async with self._turn:
            if self._closed:
                raise Unreachable(f"{self._place} is closed")
            try:
                async with asyncio.timeout(HANGS_S) as self._within:
                    return await work(await self._connected())
            except TimeoutError as error:
                await self._hang_up()
                raise Unreachable(f"{self._place} does not answer") from error
            except OSError as error:
                if isinstance(error, ConnectionError):
                    await self._hang_up()
                if error.errno in USED_UP:
                    raise Exhausted(f"there is no room in {self._place}") from error
                raise Unreachable(
                    f"the folder {self._place} cannot be used now ({error.strerror or error})"
                ) from error

    def _goes_on(self) -> float:
        """It does not hang: something was answered. Returns the time now, in seconds."""
        now_s = asyncio.get_running_loop().time()
        if self._within is not None and not self._within.expired():
            self._within.reschedule(now_s + HANGS_S)
        return now_s

    async def _connected(self) -> "Files":
        if self._files is None or self._files.is_over:
            try:
                # It takes longer than a step may.
                await asyncio.to_thread(import_module, "muster.channel.far_files")
            except ModuleNotFoundError as error:
                raise Broken(
                    f"a place over sftp needs more than is installed here ({error.name}): "
                    f"{bring('ssh')}"
                ) from error
            from muster.channel import far_files, ssh_client  # noqa: PLC0415 - imported just now

            user, host, port, _ = self._where
            account = ssh_client.Account(user or getpass.getuser(), host, port)
            about = await ssh_client.files_of(account, self._key, self._known_hosts)
            self._files = far_files.Files(*about)
        return self._files

    async def _hang_up(self) -> None:
        files, self._files = self._files, None
        if files is not None:
            await files.close()

    # --- what lies there --------------------------------------------------------------------

    async def _box(self, files: "Files", machine: str) -> tuple[str, int]:
        """The folder for one machine, and the mode of the place: who may use it may use both."""
        place = self._where.path
        # Also the bit by which all in there is of one group.
        mode = (await files.about(place, follow=True)).mode & ~stat.S_ISVTX
        box = f"{place.rstrip('/')}/{machine}"
        try:
            found = await files.about(box)
        except FileNotFoundError:
            # There is no mailbox yet: it is made here.
            await files.make(box, mode)
        else:
            if not found.is_folder:
                raise NotADirectoryError(errno.ENOTDIR, f"{machine[:12]} there is no folder")
        return box, mode

    async def _put(self, files: "Files", packet: bytes, to: str) -> None:
        box, mode = await self._box(files, to)
        name = self._names.name(to, hashlib.sha256(packet).hexdigest())
        lying, is_ours = await files.held(box), self._names.ours(to)
        if any(file.name == name and file.size == len(packet) for file in lying):
            return
        ours = sum(file.size for file in lying if _may_be_packet(file) and is_ours(file.name))
        if ours + len(packet) > MAILBOX_BYTES_MAX:
            raise Exhausted(f"the folder for {to[:12]} in {self._place} is full")
        beside = f"{box}/.tmp-{secrets.token_hex(8)}"
        try:
            await files.write(beside, packet, mode & 0o666)
            await files.rename(beside, f"{box}/{name}")
        except OSError:
            # The first error is raised; the half of a file goes with the next sweep.
            with contextlib.suppress(OSError):
                await files.remove(beside)
            raise
        await self._sweep(files, box, lying, (await files.about(f"{box}/{name}")).mtime_s)

    async def _sweep(
        self, files: "Files", box: str, lying: "Sequence[FarFile]", now_s: int
    ) -> None:
        """Remove what writers that were killed left; `now_s` is the clock of the place itself."""
        for file in lying:
            if _LEFT.match(file.name) and now_s - file.mtime_s > _LEFT_S:
                try:
                    await files.remove(f"{box}/{file.name}")
                except FileNotFoundError:
                    continue
                except ConnectionError:
                    raise
                except OSError as error:
                    self._survived("unremoved", error)

    async def _take(self, files: "Files", most: int) -> list[Packet]:
        box, _ = await self._box(files, self._machine)
        hints = self._names.hints()
        self._looks += 1
        lying = [
            Lying(writer_of(file.name, hints), at, at, file)
            for file in await files.held(box)
            if _may_be_packet(file) and not self._is_passed_over(file)
            for at in ((file.mtime_s, file.name),)
        ]
        found: list[Packet] = []
        left, much, until_s = _READ_MAX, LOOK_BYTES, self._goes_on() + LOOK_S
        self._goes_further = True
        for file in self._order.order(lying):
            left -= 1
            self._goes_on()
            try:
                body = await files.read(f"{box}/{file.name}", PACKET_BYTES_MAX + 1)
            except FileNotFoundError:
                # Another process with this key, or its sender, took it meanwhile.
                continue
            except ConnectionError:
                raise
            except OSError as error:
                self._survived("unread", error)
                body = b""
            if hashlib.sha256(body).hexdigest() == sha256_of(file.name):
                found.append(Packet(file.name[:-3], body))
                much -= len(body)
            else:
                self._pass_over(file.name, (file.size, file.mtime_s))
            if len(found) >= most or not left or much <= 0 or self._goes_on() >= until_s:
                return found
        self._goes_further = False
        return found

    def _is_passed_over(self, file: "FarFile") -> bool:
        mark, until = self._passed_over.get(file.name, ((-1, -1), 0))
        return mark == (file.size, file.mtime_s) and self._looks < until

    def _pass_over(self, name: str, mark: tuple[int, int]) -> None:
        self._passed_over[name] = mark, self._looks + _LOOKS_APART
        if len(self._passed_over) > _PASSED_OVER_MAX:
            self._passed_over.popitem(last=False)

    async def _forget(self, files: "Files", names: Sequence[str]) -> None:
        box, _ = await self._box(files, self._machine)
        for name in names:
            self._goes_on()
            try:
                await files.remove(f"{box}/{name}")
            except FileNotFoundError:
                # It was acknowledged before.
                continue
            except ConnectionError:
                raise
            except OSError as error:
                # It was dealt with; the others go all the same.
                self._survived("unremoved", error)


def _may_be_packet(file: "FarFile") -> bool:
    return file.is_plain and file.size <= PACKET_BYTES_MAX and bool(PACKET.match(file.name))
