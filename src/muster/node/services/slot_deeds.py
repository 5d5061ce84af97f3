"""What becomes of a slot, or of what triggers a schedule, done and written down in one step."""

from typing import TYPE_CHECKING

from muster.log.entry import EntryId
from muster.node.counter import DECLARED
from muster.node.services import schedule_notices as notices
from muster.node.tasks.runs import RunService
from muster.node.tasks.slot_run import open_run
from muster.node.tasks.slots import Known
from muster.task.schedule import slot_run
from muster.task.schedule_kinds import ScheduleFire, ScheduleMiss, ScheduleSkip

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "slots-fired": "This machine fired slots of schedules.",
    "slots-missed": "This machine said of slots that they were missed or skipped.",
}


def fire(
    core: "Core", each: Known, fire: ScheduleFire, text: str, cause: tuple[EntryId, ...]
) -> None:
    """Its run begins, in the place of the one before where the schedule says so."""
    if each.schedule.overlap == "replace":
        cancel(core, each)
    fire, body = slot_run(core.membership.fleet, each.schedule, fire, text)
    entry = core.append_body(fire, cause=cause)
    core.part(RunService).open(body, (entry.id,), "muster")
    core.counters["slots-fired"] += 1
    notices.fired(core, each)


def tell(
    core: "Core", each: Known, body: ScheduleMiss | ScheduleSkip, cause: tuple[EntryId, ...]
) -> None:
    """Nothing runs, and why."""
    core.append_body(body, cause=cause)
    core.counters["slots-missed"] += 1
    if body.reason.startswith("not-allowed"):
        notices.denied(core, each, body.reason)


def cancel(core: "Core", each: Known) -> None:
    """End the run before, where it is ours."""
    run = open_run(core, each.row.name, (core.machine,))
    service = core.part(RunService)
    held = service.runs.get(run.run) if run is not None else None
    if held is not None and not held.progress.cancelled:
        service.cancel(held.run, "the next slot of its schedule replaces it")
