"""What a task's own rows say of its past: why it left a machine, and what a person is asked.

Rule 1: the reason stands in the owner's log; here it is read, never guessed.
Rule 2: a question is shown as the person signs it, with what came before filled in.
"""

from contextlib import suppress

from msgspec import Struct

from muster.errors import Malformed
from muster.limits import VALUE_INLINE_BYTES_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.node.tasks import results as yields
from muster.node.tasks.ownership import Held, Ownership
from muster.task import kinds, large_value, review, values
from muster.task.fold import TASK, TaskRow
from muster.verbs.declaration import Core


class Left(Struct, frozen=True):
    """When a machine had a task no more, and why its owner says."""

    t_ms: int
    reason: str


def rows(core: Core, held: Held[TaskRow]) -> list[TaskRow]:
    """Every row that its owner's streams had of the task, oldest first in each of them.

    A task is asked of once: what was written before it was opened, and after its end, is not read.
    """
    found: list[TaskRow] = []
    task = held.row.task
    for row in core.tables.rows(TASK, writer=held.owner, task=task):
        opened, settled = core.log.entry(row.opened), core.log.entry(row.settled)
        if opened is not None:
            found += core.tables.history(TASK, opened, settled, "task", task)
    return found


def entries(core: Core, held: Held[TaskRow]) -> list[Entry]:
    """Every entry about a task that counts, oldest first: its owner's, and its workers'."""
    # Many rows name the same entry: it is read once.
    ids = {id for row in rows(core, held) for id in (row.opened, row.assigned, row.settled)}
    for attempt in core.part(Ownership).attempts(held.row.task):
        ids |= {attempt.started, attempt.ended}
    found = (core.log.entry(id) for id in ids)
    known = {entry.id: entry for entry in found if entry is not None}
    return sorted(known.values(), key=lambda e: (e.header.t, e.id))


def reason_before(core: Core, task: str) -> str:
    """Why the attempt before this one came to nothing; "" where there was none."""
    found = core.part(Ownership).held(TASK, task)
    left = [row for row in rows(core, found) if row.state == "queued"] if found else []
    why = [(row.changed_ms, row.machine, row.reason) for row in left if row.reason]
    if not why:
        return ""
    _, machine, reason = max(why)
    return f"{core.membership.name_of(machine)}: {reason}" if machine else reason


def question(core: Core, row: TaskRow) -> str:
    """What the phase of this task asks of a person; "" when it asks an agent."""
    entry = core.log.entry(row.opened)
    body = body_or_none(entry, kinds.TaskOpen)
    if body is None or body.template.get("by") != "human":
        return ""
    text = str(body.template.get("do", ""))
    # Without a value that it needs, the text is shown as it was written.
    with suppress(Malformed):
        text = values.prompt(text, _given(core, entry, body))
    rule = body.values.get("run", {}).get(review.RULE, "")
    return f"{text}\n\n({rule})" if rule else text


def _given(core: Core, entry: Entry | None, body: kinds.TaskOpen) -> values.Values:
    """What a person is shown of the values: of the large ones the end, which says so."""
    if not yields.results_of(body) or entry is None:
        return body.values
    owner, phases = entry.stream.machine, yields.phases_of(body)
    found = yields.gathered(core.store, owner, body.run, phases)
    result = {name: dict(known) for name, known in body.values.items()}
    for phase, known in yields.pieces(core.store, found).items():
        for value, several in known.items():
            text, size = yields.joined(several), yields.total(several)
            cut = len(text) > VALUE_INLINE_BYTES_MAX
            result.setdefault(phase, {})[value] = large_value.shown(text, size) if cut else text
    return result
