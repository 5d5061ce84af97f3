"""Who follows what this machine takes in is woken by each commit that brought something.

Rule: nothing is kept for a follower but what no store has: that a link came up, or that none is
left. The entries are in the store, and whoever is slow reads them there when it gets to it.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from msgspec import Struct

from muster.node import event as ev
from muster.node.part import Part

if TYPE_CHECKING:
    from muster.node.core import Core


class Arrival(Struct, frozen=True):
    """An entry that was taken in, by whose word and when it was written; or a link (no id)."""

    kind: str
    id: str
    machine: str
    t_ms: int


class Tail(Part):
    name = "tail"

    def __init__(self, core: "Core") -> None:
        self.core = core
        # The admission number that the next entry gets; what is below it is committed.
        self.number = 0
        # Told of each link, and with None that the number grew.
        self.followers: list[Callable[[Arrival | None], None]] = []
        core.on(ev.Committed, self._committed)
        core.on(ev.MachineHere, lambda event: self._link("link.up", event.machine))
        core.on(ev.MachineGone, self._gone)

    @contextmanager
    def moves(self, tell: Callable[[], object]) -> Iterator[None]:
        """As long as this lasts it is told of all that is committed, and of each link."""

        def follower(_arrival: Arrival | None) -> None:
            tell()

        self.followers.append(follower)
        try:
            yield
        finally:
            self.followers.remove(follower)

    def _committed(self, _event: ev.Committed) -> None:
        number = self.core.log.admissions
        if number != self.number:
            self.number = number
            for tell in self.followers:
                tell(None)

    def _gone(self, event: ev.MachineGone) -> None:
        # Where its process began anew its old links count no more, and a new one is here.
        if self.core.link_to(event.machine) is None:
            self._link("link.down", event.machine)

    def _link(self, kind: str, machine: str) -> None:
        name = self.core.membership.name_of(machine)
        for tell in self.followers:
            tell(Arrival(kind, "", name, self.core.now.wall_ms))
