"""A fleet of real daemons, each on a host of its own.

    with Net("hub", "studio", "laptop") as net, NetFleet(net, deaf=["laptop"]) as fleet:
        net.behind("laptop")
        fleet.start()

Each machine has the name of its host. Commands go to a daemon over its Unix socket as ever: what
happens to the network keeps no test from asking.
"""

from collections.abc import Mapping, Sequence
from typing import Final

from tests.e2e.fleet import Fleet
from tests.e2e.net.stage import Net

# The same on every host: nobody else listens there.
PORT: Final = 7447


class NetFleet(Fleet):
    """See the top of this file. `names` are all hosts of the net where none are given."""

    def __init__(
        self,
        net: Net,
        names: Sequence[str] = (),
        *,
        dials: Mapping[str, Sequence[str]] | None = None,
        deaf: Sequence[str] = (),
    ) -> None:
        self.net = net
        super().__init__(names or net.names, dials=dials, deaf=deaf)
        net.look_after(self.root)
        for name, machine in self.machines.items():
            machine.into = net.into(name)

    def place(self, name: str) -> str:
        """Where a machine listens: at the address of its host."""
        return f"{self.net.address(name)}:{PORT}"

    def close(self, *, keep: bool = False) -> None:
        """End everything; `keep` leaves the homes where they are."""
        super().close(keep=keep)
        if keep:
            self.net.keep_folders()
