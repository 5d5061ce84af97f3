"""From the fleet's entries to rows: machines, operators, grants, orders, invites, groups.

Rule 1: a fold checks what bytes can show: form, signatures, and that a stream's own rules are
kept (an invite is used once, a nonce is taken once). What needs more than one stream (is this
key still an operator, which record is the newest) is the roster's to combine.
Rule 2: no row is ever deleted where a later stream of the same machine could bring the old
fact back: a grant taken and a member removed leave a row that says so.
Rule 3: entries outside a stream of scope `fleet` are skipped: authority is public.

Reasons for skipping: no-body, bad-body, wrong-scope, bad-record, bad-statement, not-first,
not-mine, stale, other-grant, other-incident, other-target, other-terms, replayed, invite-known,
invite-unknown, invite-used, incident-not-open.
"""

from collections.abc import Iterable
from typing import Final

from muster.errors import Malformed
from muster.fleet import kinds
from muster.fleet.acknowledgement import KINDS, read
from muster.fleet.device_fold import DEVICE, DEVICE_KINDS, DEVICE_OFFER, Handler, checked
from muster.fleet.document import document_id
from muster.fleet.facts import Facts, Logins, Reach
from muster.fleet.grant import gives, takes
from muster.fleet.operator_end import open_end
from muster.fleet.record import open_operator, open_record, open_revocation
from muster.fleet.statement import is_target, open_statement
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import Change, Fold, Row, Rows, Skip, Table, body_as
from muster.log.stream import FLEET, FleetId, StreamName


def _newest(name: str, key: str, number: str, text: str) -> Table:
    """Of these the newest counts, whoever passed it on; an index finds it.

    For a machine may say the same document again in each of its thousands of streams.
    """
    index = (key, number, text)
    return Table(name, ((key, "text"),), ((number, "int"), (text, "text")), (index,))


MACHINE: Final = _newest("fleet_machine", "machine", "serial", "record")
INCARNATION: Final = Table(
    "fleet_incarnation", (("incarnation", "text"),), (("heads", "text"), ("t_ms", "int"))
)
FACTS: Final = _newest("fleet_facts", "machine", "t_ms", "facts")
LOGINS: Final = _newest("fleet_logins", "machine", "t_ms", "logins")
REACH: Final = _newest("fleet_reach", "machine", "t_ms", "reach")
REVOKED: Final = _newest("fleet_revoked", "key", "issued_ms", "revocation")
OPERATOR: Final = _newest("fleet_operator", "operator", "issued_ms", "record")
ENDED: Final = Table(
    "fleet_operator_end", (("id", "text"),), (("operator", "text"), ("document", "text"))
)
GRANT: Final = Table(
    "fleet_grant",
    (("id", "text"),),
    (
        ("giver", "text"),
        ("grantee", "text"),
        ("verb", "text"),
        ("object", "text"),
        ("until_ms", "int"),
    ),
)
# When it was signed: the stamp of an entry is whoever's who repeats it.
TAKEN: Final = Table(
    "fleet_grant_taken",
    (("id", "text"), ("taker", "text")),
    (("issued_ms", "int"),),
    (("id", "taker"),),
)
INVITE: Final = Table(
    "fleet_invite",
    (("sha256", "text"),),
    (("name", "text"), ("roles", "text"), ("until_ms", "int"), ("machine", "text")),
)
ORDER: Final = Table(
    "fleet_order",
    (("operator", "text"), ("nonce", "text")),
    (
        ("verb", "text"),
        ("object", "text"),
        ("args", "text"),
        ("grant_id", "text"),
        ("entry", "blob"),
        ("t_ms", "int"),
        ("until_ms", "int"),
    ),
    ids=True,
)
DENIAL: Final = Table(
    "fleet_denial",
    (("seq", "int"),),
    (("asker", "text"), ("verb", "text"), ("object", "text"), ("reason", "text"), ("t_ms", "int")),
)
GROUP: Final = Table("fleet_group", (("name", "text"),), (("t_ms", "int"),))
MEMBER: Final = Table(
    "fleet_member",
    (("name", "text"), ("machine", "text")),
    (("member", "int"), ("since", "text"), ("cuts", "text"), ("t_ms", "int"), ("t_n", "int")),
)
# `fork` is 1 where `about` is a stream that forked after its first `common` entries.
ACKNOWLEDGED: Final = Table(
    "fleet_acknowledged",
    (("incident", "text"), ("signer", "text")),
    (("fork", "int"), ("about", "text"), ("common", "int"), ("note", "text"), ("issued_ms", "int")),
    (("incident", "signer"), ("signer", "fork")),
)
INCIDENT: Final = Table(
    "fleet_incident",
    (("key", "text"),),
    (
        ("open", "int"),
        ("severity", "text"),
        ("title", "text"),
        ("detail", "text"),
        ("times", "int"),
        ("opened_ms", "int"),
        ("t_ms", "int"),
    ),
)


class FleetFold:
    """One fold: a name, its tables, and a handler for each kind of entry."""

    # It rises when the same entries give other rows: stores then fold them again.
    version = 3

    def __init__(
        self, name: str, fleet: FleetId, tables: tuple[Table, ...], handlers: dict[str, Handler]
    ) -> None:
        self.name = name
        self.fleet = fleet
        self.tables = tables
        self.kinds = frozenset(handlers)
        self._handlers = handlers

    def apply(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        if entry.stream.scope != FLEET:
            raise Skip("wrong-scope")
        return self._handlers[entry.header.kind](entry, rows, self.fleet)


def fleet_folds(fleet: FleetId) -> tuple[Fold, ...]:
    """Every fold of the fleet's entries, for the fleet whose record key has this id."""
    return tuple(FleetFold(name, fleet, *what) for name, what in _FOLDS.items())


def _machine_open(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.MachineOpen)
    # Later in the stream it would rewrite what the incarnation claims to follow.
    if entry.header.seq != 0:
        raise Skip("not-first")
    record = checked("bad-record", open_record, body.record, fleet)
    if record.machine != entry.header.author:
        raise Skip("not-mine")
    try:
        for head in body.heads:
            StreamName.parse(head)
    except Malformed as error:
        raise Skip("bad-body") from error
    heads = canon.encode(body.heads).decode()
    return [
        Change(MACHINE.name, (record.machine,), (record.serial, body.record)),
        Change(INCARNATION.name, (entry.stream.incarnation,), (heads, entry.header.t[0])),
    ]


def _document(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[Change]:
    """What the authority signed of a machine, of a key's end, or of an operator."""
    key: str
    if entry.header.kind == kinds.MACHINE_RECORD:
        raw = body_as(entry, kinds.MachineRecorded).record
        machine = checked("bad-record", open_record, raw, fleet)
        table, key, row = MACHINE, machine.machine, (machine.serial, raw)
    elif entry.header.kind == kinds.MACHINE_REVOKE:
        raw = body_as(entry, kinds.MachineRevoke).revocation
        revocation = checked("bad-record", open_revocation, raw, fleet)
        table, key, row = REVOKED, revocation.key, (revocation.issued_ms, raw)
    else:
        raw = body_as(entry, kinds.OperatorRecorded).record
        operator = checked("bad-record", open_operator, raw, fleet)
        table, key, row = OPERATOR, operator.operator, (operator.issued_ms, raw)
    known = rows.get(table.name, (key,))
    # Of two documents of the same number the greater text counts, everywhere the same one.
    if known is not None and (known[0], known[1]) > row:
        raise Skip("stale")
    return [Change(table.name, (key,), row)]


def _told(entry: Entry, _rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    """What a machine says of itself: its facts, and in entries beside them what came later."""
    told: object
    if entry.header.kind == kinds.MACHINE_LOGINS:
        table, told = LOGINS, body_as(entry, Logins).logins
    elif entry.header.kind == kinds.MACHINE_REACH:
        table, told = REACH, body_as(entry, Reach).reach
    else:
        table, told = FACTS, body_as(entry, Facts)
    row = (entry.header.t[0], canon.encode(told).decode())
    return [Change(table.name, (entry.header.author,), row)]


def _give(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.GrantGive)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    grant = body.grant
    if not gives(statement, grant):
        raise Skip("other-grant")
    row = (statement.operator, grant.to, grant.verb, grant.object, grant.until_ms)
    return [Change(GRANT.name, (document_id(body.statement.encode()),), row)]


def _take(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.GrantTake)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not takes(statement, body.id):
        raise Skip("other-grant")
    return [Change(TAKEN.name, (body.id, statement.operator), (statement.issued_ms,))]


def _order(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.OrderTake)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not is_target(statement, entry.stream.machine):
        raise Skip("other-target")
    # Whether it was late is no question here: the stamps of a machine whose clock was set back
    # run ahead of its clock, and an order that it obeyed must be spent all the same.
    key = (statement.operator, statement.nonce)
    if rows.get(ORDER.name, key) is not None:
        raise Skip("replayed")
    row = (
        *(statement.verb, statement.object, statement.args),
        *(body.grant, bytes(entry.id), entry.header.t[0], statement.until_ms),
    )
    return [Change(ORDER.name, key, row)]


def _deny(entry: Entry, _rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.OrderDeny)
    row = (body.by, body.verb, body.object, body.reason, entry.header.t[0])
    return [Change(DENIAL.name, (entry.header.seq,), row)]


def _acknowledge(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    """Who signed that a person looked at an incident."""
    said = read(entry)
    signed, fork = said.signed(fleet), isinstance(said.what, kinds.Fork)
    common = said.what.common if isinstance(said.what, kinds.Fork) else 0
    row = (int(fork), said.what.stream, common, said.note, signed.issued_ms)
    return [Change(ACKNOWLEDGED.name, (said.name, signed.operator), row)]


def _end(entry: Entry, _rows: Rows, fleet: FleetId) -> Iterable[Change]:
    """What still counts of a revoked operator's key."""
    raw = body_as(entry, kinds.OperatorEnd).end
    end = checked("bad-record", open_end, raw, fleet)
    return [Change(ENDED.name, (document_id(raw.encode()),), (end.operator, raw))]


def _invite_open(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.InviteOpen)
    # Opened again, a used token would be good for a second machine.
    if rows.get(INVITE.name, (body.sha256,)) is not None:
        raise Skip("invite-known")
    row = (body.name, " ".join(body.roles), body.until_ms, "")
    return [Change(INVITE.name, (body.sha256,), row)]


def _invite_use(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.InviteUse)
    row = rows.get(INVITE.name, (body.sha256,))
    if row is None:
        raise Skip("invite-unknown")
    if row[3] != "":
        raise Skip("invite-used")
    return [Change(INVITE.name, (body.sha256,), (*row[:3], body.machine))]


def _group(entry: Entry, _rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    if entry.header.kind == kinds.GROUP_OPEN:
        name = body_as(entry, kinds.GroupOpen).name
        return [Change(GROUP.name, (name,), (entry.header.t[0],))]
    member, since, cuts = 0, "start", "{}"
    if entry.header.kind == kinds.GROUP_REMOVE:
        body: kinds.GroupAdd | kinds.GroupRemove = body_as(entry, kinds.GroupRemove)
    else:
        body = added = body_as(entry, kinds.GroupAdd)
        member, since, cuts = 1, added.since, canon.encode(added.cuts).decode()
    row = (member, since, cuts, *entry.header.t)
    return [Change(MEMBER.name, (body.name, body.machine), row)]


def _incident_open(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.IncidentOpen)
    known = rows.get(INCIDENT.name, (body.key,))
    t_ms = _told_ms(entry, known)
    times, opened_ms = 1, t_ms
    if known is not None and known[0] == 1:
        assert isinstance(known[4], int), "times is an int column"
        assert isinstance(known[5], int), "opened_ms is an int column"
        times, opened_ms = known[4] + 1, known[5]
    row = (1, body.severity, body.title, body.detail, times, opened_ms, t_ms)
    return [Change(INCIDENT.name, (body.key,), row)]


def _incident_close(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[Change]:
    body = body_as(entry, kinds.IncidentClose)
    known = rows.get(INCIDENT.name, (body.key,))
    if known is None or known[0] != 1:
        raise Skip("incident-not-open")
    row = (0, known[1], known[2], body.reason, known[4], known[5], _told_ms(entry, known))
    return [Change(INCIDENT.name, (body.key,), row)]


def _told_ms(entry: Entry, known: Row | None) -> int:
    """When an incident was told, later than ever before: by this time it is named.

    A peer's clock that is ahead lets all that we say meanwhile have one time.
    """
    before = known[6] if known is not None else -1
    assert isinstance(before, int), "t_ms is an int column"
    return max(entry.header.t[0], before + 1)


_FOLDS: Final[dict[str, tuple[tuple[Table, ...], dict[str, Handler]]]] = {
    "fleet.who": (
        (MACHINE, INCARNATION, FACTS, REVOKED, OPERATOR),
        {
            kinds.MACHINE_OPEN: _machine_open,
            kinds.MACHINE_RECORD: _document,
            kinds.MACHINE_FACTS: _told,
            kinds.MACHINE_REVOKE: _document,
            kinds.OPERATOR_RECORD: _document,
        },
    ),
    "fleet.logins": ((LOGINS,), {kinds.MACHINE_LOGINS: _told}),
    "fleet.reach": ((REACH,), {kinds.MACHINE_REACH: _told}),
    "fleet.may": (
        (GRANT, TAKEN, ORDER, DENIAL),
        {
            kinds.GRANT_GIVE: _give,
            kinds.GRANT_TAKE: _take,
            kinds.ORDER_TAKE: _order,
            kinds.ORDER_DENY: _deny,
        },
    ),
    "fleet.invite": ((INVITE,), {kinds.INVITE_OPEN: _invite_open, kinds.INVITE_USE: _invite_use}),
    "fleet.group": (
        (GROUP, MEMBER),
        {kinds.GROUP_OPEN: _group, kinds.GROUP_ADD: _group, kinds.GROUP_REMOVE: _group},
    ),
    "fleet.acknowledged": ((ACKNOWLEDGED,), dict.fromkeys(KINDS, _acknowledge)),
    "fleet.end": ((ENDED,), {kinds.OPERATOR_END: _end}),
    "fleet.device": ((DEVICE_OFFER, DEVICE), DEVICE_KINDS),
    "fleet.incident": (
        (INCIDENT,),
        {kinds.INCIDENT_OPEN: _incident_open, kinds.INCIDENT_CLOSE: _incident_close},
    ),
}
