"""Two copies of one machine: how that is told from one machine that was set back.

Rule 1: no clock decides. An incarnation comes after another where its opening names the other as
one that ended; an entry comes after what it cites, and after all that its author had seen.
Rule 2: a machine whose present incarnation is said to have ended was set back, or somebody runs a
copy of it: it opens a new one, once. If *that* one, which began in this very process, is said to
have ended as well, the copy runs now: nobody else could know of it.
Rule 3: others notice, too, where both go on: an incarnation that had ended says something about
an entry that we wrote after its end was known here, and so it lives. One that comes back may be a
restored backup; when the other one then comes back in the same way, there are two.
"""

from typing import TYPE_CHECKING

from muster.errors import Malformed
from muster.fleet import kinds
from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName
from muster.node import event as ev
from muster.node.incarnations.lives import title_of
from muster.node.part import Part
from muster.node.replica.forks import Regressed

if TYPE_CHECKING:
    from muster.node.core import Core

_Who = tuple[MachineId, Incarnation]


class CloneDetector(Part):
    """What is known of the incarnations of each machine; everything is read off the store."""

    name = "clones"

    def __init__(self, core: "Core") -> None:
        self.core = core
        core.on(kinds.MACHINE_OPEN, self.opened)
        core.on(ev.EntriesCame, self.advanced)
        core.on(ev.NewIncarnation, lambda _event: self.born.add(core.membership.incarnation))
        # Opened by this very process: nobody can have known of these before.
        self.born: set[Incarnation] = set()
        # What ended, and the admission number of the entry that showed it.
        self._ended: dict[_Who, int] = {}
        self._known: dict[MachineId, dict[Incarnation, None]] = {}
        self._came_back: dict[MachineId, Incarnation] = {}
        self._told: set[MachineId] = set()

    def start(self) -> None:
        store, own = self.core.store, self.core.membership.own(FLEET)
        if not store.log.size(own):
            self.born.add(own.incarnation)
        for stream in store.log.streams():
            first = store.log.slice(stream, 0, 1) if stream.scope == FLEET else ()
            if first:
                self._note(stream, first[0])

    def _note(self, stream: StreamName, opening: Entry) -> set[Incarnation]:
        """Remember what this opening says came before it; returns that."""
        machine = stream.machine
        self._known.setdefault(machine, {})[stream.incarnation] = None
        if opening.header.kind != kinds.MACHINE_OPEN:
            return set()
        try:
            names = [StreamName.parse(head) for head in body_as(opening, kinds.MachineOpen).heads]
        except (Skip, Malformed):
            return set()
        before = {
            name.incarnation
            for name in names
            if name.machine == machine and name.incarnation != stream.incarnation
        }
        number = self._number(opening)
        for incarnation in before:
            self._ended.setdefault((machine, incarnation), number)
        return before

    def opened(self, stream: StreamName, opening: Entry) -> None:
        """An incarnation began, perhaps one of ours that we know nothing of."""
        if opening.header.seq != 0:
            return
        membership, before = self.core.membership, self._note(stream, opening)
        present = membership.incarnation
        if stream.machine != membership.machine or stream.incarnation in self.born:
            return
        if present not in before:
            return
        if present in self.born:
            self._alarm(stream.machine)
        else:
            why = "another incarnation of this machine says that this one ended"
            self.core.tell(Regressed(membership.own(FLEET), why))

    def advanced(self, event: ev.EntriesCame) -> None:
        """Entries came: does an incarnation that had ended go on?"""
        stream, entries = event.stream, event.entries
        machine, incarnation = who = (stream.machine, stream.incarnation)
        ended = self._ended.get(who)
        if ended is None or machine in self._told:
            return
        found = next((e for e in entries if self._came_after(e, ended)), None)
        if found is None:
            return
        if self._came_back.setdefault(machine, incarnation) != incarnation:
            self._alarm(machine)
            return
        number = self._number(found)
        for other in self._known.get(machine, ()):
            if other != incarnation:
                self._ended[machine, other] = number

    def _came_after(self, entry: Entry, number: int) -> bool:
        """Whether it cites an entry of ours that we wrote when we knew of number `number`."""
        core = self.core
        for cause in entry.causes:
            cited = core.log.entry(cause)
            if cited is not None and cited.header.author == core.machine:
                return self._number(cited) > number
        return False

    def _number(self, entry: Entry) -> int:
        """Its place in the order in which entries came here."""
        found = self.core.log.admitted(entry.stream, entry.header.seq)
        return -1 if found is None else found[0]

    def _alarm(self, machine: MachineId) -> None:
        if machine in self._told:
            return
        self._told.add(machine)
        name = self.core.membership.name_of(machine)
        self.core.incidents.open(f"clone-{machine[:16]}", "critical", title_of(name))
