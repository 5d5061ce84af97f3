"""The worker: assignments in, instructions out. It protects its machine, and the owner's promise.

Rule 1: nothing runs without evidence, a fitting machine and a free slot; a refusal has a reason.
Rule 2: an attempt runs only while this machine is certain to hold its lease (lease.py says how).
        When it no longer is, the worker ends its own process tree, before the owner gives the
        task to another machine.
Rule 3: an assignment counts once, whatever is repeated; a lower epoch than one seen never counts.
Rule 4: the worker writes what it did; it never says what the task's state is.

    known ──▶ asking ──▶ running ──▶ ended
      └─▶ refused  └─▶ refused  └─▶ ending ──▶ ended

`asking` is only for an assignment whose mark is old or from another session: it waits for the
owner's answer to a beat. `ending` waits until the process tree is really gone.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from muster import limits
from muster.errors import Malformed
from muster.fleet.facts import LOGGED_OUT
from muster.log.entry import EntryId
from muster.log.stream import FLEET, Scope
from muster.task import fault, kinds
from muster.task.causes import Unproven
from muster.task.instruction import Draft, Now, StartAttempt, StopAttempt
from muster.task.lease import START_LEFT_MS, lease_end_ms, make_mark
from muster.task.open_task import Beat, Ended
from muster.task.route import Machine, asked_of, judge, pool_of, slots_of, wants_of


@dataclass(slots=True, frozen=True)
class SendBeat:
    """Tell an owner that this machine lives and what it holds of that owner's."""

    owner: str
    mark: str
    holds: tuple[Beat, ...]


WorkerInstruction = Draft | StartAttempt | StopAttempt | SendBeat


class Assignment(NamedTuple):
    """An assignment as it came: who owns the task, its entry, and what it is about.

    `unproven` is what `check_evidence` raised, None when the evidence holds; `foreign` is what it
    found.
    """

    owner: str
    entry: EntryId
    assign: kinds.TaskAssign
    opened: kinds.TaskOpen
    unproven: Unproven | None = None
    scope: Scope = FLEET
    foreign: bool = False


class Unfinished(NamedTuple):
    """An attempt that this machine's stream began and never ended."""

    task: str
    epoch: kinds.Epoch
    started: EntryId
    owner: str = ""
    usage: Mapping[str, int] = {}


@dataclass(slots=True)
class _Attempt:
    given: Assignment
    state: Literal["asking", "running", "ending"]
    lease_end_ms: int
    started: Draft | None = None
    reason: str = ""
    progress: str = ""


class Worker:
    """See the rules at the top of this file. `session` is a fresh random word per process."""

    def __init__(self, machine: Machine, session: str) -> None:
        # Whoever drives it says what became of the machine's facts; what runs goes on.
        self.machine = machine
        self._session = session
        # Why this machine's owner has an assignment not done here, or "".
        self.refuses: Callable[[Assignment], str] = lambda _given: ""
        self._attempts: dict[str, _Attempt] = {}
        self._used: dict[str, int] = {}
        # The newest epoch seen of each task; what was settled long ago is dropped by age.
        self._seen: dict[tuple[str, str], kinds.Epoch] = {}
        self._out: list[WorkerInstruction] = []

    def owners(self) -> set[str]:
        """Those that gave what is held now."""
        return {attempt.given.owner for attempt in self._attempts.values()}

    def flush(self) -> list[WorkerInstruction]:
        """Every instruction since the last flush, in order."""
        out, self._out = self._out, []
        return out

    def restore(self, unfinished: Iterable[Unfinished]) -> None:
        """After a restart: what this machine began is over, and it says so itself."""
        for each in unfinished:
            self._note_seen(each.owner, each.task, each.epoch)
            why = "the worker started anew"
            body = kinds.AttemptFinish(
                each.task, each.epoch, "killed", reason=why, usage=dict(each.usage)
            )
            self._out.append(Draft(body, (each.started,)))

    # --- assignments -----------------------------------------------------------------------

    def accept(self, given: Assignment, now: Now) -> None:
        """Start what is proven, fits and has a slot and a lease; refuse or ask otherwise."""
        owner, task, epoch = given.owner, given.assign.task, given.assign.epoch
        if given.assign.machine != self.machine.id or epoch <= self._seen.get(
            (owner, task), (-1, -1)
        ):
            return
        self._note_seen(owner, task, epoch)
        older = self._attempts.get(task)
        if older is not None and older.given.owner == owner:
            self._end(older, "a newer attempt was assigned here")
        refusal = self._refusal(given)
        if refusal is not None:
            self._refuse(given, *refusal)
            return
        end_ms = lease_end_ms(given.assign.mark, self._session, given.assign.lease_ms)
        attempt = self._attempts[task] = _Attempt(given, "asking", end_ms)
        pool = pool_of(given.assign.agent)
        self._used[pool] = self._used.get(pool, 0) + 1
        if not self._begin(attempt, now):
            # Nobody knows how long this was under way: the answer to a beat will tell.
            attempt.lease_end_ms = now.boot_ms + given.assign.lease_ms
            self.beats([given.owner], now)

    def withdraw(self, is_gone: Callable[[EntryId], bool]) -> None:
        """End what came from assignments that count no more; what has not begun never does.

        Nothing is written about such an assignment: whoever gave it is a member no more.
        """
        gone = [each for each in self._attempts.values() if is_gone(each.given.entry)]
        dropped = set()
        for attempt in gone:
            if attempt.state == "asking" or attempt.started in self._out:
                dropped.add(_place(attempt.given.assign))
                self._drop(attempt)
            else:
                self._end(attempt, "its assignment counts no more: who gave it was revoked")
        self._out = [each for each in self._out if not self._begins(each, dropped, is_gone)]

    @staticmethod
    def _begins(
        each: WorkerInstruction,
        dropped: set[tuple[str, kinds.Epoch]],
        is_gone: Callable[[EntryId], bool],
    ) -> bool:
        """Whether it begins one of these, or answers an assignment that counts no more."""
        if isinstance(each, Draft) and isinstance(each.body, kinds.AttemptRefuse):
            return any(not isinstance(cause, Draft) and is_gone(cause) for cause in each.causes)
        if isinstance(each, Draft) and isinstance(each.body, kinds.AttemptStart):
            return (each.body.task, each.body.epoch) in dropped
        return isinstance(each, StartAttempt) and _place(each.assign) in dropped

    def _refusal(self, given: Assignment) -> tuple[str, str] | None:
        if given.unproven is not None:
            return given.unproven.reason, str(given.unproven)
        other = self._attempts.get(given.assign.task)
        if other is not None and other.given.owner != given.owner and other.state != "ending":
            return "other-owner", "another owner's task of that name runs here"
        if other is not None:
            return "busy", "the attempt before this one has not ended yet"
        try:
            asked = asked_of(given.opened.values)
            wants = wants_of(given.opened.template, given.opened.repo, asked=asked)
            verdict = judge(wants, self.machine)
        except Malformed as error:
            return "bad-needs", str(error)
        agent = given.assign.agent
        if verdict.login or (verdict.fits and self.machine.facts.logins.get(agent) == LOGGED_OUT):
            return fault.code_of(fault.LOGIN), f"{agent} is not logged in there"
        if not verdict.fits:
            return "misfit", "; ".join(verdict.reasons)
        if agent not in wants.agents:
            # What the operator signed names the agents; the owner only chooses among them.
            return "other-agent", f"the task does not name agent {agent}"
        if agent not in self.machine.facts.agents:
            return "misfit", f"no agent {agent}"
        if why := self.refuses(given):
            return "misfit", why
        pool = pool_of(agent)
        if self._used.get(pool, 0) >= slots_of(self.machine, pool):
            return "busy", "every slot is in use"
        return None

    def _begin(self, attempt: _Attempt, now: Now) -> bool:
        """Start an asking attempt if its lease lasts long enough to be worth it."""
        left_ms = attempt.lease_end_ms - now.boot_ms
        if left_ms < min(START_LEFT_MS, attempt.given.assign.lease_ms // 4) or left_ms <= 0:
            return False
        given, assign = attempt.given, attempt.given.assign
        needs = given.opened.template.get("needs") or {}
        named = needs.get("tools") or {} if isinstance(needs, Mapping) else {}
        have = self.machine.facts.tools
        versions = {tool: have[tool] for tool in sorted(named) if tool in have}
        body = kinds.AttemptStart(assign.task, assign.epoch, assign.agent, versions)
        attempt.started = Draft(body, (given.entry,), given.scope)
        attempt.state = "running"
        values = given.opened.values
        start = StartAttempt(given.opened, assign, values, given.owner, given.foreign)
        self._out += [attempt.started, start]
        return True

    def _refuse(self, given: Assignment, reason: str, text: str) -> None:
        body = kinds.AttemptRefuse(
            given.assign.task, given.assign.epoch, reason, text[: limits.REASON_CHARS_MAX]
        )
        self._out.append(Draft(body, (given.entry,), given.scope))

    # --- leases ----------------------------------------------------------------------------

    def beats(self, owners: Iterable[str], now: Now) -> None:
        """Tell each owner that this machine lives; every BEAT_MS, and when a link comes up."""
        for owner in owners:
            holds = tuple(
                Beat(task, a.given.assign.epoch, a.progress)
                for task, a in self._attempts.items()
                if a.given.owner == owner and a.state != "ending"
            )
            self._out.append(SendBeat(owner, make_mark(self._session, now.boot_ms), holds))

    def beat_answered(
        self,
        owner: str,
        mark: str,
        held: Sequence[tuple[str, kinds.Epoch]],
        gone: Sequence[tuple[str, kinds.Epoch]],
        now: Now,
    ) -> None:
        """An owner's answer: what it still grants, counted from the moment of the question."""
        for task, epoch in held:
            attempt = self._of(owner, task, epoch)
            if attempt is None or attempt.state == "ending":
                continue
            end_ms = lease_end_ms(mark, self._session, attempt.given.assign.lease_ms)
            if attempt.state == "asking":
                attempt.lease_end_ms = end_ms or attempt.lease_end_ms
                if end_ms and self._begin(attempt, now):
                    continue
            attempt.lease_end_ms = max(attempt.lease_end_ms, end_ms)
        for task, epoch in gone:
            attempt = self._of(owner, task, epoch)
            if attempt is not None:
                self._end(attempt, "the owner gave the task to somebody else")

    def stop(self, owner: str, task: str, epoch: kinds.Epoch, reason: str) -> None:
        """The owner wants it to end; only its own attempts, only this epoch."""
        attempt = self._of(owner, task, epoch)
        if attempt is not None:
            self._end(attempt, reason)

    def tick(self, now: Now) -> None:
        """End what this machine can no longer be certain to hold."""
        for attempt in list(self._attempts.values()):
            if attempt.state != "ending" and attempt.lease_end_ms <= now.boot_ms:
                self._end(attempt, "the lease could not be renewed in time")

    # --- attempts --------------------------------------------------------------------------

    def progressed(self, task: str, epoch: kinds.Epoch, progress: str) -> None:
        """What the next beats say about the attempt."""
        attempt = self._attempts.get(task)
        if attempt is not None and attempt.given.assign.epoch == epoch:
            attempt.progress = progress[: limits.REASON_CHARS_MAX]

    def ended(self, body: Ended) -> Draft | None:
        """The process tree is gone: write what came of it. None when it is not ours (any more).

        An attempt that the worker ended itself is `killed`, whatever the process said at last: it
        may have been cut off in the middle. One that refuses failed before its agent began, for a
        fault of this machine: nothing was done, and another may do it.
        """
        attempt = self._attempts.get(body.task)
        if attempt is None or attempt.given.assign.epoch != body.epoch or not attempt.started:
            return None
        if attempt.state == "ending":
            said = body if isinstance(body, kinds.AttemptFinish) else None
            body = kinds.AttemptFinish(
                body.task,
                body.epoch,
                "killed",
                said.summary if said else "",
                attempt.reason,
                usage=said.usage if said else {},
            )
        draft = Draft(body, (attempt.given.entry, attempt.started), attempt.given.scope)
        self._out.append(draft)
        self._drop(attempt)
        return draft

    def lease_ms_min(self) -> int:
        """The shortest lease held: beats must come several times within it."""
        held = (a.given.assign.lease_ms for a in self._attempts.values())
        return min(held, default=limits.LEASE_MS)

    def running(self) -> list[str]:
        """The tasks that this machine works on."""
        return [task for task, attempt in self._attempts.items() if attempt.state == "running"]

    def holds(self, task: str) -> kinds.Epoch | None:
        """The epoch under which this machine works on a task."""
        attempt = self._attempts.get(task)
        if attempt is None or attempt.state != "running":
            return None
        return attempt.given.assign.epoch

    def assignment(self, task: str) -> EntryId | None:
        """The entry that gave us the task which we work on."""
        attempt = self._attempts.get(task)
        running = attempt is not None and attempt.state == "running"
        return attempt.given.entry if attempt is not None and running else None

    def given(self) -> list[Assignment]:
        """What was given to this machine and is not over."""
        return [attempt.given for attempt in self._attempts.values()]

    def owner_of(self, task: str) -> str:
        """The machine that gave us the task, "" where we do not have it."""
        attempt = self._attempts.get(task)
        return "" if attempt is None else attempt.given.owner

    def statistics(self) -> dict[str, int]:
        """Counts for status and metrics."""
        counts = {"asking": 0, "running": 0, "ending": 0}
        for attempt in self._attempts.values():
            counts[attempt.state] += 1
        return counts

    def _end(self, attempt: _Attempt, reason: str) -> None:
        assign = attempt.given.assign
        if attempt.state == "asking":
            self._refuse(attempt.given, "no-lease", reason)
            self._drop(attempt)
        elif attempt.state == "running":
            attempt.state, attempt.reason = "ending", reason[: limits.REASON_CHARS_MAX]
            self._out.append(StopAttempt(assign.task, assign.epoch, attempt.reason))

    def _drop(self, attempt: _Attempt) -> None:
        del self._attempts[attempt.given.assign.task]
        self._used[pool_of(attempt.given.assign.agent)] -= 1

    def _of(self, owner: str, task: str, epoch: kinds.Epoch) -> _Attempt | None:
        """Our attempt; another owner than the one who assigned it has no say in it."""
        attempt = self._attempts.get(task)
        if attempt is None or attempt.given.owner != owner or attempt.given.assign.epoch != epoch:
            return None
        return attempt

    def _note_seen(self, owner: str, task: str, epoch: kinds.Epoch) -> None:
        key = (owner, task)
        self._seen[key] = max(epoch, self._seen.get(key, epoch))
        if len(self._seen) > limits.EPOCHS_REMEMBERED_MAX:
            # Insertion order is age; entries are admitted once, so this is a second safeguard.
            del self._seen[next(iter(self._seen))]


def _place(assign: kinds.TaskAssign) -> tuple[str, kinds.Epoch]:
    return assign.task, assign.epoch
