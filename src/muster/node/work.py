"""Work on this machine: as owner (owning.py, running.py) and as worker (working.py), in step.

The core tells it of machines, time and events; it answers with entries and effects. Owner and
worker may be the same machine: what one tells the other then goes through `told`.

Whatever fails is one task, run or attempt: it ends with the reason, by an entry, and the parts read
back from the store what they kept of it in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from muster.limits import STEP_ROUNDS_MAX
from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.log.stream import StreamName
from muster.node import event as ev
from muster.node.branches import Branches, BroughtBack
from muster.node.counter import DECLARED
from muster.node.looking import BaseFound, Matched
from muster.node.ownership import Ownership
from muster.node.owning import Owning
from muster.node.report import AttemptEnded, AttemptEvent, AttemptStage
from muster.node.running import Running
from muster.node.whole import Whole
from muster.node.working import Working
from muster.task.instruction import Fenced, Promoted, Settled
from muster.task.kinds import WorkEnd
from muster.task.live import Beat

DECLARED[__name__] = {"flushes-cut-short": "What followed from work was left for the next step."}

# After a new incarnation, the time for our earlier streams to come back from peers before their
# live tasks are opened anew: what they settled must be known first.
ADOPT_MS = 2_000


class Work:
    """See the top of this file."""

    def __init__(self, core: Whole) -> None:
        self.core = core
        self.ownership = Ownership(core)
        self.owning = Owning(core, self._settled, self._taken_up)
        self.running = Running(core, self.owning)
        self.branches = Branches(core)
        self.working = Working(core)
        self._adopt_at: int | None = None
        self._told: list[tuple[str, Mapping[str, Any]]] = []
        # Who waits for a task's outcome; it is told in the step that settles the task.
        self._awaited: dict[str, list[Callable[[Settled], None]]] = {}
        for kind in ("task.open", "run.open"):
            core.on(kind, self._on_open)
        core.on("work.end", self._on_ending)

    def start(self) -> None:
        self.core.guard.run("attempts", "", self.working.start)
        self.owning.start()
        self._adopt_at = self.core.now.boot_ms + ADOPT_MS

    def settled(self) -> None:
        """Our own history is confirmed."""

    def _is_due(self) -> bool:
        return self._adopt_at is not None and self.core.now.boot_ms >= self._adopt_at

    def doubt_over(self) -> None:
        """What was left alone while our own past was in doubt can be taken up."""
        self._adopt_at = self.core.now.boot_ms

    def take_up(self) -> None:
        """What is kept in memory of tasks and runs may be wrong: read it back from the store."""
        self.owning.recover("", "")

    def incarnation_changed(self) -> None:
        """We write another stream from now on: open there what is still live."""
        self.owning.start()
        self._adopt_at = self.core.now.boot_ms + ADOPT_MS

    def _on_open(self, stream: StreamName, _entry: Entry) -> None:
        """Work of an earlier incarnation of ours comes back, perhaps long after our start."""
        core = self.core
        if stream.machine == core.machine and stream != core.standing.own(stream.scope):
            self._adopt_at = core.now.boot_ms + ADOPT_MS

    def _on_ending(self, _stream: StreamName, entry: Entry) -> None:
        """An operator ended work while its owner could not be asked; perhaps that is us."""
        try:
            body = body_as(entry, WorkEnd)
        except Skip:
            return
        if self.core.members.settled:
            self._end(body.what)

    def _end(self, what: str) -> None:
        """End what is open here, where an operator ordered it."""
        owner = self.owning.owner
        if what not in self.running.runs and not owner.is_open(what):
            return
        by = self.ownership.endings.by(what)
        if by and what in self.running.runs and not self.running.runs[what].progress.cancelled:
            self.running.cancel(what, f"{by} ended it while this machine could not be asked")
        elif by and owner.is_open(what):
            owner.cancel(what, f"{by} ended it", (), self.core.now)

    def _end_all(self) -> None:
        """What was ended while we were away, or before our own history was confirmed."""
        found = self.core.store.query(
            "select distinct what from ending where what in (select run from run where state ="
            " 'open') or what in (select task from task where state in ('queued', 'waiting',"
            " 'leased'))"
        )
        for (what,) in found:
            self._end(str(what))

    # --- machines -------------------------------------------------------------------------

    def machine_here(self, machine: str) -> None:
        self.owning.machine_here(machine)
        self.working.machine_here(machine)
        self.branches.machine_here(machine)

    def machine_gone(self, machine: str) -> None:
        self.owning.machine_gone(machine)

    def is_anothers(self, task: str, owner: str) -> bool:
        """Whether a task that one machine wants done is another one's; see ownership.py.

        Looked into only where several wrote the id: this is asked for nearly every assignment. What
        we assign ourselves is ours, whatever others wrote about it.
        """
        if owner == self.core.machine or len(self.core.store.writers("task", task=task)) < 2:
            return False
        return self.ownership.owner("task", task) not in (None, owner)

    def machine_removed(self, machine: str) -> None:
        self.owning.machine_removed(machine)

    def roster_changed(self) -> None:
        self.owning.roster_changed()
        self.working.facts_changed()

    # --- events ---------------------------------------------------------------------------

    def on_event(self, event: ev.Event) -> None:
        now, owning = self.core.now, self.owning
        match event:
            case AttemptEvent():
                self.core.guard.run("journal", event.task[:12], self.working.happened, event)
            case AttemptStage(task, epoch, stage):
                self.working.worker.progressed(task, epoch, stage)
            case AttemptEnded():
                self.working.ended_for_certain(event)
            case Fenced():
                owning.about(event.task, owning.owner.fenced, event, now)
            case Promoted():
                owning.about(event.task, owning.owner.promoted, event, now)
            case BroughtBack():
                self.core.guard.run("branch", event.task[:12], self.branches.brought, event)
            case Matched():
                self.running.about(event.run, self.running.looking.matched, event)
            case BaseFound():
                self.running.about(event.run, self.running.looking.base_found, event)
            case _:
                raise AssertionError(f"{event} reached work")

    def tick(self) -> None:
        if not self.core.members.settled:
            return
        guard = self.core.guard
        if self._is_due() and not self.core.doubt.waits:
            self._adopt_at = None
            self.owning.adopt()
            guard.run("runs", "", self.running.start)
            guard.run("runs", "", self._end_all)
        guard.run("branches", "", self.branches.tick)
        self.owning.tick()
        guard.run("runs", "", self.running.looking.tick)
        guard.run("worker", "", self.working.tick)

    def told(self, machine: str, verb: str, args: Mapping[str, Any]) -> None:
        """What the owner tells the worker on the same machine; done before this step ends."""
        assert machine == self.core.machine, "only this machine is told directly"
        self._told.append((verb, args))

    def beat(self, machine: str, mark: str, holds: list[Beat]) -> None:
        """A worker (perhaps ourselves) lives."""
        self.owning.beat(machine, mark, holds)

    def flush(self) -> None:
        """Everything the owner, its runs and the worker still want, until nobody wants anything.

        Nothing before our own history is confirmed: all of it would be written.
        """
        if not self.core.members.settled:
            return
        for _ in range(STEP_ROUNDS_MAX):
            busy = self.running.flush()
            busy |= self.owning.flush()
            busy |= self.working.flush()
            while self._told:
                verb, args = self._told.pop(0)
                me = self.core.machine
                self.core.guard.run("owner", verb, self.working.on_owner, me, verb, args)
                busy = True
            if not busy:
                return
        self.core.counters["flushes-cut-short"] += 1

    def tell_changes(self) -> None:
        """The step is done: whoever follows a run hears what it changed."""
        self.core.guard.run("watch", "", self.running.following.tell)

    def when_settled(
        self, tasks: Sequence[str], then: Callable[[list[Settled]], None]
    ) -> Callable[[], None]:
        """Call `then` once, with every end, when all of these open tasks have one.

        Returns what to call when nobody waits any more.
        """
        left, ends = set(tasks), list[Settled]()

        def settled(end: Settled) -> None:
            left.discard(end.task)
            ends.append(end)
            if not left:
                then(ends)

        def stop() -> None:
            for task in left:
                waiting = self._awaited.get(task, [])
                if settled in waiting:
                    waiting.remove(settled)

        for task in left:
            self._awaited.setdefault(task, []).append(settled)
        return stop

    def _settled(self, end: Settled) -> None:
        if end.run:
            self.running.about(end.run, self.running.settled, end)
        for waiting in self._awaited.pop(end.task, ()):
            self.core.guard.run("answer", end.task[:12], waiting, end)

    def _taken_up(self) -> None:
        """The owner read its tasks back: so do the runs, and whoever waits hears what ended."""
        self.running.taken_up()
        for task in list(self._awaited):
            end = self.owning.ended(task)
            if end is not None:
                self._settled(end)
