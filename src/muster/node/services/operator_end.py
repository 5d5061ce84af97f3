"""The end of a revoked operator's key, said by whoever holds the authority: fleet/operator_end.py.

Rule 1: who revokes an operator says it in the same step: what the key signs later comes too late.
Rule 2: an operator that an older version revoked gets an end from the next start on. It waits while
this machine is in doubt about its past, and so about what it knew.
Rule 3: what others gave and the key took back is named whatever it is much; of what nobody here
knows to be given there is room for so many.
"""

from typing import TYPE_CHECKING

from muster.fleet import folds, kinds
from muster.fleet.device_fold import DEVICE_OFFER
from muster.fleet.grant import GRANT
from muster.fleet.machine import Authority
from muster.fleet.operator_end import sign_end
from muster.limits import OPERATOR_END_NAMES_MAX
from muster.node.incarnations.doubt import Doubt
from muster.node.incidents import name
from muster.node.part import Part
from muster.store.table_reader import EVERY_ROW

if TYPE_CHECKING:
    from muster.node.core import Core


class OperatorEnds(Part):
    name = "last-words"

    def __init__(self, core: "Core") -> None:
        self._core = core
        self._seen: object = None

    def tick(self) -> None:
        """Say what is still to be said."""
        core, roster = self._core, self._core.roster
        if core.authority is None or core.part(Doubt).waits or roster is self._seen:
            return
        self._seen = roster
        for key in sorted(roster.revoked.keys() & roster.operators_ever - roster.ended.keys()):
            end(core, core.authority, key)


def end(core: "Core", authority: Authority, key: str) -> None:
    """Write down what of an operator's key counts from now on: what is known here."""
    # The grants and the terms of devices that outlive the operator: those that others gave.
    roster, known = core.roster, set[str]()
    givers = roster.operators.keys() | {g.grant.to for g in roster.grants if g.grant.verb == GRANT}
    for giver in sorted(givers - {key}):
        known |= {r.id for r in core.tables.rows(folds.GRANT, limit=EVERY_ROW, giver=giver)}
        known |= {r.id for r in core.tables.rows(DEVICE_OFFER, limit=EVERY_ROW, operator=giver)}
    took = core.tables.rows(folds.TAKEN, limit=EVERY_ROW, taker=key)
    taken = dict.fromkeys(row.id for row in took)
    named = [id for id in taken if id in known]
    others = [id for id in taken if id not in known][:OPERATOR_END_NAMES_MAX]
    # What is known here first: whoever has the key acknowledges what never was.
    proven = core.replication.forks.proved()
    told = {name(row) for row in core.tables.rows(folds.INCIDENT, open=1)}
    said = core.tables.distinct(folds.ACKNOWLEDGED, ("incident",), signer=key)
    seen = sorted(
        (incident for (incident,) in said),
        key=lambda each: (each not in proven, each not in told),
    )
    every = named + others
    for at in range(0, max(1, len(every)), OPERATOR_END_NAMES_MAX):
        raw = sign_end(
            authority,
            operator=key,
            taken=every[at : at + OPERATOR_END_NAMES_MAX],
            forks=seen[:OPERATOR_END_NAMES_MAX],
            issued_ms=core.now.wall_ms,
        )
        core.append_body(kinds.OperatorEnd(raw.decode()))
