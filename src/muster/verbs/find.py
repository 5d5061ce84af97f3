"""Which task or run a person means: by the beginning of its id, its place in a run, or its name.

    7d5e            a task or a run whose id begins so
    1ae7/test       the task of this phase of a run; test[src/a] where it has several
    nightly         the newest run of the spec of this name; nightly/test a task of it

Rule 1: only what somebody owns is meant; what others wrote under the same id is in nobody's way.
Rule 2: a run is understood where a task is asked, as far as it is clear which of its tasks; a task
is understood where a run is asked. Where it is not clear, what there is to choose from is said.
Rule 3: an id counts before a name: who names a spec `7d5e` types more of the id.
"""

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import Annotated, Final, NamedTuple

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.log.fold import Table
from muster.node.call.router import Router
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.kept import kept_of
from muster.node.tasks.ownership import Held, Ownership
from muster.node.verb import at_once
from muster.task.fold import RUN, TASK, RunRow, TaskRow, Work
from muster.task.review import round_of
from muster.verbs.declaration import Core, Request, pos

# As many as fit into a sentence.
_NAMED_MAX = 6
LIVE_OR_LOST: Final = OPEN | {"lost"}
_WORDS: Final = {"task": "`muster tasks --all`", "run": "`muster runs`"}
# A phase of a run, and one of its instances.
_PLACE: Final = re.compile(r"([A-Za-z0-9_-]+)(?:\[(.*)\])?", re.DOTALL)


def find_task(core: Core, text: str) -> Held[TaskRow]:
    """The task that is meant. Raises: NotFound, Refused where it may be several."""
    if (found := _one(core, TASK, text)) is not None:
        return found
    name, _, place = text.partition("/")
    run = _run(core, name)
    if run is None:
        raise _missing(core, TASK, text)
    tasks = _at(core, run.row.run, place)
    if len(tasks) == 1:
        return _held(core, TASK, tasks[0].task)
    if place and not tasks:
        raise NotFound(
            f"run {run.row.run[:12]} ({run.row.name}) has no task {place[:80]!r}; "
            f"`muster runs {run.row.run[:12]}` shows those it has"
        )
    raise Refused(
        f"{text[:40]!r} is the run {run.row.name}; say which of its tasks: "
        f"{_choices(_called(run.row.run[:12], each) for each in tasks) or 'it has none yet'}"
    )


def find_run(core: Core, text: str) -> Held[RunRow]:
    """The run that is meant. Raises: NotFound, Refused where it may be several."""
    name, slash, place = text.partition("/")
    found = _run(core, name)
    if found is None and not slash:
        tasks = _beginning(core, TASK, text)
        runs = {each.row.run for each in tasks}
        if len(runs) == 1 and "" not in runs:
            return _held(core, RUN, runs.pop())
    if found is None:
        raise _missing(core, RUN, text)
    if slash and not _at(core, found.row.run, place):
        raise NotFound(f"run {found.row.run[:12]} ({found.row.name}) has no task {place[:80]!r}")
    return found


def _run(core: Core, text: str) -> Held[RunRow] | None:
    """The run whose id begins so, else the newest one of this name."""
    if (found := _one(core, RUN, text)) is not None or not text:
        return found
    newest = at_once(core.part(Ownership).listing(RUN, 1, name=text)).rows
    return _held(core, RUN, newest[0].run) if newest else None


def _at(core: Core, run: str, place: str) -> list[TaskRow]:
    """The tasks at a place of a run, a few of them; of all places for "". Of rounds the last."""
    where, last = {"run": run}, False
    owner = core.part(Ownership).owner(RUN, run) or ""
    kept = kept_of(core.store, owner, run)
    if place:
        parts = _PLACE.fullmatch(place)
        if parts is None:
            return []
        where = {"run": kept.get(parts[1], run), "phase": parts[1]}
        last = parts[2] is None
        if parts[2] is not None:
            # The first round has the place of any single task.
            where["instance"] = "" if round_of(parts[2]) == 1 else parts[2]
    rows = at_once(core.part(Ownership).listing(TASK, _NAMED_MAX + 1, **where)).rows
    if last and all(round_of(row.instance) for row in rows):
        rows = sorted(rows, key=lambda row: round_of(row.instance))[-1:]
    return sorted(rows, key=attrgetter("opened_ms", "phase", "instance"))


def _called(run: str, task: TaskRow) -> str:
    """A task by its place, as it may be typed."""
    return f"{run}/{task.phase}" + (f"[{task.instance}]" if task.instance else "")


def _choices(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_NAMED_MAX]) + (", …" if len(found) > _NAMED_MAX else "")


class OfTask(Request, frozen=True):
    """What is asked about a task, and of nothing else."""

    task: Annotated[str, pos("task id (its beginning is enough), or RUN/PHASE", kind="task")]


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
    is_run = "/" not in text and bool(
        _beginning(core, RUN, text) or not _beginning(core, TASK, text)
    )
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
        named = _choices(f"{each.row.id[:12]} ({_said(each.row)})" for each in found)
        raise Refused(
            f"more than one {table.name} begins with {text[:40]!r}; give more of its id: {named}"
        )
    return found[0] if found else None


def _said(row: TaskRow | RunRow) -> str:
    if isinstance(row, RunRow):
        return f"{row.name}, {row.state}"
    return f"{row.phase or 'no phase'}, {row.state}"


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
    return NotFound(
        f"no task or run begins with {text[:40]!r}, and no run is of a spec of that name; "
        f"{_WORDS[what]} lists them"
    )
