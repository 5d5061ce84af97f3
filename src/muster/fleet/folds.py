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

from collections.abc import Callable, Iterable
from typing import Final, TypeVar

from muster.errors import Malformed
from muster.fleet import kinds
from muster.fleet.acknowledgement import KINDS, read
from muster.fleet.device_fold import DEVICE, DEVICE_OFFER, Devices, checked
from muster.fleet.document import document_id
from muster.fleet.facts import Facts, Logins, Reach
from muster.fleet.grant import gives, takes
from muster.fleet.operator_end import open_end
from muster.fleet.record import open_operator, open_record, open_revocation
from muster.fleet.statement import Statement, is_target, open_statement
from muster.log import canon
from muster.log.entry import Entry
from muster.log.fold import Change, Fold, Rows, Skip, Table, body_as
from muster.log.stream import FLEET, FleetId, StreamName

T = TypeVar("T")
Handler = Callable[[Entry, Rows], Iterable[Change]]


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
    (
        ("fork", "int"),
        ("about", "text"),
        ("common", "int"),
        ("note", "text"),
        ("issued_ms", "int"),
    ),
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
    version = 2

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
        return self._handlers[entry.header.kind](entry, rows)


def fleet_folds(fleet: FleetId) -> tuple[Fold, ...]:
    """Every fold of the fleet's entries, for the fleet whose record key has this id."""
    who = _Who(fleet)
    may = _May(fleet)
    end = _End(fleet)
    device = Devices(fleet)
    logins, reach = _beside(LOGINS, Logins, "logins"), _beside(REACH, Reach, "reach")
    return (
        FleetFold("fleet.who", fleet, (MACHINE, INCARNATION, FACTS, REVOKED, OPERATOR), who.kinds),
        FleetFold("fleet.logins", fleet, (LOGINS,), {kinds.MACHINE_LOGINS: logins}),
        FleetFold("fleet.reach", fleet, (REACH,), {kinds.MACHINE_REACH: reach}),
        FleetFold("fleet.may", fleet, (GRANT, TAKEN, ORDER, DENIAL), may.kinds),
        FleetFold("fleet.invite", fleet, (INVITE,), _INVITE_KINDS),
        FleetFold("fleet.group", fleet, (GROUP, MEMBER), _GROUP_KINDS),
        FleetFold("fleet.acknowledged", fleet, (ACKNOWLEDGED,), _acknowledged(fleet)),
        FleetFold("fleet.end", fleet, (ENDED,), end.kinds),
        FleetFold("fleet.device", fleet, (DEVICE_OFFER, DEVICE), device.kinds),
        FleetFold("fleet.incident", fleet, (INCIDENT,), _INCIDENT_KINDS),
    )


class _Who:
    """Machines and operators."""

    def __init__(self, fleet: FleetId) -> None:
        self.fleet = fleet
        self.kinds: dict[str, Handler] = {
            kinds.MACHINE_OPEN: self._open,
            kinds.MACHINE_RECORD: self._record,
            kinds.MACHINE_FACTS: self._facts,
            kinds.MACHINE_REVOKE: self._revoke,
            kinds.OPERATOR_RECORD: self._operator,
        }

    def _open(self, entry: Entry, _rows: Rows) -> Iterable[Change]:
        body = body_as(entry, kinds.MachineOpen)
        # Later in the stream it would rewrite what the incarnation claims to follow.
        if entry.header.seq != 0:
            raise Skip("not-first")
        record = checked("bad-record", open_record, body.record, self.fleet)
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

    def _record(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        raw = body_as(entry, kinds.MachineRecorded).record
        record = checked("bad-record", open_record, raw, self.fleet)
        return _newer(MACHINE, (record.machine,), (record.serial, raw), rows)

    def _facts(self, entry: Entry, _rows: Rows) -> Iterable[Change]:
        facts = body_as(entry, Facts)
        row = (entry.header.t[0], canon.encode(facts).decode())
        return [Change(FACTS.name, (entry.header.author,), row)]

    def _revoke(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        raw = body_as(entry, kinds.MachineRevoke).revocation
        revocation = checked("bad-record", open_revocation, raw, self.fleet)
        return _newer(REVOKED, (revocation.key,), (revocation.issued_ms, raw), rows)

    def _operator(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        raw = body_as(entry, kinds.OperatorRecorded).record
        record = checked("bad-record", open_operator, raw, self.fleet)
        return _newer(OPERATOR, (record.operator,), (record.issued_ms, raw), rows)


def _beside(table: Table, body: type[Logins] | type[Reach], field: str) -> Handler:
    """What a machine says of itself in an entry beside its facts."""

    def fold(entry: Entry, _rows: Rows) -> Iterable[Change]:
        told = canon.encode(getattr(body_as(entry, body), field)).decode()
        return [Change(table.name, (entry.header.author,), (entry.header.t[0], told))]

    return fold


class _May:
    """Grants, and the orders that were taken or refused."""

    def __init__(self, fleet: FleetId) -> None:
        self.fleet = fleet
        self.kinds: dict[str, Handler] = {
            kinds.GRANT_GIVE: self._give,
            kinds.GRANT_TAKE: self._take,
            kinds.ORDER_TAKE: self._order,
            kinds.ORDER_DENY: self._deny,
        }

    def _statement(self, text: str) -> Statement:
        return checked("bad-statement", open_statement, text, self.fleet)

    def _give(self, entry: Entry, _rows: Rows) -> Iterable[Change]:
        body = body_as(entry, kinds.GrantGive)
        statement = self._statement(body.statement)
        grant = body.grant
        if not gives(statement, grant):
            raise Skip("other-grant")
        row = (statement.operator, grant.to, grant.verb, grant.object, grant.until_ms)
        return [Change(GRANT.name, (document_id(body.statement.encode()),), row)]

    def _take(self, entry: Entry, _rows: Rows) -> Iterable[Change]:
        body = body_as(entry, kinds.GrantTake)
        statement = self._statement(body.statement)
        if not takes(statement, body.id):
            raise Skip("other-grant")
        return [Change(TAKEN.name, (body.id, statement.operator), (statement.issued_ms,))]

    def _order(self, entry: Entry, rows: Rows) -> Iterable[Change]:
        body = body_as(entry, kinds.OrderTake)
        statement = self._statement(body.statement)
        if not is_target(statement, entry.stream.machine):
            raise Skip("other-target")
        # Whether it was late is no question here: the stamps of a machine whose clock was set back
        # run ahead of its clock, and an order that it obeyed must be spent all the same.
        t_ms = entry.header.t[0]
        key = (statement.operator, statement.nonce)
        if rows.get(ORDER.name, key) is not None:
            raise Skip("replayed")
        row = (
            statement.verb,
            statement.object,
            statement.args,
            body.grant,
            bytes(entry.id),
            t_ms,
            statement.until_ms,
        )
        return [Change(ORDER.name, key, row)]

    def _deny(self, entry: Entry, _rows: Rows) -> Iterable[Change]:
        body = body_as(entry, kinds.OrderDeny)
        row = (body.by, body.verb, body.object, body.reason, entry.header.t[0])
        return [Change(DENIAL.name, (entry.header.seq,), row)]


def _acknowledged(fleet: FleetId) -> dict[str, Handler]:
    """Who signed that a person looked at an incident."""

    def fold(entry: Entry, _rows: Rows) -> Iterable[Change]:
        said = read(entry)
        signed, fork = said.signed(fleet), isinstance(said.what, kinds.Fork)
        common = said.what.common if isinstance(said.what, kinds.Fork) else 0
        row = (int(fork), said.what.stream, common, said.note, signed.issued_ms)
        return [Change(ACKNOWLEDGED.name, (said.name, signed.operator), row)]

    return dict.fromkeys(KINDS, fold)


class _End:
    """What still counts of a revoked operator's key."""

    def __init__(self, fleet: FleetId) -> None:
        self.fleet = fleet
        self.kinds: dict[str, Handler] = {kinds.OPERATOR_END: self._end}

    def _end(self, entry: Entry, _rows: Rows) -> Iterable[Change]:
        raw = body_as(entry, kinds.OperatorEnd).end
        end = checked("bad-record", open_end, raw, self.fleet)
        return [Change(ENDED.name, (document_id(raw.encode()),), (end.operator, raw))]


def _invite_open(entry: Entry, rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.InviteOpen)
    # Opened again, a used token would be good for a second machine.
    if rows.get(INVITE.name, (body.sha256,)) is not None:
        raise Skip("invite-known")
    row = (body.name, " ".join(body.roles), body.until_ms, "")
    return [Change(INVITE.name, (body.sha256,), row)]


def _invite_use(entry: Entry, rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.InviteUse)
    row = rows.get(INVITE.name, (body.sha256,))
    if row is None:
        raise Skip("invite-unknown")
    if row[3] != "":
        raise Skip("invite-used")
    return [Change(INVITE.name, (body.sha256,), (*row[:3], body.machine))]


def _group_open(entry: Entry, _rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.GroupOpen)
    return [Change(GROUP.name, (body.name,), (entry.header.t[0],))]


def _group_add(entry: Entry, _rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.GroupAdd)
    cuts = canon.encode(body.cuts).decode()
    row = (1, body.since, cuts, *entry.header.t)
    return [Change(MEMBER.name, (body.name, body.machine), row)]


def _group_remove(entry: Entry, _rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.GroupRemove)
    row = (0, "start", "{}", *entry.header.t)
    return [Change(MEMBER.name, (body.name, body.machine), row)]


def _incident_open(entry: Entry, rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.IncidentOpen)
    t_ms = entry.header.t[0]
    known = rows.get(INCIDENT.name, (body.key,))
    times, opened_ms = 1, t_ms
    if known is not None and known[0] == 1:
        assert isinstance(known[4], int), "times is an int column"
        assert isinstance(known[5], int), "opened_ms is an int column"
        times, opened_ms = known[4] + 1, known[5]
    row = (1, body.severity, body.title, body.detail, times, opened_ms, t_ms)
    return [Change(INCIDENT.name, (body.key,), row)]


def _incident_close(entry: Entry, rows: Rows) -> Iterable[Change]:
    body = body_as(entry, kinds.IncidentClose)
    known = rows.get(INCIDENT.name, (body.key,))
    if known is None or known[0] != 1:
        raise Skip("incident-not-open")
    row = (0, known[1], known[2], body.reason, known[4], known[5], entry.header.t[0])
    return [Change(INCIDENT.name, (body.key,), row)]


_INVITE_KINDS: Final[dict[str, Handler]] = {
    kinds.INVITE_OPEN: _invite_open,
    kinds.INVITE_USE: _invite_use,
}
_GROUP_KINDS: Final[dict[str, Handler]] = {
    kinds.GROUP_OPEN: _group_open,
    kinds.GROUP_ADD: _group_add,
    kinds.GROUP_REMOVE: _group_remove,
}
_INCIDENT_KINDS: Final[dict[str, Handler]] = {
    kinds.INCIDENT_OPEN: _incident_open,
    kinds.INCIDENT_CLOSE: _incident_close,
}


def _newer(
    table: Table, key: tuple[str, ...], row: tuple[int, str], rows: Rows
) -> Iterable[Change]:
    known = rows.get(table.name, key)
    # Of two documents of the same number the greater text counts, everywhere the same one.
    if known is not None and (known[0], known[1]) > row:
        raise Skip("stale")
    return [Change(table.name, key, row)]
