"""This machine as a worker: assignments in the log become attempts, their ends become entries.

Rule 1: an assignment is acted on once its entry is in our log and its evidence holds; the link it
came over proves nothing.
Rule 2: what an attempt does is written to our journal as it happens.
Rule 3: `noop` runs here, in the step that accepts it: it measures everything but itself.
Rule 4: what fails is one attempt: it ends as failed, with the reason, for its owner to hear.
Rule 5: an assignment without an order behind it is refused, a bounded number of times for each
owner: nobody makes us write as much as it writes itself.
"""

from bisect import bisect_right
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Literal

from muster import limits
from muster.errors import Malformed, MusterError
from muster.limits import BEAT_MS, REASON_CHARS_MAX
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import JOURNAL, MachineId, StreamName
from muster.node import event as ev
from muster.node.call.authorize import Authorizer
from muster.node.call.router import Router
from muster.node.counter import DECLARED, labelled, spend
from muster.node.incarnations.doubt import Doubt
from muster.node.incarnations.lives import MINUTE_MS
from muster.node.part import Part
from muster.node.replica.forks import RolledBack
from muster.node.tasks import attempt_body
from muster.node.tasks.approvals import Approvals
from muster.node.tasks.asking import Asking
from muster.node.tasks.attempt_body import AttemptEnded, AttemptEvent, AttemptStage
from muster.node.tasks.drafts import write_each
from muster.node.tasks.enclosures import Enclosures
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership, attempts_of
from muster.node.tasks.pauses import Pauses
from muster.node.tasks.purse import COSTS_NOTHING, Purse
from muster.node.tasks.told_usage import told_usage
from muster.task import causes, evidence, kinds, template
from muster.task.duration import TOLD
from muster.task.fault import LEAVING, NO_START
from muster.task.fold import ATTEMPT, TASK
from muster.task.instruction import BeatReply, Draft, StartAttempt, Stop, StopAttempt
from muster.task.open_task import Ended
from muster.task.route import NOOP, ORDER_SINCE, SANDBOX, Machine
from muster.task.spec import parse
from muster.task.version import version_of
from muster.task.worker import Assignment, SendBeat, Unfinished, Worker

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "assignment-without-opening": "A task was assigned to this machine that nobody opened.",
    "assignments-unanswered": "Assignments without evidence came too fast to refuse each.",
    "assignments-in-doubt": "An assignment was refused while this machine doubts its own past.",
    "assignments-while-paused": "An assignment was refused because this machine takes no work now.",
    "assignments-while-leaving": "An assignment was refused because this machine leaves its fleet.",
    "events-of-no-form": "What an attempt said has no form that fits into an entry.",
}

_SPECS_KEPT: Final = 64
# In a fleet everybody may own tasks, and few do: who gave none for so long hears every eighth beat
# if it is a hub, and so many of the others do, in turn.
_ACTIVE_MS: Final = 10 * MINUTE_MS
_IDLE_BEATS: Final = 8
_IDLE_TURN: Final = 4


class WorkerService(Part):
    """The worker of this machine."""

    name = "worker"
    effects = (StartAttempt, StopAttempt)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.session = core.draw(8).hex()
        self._worker = Worker(self._me(), self.session)
        self._worker.refuses = self._refuses
        self._beat_at, self._beats = 0, 0
        # When each owner gave us a task last, or had one here; and who of the others heard last.
        self._gave_ms: dict[str, int] = {}
        self._told_last = ""
        self._seen_ready = False
        # Whether entries of others count no more, since the last flush.
        self._rolled_back = False
        # Who drains this machine, which is about to leave: it takes no new task while there is one.
        self.drains: set[object] = set()
        self._specs: dict[str, Any] = {}
        self._known: dict[Any, Any] = {}
        # When we refused assignments without an order, by owner, in the last minute.
        self._refused: dict[MachineId, deque[int]] = {}
        # Who follows a task's journal: told that something was written, and whether that was all.
        self.followers: dict[str, list[Callable[[bool], None]]] = {}
        self._questions, self._orders = core.part(Approvals), core.part(Authorizer)
        core.on("task.assign", self._on_assign)
        core.on(AttemptEvent, self._happened)
        core.on(AttemptStage, self._at_stage)
        core.on(AttemptEnded, self._ended_for_certain)
        # Its owner should hear from us at once.
        core.on(ev.MachineHere, lambda event: self.worker.beats([event.machine], core.now))
        core.on(ev.RosterChanged, self._facts_changed)
        core.on(RolledBack, self._entries_ended)
        core.on(ev.OwnerTold, lambda told: self.on_owner(core.machine, told.said))

    @property
    def worker(self) -> Worker:
        """What runs here. Whoever asks may change it, and it is flushed for that."""
        self.dirty = True
        return self._worker

    def _refuses(self, given: Assignment) -> str:
        """Why the owner of this machine has it not done here, or "": see enclosures.py."""
        known: Enclosures | None = self.core.settings.get("sandbox")
        said = self._worker.machine.facts.tools.get(SANDBOX)
        return known.refusal(given, said) if known is not None else ""

    def _me(self) -> Machine:
        return self.core.membership.candidate(self.core.machine)

    # --- starting ----------------------------------------------------------------------------

    def start(self) -> None:
        """What ran when we were stopped is over: it was ended before we began. Say so."""
        unfinished, agents, core = list[Unfinished](), set[str](), self.core
        for row in core.tables.rows(ATTEMPT, writer=core.machine, state="running"):
            # A stream that ended says "running" for ever; the end may stand in a later one.
            own = attempts_of(core, core.machine, row.task, row.epoch)
            if any(each.state != "running" for each in own):
                continue
            entry = self.core.log.entry(row.started)
            assign = self._cause(entry, "task.assign") if entry is not None else None
            owner = assign.header.author if assign is not None else ""
            unfinished.append(Unfinished(row.task, row.epoch, row.started, owner))
            if row.agent not in COSTS_NOTHING:
                agents.add(row.task)
        # What costs nothing is not looked for.
        dear = [(each.task, each.epoch) for each in unfinished if each.task in agents]
        told = told_usage(core, dear)
        known = (each._replace(usage=told.get((each.task, each.epoch), {})) for each in unfinished)
        self.worker.restore(known)
        self._seen_ready = True
        self._recall_assignments()

    def _cause(self, entry: Entry, kind: str) -> Entry | None:
        """The first entry of a kind that this one cites."""
        causes = (self.core.log.entry(cause) for cause in entry.causes)
        return next((c for c in causes if c is not None and c.header.kind == kind), None)

    def _recall_assignments(self) -> None:
        """Assignments that came just before we were stopped, and that we never answered."""
        most, order, me = limits.ASSIGNMENTS_RECALLED_MAX, ("-changed_ms",), self.core.machine
        for row in self.core.tables.rows_of_each(TASK, most, order, state="leased", machine=me):
            if attempts_of(self.core, me, row.task, row.epoch):
                continue
            entry = self.core.log.entry(row.assigned)
            if entry is not None:
                about = row.task[:12]
                self.core.guard.run("attempt", about, self._on_assign, entry.stream, entry)

    # --- assignments ----------------------------------------------------------------------------

    def _on_assign(self, stream: StreamName, entry: Entry) -> None:
        if not self._seen_ready:
            return
        assign = body_or_none(entry, kinds.TaskAssign)
        if assign is None or assign.machine != self.core.machine:
            return
        opened = body_or_none(self._cause(entry, "task.open"), kinds.TaskOpen)
        if opened is None:
            self.core.counters["assignment-without-opening"] += 1
            return
        found, now_ms = self._check(entry), self.core.now.boot_ms
        unproven = found if isinstance(found, causes.Unproven) else None
        # It may have given up waiting for a word of us, whatever becomes of this.
        self._gave_ms[stream.machine] = now_ms
        if unproven is not None:
            refused = self._refused.setdefault(stream.machine, deque())
            if not spend(refused, limits.UNPROVEN_PER_MINUTE_MAX, MINUTE_MS, now_ms):
                # No refusal is written: its lease on us just ends.
                self.core.counters["assignments-unanswered"] += 1
                return
        foreign = isinstance(found, evidence.Evidence) and found.foreign
        known = (stream.machine, entry.id, assign, opened, unproven, stream.scope, foreign)
        self.worker.accept(Assignment(*known), self.core.now)

    def _check(self, entry: Entry) -> evidence.Evidence | causes.Unproven:
        core = self.core
        if core.part(Doubt).waits:
            # It may have been done already, here or by a copy of us; another machine can do it.
            core.counters["assignments-in-doubt"] += 1
            return causes.Unproven("in-doubt", "this machine does not know all of its own past")
        if (pause := core.part(Pauses).now) is not None:
            core.counters["assignments-while-paused"] += 1
            return causes.Unproven(LEAVING, f"this machine {pause.sentence}")
        if self.drains:
            core.counters["assignments-while-leaving"] += 1
            return causes.Unproven(LEAVING, "this machine is about to leave the fleet")
        try:
            found = evidence.check_evidence(
                entry,
                me=core.machine,
                fleet=core.membership.fleet,
                lookup=core.log.entry,
                authority=core.roster.permit,
                recompute=self._recompute,
                now_ms=core.now.wall_ms,
                asking=Asking(core),
                known=self._known,
            )
        except causes.Unproven as unproven:
            core.counters[labelled("unproven", unproven.reason)] += 1
            return unproven
        owner, sure = entry.header.author, found.certain
        if core.part(Ownership).is_anothers(found.opened, owner, certain=sure):
            # Its own order may be genuine; the id that it gave the task is not its to give, or it
            # was its owner until somebody took the task over.
            return causes.Unproven("other-owner", "another machine owns the task of this id")
        return found

    def _recompute(self, run: kinds.RunOpen, phase: str, instance: str) -> dict[str, Any]:
        spec = self._specs.get(run.spec)
        if spec is None:
            if len(self._specs) >= _SPECS_KEPT:
                self._specs.clear()
            spec = self._specs[run.spec] = parse(run.spec.encode())
        return template.phase_order(spec, phase, instance, run.values)

    # --- the owner speaks ---------------------------------------------------------------------

    def on_owner(self, owner: str, said: Stop | BeatReply) -> None:
        """An answer to a beat, or the end of an attempt, from the owner of a task."""
        if isinstance(said, Stop):
            self.worker.stop(owner, said.task, said.epoch, said.reason[:500])
        else:
            self.worker.beat_answered(owner, said.mark, said.held, said.gone, self.core.now)

    def _facts_changed(self, _event: ev.RosterChanged) -> None:
        self.worker.machine = self._me()

    def _entries_ended(self, _event: RolledBack) -> None:
        self.dirty = self._rolled_back = True

    @property
    def needs_tick(self) -> bool:
        return bool(self._worker.owners())

    def tick(self) -> None:
        if self._worker.owners():
            self.worker.tick(self.core.now)
        now_ms, pause_ms = self.core.now.boot_ms, min(BEAT_MS, self._worker.lease_ms_min() // 4)
        # A lease given since the last beat may be shorter than any that was held then.
        self._beat_at = min(self._beat_at, now_ms + pause_ms)
        if now_ms >= self._beat_at:
            self._beat_at = now_ms + pause_ms
            self._beats += 1
            for owner in self._worker.owners():
                self._gave_ms[owner] = now_ms
            owners = {o for o, gave_ms in self._gave_ms.items() if now_ms - gave_ms < _ACTIVE_MS}
            if self._beats % _IDLE_BEATS == 0:
                owners |= self._idle(owners)
            if owners:
                self.worker.beats(sorted(owners), self.core.now)

    def _idle(self, owners: set[str]) -> set[str]:
        """Of those that gave nothing, who hears all the same: every hub, and of the others a few.

        Who assigned something hears of it otherwise; this is for whom all of that was lost.
        """
        linked = {link.peer for link in self.core.links.values() if link.peer} - owners
        hubs = linked & {hub.machine for hub in self.core.roster.hubs()}
        others = sorted(linked - hubs)
        at = bisect_right(others, self._told_last)
        turn = [*others[at:], *others[:at]][:_IDLE_TURN]
        self._told_last = turn[-1] if turn else ""
        return {*hubs, *turn}

    # --- attempts -------------------------------------------------------------------------------

    def _at_stage(self, event: AttemptStage) -> None:
        """Its owner hears how far an attempt is, and whoever follows the run sees it."""
        worker = self.worker
        worker.progressed(event.task, event.epoch, event.stage)
        if event.stage in TOLD and worker.holds(event.task) == event.epoch:
            worker.beats([worker.owner_of(event.task)], self.core.now)

    def _happened(self, event: AttemptEvent) -> None:
        """Write what an attempt did into our journal."""
        event = self._questions.named(event)
        try:
            body = attempt_body.event_body(event)
            self.core.append(event.kind, body, scope=JOURNAL, actor=event.actor)
        except Malformed:
            self.core.counters["events-of-no-form"] += 1
            return
        for follower in list(self.followers.get(event.task, ())):
            follower(False)
        self._questions.happened(event)

    def ended(self, body: Ended) -> None:
        self.worker.ended(self._as_its_owner_knows(body))
        self._orders.forget_agent(body.task)
        self._questions.over(body.task)
        for follower in self.followers.pop(body.task, ()):
            follower(True)

    def _as_its_owner_knows(self, body: Ended) -> Ended:
        """An older owner takes `no-start` for a refusal of this machine, and asks again and again;
        to it such an attempt failed, as attempts did that could not begin.
        """
        if not isinstance(body, kinds.AttemptRefuse) or body.reason != NO_START:
            return body
        facts = self.core.roster.facts.get(MachineId(self._worker.owner_of(body.task)))
        if facts is not None and (version_of(facts.muster) or ()) >= ORDER_SINCE:
            return body
        return kinds.AttemptFinish(body.task, body.epoch, "failed", reason=body.text)

    def _ended_for_certain(self, event: AttemptEnded) -> None:
        """As `ended`; where its end makes no entry, that is how it ended."""
        body, guard = event.body, self.core.guard
        failure = guard.run("attempt", body.task[:12], self.ended, body)
        if failure is not None:
            reason = failure[:REASON_CHARS_MAX]
            short = kinds.AttemptFinish(body.task, body.epoch, "failed", reason=reason)
            guard.run("attempt", body.task[:12], self.ended, short)

    def flush(self) -> None:
        """Carry out what the worker wants."""
        if self._rolled_back:
            self._rolled_back = False
            self._worker.withdraw(lambda entry: self.core.log.entry(entry) is None)
        drafts: list[Draft] = []
        for each in self._worker.flush():
            if isinstance(each, Draft):
                drafts.append(each)
                continue
            if isinstance(each, StartAttempt) and each.assign.agent == NOOP:
                self.core.guard.run("attempt", each.assign.task[:12], self._noop, each)
                continue
            self._write(drafts)
            self.core.guard.run("attempt", "", self._carry_out, each)
        self._write(drafts)

    def _write(self, drafts: list[Draft]) -> None:
        """Append drafts; an end that makes no entry is replaced by one that says so."""
        for draft, failure in write_each(self.core, drafts):
            if isinstance(draft.body, kinds.AttemptFinish):
                text = failure[:REASON_CHARS_MAX]
                body = kinds.AttemptFinish(draft.body.task, draft.body.epoch, "failed", reason=text)
                write_each(self.core, [Draft(body, draft.causes, draft.scope, draft.actor)])

    def _noop(self, start: StartAttempt) -> None:
        """Nothing to do, so it is done: the end is written in the same transaction."""
        status: Literal["done", "failed"] = "done"
        # It is told to fail where `do` is JSON with `"fail": true`; all else is no matter.
        with suppress(MusterError):
            raw = str(start.open.template.get("do", "{}")).encode()
            told = canon.decode(raw, NOOP, size_max=1024)
            status = "failed" if isinstance(told, dict) and told.get("fail") else "done"
        place = (start.assign.task, start.assign.epoch)
        self.worker.ended(kinds.AttemptFinish(*place, status, summary=NOOP))

    def _carry_out(self, each: StartAttempt | StopAttempt | SendBeat) -> None:
        if not isinstance(each, SendBeat):
            if not self.core.part(Purse).holds_up(each):
                self.core.do(each)
        elif each.owner == self.core.machine:
            self.core.part(OwnerService).beat(each.owner, each.mark, each.holds)
        else:
            holds = [[b.task, *b.epoch, b.progress] for b in each.holds]
            self.core.part(Router).say(each.owner, "beat", {"holds": holds, "mark": each.mark})
