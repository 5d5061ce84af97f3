"""The one thread that reads and writes context folders; the loop only appends.

Rule 1: everything about folders is done here, one thing after the other: so nobody writes a file
that somebody else of us is looking at.
Rule 2: what fails in a round of a folder is told once, ends the round of that folder only, and all
is looked at again in `AGAIN_S`; until then nothing is tried there.
Rule 3: it asks the core by events, and waits for the effect that answers: by then what it wrote
is durable.
"""

import asyncio
import heapq
import queue
import threading
from collections.abc import Callable, Coroutine, Iterable, Mapping
from itertools import count
from typing import Any, Final, NamedTuple, TypeVar

from muster.context.kinds import ContextPut
from muster.errors import Broken, MusterError, Refused, Unsettled
from muster.limits import CONTEXT_FOLDER_BYTES
from muster.log.entry import EntryId
from muster.node import event as ev
from muster.node.attempts.blob_transfer import entry_claim
from muster.node.folders.basis import Basis, open_basis
from muster.node.folders.fetches import Fetches
from muster.node.folders.folder import Folder
from muster.node.folders.lastlook import look_last
from muster.node.folders.mapping import Mapped
from muster.node.folders.notices import Notices
from muster.node.folders.opening import opened_disk
from muster.node.folders.outside import Written
from muster.node.folders.passed import Passed
from muster.node.folders.questions import Questions, Stopped
from muster.node.folders.reader import FRESH_MS, Reader
from muster.node.folders.state import State
from muster.node.folders.writer import OLD_S
from muster.node.host import clock
from muster.node.runtime import Runtime
from muster.node.services.context import (
    AskFiles,
    AskPaths,
    Bytes,
    Place,
    Unknown,
    Wanted,
    WriteFiles,
)

T = TypeVar("T")

AGAIN_S: Final = 30.0
# A machine that starts may write as soon as its peers have answered.
_UNSETTLED_S: Final = 1.0
_ROOT_S: Final = 1.0
# Of what is not as others have it: enough to see what it is about.
_TOLD_MAX: Final = 50


class Task(NamedTuple):
    """Something to do for one folder, "" for all of them."""

    folder: str
    looks: frozenset[str] = frozenset()
    settles: frozenset[str] = frozenset()
    old: str = ""
    rescan: bool = False
    everything: bool = False
    # What the disk needs no more is to be said.
    passes: bool = False


class FolderThread:
    """See the rules at the top of this file; the methods behind `Outside` are called in it."""

    def __init__(
        self,
        daemon: Runtime,
        fetch: Callable[[str, Bytes], Coroutine[Any, Any, None]],
        merge: Callable[..., Coroutine[Any, Any, bytes | None]],
    ) -> None:
        self._post, self._blobs = daemon.post, daemon.machine.blobs
        self._basis_path = daemon.home.context_basis
        self._merge = merge
        self._loop = asyncio.get_running_loop()
        self._inbox: queue.SimpleQueue[Task | None] = queue.SimpleQueue()
        self._numbers = count(1)
        self._ending = threading.Event()
        self._questions = Questions(self._send, self._ending)
        self.answered, self._ask = self._questions.answered, self._questions.ask
        self.mapped: dict[str, Mapped] = {}
        # Replaced whole by the thread, read by the loop.
        self.states: dict[str, State] = {}
        self._folders: dict[str, Folder] = {}
        self._opened_as: dict[str, Mapped] = {}
        self._later: list[tuple[int, int, Task]] = []
        # When a folder whose round failed is tried again; whether what we remember may be damaged.
        self._failing: dict[str, int] = {}
        self._is_doubtful = False
        self._fetches = Fetches(daemon, fetch, self._settle)
        self._notices = Notices(self._send)
        self._passed = Passed(self._ask, self._send)
        self._root_due_ms: dict[str, int] = {}

    # --- the loop's side ------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until `end`; it begins anew after a mistake of ours."""
        await asyncio.to_thread(self._work)

    def tell(self, task: Task) -> None:
        self._inbox.put(task)

    def _settle(self, folder: str, paths: frozenset[str]) -> None:
        if paths:
            self.tell(Task(folder, settles=paths))

    def end(self) -> None:
        """The thread ends with what it is doing."""
        self._ending.set()
        self._inbox.put(None)

    # --- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        basis = self._basis()
        try:
            while not self._ending.is_set():
                for task in self._next():
                    self._round(basis, task)
                    if self._is_doubtful and not basis.is_whole:
                        basis.close()
                        basis = self._basis()
        except Stopped:
            # The daemon ends, and this thread with it.
            pass
        finally:
            basis.close()

    def _basis(self) -> Basis:
        """What files are made of, read anew; all folders are looked through then."""
        self._folders.clear()
        for name in self.mapped:
            self.tell(Task(name, rescan=True, everything=True))
        basis, why = open_basis(self._basis_path)
        title = f"what this machine knew of its context folders was not readable: {why}"
        self._notices.tell("", "basis", title if why else "")
        return basis

    def _next(self) -> list[Task]:
        """What is to be done now, one task for each folder."""
        now_ms = clock.boot_ms()
        waits = [due for due, _, _ in self._later[:1]]
        waits += [*self._root_due_ms.values(), *self._passed.due_ms.values()]
        wait_s = max(0.0, (min(waits) - now_ms) / 1000) if waits else None
        found: list[Task | None] = []
        try:
            found.append(self._inbox.get(timeout=wait_s))
            while True:
                found.append(self._inbox.get_nowait())
        except queue.Empty:
            # Nothing more waits now; what is due by its time follows.
            pass
        now_ms = clock.boot_ms()
        while self._later and self._later[0][0] <= now_ms:
            found.append(heapq.heappop(self._later)[2])
        for name in [n for n, due in self._root_due_ms.items() if due <= now_ms]:
            del self._root_due_ms[name]
            self._tell_root(name)
        due = self._passed.due(now_ms, now_ms + int(AGAIN_S * 1000))
        found += [Task(name, passes=True) for name in due]
        return self._joined(task for task in found if task is not None)

    def _joined(self, tasks: Iterable[Task]) -> list[Task]:
        joined, olds = dict[str, Task](), list[Task]()
        for task in tasks:
            if task.old:
                olds.append(task)
                continue
            for name in [task.folder] if task.folder else list(self.mapped):
                was = joined.get(name, Task(name))
                joined[name] = Task(
                    name, was.looks | task.looks, was.settles | task.settles, "",
                    was.rescan or task.rescan, was.everything or task.everything,
                    was.passes or task.passes,
                )  # fmt: skip
        return [*olds, *joined.values()]

    def _round(self, basis: Basis, task: Task) -> None:
        mapped = self.mapped.get(task.folder)
        if self._opened_as.get(task.folder) is not mapped:
            # It was taken away, or is another one, or is to begin anew.
            if (left := self._folders.pop(task.folder, None)) is not None:
                self._leave(left)
            self.states.pop(task.folder, None)
            self._failing.pop(task.folder, None)
        if mapped is None:
            # What becomes of its files from here on is nobody's deletion.
            if (was := self._opened_as.pop(task.folder, None)) is not None:
                basis.forget(task.folder)
                self._passed.end(was.place)
            return
        due_ms = self._failing.get(task.folder, 0)
        if clock.boot_ms() < due_ms:
            # What happens meanwhile is found then; what was replaced is looked at then.
            if task.old:
                self._after((due_ms - clock.boot_ms()) / 1000, task)
            return
        if self._failing.pop(task.folder, None) is not None:
            task = task._replace(rescan=True, everything=True)
        folder = self._folders.get(task.folder)
        failed = ""
        try:
            if folder is None:
                folder = self._opened(basis, mapped)
                folder.begin()
                self._folders[task.folder] = folder
            else:
                self._do(folder, task)
            if task.passes:
                self._passed.say(folder)
        except Stopped:
            raise
        except (MusterError, OSError) as error:
            failed = str(error) or type(error).__name__
            self._is_doubtful = isinstance(error, Broken)
            if task.old and folder is not None:
                # What was replaced may hold what nobody has: it is looked at when that can be done.
                folder.writer.fresh_old.append(task.old)
            again_s = _UNSETTLED_S if isinstance(error, Unsettled) else AGAIN_S
            self._failing[task.folder] = clock.boot_ms() + int(again_s * 1000)
            self._after(again_s, Task(task.folder, rescan=True, everything=True))
        finally:
            if folder is not None:
                self._look_later(folder)
                self._settle(task.folder, self._fetches.more(task.folder))
        if folder is not None:
            self._tell_state(folder, failed)
            self._root_due_ms.setdefault(task.folder, clock.boot_ms() + int(_ROOT_S * 1000))
        title = f"context folder {task.folder}: {failed}" if failed else ""
        self._notices.tell(task.folder, "failed", title, rarely=True)

    def _opened(self, basis: Basis, mapped: Mapped) -> Folder:
        self._opened_as[mapped.name] = mapped
        self._passed.opened(mapped.name)
        reader = Reader(opened_disk(basis, mapped), self._blobs, large=mapped.large)
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

    def _leave(self, folder: Folder) -> None:
        """This folder is kept no more: what was just replaced in it is looked at before."""
        stayed = look_last(folder.writer, self._ending.wait)
        title = (
            f"context folder {folder.place.folder}: what was saved while it was taken away lies in "
            f"{', '.join(stayed[:3])}: look at it by hand"
        )
        self._notices.tell(folder.place.folder, "left", title if stayed else "")

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
        name, every = folder.place.folder, [b.signature for b in folder.bases.values()]
        there = [each for each in every if each is not None]
        size = sum(each.size for each in there)
        left = dict(sorted(folder.left.items())[:_TOLD_MAX])
        self.states[name] = State(
            len(there), size, left, dict(folder.doubtful),
            frozenset(folder.conflicts), failed,
        )  # fmt: skip
        count = len(folder.conflicts)
        which = f"{count} file{'s' * (count > 1)} of context folder {name}"
        title = (
            f"{which} was changed in two ways that do not fit together; `muster context conflicts`"
        )
        more = "; `muster context conflicts` shows them"
        self._notices.tell(name, "conflicts", title + more if count else "")
        stopped = ", ".join(sorted(folder.stopped)[:3])
        title = f"context folder {name}: something else writes {stopped}, to and fro"
        self._notices.tell(name, "stopped", title if stopped else "")
        title = f"context folder {name} has {size >> 20} MiB: each machine keeps all that it had"
        self._notices.tell(name, "size", title if size > CONTEXT_FOLDER_BYTES else "")

    def _tell_root(self, name: str) -> None:
        if (folder := self._folders.get(name)) is not None:
            self._passed.tell_root(folder)

    # --- what folders need ----------------------------------------------------------------------

    def wanted(
        self, place: Place, made_of: Mapping[str, frozenset[EntryId]], unknown: Unknown
    ) -> tuple[tuple[Wanted, ...], bool]:
        """See `Outside`."""
        every, left, allowed = list[Wanted](), dict(made_of), False
        # What takes the core longer than a step may is asked again.
        while left:
            some = dict(left)
            found = self._ask(lambda number, some=some: AskFiles(number, place, some, unknown))  # type: ignore[misc]
            every += found.wanted
            allowed = found.allowed
            for each in found.wanted:
                left.pop(each.path, None)
        return tuple(every), allowed

    def paths(self, place: Place) -> tuple[str, ...]:
        """See `Outside`."""
        return self._ask(lambda number: AskPaths(number, place)).paths

    def begin_write(self, place: Place, bodies: list[ContextPut]) -> Written:
        """See `Outside`. What is returned raises: Unsettled, Refused."""
        answer = self._questions.begin(lambda number: WriteFiles(number, place, tuple(bodies)))

        def written() -> tuple[tuple[EntryId, ...], bool]:
            found = answer()
            if not found.settled:
                raise Unsettled("this machine is still asking its peers how far its own log goes")
            if found.refused:
                raise Refused(found.refused)
            for body, id in zip(bodies, found.ids, strict=True):
                if body.blob:
                    self.claim(body.blob, id)
            return found.ids, found.allowed

        return written

    def claim(self, blob: str, id: EntryId) -> None:
        """See `Outside`."""
        self._blobs.claim(blob, entry_claim(id))

    def bytes_at(self, place: Place, path: str, where: Bytes) -> Iterable[bytes] | None:
        """See `Outside`."""
        return self._fetches.bytes_at(place.folder, path, where)

    def merge(self, first: bytes, base: bytes, second: bytes, *, union: bool) -> bytes | None:
        """See `Outside`."""
        future = asyncio.run_coroutine_threadsafe(
            self._merge(first, base, second, union=union), self._loop
        )
        while True:
            try:
                return future.result(0.5)
            except TimeoutError:
                if self._ending.is_set():
                    future.cancel()
                    raise Stopped("the daemon ends") from None

    def again(self, place: Place, paths: frozenset[str], *, settle: bool, after_ms: int) -> None:
        """See `Outside`."""
        none = frozenset[str]()
        task = Task(place.folder, none if settle else paths, paths if settle else none)
        self._after(after_ms / 1000, task)

    def _send(self, event: ev.Event) -> None:
        try:
            self._loop.call_soon_threadsafe(self._post, event)
        except RuntimeError as error:
            raise Stopped("the daemon has ended") from error
