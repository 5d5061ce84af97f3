"""What this machine itself sees of the others: who is here, and when each was last heard of."""

from typing import TYPE_CHECKING

from muster.log.stream import FLEET, MachineId
from muster.node import event as ev
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core


class LastHeard(Part):
    """When the machines that are gone said something last, by our clock since the start."""

    name = "presence"

    def __init__(self, core: "Core") -> None:
        self.ms: dict[str, int] = {}
        core.on(ev.MachineGone, self._gone)

    def _gone(self, event: ev.MachineGone) -> None:
        self.ms[event.machine] = event.heard_ms


def presence(core: "Core", machine: MachineId) -> str:
    """Whether a machine is here, linked, away, or shut out."""
    if machine in core.roster.revoked:
        return "revoked"
    if machine == core.machine:
        return "here"
    return "away" if core.link_to(machine) is None else "up"


def heard_ms_ago(core: "Core", machine: MachineId) -> int | None:
    """How long ago a machine that is away said something, over a link or by its newest entry here.

    None when nothing of it is here.
    """
    newest = 0
    for stream in core.log.streams() if machine != core.machine else ():
        size = core.log.size(stream)
        if stream.machine == machine and size:
            # Its date is its writer's own: nothing was said later than it came here.
            came = core.log.admitted(stream, size - 1) or (0, core.now.wall_ms)
            newest = max(newest, min(came[1], core.log.entry_at(stream, size - 1).stamp.ms))
    since = [core.now.wall_ms - newest] if newest else []
    heard = core.part(LastHeard).ms
    if machine in heard:
        since.append(core.now.boot_ms - heard[machine])
    return max(0, min(since)) if since else None


def wrote_since(core: "Core", machine: str, ms: int) -> bool:
    """Whether all is here that a machine wrote for its fleet until then: what is younger is, too.

    Of ourselves and of who is in the fleet no more nothing else comes.
    """
    if machine == core.machine or machine not in core.roster.machines:
        return True
    for stream in core.log.streams():
        if stream.machine == machine and stream.scope == FLEET and core.log.size(stream):
            last = core.log.size(stream) - 1
            came = core.log.admitted(stream, last) or (0, 0)
            if min(came[1], core.log.entry_at(stream, last).stamp.ms) > ms:
                return True
    return False
