"""What the names of parcels tell their receivers by: secrets of two, and who reads such names.

Rule 1: a secret is of this machine and one other of the fleet as it is now. Who is not of it any
more has none, and no turn (channel/turn.py).
Rule 2: a parcel is named for whoever said, in the newest parcel that came of it, that it reads
names. A machine of before, or one that was set back to it, says nothing, and is left what it finds.
"""

from collections.abc import Iterable, Mapping

from muster.fleet.parcel import NAMES_READ, Item, Parcel
from muster.log.stream import MachineId
from muster.node.core import Core

SAID = Item(NAMES_READ, b"")


class ParcelNames:
    """See the top of this file."""

    def __init__(self, core: Core) -> None:
        self._core = core
        # Of each machine by its public key, so that it is agreed on once.
        self._secrets: dict[MachineId, tuple[bytes, bytes]] = {}
        # When each said something last, by its own clock, and whether it reads names.
        self._said: dict[str, tuple[tuple[int, int], bool]] = {}

    def secrets(self) -> Mapping[str, bytes]:
        """Of each other machine of the fleet; b"" of one that has no key for it."""
        membership, found = self._core.membership, dict[str, bytes]()
        for machine in self._core.roster.machines:
            if machine != self._core.machine:
                public = membership.key_of(machine, "age") or b""
                known = self._secrets.get(machine, (b"", b""))
                if known[0] != public:
                    known = self._secrets[machine] = public, membership.identity.shared(public)
                found[machine] = known[1]
        for machine in self._secrets.keys() - found.keys():
            del self._secrets[machine]
        return found

    def reads(self, machine: str) -> bool:
        """Whether a machine said that it takes what has such a name."""
        return self._said.get(machine, ((0, 0), False))[1]

    def came(self, parcel: Parcel, items: Iterable[Item]) -> None:
        """Take note of what a parcel that proved its writer says.

        An old one that comes again makes nobody read names: only one that is newer than all.
        """
        at, reads = (parcel.sent_ms, parcel.number), any(e.type == NAMES_READ for e in items)
        last = self._said.get(parcel.machine, (at, False))[0]
        if not reads or at >= last:
            self._said[parcel.machine] = max(at, last), reads
