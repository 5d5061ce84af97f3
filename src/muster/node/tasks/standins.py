"""Who stands in for whom: the newest order of an operator about each machine.

Rule 1: an order names the one that it replaces, so the newest is the one with the most orders
behind it. Of several that did not know of each other it is told by hashes of what was there before:
the machine, and the operator's key; and of one operator's own by the orders' ids. Nobody's clock
says which one counts, and no machine can choose.
Rule 2: what a stand-in adopts counts unless a newer order was written before, as entries are
stamped: above the stamps of all that their writer knew.
Rule 3: every machine has the same ones, and so the same answer; a designation is no secret.
"""

from hashlib import sha256
from typing import TYPE_CHECKING

from muster.fleet.kinds import OrderTake
from muster.fleet.statement import open_statement
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.node.call.shut_out import is_after, was_told
from muster.task.standin import STANDINS, FleetStandin, StandinRow, order_of

if TYPE_CHECKING:
    from muster.node.core import Core

_Rank = tuple[int, str, str]


def standins(core: "Core") -> dict[str, StandinRow]:
    """By machine what an operator ordered last of its work; without who was told of nobody."""
    machines = [machine for (machine,) in core.tables.distinct(STANDINS, ("machine",))]
    found = {machine: _newest(core, machine) for machine in machines}
    return {machine: row for machine, row in found.items() if row is not None and row.by}


def newest(core: "Core", machine: str) -> str:
    """The id of the newest order about a machine, which the next one replaces; "" for none."""
    row = _newest(core, machine)
    return "" if row is None else row.order


def still_counts(core: "Core", order: EntryId) -> bool:
    """Whether whoever gave an order to go on with work may give it now, and nobody gave another."""
    entry = core.log.entry(order)
    taken, named = body_or_none(entry, OrderTake), body_or_none(entry, FleetStandin)
    if named is not None and newest(core, named.machine) != order_of(named):
        return False
    body = named or taken
    if body is None:
        return False
    statement = open_statement(body.statement.encode(), core.membership.fleet)
    return statement.operator in core.roster.operators


def replaced(core: "Core", adopt: Entry) -> bool:
    """Whether an operator had ordered otherwise than what this was adopted by, when it was."""
    rows = [row for cause in adopt.causes for row in core.tables.rows(STANDINS, entry=cause)]
    return any(_is_above(core, row, adopt) for row in rows)


def _is_above(core: "Core", own: StandinRow, adopt: Entry) -> bool:
    rows = core.tables.rows(STANDINS, machine=own.machine)
    ranks = _ranks(rows)
    for row in rows:
        entry = core.log.entry(row.entry)
        if (
            ranks[row.order] > ranks[own.order]
            and row.operator in core.roster.operators_ever
            and entry is not None
            and entry.header.t < adopt.header.t
            and (not is_after(core, entry, row.operator) or was_told(core, row.operator))
        ):
            return True
    return False


def _newest(core: "Core", machine: str) -> StandinRow | None:
    rows = core.tables.rows(STANDINS, machine=machine)
    ranks = _ranks(rows)
    operators = core.roster.operators
    counted = [row for row in rows if row.operator in operators]
    return max(counted, key=lambda row: ranks[row.order], default=None)


def _ranks(rows: list[StandinRow]) -> dict[str, _Rank]:
    """By order how newest it is: what it replaces is looked at first, however long the chain."""
    known, ranks = {row.order: row for row in rows}, dict[str, _Rank]()
    for row in rows:
        chain, at = list[StandinRow](), row.order
        # What is not here yet counts as one: it ranks anew when it comes.
        while at in known and at not in ranks:
            chain.append(known[at])
            at = known[at].replaces
        depth = ranks[at][0] if at in ranks else bool(at)
        for each in reversed(chain):
            depth += 1
            tie = sha256(f"{each.machine}/{each.operator}".encode()).hexdigest()
            ranks[each.order] = (depth, tie, each.order)
    return ranks
