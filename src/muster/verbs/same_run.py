"""Which run of ours an order means, where it was handed in before."""

from typing import Final

from muster.errors import Conflict
from muster.log.fold import body_as
from muster.task import kinds
from muster.task.fold import RUN
from muster.task.problem import shown
from muster.verbs.declaration import Core

# What makes two runs one, and what people call it.
_SAME: Final = {
    "spec": "spec", "repo": "repository", "base": "base", "values": "values",
    "kept": "phases to keep", "budget": "budget", "after": "run to go on with",
}  # fmt: skip


def differs(one: kinds.RunOpen, other: kinds.RunOpen) -> list[str]:
    """In what two orders differ, as people call it; nothing where they begin one run."""
    return [word for name, word in _SAME.items() if getattr(one, name) != getattr(other, name)]


def keyed(core: Core, body: kinds.RunOpen) -> str | None:
    """The run of ours that was handed in under this key, settled or not.

    Raises: Conflict where that one was ordered with something else.
    """
    for row in core.tables.rows(RUN, writer=core.machine, dedupe=f"key:{body.key}"):
        entry = core.log.entry(row.opened)
        if entry is None:
            continue
        if others := differs(body_as(entry, kinds.RunOpen), body):
            raise Conflict(
                f"the key {shown(body.key)} is that of run {row.run[:12]}, which was "
                f"ordered with another {' and '.join(others)}: take another key"
            )
        return row.run
    return None
