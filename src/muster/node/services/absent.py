"""Machines that are away while work of theirs stands still: a machine that owes nothing may sleep.

Rule 1: a hub tells of everybody, and the others of hubs: two that are none are seldom linked, and
know nothing of each other. Who is linked with nobody is away itself, and tells of nobody.
Rule 2: away is who was linked and is not. Who comes by mailboxes alone, or was away when we began,
is told of where it was told of before.
Rule 3: the key is without the teller, so it is one incident, whoever tells it. It is over when the
machine is heard, and when its work is done, ended or taken over.
"""

from typing import TYPE_CHECKING, Final

from muster.limits import ABSENT_LOOK_MS, ABSENT_MS
from muster.log.stream import MachineId
from muster.node.part import Part
from muster.node.services.presence import LastHeard, heard_ms_ago, presence
from muster.node.tasks.adoption import Adoptions
from muster.node.tasks.keepers import Keepers

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
        told, name_of = set(core.incidents.own(_KEY)), core.membership.name_of
        keys = {f"{_KEY}{name_of(machine)}": machine for machine in core.roster.machines}
        away = {key: m for key, m in keys.items() if self._is_away(m, told=key in told)}
        for key, machine in away.items():
            owed = self._owed(machine)
            if owed and key not in told:
                self._tell(key, machine, owed)
            elif not owed and key in told:
                core.incidents.close(key, "nothing of it waits any more")
        for key in told - away.keys():
            core.incidents.close(key, "it is heard again, or is no machine of the fleet any more")

    def _is_away(self, machine: MachineId, *, told: bool) -> bool:
        core, is_hub = self._core, self._core.part(Keepers).is_hub
        if presence(core, machine) != "away" or not (is_hub(core.machine) or is_hub(machine)):
            return False
        if told:
            return True
        linked = any(link.peer for link in core.links.values())
        if not (linked or is_hub(core.machine)) or machine not in core.part(LastHeard).ms:
            return False
        silent_ms = heard_ms_ago(core, machine)
        return silent_ms is not None and silent_ms >= ABSENT_MS

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
