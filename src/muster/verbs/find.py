"""Which task or run a person means: the one whose id begins like what was typed.

Rule 1: only what somebody owns is meant; what others wrote under the same id is in nobody's way.
Rule 2: a run is understood where a task is asked, as far as it is clear which of its tasks; a task
is understood where a run is asked.
"""

from typing import Annotated, Final, NamedTuple

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.log.fold import Table
from muster.node.call.router import Router
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.ownership import Held, Ownership
from muster.node.verb import at_once
from muster.task.fold import RUN, TASK, RunRow, TaskRow, Work
from muster.verbs.declaration import Core, Request, pos

# As many as fit into a sentence.
_NAMED_MAX = 6
LIVE_OR_LOST: Final = OPEN | {"lost"}
_WORDS: Final = {"task": "`muster tasks --all`", "run": "`muster runs`"}


def find_task(core: Core, text: str) -> Held[TaskRow]:
    """The task that is meant. Raises: NotFound, Refused where it may be several."""
    if (found := _one(core, TASK, text)) is not None:
        return found
    runs = _beginning(core, RUN, text)
    if len(runs) != 1:
        raise _missing(core, TASK, text)
    run = runs[0].row.run
    tasks = at_once(core.part(Ownership).listing(TASK, _NAMED_MAX + 1, run=run)).rows
    if len(tasks) == 1:
        return _held(core, TASK, tasks[0].task)
    parts = [(t.task[:12], t.phase, t.instance) for t in tasks[:_NAMED_MAX]]
    named = ", ".join(f"{id} ({phase}{of and f'[{of}]'})" for id, phase, of in parts)
    raise Refused(
        f"{text[:40]!r} is the run {runs[0].row.name}; say which of its tasks: "
        f"{named or 'it has none yet'}{', …' if len(tasks) > _NAMED_MAX else ''}"
    )


def find_run(core: Core, text: str) -> Held[RunRow]:
    """The run that is meant. Raises: NotFound, Refused where it may be several."""
    if (found := _one(core, RUN, text)) is not None:
        return found
    tasks = _beginning(core, TASK, text)
    if len(tasks) == 1 and tasks[0].row.run:
        return _held(core, RUN, tasks[0].row.run)
    raise _missing(core, RUN, text)


class OfTask(Request, frozen=True):
    """What is asked about a task, and of nothing else."""

    task: Annotated[str, pos("task id (its beginning is enough)", kind="task")]


class Claim(Struct, frozen=True):
    """What another machine wrote about an id that is not its own."""

    machine: str
    state: str


def claims(core: Core, table: Table[Work], name: str) -> list[Claim]:
    """Who wrote about an id that is not theirs, and what they say it is."""
    return [
        Claim(core.membership.name_of(row.stream.machine), row.state)
        for row in core.part(Ownership).claims(table, name)
    ]


class Meant(NamedTuple):
    """What is meant, by its full id, and its owner; `there`: the owner can be asked now."""

    what: str
    id: str
    state: str
    open: bool
    owner: str
    machine: str
    there: bool


def whose(core: Core, text: str) -> Meant:
    """The task or run that is meant, and its owner. Raises: NotFound, Refused."""
    is_run = bool(_beginning(core, RUN, text))
    held = find_run(core, text) if is_run else find_task(core, text)
    record = core.roster.machines.get(held.owner)  # type: ignore[call-overload]
    there = held.owner == core.machine or core.part(Router).reaches(held.owner)
    return Meant(
        "run" if is_run else "task",
        held.row.id,
        held.row.state,
        # What its owner never settled can still be ended.
        held.row.state in LIVE_OR_LOST and not held.row.settled,
        core.membership.name_of(held.owner),
        held.owner,
        record is not None and there,
    )


def _one(core: Core, table: Table[Work], text: str) -> Held[Work] | None:
    found = _beginning(core, table, text)
    if len(found) > 1:
        raise Refused(f"more than one {table.name} begins with {text[:40]!r}; give more of its id")
    return found[0] if found else None


def _beginning(core: Core, table: Table[Work], text: str) -> list[Held[Work]]:
    if not text:
        return []
    whole = core.part(Ownership).held(table, text)
    return [whole] if whole is not None else core.part(Ownership).beginning(table, text)


def _held(core: Core, table: Table[Work], name: str) -> Held[Work]:
    found = core.part(Ownership).held(table, name)
    if found is None:
        raise _missing(core, table, name)
    return found


def _missing(core: Core, table: Table[Work], text: str) -> NotFound:
    said, what = claims(core, table, text) if text else [], table.name
    if said:
        names = ", ".join(sorted({each.machine for each in said}))
        return NotFound(f"{names} claims a {what} {text[:12]}, and no operator ordered it")
    return NotFound(f"no {what} begins with {text[:40]!r}; {_WORDS[what]} lists them")
