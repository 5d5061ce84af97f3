"""The one thread that reads and writes context folders; the loop only appends.

Rule 1: everything about folders is done here, one thing after the other: so nobody writes a file
that somebody else of us is looking at.
Rule 2: what fails in a round of a folder is told once, ends the round of that folder only, and is
tried again with a look at everything in `AGAIN_S`.
Rule 3: it asks the core by events, and waits for the effect that answers: by then what it wrote
is durable.
"""

import asyncio
import heapq
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from itertools import count
from pathlib import Path
from typing import Any, Final, NamedTuple, TypeVar

from muster.context.kinds import ContextPut
from muster.errors import MusterError, Refused, Unreachable, Unsettled
from muster.limits import CONTEXT_FOLDER_BYTES
from muster.log.entry import EntryId
from muster.node import event as ev
from muster.node.attempts.blob_transfer import entry_claim
from muster.node.folders.basis import Basis
from muster.node.folders.disk import Disk
from muster.node.folders.folder import Folder
from muster.node.folders.mapping import Mapped
from muster.node.folders.reader import FRESH_MS, Reader
from muster.node.folders.state import State
from muster.node.folders.writer import OLD_S
from muster.node.host import clock
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.services.context import (
    AskFiles,
    AskPaths,
    Bytes,
    FilesAnswered,
    Place,
    Wanted,
    WriteFiles,
    WriteRoot,
)

T = TypeVar("T")

AGAIN_S: Final = 30.0
# Longer than any step; a disk that is full may take longer, and then a round is tried again.
_ANSWER_S_MAX: Final = 60.0
_ROOT_S: Final = 1.0
# Blobs that are under way at once: each is read by a peer that has other things to do as well.
FETCHES_MAX: Final = 8
# Of what is not as others have it: enough to see what it is about.
_TOLD_MAX: Final = 50


class Stopped(Unreachable):
    """The daemon ends."""


class Task(NamedTuple):
    """Something to do for one folder, "" for all of them."""

    folder: str
    looks: frozenset[str] = frozenset()
    settles: frozenset[str] = frozenset()
    old: str = ""
    rescan: bool = False
    everything: bool = False


class FolderThread:
    """See the rules at the top of this file; the methods behind `Outside` are called in it."""

    def __init__(
        self,
        daemon: Runtime,
        fetch: Callable[[str, Bytes], Coroutine[Any, Any, None]],
        merge: Callable[..., Coroutine[Any, Any, bytes | None]],
    ) -> None:
        self._post, self._blobs = daemon.post, daemon.machine.blobs
        self._machine, self._basis_path = daemon.core.machine, daemon.home.context_basis
        self._fetch, self._merge = fetch, merge
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._slots: dict[int, queue.SimpleQueue[FilesAnswered]] = {}
        self._numbers = count(1)
        self._ending = threading.Event()
        self.mapped: dict[str, Mapped] = {}
        # Replaced whole by the thread, read by the loop.
        self.states: dict[str, State] = {}
        self._folders: dict[str, Folder] = {}
        self._opened_as: dict[str, Mapped] = {}
        self._later: list[tuple[int, int, Task]] = []
        # Versions whose bytes are under way, and those that nobody had a moment ago.
        self._fetching: set[EntryId] = set()
        self._in_vain: set[EntryId] = set()
        # Paths that wait for their turn, by folder; of the thread alone.
        self._unfetched: dict[str, dict[str, None]] = {}
        self._told: dict[str, bytes] = {}
        self._noticed: dict[str, str] = {}
        self._root_due_ms: dict[str, int] = {}

    # --- the loop's side ------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `end`; it begins anew after a mistake of ours."""
        self._folders.clear()
        for name in self.mapped:
            self.tell(Task(name, rescan=True, everything=True))
        await asyncio.to_thread(self._work)

    def tell(self, task: Task) -> None:
        self._inbox.put(task)

    def answered(self, effect: FilesAnswered) -> None:
        if (slot := self._slots.get(effect.number)) is not None:
            slot.put(effect)

    def end(self) -> None:
        """The thread ends with what it is doing."""
        self._ending.set()
        self._inbox.put(None)

    # --- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        basis = Basis(self._basis_path)
        try:
            while not self._ending.is_set():
                for task in self._next():
                    self._round(basis, task)
        except Stopped:
            pass
        finally:
            basis.close()

    def _next(self) -> list[Task]:
        """What is to be done now, one task for each folder."""
        now_ms = clock.boot_ms()
        waits = [due for due, _, _ in self._later[:1]] + list(self._root_due_ms.values())
        wait_s = max(0.0, (min(waits) - now_ms) / 1000) if waits else None
        found: list[Task | None] = []
        try:
            found.append(self._inbox.get(timeout=wait_s))
            while True:
                found.append(self._inbox.get_nowait())
        except queue.Empty:
            pass
        now_ms = clock.boot_ms()
        while self._later and self._later[0][0] <= now_ms:
            found.append(heapq.heappop(self._later)[2])
        for name in [n for n, due in self._root_due_ms.items() if due <= now_ms]:
            del self._root_due_ms[name]
            self._tell_root(name)
        return self._joined(task for task in found if task is not None)

    def _joined(self, tasks: Iterable[Task]) -> list[Task]:
        joined: dict[str, Task] = {}
        olds = []
        for task in tasks:
            if task.old:
                olds.append(task)
                continue
            for name in [task.folder] if task.folder else list(self.mapped):
                was = joined.get(name, Task(name))
                joined[name] = Task(
                    name, was.looks | task.looks, was.settles | task.settles, "",
                    was.rescan or task.rescan, was.everything or task.everything,
                )  # fmt: skip
        return [*olds, *joined.values()]

    def _round(self, basis: Basis, task: Task) -> None:
        mapped = self.mapped.get(task.folder)
        if self._opened_as.get(task.folder) is not mapped:
            # It was taken away, or is another one, or is to begin anew.
            self._folders.pop(task.folder, None)
            self.states.pop(task.folder, None)
        if mapped is None:
            # Its files stay; what becomes of them from here on is nobody's deletion.
            if self._opened_as.pop(task.folder, None) is not None:
                basis.forget(task.folder)
            return
        folder = self._folders.get(task.folder)
        failed = ""
        try:
            if folder is None:
                folder = self._opened(basis, mapped)
                folder.begin()
                self._folders[task.folder] = folder
            else:
                self._do(folder, task)
        except Stopped:
            raise
        except (MusterError, OSError) as error:
            failed = str(error) or type(error).__name__
            self._after(AGAIN_S, Task(task.folder, rescan=True, everything=True))
        finally:
            if folder is not None:
                self._look_later(folder)
                self._fetch_more(task.folder)
        if folder is not None:
            self._tell_state(folder, failed)
            self._root_due_ms.setdefault(task.folder, clock.boot_ms() + int(_ROOT_S * 1000))
        self._notice(task.folder, "failed", failed and f"context folder {task.folder}: {failed}")

    def _opened(self, basis: Basis, mapped: Mapped) -> Folder:
        self._opened_as[mapped.name] = mapped
        basis.lies_at(mapped.name, mapped.path, mapped.inode)
        disk = Disk(Path(mapped.path), mapped.inode)
        reader = Reader(disk, self._blobs, large=mapped.large)
        return Folder(mapped.place, reader, basis, self, mapped.only)

    @staticmethod
    def _do(folder: Folder, task: Task) -> None:
        if task.old and folder.look_at_old(task.old):
            folder.writer.fresh_old.append(task.old)
        if task.looks:
            folder.look(task.looks)
        if task.rescan:
            folder.rescan(everything=task.everything)
        if task.settles:
            folder.settle(task.settles)

    def _look_later(self, folder: Folder) -> None:
        names, folder.writer.fresh_old = folder.writer.fresh_old, []
        for name in names:
            old = folder.writer.old.get(name)
            if old is not None:
                after_s = FRESH_MS / 1000 if old.is_unread else OLD_S
                self._after(after_s, Task(folder.place.folder, old=name))

    def _after(self, after_s: float, task: Task) -> None:
        due_ms = clock.boot_ms() + int(after_s * 1000)
        heapq.heappush(self._later, (due_ms, next(self._numbers), task))

    # --- what is told -----------------------------------------------------------------------------

    def _tell_state(self, folder: Folder, failed: str) -> None:
        name, there = folder.place.folder, [b.signature for b in folder.bases.values()]
        size = sum(each.size for each in there if each is not None)
        left = dict(sorted(folder.left.items())[:_TOLD_MAX])
        self.states[name] = State(
            sum(each is not None for each in there), size, left, dict(folder.doubtful),
            frozenset(folder.conflicts), failed,
        )  # fmt: skip
        count, more = len(folder.conflicts), "; `muster context conflicts` shows them"
        which = f"{count} file{'s' * (count > 1)} of context folder {name}"
        title = f"{which} was changed in two ways that do not fit together{more}" if count else ""
        self._notice(name, "conflicts", title)
        stopped = ", ".join(sorted(folder.stopped)[:3])
        title = f"context folder {name}: something else writes {stopped}, to and fro"
        self._notice(name, "stopped", title if stopped else "")
        title = f"context folder {name} has {size >> 20} MiB: each machine keeps all that it had"
        self._notice(name, "size", title if size > CONTEXT_FOLDER_BYTES else "")

    def _notice(self, name: str, what: str, title: str) -> None:
        """Tell what a person must see, once; and when it is over."""
        key = f"context-{what}-{name}"[:64]
        if title != self._noticed.get(key, ""):
            self._noticed[key] = title
            self._send(Noticed(key, title))

    def _tell_root(self, name: str) -> None:
        folder = self._folders.get(name)
        if folder is not None and folder.root != self._told.get(name):
            self._told[name] = folder.root
            self._send(WriteRoot(folder.place, folder.root))

    # --- what folders need ----------------------------------------------------------------------

    def wanted(
        self, place: Place, made_of: Mapping[str, frozenset[EntryId]]
    ) -> tuple[tuple[Wanted, ...], bool]:
        """See `Outside`."""
        every, left, allowed = list[Wanted](), dict(made_of), False
        while left:
            # What takes the core longer than a step may is asked again.
            some = dict(left)
            found = self._ask(lambda number, some=some: AskFiles(number, place, some))  # type: ignore[misc]
            every += found.wanted
            allowed = found.allowed
            for each in found.wanted:
                left.pop(each.path, None)
        return tuple(every), allowed

    def paths(self, place: Place) -> tuple[str, ...]:
        """See `Outside`."""
        return self._ask(lambda number: AskPaths(number, place)).paths

    def write(self, place: Place, bodies: list[ContextPut]) -> tuple[tuple[EntryId, ...], bool]:
        """See `Outside`. Raises: Unsettled, Refused."""
        found = self._ask(lambda number: WriteFiles(number, place, tuple(bodies)))
        if not found.settled:
            raise Unsettled("this machine is still asking its peers how far its own log goes")
        if found.refused:
            raise Refused(found.refused)
        for body, id in zip(bodies, found.ids, strict=True):
            if body.blob:
                self._blobs.claim(body.blob, entry_claim(id))
        return found.ids, found.allowed

    def bytes_at(self, place: Place, path: str, where: Bytes) -> Iterable[bytes] | None:
        """See `Outside`."""
        if where.data is not None:
            return (where.data,)
        name = where.digest.hex()
        ours = where.machine == self._machine or entry_claim(where.entry) in self._blobs.claims(
            name
        )
        if ours and self._blobs.intact(name):
            return self._blobs.read(name)
        if where.entry in self._fetching or where.entry in self._in_vain:
            return None
        if len(self._fetching) >= FETCHES_MAX:
            self._unfetched.setdefault(place.folder, {})[path] = None
            return None
        self._fetching.add(where.entry)
        asyncio.run_coroutine_threadsafe(self._bring(place, path, where), self._loop)
        return None

    def _fetch_more(self, name: str) -> None:
        """Settle so many paths as there is room to fetch the bytes of."""
        waiting = self._unfetched.get(name, {})
        room = FETCHES_MAX - len(self._fetching)
        if waiting and room > 0:
            some = frozenset(list(waiting)[:room])
            for path in some:
                del waiting[path]
            self._after(0, Task(name, settles=some))

    async def _bring(self, place: Place, path: str, where: Bytes) -> None:
        """Fetch a blob, and settle its path then; where nobody has it, later again."""
        try:
            await self._fetch(path, where)
        except MusterError:
            self._in_vain.add(where.entry)
        self._fetching.discard(where.entry)
        if where.entry in self._in_vain:
            # Others have their turn meanwhile.
            self.tell(Task(place.folder))
            await asyncio.sleep(AGAIN_S)
            self._in_vain.discard(where.entry)
        self.tell(Task(place.folder, settles=frozenset({path})))

    def merge(self, first: bytes, base: bytes, second: bytes, *, union: bool) -> bytes | None:
        """See `Outside`."""
        work = self._merge(first, base, second, union=union)
        future = asyncio.run_coroutine_threadsafe(work, self._loop)
        while True:
            try:
                return future.result(0.5)
            except TimeoutError:
                if self._ending.is_set():
                    future.cancel()
                    raise Stopped("the daemon ends") from None

    def again(self, place: Place, paths: frozenset[str], *, settle: bool) -> None:
        """See `Outside`."""
        none = frozenset[str]()
        task = Task(place.folder, none if settle else paths, paths if settle else none)
        self._after(FRESH_MS / 1000, task)

    def _ask(self, make: Callable[[int], ev.Event]) -> FilesAnswered:
        number, slot = next(self._numbers), queue.SimpleQueue[FilesAnswered]()
        self._slots[number] = slot
        try:
            self._send(make(number))
            until_ms = clock.boot_ms() + int(_ANSWER_S_MAX * 1000)
            while clock.boot_ms() < until_ms:
                try:
                    return slot.get(timeout=0.5)
                except queue.Empty:
                    if self._ending.is_set():
                        raise Stopped("the daemon ends") from None
            raise Unreachable("this machine is too busy to say what is to lie in the folder")
        finally:
            del self._slots[number]

    def _send(self, event: ev.Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._post, event)
        except RuntimeError as error:
            raise Stopped("the daemon has ended") from error
