"""Branches that our log has and the repository may not: what a machine from a backup looks after.

Rule 1: a settlement of ours that comes back from others was forgotten here, and so was the branch
that it names, perhaps. Each is looked for once; nobody wonders about branches that we remember.
Rule 2: what is gone is brought back from the worker that made it, which still has the commit in its
cache; by then the same checks are made as when it was promoted the first time.
Rule 3: so it is with what another machine's run had come to that goes on here (adoption.py). What
may start from it waits for a while.
Rule 4: what cannot be brought back is an incident until it can: a result that is gone must not be
reported as there.
"""

from operator import attrgetter
from typing import TYPE_CHECKING, Final

from muster.limits import BRANCH_RETRY_MS, BRANCHES_LOOKED_FOR_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import StreamName
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.tasks.ownership import Ownership
from muster.task import kinds
from muster.task.fold import RUN, TASK, TaskRow
from muster.task.identity import branch_of
from muster.task.instruction import MoveBranch, RaiseFence

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "branches-not-looked-for": "The branch of a settled task was not looked for: too many wait."
}

# Half a second, and twice as long each time: half a minute in all.
_SOON_MS: Final = 500
_SOON_MAX: Final = 6

INCIDENT: Final = "branch-"


class BringBack(ev.Effect, frozen=True):
    """See that a settled branch stands, with its worker's help where it does not.

    Answer with `BroughtBack`.
    """

    move: MoveBranch


class BroughtBack(ev.Event, frozen=True):
    """The branch of a settled task stands; or is gone, and why it could not be brought back."""

    task: str
    branch: str
    repo: str
    reason: str = ""
    was_gone: bool = False


class Branches(Part):
    name = "branches"
    effects = (BringBack,)

    def __init__(self, core: "Core") -> None:
        self.core = core
        # Tasks whose branch is to be looked for, and when; who may push its attempt once more.
        self._due_ms: dict[str, int] = {}
        self.asked: dict[str, str] = {}
        # How often those of adopted work were asked for in vain, and what waits for them.
        self._soon: dict[str, int] = {}
        self._held_up: list[RaiseFence] = []
        core.on("task.settle", self._on_settle)
        core.on(ev.MachineHere, self._machine_here)
        core.on(BroughtBack, self.brought)

    def _on_settle(self, stream: StreamName, entry: Entry) -> None:
        core = self.core
        if stream.machine != core.machine or stream == core.membership.own(stream.scope):
            return
        body = body_or_none(entry, kinds.TaskSettle)
        if body is not None and body.outcome == "done" and body.commit:
            self.look_for(body.task)

    def look_for(self, task: str, *, adopted: bool = False) -> None:
        """See that the branch of a task that was settled stands."""
        if len(self._due_ms) >= BRANCHES_LOOKED_FOR_MAX:
            self.core.counters["branches-not-looked-for"] += 1
            return
        self._due_ms[task] = self.core.now.boot_ms
        if adopted:
            self._soon[task] = 0

    def look_for_all(self, run: str) -> None:
        """See that what an adopted run had come to stands: a mirror may have been made before."""
        for row in self.core.tables.rows(TASK, writer=self.core.machine, run=run, state="done"):
            if row.commit_id:
                self.look_for(row.task, adopted=True)

    def start(self) -> None:
        """What is adopted is looked for again: nobody remembers whether it stood."""
        owned = self.core.part(Ownership)
        for run in owned.ours(RUN, ("open",)):
            if run.repo and owned.is_adopted(run.run):
                self.look_for_all(run.run)

    def holds_up(self, effect: RaiseFence) -> bool:
        """Whether a task waits for branches of adopted work that it may start from.

        Its fence is raised when they stand, or were asked for often enough.
        """
        if self._soon:
            self._held_up.append(effect)
        return bool(self._soon)

    @property
    def needs_tick(self) -> bool:
        return bool(self._due_ms)

    def tick(self) -> None:
        """Look for what is due; call it once our own history is whole."""
        now_ms = self.core.now.boot_ms
        for task, due_ms in list(self._due_ms.items()):
            if due_ms <= now_ms and task not in self.asked:
                row = self._row(task)
                body = row and body_or_none(self.core.log.entry(row.opened), kinds.TaskOpen)
                if row is None or body is None:
                    del self._due_ms[task]
                    self._not_soon(task)
                    continue
                branch = branch_of(body.run or task, body.phase, body.instance)
                made = (row.commit_id, tuple(body.base.split()), row.machine, row.agent)
                self.asked[task] = row.machine
                self.core.do(BringBack(MoveBranch(task, row.epoch, body.repo, branch, *made)))

    def _machine_here(self, event: ev.MachineHere) -> None:
        """A worker is back: what it made may be brought back now."""
        for task in self._due_ms:
            row = self._row(task)
            if row is not None and row.machine == event.machine:
                self._due_ms[task] = self.core.now.boot_ms

    def brought(self, event: BroughtBack) -> None:
        """The branch stands, or does not."""
        task = event.task
        self.asked.pop(task, None)
        key = f"{INCIDENT}{task[:32]}"
        if not event.reason:
            self._due_ms.pop(task, None)
            self._not_soon(task)
            if event.was_gone:
                self.core.incidents.open(key, "notice", f"{event.branch} was brought back")
                self.core.incidents.close(key, "the branch stands again")
            elif self.core.incidents.is_open(key):
                self.core.incidents.close(key, "the branch stands again")
            return
        tries = self._soon.get(task, _SOON_MAX)
        if tries < _SOON_MAX:
            # Its worker may not have heard yet that it is ours.
            self._soon[task] = tries + 1
            self._due_ms[task] = self.core.now.boot_ms + (_SOON_MS << tries)
            return
        self._not_soon(task)
        self._due_ms[task] = self.core.now.boot_ms + BRANCH_RETRY_MS
        title = f"{event.branch} is gone from repository {event.repo}: {event.reason}"
        self.core.incidents.open(key, "warning", title)

    def _not_soon(self, task: str) -> None:
        """Nothing waits for this one any more."""
        self._soon.pop(task, None)
        if not self._soon:
            held_up, self._held_up = self._held_up, []
            for effect in held_up:
                self.core.do(effect)

    def _row(self, task: str) -> TaskRow | None:
        rows = self.core.tables.rows(TASK, writer=self.core.machine, task=task, state="done")
        return max(rows, key=attrgetter("changed_ms"), default=None)
