"""A run as its owner takes it up: from its opening, and from what the log says of that."""

from muster.log.entry import EntryId
from muster.node.tasks.asking import is_handed_on
from muster.node.tasks.kept import tasks_of
from muster.node.tasks.run import Run
from muster.store.store import Store
from muster.task import graph, kinds
from muster.task.causes import origin
from muster.task.graph import Slot
from muster.task.spec import Spec, parse


def opened_run(store: Store, owner: str, body: kinds.RunOpen, opened: EntryId) -> Run:
    """Raises: SpecErrors."""
    spec, lookup = parse(body.spec.encode()), store.log.entry
    base = None if body.repo else ""
    run = Run(body.run, body, spec, graph.Progress(spec), opened, base=base)
    run.handed_on = is_handed_on(lookup, opened)
    if (entry := lookup(opened)) is not None:
        run.began_ms = origin(entry, lookup).header.t[0]
    if body.after:
        run.left = _left(store, owner, body.after, spec)
    return run


def _left(store: Store, owner: str, run: str, spec: Spec) -> dict[Slot, str]:
    """The commits that unfinished tasks of an earlier run of this owner had made."""
    rows = (row for phase in spec.phases for row in tasks_of(store, owner, run, phase))
    return {
        Slot(row.phase, row.instance): row.commit_id
        for row in rows
        if row.state == "failed" and row.commit_id
    }
