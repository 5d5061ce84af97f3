"""The owner of tasks: events in, instructions out. The one place that decides what a task becomes.

Rule 1: methods record what happened; `flush` assigns what can be assigned and hands out every
        instruction since the last flush, in order. Whoever drives the owner carries them out in
        one transaction, writes the ids into the drafts, and only then lets anything leave.
Rule 2: nothing here reads a clock, a disk or chance: the same calls give the same instructions.
Rule 3: at most one machine holds a task: an epoch is given once, and epochs only rise.
Rule 4: where a task has a repository, its epoch is raised at the fence *before* it is assigned.
        No remote, no assignment.
Rule 5: what a worker says counts only under the epoch it holds; all else is recorded as late.

A task in memory is a `Live`; a settled one is forgotten here and lives on in the table. After a
restart `restore` reads the table's live rows. Leases then begin anew, which can only make them
longer than the worker believes; a finish that arrived before the crash is reported again.
"""

from collections.abc import Iterable, Sequence

import msgspec

from muster import limits
from muster.errors import Conflict, Refused
from muster.log.entry import EntryId
from muster.task import kinds, review
from muster.task.detector import DRAINS, LOSING, STALLED
from muster.task.instruction import (
    AskPerson,
    BeatReply,
    Cite,
    Draft,
    Fenced,
    Now,
    OwnerInstruction,
    Promoted,
)
from muster.task.ledger import Ledger
from muster.task.open_task import Beat, Ended, Live, Restored, Submission, Submitted, Why
from muster.task.route import Machine, Verdict, asked_of, pool_of

__all__ = ["Beat", "Ended", "Now", "Owner", "Restored", "Submission", "Submitted", "Why"]


class Owner:
    """See the rules at the top of this file."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self._number = 0
        # The task that is being given to a machine right now.
        self.placing = ""

    # --- work comes in ---------------------------------------------------------------------

    def submit(self, orders: Sequence[Submission], now: Now) -> list[Submitted]:
        """Open the tasks; equal content under an equal cause is one task while it is unsettled.

        An explicit key is one task forever. Nothing is opened when one order is refused.

        Raises:
            Malformed: the needs of a template cannot be read.
            Refused: too many tasks are open.

        """
        if len(self._ledger.tasks) + len(orders) > limits.OPEN_TASKS_MAX:
            raise Refused(
                f"{len(self._ledger.tasks)} tasks are open, and {limits.OPEN_TASKS_MAX} is"
                " the most: wait until some are settled, or cancel some"
            )
        # Every order is checked before the first is opened: all of them, or none.
        groups = [self._check(order.body) for order in orders]
        return [self._submit(o, group, now) for o, group in zip(orders, groups, strict=True)]

    def _check(self, body: kinds.TaskOpen) -> int | None:
        size = len(kinds.body_bytes(body))
        # The digest is added later.
        if size > limits.BODY_BYTES_MAX - 128:
            raise Refused(f"the task has {size} bytes; put what is large into the repository")
        if body.template.get("by") == "human":
            return None
        return self._ledger.queue.group(body.template, body.repo, asked=asked_of(body.values))

    def _submit(self, order: Submission, group: int | None, now: Now) -> Submitted:
        body = order.body
        dedupe = "" if order.again and not body.key else order.dedupe
        if dedupe:
            known = self._ledger.dedupe.get(dedupe)
            if known is None and body.key:
                known = self._ledger.settled_with_key(dedupe)
            # The same task again is no duplicate: it was open in a stream that ended.
            if known is not None and (known != body.task or known in self._ledger.tasks):
                return Submitted(known, False)
            if not body.key:
                body = msgspec.structs.replace(body, digest=dedupe)
        draft = Draft(body, order.causes, order.scope, order.actor)
        self._ledger.out.append(draft)
        self._number += 1
        task = Live(body, draft, (-body.priority, now.wall_ms, self._number), dedupe, order.scope)
        if group is None:
            task.state = "waiting"
            if not order.waived:
                self._ledger.out.append(AskPerson(body.task, body.run, body.phase))
        self._ledger.admit(task, group, now)
        if order.waived:
            said = order.waived[: limits.REASON_CHARS_MAX]
            done = kinds.TaskSettle(body.task, "done", summary=said, reason=said)
            self._ledger.settle(task, done, ())
        return Submitted(body.task, True)

    def restore(self, rows: Iterable[Restored], now: Now) -> None:
        """Take up the live tasks of the table, once, before anything else."""
        for found in sorted(rows, key=lambda r: (r.row.opened_ms, r.row.task)):
            row, body = found.row, found.body
            self._number += 1
            task = Live(
                body, row.opened, (-row.priority, row.opened_ms, self._number),
                row.dedupe, found.scope, row.state, "", row.epoch, row.machine, row.agent,
                row.tries, row.losses, row.refusals, row.assigned or None,
            )  # fmt: skip
            self._ledger.admit(task, None, now)
            if row.state == "leased":
                self._ledger.queue.take(task.machine, pool_of(task.agent))
                self._ledger.run(task, now)
                self._ledger.began_before(task, row.changed_ms, now)
                if found.ended is not None:
                    self.report(*found.ended, now)

    # --- machines come and go --------------------------------------------------------------

    def machine_up(self, machine: Machine) -> None:
        """A machine takes work, or said something new about itself."""
        if machine.id in self._ledger.silent:
            self._ledger.silent[machine.id] = machine
        else:
            self._ledger.queue.machine_up(self._ledger.reputation.as_known(machine))

    def machine_down(self, machine: str) -> None:
        """No link: nothing new goes there. What it holds is its own until the lease ends."""
        self._ledger.silent.pop(machine, None)
        self._ledger.gone(machine)

    def machine_removed(self, machine: str) -> None:
        """The machine is out of the fleet: whatever it holds goes elsewhere at once."""
        self.machine_down(machine)
        for name in sorted(self._ledger.held.get(machine, ())):
            self._ledger.lose(self._ledger.tasks[name], "machine removed from the fleet")

    def beat(self, machine: str, mark: str, holds: Sequence[Beat], now: Now) -> None:
        """A worker lives: renew the leases it names, tell it which of them it does not hold."""
        session = mark.rpartition(":")[0]
        if self._ledger.marks.get(machine, mark).rpartition(":")[0] != session:
            self._ledger.reputation.absolve(machine)
        self._ledger.marks[machine] = mark
        if (known := self._ledger.silent.pop(machine, None)) is not None:
            self._ledger.queue.machine_up(self._ledger.reputation.as_known(known))
        held, gone = [], []
        for lease in holds:
            task = self._ledger.tasks.get(lease.task)
            if task is not None and self._ledger.is_holder(task, machine, lease.epoch):
                task.session = session
                self._ledger.heard(task, lease.progress, now)
                held.append((lease.task, lease.epoch))
            else:
                gone.append((lease.task, lease.epoch))
        named = {lease.task for lease in holds}
        for name in sorted(self._ledger.held.get(machine, set()) - named):
            task = self._ledger.tasks[name]
            # Its process died with the session that the lease was given to; no need to wait.
            if task.session and task.session != session and task.stage == "running":
                self._ledger.lose(task, "the worker started anew")
        if holds:
            self._ledger.out.append(BeatReply(machine, mark, tuple(held), tuple(gone)))

    # --- what workers and people say ---------------------------------------------------------

    def report(
        self,
        entry: EntryId,
        machine: str,
        body: kinds.AttemptStart | Ended,
        now: Now,
        *,
        never: str = "",
    ) -> None:
        """A worker's entry, once for each; `machine` is its author.

        `never`: why no other machine could accept either what this one refuses.
        """
        task = self._ledger.tasks.get(body.task)
        holds = task is not None and self._ledger.is_holder(task, machine, body.epoch)
        if isinstance(body, kinds.AttemptStart):
            return
        if task is None or not holds or task.stage != "running":
            self._ledger.late(entry, machine, body)
        elif isinstance(body, kinds.AttemptRefuse):
            self._ledger.refused(task, entry, body, now, never)
        elif body.status == "killed" and body.values.get(STALLED) in {*LOSING, DRAINS}:
            self._ledger.stuck(task, entry, body, now)
        elif body.status == "killed":
            self._ledger.lose(task, body.reason or "the worker ended the attempt", entry)
        elif body.status == "failed":
            self._ledger.failed(task, entry, body, now)
        elif none := review.refusal(task.body.template, body.values, body.commit):
            failed = msgspec.structs.replace(body, status="failed", reason=none)
            self._ledger.failed(task, entry, failed, now)
        elif body.commit and task.body.repo:
            task.ended, task.result = entry, body
            self._ledger.release(task)
            self._ledger.promote(task, now)
        else:
            self._ledger.done(task, entry, body)

    def decide(self, entry: EntryId, body: kinds.TaskDecide) -> None:
        """A person's decision; whether that person may decide was checked before.

        Raises:
            NotFound: no such task is open here.
            Conflict: the task does not wait for a person.

        """
        task = self._ledger.open_task(body.task)
        if task.state != "waiting":
            raise Conflict(f"task {body.task[:8]} does not wait for a person; it is {task.state}")
        outcome: kinds.Outcome = "done" if body.verdict == "approve" else "failed"
        reason = "" if outcome == "done" else "rejected"
        settle = kinds.TaskSettle(
            body.task, outcome, summary=body.text, reason=reason, values=body.values
        )
        self._ledger.settle(task, settle, (entry,))

    def cancel(self, name: str, reason: str, causes: tuple[Cite, ...], now: Now) -> None:
        """The task ends now; a worker that runs it is told to stop.

        Raises:
            NotFound: no such task is open here.

        """
        task = self._ledger.open_task(name)
        reason = reason[: limits.REASON_CHARS_MAX]
        draft = self._ledger.say(task, kinds.TaskCancel(name, reason), causes)
        self._ledger.stop(task, reason, now)
        self._ledger.forget(task)
        self._ledger.tell(task, draft)

    def retry(self, name: str) -> None:
        """A delayed task is tried now.

        Raises:
            NotFound: no such task is open here (a settled one is submitted again instead).
            Conflict: somebody works on it.

        """
        task = self._ledger.open_task(name)
        if task.state != "queued" or task.stage == "fencing":
            raise Conflict(f"task {name[:8]} is {task.stage or task.state}: it cannot be retried")
        self._ledger.alarms.clear("retry/" + name)
        # Whoever says "now" has mended something, or wants to see what happens.
        for machine in self._ledger.reputation.known():
            self._ledger.reputation.absolve(machine)
        task.avoid = frozenset()
        self._ledger.queue.remove(name)
        self._ledger.enqueue(task)

    # --- the fence answers -------------------------------------------------------------------

    def fenced(self, answer: Fenced, now: Now) -> None:
        """The fence took the epoch, and the machine gets its lease; or it did not."""
        task = self._ledger.tasks.get(answer.task)
        if task is None or task.stage != "fencing" or task.epoch != answer.epoch:
            return
        if answer.reason:
            task.epoch = max(task.epoch, answer.newest)
            self._ledger.unreserve(task, answer.reason, limits.RETRY_DELAY_MS_MIN, now)
        elif task.machine in self._ledger.queue.machines:
            self._ledger.assign(task, now)
        else:
            self._ledger.unreserve(task, "the machine went away", 0, now)

    def promoted(self, answer: Promoted, now: Now) -> None:
        """The branch is at the attempt's commit, and the task is done; or it did not move.

        Where it may not move `again` either, nothing came of the attempt; its agent did not fail.
        """
        task = self._ledger.tasks.get(answer.task)
        if task is None or task.stage != "promoting" or task.epoch != answer.epoch:
            return
        assert task.ended is not None
        assert task.result is not None
        if not answer.reason:
            self._ledger.done(task, task.ended, task.result)
        elif answer.again:
            after_ms = now.boot_ms + limits.RETRY_DELAY_MS_MIN
            self._ledger.alarms.set("promoting/" + answer.task, after_ms)
        else:
            self._ledger.in_vain(task, task.ended, answer.reason, now, task.result)

    # --- time passes -------------------------------------------------------------------------

    def due(self, now: Now) -> list[str]:
        """What is to be rung now, each once; its last part is the task that it is about."""
        return self._ledger.alarms.due(now.boot_ms)

    def ring(self, key: str, now: Now) -> None:
        """One thing that was due."""
        what, _, name = key.partition("/")
        task = self._ledger.tasks.get(name)
        if what == "ghost":
            self._ledger.free_slot(name)
        elif what == "fault":
            self._ledger.reputation.lift(name)
        elif task is None:
            return
        elif what == "lease":
            # Connected is not working: it would let the next lease end as well.
            if (known := self._ledger.gone(task.machine)) is not None:
                self._ledger.silent[task.machine] = known
            self._ledger.lose(task, "the lease ended without a word")
        elif what == "attempt":
            self._ledger.overstay(task, now)
        elif what == "retry":
            self._ledger.enqueue(task)
        elif what == "fencing":
            self.fenced(Fenced(name, task.epoch, "the fence did not answer"), now)
        elif what == "promoting":
            self._ledger.promote(task, now)
        elif what == "deadline":
            self._ledger.stop(task, "the deadline passed", now)
            self._ledger.give_up(task, "the deadline passed")

    def flush(self, now: Now) -> list[OwnerInstruction]:
        """Assign what can be assigned; then every instruction since the last flush, in order."""
        self._ledger.queue.tidy()
        while (choice := self._ledger.queue.next()) is not None:
            self.placing = choice.task
            self._ledger.place(self._ledger.tasks[choice.task], choice, now)
        self.placing = ""
        return self.drain()

    def drain(self) -> list[OwnerInstruction]:
        """Every instruction so far; nothing new is assigned."""
        out = self._ledger.out.copy()
        self._ledger.out.clear()
        return out

    def of_run(self, run: str) -> list[str]:
        """The open tasks of a run."""
        return [name for name, task in self._ledger.tasks.items() if task.body.run == run]

    def run_of(self, name: str) -> str:
        """The run of an open task, "" where it has none or is not open here."""
        task = self._ledger.tasks.get(name)
        return "" if task is None else task.body.run

    # --- questions ---------------------------------------------------------------------------

    def why(self, name: str) -> Why:
        """Where a live task stands, and each machine's verdict.

        Raises:
            NotFound: no such task is open here.

        """
        task = self._ledger.open_task(name)
        verdicts: list[Verdict] = []
        if task.state != "waiting":
            verdicts = self._ledger.queue.candidates(self._ledger.group(task))
        idle = tuple(each.machine for each in verdicts if self._ledger.queue.has_room(each))
        place = (task.state, task.stage, task.machine, task.epoch)
        return Why(*place, task.reason, tuple(verdicts), idle)

    def is_open(self, name: str) -> bool:
        """Whether a task of this name is open here."""
        return name in self._ledger.tasks

    def has_given(self, machine: str, name: str, epoch: kinds.Epoch) -> bool:
        """Whether this machine has the task now, under this epoch."""
        task = self._ledger.tasks.get(name)
        return task is not None and self._ledger.is_holder(task, machine, epoch)

    def holder(self, name: str) -> tuple[str, kinds.Epoch] | None:
        """The machine that may work on a task and push for it, under which epoch."""
        task = self._ledger.tasks.get(name)
        if task is None or task.stage != "running":
            return None
        return task.machine, task.epoch

    def heard(self, name: str) -> tuple[str, int] | None:
        """What its worker is at, and when it was heard last on the boot clock; None for none."""
        task = self._ledger.tasks.get(name)
        if task is None or task.stage != "running":
            return None
        return task.progress, task.heard_ms

    def faults(self) -> dict[str, list[str]]:
        """What machines failed at lately, as far as it counts: parts by machine."""
        return self._ledger.reputation.known()

    def statistics(self) -> dict[str, int]:
        """Counts for status and metrics."""
        held = sum(len(tasks) for tasks in self._ledger.held.values())
        return {"open": len(self._ledger.tasks), "queued": len(self._ledger.queue), "held": held}
