"""A folder that several machines see is a mailbox: a synced one, a share, a stick that travels.

Rule 1: a packet is a file, `<place>/<receiver>/<sha256 of it>.mp`. It is written beside, made
durable and renamed: so it is never there by half, and written twice it is one file.
Rule 2: what brings files here may bring them in pieces and out of order. A file counts when its
content has the hash that its name says; until then, and under any other name, it is not there.
Rule 3: whoever may use the place may do anything in it, so nothing there is followed or waited for:
no links, pipes or devices, and no more is read at once than a bounded amount.
Rule 4: for each machine so much may lie here and no more. What counts as sent says its receipt.
"""

import asyncio
import contextlib
import errno
import hashlib
import os
import re
import stat
import threading
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path, PurePath
from typing import Final, TypeVar

from muster import atomic_file
from muster.channel.base import Own, Packet, PostOptions
from muster.errors import USED_UP, Exhausted, Malformed, MusterError, Unreachable
from muster.limits import MAILBOX_BYTES_MAX, PACKET_BYTES_MAX, POST_TAKEN_MAX

NAME: Final = "drop"

T = TypeVar("T")
_Mark = tuple[int, ...]

# Without news the folder is looked at this often: what is on another machine's disk tells nobody.
DEADLINE_S: Final = 60
URGENT_S: Final = 5
# What is removed or read in one look is bounded, whatever lies there.
_READ_MAX: Final = 4 * POST_TAKEN_MAX
_PASSED_OVER_MAX: Final = 4096
_PACKET: Final = re.compile(r"[0-9a-f]{64}\.mp\Z")
_MACHINE: Final = re.compile(r"[0-9a-z-]{1,64}\Z")
_TEMPORARY: Final = ".tmp-"
# What says nothing of the file that was to be read: this process or machine has no more of them.
_OURS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_DEBOUNCE_MS: Final = 50
_STEP_MS: Final = 50
# A watch looks this often whether it still watches the folder that has its name.
_SAME_MS: Final = 2_000


def check_place(address: str) -> str:
    """A folder is named from the root, or from the home folder with `~/`. Raises: Malformed."""
    if "\0" in address or not (address.startswith("~/") or PurePath(address).is_absolute()):
        raise Malformed(f"{address[:80]!r} is no folder of this machine: write it from / or ~/ on")
    return address


class Options(PostOptions, frozen=True, forbid_unknown_fields=True):
    """`place` is the folder that the machines share."""

    check_place = staticmethod(check_place)


class DropPost:
    """See the rules at the top of this file."""

    name = NAME

    def __init__(self, place: Path, machine: str, deadline_s: int) -> None:
        self._place = place
        self._inbox = place / machine
        self._deadline_s = deadline_s
        # Files that are not what their names say, as they were then: they are not read again.
        self._passed_over: OrderedDict[str, _Mark] = OrderedDict()
        self._bell = asyncio.Event()
        self._closed = False
        self._watch: _Watch | None = None
        # One that ended, or never stood, is followed by another one no sooner.
        self._watch_after_s = 0.0

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > PACKET_BYTES_MAX:
            raise Malformed(
                f"a packet has {len(packet)} bytes; at most {PACKET_BYTES_MAX} are left"
            )
        assert _MACHINE.match(to), "a receiver is a machine, and becomes the name of a folder"
        await self._do(lambda: self._put(packet, self._place / to))

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        return await self._do(lambda: self._take(most))

    async def ack(self, ids: Sequence[str]) -> None:
        names = [f"{each}.mp" for each in ids]
        await self._do(lambda: self._forget([name for name in names if _PACKET.match(name)]))

    async def news(self, *, urgent: bool) -> None:
        if self._closed:
            return
        loop = asyncio.get_running_loop()
        ended = self._watch is None or self._watch.ended
        if ended and loop.time() >= self._watch_after_s:
            self._watch_after_s = loop.time() + URGENT_S
            self._watch = _Watch(self._inbox, lambda: _ring(loop, self._bell))
        # A share of another machine, or a system without watches, tells nothing.
        deaf = urgent or self._watch is None or self._watch.ended
        deadline_s = self._deadline_s or (URGENT_S if deaf else DEADLINE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(deadline_s):
                await self._bell.wait()
        self._bell.clear()

    async def close(self) -> None:
        self._closed = True
        self._bell.set()
        if self._watch is not None:
            self._watch.end()

    async def _do(self, work: Callable[[], T]) -> T:
        """Work on files, beside the loop. Raises: Unreachable, Exhausted."""
        try:
            return await asyncio.to_thread(work)
        except OSError as error:
            # What is gone may come back as another file system, which this watch does not see.
            if self._watch is not None:
                self._watch.end()
            if error.errno in USED_UP:
                raise Exhausted(f"there is no room in {self._place} ({error.strerror})") from error
            raise Unreachable(
                f"the folder {self._place} cannot be used now ({error.strerror or error})"
            ) from error

    def _put(self, packet: bytes, box: Path) -> None:
        path = box / f"{hashlib.sha256(packet).hexdigest()}.mp"
        mode = self._begin(box)
        if path.exists():
            return
        if sum(size for _, size in _files(box)) + len(packet) > MAILBOX_BYTES_MAX:
            raise Exhausted(f"{box} is full: its machine takes nothing")
        try:
            atomic_file.write_file(path, packet, mode=mode & 0o666, temporary=_TEMPORARY)
        except Exhausted:
            raise
        except MusterError as error:
            raise Unreachable(f"the folder {self._place} cannot be used now: {error}") from error

    def _begin(self, box: Path) -> int:
        """A folder for one machine, and the mode of the place: whoever may use it may use both."""
        mode = self._place.stat().st_mode & 0o7777
        try:
            box.mkdir()
        except FileExistsError:
            if not stat.S_ISDIR(box.lstat().st_mode):
                raise NotADirectoryError(errno.ENOTDIR, f"{box.name} is no folder") from None
        else:
            box.chmod(mode)
        return mode

    def _take(self, most: int) -> list[Packet]:
        self._begin(self._inbox)
        found: list[Packet] = []
        left = _READ_MAX
        for name, size in _files(self._inbox):
            if len(found) >= most or not left:
                break
            if _PACKET.match(name) and size <= PACKET_BYTES_MAX:
                body, mark = self._read(name)
                if body is None:
                    continue
                left -= 1
                if hashlib.sha256(body).hexdigest() == name[:-3]:
                    found.append(Packet(name[:-3], body))
                    continue
                self._pass_over(name, mark)
        return found

    def _pass_over(self, name: str, mark: _Mark) -> None:
        self._passed_over[name] = mark
        if len(self._passed_over) > _PASSED_OVER_MAX:
            self._passed_over.popitem(last=False)

    def _read(self, name: str) -> tuple[bytes | None, _Mark]:
        """What a file holds; None where that was no packet before, or is none that can be read.

        One that fails is passed over, whatever the reason: the others are not its.
        """
        try:
            return self._read_file(name)
        except OSError as error:
            if error.errno in _OURS:
                raise
            return None, ()

    def _read_file(self, name: str) -> tuple[bytes | None, _Mark]:
        flags = os.O_RDONLY | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
        handle = os.open(self._inbox / name, flags)
        try:
            about = os.fstat(handle)
            # As it was before it was read: what is written meanwhile makes it another one.
            mark = _mark(about)
            if not stat.S_ISREG(about.st_mode) or self._passed_over.get(name) == mark:
                return None, mark
            with os.fdopen(handle, "rb", closefd=False) as file:
                return file.read(PACKET_BYTES_MAX + 1), mark
        finally:
            os.close(handle)

    def _forget(self, names: Sequence[str]) -> None:
        # Where the place is not there, that nothing lies in it is no answer.
        self._place.stat()
        for name in names:
            path = self._inbox / name
            try:
                path.unlink(missing_ok=True)
            except OSError:
                # It was dealt with, and whoever keeps it here keeps none of the others here.
                with contextlib.suppress(OSError):
                    self._pass_over(name, _mark(path.lstat()))


class _Watch:
    """A thread that rings when something happens in a folder; `ended` once it cannot tell."""

    def __init__(self, folder: Path, ring: Callable[[], None]) -> None:
        self._stop = threading.Event()
        self.ended = False
        self._folder, self._ring = folder, ring
        threading.Thread(target=self._run, name="muster-drop", daemon=True).start()

    def end(self) -> None:
        self.ended = True
        self._stop.set()

    def _run(self) -> None:
        stood = False
        # An extra, and a folder that may be gone or on a system without watches.
        with contextlib.suppress(ImportError, OSError, RuntimeError):
            from watchfiles import watch  # noqa: PLC0415

            watched = _same(self._folder)
            for changes in watch(
                self._folder, watch_filter=lambda _, path: _TEMPORARY not in path,
                debounce=_DEBOUNCE_MS, step=_STEP_MS, rust_timeout=_SAME_MS, yield_on_timeout=True,
                stop_event=self._stop, recursive=False, raise_interrupt=False,
            ):  # fmt: skip
                # What came before the watch stood is told by nobody.
                if changes or not stood:
                    self._ring()
                stood = True
                if _same(self._folder) != watched:
                    break
        self.ended = True
        if stood:
            self._ring()


def _mark(about: os.stat_result) -> _Mark:
    return (about.st_ino, about.st_size, about.st_mtime_ns, about.st_ctime_ns)


def _same(folder: Path) -> tuple[int, int]:
    about = folder.stat()
    return (about.st_dev, about.st_ino)


def _ring(loop: asyncio.AbstractEventLoop, bell: asyncio.Event) -> None:
    with contextlib.suppress(RuntimeError):
        # The loop may have ended.
        loop.call_soon_threadsafe(bell.set)


def _files(box: Path) -> list[tuple[str, int]]:
    """What lies in a folder, the oldest first, and how large each is."""
    found = []
    with os.scandir(box) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):
                about = entry.stat(follow_symlinks=False)
                found.append((about.st_mtime_ns, entry.name, about.st_size))
    return [(name, size) for _, name, size in sorted(found)]


def open_channel(options: Options, own: Own) -> DropPost:
    """The mailbox of one machine in the folder; that may be away now, and come back."""
    return DropPost(Path(options.place).expanduser(), own.machine, options.deadline_s)
