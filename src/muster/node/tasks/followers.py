"""Who follows a run hears what becomes of it, until it is settled.

Rule 1: how a task stands is told when the step is done, once: in between it goes from one state to
the next. Why it left a machine is told at once: another one may have it by the end of the step.
Rule 2: what its owner knows beside its log (phases without tasks, signs of life) is told of our own
runs alone; another owner's run is told from our copy of that owner's log.
Rule 3: nothing is told that did not happen: there is no timer here.
"""

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FLEET, StreamName
from muster.node import event as ev
from muster.node.part import Part
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.owner import OwnerService, WorkerHeard
from muster.node.tasks.ownership import Ownership
from muster.task import kinds
from muster.task.fold import RUN, TASK, TaskRow
from muster.task.graph import PhaseProgress

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
_KINDS: Final = {*_MOVES, *_BEGINS, "task.open", "run.settle"}


def waiting(phase: str, reason: str, now_ms: int, state: str = "queued") -> dict[str, Any]:
    """What is told of a phase that has no task yet, or never will."""
    told: dict[str, Any] = dict.fromkeys(WATCHED, "")
    return told | {
        "phase": phase, "state": "queued" if state == "ready" else state, "tries": 0, "losses": 0,
        "reason": reason, "opened_ms": now_ms, "changed_ms": now_ms,
    }  # fmt: skip


def noted(phase: str, note: str, now_ms: int) -> dict[str, Any]:
    """What is told where a person should know something; to an older command the phase waits."""
    return waiting(phase, note, now_ms) | {"note": note}


class Followers(Part):
    """Who follows which run or task."""

    name = "watch"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._owners = core.part(OwnerService)
        self.watchers: dict[str, list[Watcher]] = {}
        # Tasks that changed in this step, and their runs.
        self._changed: dict[tuple[StreamName, str], str] = {}
        for kind in sorted(_KINDS):
            core.on(kind, self._on_entry)
        core.on(WorkerHeard, lambda event: self._heard(event.tasks))
        # Its owner will never say how it ended: another one's word is the last of it.
        core.on("work.end", lambda _stream, _entry: core.when_done(self._abandoned))
        core.on(ev.RosterChanged, lambda _event: core.when_done(self._abandoned))

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
        if kind in _MOVES or stream.machine != self.core.machine:
            self._moved(stream, entry, body)
        if kind == "attempt.start":
            self._heard((body.task,))
        if kind in _BEGINS:
            self._say(body.task, {})

    def _moved(self, stream: StreamName, entry: Entry, body: Any) -> None:
        """An owner wrote of a task or a run: of ours only moves, the rest we know beforehand."""
        kind, ours = entry.header.kind, stream.machine == self.core.machine
        if kind == "run.settle":
            if self.watchers.get(body.run) and self._is_owner(stream, body.run):
                self.settled(body.run, body.outcome, body.summary)
            return
        row = self.core.tables.row(TASK, stream, body.task)
        if row is None or not self.watchers.get(row.run):
            return
        if not ours and not self._is_owner(stream, row.run):
            return
        if kind in _MOVES and kind != "task.assign":
            why = {"state": "queued", "reason": body.reason, "changed_ms": entry.header.t[0]}
            self._tell_task(row, {"machine": self._had(entry), **why})
        else:
            self._changed[stream, row.task] = row.run
            self.core.when_done(self.tell)

    def _abandoned(self) -> None:
        """What is followed and is over although its owner did not end it is over for followers."""
        owned = self.core.part(Ownership)
        for name in list(self.watchers):
            held = owned.held(RUN, name)
            if held is None and owned.held(TASK, name) is not None:
                self._say(name, {})
            elif (
                held is not None and held.owner != self.core.machine and held.row.state not in OPEN
            ):
                self.settled(name, held.row.state, held.row.summary)

    def _had(self, entry: Entry) -> str:
        """Who had the task until this entry: by now the row may name another machine."""
        given = (self.core.log.entry(cause) for cause in entry.causes)
        bodies = (body_or_none(each, kinds.TaskAssign) for each in given if each is not None)
        machine = next((body.machine for body in bodies if body is not None), "")
        return self.core.membership.name_of(machine) if machine else ""

    def _is_owner(self, stream: StreamName, run: str) -> bool:
        return self.core.part(Ownership).owner(RUN, run) == stream.machine

    def changed(self, run: str, task: str) -> None:
        """A task of a run of ours stands otherwise than before."""
        if self.watchers.get(run):
            self._changed[self.core.membership.own(FLEET), task] = run
            self.core.when_done(self.tell)

    def tell(self, only: str = "") -> None:
        """Tell how the changed tasks (of `only` this run) stand now."""
        changed = [(key, run) for key, run in self._changed.items() if only in ("", run)]
        for (stream, task), _ in changed:
            del self._changed[stream, task]
            row = self.core.tables.row(TASK, stream, task)
            if row is not None:
                self._tell_task(row, {})

    def sign(self, task: str) -> dict[str, Any] | None:
        """What the worker of a task of ours is at, and when it was heard; None where none is."""
        found = self._owners.owner.heard(task)
        if found is None:
            return None
        stage, heard_ms = found
        ago_ms = max(0, self.core.now.boot_ms - heard_ms)
        return {"task": task, "stage": stage, "heard_ms": self.core.now.wall_ms - ago_ms}

    def _heard(self, tasks: Iterable[str]) -> None:
        for task in tasks if self.watchers else ():
            run = self._owners.owner.run_of(task)
            if self.watchers.get(run) and (sign := self.sign(task)):
                self._say(run, sign)

    def answered(self, run: str) -> None:
        """The owner that an agent asked for a run said that it ended, or that it never begins."""
        self._say(run, {})

    def phases(self, run: str, phases: Mapping[str, PhaseProgress]) -> None:
        """These phases without tasks stand otherwise than before."""
        for name, found in phases.items():
            told = waiting(name, found.reason, self.core.now.wall_ms, found.state)
            self._say(run, {**told, "taskless": True})

    def waits(self, run: str, phase: str, reason: str) -> None:
        """A phase cannot begin yet: there is no task of it."""
        self._say(run, waiting(phase, reason, self.core.now.wall_ms))

    def notes(self, run: str, phase: str, note: str) -> None:
        """Something that a person should know of how a phase begins."""
        self._say(run, noted(phase, note, self.core.now.wall_ms))

    def settled(self, run: str, outcome: str, reason: str) -> None:
        """The run is over: its followers hear of its last tasks, then of its end, then no more."""
        self.tell(run)
        self._say(run, {"run": run, "settled": outcome, "reason": reason})
        self.watchers.pop(run, None)

    def _tell_task(self, row: TaskRow, moved: Mapping[str, Any]) -> None:
        machine = self.core.membership.name_of(row.machine) if row.machine else ""
        told = {"machine": machine, "commit": row.commit_id, **moved}
        self._say(row.run, {n: told[n] if n in told else getattr(row, n) for n in WATCHED})

    def _say(self, run: str, change: dict[str, Any]) -> None:
        """Tell everybody who follows; one who cannot be told keeps no other from hearing of it."""
        for watcher in list(self.watchers.get(run, ())):
            self.core.guard.run("watch", run[:12], watcher, change)
