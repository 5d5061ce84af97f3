"""Which task or run a person means: by the beginning of its id, its place in a run, or its name.

    7d5e            a task or a run whose id begins so
    1ae7/test       the task of this phase of a run; test[src/a] where it has several
    nightly         the newest run of the spec of this name; nightly/test a task of it
    nightly-1ae7c03d  the run whose work `muster checkout` put on a branch of this name
    nightly@studio  the newest of those that this machine owns; nightly@studio/test a task of it

Rule 1: only what somebody owns is meant; what others wrote under the same id is in nobody's way.
Rule 2: a run is understood where a task is asked, as far as it is clear which of its tasks; a task
is understood where a run is asked. Where it is not clear, what there is to choose from is said.
Rule 3: a whole id counts before a name. What may be two things is refused with both of them, for
somebody may be about to cancel one: a spec named `cafe` while a run's id begins so, or the
beginning of a run's id and of a task's where either may be meant.
"""

import re
from collections.abc import Iterable
from operator import attrgetter
from typing import Annotated, Any, Final, NamedTuple

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.log.fold import Table
from muster.log.stream import MachineId
from muster.node.call.router import Router
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.kept import kept_of
from muster.node.tasks.one_run import second
from muster.node.tasks.ownership import Held, Ownership
from muster.node.verb import at_once
from muster.task.fold import RUN, TASK, RunRow, TaskRow, Work
from muster.task.review import round_of
from muster.verbs.declaration import Core, Request, pos

# As many as fit into a sentence.
_NAMED_MAX = 6
# Of those of a name that a machine opened, so many may have been gone on with by another one.
_NEWEST_MAX: Final = 200
LIVE_OR_LOST: Final = OPEN | {"lost"}
_WORDS: Final = {"task": "`muster tasks --all`", "run": "`muster runs`"}
# What `checkout` calls the branch of a run.
_BRANCH: Final = re.compile(r"(.+)-([0-9a-f]{8})")
# A phase of a run, and one of its instances.
_PLACE: Final = re.compile(r"([A-Za-z0-9_-]+)(?:\[(.*)\])?", re.DOTALL)


def find_task(core: Core, text: str) -> Held[TaskRow]:
    """The task that is meant. Raises: NotFound, Refused where it may be several."""
    if (found := _one(core, TASK, text)) is not None:
        if text != found.row.id:
            _check_no_name(core, text, found.row)
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
        f"{_choices(called(run.row.run[:12], each) for each in tasks) or 'it has none yet'}"
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


def telling_task(core: Core, text: str) -> tuple[Held[TaskRow], bool]:
    """The task that is meant and, of several, that of which there is most to tell: one that runs,
    else the newest that failed, that waits, that is over; whether it was chosen so.

    Raises: NotFound, Refused where the run may be several.
    """
    name, _, place = text.partition("/")
    run = None if _beginning(core, TASK, text) else _run(core, name)
    where = None if run is None else _where(core, run.row.run, place)
    if run is None or where is None or len(_at(core, run.row.run, place)) < 2:
        return find_task(core, text), False
    for states in (("leased",), ("failed", "lost"), ("waiting", "queued"), ()):
        rows = at_once(core.part(Ownership).listing(TASK, 1, states, **where)).rows
        if rows:
            return _held(core, TASK, rows[0].task), True
    return find_task(core, text), False


def _run(core: Core, text: str) -> Held[RunRow] | None:
    """The run whose id begins so, or the newest one of this name. Raises: Refused for both."""
    name, at, machine = text.rpartition("@")
    if at:
        return _owned(core, name, core.roster.find(machine).machine)
    found = _one(core, RUN, text)
    if found is None:
        newest = _newest(core, text)
        return _held(core, RUN, newest.run) if newest else _of_branch(core, text)
    if text != found.row.run:
        _check_no_name(core, text, found.row)
    return found


def _newest(core: Core, name: str) -> RunRow | None:
    """The newest run of the spec of this name."""
    rows = at_once(core.part(Ownership).listing(RUN, 1, name=name)).rows if name else []
    return rows[0] if rows else None


def _owned(core: Core, name: str, machine: MachineId) -> Held[RunRow] | None:
    """The newest run of this name, or of this branch, that a machine owns."""
    rows = core.tables.rows(
        RUN, writer=machine, name=name, order=("-opened_ms",), limit=_NEWEST_MAX
    )
    found = (core.part(Ownership).held(RUN, row.run) for row in rows)
    newest = next((each for each in found if each and each.owner == machine), None)
    branch = _of_branch(core, name) if newest is None else None
    return branch if branch is not None and branch.owner == machine else newest


def _of_branch(core: Core, text: str) -> Held[RunRow] | None:
    """The run whose work has a branch of this name."""
    branch = _BRANCH.fullmatch(text)
    found = _one(core, RUN, branch[2]) if branch else None
    return found if branch and found is not None and found.row.name == branch[1] else None


def _check_no_name(core: Core, text: str, begins: TaskRow | RunRow) -> None:
    """Raises: Refused where the beginning of this id is also the name of another run's spec."""
    newest = _newest(core, text)
    if newest is not None and newest.run != begins.run:
        named = _choices(f"{row.id[:12]} ({_said(row)})" for row in (newest, begins))
        raise Refused(
            f"{text[:40]!r} is the name of a spec, and another id begins so; give more of the id "
            f"that is meant: {named}"
        )


def _at(core: Core, run: str, place: str) -> list[TaskRow]:
    """The tasks at a place of a run, a few of them; of all places for "". Of rounds the last."""
    where = _where(core, run, place)
    if where is None:
        return []
    rows = at_once(core.part(Ownership).listing(TASK, _NAMED_MAX + 1, **where)).rows
    if place and "instance" not in where and all(round_of(row.instance) for row in rows):
        rows = sorted(rows, key=lambda row: round_of(row.instance))[-1:]
    return sorted(rows, key=attrgetter("opened_ms", "phase", "instance"))


def _where(core: Core, run: str, place: str) -> dict[str, str] | None:
    """What the rows at a place of a run have in common; None for what is no place."""
    if not place:
        return {"run": run}
    parts = _PLACE.fullmatch(place)
    if parts is None:
        return None
    kept = kept_of(core.store, core.part(Ownership).owner(RUN, run) or "", run)
    where = {"run": kept.get(parts[1], run), "phase": parts[1]}
    if parts[2] is not None:
        # The first round has the place of any single task.
        where["instance"] = "" if round_of(parts[2]) == 1 else parts[2]
    return where


def called(run: str, task: TaskRow) -> str:
    """A task by its place, as it may be typed."""
    return f"{run}/{task.phase}" + (f"[{task.instance}]" if task.instance else "")


def _choices(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:_NAMED_MAX]) + (", …" if len(found) > _NAMED_MAX else "")


class OfTask(Request, frozen=True):
    """What is asked about a task, and of nothing else."""

    task: Annotated[str, pos("task id (its beginning is enough), or RUN/PHASE", kind="task")]


class OfTaskOrMessage(Request, frozen=True):
    """What is asked about a task, or about a message of ours."""

    task: Annotated[
        str,
        pos("task id (its beginning is enough), RUN/PHASE, or the id of a message of ours",
            kind="task"),
    ]  # fmt: skip


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
    runs = [] if "/" in text else _beginning(core, RUN, text)
    tasks = _beginning(core, TASK, text)
    if runs and tasks and text not in (runs[0].row.id, tasks[0].row.id):
        rows: list[RunRow | TaskRow] = [*(each.row for each in runs), *(each.row for each in tasks)]
        named = _choices(f"{row.id[:12]} ({_said(row)})" for row in rows)
        raise Refused(
            f"a run and a task begin with {text[:40]!r}; give more of the id that is meant: {named}"
        )
    is_run = "/" not in text and bool(runs or not tasks)
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
    rows: list[Any] = core.part(Ownership).claims(table, text) if said else []
    for name in (*(row.run for row in rows if row.run), text):
        if name and (found := second(core, name)) is not None:
            return NotFound(
                f"{core.membership.name_of(found.owner)} began run {found.run[:12]} by the order "
                f"that began its run {found.counts[:12]}: one order is one run, and this one "
                f"counts for nothing; `muster runs {found.counts[:12]}` shows the one that does"
            )
    if said:
        names = ", ".join(sorted({each.machine for each in said}))
        return NotFound(f"{names} claims a {what} {text[:12]}, and no operator ordered it")
    return NotFound(
        f"no task or run begins with {text[:40]!r}, and no run is of a spec of that name; "
        f"{_WORDS[what]} lists them"
    )
