"""What counts for ever, wherever the stream that told of it ends.

Rule 1: a stream that forked is cut back, and its tables with it. What shuts somebody out, or spends
an order, must not come undone by that: whoever finds it beyond the cut says it again.
Rule 2: it is believed for the signature it carries, never for who wrote the entry, and only where
that signature counts: the authority's, an operator's (also a former one's), or that of a key to
which an operator gave the right in question. What any other key signed is nobody's word: saying it
again would let a member fill the streams of all others.

Six things last: a revocation and the end of an operator's key (the authority's), the taking of a
grant (an operator's, or a key's that may give), an operator's acknowledgement of a fork, an order
that *this* machine obeyed, and that it put a member out of a thread which it keeps. Nobody else can
say that one again, or needs to: whoever holds the removal beyond the cut leaves the member out for
it (`removals`), without a word.
What gives (a record, a grant, a member) does not: losing it is safe, and whoever gave it notices.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from muster.errors import Refused
from muster.fleet import acknowledgement, folds, kinds
from muster.fleet.grant import GRANT, takes
from muster.fleet.operator_end import open_end
from muster.fleet.record import open_revocation
from muster.fleet.roster import Roster
from muster.fleet.statement import is_target, open_statement, signer_of
from muster.log.entry import Entry
from muster.log.fold import Skip, Table, body_as
from muster.log.stream import FLEET, MachineId


class Permanent(NamedTuple):
    """A fact, and the row (of any of our streams where `own`, else of any stream) that knows it."""

    table: Table[Any]
    row: dict[str, Any]
    own: bool = False
    # Whose signature it is: of each key but the authority's only so much is said again.
    signer: str = ""
    # Only a row that is as new as this knows it; an older one may have come undone since.
    since: tuple[int, int] | None = None
    # After this moment (ms) nobody could make use of its being forgotten.
    until_ms: int | None = None


KINDS: Final = frozenset(
    {
        kinds.MACHINE_REVOKE,
        kinds.OPERATOR_END,
        kinds.GRANT_TAKE,
        kinds.ORDER_TAKE,
        kinds.GROUP_REMOVE,
        *acknowledgement.KINDS,
    }
)


def permanent(entry: Entry, roster: Roster, me: MachineId) -> Permanent | None:
    """What of this entry lasts for machine `me`; None for everything else, and for what is none."""
    if entry.header.kind not in KINDS or entry.stream.scope != FLEET:
        return None
    try:
        return _lasting(entry, roster, me)
    except (Skip, Refused, UnicodeError):
        # The fold skipped it for the same reason: it never counted.
        return None


def _lasting(entry: Entry, roster: Roster, me: MachineId) -> Permanent | None:
    kind = entry.header.kind
    if kind == kinds.MACHINE_REVOKE:
        raw = body_as(entry, kinds.MachineRevoke).revocation
        open_revocation(raw.encode(), roster.fleet)
        return Permanent(folds.REVOKED, {"revocation": raw})
    if kind == kinds.OPERATOR_END:
        raw = body_as(entry, kinds.OperatorEnd).end
        open_end(raw.encode(), roster.fleet)
        return Permanent(folds.ENDED, {"document": raw})
    if kind == kinds.GRANT_TAKE:
        taking = body_as(entry, kinds.GrantTake)
        # Anybody can sign that he takes one: it counts of an operator, and of a key that may give.
        key = signer_of(taking.statement.encode(), roster.fleet)
        may_give = any(g.grant.to == key and g.grant.verb == GRANT for g in roster.grants)
        if not may_give and not roster.took(key, taking.id):
            return None
        taker = open_statement(taking.statement.encode(), roster.fleet)
        row = {"id": taking.id, "taker": taker.operator}
        if not takes(taker, taking.id):
            return None
        return Permanent(folds.TAKEN, row, signer=taker.operator)
    if kind in acknowledgement.KINDS:
        said = acknowledgement.read(entry)
        signer = signer_of(said.statement.encode(), roster.fleet)
        # To lose what was said of anything else is safe: it is an alarm again.
        if not isinstance(said.what, kinds.Fork) or not roster.acknowledged(signer, said.name):
            return None
        row = {"incident": said.name, "signer": said.signed(roster.fleet).operator}
        return Permanent(folds.ACKNOWLEDGED, row, signer=signer)
    if kind == kinds.GROUP_REMOVE:
        removal = body_as(entry, kinds.GroupRemove)
        if entry.header.author != me:
            return None
        row = {"name": removal.name, "machine": removal.machine}
        t_ms, t_n = entry.header.t
        return Permanent(folds.MEMBER, row, own=True, since=(t_ms, t_n))
    order_raw = body_as(entry, kinds.OrderTake).statement.encode()
    if entry.header.author != me:
        return None
    # An order of a key that holds nothing any more needs no remembering: it is denied anyway.
    key = signer_of(order_raw, roster.fleet)
    if key not in roster.operators_ever and all(g.grant.to != key for g in roster.grants):
        return None
    order = open_statement(order_raw, roster.fleet)
    if not is_target(order, me):
        return None
    row = {"operator": order.operator, "nonce": order.nonce}
    until_ms = order.until_ms
    return Permanent(folds.ORDER, row, own=True, signer=order.operator, until_ms=until_ms)


def removals(entries: Iterable[Entry]) -> list[folds.MemberRow]:
    """The memberships that these entries of a keeper's stream amount to, of removals.

    They count for who is left out, never for who is let in: what is beyond the end of a forked
    stream is genuine, and to leave out too many is safe. They are read off what is held anyway.
    """
    rows: dict[tuple[str, str], folds.MemberRow] = {}
    for entry in entries:
        if entry.header.kind != kinds.GROUP_REMOVE or entry.stream.scope != FLEET:
            continue
        try:
            body = body_as(entry, kinds.GroupRemove)
        except Skip:
            # The fold skipped it likewise: what has no form removes nobody.
            continue
        rows[body.name, body.machine] = folds.MemberRow(
            entry.stream, body.name, body.machine, 0, "start", "{}", *entry.header.t
        )
    return list(rows.values())
