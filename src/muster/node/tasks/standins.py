"""Who stands in for whom: the newest order of an operator about each machine.

Rule: every machine has the same ones, and so the same answer; a designation is no secret.
"""

from typing import TYPE_CHECKING

from muster.fleet.statement import Statement
from muster.node.call.shut_out import is_after, was_told
from muster.task.standin import STANDINS, StandinRow

if TYPE_CHECKING:
    from muster.node.core import Core


def standins(core: "Core") -> dict[str, StandinRow]:
    """By machine what an operator ordered last of its work; without who was told of nobody."""
    found: dict[str, StandinRow] = {}
    for row in core.tables.rows(STANDINS, order=("issued_ms", "by")):
        if row.operator in core.roster.operators:
            found[row.machine] = row
    return {machine: row for machine, row in found.items() if row.by}


def replaced(core: "Core", statement: Statement, at_ms: int) -> bool:
    """Whether an operator had ordered otherwise of the same machine by then."""
    rows = core.tables.rows(STANDINS, machine=statement.object)
    return any(
        row.operator in core.roster.operators_ever
        and statement.issued_ms < row.issued_ms <= at_ms
        and not _is_late(core, row)
        for row in rows
    )


def _is_late(core: "Core", row: StandinRow) -> bool:
    """Whether it came after its key was shut out; who joined later cannot know."""
    entry, key = core.log.entry(row.entry), row.operator
    return entry is None or (is_after(core, entry, key) and not was_told(core, key))
