"""What is erased of what is known: on each machine, as soon as it knows of it.

Rule 1: an erasure that counts (memory/state.py) takes the body, the salt and the rows of its target
from this machine, in the step that brings the later of the two, or the order that proves it.
Rule 2: nothing of it is remembered: after a start, and after a failure, all erasures are looked
through once more, some in each turn. What was done already costs one look.
Rule 3: one step erases a bounded number; the others go on in the next turn.
Rule 4: what an entry that counts no more said is kept here: nobody reads it, and it is evidence.
"""

from typing import TYPE_CHECKING, Final

from muster.fleet.kinds import ORDER_TAKE
from muster.limits import (
    MEMORY_ERASED_IN_STEP_MAX,
    MEMORY_ERASURES_LOOKED_MAX,
    MEMORY_UNPROVEN_MAX,
)
from muster.log.entry import Entry, EntryId
from muster.log.stream import StreamName
from muster.memory.fold import ERASED
from muster.node import event as ev
from muster.node.part import Part
from muster.node.services.memory import is_erasure
from muster.node.services.speakers import Speakers

if TYPE_CHECKING:
    from muster.node.core import Core

ERASABLE: Final = ("memory.put", "memory.refute")


class BodyErased(ev.Effect, frozen=True):
    """The disk may hold copies of what was erased: they are to be overwritten when it is quiet."""


class Erasures(Part):
    """See the rules at the top of this file."""

    name = "erasures"
    effects = (BodyErased, ev.Again)

    def __init__(self, core: "Core") -> None:
        self._core = core
        # Where erasures are whose proof is not here, by the order that they cite.
        self._unproven: dict[EntryId, list[tuple[StreamName, int]]] = {}
        self._aside = 0
        # Whether one stands in a thread whose keeper has not said yet that its writer is in it.
        self._unheard = False
        # The last change of the table that was looked at; None when all were.
        self._looked: int | None = None
        # How many this step has erased.
        self._erased = 0
        core.on("memory.erase", self._on_erasure)
        for kind in ERASABLE:
            core.on(kind, self._on_version)
        core.on(ORDER_TAKE, self._on_order)
        core.on(ev.RosterChanged, self._on_roster)
        core.on(ev.MemoryDoubtful, lambda _: self._look_through())
        core.on(ev.Turn, lambda _: self.tick())
        core.on(ev.Committed, self._committed)

    def start(self) -> None:
        if self._core.store.has_copies:
            self._core.do(BodyErased())
        self._look_through()

    @property
    def needs_tick(self) -> bool:
        return self._looked is not None

    def tick(self) -> None:
        """Look through the next of all erasures, once in a step."""
        core = self._core
        if self._looked is None or Erasures in core.of_step or core.store.waits:
            return
        core.of_step[Erasures] = None
        most = MEMORY_ERASURES_LOOKED_MAX
        found = core.tables.changes(ERASED, ("seq",), after=self._looked, limit=most)
        for number, _, stream, (seq,) in found:
            if self._erased >= MEMORY_ERASED_IN_STEP_MAX:
                break
            # Each for itself: one that fails keeps no other from being obeyed.
            core.guard.run(self.name, "", self._obey, stream, seq)
            self._looked = number
        else:
            if len(found) < most:
                self._looked = None
                return
        core.do(ev.Again())

    def _look_through(self) -> None:
        self._looked = -1
        self._core.do(ev.Again())

    # --- what comes -------------------------------------------------------------------------

    def _on_erasure(self, stream: StreamName, entry: Entry) -> None:
        self._obey_soon(stream, entry.header.seq)

    def _on_version(self, _stream: StreamName, entry: Entry) -> None:
        for tomb in self._core.tables.rows(ERASED, target=entry.id):
            self._obey_soon(tomb.stream, tomb.seq)

    def _on_order(self, _stream: StreamName, entry: Entry) -> None:
        for stream, seq in self._unproven.pop(entry.id, ()):
            self._aside -= 1
            self._obey_soon(stream, seq)

    def _on_roster(self, _event: ev.RosterChanged) -> None:
        """Whose order counts, and who is in a thread, may be known only now."""
        if self._unproven or self._unheard:
            self._unheard = False
            self._unproven.clear()
            self._aside = 0
            self._look_through()

    def _committed(self, _event: ev.Committed) -> None:
        self._erased = 0

    # --- what is done -----------------------------------------------------------------------

    def _obey_soon(self, stream: StreamName, seq: int) -> None:
        """Now, or in a turn to come where this step has done enough."""
        if self._erased < MEMORY_ERASED_IN_STEP_MAX:
            self._obey(stream, seq)
        elif self._looked is None:
            self._look_through()

    def _obey(self, stream: StreamName, seq: int) -> None:
        """Erase what an erasure is of, where that is here and it counts."""
        core = self._core
        tomb = core.tables.row(ERASED, stream, seq)
        target = core.log.entry(tomb.target) if tomb is not None else None
        if tomb is None or target is None or target.body is None:
            return
        if target.header.kind not in ERASABLE:
            return
        if is_erasure(core, tomb, target.stream):
            self._erased += 1
            core.store.erase_body(target.stream, target.header.seq)
            core.do(BodyErased())
        elif not Speakers(core).is_heard(stream):
            self._unheard = True
        elif tomb.order and self._aside < MEMORY_UNPROVEN_MAX:
            # What is beyond the bound is looked at again at the next start.
            self._aside += 1
            self._unproven.setdefault(tomb.order, []).append((stream, seq))
