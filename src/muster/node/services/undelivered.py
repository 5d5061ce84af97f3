"""Messages of ours that wait for their machine longer than their sender would have thought.

Rule 1: one incident for each machine that has not stored them, however many they are; it is over
when none of them waits so long any more: stored, expired, or for a machine that is no member now.
Rule 2: it is looked for once a minute, from where each machine's receipt ends: what was delivered
costs nothing.
"""

from collections import defaultdict
from typing import TYPE_CHECKING, Any, Final

from muster.limits import MESSAGE_ALARM_HIGH_MS, MESSAGE_ALARM_LOOK_MS, MESSAGE_ALARM_MS
from muster.log.stream import MachineId, StreamName
from muster.message.state import meant
from muster.node.part import Part
from muster.node.services import messages

if TYPE_CHECKING:
    from muster.node.core import Core

_LATE_MAX: Final = 1_000
_KEY: Final = "undelivered-"
# Of one stream from a place on, what waits longer than it should and has not expired.
_LATE: Final = """
select message.seq, message.recipients, message.at_ms, message.id from message
join stream on stream.id = message.stream
where stream.name = ?1 and seq >= ?2 and (until_ms = 0 or until_ms > ?3)
and at_ms + case when alarm_ms > 0 then alarm_ms when rank < 0 then ?4 else ?5 end <= ?3
and (alarm_ms > 0 or rank <= 0)
order by message.stream, message.seq limit ?6
"""


class Undelivered(Part):
    """What was sent from here and is not there."""

    name = "undelivered"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._looked_ms = 0

    def tick(self) -> None:
        now_ms = self._core.now.wall_ms
        if abs(now_ms - self._looked_ms) < MESSAGE_ALARM_LOOK_MS:
            return
        self._looked_ms = now_ms
        late: dict[MachineId, list[tuple[int, str]]] = defaultdict(list)
        for stream in self._core.log.streams():
            if stream.machine == self._core.machine and self._core.log.size(stream):
                self._look(stream, now_ms, late)
        waits = {f"{_KEY}{machine[:16]}": machine for machine in late}
        for key in self._told() - waits.keys():
            self._core.incidents.close(key, "they were stored there, or wait no more")
        for key in waits.keys() - self._told():
            self._tell(key, waits[key], late[waits[key]])

    def _told(self) -> set[str]:
        """The incidents of this kind that are open."""
        return set(self._core.incidents.own(_KEY))

    def _look(
        self, stream: StreamName, now_ms: int, late: dict[MachineId, list[tuple[int, str]]]
    ) -> None:
        core, held = self._core, messages.held_size(self._core, stream)
        others = [p for p in messages.peers(core, stream) if p.machine != core.machine]
        behind = {p: size for p in others if (size := held(p.machine)) < core.log.size(stream)}
        if not behind:
            return
        first = min(behind.values())
        bounds = (MESSAGE_ALARM_HIGH_MS, MESSAGE_ALARM_MS, _LATE_MAX)
        rows: list[tuple[Any, ...]] = core.store.tables.query(
            _LATE, (str(stream), first, now_ms, *bounds)
        )
        for seq, to, at_ms, id in rows:
            for peer, size in behind.items():
                if seq >= size and meant(to.split("\n"), stream.machine, peer):
                    late[peer.machine].append((at_ms, id.hex()))

    def _tell(self, key: str, machine: MachineId, late: list[tuple[int, str]]) -> None:
        core, (_, oldest) = self._core, min(late)
        name = core.membership.name_of(machine)
        many = "a message" if len(late) == 1 else f"{len(late)} messages"
        core.incidents.open(
            key,
            "warning",
            f"{many} from {core.name} to {name} waits to be stored there: {oldest[:12]}",
            f"`muster sent --on {core.name}` shows how far each came; `muster machines` says when "
            "it was last heard of. They are delivered when it is back.",
        )
