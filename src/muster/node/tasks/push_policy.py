"""What this machine knows about tasks, for the fence in git; see `git/fence.py`."""

from typing import TYPE_CHECKING, Literal

from muster.errors import MusterError
from muster.git.fence import Epoch
from muster.node.tasks.branches import Branches
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership
from muster.task.fold import RUN, TASK

if TYPE_CHECKING:
    from muster.node.core import Core


class OwnerPushPolicy:
    """Who may push what, as the tasks stand; what it is asked is git.fence's `PushPolicy`."""

    def __init__(self, core: "Core") -> None:
        self.core = core

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

    def writes(self, peer: str) -> bool:
        """Ordinary branches: only to a machine that was granted `push`."""
        try:
            self.core.roster.decide(peer, "push", "*", self.core.now.wall_ms)
        except MusterError:
            return False
        return True
