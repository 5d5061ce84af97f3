"""Entries about work become rows. One fold per writer's role; the owner combines them.

Rule 1: a row of `task` or `run` is changed by its owner's stream alone, along state.TRANSITIONS.
        What the table does not allow is skipped (`illegal-transition`), and changes nothing.
Rule 2: epochs only rise (`epoch-not-higher`), and whatever ends an attempt names the epoch that
        holds the lease (`stale-epoch`).
Rule 3: the row of a settled task is never written again; a late result has a table of its own.
Rule 4: one order is one run. A second one of the same order has no row of `run`, whatever its id.
Rule 5: rows are narrow. What is large (spec, template, values) stays in the entry that a row names.

A worker's and a person's entries go into tables keyed by *their* streams: they are inputs. The
owner's `task.settle` cites the one that counted.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from muster.log.entry import Entry, EntryId
from muster.log.fold import NO_ENTRY, Rows, Skip, Table, body_as
from muster.log.stream import StreamName
from muster.task import kinds
from muster.task.identity import order_id
from muster.task.state import RUN_TRANSITIONS, TRANSITIONS, State


class RunRow(NamedTuple):
    stream: StreamName
    run: str
    name: str
    state: str
    repo: str
    opened_ms: int
    changed_ms: int
    summary: str
    opened: EntryId
    settled: EntryId
    # `key:<key>`, "" without one.
    dedupe: str

    @property
    def id(self) -> str:
        """What a run is called where it stands beside a task."""
        return self.run


class TaskRow(NamedTuple):
    stream: StreamName
    task: str
    state: State
    run: str
    phase: str
    instance: str
    epoch_order: int
    epoch_count: int
    machine: str
    agent: str
    priority: int
    tries: int
    losses: int
    refusals: int
    opened_ms: int
    changed_ms: int
    dedupe: str
    reason: str
    summary: str
    commit_id: str
    opened: EntryId
    assigned: EntryId
    settled: EntryId

    @property
    def id(self) -> str:
        """What a task is called where it stands beside a run."""
        return self.task

    @property
    def epoch(self) -> kinds.Epoch:
        """The newest epoch handed out."""
        return (self.epoch_order, self.epoch_count)


class BeginningRow(NamedTuple):
    """The order by which a run was begun: `statement` is its `identity.order_id`."""

    stream: StreamName
    statement: str
    run: str
    entry: EntryId


class AgainRow(NamedTuple):
    """A run that counts for nothing: its order had begun another one in this stream."""

    stream: StreamName
    run: str
    statement: str
    at_ms: int
    entry: EntryId


Work = TypeVar("Work", TaskRow, RunRow)


class LateRow(NamedTuple):
    stream: StreamName
    task: str
    epoch_order: int
    epoch_count: int
    machine: str
    status: str
    commit_id: str
    at_ms: int
    cited: bytes


class AttemptRow(NamedTuple):
    stream: StreamName
    task: str
    epoch_order: int
    epoch_count: int
    state: str
    agent: str
    started_ms: int
    ended_ms: int
    reason: str
    summary: str
    commit_id: str
    started: EntryId
    ended: EntryId

    @property
    def epoch(self) -> kinds.Epoch:
        return (self.epoch_order, self.epoch_count)


class AdoptionRow(NamedTuple):
    """A run or task that this stream's machine goes on with in place of `owner`."""

    stream: StreamName
    what: str
    owner: str
    generation: int
    at_ms: int
    entry: EntryId


class DecisionRow(NamedTuple):
    stream: StreamName
    task: str
    verdict: str
    text: str
    at_ms: int
    entry: EntryId


class EndRow(NamedTuple):
    stream: StreamName
    what: str
    at_ms: int
    entry: EntryId


def of_attempt(task: str, epoch: kinds.Epoch) -> dict[str, Any]:
    """The columns by which rows of one attempt are asked for."""
    order, count = epoch
    return {"task": task, "epoch_order": order, "epoch_count": count}


RUN: Final = Table(
    "run",
    RunRow,
    indexes=(
        ("state", "stream", "opened_ms"), ("dedupe",), ("stream", "opened_ms"),
        ("name", "stream", "opened_ms"),
    ),
    ids=True,
)  # fmt: skip
BEGINNING: Final = Table("run_beginning", BeginningRow, indexes=(("run",),), ids=True)
AGAIN: Final = Table("run_again", AgainRow, indexes=(("statement",),), ids=True)
TASK: Final = Table(
    "task",
    TaskRow,
    indexes=(("state", "stream", "opened_ms"), ("run",), ("dedupe",), ("stream", "opened_ms")),
    ids=True,
)
LATE: Final = Table("late", LateRow, key=3)
ATTEMPT: Final = Table("attempt", AttemptRow, key=3, ids=True)
ADOPTION: Final = Table("adoption", AdoptionRow, indexes=(("what",), ("owner",)))
DECISION: Final = Table("decision", DecisionRow)
ENDING: Final = Table("ending", EndRow, indexes=(("what",),))


class TaskFold:
    """The owner's stream: runs and tasks."""

    name = "task"
    tables = (RUN, BEGINNING, AGAIN, TASK, LATE, ADOPTION)
    kinds = frozenset(k for k in kinds.KINDS if k.startswith(("run.", "task."))) - {"task.decide"}

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        made = _APPLY[entry.header.kind](entry, rows)
        if not isinstance(made, RunRow) or entry.header.kind != "run.open":
            return (made,)
        order = order_id(body_as(entry, kinds.RunOpen).statement)
        return (made, BeginningRow(rows.stream, order, made.run, entry.id)) if order else (made,)


class AttemptFold:
    """A worker's stream: its attempts."""

    name = "attempt"
    tables = (ATTEMPT,)
    kinds = frozenset(k for k in kinds.KINDS if k.startswith("attempt."))

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, kinds.KINDS[entry.header.kind])
        assert isinstance(body, kinds.AttemptStart | kinds.AttemptRefuse | kinds.AttemptFinish)
        key = (body.task, *body.epoch)
        old = rows.get(ATTEMPT, *key)
        now = entry.header.t[0]
        if old is not None and old.ended:
            raise Skip("attempt-over")
        if isinstance(body, kinds.AttemptStart):
            if old is not None:
                raise Skip("attempt-started")
            row = AttemptRow(
                rows.stream, *key, "running", body.agent, now, 0, "", "", "", entry.id, NO_ENTRY
            )
            return (row,)
        row = old or AttemptRow(rows.stream, *key, "", "", 0, 0, "", "", "", NO_ENTRY, NO_ENTRY)
        row = row._replace(ended_ms=now, ended=entry.id, reason=body.reason)
        if isinstance(body, kinds.AttemptRefuse):
            return (row._replace(state="refused", summary=body.text),)
        row = row._replace(state=body.status, summary=body.summary, commit_id=body.commit)
        return (row,)


class DecisionFold:
    """A person's machine: decisions on tasks that wait for one. The first one counts."""

    name = "decision"
    tables = (DECISION,)
    kinds = frozenset({"task.decide"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, kinds.TaskDecide)
        if rows.get(DECISION, body.task) is not None:
            raise Skip("already-decided")
        t_ms = entry.header.t[0]
        return (DecisionRow(rows.stream, body.task, body.verdict, body.text, t_ms, entry.id),)


class EndingFold:
    """A person's machine: work that was ended because its owner could not be asked."""

    name = "ending"
    tables = (ENDING,)
    kinds = frozenset({"work.end"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        """The newest of a stream counts: a void one must not keep a good one out."""
        body = body_as(entry, kinds.WorkEnd)
        return (EndRow(rows.stream, body.what, entry.header.t[0], entry.id),)


def _run_open(entry: Entry, rows: Rows) -> NamedTuple:
    body = body_as(entry, kinds.RunOpen)
    if rows.get(RUN, body.run) is not None:
        raise Skip("run-exists")
    now, order = entry.header.t[0], order_id(body.statement)
    if order and rows.get(BEGINNING, order) is not None:
        return AgainRow(rows.stream, body.run, order, now, entry.id)
    dedupe = f"key:{body.key}" if body.key else ""
    return RunRow(
        rows.stream, body.run, body.name, "open", body.repo, now, now, "", entry.id, NO_ENTRY,
        dedupe,
    )  # fmt: skip


def _run_settle(entry: Entry, rows: Rows) -> NamedTuple:
    body = body_as(entry, kinds.RunSettle)
    old = rows.get(RUN, body.run)
    if old is None:
        raise Skip("no-such-run")
    state = RUN_TRANSITIONS.get((old.state, f"run.settle:{body.outcome}"))
    if state is None:
        raise Skip("illegal-transition")
    return old._replace(
        state=state, summary=body.summary, changed_ms=entry.header.t[0], settled=entry.id
    )


def _open(entry: Entry, rows: Rows) -> NamedTuple:
    body = body_as(entry, kinds.TaskOpen)
    if rows.get(TASK, body.task) is not None:
        raise Skip("task-exists")
    human = body.template.get("by") == "human"
    state = TRANSITIONS["", "task.open:human" if human else "task.open"]
    now = entry.header.t[0]
    return TaskRow(
        rows.stream, body.task, state, body.run, body.phase, body.instance, 0, 0, "", "",
        body.priority, 0, 0, 0, now, now, f"key:{body.key}" if body.key else body.digest,
        "", "", "", entry.id, NO_ENTRY, NO_ENTRY,
    )  # fmt: skip


def _adopt(entry: Entry, rows: Rows) -> NamedTuple:
    """What a machine opened itself before it keeps as it is: it goes on with others' work alone."""
    body = body_as(entry, kinds.TaskAdopt)
    if rows.get(ADOPTION, body.what) is not None:
        raise Skip("adopted-already")
    if rows.get(RUN, body.what) is not None or rows.get(TASK, body.what) is not None:
        raise Skip("its-own")
    if body.of == rows.stream.machine:
        raise Skip("its-own")
    now = entry.header.t[0]
    return AdoptionRow(rows.stream, body.what, body.of, body.generation, now, entry.id)


def _inherit(entry: Entry, rows: Rows) -> NamedTuple:
    """A task that had ended: its row names the entries of whoever ended it."""
    body = body_as(entry, kinds.TaskInherit)
    if rows.get(ADOPTION, body.run) is None:
        raise Skip("not-adopted")
    if rows.get(TASK, body.task) is not None:
        raise Skip("task-exists")
    opened, assigned, settled = (*entry.causes[1:4], *[NO_ENTRY] * 3)[:3]
    # It was assigned to nobody: a person decided it, or it ended before.
    assigned = NO_ENTRY if assigned == opened else assigned
    now = entry.header.t[0]
    return TaskRow(
        rows.stream, body.task, body.outcome, body.run, body.phase, body.instance, *body.epoch,
        body.machine, body.agent, 0, 0, 0, 0, now, now, "", body.reason, body.summary, body.commit,
        opened, assigned, settled,
    )  # fmt: skip


def _late(entry: Entry, rows: Rows) -> NamedTuple:
    body = body_as(entry, kinds.TaskLate)
    if rows.get(TASK, body.task) is None:
        raise Skip("no-such-task")
    cited = bytes.fromhex(entry.header.cause[-1]) if entry.header.cause else b""
    return LateRow(
        rows.stream, body.task, *body.epoch, body.machine, body.status, body.commit,
        entry.header.t[0], cited,
    )  # fmt: skip


def _move(entry: Entry, rows: Rows) -> NamedTuple:
    """An open task goes on; an attempt is ended by the epoch that holds the lease."""
    body, event = body_as(entry, kinds.KINDS[entry.header.kind]), entry.header.kind
    assert isinstance(body, _MOVES)
    old = rows.get(TASK, body.task)
    if old is None:
        raise Skip("no-such-task")
    if isinstance(body, kinds.TaskSettle):
        event = f"task.settle:{body.outcome}"
    state = TRANSITIONS.get((old.state, event))
    if state is None:
        raise Skip("illegal-transition")
    row = old._replace(state=state, changed_ms=entry.header.t[0])
    if isinstance(body, kinds.TaskAssign):
        if body.epoch <= old.epoch:
            raise Skip("epoch-not-higher")
        return row._replace(
            epoch_order=body.epoch[0], epoch_count=body.epoch[1], machine=body.machine,
            agent=body.agent, reason="", assigned=entry.id,
        )  # fmt: skip
    row = row._replace(reason=body.reason)
    if isinstance(body, kinds.TaskCancel):
        return row._replace(settled=entry.id)
    if old.state == "leased" and body.epoch != old.epoch:
        raise Skip("stale-epoch")
    if isinstance(body, kinds.TaskExpire):
        row = row._replace(losses=old.losses + 1)
    elif isinstance(body, kinds.TaskSettle):
        row = row._replace(summary=body.summary, commit_id=body.commit, settled=entry.id)
    elif body.why == "failed":
        row = row._replace(tries=old.tries + 1)
    elif body.why == "refused":
        row = row._replace(refusals=old.refusals + 1)
    return row


_MOVES: Final = (
    kinds.TaskAssign | kinds.TaskExpire | kinds.TaskRetry | kinds.TaskCancel | kinds.TaskSettle
)
_APPLY: Final[dict[str, Callable[[Entry, Rows], NamedTuple]]] = {
    "run.open": _run_open,
    "run.settle": _run_settle,
    "task.open": _open,
    "task.assign": _move,
    "task.expire": _move,
    "task.retry": _move,
    "task.cancel": _move,
    "task.settle": _move,
    "task.late": _late,
    "task.adopt": _adopt,
    "task.inherit": _inherit,
}
