"""What this machine itself sees of the others: who is here, and when each was last heard of."""

from typing import TYPE_CHECKING

from muster.log.stream import MachineId

if TYPE_CHECKING:
    from muster.node.core import Core


def presence(core: "Core", machine: MachineId) -> str:
    """Whether a machine is here, linked, away, or shut out."""
    if machine in core.roster.revoked:
        return "revoked"
    if machine == core.machine:
        return "here"
    return "away" if core.link_to(machine) is None else "up"


def heard_ms_ago(core: "Core", machine: MachineId) -> int | None:
    """How old the newest entry of a machine that is away is; None when nothing of it is here."""
    newest = 0
    for stream in core.log.streams() if machine != core.machine else ():
        size = core.log.size(stream)
        if stream.machine == machine and size:
            newest = max(newest, core.log.entry_at(stream, size - 1).stamp.ms)
    return max(0, core.now.wall_ms - newest) if newest else None
