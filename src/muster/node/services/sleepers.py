"""Machines that sleep: somebody waits for one, and a packet may wake it.

Rule 1: who is woken, and how, follows from what the machine said of itself while it was awake
(`machine.wake`). Nothing that a call or a message says becomes a part of the packet.
Rule 2: one packet for each machine in five minutes, whoever waits, asks or orders, and however many
do: a computer that starts takes a minute, and one that does not will not start for the next.
"""

from typing import TYPE_CHECKING

from muster.limits import WAKE_AGAIN_MS, WAKE_APART_MS, WAKE_LOOK_MS
from muster.log.stream import MachineId, scope_to
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.services.messages import held_size

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {"wakes-too-soon": "A machine was to be woken again within five minutes."}


class WakeUp(ev.Effect, frozen=True):
    """Have a packet sent that wakes this machine."""

    machine: str


class Sleepers(Part):
    """Who is to be woken, and when it was tried."""

    name = "sleepers"
    effects = (WakeUp,)

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked_ms = 0
        self._tried_ms: dict[str, int] = {}
        core.on(ev.Missed, lambda event: self._wake(event.machine))

    def tick(self) -> None:
        core = self._core
        if core.now.boot_ms - self._looked_ms < WAKE_LOOK_MS:
            return
        self._looked_ms = core.now.boot_ms
        for machine in core.roster.machines:
            if self.wakeable(machine) and self._waits(machine):
                self._wake(machine)

    def wakeable(self, machine: str) -> bool:
        """Whether it is a member, is away, and said that a packet wakes it."""
        core, id = self._core, MachineId(machine)
        if id not in core.roster.machines or id == core.machine or core.link_to(id) is not None:
            return False
        facts = core.roster.facts.get(id)
        return facts is not None and any(card.wakes for card in facts.cards)

    def spend(self, machine: str) -> bool:
        """Whether a packet may go to this machine now; then it is spent."""
        now_ms = self._core.now.boot_ms
        if self.rests_ms(machine):
            self._core.counters["wakes-too-soon"] += 1
            return False
        self._tried_ms = {m: ms for m, ms in self._tried_ms.items() if now_ms - ms < WAKE_APART_MS}
        self._tried_ms[machine] = now_ms
        return True

    def not_sent(self, machine: str) -> None:
        """Nobody sent a packet: it need not rest as long as if somebody had."""
        self._tried_ms[machine] = self._core.now.boot_ms - WAKE_APART_MS + WAKE_AGAIN_MS

    def rests_ms(self, machine: str) -> int:
        """How long no packet goes to this machine any more, for the last one."""
        tried_ms = self._tried_ms.get(machine)
        if tried_ms is None:
            return 0
        return max(0, tried_ms + WAKE_APART_MS - self._core.now.boot_ms)

    def _waits(self, machine: MachineId) -> bool:
        """Whether something of ours that is for it alone, such as a message, is not there yet."""
        own = self._core.membership.own(scope_to(machine))
        return held_size(self._core, own)(machine) < self._core.log.size(own)

    def _wake(self, machine: str) -> None:
        if self.wakeable(machine) and not self.rests_ms(machine) and self.spend(machine):
            self._core.do(WakeUp(machine))
