"""Which of several that stand in for a machine does so now: whoever is elected at a NATS quorum.

Rule 1: an operator named them all, and nobody else is a candidate. The election keeps two of them
from doing the same; who has what is told by the log and the fences of git, as without one.
Rule 2: a candidate seeks election while the machine is gone, or another candidate that went on with
its work, and for as long as it has such work itself: it keeps whom it elected from being followed.
Rule 3: whoever is elected adopts under the place that it said there, and not above: so whoever is
elected after it, and never heard what it wrote, has a higher one.
Rule 4: without a quorum nobody is elected. Whom the order names first goes on alone then, when for
the time of a lease nobody was seen to be elected.
Rule 5: of another candidate's work only that is taken which it has by the same order.
"""

from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.limits import CLOCK_AHEAD_MS_MAX, ELECTION_TTL_MS
from muster.log.entry import EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.part import Part
from muster.node.tasks.ownership import Ownership
from muster.task.fold import ADOPTION, RUN, TASK, AdoptionRow, RunRow, TaskRow
from muster.task.standin import FleetStandin, StandinRow
from muster.task.state import LIVE

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "elected": "This machine was elected to go on with the work of another one that is gone.",
}

# Where several orders speak about one machine each has its turn for so long.
_TURN_MS: Final = 20_000
# What work of others this machine has is looked at so often.
_LOOK_MS: Final = 5_000


class Campaign(ev.Effect, frozen=True):
    """Seek election about the work of a machine among these, under a place no lower than this one;
    with nobody named, no more. Answer with `Elected` whenever something was learned.
    """

    of: str
    named: tuple[str, ...]
    place: int


class Elected(ev.Event, frozen=True):
    """What is known: `until_ms` is when this machine stops being elected (0: it is not), by its
    boot clock, under `place`; `living_ms` when anybody was last seen to be.
    """

    of: str
    place: int
    until_ms: int
    living_ms: int


class _Sought(NamedTuple):
    effect: Campaign
    since_ms: int


class Elections(Part):
    name = "elections"
    effects = (Campaign,)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._owned = core.part(Ownership)
        self._sought: dict[str, _Sought] = {}
        self._known: dict[str, Elected] = {}
        # The place that some of the work of a machine needs.
        self._needs: dict[str, int] = {}
        # Whose work this machine has, when that was looked at last.
        self._has: set[str] = set()
        self._look_ms = 0
        core.on(Elected, self._on_elected)

    # --- whose work -------------------------------------------------------------------------

    def claims(self, named: Mapping[str, StandinRow]) -> dict[str, StandinRow]:
        """By machine the order by which this one may go on with its work."""
        me = self.core.machine
        found = {m: row for m, row in named.items() if me in row.named and m != me}
        beside: dict[str, list[StandinRow]] = {}
        for machine, row in found.items():
            for other in {*row.named} - {me, machine, *found}:
                if self._went_on(other, machine):
                    beside.setdefault(other, []).append(row)
        turn = self.core.now.boot_ms // _TURN_MS
        return found | {other: rows[turn % len(rows)] for other, rows in beside.items()}

    def _went_on(self, by: str, of: str) -> bool:
        rows = self.core.tables.rows
        return bool(rows(ADOPTION, writer=MachineId(by), owner=of, limit=1))

    def of_order(
        self, machine: str, order: EntryId, rows: Iterable[RunRow | TaskRow]
    ) -> list[RunRow | TaskRow]:
        """Of a machine's work what an order reaches."""
        named = body_or_none(self.core.log.entry(order), FleetStandin)
        if named is None or named.machine == machine:
            return [*rows]
        return [row for row in rows if named.machine in self._owners_before(machine, row.id)]

    def adopted_by(self, of: str) -> list[AdoptionRow]:
        """What this machine went on with by orders about another one's work."""
        every = self.core.tables.rows(ADOPTION, writer=self.core.machine)
        return [r for r in every if of in self._owners_before(self.core.machine, r.what)]

    def _owners_before(self, machine: str, what: str) -> set[str]:
        """Who had it before a machine, as adoptions say: whoever judges it looks at each."""
        found, at = set[str](), {machine}
        while at:
            rows = [
                r
                for m in at
                for r in self.core.tables.rows(ADOPTION, writer=MachineId(m), what=what)
            ]
            at = {row.owner for row in rows} - found
            found |= at
        return found

    # --- who is elected -----------------------------------------------------------------------

    def elected(
        self, claims: Mapping[str, StandinRow], gone: Collection[MachineId]
    ) -> list[MachineId]:
        """Those that are gone and with whose work this machine goes on now."""
        wanted: dict[str, StandinRow] = {}
        for row in claims.values():
            if row.others and row.machine not in wanted and self._seeks(row, claims, gone):
                wanted[row.machine] = row
        for machine, row in wanted.items():
            self._seek(machine, row)
        for machine in self._sought.keys() - wanted.keys():
            del self._sought[machine]
            self._known.pop(machine, None)
            self._needs.pop(machine, None)
            self.core.do(Campaign(machine, (), 0))
        return [m for m in gone if not claims[m].others or self._may(claims[m].machine)]

    def _seeks(
        self, row: StandinRow, claims: Mapping[str, StandinRow], gone: Collection[MachineId]
    ) -> bool:
        if any(claims[m].machine == row.machine for m in gone):
            return True
        now_ms = self.core.now.boot_ms
        if now_ms >= self._look_ms:
            self._look_ms, self._has = now_ms + _LOOK_MS, self._work_before()
        return row.machine in self._has

    def _work_before(self) -> set[str]:
        """Whose work this machine has now that is not done."""
        me, rows, owner = self.core.machine, self.core.tables.rows, self._owned.owner
        runs = [r for r in rows(RUN, writer=me, state="open") if owner(RUN, r.run) == me]
        alone = [r for state in sorted(LIVE) for r in rows(TASK, writer=me, state=state, run="")]
        tasks = [r for r in alone if owner(TASK, r.task) == me]
        names = [*(row.run for row in runs), *(row.task for row in tasks)]
        return set[str]().union(*(self._owners_before(me, name) for name in names))

    def _seek(self, of: str, row: StandinRow) -> None:
        before = self._sought.get(of)
        effect = Campaign(of, row.named, max(self._owned.place(), self._needs.get(of, 0)))
        if before is None or before.effect != effect:
            since_ms = self.core.now.boot_ms if before is None else before.since_ms
            self._sought[of] = _Sought(effect, since_ms)
            self.core.do(effect)

    def _on_elected(self, event: Elected) -> None:
        if event.of not in self._sought:
            return
        before = self._known.get(event.of)
        if event.until_ms and (before is None or not before.until_ms):
            self.core.counters["elected"] += 1
        self._known[event.of] = event

    def may(self, order: EntryId) -> bool:
        """Whether this machine goes on with work by an order now."""
        named = body_or_none(self.core.log.entry(order), FleetStandin)
        return named is None or not named.others or self._may(named.machine)

    def _may(self, of: str) -> bool:
        sought, known = self._sought.get(of), self._known.get(of)
        if sought is None:
            return False
        now_ms = self.core.now.boot_ms
        if known is not None and now_ms < known.until_ms:
            return True
        first = sought.effect.named[:1] == (self.core.machine,)
        living_ms = max(sought.since_ms, known.living_ms if known is not None else 0)
        return first and now_ms - living_ms >= ELECTION_TTL_MS

    def place(self, order: EntryId, least: int) -> int:
        """The place under which work is adopted by an order, that needs one no lower; 0 where this
        machine has to say a higher one first.
        """
        named = body_or_none(self.core.log.entry(order), FleetStandin)
        known = None if named is None else self._known.get(named.machine)
        own = max(self._owned.place(), least)
        if known is None or self.core.now.boot_ms >= known.until_ms:
            return own
        if own > known.place:
            self._needs[known.of] = own
            return 0
        return known.place


def place_before(core: "Core", row: RunRow | TaskRow, tasks: Iterable[TaskRow]) -> int:
    """The highest place under which the owner before gave it, or has it."""
    known = core.tables.rows(ADOPTION, writer=row.stream.machine, what=row.id)
    return max(
        [*(task.epoch_order for task in tasks), *(each.generation for each in known)], default=0
    )


def above_any(core: "Core", place: int) -> bool:
    """Whether nobody would believe who goes on with it: whoever is gone may have lied."""
    return place > core.now.wall_ms + CLOCK_AHEAD_MS_MAX
