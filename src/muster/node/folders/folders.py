"""The context folders of this machine: what the daemon does for them.

Rule: without a folder nothing of this costs anything: no thread, no watch, no file.
"""

import asyncio
from contextlib import suppress
from functools import partial
from pathlib import Path

from muster.errors import MusterError
from muster.git.text_merge import merge_texts
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.attempts import blob_transfer as holder
from muster.node.folders import watch
from muster.node.folders.mapping import FolderMap, Mapped
from muster.node.folders.state import State
from muster.node.folders.thread import FolderThread, Task
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.services.context import Bytes, FilesAnswered, FilesChanged
from muster.node.services.ended import FoldersKept
from muster.task.artefact import Artefact


class Folders:
    """See the rule at the top of this file."""

    def __init__(self, daemon: Runtime) -> None:
        self._daemon = daemon
        self.map = FolderMap(daemon.home)
        self._thread: FolderThread | None = None
        self._watchers: dict[str, asyncio.Task[None]] = {}
        self._unwatched: dict[str, str] = {}

    def begin(self) -> None:
        """Take up the folders that this machine has. Raises: Broken."""
        for mapped in self.map.read().values():
            self.add(mapped)
        self._tell_kept()

    def close(self) -> None:
        if self._thread is not None:
            self._thread.end()

    def add(self, mapped: Mapped) -> None:
        """Keep a folder as it is to be, from now on; anew where it was."""
        self.drop(mapped.name)
        daemon = self._daemon
        if self._thread is None:
            self._thread = FolderThread(daemon, self._fetch, merge_texts)
            daemon.supervisor.keep("folders", self._thread.run)
            daemon.supervisor.keep("folders-slept", partial(watch.rescans, self._rescan))
        self._thread.mapped[mapped.name] = mapped
        work = partial(
            watch.watch, Path(mapped.path), partial(self._hear, mapped.name),
            partial(self._rescan, mapped.name), partial(self._tell_unwatched, mapped.name),
            deep=not mapped.only,
        )  # fmt: skip
        self._watchers[mapped.name] = daemon.supervisor.keep("watch", work)

    def drop(self, name: str) -> None:
        """Leave a folder alone from now on."""
        if (watcher := self._watchers.pop(name, None)) is not None:
            watcher.cancel()
        if self._thread is not None and self._thread.mapped.pop(name, None) is not None:
            self._thread.tell(Task(name))
            self._tell_unwatched(name, "")
        self._tell_kept()

    def _tell_kept(self) -> None:
        """The fleet waits for no disk that this machine has no more."""
        # A map that nobody can read says of none that it is gone.
        with suppress(MusterError):
            every = self.map.read().values()
            self._daemon.post(FoldersKept(frozenset(each.place for each in every)))

    def state(self, name: str) -> State | None:
        """How a folder is here; None where it is not looked through yet."""
        return self._thread.states.get(name) if self._thread is not None else None

    def unwatched(self, name: str) -> str:
        """Why changes of a folder are not known at once, "" where they are."""
        return self._unwatched.get(name, "")

    # --- effects ------------------------------------------------------------------------------

    @ev.effect(FilesAnswered)
    def _answered(self, effect: FilesAnswered) -> None:
        if self._thread is not None:
            self._thread.answered(effect)

    @ev.effect(FilesChanged)
    def _changed(self, effect: FilesChanged) -> None:
        if self._thread is None:
            return
        if effect.place is None:
            self._thread.tell(Task("", rescan=True, everything=True))
            return
        mapped = self._thread.mapped.get(effect.place.folder)
        if mapped is not None and mapped.place == effect.place:
            self._thread.tell(Task(mapped.name, settles=frozenset(effect.paths)))

    # --- what happens -------------------------------------------------------------------------

    def _hear(self, name: str, paths: frozenset[str]) -> None:
        if self._thread is not None:
            self._thread.tell(Task(name, looks=paths))

    def _rescan(self, name: str = "") -> None:
        if self._thread is not None:
            self._thread.tell(Task(name, rescan=True))

    def _tell_unwatched(self, name: str, why: str) -> None:
        if why != self._unwatched.get(name, ""):
            self._unwatched[name] = why
            title = f"context folder {name}: {why}" if why else ""
            self._daemon.post(Noticed(f"context-watch-{name}"[:64], title))

    async def _fetch(self, path: str, where: Bytes) -> None:
        artefact = Artefact(path, where.digest.hex(), where.size)
        source = holder.Source(artefact, where.entry, MachineId(where.machine))
        await holder.bring(self._daemon, source)
