"""One order is one run: what an owner began beside it counts for nothing, and people are told.

Rule: what counts follows from the entries of the owner's streams that are here, and from nothing
else: whoever has the same ones says the same. Of one stream the first run counts (task/fold.py),
of several streams the one that `identity.one_of` names.
"""

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec import Struct

from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import MachineId
from muster.task.fold import AGAIN, BEGINNING, AgainRow, BeginningRow
from muster.task.identity import one_of, order_id
from muster.task.kinds import RunOpen

if TYPE_CHECKING:
    from muster.node.core import Core

# A hostile owner may write any number of them; so many are shown.
_SHOWN_MAX: Final = 20


class Again(Struct, frozen=True):
    """A run that its owner began by an order that had begun another one already."""

    run: str
    t_ms: int


class Second(NamedTuple):
    """Such a run, whose it is, and the run that its order did begin."""

    run: str
    owner: MachineId
    counts: str


def is_begun(core: "Core", opening: Entry, run: RunOpen) -> bool:
    """Whether this opening, and no other of its writer's, is what the run's order began."""
    owner = MachineId(opening.header.author)
    rows = core.tables.rows(BEGINNING, writer=owner, statement=order_id(run.statement))
    if all(row.entry != opening.id for row in rows):
        return False
    return one_of((row.run for row in rows), owner, run.statement) == run.run


def doubled(core: "Core", opening: Entry, run: RunOpen) -> list[EntryId]:
    """The openings of several runs that an owner began by this order; [] where it is one run."""
    owner = opening.header.author
    rows = core.tables.rows(BEGINNING, writer=owner, statement=order_id(run.statement))
    return [row.entry for row in rows] if len({row.run for row in rows}) > 1 else []


def again(core: "Core", owner: str, run: str) -> list[Again]:
    """What else its owner began by the order of a run that counts."""
    found = dict[str, int]()
    for begun in core.tables.rows(BEGINNING, writer=owner, run=run):
        own: dict[str, Any] = {"writer": owner, "statement": begun.statement, "limit": _SHOWN_MAX}
        for row in core.tables.rows(AGAIN, **own):
            found[row.run] = row.at_ms
        for other in core.tables.rows(BEGINNING, **own):
            entry = core.log.entry(other.entry)
            if entry is not None:
                found[other.run] = entry.header.t[0]
    found.pop(run, None)
    return [Again(name, t_ms) for name, t_ms in sorted(found.items())[:_SHOWN_MAX]]


def second(core: "Core", text: str) -> Second | None:
    """The run that counts for nothing whose id begins so; None where there is none."""
    most: dict[str, Any] = {"begins": {"run": text}, "order": ("run",), "limit": 1}
    rows: list[AgainRow | BeginningRow] = [*core.tables.rows(AGAIN, **most)]
    for row in (*rows, *core.tables.rows(BEGINNING, **most)):
        owner = MachineId(row.stream.machine)
        its = core.tables.rows(BEGINNING, writer=owner, statement=row.statement)
        body = body_or_none(core.log.entry(its[0].entry) if its else None, RunOpen)
        counts = one_of((r.run for r in its), owner, body.statement) if body is not None else ""
        if counts not in ("", row.run):
            return Second(row.run, owner, counts)
    return None
