"""Which other fleets are dealt with: the orders of operators about them, as rows.

Rule 1: an entry holds the order as it was taken, and its writer is the machine that took it. What
it says is checked against the order here; whose order counts, the roster combines.
Rule 2: of what one operator said of a fleet the order that was signed last counts. A row without a
name says that the fleet was removed.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from muster.errors import MusterError
from muster.fleet import kinds
from muster.fleet.device_fold import Handler
from muster.fleet.peer import ADD, REMOVE, peer_args, read_card
from muster.fleet.statement import Statement, check_order, open_statement
from muster.log.entry import Entry
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import FleetId, MachineId, StreamName


class PeerRow(NamedTuple):
    stream: StreamName
    fleet: str
    operator: str
    issued_ms: int
    # "" where it was removed.
    name: str
    card: str


PEER: Final = Table("fleet_peer", PeerRow, key=2)


def _peer(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.FleetPeered)
    args = peer_args(body.card, body.fleet, body.name)
    what: dict[str, Any] = {"verb": ADD, "object": body.fleet, "args": args}
    statement = _ordered(entry, fleet, what, body.statement)
    try:
        same = read_card(body.card).fleet == body.fleet
    except MusterError as error:
        raise Skip("bad-card") from error
    if not same or body.fleet == fleet:
        raise Skip("bad-card")
    return _newer(rows, statement, body.fleet, body.name, body.card)


def _unpeer(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.FleetUnpeered)
    what = {"verb": REMOVE, "object": body.fleet, "args": {"fleet": body.fleet}}
    statement = _ordered(entry, fleet, what, body.statement)
    return _newer(rows, statement, body.fleet, "", "")


def _ordered(entry: Entry, fleet: FleetId, what: dict[str, Any], raw: str) -> Statement:
    """The order behind it. Raises: Skip where it is none of just that, for its writer."""
    try:
        statement = open_statement(raw.encode(), fleet)
        now_ms = min(entry.header.t[0], statement.until_ms)
        here = MachineId(entry.header.author)
        check_order(statement, **what, machine=here, now_ms=now_ms)
    except MusterError as error:
        raise Skip("bad-statement") from error
    return statement


def _newer(
    rows: Rows, statement: Statement, fleet: str, name: str, card: str
) -> Iterable[NamedTuple]:
    known = rows.get(PEER, fleet, statement.operator)
    row = PeerRow(rows.stream, fleet, statement.operator, statement.issued_ms, name, card)
    # At the same time a removal counts.
    if known is not None and (known.issued_ms, not known.name) >= (row.issued_ms, not name):
        raise Skip("stale")
    return [row]


PEER_KINDS: Final[dict[str, Handler]] = {kinds.FLEET_PEER: _peer, kinds.FLEET_UNPEER: _unpeer}
