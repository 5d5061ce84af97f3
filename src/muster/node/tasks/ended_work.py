"""Work whose owner cannot be asked: ended by an operator's order that every machine can check.

Rule 1: only the owner's stream says what becomes of its work. A `work.end` is an order to the
owner, left where the owner will find it; what it has settled before it came stays settled.
Rule 2: until then, and for ever where the owner is gone, such work is shown as cancelled, and that
of a machine that was revoked as lost: nothing of it stays open for ever.
Rule 3: the statement convinces, not who wrote it down: verb, object, reason, and the operator's
grant are checked by each machine itself.
"""

from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.fleet.statement import EVERY_MACHINE, check_order, open_statement
from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.log.stream import MachineId
from muster.node.counter import DECLARED
from muster.task.fold import ENDING, TaskRow, Work
from muster.task.kinds import WorkEnd
from muster.task.state import LIVE

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "endings-void": "A word to end work came from nobody who may end it, and ends nothing."
}

OPEN = frozenset({*LIVE, "open"})


def cancel_args(what: str, reason: str) -> dict[str, str]:
    """What an operator signs to end work whose owner cannot be asked."""
    return {"what": what, **({"reason": reason} if reason else {})}


def shown(core: "Core", row: Work) -> Work:
    """A row of the owner as it is to be shown: by what was said of it, and of a task's run."""
    owner = row.stream.machine
    if row.state not in OPEN or owner == core.machine:
        return row
    name, state = core.membership.name_of(owner), row.state
    run = row.run if isinstance(row, TaskRow) else ""
    if by := ended_by(core, row.id) or (run and ended_by(core, run)):
        state, text = "cancelled", f"{by} ended it while {name}, its owner, could not be asked"
    elif owner in core.roster.revoked:
        text = f"{name}, which owned it, is revoked; nobody takes it over: order it again"
        state = "lost"
    else:
        return row
    if isinstance(row, TaskRow):
        return row._replace(state=state, reason=text)
    return row._replace(state=state, summary=text)


def ended_by(core: "Core", what: str) -> str:
    """The operator who ended this, "" where nobody did."""
    for row in core.tables.rows(ENDING, what=what):
        entry = core.log.entry(row.entry)
        if entry is not None and (name := orderer(core, entry)):
            return name
    return ""


def orderer(core: "Core", entry: Entry) -> str:
    """The operator who ordered what a `work.end` says, of whoever owns it; "" for none."""
    try:
        body = body_as(entry, WorkEnd)
        statement = open_statement(bytes.fromhex(body.statement), core.membership.fleet)
        # When it was written down counts, not when somebody comes to read it.
        at_ms = max(statement.issued_ms, min(entry.header.t[0], statement.until_ms))
        check_order(
            statement,
            verb="cancel",
            object=body.what,
            machine=MachineId(EVERY_MACHINE),
            args=cancel_args(body.what, body.reason),
            now_ms=at_ms,
        )
        core.roster.permit(statement, at_ms)
    except (MusterError, Skip, ValueError):
        core.counters["endings-void"] += 1
        return ""
    return core.roster.speaker(statement.operator)
