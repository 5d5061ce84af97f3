"""A folder that several machines see is a mailbox: a synced one, a share, a stick that travels.

Rule 1: a packet is a file, `<place>/<receiver>/<name>`; its sha256 ends the name, which tells the
writer where the receiver reads that (channel/turn.py). It is written beside, made durable and
renamed: so it is never there by half, and written twice it is one file.
Rule 2: what brings files here may bring them in pieces and out of order. A file counts when its
content has the hash that its name says; until then, and under any other name, it is not there.
Rule 3: whoever may use the place may do anything in it, so nothing there is followed or waited for:
no links, pipes or devices, and no more is read at once than a bounded amount.
Rule 4: of each writer so much may lie here for a machine and no more, and packets are taken of each
in turn. What counts as sent says its receipt.
Rule 5: a share can hang for ever. One thread of this place waits for it and nothing else does
(channel/hand.py). An error that costs one file is counted.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import stat
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path, PurePath
from typing import Final, NamedTuple, TypeVar

from muster import atomic_file
from muster.channel import sftp
from muster.channel.base import Packet, Post, PostOptions, Visitor
from muster.channel.folder_watch import Watch
from muster.channel.hand import Hand
from muster.channel.turn import NAME as PACKET
from muster.channel.turn import Hints, Looks, Lying, sha256_of, writer_of
from muster.errors import USED_UP, Exhausted, Malformed, Unreachable
from muster.limits import MAILBOX_BYTES_MAX, PACKET_BYTES_MAX, POST_TAKEN_MAX

NAME: Final = "drop"

T = TypeVar("T")
_Mark = tuple[int, ...]

# Without news the folder is looked at this often: what is on another machine's disk tells nobody.
DEADLINE_S: Final = 60
URGENT_S: Final = 5
# What was begun goes on so soon: what is read in one look is bounded, whatever lies there.
GO_ON_S: Final = 1
_READ_MAX: Final = 4 * POST_TAKEN_MAX
_PASSED_OVER_MAX: Final = 4096
_MACHINE: Final = re.compile(r"[0-9a-z-]{1,64}\Z")
_TEMPORARY: Final = ".tmp-"
# How what a killed writer left is called, and how old it is when nobody writes it any more.
_LEFT: Final = re.compile(r"\.tmp-[0-9a-z_]{8,16}\Z")
_LEFT_NS: Final = 3_600 * 10**9
# What says nothing of the file that was to be read: this process or machine has no more of them.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})


def check_place(address: str) -> str:
    """A folder is named from the root, or from the home folder with `~/`; one of a far host as
    `sftp://user@host/path`. Raises: Malformed.
    """
    if address.startswith(sftp.SCHEME):
        sftp.split(address)
        return address
    if "\0" in address or not (address.startswith("~/") or PurePath(address).is_absolute()):
        raise Malformed(f"{address[:80]!r} is no folder of this machine: write it from / or ~/ on")
    return address


class Options(PostOptions, frozen=True, forbid_unknown_fields=True):
    """`place` is the folder that the machines share.

    Where it is on a far host, `key` is the file with the person's key for it, and `known_hosts`
    says who the host is.
    """

    check_place = staticmethod(check_place)

    key: str = "~/.ssh/id_ed25519"
    known_hosts: str = "~/.ssh/known_hosts"


class DropPost:
    """See the rules at the top of this file."""

    name = NAME

    def __init__(self, place: Path, visitor: Visitor, deadline_s: int) -> None:
        self._place = place
        self._machine = visitor.machine
        self._deadline_s = deadline_s
        self._hand = Hand(f"the folder {place}", "muster-drop")
        self._survived = visitor.survived
        # What one file or the watch failed with, until it is counted: threads count nothing.
        self._failures: deque[tuple[str, Exception]] = deque()
        # Files that are not what their names say, as they were then: they are not read again.
        self._passed_over: OrderedDict[str, _Mark] = OrderedDict()
        # In which order files are read; how many were since all were, 0 where the last look saw
        # all.
        self._names = visitor.names
        self._looks = Looks[_File]()
        self._looked_at = 0
        self._bell = asyncio.Event()
        self._closed = False
        self._watch: Watch | None = None
        # One that ended, or never stood, is followed by another one no sooner.
        self._watch_after_s = 0.0

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > PACKET_BYTES_MAX:
            raise Malformed(
                f"a packet has {len(packet)} bytes; at most {PACKET_BYTES_MAX} are left"
            )
        assert _MACHINE.match(to), "a receiver is a machine, and becomes the name of a folder"
        name = self._names.name(to, hashlib.sha256(packet).hexdigest())
        is_ours = self._names.ours(to)
        await self._do(lambda: self._put(packet, to, name, is_ours))

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        hints = self._names.hints()
        return await self._do(lambda: self._take(most, hints))

    async def ack(self, ids: Sequence[str]) -> None:
        names = [f"{each}.mp" for each in ids]
        await self._do(lambda: self._forget([name for name in names if PACKET.match(name)]))

    async def news(self, *, urgent: bool) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        ended = self._watch is None or self._watch.ended
        if ended and loop.time() >= self._watch_after_s:
            self._watch_after_s = loop.time() + URGENT_S
            inbox = self._place / self._machine
            ring = partial(_ring, loop, self._bell)
            self._watch = Watch(inbox, _TEMPORARY, ring, self._fails)
        # A share of another machine, or a system without watches, tells nothing.
        deaf = urgent or self._watch is None or self._watch.ended
        deadline_s = self._deadline_s or (URGENT_S if deaf else DEADLINE_S)
        if self._looked_at:
            deadline_s = min(deadline_s, GO_ON_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._bell.wait()
        self._bell.clear()

    async def close(self) -> None:
        self._closed = True
        self._bell.set()
        self._hand.close()
        if self._watch is not None:
            self._watch.end()

    async def _do(self, work: Callable[[], T]) -> T:
        """Work on files, beside the loop. Raises: Unreachable, Exhausted."""
        try:
            return await self._hand.do(work)
        except OSError as error:
            # What is gone may come back as another file system, which this watch does not see.
            if self._watch is not None:
                self._watch.end()
            if error.errno in USED_UP:
                raise Exhausted(f"there is no room in {self._place} ({error.strerror})") from error
            raise Unreachable(
                f"the folder {self._place} cannot be used now ({error.strerror or error})"
            ) from error
        finally:
            while self._failures:
                self._survived(*self._failures.popleft())

    def _fails(self, what: str, error: Exception) -> None:
        self._failures.append((what, error))

    def _put(self, packet: bytes, to: str, name: str, is_ours: Callable[[str], bool]) -> None:
        with self._box(to) as (box, mode):
            lying = _files(box)
            if any(file.name == name and file.size == len(packet) for file in lying):
                return
            ours = sum(each.size for each in lying if each.may_be_packet and is_ours(each.name))
            if ours + len(packet) > MAILBOX_BYTES_MAX:
                raise Exhausted(f"{self._place / to} is full: its machine takes nothing")
            atomic_file.write_in(box, name, packet, mode=mode & 0o666, temporary=_TEMPORARY)
            self._sweep(box, lying, os.stat(name, dir_fd=box, follow_symlinks=False).st_mtime_ns)

    def _sweep(self, box: int, lying: Iterable["_File"], now_ns: int) -> None:
        """Remove what writers that were killed left; `now_ns` is the clock of the place itself."""
        for file in lying:
            if _LEFT.match(file.name) and now_ns - file.mtime_ns > _LEFT_NS:
                try:
                    os.unlink(file.name, dir_fd=box)
                except FileNotFoundError:
                    # Another writer swept it.
                    continue
                except OSError as error:
                    self._fails("unremoved", error)

    @contextlib.contextmanager
    def _box(self, machine: str) -> Iterator[tuple[int, int]]:
        """The folder for one machine, and the mode of the place: whoever may use it may use both.

        It is open, and no link: what somebody puts in its place meanwhile is not what is used.
        """
        place = os.open(self._place, os.O_RDONLY | os.O_DIRECTORY)
        try:
            mode = os.fstat(place).st_mode & 0o7777
            made = True
            try:
                os.mkdir(machine, dir_fd=place)
            except FileExistsError:
                made = False
            box = os.open(machine, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=place)
            try:
                if made:
                    # Whose box it is removes what others left there.
                    os.fchmod(box, mode & ~stat.S_ISVTX)
                yield box, mode
            finally:
                os.close(box)
        finally:
            os.close(place)

    def _take(self, most: int, hints: Hints) -> list[Packet]:
        with self._box(self._machine) as (box, _):
            lying = [
                Lying(writer_of(file.name, hints), file[:2], file[:2], file)
                for file in _files(box)
                if file.may_be_packet and self._passed_over.get(file.name) != file.mark
            ]
            return self._look(box, lying, most)

    def _look(self, box: int, lying: "list[Lying[_File]]", most: int) -> list[Packet]:
        """Packets among the files, of each writer in turn."""
        found: list[Packet] = []
        seen = 0
        for file in self._looks.order(lying):
            seen += 1
            body, mark = self._read(box, file.name)
            if body is not None and hashlib.sha256(body).hexdigest() == sha256_of(file.name):
                found.append(Packet(file.name[:-3], body))
            elif body is not None:
                self._pass_over(file.name, mark)
            if len(found) >= most or seen >= _READ_MAX:
                break
        self._looked_at += seen
        if self._looked_at >= len(lying):
            self._looked_at = 0
        return found

    def _pass_over(self, name: str, mark: "_Mark") -> None:
        self._passed_over[name] = mark
        if len(self._passed_over) > _PASSED_OVER_MAX:
            self._passed_over.popitem(last=False)

    def _read(self, box: int, name: str) -> tuple[bytes | None, "_Mark"]:
        """What a file holds; None of one that is gone, or that cannot be read now.

        Whatever the reason, the others are not its.
        """
        try:
            handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=box)
        except FileNotFoundError:
            return None, ()
        except OSError as error:
            return self._unread(error)
        try:
            about = os.fstat(handle)
            if not stat.S_ISREG(about.st_mode):
                return None, ()
            # As it was before it was read: what is written meanwhile makes it another one.
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(PACKET_BYTES_MAX + 1), _mark(about)
        except OSError as error:
            return self._unread(error)
        finally:
            os.close(handle)

    def _unread(self, error: OSError) -> tuple[None, "_Mark"]:
        if error.errno in _OURS:
            raise error
        self._fails("unread", error)
        return None, ()

    def _forget(self, names: Sequence[str]) -> None:
        kept = set()
        with self._box(self._machine) as (box, _):
            for name in names:
                try:
                    os.unlink(name, dir_fd=box)
                except FileNotFoundError:
                    # It was acknowledged before.
                    continue
                except OSError as error:
                    # It was dealt with, and whoever keeps it here keeps none of the others here.
                    self._fails("unremoved", error)
                    kept.add(name)
            for file in _files(box) if kept else ():
                if file.name in kept:
                    self._pass_over(file.name, file.mark)


def _mark(about: os.stat_result) -> _Mark:
    return (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def _ring(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):
        # The loop may have ended.
        loop.call_soon_threadsafe(bell.set)


class _File(NamedTuple):
    """What lies in a folder, as it is there: no link is followed."""

    mtime_ns: int
    name: str
    size: int
    is_regular: bool
    mark: _Mark

    @property
    def may_be_packet(self) -> bool:
        return self.is_regular and self.size <= PACKET_BYTES_MAX and bool(PACKET.match(self.name))


def _files(box: int) -> list[_File]:
    """What lies in an open folder, the oldest first."""
    found = []
    with os.scandir(box) as entries:
        for entry in entries:
            try:
                about = entry.stat(follow_symlinks=False)
            except FileNotFoundError:
                # Removed since it was listed.
                continue
            regular = stat.S_ISREG(about.st_mode)
            found.append(_File(about.st_mtime_ns, entry.name, about.st_size, regular, _mark(about)))
    return sorted(found)


def open_channel(options: Options, visitor: Visitor) -> Post:
    """The mailbox of one machine in the folder; that may be away now, and come back."""
    if options.place.startswith(sftp.SCHEME):
        about = options.place, options.key, options.known_hosts
        return sftp.SftpPost(*about, visitor, options.deadline_s)
    return DropPost(Path(options.place).expanduser(), visitor, options.deadline_s)
