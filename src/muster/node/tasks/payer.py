"""The person whose money an attempt spends: whoever signed what it follows from.

Rule: of what a schedule began it is whoever signed that; what an agent hands on is paid by the
person whose order the agent works on, through all agents before it; what another fleet or a session
asked for, by whoever gave the grant.
"""

from typing import TYPE_CHECKING

from muster.errors import MusterError
from muster.fleet import folds
from muster.fleet.statement import open_statement
from muster.limits import DELEGATION_DEPTH_MAX
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.task.adoption import first
from muster.task.causes import Lookup, Unproven, cause_of
from muster.task.delegation_kinds import DelegationOpen
from muster.task.evidence import asked_by
from muster.task.kinds import RunOpen, TaskOpen
from muster.task.schedule_proof import fired, is_fired

if TYPE_CHECKING:
    from muster.node.core import Core


def run_of(core: "Core", assign: Entry) -> tuple[Entry, RunOpen] | None:
    """The run of an assignment as it was first opened, None for a task without one.

    Raises: Unproven where that is not here.
    """
    opener, opened = opened_of(core, assign)
    if not opened.run:
        return None
    starter = _first(core, cause_of(opener, "run.open", core.log.entry))
    run = body_or_none(starter, RunOpen)
    if run is None:
        raise Unproven("run-no-body", "the opening of its run cannot be read here")
    return starter, run


def payer(core: "Core", assign: Entry) -> str:
    """The person's name, "" where nobody known stands behind it. Raises: Unproven."""
    lookup: Lookup = core.log.entry
    for _ in range(DELEGATION_DEPTH_MAX + 1):
        found = run_of(core, assign)
        if found is None:
            return _signer(core, opened_of(core, assign)[1].statement)
        starter, run = found
        if is_fired(starter, lookup):
            order = fired(starter, core.membership.fleet, lookup).statement
            return _person(core, order.operator)
        asked = asked_by(starter, lookup)
        body = body_or_none(asked, DelegationOpen)
        if asked is None or body is None:
            return _signer(core, run.statement)
        if body.grant:
            rows = core.tables.rows(folds.GRANT, id=body.grant, limit=1)
            return _person(core, rows[0].giver) if rows else ""
        before = lookup(asked.causes[0]) if asked.causes else None
        if before is None or before.header.kind != "task.assign":
            raise Unproven("delegation-missing", "the assignment of who handed it on is not here")
        assign = before
    raise Unproven("delegation-too-wide", "it was handed on more often than anybody may")


def opened_of(core: "Core", assign: Entry) -> tuple[Entry, TaskOpen]:
    """The task of an assignment as it was first opened. Raises: Unproven."""
    opener = _first(core, cause_of(assign, "task.open", core.log.entry))
    opened = body_or_none(opener, TaskOpen)
    if opened is None:
        raise Unproven("open-no-body", "the opening of its task cannot be read here")
    return opener, opened


def _first(core: "Core", opening: Entry) -> Entry:
    """Where it was first written: what was adopted is believed here, and judged elsewhere."""
    return first(opening, core.log.entry, core.membership.fleet, lambda *_: True).entry


def _signer(core: "Core", statement: str) -> str:
    try:
        key = open_statement(bytes.fromhex(statement), core.membership.fleet).operator
        return _person(core, key)
    except (MusterError, ValueError) as error:
        raise Unproven("statement-forged", f"its order cannot be read: {error}") from error


def _person(core: "Core", key: str) -> str:
    """Whose key it is; of a device its person."""
    return core.roster.speaker(key).partition(".")[0]
