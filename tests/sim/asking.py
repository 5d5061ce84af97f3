"""Agents that ask for permissions, change their mind meanwhile, and people who answer them.

An attempt asks soon after it began. By the time somebody answers, as often as not, it would do
another thing; some answers come twice, from two people or as the same order shown again.
"""

import hashlib
import random
from typing import TYPE_CHECKING, Any

from muster.node.tasks.approvals import AnswerAttempt
from muster.node.tasks.attempt_body import AttemptEvent
from muster.task.approval import args_of

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.outside import Outside
    from tests.sim.world import World


class Asker:
    """One attempt's agent; `asked` is what a person was shown, `would` what it would do now."""

    def __init__(self, outside: "Outside", task: str, epoch: tuple[int, int]) -> None:
        self.outside, self.task, self.epoch = outside, task, epoch
        self.number = 0
        self.would = self.asked = "rm a"
        # What it said that it would do when a yes was to be used, and how often it was let.
        self.told, self.used = "", 0

    @property
    def machine(self) -> "Machine":
        return self.outside.machine

    def is_running(self) -> bool:
        return (self.task, self.epoch) in self.machine.attempts

    def tell(self, kind: str, **fields: Any) -> None:
        said = {"ask": str(self.number), "class": "command", **fields}
        self.machine.arrive(AttemptEvent(self.task, self.epoch, kind, said, "shell@sim"))

    def number_of(self, action: str) -> str:
        """As the driver makes it: the nonce is the question's own."""
        where = f"{self.machine.place}/{self.outside.start}/{self.task}/{self.number}"
        return hashlib.sha256(f"{where}/{action}".encode()).hexdigest()


class Asking:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.rng = random.Random(f"asking/{world.seed}")
        self._askers: dict[tuple[str, int, str, tuple[int, int]], Asker] = {}

    def begins(self, outside: "Outside", task: str, epoch: tuple[int, int]) -> None:
        """An attempt began."""
        often = self.world.faults.approvals
        if not often or self.rng.random() >= often:
            return
        asker = Asker(outside, task, epoch)
        self._askers[outside.machine.place, outside.start, task, epoch] = asker
        outside.later(self.rng.randint(1, 100), lambda: self._ask(asker))

    def _ask(self, asker: Asker) -> None:
        if not asker.is_running():
            return
        asker.number += 1
        asker.asked = asker.would
        asker.tell("agent.ask", action=asker.number_of(asker.asked))
        self.world.reached["approval-asked"] += 1
        for _ in range(self.rng.choice((1, 1, 2))):
            asker.outside.later(self.rng.randint(20, 400), lambda: self._person(asker))
        if self.rng.random() < 0.5:
            asker.outside.later(self.rng.randint(1, 400), lambda: self._swap(asker))

    def _swap(self, asker: Asker) -> None:
        asker.would = f"{asker.would}!"

    def _person(self, asker: Asker) -> None:
        """Somebody reads what waits there, and answers it."""
        machine, work = asker.machine, self.world.workload

        def read(answer: dict[str, Any]) -> None:
            rows = (
                [row for row in answer["value"] if row["task"] == asker.task]
                if (answer["ok"])
                else []
            )
            if not rows:
                return
            word = self.rng.choice(("allow", "allow", "allow", "deny"))
            args = args_of(rows[0]["question"], rows[0]["hash"], word)
            order = work.order(machine, "approve", args["approval"], args)
            for _ in range(self.rng.choice((1, 1, 2))):
                work.call(machine, "approve", args, said, order)

        def said(answer: dict[str, Any]) -> None:
            kind = "ok" if answer["ok"] else answer["error"]["kind"].lower()
            self.world.reached[f"approval-answered-{kind}"] += 1

        work.call(machine, "questions", {}, read)

    def hear(self, outside: "Outside", effect: AnswerAttempt) -> None:
        """The driver hears a word about its question."""
        key = (outside.machine.place, outside.start, effect.task, effect.epoch)
        asker = self._askers.get(key)
        if asker is None or effect.ask != str(asker.number) or not asker.is_running():
            return
        self.world.reached[f"approval-{effect.word}"] += 1
        if effect.word == "allow":
            outside.later(5, lambda: self._look(asker))
        elif effect.word == "use":
            self._use(asker)
            asker.tell("agent.decision", answer="allow", by="person")
        elif effect.word == "again":
            asker.tell("agent.decision", answer="changed", by="it changed")
            outside.later(5, lambda: self._ask(asker))
        else:
            asker.tell("agent.decision", answer="deny", by="person")

    def _look(self, asker: Asker) -> None:
        asker.told = asker.would
        asker.tell("agent.use", action=asker.number_of(asker.told))

    def _use(self, asker: Asker) -> None:
        """It is let: what a person was asked about, and once. (I21)"""
        asker.used += 1
        if asker.told != asker.asked or asker.used > 1:
            self.world.checker.fail(
                "I21",
                f"{asker.machine.place} lets {asker.task[:8]} do {asker.told!r}, when "
                f"{asker.asked!r} was asked, for the {asker.used}. time",
            )
