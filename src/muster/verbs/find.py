"""Which task or run a person means: the one whose id begins like what was typed.

Rule 1: only what somebody owns is meant; what others wrote under the same id is in nobody's way.
Rule 2: a run is understood where a task is asked, as far as it is clear which of its tasks; a task
is understood where a run is asked.
"""

from typing import Annotated, Final, NamedTuple

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.node.call.router import Router
from muster.node.tasks.ended_work import OPEN
from muster.node.tasks.ownership import Held, Ownership, What, writer_of
from muster.node.verb import at_once
from muster.verbs.declaration import Core, Request, pos

# As many as fit into a sentence.
_NAMED_MAX = 6
LIVE_OR_LOST: Final = OPEN | {"lost"}
TASK: Final = pos("task id (its beginning is enough)", kind="task")
_WORDS: dict[What, str] = {"task": "`muster tasks --all`", "run": "`muster runs`"}


def find_task(core: Core, text: str) -> Held:
    """The task that is meant. Raises: NotFound, Refused where it may be several."""
    found = _beginning(core, "task", text)
    if len(found) == 1:
        return found[0]
    if found:
        raise Refused(f"more than one task begins with {text[:40]!r}; give more of its id")
    runs = _beginning(core, "run", text)
    if len(runs) != 1:
        raise _missing(core, "task", text)
    run = str(runs[0].row["run"])
    tasks = at_once(core.part(Ownership).listing("task", _NAMED_MAX + 1, run=run)).rows
    if len(tasks) == 1:
        return _held(core, "task", str(tasks[0]["task"]))
    parts = [(str(t["task"])[:12], t["phase"], t["instance"]) for t in tasks[:_NAMED_MAX]]
    named = ", ".join(f"{id} ({phase}{of and f'[{of}]'})" for id, phase, of in parts)
    raise Refused(
        f"{text[:40]!r} is the run {runs[0].row['name']}; say which of its tasks: "
        f"{named or 'it has none yet'}{', …' if len(tasks) > _NAMED_MAX else ''}"
    )


def find_run(core: Core, text: str) -> Held:
    """The run that is meant. Raises: NotFound, Refused where it may be several."""
    found = _beginning(core, "run", text)
    if len(found) == 1:
        return found[0]
    if found:
        raise Refused(f"more than one run begins with {text[:40]!r}; give more of its id")
    tasks = _beginning(core, "task", text)
    if len(tasks) == 1 and tasks[0].row["run"]:
        return _held(core, "run", str(tasks[0].row["run"]))
    raise _missing(core, "run", text)


class OfTask(Request, frozen=True):
    """What is asked about a task, and of nothing else."""

    task: Annotated[str, TASK]


class Claim(Struct, frozen=True):
    """What another machine wrote about an id that is not its own."""

    machine: str
    state: str


def claims(core: Core, what: What, name: str) -> list[Claim]:
    """Who wrote about an id that is not theirs, and what they say it is."""
    return [
        Claim(core.membership.name_of(writer_of(row)), str(row["state"]))
        for row in core.part(Ownership).claims(what, name)
    ]


class Meant(NamedTuple):
    """What is meant, by its full id, and its owner; `there`: the owner can be asked now."""

    what: What
    id: str
    state: str
    open: bool
    owner: str
    machine: str
    there: bool


def whose(core: Core, text: str) -> Meant:
    """The task or run that is meant, and its owner. Raises: NotFound, Refused."""
    what: What = "run" if _beginning(core, "run", text) else "task"
    held = find_run(core, text) if what == "run" else find_task(core, text)
    record = core.roster.machines.get(held.owner)  # type: ignore[call-overload]
    there = held.owner == core.machine or core.part(Router).reaches(held.owner)
    return Meant(
        what,
        str(held.row[what]),
        str(held.row["state"]),
        # What its owner never settled can still be ended.
        held.row["state"] in LIVE_OR_LOST and not held.row["settled"],
        core.membership.name_of(held.owner),
        held.owner,
        record is not None and there,
    )


def _beginning(core: Core, what: What, text: str) -> list[Held]:
    if not text:
        return []
    whole = core.part(Ownership).held(what, text)
    return [whole] if whole is not None else core.part(Ownership).beginning(what, text)


def _held(core: Core, what: What, name: str) -> Held:
    found = core.part(Ownership).held(what, name)
    if found is None:
        raise _missing(core, what, name)
    return found


def _missing(core: Core, what: What, text: str) -> NotFound:
    said = claims(core, what, text) if text else []
    if said:
        names = ", ".join(sorted({each.machine for each in said}))
        return NotFound(f"{names} claims a {what} {text[:12]}, and no operator ordered it")
    return NotFound(f"no {what} begins with {text[:40]!r}; {_WORDS[what]} lists them")
