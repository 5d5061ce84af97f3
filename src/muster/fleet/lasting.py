"""What counts for ever, wherever the stream that told of it ends.

Rule 1: a stream that forked is cut back, and its tables with it. What shuts somebody out, or spends
an order, must not come undone by that: whoever finds it beyond the cut says it again.
Rule 2: it is believed for the signature it carries, never for who wrote the entry.

Four things last: a revocation, the taking of a grant, an operator's word about a fork, and an order
that *this* machine obeyed.
What gives (a record, a grant, a member) does not: losing it is safe, and whoever gave it notices.
"""

from typing import Final, NamedTuple

from muster.errors import Refused
from muster.fleet import folds, kinds
from muster.fleet.forked import closes
from muster.fleet.grant import takes
from muster.fleet.record import open_revocation
from muster.fleet.statement import is_target, open_statement
from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.log.stream import FLEET, FleetId, MachineId


class Lasting(NamedTuple):
    """A fact, and the row (of any of our streams where `own`, else of any stream) that knows it."""

    table: str
    row: dict[str, str]
    own: bool = False
    # After this moment (ms) nobody could make use of its being forgotten.
    until_ms: int | None = None


KINDS: Final = frozenset(
    {kinds.MACHINE_REVOKE, kinds.GRANT_TAKE, kinds.ORDER_TAKE, kinds.FORK_CLOSE}
)


def lasting(entry: Entry, fleet: FleetId, me: MachineId) -> Lasting | None:
    """What of this entry lasts for machine `me`; None for everything else, and for what is none."""
    if entry.header.kind not in KINDS or entry.stream.scope != FLEET:
        return None
    try:
        return _lasting(entry, fleet, me)
    except (Skip, Refused, UnicodeError):
        # The fold skipped it for the same reason: it never counted.
        return None


def _lasting(entry: Entry, fleet: FleetId, me: MachineId) -> Lasting | None:
    if entry.header.kind == kinds.MACHINE_REVOKE:
        raw = body_as(entry, kinds.MachineRevoke).revocation
        open_revocation(raw.encode(), fleet)
        return Lasting(folds.REVOKED.name, {"revocation": raw})
    if entry.header.kind == kinds.GRANT_TAKE:
        taking = body_as(entry, kinds.GrantTake)
        taker = open_statement(taking.statement.encode(), fleet)
        if not takes(taker, taking.id):
            return None
        return Lasting(folds.TAKEN.name, {"id": taking.id, "taker": taker.operator})
    if entry.header.kind == kinds.FORK_CLOSE:
        closing = body_as(entry, kinds.ForkClose)
        decided = open_statement(closing.statement.encode(), fleet)
        if not closes(decided, closing):
            return None
        return Lasting(folds.FORK.name, {"fork": decided.object, "operator": decided.operator})
    order = open_statement(body_as(entry, kinds.OrderTake).statement.encode(), fleet)
    if entry.header.author != me or not is_target(order, me):
        return None
    row = {"operator": order.operator, "nonce": order.nonce}
    return Lasting(folds.ORDER.name, row, own=True, until_ms=order.until_ms)
