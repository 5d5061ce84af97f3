"""Who follows a run hears what becomes of it, until it is settled.

Rule: how a task stands is told when the step is done, once: in between it goes from one state to
the next. Why it left a machine is told at once: another one may have it by the end of the step.
"""

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, StreamName
from muster.node.part import Part
from muster.node.tasks.owner import OwnerService
from muster.task import kinds
from muster.task.fold import TASK

if TYPE_CHECKING:
    from muster.node.core import Core

Watcher = Callable[[dict[str, Any]], None]
# What is told of each task, as `verbs/task.py` shows it.
WATCHED: Final = (
    "phase", "instance", "task", "state", "machine", "agent", "tries", "losses", "reason",
    "summary", "commit", "opened_ms", "changed_ms",
)  # fmt: skip
# The entries that move a task without ending it.
_MOVES: Final = ("task.assign", "task.expire", "task.retry")
# Those, of whichever machine, from which it is known that a task has begun or never will.
_BEGINS: Final = ("task.assign", "attempt.start", "task.cancel", "task.settle")


def waiting(phase: str, reason: str, now_ms: int) -> dict[str, Any]:
    """What is told of a phase that has no task yet."""
    told: dict[str, Any] = dict.fromkeys(WATCHED, "")
    return told | {
        "phase": phase, "state": "queued", "tries": 0, "losses": 0, "reason": reason,
        "opened_ms": now_ms, "changed_ms": now_ms,
    }  # fmt: skip


class Followers(Part):
    """Who follows the runs of this owner."""

    name = "watch"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._owners = core.part(OwnerService)
        self.watchers: dict[str, list[Watcher]] = {}
        # Tasks that changed in this step, and their runs.
        self._changed: dict[str, str] = {}
        for kind in {*_MOVES, *_BEGINS}:
            core.on(kind, self._on_entry)

    def follow(self, what: str, watcher: Watcher) -> Callable[[], None]:
        """From now on `watcher` hears of a run of ours, or that anybody's task may have begun.

        Returns what ends that.
        """
        watchers = self.watchers.setdefault(what, [])
        watchers.append(watcher)

        def stop() -> None:
            if watcher in watchers:
                watchers.remove(watcher)
            if not watchers and self.watchers.get(what) is watchers:
                del self.watchers[what]

        return stop

    def _on_entry(self, stream: StreamName, entry: Entry) -> None:
        kind = entry.header.kind
        body: Any = body_or_none(entry, kinds.KINDS[kind]) if self.watchers else None
        if body is None:
            return
        if kind in _MOVES and stream.machine == self.core.machine:
            # A task of ours got a machine, or lost it.
            run = self._owners.owner.run_of(body.task)
            if kind == "task.assign":
                self.changed(run, body.task)
            else:
                why = {"state": "queued", "reason": body.reason, "changed_ms": entry.header.t[0]}
                self._tell_task(run, body.task, why)
        if kind in _BEGINS:
            self._say(body.task, {})

    def changed(self, run: str, task: str) -> None:
        """A task of the run stands otherwise than before."""
        if self.watchers.get(run):
            self._changed[task] = run
            self.core.when_done(self.tell)

    def tell(self, only: str = "") -> None:
        """Tell how the changed tasks (of `only` this run) stand now."""
        changed = [(task, run) for task, run in self._changed.items() if only in ("", run)]
        for task, run in changed:
            del self._changed[task]
            self._tell_task(run, task, {})

    def waits(self, run: str, phase: str, reason: str) -> None:
        """A phase cannot begin yet: there is no task of it."""
        self._say(run, waiting(phase, reason, self.core.now.wall_ms))

    def settled(self, run: str, outcome: str, reason: str) -> None:
        """The run is over: its followers hear of its last tasks, then of its end, then no more."""
        self.tell(run)
        self._say(run, {"run": run, "settled": outcome, "reason": reason})
        self.watchers.pop(run, None)

    def _tell_task(self, run: str, task: str, moved: Mapping[str, Any]) -> None:
        own = self.core.membership.own(FLEET)
        row = self.core.tables.row(TASK, own, task) if self.watchers.get(run) else None
        if row is None:
            return
        machine = self.core.membership.name_of(row.machine)
        told = {"machine": machine, "commit": row.commit_id, **moved}
        self._say(run, {n: told[n] if n in told else getattr(row, n) for n in WATCHED})

    def _say(self, run: str, change: dict[str, Any]) -> None:
        """Tell everybody who follows; one who cannot be told keeps no other from hearing of it."""
        for watcher in list(self.watchers.get(run, ())):
            self.core.guard.run("watch", run[:12], watcher, change)
