"""The repositories of this machine that follow an origin: who updates them, and what is told.

Rule 1: one update of a repository at a time, and one that waits: whoever asks meanwhile shares that
one, so every asker sees what the origin had after it asked, and a crowd costs two fetches.
Rule 2: nobody waits for an origin longer than a start may take; the update itself goes on.
Rule 3: an origin that cannot be read, and a default branch that no longer follows it, are an
incident until that is over. What is here is used meanwhile.
Rule 4: what goes, goes by what the owners of runs and tasks say of them, and by nobody else's word.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Final

from msgspec import Struct
from msgspec.structs import replace

from muster.errors import MISTAKE, Broken, Conflict, MusterError, NotFound
from muster.git import follow, mirror, repository
from muster.git import origin as origins
from muster.git.follow import Change
from muster.git.origin import Origin
from muster.git.prune import Found, prune
from muster.limits import GIT_FOLLOW_WAIT_MS_MAX
from muster.log.fold import body_or_none
from muster.node.counter import DECLARED, labelled
from muster.node.host import clock
from muster.node.incidents import Noticed
from muster.node.runtime import Runtime
from muster.node.tasks.behind import note_of
from muster.node.tasks.keepers import Keepers
from muster.node.tasks.ownership import Ownership
from muster.task import kinds
from muster.task.fold import RUN, TASK, RunRow
from muster.task.state import LIVE

DECLARED[__name__] = {
    "repository-updated": "A repository was brought up to date with its origin.",
    "origin-<error>": "A repository could not be brought up to date with its origin.",
}

# After so many rows others have their turn; whose one is takes up to a fifth of a millisecond.
_ROWS: Final = 100
_HOUR_MS: Final = 3_600_000


class Followed(Struct, frozen=True):
    """How an update ended; `error` why it did not come to its end."""

    origin: Origin
    changes: tuple[Change, ...] = ()
    error: str = ""

    def note(self, name: str, now_ms: int) -> str:
        """What somebody who starts from it should know; "" where it is up to date."""
        if not self.error:
            return ""
        hours = max(0, now_ms - self.origin.synced_ms) // _HOUR_MS
        age = f"{hours // 24} days" if hours >= 48 else f"{hours} h" if hours else "minutes"
        return f"repository {name} is as it was {age} ago: its origin was not read ({self.error})"


class Following:
    """See the top of this file."""

    def __init__(self, daemon: Runtime, repos: Path, moved: Callable[[str], None]) -> None:
        self._daemon, self._repos, self._moved = daemon, repos, moved
        self._waiting: dict[str, asyncio.Future[Followed]] = {}
        self._locks: dict[str, asyncio.Lock] = {}

    def update(self, name: str) -> "asyncio.Future[Followed]":
        """Bring a repository of ours up to date, from now on. Raises: NotFound."""
        repository.find(self._repos, name)
        found = self._waiting.get(name)
        if found is None:
            found = self._waiting[name] = asyncio.get_running_loop().create_future()
            self._daemon.supervisor.run("follow", self._update(name, found))
        return found

    async def fresh(self, name: str) -> str:
        """Bring it up to date as far as that goes in the time of a start; what to know of it."""
        try:
            kept = origins.read(repository.find(self._repos, name))
        except NotFound:
            # Whoever needs it says so.
            return ""
        except MusterError as error:
            return f"repository {name} is not brought up to date: {error}"
        if kept is None or not kept.follows:
            # It may go on here from a copy that was older than what its keeper had.
            return note_of(self._daemon.core, name)
        now_ms = clock.read().wall_ms
        try:
            async with asyncio.timeout(GIT_FOLLOW_WAIT_MS_MAX / 1000):
                return (await asyncio.shield(self.update(name))).note(name, now_ms)
        except TimeoutError:
            late = f"not within {GIT_FOLLOW_WAIT_MS_MAX // 1000} s; it goes on"
            return Followed(kept, error=late).note(name, now_ms)

    async def adopt(self, name: str, place: str, follow_it: bool | None) -> tuple[str, ...]:
        """Say where a repository of ours is from, as `follow.adopt`; what it has not of that."""
        path = repository.find(self._repos, name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            left_out = await follow.adopt(path, place, follow_it)
            self._tell(name, "")
        await self.update(name)
        return left_out

    async def _update(self, name: str, done: "asyncio.Future[Followed]") -> None:
        try:
            async with self._locks.setdefault(name, asyncio.Lock()):
                # Whoever asks from here on wants to know what the origin has by then.
                del self._waiting[name]
                done.set_result(await self._once(name))
        except MusterError as error:
            # It was removed meanwhile, or its files cannot be read or written.
            done.set_result(Followed(Origin("", follows=False), error=str(error)))
        finally:
            if not done.done():
                done.set_result(Followed(Origin("", follows=False), error=MISTAKE))

    async def _once(self, name: str) -> Followed:
        path, now_ms = repository.find(self._repos, name), clock.read().wall_ms
        kept = origins.read(path)
        if not self._daemon.core.part(Keepers).is_kept_here(name, mirrored=bool(mirror.of(path))):
            # It follows the machine that keeps it now.
            return Followed(Origin("", follows=False))
        if kept is None or not kept.follows:
            return Followed(kept or Origin("", follows=False))
        counters = self._daemon.core.counters
        try:
            found = await follow.update(path, kept, await self._used(name), now_ms)
        except MusterError as error:
            kept = replace(kept, error=str(error)[:500])
            counters[labelled("origin", error)] += 1
            self._tell(name, f"its origin is not read: {error}")
            if not isinstance(error, Broken):
                origins.write(path, kept)
            return Followed(kept, error=str(error))
        counters["repository-updated"] += 1
        self._moved(name)
        branch = await repository.default_branch(path)
        stays = next((e for e in found.changes if (e.branch, e.what) == (branch, "diverged")), None)
        self._tell(name, f"{branch}: {follow.UNLIKE['diverged']}" if stays is not None else "")
        return Followed(found.origin, found.changes)

    def _tell(self, name: str, why: str) -> None:
        core, key = self._daemon.core, f"origin-{name}"[:64]
        if why or core.incidents.is_open(key):
            title = f"repository {name} does not follow its origin: {why}" if why else ""
            self._daemon.post(Noticed(key, title))

    async def _check_unused(self, name: str) -> None:
        """Raises: Conflict where open runs or live tasks work with the repository."""
        held = await self._runs(name)
        runs = [f"{row.name} ({row.run[:6]})" for row in held.values() if row.state == "open"]
        if runs:
            more = f" and {len(runs) - 1} more" if len(runs) > 1 else ""
            raise Conflict(
                f"run {min(runs)}{more} works with repository {name}: let it end, or `muster "
                "cancel` it; nothing was done"
            )
        if await self._used(name):
            raise Conflict(f"a live task works with repository {name}; nothing was done")

    async def prune(self, name: str, before_ms: int, *, dry_run: bool) -> Found:
        """Remove the refs of runs of a repository that ended before then.

        What a younger run kept of an older one stays, and so does what our log knows nothing of.
        """
        runs, owned = await self._runs(name), self._daemon.core.part(Ownership)
        old = {
            run for run, row in runs.items() if row.state != "open" and row.changed_ms < before_ms
        }
        tables, log = self._daemon.core.tables, self._daemon.core.log
        # Whoever says that it kept something: that keeps more, and nothing goes for it.
        rows = tables.rows(RUN, repo=name)
        for number, row in enumerate(rows):
            entry = log.entry(row.opened) if row.run not in old else None
            body = body_or_none(entry, kinds.RunOpen) if entry is not None else None
            old -= set(body.kept.values()) if body is not None else set()
            if number % _ROWS == _ROWS - 1:
                await asyncio.sleep(0)
        tasks = set[str]()
        for run in sorted(old):
            owner = runs[run].stream.machine
            of_run = {row.task for row in tables.rows(TASK, writer=owner, run=run)}
            # An owner may write the id of another's task into a run of its own.
            tasks |= {task for task in of_run if owned.owner(TASK, task) == owner}
            await asyncio.sleep(0)
        path = repository.find(self._repos, name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            used = await self._used(name)
            return await prune(path, old, tasks, used, dry_run=dry_run)

    async def remove(self, name: str) -> None:
        """Remove a repository that no run or task works with, and tell nothing of it any more.

        Raises: NotFound, Conflict.
        """
        repository.find(self._repos, name)
        await self._check_unused(name)
        async with self._locks.setdefault(name, asyncio.Lock()):
            # A run may have begun while an update kept us waiting.
            await self._check_unused(name)
            await repository.discard(self._repos, name)
        self._tell(name, "")

    async def _runs(self, name: str) -> dict[str, RunRow]:
        """The runs of a repository as their owners have them; what others write of them is nothing.

        Else any machine could say of another's run that it is over, and its branches would go.
        """
        core, found = self._daemon.core, dict[str, RunRow]()
        for number, run in enumerate(sorted({row.run for row in core.tables.rows(RUN, repo=name)})):
            # Its newest row: a stream of its owner that ended says "open" of it for ever.
            held = core.part(Ownership).held(RUN, run)
            if held is not None and held.row.repo == name:
                found[run] = held.row
            if number % _ROWS == _ROWS - 1:
                await asyncio.sleep(0)
        return found

    async def _used(self, name: str) -> set[str]:
        """The commits that live tasks of this repository start from, "" for its newest."""
        core, found = self._daemon.core, set[str]()
        rows = [row for state in sorted(LIVE) for row in core.tables.rows(TASK, state=state)]
        for number, row in enumerate(rows):
            entry = core.log.entry(row.opened)
            body = body_or_none(entry, kinds.TaskOpen) if entry is not None else None
            if body is not None and body.repo == name:
                held = core.part(Ownership).held(TASK, row.task)
                is_its = held and held.owner == row.stream.machine
                if held and is_its and held.row.state in LIVE:
                    found |= set(body.base.split() or ("",))
            if number % _ROWS == _ROWS - 1:
                await asyncio.sleep(0)
        return found
