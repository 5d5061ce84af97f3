"""Machines that have less of their own log than others hold of it: we, and others.

Rule 1: a writer holds all of its own streams. One that asks for entries of a stream of its own was
set back, or is a copy; it need not know, or say so.
Rule 2: what comes back of our own key is a sign for us, also where no mark remembers it.
Rule 3: a machine can ask for its own entries and have them again as often as it likes; ours do not
grow with that. Whoever was behind so often in an hour is for the rest of it.
"""

from collections import deque
from typing import TYPE_CHECKING

from muster.limits import SETBACKS_PER_HOUR_MAX
from muster.log.stream import FLEET, MachineId, StreamName
from muster.node import event as ev
from muster.node.guard import HOUR_MS
from muster.node.incarnations.doubt import Doubt
from muster.node.part import Part
from muster.node.replica.replication import OwnWanted

if TYPE_CHECKING:
    from muster.node.core import Core


class Rollbacks(Part):
    """Who asked for entries of its own, until it has them again."""

    name = "rollbacks"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._back: set[StreamName] = set()
        self._behind: dict[MachineId, StreamName] = {}
        # When we told so of each machine, in the last hour.
        self._told: dict[MachineId, deque[int]] = {}
        core.on(ev.EntriesCame, self.came)
        core.on(OwnWanted, self.asked)

    def came(self, event: ev.EntriesCame) -> None:
        """Entries of our own key came from others: we lost them, or a copy of us wrote them."""
        stream = event.stream
        if stream.machine != self.core.machine or stream.scope != FLEET:
            return
        doubt = self.core.part(Doubt)
        if not doubt.waits and stream not in self._back:
            doubt.begin(("Others held entries of this machine's own log that it did not have.",))
        self._back.add(stream)

    def asked(self, event: OwnWanted) -> None:
        """A machine asks for entries of its own log."""
        core, machine, stream = self.core, event.machine, event.stream
        if machine in self._behind or machine not in core.roster.machines:
            return
        self._behind[machine] = stream
        self._told.setdefault(machine, deque()).append(core.now.boot_ms)
        name = core.membership.name_of(machine)
        title = f"{name} lost a part of its own log, or is a copy: it asks others for its entries"
        core.note(title)
        core.incidents.open(_key(machine), "critical", title, str(stream))

    def tick(self) -> None:
        """Whoever has its own entries again is no incident any more."""
        core = self.core
        for machine, stream in list(self._behind.items()):
            told = self._told[machine]
            while told and core.now.boot_ms - told[0] >= HOUR_MS:
                told.popleft()
            if len(told) >= SETBACKS_PER_HOUR_MAX:
                continue
            lanes = [s.lanes.get(stream) for s in core.sync.sessions.values() if s.peer == machine]
            if any(lane is not None and lane.has >= core.log.size(stream) for lane in lanes):
                del self._behind[machine]
                name = core.membership.name_of(machine)
                core.incidents.close(_key(machine), f"{name} has its own entries again")


def _key(machine: MachineId) -> str:
    return f"set-back-{machine[:16]}"
