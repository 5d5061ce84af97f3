"""What an agent on a machine did reliably: counted from checked results, never from claims.

Rule 1: a result counts that somebody else looked at. It passed where its phase has a `check` and
        the task was done; where the phase is reviewed, when all its reviewers accepted, none of
        whom is the very agent on the very machine. What nobody looked at counts for nothing.
Rule 2: it failed where the agent failed, the check did, or a reviewer rejected. A lost machine, a
        refusal, an order that cannot begin, a branch that its owner cannot move, a deadline and a
        cancelled racer are nobody's failure.
Rule 3: only the owner's entries count, each stream by itself; whose word they are is asked by
        whoever reads the rows (node/tasks/trust.py). A reviewer earns nothing by reviewing.
"""

import re
from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import StreamName
from muster.task import kinds
from muster.task.identity import task_id
from muster.task.review import DID

PASSED: Final = "passed"
FAILED: Final = "failed"
# A machine without a past is taken for a good one, else nobody would ever try it.
SUCCESS_UNKNOWN: Final = 900
# Machine, agent, epoch, and how many judge it (review.py, rule 4).
_DID: Final = re.compile(r"(\S{1,400}) (\S{1,400}) ([0-9]{1,15})-([0-9]{1,15}) ([1-9][0-9]?)")


class CheckableRow(NamedTuple):
    """A task whose result will be looked at, and who has it now.

    `judges` reviewers must accept, `accepts` did so far. Of a review `judged` is the task that it
    looks at; it is no result itself.
    """

    stream: StreamName
    task: str
    judges: int
    judged: str
    accepts: int
    machine: str
    agent: str
    epoch_order: int
    epoch_count: int


class CheckedRow(NamedTuple):
    """A result of one attempt that was looked at. `seq` is the place of what says so."""

    stream: StreamName
    task: str
    epoch_order: int
    epoch_count: int
    machine: str
    agent: str
    outcome: str
    at_ms: int
    seq: int


CHECKABLE: Final = Table("checkable", CheckableRow, ids=True)
CHECKED: Final = Table(
    "checked",
    CheckedRow,
    key=3,
    indexes=(("stream", "at_ms"), ("stream", "machine", "agent", "at_ms")),
    ids=True,
)


class TrustFold:
    """See the rules at the top of this file."""

    name = "trust"
    tables = (CHECKABLE, CHECKED)
    kinds = frozenset({"task.open", "task.assign", "task.retry", "task.settle"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        match entry.header.kind:
            case "task.open":
                return _opened(body_as(entry, kinds.TaskOpen), rows)
            case "task.assign":
                return _assigned(body_as(entry, kinds.TaskAssign), rows)
            case "task.retry":
                return _retried(entry, body_as(entry, kinds.TaskRetry), rows)
        return _settled(entry, body_as(entry, kinds.TaskSettle), rows)


def _opened(body: kinds.TaskOpen, rows: Rows) -> Iterable[NamedTuple]:
    order, judged, judges = body.template, "", 0
    reviewers, review = order.get("reviewers"), order.get("review")
    if isinstance(review, str) and body.run:
        judged = task_id(body.run, review, body.instance)
    elif isinstance(reviewers, list):
        judges = len(reviewers)
    elif not order.get("check"):
        return ()
    if rows.get(CHECKABLE, body.task) is not None:
        raise Skip("task-exists")
    own = CheckableRow(rows.stream, body.task, judges, judged, 0, "", "", 0, 0)
    if judged and rows.get(CHECKABLE, judged) is None:
        return (own, *_elsewhere(rows.stream, judged, body.values.get("run", {}).get(DID, "")))
    return (own,)


def _elsewhere(stream: StreamName, task: str, did: str) -> Iterable[CheckableRow]:
    """What a review judges that was done in an earlier stream of its owner, as its opening says.

    Of several reviewers those of the earlier stream are not counted in this one, so that there it
    can only fail.
    """
    if found := _DID.fullmatch(did):
        machine, agent, order, count, judges = found.groups()
        place = (int(order), int(count))
        yield CheckableRow(stream, task, int(judges), "", 0, machine, agent, *place)


def _assigned(body: kinds.TaskAssign, rows: Rows) -> Iterable[NamedTuple]:
    row = rows.get(CHECKABLE, body.task)
    if row is None:
        return ()
    if body.epoch <= (row.epoch_order, row.epoch_count):
        raise Skip("epoch-not-higher")
    given = row._replace(machine=body.machine, agent=body.agent, accepts=0)
    return (given._replace(epoch_order=body.epoch[0], epoch_count=body.epoch[1]),)


def _retried(entry: Entry, body: kinds.TaskRetry, rows: Rows) -> Iterable[NamedTuple]:
    row = rows.get(CHECKABLE, body.task)
    if row is None or row.judged or body.why != "failed" or not _is_its(row, body.epoch):
        return ()
    return _result(entry, row, FAILED, rows)


def _settled(entry: Entry, body: kinds.TaskSettle, rows: Rows) -> Iterable[NamedTuple]:
    row = rows.get(CHECKABLE, body.task)
    if row is None or not _is_its(row, body.epoch):
        return ()
    if row.judged:
        verdict = body.values.get("verdict", "") if body.outcome == "done" else ""
        return _judged(entry, row, verdict, rows)
    if body.outcome == "done" and not row.judges:
        return _result(entry, row, PASSED, rows)
    # What no agent failed at (a deadline, refusals, a branch that did not move) has no summary.
    if body.outcome == "failed" and body.summary:
        return _result(entry, row, FAILED, rows)
    return ()


def _judged(entry: Entry, review: CheckableRow, verdict: str, rows: Rows) -> Iterable[NamedTuple]:
    """What a reviewer says of the task of another one; of its own it says nothing that counts."""
    work = rows.get(CHECKABLE, review.judged)
    if work is None or not work.judges or not work.machine:
        return ()
    if (work.machine, work.agent) == (review.machine, review.agent):
        return ()
    if verdict == "reject":
        return _result(entry, work, FAILED, rows)
    if verdict != "accept":
        return ()
    work = work._replace(accepts=work.accepts + 1)
    done = _result(entry, work, PASSED, rows) if work.accepts == work.judges else ()
    return (work, *done)


def _is_its(row: CheckableRow, epoch: kinds.Epoch) -> bool:
    return bool(row.machine) and (row.epoch_order, row.epoch_count) == epoch


def _result(entry: Entry, row: CheckableRow, outcome: str, rows: Rows) -> Iterable[NamedTuple]:
    place = (row.task, row.epoch_order, row.epoch_count)
    if rows.get(CHECKED, *place) is not None:
        # An attempt has one result; of several reviewers that reject, the first one counts.
        return ()
    at = (entry.header.t[0], entry.header.seq)
    return (CheckedRow(rows.stream, *place, row.machine, row.agent, outcome, *at),)


class Standing(NamedTuple):
    """What is known of an agent on a machine. `streak`: how many passed since the last failure;
    `success`, of a thousand, is a moving average over about eight results.
    """

    passed: int = 0
    failed: int = 0
    streak: int = 0
    success: int = SUCCESS_UNKNOWN

    def after(self, outcome: str) -> "Standing":
        """The standing when one more result is known."""
        won = outcome == PASSED
        success = self.success + ((1000 if won else 0) - self.success) // 8
        streak = self.streak + 1 if won else 0
        return Standing(self.passed + won, self.failed + (not won), streak, success)

    def __str__(self) -> str:
        """`12 of 13 checked results passed, 8 in a row`; "" where there is none."""
        count = self.passed + self.failed
        if not count:
            return ""
        results = f"checked result{'s' * (count > 1)}"
        row = f", {self.streak} in a row" if self.streak > 1 else ""
        return f"{self.passed} of {count} {results} passed{row}"


NOTHING_KNOWN: Final = Standing()
