"""Machines that are away while work of theirs stands still: a machine that owes nothing may sleep.

Rule 1: every machine that sees it tells it, under a key without the teller: it is one incident.
Rule 2: it is over when the machine is heard, and when its work is done, ended or taken over.
"""

from typing import TYPE_CHECKING, Final

from muster.limits import ABSENT_LOOK_MS, ABSENT_MS
from muster.log.stream import MachineId
from muster.node.part import Part
from muster.node.services.presence import heard_ms_ago, presence
from muster.node.tasks.adoption import Adoptions

if TYPE_CHECKING:
    from muster.node.core import Core

_KEY: Final = "machine-away:"


class Absent(Part):
    """See the rules at the top of this file."""

    name = "absent"

    def __init__(self, core: "Core") -> None:
        self._core = core
        # A machine that just began hears of nobody yet.
        self._looked_ms = core.now.boot_ms

    def tick(self) -> None:
        core = self._core
        if core.now.boot_ms - self._looked_ms < ABSENT_LOOK_MS:
            return
        self._looked_ms = core.now.boot_ms
        told = set(core.incidents.own(_KEY))
        name_of = core.membership.name_of
        away = {f"{_KEY}{name_of(m)}": m for m in core.roster.machines if self._is_away(m)}
        for key, machine in away.items():
            owed = self._owed(machine)
            if owed and key not in told:
                self._tell(key, machine, owed)
            elif not owed and key in told:
                core.incidents.close(key, "nothing of it waits any more")
        for key in told - away.keys():
            core.incidents.close(key, "it is heard again, or is no machine of the fleet any more")

    def _is_away(self, machine: MachineId) -> bool:
        silent_ms = heard_ms_ago(self._core, machine)
        away = presence(self._core, machine) == "away"
        return away and silent_ms is not None and silent_ms >= ABSENT_MS

    def _owed(self, machine: MachineId) -> int:
        """How much of its work is open, whether or not somebody may go on with it."""
        work = self._core.part(Adoptions).work(machine)
        return len(work.runs) + len(work.tasks) + len(work.left)

    def _tell(self, key: str, machine: MachineId, owed: int) -> None:
        name = self._core.membership.name_of(machine)
        what = f"{owed} of its runs and tasks wait{'s' if owed == 1 else ''} for it"
        self._core.incidents.open(
            key,
            "warning",
            f"{name} is away, and {what}",
            f"they go on when it is back; where it is lost, `muster takeover {name}` lets them go "
            f"on elsewhere. `muster standin {name} MACHINE` has that done by itself the next time",
        )
