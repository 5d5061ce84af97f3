"""The owner's ledger of live tasks, and the moves in it. owner.py says which event makes which.

Each move keeps four things in step: the task, its slot in the queue, its alarm, and the draft that
tells the log. Nothing else changes a `Live`.
"""

from collections.abc import Callable

from msgspec.structs import replace

from muster import limits
from muster.errors import NotFound
from muster.log.entry import EntryId
from muster.log.stream import FLEET
from muster.task import fault, kinds
from muster.task.alarms import Alarms
from muster.task.detector import DRAINS, STALLED
from muster.task.draining import believed
from muster.task.duration import MOVING, owner_ms
from muster.task.identity import branch_of
from muster.task.instruction import Cite, Draft, MoveBranch, Now, OwnerInstruction, RaiseFence, Stop
from muster.task.open_task import Ended, Live, settled, settlement
from muster.task.queue import Choice, Queue
from muster.task.reputation import Reputation
from muster.task.route import Machine, asked_of, pool_of
from muster.task.trust import NOTHING_KNOWN, Standing


class Ledger:
    """Live tasks, the queue, alarms, and what is to be handed out.

    `order` is this incarnation's place among its kind; `standing` tells what is known of an agent
    on a machine.
    """

    def __init__(
        self,
        order: int,
        *,
        settled_with_key: Callable[[str], str | None],
        is_mine: Callable[[str], bool],
        lease_ms: int = limits.LEASE_MS,
        standing: Callable[[str, str], Standing] = lambda _machine, _agent: NOTHING_KNOWN,
    ) -> None:
        self._order = order
        self.settled_with_key = settled_with_key
        self._is_mine = is_mine
        self.lease_ms = lease_ms
        self.tasks: dict[str, Live] = {}
        self.dedupe: dict[str, str] = {}
        self.queue = Queue(standing)
        self.alarms = Alarms()
        self.out: list[OwnerInstruction] = []
        self.reputation = Reputation(self.queue, self.alarms, self.out.append)
        self.marks: dict[str, str] = {}
        self.held: dict[str, set[str]] = {}
        # Machines with a link that let a lease end in silence: nothing new until they are heard.
        self.silent: dict[str, Machine] = {}
        # Cancelled attempts whose worker has not said yet that it stopped: task -> its slot.
        self._stopping: dict[str, tuple[str, str]] = {}

    # --- a task begins ---------------------------------------------------------------------

    def admit(self, task: Live, group: int | None, now: Now) -> None:
        body = task.body
        self.tasks[body.task] = task
        if task.dedupe:
            self.dedupe[task.dedupe] = body.task
        if body.deadline_ms:
            left = max(0, body.deadline_ms - now.wall_ms)
            self.alarms.set("deadline/" + body.task, now.boot_ms + left)
        if task.state == "queued":
            self.enqueue(task, group)

    def enqueue(self, task: Live, group: int | None = None) -> None:
        task.state, task.stage, task.machine = "queued", "", ""
        group = self.group(task) if group is None else group
        self.queue.add(task.body.task, group, task.rank)

    def group(self, task: Live) -> int:
        body, asked = task.body, asked_of(task.body.values)
        return self.queue.group(body.template, body.repo, task.avoid, task.tried, asked)

    def _delay(self, task: Live, delay_ms: int, now: Now) -> None:
        task.state, task.stage, task.machine = "queued", "delayed", ""
        self.alarms.set("retry/" + task.body.task, now.boot_ms + delay_ms)

    # --- a machine gets it -----------------------------------------------------------------

    def place(self, task: Live, choice: Choice, now: Now) -> None:
        """Give the task its next epoch and a slot; with a repository, ask the fence first."""
        body = task.body
        task.epoch = (max(self._order, task.epoch[0]), task.epoch[1] + 1)
        task.machine, task.agent = choice.verdict.machine, choice.verdict.agent
        task.candidates = choice.candidates
        self.queue.take(task.machine, pool_of(task.agent))
        if body.repo:
            task.stage = "fencing"
            self.alarms.set("fencing/" + body.task, now.boot_ms + self.lease_ms)
            self.out.append(RaiseFence(body.task, task.epoch, task.machine, body.repo))
        else:
            self.assign(task, now)

    def assign(self, task: Live, now: Now) -> None:
        body, machine = task.body, task.machine
        mark = self.marks.get(machine, "")
        assign = kinds.TaskAssign(
            body.task, task.epoch, machine, task.agent, self.lease_ms, mark, body.base,
            task.candidates,
        )  # fmt: skip
        causes = (task.opened,) if task.moved is None else (task.opened, task.moved)
        task.assigned = Draft(assign, causes, task.scope)
        self.out.append(task.assigned)
        task.state, task.candidates = "leased", []
        task.session = mark.rpartition(":")[0]
        self.run(task, now)

    def run(self, task: Live, now: Now) -> None:
        """The lease begins; the slot is taken already."""
        task.stage, task.progress = "running", ""
        task.began_ms = task.heard_ms = now.boot_ms
        task.moving_ms = 0
        self.alarms.set("attempt/" + task.body.task, self._must_end_ms(task))
        self.held.setdefault(task.machine, set()).add(task.body.task)
        self.alarms.set("lease/" + task.body.task, now.boot_ms + self.lease_ms)

    def _must_end_ms(self, task: Live) -> int:
        """When the attempt must have ended, on the boot clock."""
        return task.began_ms + owner_ms(task.body.template) + task.moving_ms

    def began_before(self, task: Live, wall_ms: int, now: Now) -> None:
        """It was given before we were restarted; nobody knows what of it was moving things."""
        elapsed_ms = max(0, now.wall_ms - wall_ms)
        task.began_ms = now.boot_ms - elapsed_ms
        task.moving_ms = min(elapsed_ms, limits.ATTEMPT_MOVING_MS_MAX)
        self.alarms.set("attempt/" + task.body.task, self._must_end_ms(task))

    def heard(self, task: Live, progress: str, now: Now) -> None:
        """The worker named it in a beat: the lease begins anew. Moving is not the agent's time."""
        if task.stage == "running":
            self.alarms.set("lease/" + task.body.task, now.boot_ms + self.lease_ms)
        if progress in MOVING:
            moved = task.moving_ms + now.boot_ms - task.heard_ms
            task.moving_ms = min(moved, limits.ATTEMPT_MOVING_MS_MAX)
        task.heard_ms, task.progress = now.boot_ms, progress

    def overstay(self, task: Live, now: Now) -> None:
        """The worker neither ended it in its time nor gave it up: somebody else gets it."""
        if (end_ms := self._must_end_ms(task)) > now.boot_ms:
            self.alarms.set("attempt/" + task.body.task, end_ms)
            return
        allowed_s = (end_ms - task.began_ms) // 1000
        reason = f"the attempt was not over after {allowed_s} s, though its worker was heard"
        task.avoid |= {task.machine}
        self.stop(task, reason, now)
        self.lose(task, reason)

    def unreserve(self, task: Live, reason: str, delay_ms: int, now: Now) -> None:
        """The fence did not take it: the slot is free, the epoch is spent."""
        self.release(task)
        task.reason = reason[: limits.REASON_CHARS_MAX]
        self._delay(task, delay_ms, now)

    def release(self, task: Live) -> None:
        """Give back slot and lease, whatever of them the task has."""
        name = task.body.task
        if task.stage in {"fencing", "running"}:
            self.queue.release(task.machine, pool_of(task.agent))
        if task.stage == "running":
            self.held[task.machine].discard(name)
            self.alarms.clear("lease/" + name)
            self.alarms.clear("attempt/" + name)
        elif task.stage in {"fencing", "promoting"}:
            self.alarms.clear(f"{task.stage}/{name}")

    def is_holder(self, task: Live, machine: str, epoch: kinds.Epoch) -> bool:
        return task.state == "leased" and task.machine == machine and task.epoch == epoch

    # --- an attempt ends -------------------------------------------------------------------

    def lose(self, task: Live, reason: str, entry: EntryId | None = None) -> None:
        """The attempt is gone through no fault of the task."""
        task.losses += 1
        reason = reason[: limits.REASON_CHARS_MAX]
        causes = () if entry is None else (entry,)
        if task.body.template.get("once") is True or task.losses >= limits.LOSSES_MAX:
            settle = kinds.TaskSettle(task.body.task, "lost", task.epoch, reason=reason)
            self.settle(task, settle, causes)
            return
        self.release(task)
        task.reason = reason
        task.tried |= {task.machine}
        if task.avoid and not self._fits_somewhere(task):
            task.avoid = frozenset()
        task.moved = self.say(task, kinds.TaskExpire(task.body.task, task.epoch, reason), causes)
        self.enqueue(task)

    def stuck(self, task: Live, entry: EntryId, body: kinds.AttemptFinish, now: Now) -> None:
        """The agent was ended as stuck: a loss, unless it was so on another machine as well."""
        if (what := body.values[STALLED]) == DRAINS and believed(task, self.queue.machines):
            task.tried |= {task.machine}
            self._again(task, entry, "busy", body.reason, 0, now)
            return
        before = {machine for detector, machine in task.stuck if detector == what}
        task.stuck |= {(what, task.machine)}
        if before - {task.machine}:
            self.give_up(task, f"stalled twice, on two machines: {body.reason}", entry)
            return
        self.lose(task, body.reason, entry)
        if task.state == "queued":
            self.queue.remove(task.body.task)
            self._delay(task, limits.RETRY_DELAY_MS_MIN << (task.losses - 1), now)

    def failed(self, task: Live, entry: EntryId, body: kinds.AttemptFinish, now: Now) -> None:
        """The attempt did not succeed: again, or that was the last one."""
        task.tries += 1
        end = settlement(task, body, "failed", body.reason[: limits.REASON_CHARS_MAX])
        # An agent that says nothing has failed at it as one that does (trust.py).
        end = replace(end, summary=end.summary or end.reason or "failed")
        self._once_more(task, entry, "failed", task.tries, end, now)

    def in_vain(
        self, task: Live, entry: EntryId, reason: str, now: Now,
        made: kinds.AttemptFinish | None = None,
    ) -> None:  # fmt: skip
        """Nothing came of it, and no agent failed: again, or it ends so, without a summary."""
        task.refusals += 1
        made = made or kinds.AttemptFinish(task.body.task, task.epoch, "failed")
        end = settlement(task, made, "failed", reason[: limits.REASON_CHARS_MAX])
        self._once_more(task, entry, "refused", task.refusals, replace(end, summary=""), now)

    def _once_more(  # noqa: PLR0917 - an attempt's end, and what is made of it
        self, task: Live, entry: EntryId, why: kinds.Why, times: int, end: kinds.TaskSettle,
        now: Now,
    ) -> None:  # fmt: skip
        if times > task.body.retries or task.refusals >= limits.REFUSALS_MAX:
            self.settle(task, end, (entry,))
            return
        task.tried |= {task.machine}
        delay_ms = min(limits.RETRY_DELAY_MS_MIN << (times - 1), limits.RETRY_DELAY_MS_MAX)
        self._again(task, entry, why, end.reason, delay_ms, now)

    def refused(
        self, task: Live, entry: EntryId, body: kinds.AttemptRefuse, now: Now, never: str
    ) -> None:
        """The machine would not: another one, or the same one later when it was only busy."""
        part = fault.part_of(body.reason, task.agent, task.body.repo)
        if part:
            self.reputation.blame(task.machine, part, body.text, now)
        said = "it could not begin" if part or body.reason == fault.NO_START else body.reason
        reason = f"{said}: {body.text}"[: limits.REASON_CHARS_MAX]
        if body.reason == fault.NO_START:
            self.in_vain(task, entry, reason, now)
            return
        if never:
            self.give_up(task, f"no machine may run it any more: {never}", entry)
            return
        if (pause_ms := fault.PASSES_MS.get(body.reason)) is not None:
            elsewhere = bool(part) and self._fits_somewhere(task, well=True)
            delay_ms = 0 if elsewhere else pause_ms << min(task.busy, 7)
            task.busy += not elsewhere
            self._again(task, entry, "busy", reason, delay_ms, now)
            return
        # A machine in doubt of its own past, or about to leave, refuses whatever it is: that says
        # nothing of the task.
        task.refusals += body.reason not in ("in-doubt", fault.LEAVING)
        if task.refusals >= limits.REFUSALS_MAX:
            self.give_up(task, f"refused too often; last {reason}", entry)
            return
        task.avoid |= {task.machine}
        delay_ms = 0
        if not self._fits_somewhere(task):
            if part and task.refusals >= limits.FAULTS_OF_TASK_MAX:
                self.give_up(task, f"no machine could begin it: {body.text}", entry)
                return
            # Everybody refused; what they missed may be there later.
            task.avoid = frozenset()
            delay_ms = min(limits.RETRY_DELAY_MS_MIN << task.refusals, limits.RETRY_DELAY_MS_MAX)
        self._again(task, entry, "refused", reason, delay_ms, now)

    def give_up(self, task: Live, reason: str, *causes: EntryId) -> None:
        reason = reason[: limits.REASON_CHARS_MAX]
        settle = kinds.TaskSettle(task.body.task, "failed", task.epoch, reason=reason)
        self.settle(task, settle, causes)

    def gone(self, machine: str) -> Machine | None:
        """Nothing new goes there; what it was. Who waited for it alone asks the others again."""
        known = self.queue.machine_down(machine)
        for name, task in self.tasks.items() if known is not None else ():
            if task.avoid and name in self.queue and not self._fits_somewhere(task):
                task.avoid = frozenset()
                self.queue.remove(name)
                self.enqueue(task)
        return known

    def _fits_somewhere(self, task: Live, *, well: bool = False) -> bool:
        found = self.queue.candidates(self.group(task))
        return any(each.fits and not (well and each.last) for each in found)

    def _again(  # noqa: PLR0917 - an attempt's end, and what is made of it
        self, task: Live, entry: EntryId, why: kinds.Why, reason: str, delay_ms: int, now: Now
    ) -> None:
        self.release(task)
        task.reason = reason
        body = kinds.TaskRetry(task.body.task, task.epoch, why, reason, delay_ms)
        task.moved = self.say(task, body, (entry,))
        if delay_ms:
            self._delay(task, delay_ms, now)
        else:
            self.enqueue(task)

    def promote(self, task: Live, now: Now) -> None:
        """Ask for the branch to move, again until there is an answer: asking twice is harmless."""
        assert task.result is not None
        body = task.body
        task.stage = "promoting"
        self.alarms.set("promoting/" + body.task, now.boot_ms + self.lease_ms)
        branch = branch_of(body.run or body.task, body.phase, body.instance)
        move = (body.repo, branch, task.result.commit, tuple(body.base.split()))
        self.out.append(MoveBranch(body.task, task.epoch, *move, task.machine, task.agent))

    def done(self, task: Live, entry: EntryId, body: kinds.AttemptFinish) -> None:
        self.reputation.absolve(task.machine, fault.parts(task.agent, task.body.repo))
        self.settle(task, settlement(task, body, "done", ""), (entry,))

    def late(self, entry: EntryId, machine: str, body: Ended) -> None:
        """What came too late changes nothing; a result is recorded, and its slot is free."""
        slot = self._stopping.get(body.task)
        if slot is not None and slot[0] == machine:
            self.free_slot(body.task)
        if isinstance(body, kinds.AttemptRefuse) or body.status == "killed":
            return
        if body.task in self.tasks or self._is_mine(body.task):
            late = kinds.TaskLate(body.task, body.epoch, machine, body.status, body.commit)
            task = self.tasks.get(body.task)
            self.out.append(Draft(late, (entry,), task.scope if task else FLEET))

    # --- a task ends -----------------------------------------------------------------------

    def stop(self, task: Live, reason: str, now: Now) -> None:
        """Tell a worker to end it. Its slot stays taken until it has, or can run no longer."""
        if task.stage != "running":
            return
        name, pool = task.body.task, pool_of(task.agent)
        self._stopping[name] = (task.machine, pool)
        self.queue.take(task.machine, pool)
        self.alarms.set("ghost/" + name, now.boot_ms + self.lease_ms)
        self.out.append(Stop(task.machine, name, task.epoch, reason))

    def free_slot(self, name: str) -> None:
        """The stopped attempt is over for certain: its slot is free."""
        slot = self._stopping.pop(name, None)
        if slot is not None:
            self.alarms.clear("ghost/" + name)
            self.queue.release(*slot)

    def settle(self, task: Live, settle: kinds.TaskSettle, causes: tuple[EntryId, ...]) -> None:
        draft = self.say(task, settle, causes)
        if len(draft.raw) > limits.BODY_BYTES_MAX:
            # An entry that cannot be written must not stop the owner: the attempt has it all.
            self.out.pop()
            reason = settle.reason or "the result was too large for its entry: see the attempt"
            settle = kinds.TaskSettle(
                settle.task, settle.outcome, settle.epoch, reason=reason, commit=settle.commit
            )
            draft = self.say(task, settle, causes)
        self.forget(task)
        self.tell(task, draft)

    def forget(self, task: Live) -> None:
        """The task is settled: it leaves memory, and no later event can touch it."""
        name = task.body.task
        self.release(task)
        self.queue.remove(name)
        if task.stage == "delayed":
            self.alarms.clear("retry/" + name)
        if task.body.deadline_ms:
            self.alarms.clear("deadline/" + name)
        if self.dedupe.get(task.dedupe) == name:
            del self.dedupe[task.dedupe]
        del self.tasks[name]

    def say(self, task: Live, body: kinds.Body, causes: tuple[Cite, ...]) -> Draft:
        draft = Draft(body, (task.assigned or task.opened, *causes), task.scope)
        self.out.append(draft)
        return draft

    def tell(self, task: Live, draft: Draft) -> None:
        """Let the run go on; `draft` is the entry that ended the task."""
        told = settled(task, draft)
        assert told is not None
        self.out.append(told)

    def open_task(self, name: str) -> Live:
        task = self.tasks.get(name)
        if task is None:
            raise NotFound(
                f"no open task {name[:40]!r} here: it is settled, or another owner has it"
            )
        return task
