"""How the parcels of one machine are written, sealed, opened and judged (docs/spec/parcels.md)."""

from collections.abc import Iterable

from muster.channel import frame as frames
from muster.channel.base import Packet
from muster.errors import Malformed
from muster.fleet.parcel import ASIDES, FRAME, Heard, Item, read_parcel, write_parcel
from muster.limits import PARCEL_ASIDES_MAX
from muster.log.stream import MachineId
from muster.node.core import Core
from muster.node.counter import DECLARED
from muster.node.links.parcel_names import SAID, ParcelNames
from muster.node.services.parcels import ParcelCame, Parcels

DECLARED[__name__] = {
    "parcel-frames-unknown": "A frame in a parcel is none that this version knows."
}


class Desk:
    """See the top of this file."""

    def __init__(self, core: Core) -> None:
        self._core, self.names = core, ParcelNames(core)
        self._secret = core.membership.identity.secret("age")
        self._number = 0

    def write(self, to: str, items: Iterable[Item]) -> bytes:
        """One sealed parcel. Raises: Malformed where the receiver has no key for it."""
        from muster.channel import sealed  # noqa: PLC0415 - it stands on an extra

        public = self._core.membership.key_of(MachineId(to), "age")
        if public is None:
            raise Malformed("there is no key to seal a parcel with for a machine not known here")
        return sealed.seal(self.parcel(to, items), public)

    def parcel(self, to: str, items: Iterable[Item]) -> bytes:
        """One parcel, the next of this process."""
        core, parcels = self._core, self._core.part(Parcels)
        self._number += 1
        mine, membership = Heard(parcels.life, self._number), core.membership
        about = (membership.identity, membership.fleet, to, mine, parcels.heard(to))
        return write_parcel(*about, max(0, core.now.wall_ms), [*items, SAID])

    def open(self, place: str, packet: Packet) -> ParcelCame:
        """What lay in our mailbox. Raises: Refused."""
        from muster.channel import sealed  # noqa: PLC0415 - as above

        raw = sealed.open_sealed(packet.body, self._secret)
        return self.judge(place, packet.id, raw)

    def judge(self, place: str, id: str, raw: bytes) -> ParcelCame:
        """What one parcel says, once it proved whose word it is. Raises: Refused."""
        core = self._core
        machines = core.roster.machines
        parcel, items = read_parcel(
            raw,
            core.membership.fleet,
            core.machine,
            lambda machine: machine in machines,
        )
        self.names.came(parcel, items)
        found = [frame for item in items if item.type == FRAME for frame in self._frame(item)]
        return ParcelCame(
            place,
            id,
            parcel.machine,
            Heard(parcel.life, parcel.number),
            parcel.sent_ms,
            parcel.heard_life,
            tuple((frame.type, frame.payload) for frame in found),
            tuple([item for item in items if item.type in ASIDES][:PARCEL_ASIDES_MAX]),
        )

    def _frame(self, item: Item) -> list[frames.Frame]:
        """The frame of an item; none where this version cannot read it, and a later one may."""
        try:
            return [frames.decode(item.body)]
        except Malformed:
            self._core.counters["parcel-frames-unknown"] += 1
            return []
