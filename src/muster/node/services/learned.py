"""Whether it helps to remember: what came of work whose agents were told something.

Rule 1: counts and never bare percentages: of few nothing follows.
Rule 2: nothing is dropped by itself. What is shown often and followed by failure is listed, for a
person to look at.
Rule 3: of what was shown this machine knows its own; of runs it knows what their owners say.
"""

from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec import Struct

from muster.limits import MEMORIES_SHOWN_MAX
from muster.log.entry import EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FLEET
from muster.memory.fold import VERSION
from muster.memory.print import text_print
from muster.memory.showing import READ, ReadRow
from muster.memory.state import RecordName
from muster.node.services.knowing import readers
from muster.node.services.memory import Memory
from muster.node.services.showings import Showings
from muster.node.tasks.ownership import attempts_of, newest
from muster.node.verb import Turns
from muster.task.fold import RUN, TASK
from muster.task.kinds import AttemptFinish

if TYPE_CHECKING:
    from muster.node.core import Core

# The newest of each that are looked at.
_RUNS_MAX: Final = 500
_SHOWINGS_MAX: Final = 2_000
_TASKS_OF_RUN_MAX: Final = 200
# Chosen arbitrarily: fewer say nothing about a record.
_SHOWN_OFTEN: Final = 5
_UNUSED_MS: Final = 90 * 86_400_000
_FAILED: Final = frozenset({"failed", "killed"})


class OfPhase(Struct, frozen=True):
    """Of the settled tasks of a phase: how many succeeded at the first try, and how many tries
    failed in all.
    """

    spec: str
    phase: str
    tasks: int
    first_try: int
    failed_tries: int


class OfRecord(Struct, frozen=True, kw_only=True):
    """How often a version was shown here, and how the attempts ended that it was shown to."""

    key: str
    version: str
    shown: int
    done: int
    failed: int
    state: str


class Learned(Struct, frozen=True, kw_only=True):
    """`doubtful`: records that are shown often and whose tasks fail more often than others.

    `repeated`: attempts that failed for a reason that they had been told. `unused`: records that
    count, are older than 90 days, and were shown to nobody here since. `refuted`: versions that
    were shown here before they were refuted.
    """

    phases: list[OfPhase]
    showings: int
    done: int
    failed: int
    repeated: int
    refuted: int
    unused: int
    records: list[OfRecord]
    doubtful: list[OfRecord]


class _Ended(NamedTuple):
    """An attempt that was told something, and how it ended: "" while it runs."""

    ids: list[EntryId]
    state: str
    reason: str


def learned(core: "Core") -> Turns[Learned]:
    """What there is to count, in turns."""
    phases = yield from _phases(core)
    told = list[_Ended]()
    rows = core.tables.rows(
        READ, writer=core.machine, order=("-at_ms",), limit=_SHOWINGS_MAX, why="start"
    )
    repeated = 0
    for row in rows:
        yield
        told.append(_ended(core, row))
        repeated += _is_repeated(core, told[-1])
    shown, done, failed = Counter[EntryId](), Counter[EntryId](), Counter[EntryId]()
    for each in told:
        shown.update(each.ids)
        done.update(each.ids if each.state == "done" else ())
        failed.update(each.ids if each.state in _FAILED else ())
    all_done = sum(each.state == "done" for each in told)
    all_failed = sum(each.state in _FAILED for each in told)
    records, doubtful, refuted = list[OfRecord](), list[OfRecord](), 0
    for id, count in shown.most_common():
        yield
        found = _record(core, id, count, done[id], failed[id])
        if found is None:
            continue
        refuted += found.state == "refuted"
        records.append(found)
        if count >= _SHOWN_OFTEN and _is_worse(found, all_done, all_failed):
            doubtful.append(found)
    return Learned(
        phases=phases, showings=len(told), done=all_done, failed=all_failed,
        repeated=repeated, refuted=refuted,
        unused=(yield from _unused(core)), records=records[:MEMORIES_SHOWN_MAX],
        doubtful=doubtful[:MEMORIES_SHOWN_MAX],
    )  # fmt: skip


def _phases(core: "Core") -> Turns[list[OfPhase]]:
    counts = dict[tuple[str, str], list[int]]()
    for run in core.tables.rows(RUN, order=("-opened_ms",), limit=_RUNS_MAX):
        yield
        rows = core.tables.rows(
            TASK, writer=run.stream.machine, run=run.run, limit=_TASKS_OF_RUN_MAX
        )
        for row in newest(rows):
            # A task that was given to no machine was a person's to decide.
            if row.state in ("done", "failed") and row.machine:
                count = counts.setdefault((run.name, row.phase), [0, 0, 0])
                count[0] += 1
                count[1] += row.state == "done" and not row.tries
                count[2] += row.tries + (row.state == "failed")
    return [OfPhase(*name, *count) for name, count in sorted(counts.items())]


def _ended(core: "Core", row: ReadRow) -> _Ended:
    order, _, count = row.reader.rpartition("/")[2].partition("-")
    ids = core.part(Showings).shown_in(row)
    if not row.task or not (order + count).isdigit():
        return _Ended(ids, "", "")
    rows = attempts_of(core, core.machine, row.task, (int(order), int(count)))
    ended = [each for each in rows if each.ended]
    return _Ended(ids, ended[0].state, ended[0].reason) if ended else _Ended(ids, "", "")


def _is_repeated(core: "Core", told: _Ended) -> bool:
    """Whether it failed for a reason that it had been told."""
    if told.state not in _FAILED or not told.reason:
        return False
    print_ = text_print(told.reason)
    bodies: Iterable[AttemptFinish | None] = (
        body_or_none(core.log.entry(id), AttemptFinish) for id in told.ids
    )
    return any(body is not None and text_print(body.reason) == print_ for body in bodies)


def _record(core: "Core", id: EntryId, shown: int, done: int, failed: int) -> OfRecord | None:
    entry = core.log.entry(id)
    row = core.tables.row(VERSION, entry.stream, entry.header.seq) if entry is not None else None
    if row is None or row.state != "active":
        return None
    record = core.part(Memory).records(row.key).get(RecordName(FLEET, row.key))
    state = "replaced"
    if record is not None and (record.state == "refuted" or any(h.id == id for h in record.heads)):
        state = record.state
    return OfRecord(
        key=row.key, version=id.hex(), shown=shown, done=done, failed=failed, state=state
    )


def _is_worse(one: OfRecord, all_done: int, all_failed: int) -> bool:
    """Whether the attempts that were shown it fail more often than those that were not."""
    others_done, others_failed = all_done - one.done, all_failed - one.failed
    # Without others there is nothing to compare with.
    if not one.failed or not others_done + others_failed:
        return False
    return one.failed * (others_done + others_failed) > others_failed * (one.done + one.failed)


def _unused(core: "Core") -> Turns[int]:
    """How many records that count are old, and were shown to nobody here for long."""
    since, count = core.now.wall_ms - _UNUSED_MS, 0
    for key in core.part(Memory).newest_keys():
        yield
        record = core.part(Memory).records(key).get(RecordName(FLEET, key))
        heads = record.heads if record is not None and record.state == "active" else ()
        if heads and all(head.stamp[0] < since for head in heads):
            told = (who.t_ms for head in heads for who in readers(core, head.id)[:1])
            count += all(t_ms < since for t_ms in told)
    return count
