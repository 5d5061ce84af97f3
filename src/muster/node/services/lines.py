"""An entry as a line of what an agent is told, by what it says itself.

Rule: a line is made of its entry and of rows that never change again, so it is the same whenever
it is made; where the words are gone, so is the line.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.memory import earlier
from muster.memory.digest import Line
from muster.memory.kinds import MemoryPut, MemoryRefute
from muster.node.tasks.actor import said
from muster.node.tasks.ownership import Ownership
from muster.task.fold import ATTEMPT, TASK
from muster.task.kinds import AttemptFinish, TaskCancel, TaskDecide, TaskSettle

if TYPE_CHECKING:
    from muster.node.core import Core


def line_of(core: "Core", id: EntryId, section: str) -> Line | None:
    """What an entry says, as a line of a section; None where its words are not here any more."""
    entry = core.log.entry(id)
    if entry is None or entry.body is None:
        return None
    made: Mapping[str, Any] = {
        "memory.put": _record, "memory.refute": _record, "attempt.finish": try_of,
        "task.settle": outcome_of, "task.cancel": outcome_of, "task.decide": decision_of,
    }  # fmt: skip
    found = made[entry.header.kind](core, entry) if entry.header.kind in made else None
    if isinstance(found, earlier.Try):
        return earlier.tried(found._replace(run="") if section == "tried" else found)
    if isinstance(found, earlier.Outcome):
        return earlier.came_to(found)
    return earlier.decided(found) if isinstance(found, earlier.Decision) else found


def _record(core: "Core", entry: Entry) -> Line | None:
    by, header = said(core, entry).name, entry.header
    put, refuted = body_or_none(entry, MemoryPut), body_or_none(entry, MemoryRefute)
    about = (entry.id, header.author, by, header.t[0])
    if put is not None:
        return Line(*about, f"{put.key}:", put.text, outside=bool(put.origin))
    if refuted is not None:
        return Line(
            *about, f"{refuted.key} is wrong:", refuted.reason, outside=bool(refuted.origin)
        )
    return None


def try_of(core: "Core", entry: Entry | None) -> earlier.Try | None:
    body = body_or_none(entry, AttemptFinish)
    if entry is None or body is None:
        return None
    header, name = entry.header, core.membership.name_of(entry.header.author)
    attempt = core.tables.row(ATTEMPT, entry.stream, body.task, *body.epoch)
    by = f"{attempt.agent}@{name}" if attempt is not None and attempt.agent else name
    owner = core.part(Ownership).owner(TASK, body.task)
    rows = core.tables.rows(TASK, writer=owner, task=body.task, limit=1) if owner else []
    run = rows[0].run if rows else ""
    return earlier.Try(entry.id, header.author, by, header.t[0], body.reason, run)


def outcome_of(core: "Core", entry: Entry | None) -> earlier.Outcome | None:
    settled, cancelled = body_or_none(entry, TaskSettle), body_or_none(entry, TaskCancel)
    body = settled or cancelled
    row = core.tables.row(TASK, entry.stream, body.task) if entry is not None and body else None
    if entry is None or body is None or row is None:
        return None
    texts = [settled.summary if settled is not None else "", body.reason]
    if texts[0] and texts[0] in texts[1]:
        texts = texts[1:]
    by = f"{row.agent}@{core.membership.name_of(row.machine)}" if row.machine else "somebody"
    return earlier.Outcome(
        entry.id, entry.header.author, by, entry.header.t[0], row.run, row.state, row.tries,
        "; ".join(filter(None, texts)),
    )  # fmt: skip


def decision_of(core: "Core", entry: Entry | None) -> earlier.Decision | None:
    body = body_or_none(entry, TaskDecide)
    if entry is None or body is None:
        return None
    who, owner = said(core, entry), core.part(Ownership).owner(TASK, body.task)
    rows = core.tables.rows(TASK, writer=owner, task=body.task, limit=1) if owner else []
    if who.trust != "person" or not rows:
        return None
    return earlier.Decision(
        entry.id, entry.header.author, who.name, entry.header.t[0], rows[0].run, rows[0].phase,
        body.verdict, body.text,
    )  # fmt: skip
