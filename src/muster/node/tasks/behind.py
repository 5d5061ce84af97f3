"""How far a copy of a repository is behind its keeper, by what this machine knows.

Rule 1: a copy is as the repository was when its pull began; and as it was until the link to its
keeper ended, where nothing was said to have moved since. That is its age, by this machine's clock.
Rule 2: what the owners of runs say came to a branch since that pull is looked for in the copy when
that becomes the repository, and its fence is raised. Rows of whoever owns no such run say nothing.
What is not there is named, and brought by nobody's silence: a task that would start from it waits
and says so.
Rule 3: who kept a repository may have taken pushes of which no log knows, as long as it was heard
after what its copy has: that is an incident, and said of each run that begins at the newest. What
is named there and is pushed again ends it; where nothing is named a person says that it is over.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.fleet.folds import IncidentRow
from muster.log.fold import Table, body_or_none
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.tasks.ownership import Ownership
from muster.task.fold import RUN, TASK, RunRow, TaskRow, Work
from muster.task.identity import branch_of
from muster.task.kinds import Epoch, TaskOpen

if TYPE_CHECKING:
    from muster.node.core import Core

# What others brought of a machine as its link ended is not heard later than that.
_SLACK_MS: Final = 10_000
# The newest runs of each machine, and of all the newest results: each takes two git processes.
_RUNS_MAX: Final = 100
_PUSHED_MAX: Final = 200
_NAMED_MAX: Final = 4

_Copy = tuple[str, str]


class Whole(ev.Event, frozen=True):
    """All that was named as missing in a repository that is kept here was pushed again."""

    repo: str


class Push(NamedTuple):
    """What came to a branch by the log: of which task, under which epoch."""

    task: str
    epoch: Epoch
    branch: str
    commit: str


class Behind:
    """See the top of this file; copies are named by their keeper and the repository."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._pull_ms: dict[_Copy, int] = {}
        self._as_of_ms: dict[_Copy, int] = {}
        self._began_ms: dict[_Copy, int] = {}
        # Of these something may have moved that was not pulled.
        self._unsure: set[_Copy] = set()
        core.on(ev.MachineGone, lambda event: self._gone(event.machine))
        core.on(Whole, lambda event: self._whole(event.repo))

    # --- how old it is ---------------------------------------------------------------------

    def began(self, copy: _Copy) -> None:
        """A pull of it begins."""
        self._unsure.discard(copy)
        self._began_ms[copy] = self._core.now.wall_ms

    def ended(self, copy: _Copy, *, whole: bool) -> None:
        """A pull of it ended."""
        began_ms = self._began_ms.pop(copy, self._core.now.wall_ms)
        if whole:
            self.made(copy, began_ms)
        else:
            self._unsure.add(copy)

    def made(self, copy: _Copy, ms: int) -> None:
        """It has all that the repository had at that time."""
        self._pull_ms[copy] = self._as_of_ms[copy] = ms

    def moved(self, copy: _Copy) -> None:
        """Something may be there that is not here."""
        self._unsure.add(copy)

    def _gone(self, machine: str) -> None:
        for copy in self._as_of_ms:
            if copy[0] == machine and copy not in self._unsure and copy not in self._began_ms:
                self._as_of_ms[copy] = self._core.now.wall_ms

    def _heard_ms(self, machine: str) -> int:
        """When the newest entry of a machine came here, from whomever."""
        log, found = self._core.log, 0
        for stream in log.streams():
            if stream.machine == machine and (size := log.size(stream)):
                found = max(found, (log.admitted(stream, size - 1) or (0, 0))[1])
        return found

    # --- what is not in it -----------------------------------------------------------------

    def pushed(self, machine: str, repo: str) -> list[Push]:
        """What came to branches of a repository by the log since its copy was pulled."""
        core, found = self._core, list[tuple[int, Push]]()
        since_ms = self._pull_ms.get((machine, repo), 0)
        for owner in core.roster.known:
            for run in self._runs(owner, repo):
                for row in core.tables.rows(
                    TASK, stream=run.stream, run=run.run, state="done", order=("-changed_ms",),
                    limit=_PUSHED_MAX,
                ):  # fmt: skip
                    came_ms = self._came_ms(row)
                    if row.commit_id and came_ms >= since_ms and self._is_of(owner, TASK, row.task):
                        branch = branch_of(run.run, row.phase, row.instance)
                        found.append((came_ms, Push(row.task, row.epoch, branch, row.commit_id)))
        found.sort(key=lambda each: each[0], reverse=True)
        return [push for _, push in found[:_PUSHED_MAX]]

    def _runs(self, owner: str, repo: str) -> list[RunRow]:
        rows = self._core.tables.rows(
            RUN, writer=owner, repo=repo, order=("-changed_ms",), limit=_RUNS_MAX
        )
        return [row for row in rows if self._is_of(owner, RUN, row.run)]

    def _is_of(self, owner: str, table: Table[Work], name: str) -> bool:
        return self._core.part(Ownership).owner(table, name) == owner

    def _came_ms(self, row: TaskRow) -> int:
        log, settled = self._core.log, self._core.log.entry(row.settled)
        came = settled and log.admitted(settled.stream, settled.header.seq)
        return came[1] if came else 0

    def starts(self, task: str) -> list[str]:
        """The commits from which a task of this machine starts; none where it is the newest."""
        core = self._core
        rows = core.tables.rows(TASK, writer=core.machine, task=task)
        row = max(rows, key=lambda each: each.changed_ms, default=None)
        body = None if row is None else body_or_none(core.log.entry(row.opened), TaskOpen)
        return [] if body is None else body.base.split()

    # --- what is said of it ----------------------------------------------------------------

    def kept(self, machine: str, repo: str, missing: Sequence[str]) -> None:
        """A copy became the repository: say how old it is, and what is `missing` in it."""
        core, copy = self._core, (machine, repo)
        name, now_ms = core.membership.name_of(MachineId(machine)), core.now.wall_ms
        as_of_ms, heard_ms = self._as_of_ms.get(copy, 0), self._heard_ms(machine)
        age = _spoken(now_ms - as_of_ms) if as_of_ms else "a time that nobody knows"
        text = f"repository {repo} goes on here as it was at {name} {age} before that"
        core.note(text)
        if not missing and copy not in self._unsure and heard_ms <= as_of_ms + _SLACK_MS:
            return
        if heard_ms > as_of_ms or copy in self._unsure:
            last = _spoken(now_ms - heard_ms)
            text += f", and {name} was heard until {last} before: what it took later is not here"
        if missing:
            more = f" and {len(missing) - _NAMED_MAX} more" if len(missing) > _NAMED_MAX else ""
            text += f"; missing are {', '.join(missing[:_NAMED_MAX])}{more}"
        text += f". Push it again from where it was made, or wait until {name} is back"
        core.incidents.open(incident_of(repo), "warning", text, ", ".join(missing))

    def names_missing(self, repo: str) -> bool:
        """Whether an incident stands that names what is missing in a repository."""
        row = _open(self._core, incident_of(repo))
        return row is not None and bool(row.detail)

    def _whole(self, repo: str) -> None:
        if self.names_missing(repo):
            reason = f"all that was missing in repository {repo} by the log was pushed again"
            self._core.incidents.close(incident_of(repo), reason)

    def followed(self, machine: str, repo: str) -> None:
        """This machine keeps it no more, and has what its keeper has: no run begins at its own."""
        if self._core.incidents.is_open(incident_of(repo)):
            name = self._core.membership.name_of(MachineId(machine))
            reason = f"{name} keeps repository {repo} now, and it is here as it is there"
            self._core.incidents.close(incident_of(repo), reason)

    def aside(self, machine: str, repo: str, names: Sequence[str], *, whole: bool) -> None:
        """This machine kept it before, and had something that the new keeper has not; or has now,
        where that is whole.
        """
        name = self._core.membership.name_of(MachineId(machine))
        if not names:
            if whole and self._core.incidents.is_open(_aside_of(repo)):
                reason = f"{name} has all of repository {repo} now that was here"
                self._core.incidents.close(_aside_of(repo), reason)
            return
        more = f" and {len(names) - _NAMED_MAX} more" if len(names) > _NAMED_MAX else ""
        text = (
            f"repository {repo} is kept by {name} now, which has not all that was pushed here: "
            f"{', '.join(names[:_NAMED_MAX])}{more}. It stays in this machine's folder of the "
            f"repository, under refs/follow/before/ where {name} has another one of that name: "
            f"push it to {name}"
        )
        self._core.incidents.open(_aside_of(repo), "warning", text)


def incident_of(repo: str) -> str:
    """The key of the incident about a repository that goes on from an older copy."""
    return f"mirror-{repo}"[:64]


def _aside_of(repo: str) -> str:
    """The key of the incident about what a repository had here and has not at its new keeper."""
    return f"follow-{repo}"[:64]


def note_of(core: "Core", repo: str) -> str:
    """What somebody who starts from a repository of this machine should know; "" where nothing."""
    row = _open(core, incident_of(repo))
    return "" if row is None else row.title


def _open(core: "Core", key: str) -> IncidentRow | None:
    return core.incidents.own(key).get(key)


def _spoken(ms: int) -> str:
    seconds = max(0, ms) // 1000
    if seconds >= 2 * 86_400:
        return f"{seconds // 86_400} days"
    if seconds >= 2 * 3_600:
        return f"{seconds // 3_600} h"
    return f"{seconds // 60} min" if seconds >= 120 else f"{seconds} s"
