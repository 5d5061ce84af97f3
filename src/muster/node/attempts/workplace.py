"""Where an attempt works: a fresh folder, or the one in which the last attempt at its task was cut
off.

Rule 1: nothing of an attempt outlives it, but where this daemon ended under it (a restart, a crash,
a lost power supply) and its agent had opened a session that can be gone on with: then folder and
session wait, a day at most, for the next attempt at the same task by the same agent.
Rule 2: what waits is on this machine alone: a note beside the folder, `<folder>.session`. It holds
no secret, and what does not have its form is as good as absent.
Rule 3: what the daemon before us left running is ended first (`left_behind`): no two agents work in
one folder.
Rule 4: beside the folder lies the home of an enclosed agent, `<folder>.home`: its session is in
there. It waits, and goes, with the folder. A check has one of its own, which nobody was in.
Rule 5: a review, and an attempt that was given files beside its folder, begin anew.
"""

import asyncio
import contextlib
import os
import re
import stat
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Literal, Protocol, TypeVar

import msgspec

from muster.agent.marks import Marks
from muster.atomic_file import write_file
from muster.errors import MusterError
from muster.git.cache import Base, Origin, Worktree
from muster.git.commit import Signature
from muster.git.fence import Epoch
from muster.node.attempts import blob_transfer as holder
from muster.node.attempts import deliverables, inputs
from muster.node.host import clock
from muster.node.host.home import Home
from muster.node.runtime import Runtime
from muster.task.instruction import StartAttempt

# Chosen arbitrarily: a laptop that was shut over night goes on in the morning.
KEPT_MS_MAX: Final = 24 * 3600 * 1000
_NOTE: Final = ".session"
_HOME: Final = ".home"
_CHECKED: Final = ".checked"
_NOTE_BYTES_MAX: Final = 4096
# A session goes into the arguments of a program: no option, no path, no second word.
_NUMBER: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,127}")

Place = tuple[int, int]
T = TypeVar("T")


class Patiently(Protocol):
    """Runs work again while what it needs is out of reach."""

    def __call__(self, work: Callable[[], Awaitable[T]]) -> Awaitable[T]: ...


class CutOff(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """An attempt that this daemon's end cut off, and the session of its agent."""

    version: Literal[1] = 1
    task: str
    owner: str
    agent: str
    epoch: tuple[int, int]
    folder: str
    session: str
    opened_ms: int
    """When the session was opened, by this machine's wall clock."""
    repo: str = ""
    base: str = ""


def waiting(work: Path) -> list[CutOff]:
    """What waits to be gone on with, the newest first; what is too old or has no form is not."""
    now_ms, found = clock.read().wall_ms, []
    for note in work.glob(f"*{_NOTE}") if work.is_dir() else ():
        # It went meanwhile or has no form: such a note is of no work to go on with.
        with contextlib.suppress(OSError, msgspec.MsgspecError):
            if note.is_symlink() or note.stat().st_size > _NOTE_BYTES_MAX:
                continue
            left = msgspec.json.decode(note.read_bytes(), type=CutOff)
            whole = note.name == f"{left.folder}{_NOTE}" and _NUMBER.fullmatch(left.session)
            fresh = 0 <= now_ms - left.opened_ms < KEPT_MS_MAX
            if whole and fresh and _is_folder(work / left.folder):
                found.append(left)
    return sorted(found, key=lambda left: left.opened_ms, reverse=True)


def waiting_names(work: Path) -> dict[str, str]:
    """The folders of what waits, and how the caches of repositories call each."""
    return {left.folder: f"{left.task}-{Epoch(*left.epoch)}" for left in waiting(work)}


def forget(work: Path, folder: str) -> None:
    """Nobody goes on with what was in this folder."""
    # A note that stays is too old after a while, and is of no folder any more.
    with contextlib.suppress(OSError):
        (work / f"{folder}{_NOTE}").unlink()


class Workplace:
    """The folder of one attempt. `went_on` is what it goes on with, where it does."""

    def __init__(self, daemon: Runtime, start: StartAttempt) -> None:
        self.daemon, self.start = daemon, start
        self.task, self.epoch = start.assign.task, start.assign.epoch
        self.tree: Worktree | None = None
        self.folder: Path | None = None
        self.went_on: CutOff | None = None
        self._work = Path(daemon.home.work)
        self._noted = False

    @property
    def path(self) -> Path | None:
        return self.tree.path if self.tree is not None else self.folder

    async def home(self, *, check: bool = False) -> Path:
        """The home of an enclosed agent, made where it is not there, or an empty one of a check.

        Raises: OSError.
        """
        assert self.path is not None, "a home lies beside the open folder"
        home = _beside(self.path, _CHECKED if check else _HOME)
        if check:
            await self.daemon.effects.worktrees.discard(home)
        home.mkdir(mode=0o700, exist_ok=True)
        return home

    async def open(
        self, patiently: Patiently, bases: Callable[[], Sequence[Base]], signature: Signature
    ) -> Path:
        """The folder, ready. Raises: as Worktrees.open."""
        repo = self.start.open.repo
        before = self._cut_off()
        if not repo:
            return await self._open_plain(patiently, before)
        path, url = self.daemon.effects.place_of(repo)
        if path is not None:
            # Our own repository, reached through our own fence like anybody else's.
            url = f"muster::{self.daemon.core.name}/{path.name.removesuffix('.git')}"
        origin, worktrees = Origin(repo, url), self.daemon.effects.worktrees
        if before is not None:
            cache, where = worktrees.cache_of(repo), self._work / before.folder
            left = Worktree(origin, self.task, Epoch(*before.epoch), where, cache, before.base)
            self.tree = await worktrees.adopt(left, Epoch(*self.epoch))
            if self.tree is not None:
                self.went_on = before
                return self.tree.path
        self.tree = await patiently(
            lambda: worktrees.open(origin, self.task, Epoch(*self.epoch), bases(), signature)
        )
        return self.tree.path

    async def _open_plain(self, patiently: Patiently, before: CutOff | None) -> Path:
        """Without a repository: an empty folder with what the phases before delivered.

        A later phase's file replaces the one in an earlier one's folder.
        """
        if before is not None:
            self.went_on = before
            self.folder = self._work / before.folder
            return self.folder
        self.folder = self._work / f"{self.task}-{self.epoch[0]}-{self.epoch[1]}"
        await self.daemon.effects.worktrees.discard(self.folder)
        self.folder.mkdir(parents=True)
        target = deliverables.Target(self.folder, force=True)
        for source in holder.handed_on(self.daemon.core, self.start.owner, self.start.open):
            await patiently(partial(holder.bring, self.daemon, source))
            await asyncio.to_thread(target.place, source.artefact, self.daemon.machine.blobs)
        return self.folder

    def note(self, session: str) -> None:
        """The agent opened a session: whoever comes after an end of this daemon finds it."""
        path, goes_on = self.path, self.went_on
        if path is None or not _NUMBER.fullmatch(session) or not self._can_wait():
            return
        again = goes_on is not None and goes_on.session == session
        left = CutOff(
            task=self.task,
            owner=self.start.owner,
            agent=self.start.assign.agent,
            epoch=self.epoch,
            folder=path.name,
            session=session,
            opened_ms=goes_on.opened_ms if goes_on and again else clock.read().wall_ms,
            repo=self.start.open.repo,
            base=self.tree.base if self.tree is not None else "",
        )
        # Without it the next attempt begins anew, as it would have.
        with contextlib.suppress(MusterError):
            write_file(self._work / f"{path.name}{_NOTE}", msgspec.json.encode(left))
            self._noted = True

    async def close(self, *, cut_off: bool) -> None:
        """Remove the folder; what this daemon's end cut off waits, where it can be gone on with."""
        if cut_off and self._noted:
            return
        if self.path is not None:
            forget(self._work, self.path.name)
            for beside in (_HOME, _CHECKED):
                await self.daemon.effects.worktrees.discard(_beside(self.path, beside))
        if self.tree is not None:
            await self.daemon.effects.worktrees.close(self.tree)
        inputs.discard(self.daemon, self.start)
        if self.folder is not None:
            await self.daemon.effects.worktrees.discard(self.folder)

    def _cut_off(self) -> CutOff | None:
        """What the last attempt at this task left, where this one can go on with it."""
        if not self._can_wait():
            return None
        asked = self.task, self.start.owner, self.start.assign.agent, self.start.open.repo
        for left in waiting(self._work):
            if (left.task, left.owner, left.agent, left.repo) == asked:
                return left
        return None

    def _can_wait(self) -> bool:
        given = inputs.folder_of(self.daemon, self.start)
        return not self.start.open.template.get("review") and not given.exists()


def marks_of(home: Home) -> Marks:
    """What says which attempts of this home run, or did when its daemon died."""
    return Marks(Path(home.work).with_name("attempts"))


async def left_behind(daemon: Runtime) -> dict[str, str]:
    """End what a daemon before us left running; nobody goes on where that cannot be ended. The
    folders of what waits then, as `waiting_names`.

    Before this is done no end of an attempt is told, and no folder is taken or removed.
    """
    for folder in await asyncio.to_thread(marks_of(daemon.home).end_all):
        forget(Path(daemon.home.work), folder.name)
    return waiting_names(Path(daemon.home.work))


async def sweep(daemon: Runtime, open_now: Sequence[Path | None]) -> None:
    """Remove what waited for too long; what attempts work in now stays."""
    work = Path(daemon.home.work)
    for folder in await asyncio.to_thread(_too_old, work):
        if folder not in open_now:
            forget(work, folder.name)
            await daemon.effects.worktrees.discard(folder)
            await daemon.effects.worktrees.discard(home_of(folder))


def home_of(folder: Path) -> Path:
    """Where the home of an agent lies that is enclosed with this work folder."""
    return _beside(folder, _HOME)


def _beside(folder: Path, ending: str) -> Path:
    return folder.with_name(f"{folder.name}{ending}")


def _too_old(work: Path) -> list[Path]:
    """The folders of which a note is there that nobody goes by any more."""
    kept = {left.folder for left in waiting(work)}
    names = [each.name.removesuffix(_NOTE) for each in work.glob(f"*{_NOTE}")]
    return [work / name for name in names if name not in kept]


def identity(folder: Path) -> Place:
    """Which folder this is; (0, 0) where there is none, or a link."""
    try:
        found = os.lstat(folder)
    except OSError:
        return 0, 0
    return (found.st_dev, found.st_ino) if stat.S_ISDIR(found.st_mode) else (0, 0)


def _is_folder(path: Path) -> bool:
    return identity(path) != (0, 0)
