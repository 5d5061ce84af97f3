"""This machine as an owner of tasks: entries and calls go to `task/owner.py`, entries come back.

Rule 1: what the owner asks for is carried out in its order: drafts become entries in one append per
run of equal scope, everything else becomes an effect, which leaves only after the commit.
Rule 2: live tasks are read back from the tables after a start; nothing of them is kept elsewhere.
Rule 3: tasks of an incarnation that ended are opened anew in the present one, under the same id, so
that there is again one stream that says what becomes of them.
Rule 4: what fails is one task: it is cancelled by an entry that says why, and everything that the
owner keeps in memory is read back from the tables, for nobody knows what became of it.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ParamSpec

from muster.fleet import folds
from muster.limits import LEASE_MS, REASON_CHARS_MAX
from muster.log.entry import Entry
from muster.log.fold import body_as, body_or_none
from muster.log.stream import FLEET, FleetId, MachineId, StreamName
from muster.node import event as ev
from muster.node.call.router import Router
from muster.node.counter import DECLARED
from muster.node.guard import SURVIVED
from muster.node.part import Part
from muster.node.tasks.asking import Asking
from muster.node.tasks.branches import Branches
from muster.node.tasks.drafts import write_each
from muster.node.tasks.ownership import Ownership, attempts_of, is_given
from muster.node.tasks.results import settled_of
from muster.node.tasks.trust import Trust
from muster.task import causes, evidence, fold, kinds
from muster.task.fold import LATE, TASK, TaskRow, of_attempt
from muster.task.instruction import (
    AskPerson,
    BeatReply,
    Draft,
    Fenced,
    MachineFault,
    MachineMended,
    MoveBranch,
    OwnerInstruction,
    Promoted,
    RaiseFence,
    Settled,
    Stop,
)
from muster.task.ledger import Ledger
from muster.task.open_task import Beat, Ended, Restored, Submission, Submitted
from muster.task.owner import Owner
from muster.task.state import LIVE

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "reports-of-nobody": "The end of an attempt was reported by who was not given it."
}

P = ParamSpec("P")

_FAULT = "fault-"
_END_KINDS: Mapping[str, type[Ended]] = {
    "attempt.refuse": kinds.AttemptRefuse,
    "attempt.finish": kinds.AttemptFinish,
}


class ReadBack(ev.Event, frozen=True):
    """What the owner keeps in memory of its tasks was read back from the tables."""


class WorkerHeard(ev.Event, frozen=True):
    """A worker said that it lives, and that it works on these tasks of ours."""

    machine: str
    tasks: tuple[str, ...]


class OwnerService(Part):
    """The owner of this machine's tasks."""

    name = "owner"
    effects = (RaiseFence, MoveBranch)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._owner = self._make()
        self._ready = False
        self._owned = False
        # Machines of which the process was heard that their links lead to now: the mark that we
        # have of another may be of one that died, and what goes by that is lost at once.
        self._heard: set[str] = {core.machine}
        for kind in _END_KINDS:
            core.on(kind, self._on_attempt_end)
        core.on(Fenced, lambda e: self.about(e.task, self.owner.fenced, e, core.now))
        core.on(
            Promoted, lambda event: self.about(event.task, self.owner.promoted, event, core.now)
        )
        core.on(ev.MachineHere, lambda event: self.machine_here(event.machine))
        core.on(ev.MachineGone, lambda event: self._heard.discard(event.machine))
        core.on(ev.MachineGone, lambda event: self.owner.machine_down(event.machine))
        core.on(ev.MachineRemoved, lambda event: self.owner.machine_removed(event.machine))
        core.on(ev.RosterChanged, lambda _event: self.roster_changed())
        core.on(ev.MemoryDoubtful, lambda _event: self.recover("", ""))
        core.on(ev.NewIncarnation, lambda _event: self.start())

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (fold.TaskFold(), fold.AttemptFold(), fold.DecisionFold(), fold.EndingFold())

    @property
    def owner(self) -> Owner:
        """What is open, and who has it. Whoever asks may change it, and it is flushed for that."""
        self.dirty = True
        return self._owner

    def _make(self) -> Owner:
        ledger = Ledger(
            self.core.part(Ownership).place(),
            settled_with_key=lambda key: next((r.task for r in self._own_rows(dedupe=key)), None),
            is_mine=lambda task: bool(self._own_rows(task=task)),
            lease_ms=int(self.core.settings.get("lease_ms") or LEASE_MS),
            standing=self.core.part(Trust).of,
        )
        return Owner(ledger)

    def _own_rows(self, **equals: Any) -> list[TaskRow]:
        return self.core.tables.rows(TASK, writer=self.core.machine, **equals)

    # --- starting ---------------------------------------------------------------------------

    def start(self) -> None:
        """Take up the live tasks of our streams; one that cannot be is ended, with the reason."""
        self._take_up()
        self._ready = True
        self._owned = self._owned or bool(self._own_rows(limit=1))
        self.roster_changed()

    def _take_up(self) -> None:
        self._owner = self._make()
        own = self.core.membership.own(FLEET)
        live = self.core.part(Ownership).ours(TASK, LIVE)
        self._owned |= bool(live)
        restored: list[Restored] = []
        for row in live:
            if row.stream == own:
                task = row.task
                failure = self.core.guard.run("task", task[:12], self._read_back, row, restored)
                if failure is not None:
                    self._end(task, failure)
        failure = self.core.guard.run("tasks", "", self.owner.restore, restored, self.core.now)
        if failure is None:
            return
        # One of these tasks cannot be taken up: find it, for the others must go on.
        good: list[Restored] = []
        for each in restored:
            task, restore = each.row.task, self._make().restore
            failure = self.core.guard.run("task", task[:12], restore, [each], self.core.now)
            if failure is None:
                good.append(each)
            else:
                self._end(task, failure)
        self._owner = self._make()
        self.core.guard.run("tasks", "", self.owner.restore, good, self.core.now)

    def _read_back(self, row: TaskRow, restored: list[Restored]) -> None:
        ended, attempts = None, attempts_of(self.core, row.machine, row.task, row.epoch)
        # The end of the attempt that holds the task, where it came before we were stopped.
        for attempt in attempts if row.state == "leased" else ():
            entry = self.core.log.entry(attempt.ended)
            if entry is not None and ended is None:
                ended = entry.id, row.machine, body_as(entry, _END_KINDS[entry.header.kind])
        restored.append(Restored(row, self._opening(row), FLEET, ended))

    def adopt(self) -> None:
        """Open the live tasks of earlier incarnations anew, in the present one."""
        # A restart forgets what machines failed at: nothing must say for ever that they do.
        held = {_fault_key(m, part) for m, parts in self.owner.faults().items() for part in parts}
        own = self.core.membership.own(FLEET)
        for told in self.core.tables.rows(folds.INCIDENT, stream=own, open=1):
            if told.key.startswith(_FAULT) and told.key not in held:
                reason = "the daemon was restarted; it is asked again"
                self.core.incidents.close(told.key, reason)
        live = {row.task: row for row in self.core.part(Ownership).ours(TASK, LIVE)}
        for task, row in live.items():
            # Asked of each that is open: to ask for all that are settled would read them all.
            rows = self._own_rows(task=task)
            if all(r.stream != own and r.state in LIVE for r in rows):
                self.core.guard.run("task", task[:12], self._adopt_one, row)

    def _adopt_one(self, row: TaskRow) -> None:
        body = self._opening(row)
        again = Submission(body, body.run or body.task, (row.opened,), again=True)
        self.submit([again])

    # --- what fails ---------------------------------------------------------------------------

    def about(self, task: str, work: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
        """Do something about one task; when it fails that task ends, and the others go on."""
        failure = self.core.guard.run("task", task[:12], work, *args, **named)
        if failure is not None:
            self.recover(task, failure)

    def recover(self, task: str, reason: str) -> None:
        """End `task` (if it is one of ours, and live) and read all others back from the tables."""
        # What the owner decided before it stumbled was decided well: it is not to be lost.
        for each in self.owner.drain():
            if isinstance(each, Draft):
                write_each(self.core, [each])
            elif isinstance(each, Stop | BeatReply | AskPerson):
                self.core.guard.run("task", "", self._carry_out, each)
        if task:
            self._end(task, reason)
        self._take_up()
        self.roster_changed()
        self.core.tell(ReadBack())

    def _end(self, task: str, reason: str) -> None:
        rows = [r for r in self._own_rows(task=task) if r.state in LIVE]
        for row in rows[-1:]:
            why, cause = reason[:REASON_CHARS_MAX], (row.assigned or row.opened,)
            run, append = self.core.guard.run, self.core.append_body
            run("task", task[:12], append, kinds.TaskCancel(task, why), cause=cause)
            if row.state == "leased":
                stop = Stop(row.machine, task, row.epoch, why)
                run("task", task[:12], self._carry_out, stop)

    def ended(self, task: str) -> Settled | None:
        """How a task of ours ended, None while it is live or where there is none."""
        rows = self._own_rows(task=task)
        own = self.core.membership.own(FLEET)
        # A stream that ended says for ever what was so at its end.
        here = [row for row in rows if row.stream == own]
        over = [row for row in here or rows if row.state not in LIVE]
        return settled_of(self.core.store, over[-1]) if over else None

    def _opening(self, row: TaskRow) -> kinds.TaskOpen:
        found = self.core.log.entry(row.opened)
        assert found is not None, "a row names an entry that the store holds"
        return body_as(found, kinds.TaskOpen)

    # --- work comes in ----------------------------------------------------------------------

    def submit(self, orders: Sequence[Submission]) -> list[Submitted]:
        self._owned = True
        return self.owner.submit(orders, self.core.now)

    def beat(self, machine: str, mark: str, holds: Sequence[Beat]) -> None:
        self.owner.beat(machine, mark, holds, self.core.now)
        if holds:
            self.core.tell(WorkerHeard(machine, tuple(each.task for each in holds)))
        if machine not in self._heard:
            self._heard.add(machine)
            self.machine_here(machine)

    def _on_attempt_end(self, stream: StreamName, entry: Entry) -> None:
        # A machine that never owned a task need not look at what other owners' workers report.
        if not self._ready or not self._owned:
            return
        body = body_or_none(entry, _END_KINDS[entry.header.kind])
        if body is None:
            return
        if not self.owner.has_given(stream.machine, body.task, body.epoch):
            me, attempt = self.core.machine, of_attempt(body.task, body.epoch)
            given = is_given(self.core, entry, me, body.task, body.epoch)
            if not given or self.core.tables.rows(LATE, writer=me, **attempt):
                # Not from who once had the task, or not the first of its kind. Whoever never had
                # the task could fill our log with what came too late.
                self.core.counters["reports-of-nobody"] += 1
                return
        never = self._never(body) if isinstance(body, kinds.AttemptRefuse) else ""
        now, report = self.core.now, self.owner.report
        self.about(body.task, report, entry.id, stream.machine, body, now, never=never)

    def _never(self, body: kinds.AttemptRefuse) -> str:
        """Why no machine could run the task any more, where that is so; looked at here, not heard.

        Otherwise a task whose order grew old would be offered, and refused, again and again.
        """
        if body.reason not in evidence.HOPELESS:
            return ""
        core, rows = self.core, self._own_rows(task=body.task)
        opened = core.log.entry(rows[-1].opened) if rows else None
        if opened is None:
            return ""
        try:
            evidence.check_ordered(
                opened,
                fleet=core.membership.fleet,
                lookup=core.log.entry,
                authority=core.roster.permit,
                now_ms=core.now.wall_ms,
                asking=Asking(core),
            )
        except causes.Unproven as unproven:
            if unproven.reason in evidence.HOPELESS:
                again = "" if "give it again" in str(unproven) else "; give the order again"
                return f"{unproven}{again}"
        return ""

    # --- machines ---------------------------------------------------------------------------

    def machine_here(self, machine: str) -> None:
        """A link to it is up (or it is ourselves): once it is heard it may be given work."""
        roster = self.core.roster
        if machine in self._heard and machine in roster.machines and machine in roster.facts:
            self.owner.machine_up(self.core.membership.candidate(MachineId(machine)))

    def roster_changed(self) -> None:
        if not self._ready:
            return
        self.machine_here(self.core.machine)
        for link in self.core.links.values():
            if link.peer:
                self.machine_here(link.peer)

    # --- carrying out -----------------------------------------------------------------------

    @property
    def needs_tick(self) -> bool:
        return self._owner.statistics()["open"] > 0

    def tick(self) -> None:
        for key in self.owner.due(self.core.now):
            self.about(key.partition("/")[2], self.owner.ring, key, self.core.now)

    def flush(self) -> None:
        """Carry out what the owner wants."""
        try:
            # It writes nothing: there is nothing to take back.
            instructions = self._owner.flush(self.core.now)
        except SURVIVED as error:
            # The task that was next ends, so that it cannot happen again.
            failed = self.core.guard.failed("tasks", self.owner.placing[:12], error)
            self.recover(self.owner.placing, failed)
            return
        drafts = [each for each in instructions if isinstance(each, Draft)]
        stumbled = {_task_of(d.body): why for d, why in write_each(self.core, drafts)}
        for each in instructions:
            if isinstance(each, Draft):
                continue
            if isinstance(each, Settled):
                # Whoever hears of it guards what it does about it.
                self.core.tell(each)
                continue
            failure = self.core.guard.run("task", _task_of(each)[:12], self._carry_out, each)
            # An answer that cannot be given says nothing about our tasks.
            if failure is not None and not isinstance(each, BeatReply):
                stumbled[_task_of(each)] = failure
        for task, why in stumbled.items():
            self.recover(task, why)

    def _carry_out(self, each: OwnerInstruction) -> None:
        core = self.core
        match each:
            case RaiseFence() if core.part(Branches).holds_up(each):
                pass
            case RaiseFence() | MoveBranch():
                core.do(each)
            case Stop() | BeatReply() if each.machine == core.machine:
                core.tell_later(ev.OwnerTold(each))
            case Stop(machine, task, epoch, reason):
                released = {"task": task, "epoch": list(epoch), "reason": reason}
                core.part(Router).say(machine, "release", released)
            case BeatReply(machine, mark, held, gone):
                args = {
                    "mark": mark,
                    "held": [[task, *epoch] for task, epoch in held],
                    "gone": [[task, *epoch] for task, epoch in gone],
                }
                core.part(Router).say(machine, "hold", args)
            case AskPerson(task, run, phase):
                what = f"phase {phase or task[:8]} of run {run[:8]}"
                title = f"{what} waits for a decision: `muster why {task[:12]}` asks for it"
                core.incidents.open(f"ask-{task[:32]}", "warning", title)
            case MachineFault(machine, part, reason):
                kind, _, what = part.partition(":")
                words = {"agent": f"cannot run {what}", "repo": f"cannot work on {what}"}
                failed = words.get(kind, "cannot begin work")
                title = f"{core.membership.name_of(machine)} {failed}; its work goes elsewhere"
                core.incidents.open(_fault_key(machine, part), "warning", title, reason)
            case MachineMended(machine, part):
                core.incidents.close(_fault_key(machine, part), "it works again, or started anew")


def _task_of(each: object) -> str:
    """The task that an instruction or a body is about, "" for none."""
    return str(getattr(each, "task", ""))


def _fault_key(machine: str, part: str) -> str:
    return f"{_FAULT}{machine[:16]}-{part}"[:64]
