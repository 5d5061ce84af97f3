"""Which machines said last of a context folder that they have it no more; ours says so of its own.

Rule: whoever has it again says what its disk has: that it ended does not count any more then.
"""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from muster.context.fold import AT, PASSED, AtRow, PassedRow
from muster.context.kinds import ContextPassed
from muster.node import event as ev
from muster.node.services.context import Place

if TYPE_CHECKING:
    from muster.node.core import Core


class FoldersKept(ev.Event, frozen=True):
    """The folders that this machine has on its disk: all of them."""

    places: frozenset[Place]


def is_ended(at: Iterable[AtRow], said: Iterable[PassedRow]) -> bool:
    """Whether a machine said last of its folder that it has it no more."""
    last = max(said, key=lambda row: row.at_ms, default=None)
    return last is not None and bool(last.ended) and max(row.at_ms for row in at) <= last.at_ms


def end_others(core: "Core", here: frozenset[Place] | None) -> None:
    """Say of each folder that this machine said it has, and that is none of these, that it ended.

    Nothing without them, and while this machine may not write yet.
    """
    if not core.settled or here is None:
        return
    said = dict[Place, tuple[list[AtRow], list[PassedRow]]]()
    for stream in core.log.streams():
        if stream.machine == core.machine:
            for at in core.tables.rows(AT, stream=stream):
                ats, every = said.setdefault(Place(stream.scope, at.folder), ([], []))
                ats.append(at)
                every += core.tables.rows(PASSED, stream=stream, folder=at.folder)
    for place, (ats, every) in said.items():
        if place not in here and not is_ended(ats, every):
            core.append_body(ContextPassed(place.folder, ended=1), scope=place.scope)
