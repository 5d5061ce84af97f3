"""What must always hold, and how it is looked at; `Violation` names the invariant."""

from typing import TYPE_CHECKING, Any

from muster.errors import MusterError
from muster.node import event as ev

if TYPE_CHECKING:
    from tests.sim.machine import Machine
    from tests.sim.world import World


class Violation(Exception):  # noqa: N818 - it is what was found, not what went wrong in here
    """An invariant does not hold."""


class Checker:
    """See the top of this file."""

    def __init__(self, world: "World") -> None:
        self.world = world

    def fail(self, invariant: str, what: str) -> None:
        raise Violation(f"{invariant}: {what} (seed {self.world.seed}, {self.world.ms} ms)")

    def surprise(self, what: str, answer: dict[str, Any]) -> None:
        """An order was refused: that may be, but not silently."""
        self.world.reached[f"{what}-refused-{answer['error']['kind'].lower()}"] += 1

    def booted(self, machine: "Machine") -> None: ...

    def crashed(self, machine: "Machine") -> None: ...

    def stepped(self, machine: "Machine") -> None: ...

    def sent(self, machine: "Machine", frame: bytes) -> None: ...

    def settled(self) -> bool:
        return not self.unsettled()

    def unsettled(self) -> str:
        machines = [m for m in self.world.machines.values() if not m.hostile]
        sizes = []
        for machine in machines:
            if machine.core is None:
                return f"{machine.place} does not run"
            store = machine.core.store
            sizes.append({str(s): store.size(s) for s in store.streams() if s.scope == "fleet"})
        if any(each != sizes[0] for each in sizes):
            return "the fleet's streams differ"
        for task in self.world.workload.tasks:
            core = machines[0].core
            assert core is not None
            rows = core.store.rows("task", task=task)
            if not any(r["state"] in ("done", "failed", "cancelled", "lost") for r in rows):
                return f"task {task[:8]} is {[r['state'] for r in rows]}"
        return ""

    def finally_(self) -> None: ...


__all__ = ["Checker", "MusterError", "Violation", "ev"]
