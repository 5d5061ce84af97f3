"""What is wrong with this machine itself, told to a person: its disk, its clock, and who fills it.

Rule 1: it is told once, and again when it is over; nothing is decided here.
"""

from typing import TYPE_CHECKING, Final

from muster.fleet import acknowledgement
from muster.limits import CLOCK_SKEW_MS
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.host.clock import CLOCK_TRUST_MS
from muster.node.incidents import Noticed
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {"disk-full": "The disk was full, and there is room again."}

# The keys of its incidents.
DISK_FULL: Final = "disk-full"
CLOCK: Final = "clock"


class HadNoRoom(ev.Event, frozen=True):
    """The disk was full for so long; what was ended to make room, and how many lines were lost."""

    for_ms: int
    ended: tuple[str, ...] = ()
    dropped: int = 0


class Health(Part):
    name = "health"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._clock_told = False
        self._floods: set[MachineId] = set()
        core.on(HadNoRoom, self.had_no_room)
        core.on(Noticed, core.incidents.noticed)
        for kind in acknowledgement.KINDS:
            core.on(kind, core.incidents.on_acknowledgement)

    def had_no_room(self, event: HadNoRoom) -> None:
        """The disk was full and is not any more: a person should know before it is again."""
        name = self._core.membership.name_of(self._core.machine)
        ended = f"; ended to make room: {', '.join(event.ended)}" if event.ended else ""
        lost = f"; {event.dropped} lines of journals are lost" if event.dropped else ""
        title = f"the disk of {name} was full for {event.for_ms // 1000 + 1} s"
        detail = f"this machine stood still and went on when there was room{ended}{lost}"
        self._core.counters["disk-full"] += 1
        self._core.incidents.open(DISK_FULL, "warning", title, detail)

    def tick(self) -> None:
        """Tell what began to be wrong, and what is well again."""
        off_ms = self._core.clock.off_ms
        if abs(off_ms) > CLOCK_SKEW_MS and not self._clock_told:
            self._clock_told = True
            name = self._core.membership.name_of(self._core.machine)
            way, s = ("ahead" if off_ms > 0 else "back"), abs(off_ms) // 1000
            self._core.incidents.open(
                CLOCK,
                "warning",
                f"the clock of {name} jumped {s // 86_400} days {s % 86_400} s {way}: not believed",
                f"it goes on by the time since its start for {CLOCK_TRUST_MS // 60_000} minutes, "
                "and refuses orders signed by the other time; set the clock right",
            )
        elif self._clock_told and abs(off_ms) <= CLOCK_SKEW_MS:
            self._clock_told = False
            self._core.incidents.close(CLOCK, "the clock and the time since the start agree again")
        # Who writes more than is taken of one machine is told of, too: once each.
        held_back = self._core.replication.intake.held_back
        for writer in sorted(held_back - self._floods):
            name = self._core.membership.name_of(writer)
            title = f"{name} writes more than is taken of one machine: the rest waits"
            detail = "it comes at 16 MiB a minute; `muster revoke` it if it is not meant to"
            self._core.incidents.open(f"intake-{writer[:16]}", "warning", title, detail)
        for writer in sorted(self._floods - held_back):
            reason = "it writes as much as is taken again"
            self._core.incidents.close(f"intake-{writer[:16]}", reason)
        self._floods = set(held_back)
