"""What owner (owner.py), runs (runs.py) and worker (worker.py) of this machine have in common.

Rule 1: work of an earlier incarnation of ours is opened anew, when all of it had the time to come.
Rule 2: what an operator ended while this machine could not be asked is ended here.
Rule 3: whoever waits for outcomes hears them in the step that settles the tasks.

Whatever fails is one task, run or attempt: it ends with the reason, by an entry, and the parts read
back from the store what they kept of it in memory.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import StreamName
from muster.node import event as ev
from muster.node.incarnations.doubt import Doubt
from muster.node.part import Part
from muster.node.tasks.asked_work import AskedWork
from muster.node.tasks.ended_work import ended_by
from muster.node.tasks.owner import OwnerService, ReadBack
from muster.node.tasks.runs import RunService
from muster.task.instruction import Settled
from muster.task.kinds import WorkEnd

if TYPE_CHECKING:
    from muster.node.core import Core

# After a new incarnation, the time for our earlier streams to come back from peers before their
# live tasks are opened anew: what they settled must be known first.
ADOPT_MS = 2_000


class TaskService(Part):
    name = "work"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._owners, self._running = core.part(OwnerService), core.part(RunService)
        self._adopt_at: int | None = None
        # Who waits for a task's outcome; it is told in the step that settles the task.
        self._awaited: dict[str, list[Callable[[Settled], None]]] = {}
        for kind in ("task.open", "run.open"):
            core.on(kind, self._on_open)
        core.on("work.end", self._on_ending)
        core.on(Settled, self._settled)
        core.on(ReadBack, self._read_back)
        core.on(ev.NewIncarnation, lambda _event: self.start())
        core.on(ev.DoubtOver, lambda _event: self.start(0))

    def start(self, after_ms: int = ADOPT_MS) -> None:
        self._adopt_at = self.core.now.boot_ms + after_ms

    def _on_open(self, stream: StreamName, _entry: Entry) -> None:
        """Work of an earlier incarnation of ours comes back, perhaps long after our start."""
        core = self.core
        if stream.machine == core.machine and stream != core.membership.own(stream.scope):
            self.start()

    def _on_ending(self, _stream: StreamName, entry: Entry) -> None:
        """An operator ended work while its owner could not be asked; perhaps that is us."""
        body = body_or_none(entry, WorkEnd)
        if body is not None and self.core.settled:
            self._end(body.what)

    def _end(self, what: str) -> None:
        """End what is open here, where an operator ordered it."""
        owner = self._owners.owner
        if what not in self._running.runs and not owner.is_open(what):
            return
        by = ended_by(self.core, what)
        if by and what in self._running.runs and not self._running.runs[what].progress.cancelled:
            self._running.cancel(what, f"{by} ended it while this machine could not be asked")
        elif by and owner.is_open(what):
            owner.cancel(what, f"{by} ended it", (), self.core.now)

    def tick(self) -> None:
        """Open anew what an earlier incarnation of ours left, once it is known what is left."""
        core, runs = self.core, self._running
        if self._adopt_at is None or core.now.boot_ms < self._adopt_at or core.part(Doubt).waits:
            return
        self._adopt_at = None
        self._owners.adopt()
        core.guard.run("runs", "", runs.adopt)
        # What was ended while we were away, or before our own history was confirmed.
        ended = core.tables.query(
            "select distinct what from ending where what in (select run from run where state ="
            " 'open') or what in (select task from task where state in ('queued', 'waiting',"
            " 'leased'))"
        )
        for (what,) in ended:
            core.guard.run("runs", "", self._end, str(what))
        core.guard.run("runs", "", core.part(AskedWork).end_removed)

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
        for waiting in self._awaited.pop(end.task, ()):
            self.core.guard.run("answer", end.task[:12], waiting, end)

    def _read_back(self, _event: ReadBack) -> None:
        """Whoever waits hears what ended meanwhile, and the runs before them."""
        for task in list(self._awaited):
            end = self._owners.ended(task)
            if end is not None:
                self.core.tell(end)
