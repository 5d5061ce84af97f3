"""What counts for ever, wherever the stream that told of it ends.

Rule 1: a stream that forked is cut back, and its tables with it. What shuts somebody out, or spends
an order, must not come undone by that: whoever finds it beyond the cut says it again.
Rule 2: it is believed for the signature it carries, never for who wrote the entry, and only where
that signature counts: the authority's, an operator's (also a former one's), or that of a key to
which an operator gave the right in question. What any other key signed is nobody's word: saying it
again would let a member fill the streams of all others.

Four things last: a revocation (the authority's), the taking of a grant (an operator's, or a key's
that may give), an operator's word about a fork, and an order that *this* machine obeyed.
What gives (a record, a grant, a member) does not: losing it is safe, and whoever gave it notices.
"""

from typing import Final, NamedTuple

from muster.errors import Refused
from muster.fleet import folds, kinds
from muster.fleet.forked import closes
from muster.fleet.grant import takes
from muster.fleet.record import open_revocation
from muster.fleet.roster import Roster
from muster.fleet.statement import is_target, open_statement, signer_of
from muster.log.entry import Entry
from muster.log.fold import Skip, body_as
from muster.log.stream import FLEET, MachineId


class Lasting(NamedTuple):
    """A fact, and the row (of any of our streams where `own`, else of any stream) that knows it."""

    table: str
    row: dict[str, str]
    own: bool = False
    # Whose signature it is: of each key but the authority's only so much is said again.
    signer: str = ""
    # After this moment (ms) nobody could make use of its being forgotten.
    until_ms: int | None = None


KINDS: Final = frozenset(
    {kinds.MACHINE_REVOKE, kinds.GRANT_TAKE, kinds.ORDER_TAKE, kinds.FORK_CLOSE}
)


def lasting(entry: Entry, roster: Roster, me: MachineId) -> Lasting | None:
    """What of this entry lasts for machine `me`; None for everything else, and for what is none."""
    if entry.header.kind not in KINDS or entry.stream.scope != FLEET:
        return None
    try:
        return _lasting(entry, roster, me)
    except (Skip, Refused, UnicodeError):
        # The fold skipped it for the same reason: it never counted.
        return None


def _lasting(entry: Entry, roster: Roster, me: MachineId) -> Lasting | None:
    kind = entry.header.kind
    if kind == kinds.MACHINE_REVOKE:
        raw = body_as(entry, kinds.MachineRevoke).revocation
        open_revocation(raw.encode(), roster.fleet)
        return Lasting(folds.REVOKED.name, {"revocation": raw})
    if kind == kinds.GRANT_TAKE:
        taking = body_as(entry, kinds.GrantTake)
        if not roster.takings_last(signer_of(taking.statement.encode())):
            return None
        taker = open_statement(taking.statement.encode(), roster.fleet)
        row = {"id": taking.id, "taker": taker.operator}
        if not takes(taker, taking.id):
            return None
        return Lasting(folds.TAKEN.name, row, signer=taker.operator)
    if kind == kinds.FORK_CLOSE:
        closing = body_as(entry, kinds.ForkClose)
        if signer_of(closing.statement.encode()) not in roster.operators_ever:
            return None
        decided = open_statement(closing.statement.encode(), roster.fleet)
        row = {"fork": decided.object, "operator": decided.operator}
        if not closes(decided, closing):
            return None
        return Lasting(folds.FORK.name, row, signer=decided.operator)
    return _obeyed(entry, roster, me)


def _obeyed(entry: Entry, roster: Roster, me: MachineId) -> Lasting | None:
    raw = body_as(entry, kinds.OrderTake).statement.encode()
    # An order of a key that holds nothing any more needs no remembering: it is denied anyway.
    if entry.header.author != me or not roster.orders_last(signer_of(raw)):
        return None
    order = open_statement(raw, roster.fleet)
    if not is_target(order, me):
        return None
    row = {"operator": order.operator, "nonce": order.nonce}
    until_ms = order.until_ms
    return Lasting(folds.ORDER.name, row, own=True, signer=order.operator, until_ms=until_ms)
