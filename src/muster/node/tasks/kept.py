"""Phases that a run does not run again: what they yielded in an earlier run counts.

Rule 1: an operator signed which phase is kept, and of which run; the owner looks whether it is so
before it takes the order, and every machine reads it from the owner's log in the same way.
Rule 2: nothing is copied: the tasks of a kept phase are those of the earlier run, under their ids.
Rule 3: only what is over is kept, of the same owner and the same spec with the same inputs.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.log.fold import body_or_none
from muster.store.store import Store
from muster.task import kinds, review
from muster.task.fold import RUN, TASK, RunRow, TaskRow
from muster.task.graph import Fact, Progress, Slot
from muster.task.precedence import rounds_of, together
from muster.task.problem import shown
from muster.task.spec import Spec

if TYPE_CHECKING:
    from muster.node.core import Core


def kept_of(store: Store, owner: str, run: str) -> Mapping[str, str]:
    """By phase the run that yielded it, for the phases that this run of an owner kept."""
    for row in store.tables.rows(RUN, writer=owner, run=run, limit=1):
        body = body_or_none(store.log.entry(row.opened), kinds.RunOpen)
        return {} if body is None else body.kept
    return {}


def tasks_of(store: Store, owner: str, run: str, phase: str) -> list[TaskRow]:
    """The tasks of a phase of an owner's run, each once, by its newest row."""
    rows = store.tables.rows(TASK, writer=owner, run=run, phase=phase)
    rows.sort(key=lambda row: row.changed_ms)
    return list({row.task: row for row in rows}.values())


def is_done(store: Store, owner: str, run: str, spec: Spec, phase: str) -> bool:
    """Whether a phase came to its results: what is reviewed, and its reviewers, to an accept."""
    if phase in rounds_of(spec):
        return _is_accepted(store, owner, run, spec, phase)
    states = {row.state for row in tasks_of(store, owner, run, phase)}
    return "done" in states if spec.phases[phase].race is not None else states == {"done"}


def _is_accepted(store: Store, owner: str, run: str, spec: Spec, phase: str) -> bool:
    progress = Progress(spec)
    for name in together(spec, phase):
        for row in tasks_of(store, owner, run, name):
            body = body_or_none(store.log.entry(row.settled), kinds.TaskSettle)
            judges = row.state == "done" and spec.phases[name].review is not None
            said = review.rejected(body.values if body else {}, "", row.agent) if judges else ""
            progress.tell(Slot(name, row.instance), Fact(row.state, rejected=said))
    return progress.phases[phase].state == "done"


def check_kept(core: "Core", spec: Spec, body: kinds.RunOpen) -> None:
    """Raises: Malformed, NotFound, Conflict, Refused where a phase cannot be kept as is ordered."""
    if body.after:
        _check_source(core, body, "", body.after)
    for phase, run in body.kept.items():
        if phase not in spec.phases:
            raise Malformed(f"the spec {spec.name} has no phase {shown(phase)} to keep")
        for before in spec.phases[phase].prerequisites:
            if before not in body.kept:
                raise Malformed(f"phase {phase} comes after {before}, which is to run again")
        for other in together(spec, phase):
            if other not in body.kept:
                raise Malformed(f"phases {phase} and {other} are kept together, or run together")
        _check_source(core, body, phase, run)
        if not is_done(core.store, core.machine, run, spec, phase):
            raise Refused(f"phase {phase} of run {run[:12]} is not done: there is nothing to keep")


def _check_source(core: "Core", body: kinds.RunOpen, phase: str, run: str) -> None:
    """The run that a phase is kept from is over, ours, and was ordered to do the same."""
    rows: list[RunRow] = core.tables.rows(RUN, writer=core.machine, run=run)
    known = [body_or_none(core.log.entry(row.opened), kinds.RunOpen) for row in rows]
    if not rows or known[0] is None:
        raise NotFound(
            f"this machine owns no run {run[:12]}: what a run yielded is kept by its owner alone"
        )
    if all(row.state == "open" for row in rows):
        raise Conflict(
            f"run {run[:12]} goes on still, and only what is over is kept: "
            f"`muster await {run[:12]}` waits for that, `muster cancel {run[:12]}` ends it now"
        )
    if (known[0].spec, known[0].repo, known[0].values) != (body.spec, body.repo, body.values):
        raise Refused(f"run {run[:12]} was ordered to do something else: nothing of it is kept")
    if phase in known[0].kept:
        raise Refused(f"run {run[:12]} kept phase {phase} itself: keep it from that earlier run")
