"""What a task's own rows say of its past: why it left a machine, and what a person is asked.

Rule 1: the reason stands in the owner's log; here it is read, never guessed.
Rule 2: a question is shown as the person signs it, with what came before filled in.
"""

from typing import TYPE_CHECKING

from msgspec import Struct

from muster.errors import Malformed
from muster.limits import VALUE_INLINE_BYTES_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import Skip, body_as
from muster.node import yields
from muster.node.ownership import Held
from muster.task import kinds, large, values

if TYPE_CHECKING:
    from muster.node.core import Core


class Left(Struct, frozen=True):
    """When a machine had a task no more, and why its owner says."""

    t_ms: int
    reason: str


def left(core: "Core", held: Held) -> dict[tuple[int, int], Left]:
    """For each epoch that ended without settling the task: when, and why its owner says."""
    # A row is queued with a reason only after its lease ended or its attempt failed.
    rows = core.store.query(
        "select epoch_order, epoch_count, changed_ms, reason from task_hist"
        " join stream on stream.id = task_hist.stream"
        " where task = ? and gone = 0 and state = 'queued' and reason <> ''"
        " and stream.name like ? order by id_",
        (str(held.row["task"]), f"{held.owner}/%"),
    )
    return {(int(a), int(b)): Left(t, why) for a, b, t, why in rows}  # type: ignore[arg-type]


def question(core: "Core", opened: bytes) -> str:
    """What the phase that this entry opened asks of a person; "" when it asks an agent."""
    entry = core.store.entry(EntryId(opened))
    try:
        body = body_as(entry, kinds.TaskOpen) if entry is not None else None
    except Skip:
        body = None
    if body is None or body.template.get("by") != "human":
        return ""
    text = str(body.template.get("do", ""))
    try:
        return values.prompt(text, _given(core, entry, body))
    except Malformed:
        return text


def _given(core: "Core", entry: Entry | None, body: kinds.TaskOpen) -> values.Values:
    """What a person is shown of the values: of the large ones the end, which says so."""
    if not yields.results_of(body) or entry is None:
        return body.values
    owner, phases = entry.stream.machine, yields.phases_of(body)
    found = yields.gathered(core.store, owner, body.run, phases)
    result = {name: dict(known) for name, known in body.values.items()}
    for phase, known in yields.pieces(core.store, found, body.run).items():
        for value, several in known.items():
            text, size = yields.joined(several), yields.total(several)
            cut = len(text) > VALUE_INLINE_BYTES_MAX
            result.setdefault(phase, {})[value] = large.shown(text, size) if cut else text
    return result
