"""What this machine knows about tasks, for the fence in git; see `git/fence.py`."""

from typing import TYPE_CHECKING, Literal

from muster.errors import Denied
from muster.fleet.grant import ANYTHING
from muster.git.fence import Epoch
from muster.log.stream import MachineId
from muster.node.tasks.branches import Branches
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.slots import schedules
from muster.task.fold import RUN, TASK

if TYPE_CHECKING:
    from muster.node.core import Core


class OwnerPushPolicy:
    """Who may push what, as the tasks stand; what it is asked is git.fence's `PushPolicy`."""

    def __init__(self, core: "Core", repo: str) -> None:
        self.core, self.repo = core, repo

    def epoch(self, task: str) -> Epoch | None:
        held = self.core.part(Ownership).held(TASK, task)
        return None if held is None or not held.row.assigned else Epoch(*held.row.epoch)

    def holder(self, task: str) -> str | None:
        holds = self.core.part(OwnerService).owner.holder(task)
        if holds is not None:
            return holds[0]
        held = self.core.part(Ownership).held(TASK, task)
        if held is not None and held.row.state == "leased":
            return held.row.machine
        # After a restore the worker of a settled task is asked for its work once more.
        return self.core.part(Branches).asked.get(task)

    def owner(self, what: Literal["task", "run"], name: str) -> str | None:
        ownership = self.core.part(Ownership)
        return ownership.owner(RUN, name) if what == "run" else ownership.owner(TASK, name)

    def keeps(self, peer: str, schedule: str) -> bool:
        return any(
            peer in each.schedule.keepers and each.id == schedule
            for each in schedules(self.core).values()
        )

    def bars(self, peer: str) -> str | None:
        """Ordinary branches: to an operator, and to whoever was granted `push` on this one."""
        roster = self.core.roster
        try:
            roster.decide(peer, "push", self.repo or ANYTHING, self.core.now.wall_ms)
        except Denied as error:
            record = roster.machines.get(MachineId(peer))
            if record is None:
                return str(error)
            return (
                f"{record.name} was granted no `push` on it; where an operator orders, `muster "
                f"grant machine:{record.name} push --object {self.repo}` lets its programs, and "
                f"`muster device add {record.name}` lets the person there"
            )
        return None
