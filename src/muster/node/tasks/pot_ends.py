"""What was reserved of the pots that are kept here is settled by the ends of the attempts.

Rule 1: an end, a reservation, a takeover of a run and our own return come in any order. Each of
them is a reason to look for what it completes, and what is found is settled once.
Rule 2: who goes on with a run settles what its owners before had reserved, in its own stream. Of
people's money nobody takes anything over.
Rule 3: an end that says nothing counts with all that was reserved; no end at all stays reserved.
Rule 4: an end that says more than any attempt can use counts with that, and is told to a person.
"""

from typing import TYPE_CHECKING, NamedTuple

from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId, StreamName
from muster.node import event as ev
from muster.task import budget, budget_kinds, kinds, pot
from muster.task.budget import Amount
from muster.task.budget_fold import RESERVATION, SETTLEMENT, ReservationRow
from muster.task.fold import ADOPTION, ATTEMPT, RUN, AttemptRow, of_attempt

if TYPE_CHECKING:
    from muster.node.core import Core

_RUN = "run:"


def writers_of(core: "Core", name: str) -> list[MachineId]:
    """Who wrote what was reserved of a pot of ours: we, and of a run its owners before us."""
    writers = [core.machine]
    if name.startswith(_RUN):
        taken = core.tables.rows(ADOPTION, what=name.removeprefix(_RUN))
        # It grows as it is read: an owner before may have taken it over itself.
        for writer in writers:
            before = (MachineId(row.owner) for row in taken if row.stream.machine == writer)
            writers += [each for each in before if each not in writers]
    return writers


class End(NamedTuple):
    """The end of an attempt for which something was reserved: what it used, what counts of it."""

    entry: EntryId
    used: budget.Used
    counts: Amount


def end_of(core: "Core", row: ReservationRow) -> End | None:
    """None where its worker has not said yet that it has ended."""
    where = of_attempt(row.task, (row.epoch_order, row.epoch_count))
    found = core.tables.rows(ATTEMPT, writer=row.worker, **where)
    end = next((each for each in found if each.ended), None)
    if end is None:
        return None
    used = budget.used(_usage(core, end))
    return End(end.ended, used, pot.counted(used.amount, row.amount) if used.known else row.amount)


def _usage(core: "Core", end: AttemptRow) -> dict[str, int]:
    """Who refused had not begun; of what cannot be read any more nobody knows anything."""
    if end.state == "refused":
        return {budget.METERED: 1}
    entry = core.log.entry(end.ended)
    body = body_or_none(entry, kinds.AttemptFinish) if entry is not None else None
    return body.usage if body is not None else {}


class PotEnds:
    """See the rules at the top of this file."""

    def __init__(self, core: "Core") -> None:
        self._core = core
        for kind in ("attempt.finish", "attempt.refuse", "budget.reserve"):
            core.on(kind, self._on_attempt)
        core.on("task.adopt", self._on_adopt)
        core.on(ev.HeadConfirmed, lambda _: self.look())

    def look(self) -> None:
        """Whatever came while we could not write. What is over for good is not looked at again:
        of people's money the months before, of a run that has ended all.
        """
        core, tables = self._core, self._core.tables
        if not core.settled:
            return
        first = pot.month_of(pot.day_of(core.now.wall_ms))
        for row in tables.rows(RESERVATION, writer=core.machine, above={"day": first - 1}):
            self._settle(row)
        for run in tables.rows(RUN, writer=core.machine, state="open"):
            self._look_at(f"{_RUN}{run.run}")

    def _look_at(self, name: str) -> None:
        for writer in writers_of(self._core, name):
            for row in self._core.tables.rows(RESERVATION, writer=writer, pot=name):
                self._settle(row)

    def _on_attempt(self, _stream: StreamName, entry: Entry) -> None:
        """One of the two came that make a settlement."""
        core = self._core
        body = (
            body_or_none(entry, kinds.AttemptFinish)
            or body_or_none(entry, kinds.AttemptRefuse)
            or body_or_none(entry, budget_kinds.BudgetReserve)
        )
        if body is None or not core.settled:
            return
        for row in core.tables.rows(RESERVATION, **of_attempt(body.task, body.epoch)):
            if row.stream.machine in writers_of(core, row.pot):
                self._settle(row)

    def _on_adopt(self, _stream: StreamName, entry: Entry) -> None:
        """A run goes on here, or whoever it was taken over from had taken it over, too."""
        body = body_or_none(entry, kinds.TaskAdopt)
        if body is not None and self._core.settled:
            self._look_at(f"{_RUN}{body.what}")

    def _settle(self, row: ReservationRow) -> None:
        """Once, and only where its worker said that it has ended."""
        core, where = self._core, of_attempt(row.task, (row.epoch_order, row.epoch_count))
        if core.tables.rows(SETTLEMENT, writer=core.machine, pot=row.pot, **where, limit=1):
            return
        end = end_of(core, row)
        if end is None:
            return
        used, amount = end.used, end.counts
        self._tell(row, used.amount, amount)
        settled = budget_kinds.BudgetSettle(
            row.task, row.key[1:], row.pot, amount.tokens, amount.usd_millionths, used.estimated
        )
        core.append_body(settled, cause=(row.entry, end.entry))

    def _tell(self, row: ReservationRow, said: Amount, counts: Amount) -> None:
        """A machine that says it used what no attempt can; over when its next end can be."""
        core, key = self._core, f"spent-{row.worker[:16]}"
        if said.is_above(counts):
            title = (
                f"{core.membership.name_of(row.worker)} says that its attempt of task "
                f"{row.task[:12]} used {budget.said(said.of(row.amount))}, for which "
                f"{budget.said(row.amount)} were reserved: {budget.said(counts.of(row.amount))} "
                "of that count; see whether its gateway holds its agents to their limits"
            )
            core.incidents.open(key, "warning", title)
        elif said:
            core.incidents.close(key, "what it used is within what it was given")
