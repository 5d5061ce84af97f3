"""What this machine knows about tasks, for the fence in git; see `git/fence.py`."""

from typing import TYPE_CHECKING, Any

from muster.errors import MusterError
from muster.git.fence import Epoch
from muster.node.tasks.branches import Branches
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership

if TYPE_CHECKING:
    from muster.node.core import Core


class OwnerPushPolicy:
    """Who may push what, as the tasks stand; what it is asked is git.fence's `Membership`."""

    def __init__(self, core: "Core") -> None:
        self.core = core

    def _row(self, task: str) -> dict[str, Any] | None:
        held = self.core.part(Ownership).held("task", task)
        return None if held is None else held.row

    def epoch(self, task: str) -> Epoch | None:
        row = self._row(task)
        if row is None or not row["assigned"]:
            return None
        return Epoch(int(row["epoch_order"]), int(row["epoch_count"]))

    def holder(self, task: str) -> str | None:
        held = self.core.part(OwnerService).owner.holder(task)
        if held is not None:
            return held[0]
        row = self._row(task)
        if row is not None and row["state"] == "leased":
            return str(row["machine"])
        # After a restore the worker of a settled task is asked for its work once more.
        return self.core.part(Branches).pusher(task)

    def owner(self, task: str) -> str | None:
        return self.core.part(Ownership).owner("task", task)

    def run_owner(self, run: str) -> str | None:
        return self.core.part(Ownership).owner("run", run)

    def writes(self, peer: str) -> bool:
        """Ordinary branches: only to a machine that was granted `push`."""
        try:
            self.core.roster.decide(peer, "push", "*", self.core.now.wall_ms)
        except MusterError:
            return False
        return True
