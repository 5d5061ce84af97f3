"""What was heard of those for whom this machine stands in; and what whoever stands in for it hears.

Rule 1: a machine is heard by a link to it, by an entry of it that anybody brings, and by a parcel
that is newer than its others: whatever it says, it lives.
Rule 2: who lives and has nothing to say is quiet in a mailbox. So a machine leaves signs there for
its stand-in alone (log/signs.py), and that one waits for longer than a sign takes at the
slowest of its own places: nobody can know at which of them the other one comes by.
Rule 3: a time in which this machine stood still, or slept, or had not begun, is none of silence.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from muster.log.stream import MachineId
from muster.node import event as ev
from muster.task.standin import StandinRow

if TYPE_CHECKING:
    from muster.node.core import Core

# A machine that looked for so long at nothing slept, or stood still.
_ASLEEP_MS: Final = 10_000


class Hearing:
    """See the top of this file; it is asked every second, or so."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._heard_ms: dict[str, int] = {}
        self._looked_ms = 0
        core.on(ev.EntriesCame, lambda event: self._came(event.stream.machine))
        core.on(ev.LeftWord, lambda event: self._came(event.machine))

    def gone(self, mine: Mapping[str, StandinRow], lease_ms: int) -> list[MachineId]:
        """Those for whom this machine may stand in and that said nothing for long enough."""
        core, now_ms = self._core, self._core.now.boot_ms
        asleep = now_ms - self._looked_ms > _ASLEEP_MS
        self._looked_ms = now_ms
        found = []
        for machine, row in mine.items():
            here = core.link_to(MachineId(machine)) is not None or machine in core.roster.revoked
            if here or asleep or machine not in self._heard_ms:
                self._heard_ms[machine] = now_ms
            patience_ms = max(row.after_ms, lease_ms) + self._slow_ms(machine)
            if now_ms - self._heard_ms[machine] >= patience_ms:
                found.append(MachineId(machine))
        for machine in self._heard_ms.keys() - mine.keys():
            del self._heard_ms[machine]
        return found

    def leave_signs(self, named: Mapping[str, StandinRow]) -> None:
        """Say in mailboxes that this machine lives, to whoever stands in for it."""
        posts, row = self._core.sync.posts, named.get(self._core.machine)
        if posts.signs.ask({MachineId(m): row.after_ms // 2 for m in row.named} if row else {}):
            posts.links_changed()

    def _came(self, machine: str) -> None:
        if machine in self._heard_ms:
            self._heard_ms[machine] = self._core.now.boot_ms

    def _slow_ms(self, machine: str) -> int:
        """How long a sign of a machine takes where it takes longest; 0 without a mailbox."""
        boxes = self._core.sync.posts.boxes.values()
        paces = (box.pace for box in boxes if box.session.peer == machine)
        return max((pace.sign_ms + pace.look_ms for pace in paces), default=0)
