"""What attempts used that this machine began and never ended: as their calls were told, one by one.

Rule: what passed a gateway was written into the journal as it happened. Who had asked its agent
nothing used nothing; where an agent was asked and no call was told, nobody knows.
"""

import json
from collections.abc import Collection
from typing import TYPE_CHECKING, Final

from muster.log.entry import Entry
from muster.log.stream import JOURNAL
from muster.task.budget import METERED
from muster.task.kinds import Epoch

if TYPE_CHECKING:
    from muster.node.core import Core

Place = tuple[str, Epoch]
_ASKED, _CALL = "agent.prompt", "agent.call"
# Chosen arbitrarily: the newest of a journal, some days of a busy machine; read at a start alone.
_LOOKED_AT_MAX: Final = 50_000


def told_usage(core: "Core", places: Collection[Place]) -> dict[Place, dict[str, int]]:
    """What the end of each of these says that it used; {} where nobody knows."""
    asked, found = set[Place](), {place: dict[str, int]() for place in places}
    whole = True
    for stream in core.log.streams() if places else ():
        if stream.machine != core.machine or stream.scope != JOURNAL:
            continue
        at = max(0, core.log.size(stream) - _LOOKED_AT_MAX)
        whole = whole and not at
        while entries := core.log.slice(stream, at):
            for entry in entries:
                _add(entry, asked, found)
            at += len(entries)
    # Of what lies further back nobody knows whether it was asked.
    never = found.keys() - asked if whole else ()
    return found | {place: {METERED: 1} for place in never if not found[place]}


def _add(entry: Entry, asked: set[Place], found: dict[Place, dict[str, int]]) -> None:
    if entry.header.kind not in (_ASKED, _CALL) or entry.body is None:
        return
    body = json.loads(entry.body)
    place = (str(body.get("task")), tuple(body.get("epoch") or (0, 0)))
    if place not in found:
        return
    asked.add(place)
    if entry.header.kind == _CALL:
        # The last call may have been cut off, and was told by nobody.
        sums = found[place]
        sums |= {METERED: 1, "estimated": 1}
        usage = body.get("usage") or {}
        tokens = sum(n for n in usage.values() if isinstance(n, int))
        sums["tokens"] = sums.get("tokens", 0) + tokens
        cost = body.get("usd_millionths") or 0
        sums["usd_millionths"] = sums.get("usd_millionths", 0) + cost
