"""What all runs of a schedule may use up together in one day (UTC): a pot that its keepers keep.

Rule 1: whoever owns a run keeps its schedule's pot for it, in its own stream, as of the run's own.
Rule 2: what the schedule's other keepers reserved of theirs counts as far as it is known here: so
two of them that do not hear each other may each use up a day's worth, and no more.
Rule 3: what is kept by name goes on when the schedule is changed.
"""

from typing import TYPE_CHECKING, Final

from muster.log.entry import Entry
from muster.log.stream import MachineId
from muster.task import budget, pot
from muster.task.budget import Amount
from muster.task.budget_fold import RESERVATION, SETTLEMENT
from muster.task.schedule import Schedule
from muster.task.schedule_proof import fired, is_fired

if TYPE_CHECKING:
    from muster.node.core import Core

PREFIX: Final = "schedule:"


def schedule_of(core: "Core", starter: Entry) -> Schedule | None:
    """The schedule that began a run and has a budget, by the run's opening. Raises: Unproven."""
    if not is_fired(starter, core.log.entry):
        return None
    schedule = fired(starter, core.membership.fleet, core.log.entry).schedule
    return schedule if schedule.day_most else None


def state(core: "Core", schedule: Schedule) -> pot.State:
    """How today's pot of it stands, as far as is known here."""
    name, day = f"{PREFIX}{schedule.schedule}", pot.day_of(core.now.wall_ms)
    parts = list[pot.Part]()
    for writer in {core.machine, *map(MachineId, schedule.keepers)}:
        rows = core.tables.rows(SETTLEMENT, writer=writer, pot=name, day=day)
        ends = {row.key: row.amount for row in rows}
        held = core.tables.rows(RESERVATION, writer=writer, pot=name, day=day)
        parts += (pot.Part(row.amount, ends.get(row.key)) for row in held)
    return pot.state(schedule.day_most, parts)


def spent(core: "Core", schedule: Schedule) -> str:
    """Why it begins no more today, "" where it may."""
    most = schedule.day_most
    if not most:
        return ""
    used = state(core, schedule).used.of(most)
    if pot.share((pot.State(most, used, Amount()),), Amount()).none != pot.SPENT:
        return ""
    return f"{budget.SPENT}{budget.said(used)} of {budget.said(most)} are used today (UTC)"
