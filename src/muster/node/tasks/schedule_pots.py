"""What all runs of a schedule may use up together in one day (UTC): a pot that its keepers keep.

Rule 1: whoever owns a run keeps its schedule's pot for it, in its own stream, as of the run's own.
Rule 2: what the schedule's other keepers reserved of theirs, and who goes on with what they fired,
counts as far as it is known here: so two of them that do not hear each other may each use up a
day's worth, and no more. Nobody else's word takes anything out of it.
Rule 3: what was reserved counts until its attempt has ended, by whoever says so: the worker itself,
or the keeper that settled it. A keeper that is gone for ever holds nothing that way.
Rule 4: what is kept by name goes on when the schedule is changed; who is no keeper any more takes
along what it had reserved.
"""

from typing import TYPE_CHECKING, Any, Final

from muster.log.entry import Entry
from muster.log.stream import MachineId
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.pot_ends import end_of
from muster.task import budget, pot
from muster.task.budget import Amount
from muster.task.budget_fold import RESERVATION, SETTLEMENT, ReservationRow
from muster.task.fold import RUN
from muster.task.schedule import Schedule
from muster.task.schedule_fold import SCHEDULE, SLOT
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
    writers = {core.machine, *map(MachineId, schedule.keepers)}
    if core.tables.writers(RESERVATION, pot=name, day=day) - writers:
        writers |= _going_on(core, schedule, day)
    ends, held = dict[pot.Key, Amount](), dict[pot.Key, ReservationRow]()
    for writer in sorted(writers):
        for settled in core.tables.rows(SETTLEMENT, writer=writer, pot=name, day=day):
            ends[settled.key] = settled.amount
        for row in core.tables.rows(RESERVATION, writer=writer, pot=name, day=day):
            held[row.key] = row
    for key, row in held.items():
        if key not in ends and (end := end_of(core, row)):
            ends[key] = end.counts
    return pot.state(
        schedule.day_most, (pot.Part(row.amount, ends.get(key)) for key, row in held.items())
    )


def _going_on(core: "Core", schedule: Schedule, day: int) -> set[MachineId]:
    """Who owns today what a keeper of this schedule fired, in that one's place."""
    found, ownership = set[MachineId](), core.part(Ownership)
    for revision in core.tables.rows(SCHEDULE, name=schedule.schedule):
        its: dict[str, Any] = {"schedule": revision.schedule, "what": "fire"}
        for keeper in schedule.keepers:
            for row in core.tables.rows(SLOT, writer=keeper, order=("-at_ms",), **its):
                if pot.day_of(row.at_ms) < day:
                    break
                held = ownership.held(RUN, row.run)
                if held is not None:
                    found.add(MachineId(held.owner))
    return found


def spent(core: "Core", schedule: Schedule) -> str:
    """Why it begins no more today, "" where it may."""
    most = schedule.day_most
    if not most:
        return ""
    used = state(core, schedule).used.of(most)
    if pot.share((pot.State(most, used, Amount()),), Amount()).none != pot.SPENT:
        return ""
    return f"{budget.SPENT}{budget.said(used)} of {budget.said(most)} are used today (UTC)"
