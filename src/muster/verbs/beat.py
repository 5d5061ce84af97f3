"""Heartbeats: what worker and owner tell each other about leases. Frames, never entries."""

from typing import Annotated

from msgspec import Meta

from muster.limits import INT_ABS_MAX, KEY_CHARS_MAX, OPEN_TASKS_MAX
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.worker import WorkerService
from muster.node.verb import LATER, Later
from muster.task.instruction import BeatReply, Stop
from muster.task.open_task import Beat as Lease
from muster.verbs.declaration import Call, Core, Request, data, verb

Task = Annotated[str, Meta(max_length=KEY_CHARS_MAX)]
Count = Annotated[int, Meta(ge=0, le=INT_ABS_MAX)]
Leases = Annotated[list[tuple[Task, Count, Count]], Meta(max_length=OPEN_TASKS_MAX)]
# What it says of its progress goes back to the worker, so it must be sayable.
Held = Annotated[list[tuple[Task, Count, Count, str]], Meta(max_length=OPEN_TASKS_MAX)]


class Beat(Request, frozen=True, forbid_unknown_fields=False):
    mark: Annotated[str, data()] = ""
    holds: Annotated[Held, data()] = []  # noqa: RUF012 - msgspec copies it


@verb("beat", auth="peer")
def beat(core: Core, call: Call, ask: Beat) -> Later:
    """A worker's heartbeat to an owner: it lives, and holds these leases."""
    held = [Lease(task, (a, b), progress[:500]) for task, a, b, progress in ask.holds]
    core.part(OwnerService).beat(call.peer, ask.mark[:100], held)
    return LATER


class Hold(Request, frozen=True, forbid_unknown_fields=False):
    mark: Annotated[str, data()]
    held: Annotated[Leases, data()]
    gone: Annotated[Leases, data()]


@verb("hold", auth="peer")
def hold(core: Core, call: Call, ask: Hold) -> Later:
    """An owner's answer to a heartbeat."""
    held, gone = (tuple((t, (a, b)) for t, a, b in each) for each in (ask.held, ask.gone))
    core.part(WorkerService).on_owner(call.peer, BeatReply(core.machine, ask.mark, held, gone))
    return LATER


class Release(Request, frozen=True, forbid_unknown_fields=False):
    task: Annotated[Task, data()]
    epoch: Annotated[tuple[Count, Count], data()]
    reason: Annotated[str, data()] = ""


@verb("release", auth="peer")
def release(core: Core, call: Call, ask: Release) -> Later:
    """An owner ends an attempt."""
    said = Stop(core.machine, ask.task, ask.epoch, ask.reason)
    core.part(WorkerService).on_owner(call.peer, said)
    return LATER
