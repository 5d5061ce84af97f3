"""Machines that are linked and receipt nothing: connected is not replicating.

Rule 1: one incident for each machine, however much it lacks; it is over when its receipts have come
as far as our streams, and when it is not linked any more, for then it is away and no riddle.
Rule 2: it is looked for once a minute, from the sizes of receipts.
"""

from typing import TYPE_CHECKING, Final

from muster.limits import LAG_LOOK_MS, LAG_MS
from muster.log.stream import MachineId, StreamName
from muster.node.part import Part
from muster.node.services.messages import held_size

if TYPE_CHECKING:
    from muster.node.core import Core

_KEY: Final = "lag-"


class Lag(Part):
    """What linked machines have not receipted."""

    name = "lag"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked_ms = 0
        # Of what is behind: how far its receipt goes, and since when it goes no further.
        self._stands: dict[tuple[MachineId, StreamName], tuple[int, int]] = {}

    def tick(self) -> None:
        now_ms = self._core.now.boot_ms
        if now_ms - self._looked_ms < LAG_LOOK_MS:
            return
        self._looked_ms = now_ms
        before, self._stands = self._stands, {}
        for which, held in self._behind().items():
            was, since_ms = before.get(which, (-1, now_ms))
            self._stands[which] = held, since_ms if was == held else now_ms
        behind = {f"{_KEY}{machine[:16]}": machine for machine, _ in self._stands}
        told = self._told()
        for key in told - behind.keys():
            self._core.incidents.close(key, "its receipts have come, or it is away")
        late = {m for (m, _), (_, ms) in self._stands.items() if now_ms - ms >= LAG_MS}
        for key, machine in behind.items():
            if machine in late and key not in told:
                self._tell(key, machine)

    def _told(self) -> set[str]:
        """The incidents of this kind that are open."""
        return set(self._core.incidents.own(_KEY))

    def _behind(self) -> dict[tuple[MachineId, StreamName], int]:
        """How far the receipt of a linked machine goes, for each stream of ours that goes on."""
        core = self._core
        found: dict[tuple[MachineId, StreamName], int] = {}
        linked = [m for m in core.roster.machines if core.link_to(m) is not None]
        for stream in core.log.streams() if linked else ():
            ours = stream.machine == core.machine
            if not ours or stream.incarnation != core.membership.incarnation:
                continue
            size, held = core.log.size(stream), held_size(core, stream)
            for machine in linked:
                if core.membership.may_hold(stream, machine) and held(machine) < size:
                    found[machine, stream] = held(machine)
        return found

    def _tell(self, key: str, machine: MachineId) -> None:
        core, name = self._core, self._core.membership.name_of(machine)
        lacks = [(s, held) for (m, s), (held, _) in self._stands.items() if m == machine]
        count = sum(core.log.size(stream) - held for stream, held in lacks)
        number = core.link_to(machine)
        channel = "" if number is None else core.links[number].channel
        core.incidents.open(
            key,
            "warning",
            f"{name} is linked over {channel}, and for {LAG_MS // 60_000} minutes it has receipted "
            f"none of {count} entries of {core.name}",
            f"`muster channels {name} --on {core.name}` shows what carries; `muster ping {name}` "
            "asks whether it is there. Its disk may be full, or the link carries nothing.",
        )
