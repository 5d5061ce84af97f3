"""The git remote of the simulated fleet: refs, and the product's own rules for who may move them.

What a ref transaction's hook decides is asked of `muster.git.fence.may_commit`, the very function
that runs inside git; only git itself is modelled, as a dictionary.
"""

from typing import TYPE_CHECKING

from muster.git import fence
from muster.git.fence import Epoch, Update

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World

NONE = "0" * 40
SOME = "1" * 40


class Repository:
    """One bare repository with its hooks."""

    def __init__(self, world: "World") -> None:
        self.world = world
        self.refs: dict[str, bytes] = {}

    def raise_fence(self, task: str, epoch: tuple[int, int]) -> str:
        """An owner registers an epoch; returns why not, or nothing."""
        ref, raw = fence.fence_ref(task), fence.fence_bytes(Epoch(*epoch))
        reason = fence.may_commit(
            Update(ref, NONE, SOME), lambda name: raw if name == SOME else self.refs.get(name)
        )
        if reason is None:
            self.refs[ref] = raw
        return reason or ""

    def push(self, machine: "Machine", task: str, epoch: tuple[int, int]) -> str:
        """A worker pushes its attempt; returns why not, or nothing."""
        ref = fence.attempt_ref(task, Epoch(*epoch))
        now = self.epoch(task)
        reason = fence.may_commit(Update(ref, NONE, SOME), self.refs.get)
        if reason is None:
            self.refs[ref] = machine.place.encode()
            self.world.checker.pushed(machine, task, epoch, now)
            self.world.reached["push-taken"] += 1
        else:
            self.world.reached["push-of-a-stale-epoch-refused"] += 1
        return reason or ""

    def promote(self, task: str, epoch: tuple[int, int]) -> str:
        """An owner promotes an attempt; returns why not, or nothing."""
        if self.epoch(task) != epoch or fence.attempt_ref(task, Epoch(*epoch)) not in self.refs:
            return "the fence or the attempt is not what was expected"
        return ""

    def epoch(self, task: str) -> tuple[int, int] | None:
        raw = self.refs.get(fence.fence_ref(task))
        return None if raw is None else tuple(fence.fence_epoch(raw))  # type: ignore[return-value]
