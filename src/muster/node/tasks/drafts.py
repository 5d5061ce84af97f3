"""Drafts of the owner and of the worker become entries.

Rule 1: drafts are appended in their order, as many at once as have one scope and known causes: a
cause may be the draft just before, which gets its id when it is appended.
Rule 2: a draft that makes no entry keeps no other from being written; whoever asked is told which.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from muster.store.store import Draft as StoreDraft
from muster.task.instruction import Draft

if TYPE_CHECKING:
    from muster.node.core import Core


def write(core: "Core", drafts: Sequence[Draft]) -> None:
    """Append drafts, and note in each the id of its entry. Raises what the first bad one raises."""
    waiting = list(drafts)
    while waiting:
        scope, ready = waiting[0].scope, 0
        for draft in waiting:
            unknown = any(isinstance(c, Draft) and c.id is None for c in draft.causes)
            if draft.scope != scope or (unknown and ready):
                break
            ready += 1
        part, waiting = waiting[:ready], waiting[ready:]
        made = [StoreDraft(d.kind, d.actor, tuple(d.cites()), d.raw) for d in part]
        for draft, entry in zip(part, core.append_all(scope, made), strict=True):
            draft.id = entry.id


def write_each(core: "Core", drafts: list[Draft]) -> list[tuple[Draft, str]]:
    """Append and empty `drafts`; returns those that make no entry, and why."""
    if not drafts:
        return []
    waiting, drafts[:] = list(drafts), []
    if core.guard.run("entries", "", write, core, waiting) is None:
        return []
    # What was appended was taken back with the one that failed.
    for draft in waiting:
        draft.id = None
    failures = []
    for draft in waiting:
        failure = core.guard.run("entry", draft.kind, write, core, [draft])
        if failure is not None:
            failures.append((draft, failure))
    return failures
