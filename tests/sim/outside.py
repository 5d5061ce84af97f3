"""What is outside of the cores: programs that run attempts, and the one repository.

Each of them takes its time, and answers as the daemon of its machine would: while it is awake, to
the process that asked.
"""

import random
from collections.abc import Callable
from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.node import event as ev
from muster.node.tasks.approvals import AnswerAttempt
from muster.node.tasks.attempt_body import Status
from muster.node.tasks.bases import BaseFound, FindBase, Matched, MatchGlob
from muster.node.tasks.branches import BringBack, BroughtBack
from muster.node.tasks.waivers import CountLines, LinesCounted
from muster.task.instruction import (
    Fenced,
    MoveBranch,
    Promoted,
    RaiseFence,
    StartAttempt,
    StopAttempt,
)
from tests.node.cores import attempt_ended
from tests.sim.crowd import lists

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

_WHY = "[Errno 24] Too many open files"


class Outside:
    """See the top of this file; one for each start of a machine."""

    def __init__(self, world: "World", machine: "Machine", rng: random.Random) -> None:
        self.world = world
        self.machine = machine
        self.rng = rng
        self.start = machine.starts

    def _begins(self, refused: ev.Event | None) -> bool:
        """Whether it can be begun at all; else what is answered instead."""
        world, scarce = self.world, self.world.faults.scarce
        if not scarce or world.healed or self.rng.random() >= scarce or refused is None:
            return True
        world.reached["scarce"] += 1
        self._answer(1, lambda: refused)
        return False

    def _answer(self, after_ms: int, event: Callable[[], ev.Event]) -> None:
        self.later(after_ms, lambda: self.machine.arrive(event()))

    def later(self, after_ms: int, due: Callable[[], None]) -> None:
        """Do it then, while the machine is awake, in the process that it is now."""
        self.world.later(after_ms, lambda: self.machine.when_awake(self.start, due))

    @ev.effect(StartAttempt)
    def _start_attempt(self, effect: StartAttempt) -> None:
        task, epoch = effect.assign.task, effect.assign.epoch
        if self._begins(attempt_ended(task, epoch, "killed", reason=_WHY)):
            self.machine.attempts[task, epoch] = True
            pause_ms = int(1000 * float(effect.open.template["do"].removeprefix("sleep ")))
            self.world.money.begin(self, effect)
            self.later(pause_ms, lambda: self._end(effect))
            self.world.asking.begins(self, task, epoch)

    def _end(self, effect: StartAttempt) -> None:
        """The attempt's program is done: a push, and the word that it ended."""
        task, epoch = effect.assign.task, effect.assign.epoch
        if not self.machine.attempts.pop((task, epoch), False):
            return
        if effect.open.template.get("review"):
            self._judge(effect)
            return
        pushes = bool(effect.open.repo)
        reason = self.world.repository.push(self.machine, task, epoch) if pushes else ""
        commit = "1" * 40 if pushes and not reason else ""
        status: Status = "failed" if reason else "done"
        used = self.world.money.usage(task, epoch)
        ended = attempt_ended(task, epoch, status, "slept", reason, commit, usage=used)
        self.machine.arrive(ended)

    def _judge(self, effect: StartAttempt) -> None:
        """A review is done: it accepts, rejects, or forgets to say which."""
        said = self.rng.choice(("accept", "accept", "reject", "reject", ""))
        self.world.reached[f"review-{said or 'without-a-verdict'}"] += 1
        values = {"verdict": said, "reasons": "because"} if said else {}
        place = (effect.assign.task, effect.assign.epoch, "done")
        self.machine.arrive(attempt_ended(*place, said, values=values))

    @ev.effect(AnswerAttempt)
    def _answer_attempt(self, effect: AnswerAttempt) -> None:
        self.world.asking.hear(self, effect)

    @ev.effect(StopAttempt)
    def _stop_attempt(self, effect: StopAttempt) -> None:
        task, epoch, reason = effect.task, effect.epoch, effect.reason
        if self._begins(None) and self.machine.attempts.pop((task, epoch), False):
            self.world.reached["attempt-stopped"] += 1
            used = self.world.money.usage(task, epoch)
            self._answer(1, lambda: attempt_ended(task, epoch, "killed", reason=reason, usage=used))

    @ev.effect(RaiseFence)
    def _raise_fence(self, effect: RaiseFence) -> None:
        task, epoch, repository = effect.task, effect.epoch, self.world.repository

        def raised() -> ev.Event:
            try:
                reason = repository.raise_fence(task, epoch)
            except MusterError as error:
                # What others call a task may be no name for git.
                return Fenced(task, epoch, str(error))
            newest = repository.epoch(task) if reason else None
            return Fenced(task, epoch, reason, newest or (0, 0))

        if self._begins(Fenced(task, epoch, _WHY)):
            self._answer(5, raised)

    @ev.effect(MoveBranch)
    def _move_branch(self, effect: MoveBranch) -> None:
        task, epoch = effect.task, effect.epoch

        def moved() -> ev.Event:
            reason = self.world.repository.promote(task, epoch)
            return Promoted(task, epoch, "" if reason else effect.commit, reason)

        if self._begins(Promoted(task, epoch, "", _WHY, again=True)):
            self._answer(5, moved)

    @ev.effect(BringBack)
    def _bring_back(self, effect: BringBack) -> None:
        place = effect.move.task, effect.move.branch, effect.move.repo
        if self._begins(BroughtBack(*place, _WHY)):
            self._answer(5, lambda: BroughtBack(*place))

    @ev.effect(FindBase)
    def _find_base(self, effect: FindBase) -> None:
        if self._begins(BaseFound(effect.run, "", _WHY, again=True)):
            self._answer(
                5, lambda: BaseFound(effect.run, "2" * 40 if effect.base or effect.newest else "")
            )

    @ev.effect(CountLines)
    def _count_lines(self, effect: CountLines) -> None:
        lines = self.rng.choice((None, 3, 300))
        if self._begins(LinesCounted(effect.run, effect.phase, None, _WHY)):
            self._answer(5, lambda: LinesCounted(effect.run, effect.phase, lines))

    @ev.effect(MatchGlob)
    def _match_glob(self, effect: MatchGlob) -> None:
        if self._begins(Matched(effect.run, effect.phase, (), _WHY)):
            names = lists(self.rng)
            self.world.reached["matched"] += 1
            self._answer(5, lambda: Matched(effect.run, effect.phase, names))
