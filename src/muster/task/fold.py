"""Entries about work become rows. One fold per writer's role; the owner combines them.

Rule 1: a row of `task` or `run` is changed by its owner's stream alone, along state.TRANSITIONS.
        What the table does not allow is skipped (`illegal-transition`), and changes nothing.
Rule 2: epochs only rise (`epoch-not-higher`), and whatever ends an attempt names the epoch that
        holds the lease (`stale-epoch`).
Rule 3: the row of a settled task is never written again; a late result has a table of its own.
Rule 4: rows are narrow. What is large (spec, template, values) stays in the entry that a row names.

A worker's and a person's entries go into tables keyed by *their* streams: they are inputs. The
owner's `task.settle` cites the one that counted.
"""

from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple, TypeVar

from muster.log.entry import Entry
from muster.log.fold import Change, Key, Rows, Skip, Table, body_as
from muster.task import kinds
from muster.task.state import RUN_TRANSITIONS, TRANSITIONS, State

R = TypeVar("R")


class RunRow(NamedTuple):
    """Columns of `run`; the key is (stream, run)."""

    name: str
    state: str
    repo: str
    opened_ms: int
    changed_ms: int
    summary: str
    opened: bytes
    settled: bytes
    # `key:<key>`, "" without one.
    dedupe: str


class TaskRow(NamedTuple):
    """Columns of `task`; the key is (stream, task)."""

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
    opened: bytes
    assigned: bytes
    settled: bytes

    @property
    def epoch(self) -> kinds.Epoch:
        """The newest epoch handed out."""
        return (self.epoch_order, self.epoch_count)


class LateRow(NamedTuple):
    """Columns of `late`; the key is (stream, task, epoch_order, epoch_count)."""

    machine: str
    status: str
    commit_id: str
    at_ms: int
    cited: bytes


class AttemptRow(NamedTuple):
    """Columns of `attempt`; the key is (worker's stream, task, epoch_order, epoch_count)."""

    state: str
    agent: str
    started_ms: int
    ended_ms: int
    reason: str
    summary: str
    commit_id: str
    started: bytes
    ended: bytes


class DecisionRow(NamedTuple):
    """Columns of `decision`; the key is (person's stream, task)."""

    verdict: str
    text: str
    at_ms: int
    entry: bytes


class EndRow(NamedTuple):
    """Columns of `ending`; the key is (person's stream, what)."""

    at_ms: int
    entry: bytes


_COLUMN_TYPES: Final = {int: "int", str: "text", bytes: "blob", State: "text"}


def _columns(row: type[Any]) -> tuple[Any, ...]:
    return tuple((name, _COLUMN_TYPES[type_]) for name, type_ in row.__annotations__.items())


_EPOCH_KEY: Final = (("task", "text"), ("epoch_order", "int"), ("epoch_count", "int"))
RUN_TABLE: Final = Table(
    "run",
    (("run", "text"),),
    _columns(RunRow),
    (("state", "stream", "opened_ms"), ("dedupe",), ("stream", "opened_ms")),
    ids=True,
)
TASK_TABLE: Final = Table(
    "task",
    (("task", "text"),),
    _columns(TaskRow),
    (("state", "stream", "opened_ms"), ("run",), ("dedupe",), ("stream", "opened_ms")),
    ids=True,
)
LATE_TABLE: Final = Table("late", _EPOCH_KEY, _columns(LateRow))
ATTEMPT_TABLE: Final = Table("attempt", _EPOCH_KEY, _columns(AttemptRow), ids=True)
DECISION_TABLE: Final = Table("decision", (("task", "text"),), _columns(DecisionRow))
ENDING_TABLE: Final = Table("ending", (("what", "text"),), _columns(EndRow), (("what",),))


class TaskFold:
    """The owner's stream: runs and tasks."""

    name = "task"
    tables = (RUN_TABLE, TASK_TABLE, LATE_TABLE)
    kinds = frozenset(k for k in kinds.KINDS if k.startswith(("run.", "task."))) - {"task.decide"}

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        """See the rules at the top of this file."""
        return _APPLY[entry.header.kind](entry, rows)


class AttemptFold:
    """A worker's stream: its attempts."""

    name = "attempt"
    tables = (ATTEMPT_TABLE,)
    kinds = frozenset(k for k in kinds.KINDS if k.startswith("attempt."))

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        """See the rules at the top of this file."""
        body = body_as(entry, kinds.KINDS[entry.header.kind])
        assert isinstance(body, kinds.AttemptStart | kinds.AttemptRefuse | kinds.AttemptFinish)
        key = (body.task, *body.epoch)
        old = _old(AttemptRow, rows, "attempt", key)
        now = entry.header.t[0]
        if old is not None and old.ended:
            raise Skip("attempt-over")
        if isinstance(body, kinds.AttemptStart):
            if old is not None:
                raise Skip("attempt-started")
            row = AttemptRow("running", body.agent, now, 0, "", "", "", entry.id, b"")
            return (Change("attempt", key, row),)
        row = old or AttemptRow("", "", 0, 0, "", "", "", b"", b"")
        row = row._replace(ended_ms=now, ended=entry.id, reason=body.reason)
        if isinstance(body, kinds.AttemptRefuse):
            return (Change("attempt", key, row._replace(state="refused", summary=body.text)),)
        row = row._replace(state=body.status, summary=body.summary, commit_id=body.commit)
        return (Change("attempt", key, row),)


class DecisionFold:
    """A person's machine: decisions on tasks that wait for one. The first one counts."""

    name = "decision"
    tables = (DECISION_TABLE,)
    kinds = frozenset({"task.decide"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        """See the rules at the top of this file."""
        body = body_as(entry, kinds.TaskDecide)
        if rows.get("decision", (body.task,)) is not None:
            raise Skip("already-decided")
        row = DecisionRow(body.verdict, body.text, entry.header.t[0], entry.id)
        return (Change("decision", (body.task,), row),)


class EndingFold:
    """A person's machine: work that was ended because its owner could not be asked."""

    name = "ending"
    tables = (ENDING_TABLE,)
    kinds = frozenset({"work.end"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:  # noqa: ARG002 - a fold's shape
        """The newest of a stream counts: a void one must not keep a good one out."""
        body = body_as(entry, kinds.WorkEnd)
        return (Change("ending", (body.what,), EndRow(entry.header.t[0], entry.id)),)


def _old(row: Callable[..., R], rows: Rows, table: str, key: Key) -> R | None:
    found = rows.get(table, key)
    return None if found is None else row(*found)


def _run_open(entry: Entry, rows: Rows) -> tuple[Change, ...]:
    body = body_as(entry, kinds.RunOpen)
    if rows.get("run", (body.run,)) is not None:
        raise Skip("run-exists")
    now = entry.header.t[0]
    dedupe = f"key:{body.key}" if body.key else ""
    row = RunRow(body.name, "open", body.repo, now, now, "", entry.id, b"", dedupe)
    return (Change("run", (body.run,), row),)


def _run_settle(entry: Entry, rows: Rows) -> tuple[Change, ...]:
    body = body_as(entry, kinds.RunSettle)
    old = _old(RunRow, rows, "run", (body.run,))
    if old is None:
        raise Skip("no-such-run")
    state = RUN_TRANSITIONS.get((old.state, f"run.settle:{body.outcome}"))
    if state is None:
        raise Skip("illegal-transition")
    row = old._replace(
        state=state, summary=body.summary, changed_ms=entry.header.t[0], settled=entry.id
    )
    return (Change("run", (body.run,), row),)


def _open(entry: Entry, rows: Rows) -> tuple[Change, ...]:
    body = body_as(entry, kinds.TaskOpen)
    if rows.get("task", (body.task,)) is not None:
        raise Skip("task-exists")
    human = body.template.get("by") == "human"
    state = TRANSITIONS["", "task.open:human" if human else "task.open"]
    now = entry.header.t[0]
    row = TaskRow(
        state, body.run, body.phase, body.instance, 0, 0, "", "", body.priority, 0, 0, 0, now, now,
        f"key:{body.key}" if body.key else body.digest, "", "", "", entry.id, b"", b"",
    )  # fmt: skip
    return (Change("task", (body.task,), row),)


def _late(entry: Entry, rows: Rows) -> tuple[Change, ...]:
    body = body_as(entry, kinds.TaskLate)
    if rows.get("task", (body.task,)) is None:
        raise Skip("no-such-task")
    cited = bytes.fromhex(entry.header.cause[-1]) if entry.header.cause else b""
    row = LateRow(body.machine, body.status, body.commit, entry.header.t[0], cited)
    return (Change("late", (body.task, *body.epoch), row),)


def _move(entry: Entry, rows: Rows) -> tuple[Change, ...]:
    """An open task goes on; an attempt is ended by the epoch that holds the lease."""
    body, event = body_as(entry, kinds.KINDS[entry.header.kind]), entry.header.kind
    assert isinstance(body, _MOVES)
    old = _old(TaskRow, rows, "task", (body.task,))
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
        row = row._replace(
            epoch_order=body.epoch[0], epoch_count=body.epoch[1], machine=body.machine,
            agent=body.agent, reason="", assigned=entry.id,
        )  # fmt: skip
        return (Change("task", (body.task,), row),)
    row = row._replace(reason=body.reason)
    if isinstance(body, kinds.TaskCancel):
        return (Change("task", (body.task,), row._replace(settled=entry.id)),)
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
    return (Change("task", (body.task,), row),)


_MOVES: Final = (
    kinds.TaskAssign | kinds.TaskExpire | kinds.TaskRetry | kinds.TaskCancel | kinds.TaskSettle
)
_APPLY: Final[dict[str, Callable[[Entry, Rows], tuple[Change, ...]]]] = {
    "run.open": _run_open,
    "run.settle": _run_settle,
    "task.open": _open,
    "task.assign": _move,
    "task.expire": _move,
    "task.retry": _move,
    "task.cancel": _move,
    "task.settle": _move,
    "task.late": _late,
}
