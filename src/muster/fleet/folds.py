"""From the fleet's entries to rows: machines, operators, grants, orders, invites, groups.

Rule 1: a fold checks what bytes can show: form, signatures, and that a stream's own rules are
kept (an invite is used once, a nonce is taken once). What needs more than one stream (is this
key still an operator, which record is the newest) is the roster's to combine.
Rule 2: no row is ever deleted where a later stream of the same machine could bring the old
fact back: a grant taken and a member removed leave a row that says so.
Rule 3: entries outside a stream of scope `fleet` are skipped: authority is public.

Reasons for skipping: no-body, bad-body, wrong-scope, bad-record, bad-statement, bad-card,
not-first, not-mine, stale, other-grant, other-incident, other-target, other-terms, replayed,
invite-known, invite-unknown, invite-used, incident-not-open, too-long, code-used, late.
"""

from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from muster.errors import Malformed
from muster.fleet import kinds
from muster.fleet.acknowledgement import KINDS, read
from muster.fleet.chat import CHAT, CHAT_ACKNOWLEDGED, CHAT_KINDS
from muster.fleet.device_fold import DEVICE, DEVICE_KINDS, DEVICE_OFFER, Handler, checked
from muster.fleet.document import document_id
from muster.fleet.facts import Facts, Logins, Reach, Wake
from muster.fleet.grant import gives, takes
from muster.fleet.incident import graver
from muster.fleet.operator_end import open_end
from muster.fleet.peer_fold import PEER, PEER_KINDS
from muster.fleet.record import open_operator, open_record, open_revocation
from muster.fleet.silence_fold import NOTIFY, NOTIFY_KINDS, SILENCE, SILENCE_KINDS
from muster.fleet.statement import is_target, open_statement
from muster.fleet.until import until_ms
from muster.limits import ACKNOWLEDGED_MS_MAX, FLAP_MS, FLAPS_TOLD
from muster.log import canon
from muster.log.entry import Entry, EntryId
from muster.log.fold import Fold, Rows, Skip, Table, body_as
from muster.log.stream import FLEET, FleetId, StreamName


class MachineRow(NamedTuple):
    stream: StreamName
    machine: str
    serial: int
    record: str


class IncarnationRow(NamedTuple):
    stream: StreamName
    incarnation: str
    heads: str
    t_ms: int


class FactsRow(NamedTuple):
    stream: StreamName
    machine: str
    t_ms: int
    facts: str


class LoginsRow(NamedTuple):
    stream: StreamName
    machine: str
    t_ms: int
    logins: str


class ReachRow(NamedTuple):
    stream: StreamName
    machine: str
    t_ms: int
    reach: str


class WakeRow(NamedTuple):
    stream: StreamName
    machine: str
    t_ms: int
    cards: str


class RevokedRow(NamedTuple):
    stream: StreamName
    key: str
    issued_ms: int
    revocation: str


class OperatorRow(NamedTuple):
    stream: StreamName
    operator: str
    issued_ms: int
    record: str


class EndedRow(NamedTuple):
    stream: StreamName
    id: str
    operator: str
    document: str


class GrantRow(NamedTuple):
    stream: StreamName
    id: str
    giver: str
    grantee: str
    verb: str
    object: str
    until_ms: int
    # As JSON, "" without any.
    bounds: str
    issued_ms: int


class TakenRow(NamedTuple):
    stream: StreamName
    id: str
    taker: str
    # When it was signed: the stamp of an entry is whoever's who repeats it.
    issued_ms: int


class InviteRow(NamedTuple):
    stream: StreamName
    sha256: str
    name: str
    roles: str
    until_ms: int
    # Who used it; "" before.
    machine: str


class OrderRow(NamedTuple):
    stream: StreamName
    operator: str
    nonce: str
    verb: str
    object: str
    args: str
    grant_id: str
    entry: EntryId
    t_ms: int
    until_ms: int


class DenialRow(NamedTuple):
    stream: StreamName
    seq: int
    asker: str
    verb: str
    object: str
    reason: str
    t_ms: int


class GroupRow(NamedTuple):
    stream: StreamName
    name: str
    t_ms: int


class MemberRow(NamedTuple):
    stream: StreamName
    name: str
    machine: str
    member: int
    since: str
    cuts: str
    t_ms: int
    t_n: int


class AcknowledgedRow(NamedTuple):
    stream: StreamName
    incident: str
    signer: str
    # 1 where `about` is a stream that forked after its first `common` entries.
    fork: int
    about: str
    common: int
    note: str
    issued_ms: int
    # What is no fork has a key there; and a moment after which the word counts no more, 0 without.
    key: str
    until_ms: int


class IncidentRow(NamedTuple):
    stream: StreamName
    key: str
    open: int
    severity: str
    title: str
    detail: str
    times: int
    opened_ms: int
    t_ms: int
    # How often it opened again soon after it was closed, and since when all of that is one trouble.
    flaps: int
    since_ms: int
    # Since when it is as grave as it is.
    grave_ms: int


# Of these the newest counts, whoever passed it on; an index finds it. For a machine may say the
# same document again in each of its thousands of streams.
MACHINE: Final = Table("fleet_machine", MachineRow, indexes=(MachineRow._fields[1:],))
FACTS: Final = Table("fleet_facts", FactsRow, indexes=(FactsRow._fields[1:],))
LOGINS: Final = Table("fleet_logins", LoginsRow, indexes=(LoginsRow._fields[1:],))
REACH: Final = Table("fleet_reach", ReachRow, indexes=(ReachRow._fields[1:],))
WAKE: Final = Table("fleet_wake", WakeRow, indexes=(WakeRow._fields[1:],))
REVOKED: Final = Table("fleet_revoked", RevokedRow, indexes=(RevokedRow._fields[1:],))
OPERATOR: Final = Table("fleet_operator", OperatorRow, indexes=(OperatorRow._fields[1:],))
INCARNATION: Final = Table("fleet_incarnation", IncarnationRow)
ENDED: Final = Table("fleet_operator_end", EndedRow)
GRANT: Final = Table("fleet_grant", GrantRow)
TAKEN: Final = Table("fleet_grant_taken", TakenRow, key=2, indexes=(("id", "taker"),))
INVITE: Final = Table("fleet_invite", InviteRow)
ORDER: Final = Table("fleet_order", OrderRow, key=2, ids=True)
DENIAL: Final = Table("fleet_denial", DenialRow)
GROUP: Final = Table("fleet_group", GroupRow)
MEMBER: Final = Table("fleet_member", MemberRow, key=2)
ACKNOWLEDGED: Final = Table(
    "fleet_acknowledged",
    AcknowledgedRow,
    key=2,
    indexes=(("incident", "signer"), ("signer", "fork"), ("key", "signer")),
)
INCIDENT: Final = Table("fleet_incident", IncidentRow)


class FleetFold:
    """One fold: a name, its tables, and a handler for each kind of entry."""

    # It rises when the same entries give other rows: stores then fold them again.
    version = 4

    def __init__(
        self,
        name: str,
        fleet: FleetId,
        tables: tuple[Table[Any], ...],
        handlers: dict[str, Handler],
    ) -> None:
        self.name = name
        self.fleet = fleet
        self.tables = tables
        self.kinds = frozenset(handlers)
        self._handlers = handlers

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        if entry.stream.scope != FLEET:
            raise Skip("wrong-scope")
        return self._handlers[entry.header.kind](entry, rows, self.fleet)


def fleet_folds(fleet: FleetId) -> tuple[Fold, ...]:
    """Every fold of the fleet's entries, for the fleet whose record key has this id."""
    return tuple(FleetFold(name, fleet, *what) for name, what in _FOLDS.items())


def _machine_open(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
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
        MachineRow(rows.stream, record.machine, record.serial, body.record),
        IncarnationRow(rows.stream, entry.stream.incarnation, heads, entry.header.t[0]),
    ]


def _document(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    """What the authority signed of a machine, of a key's end, or of an operator."""
    row: MachineRow | RevokedRow | OperatorRow
    known: MachineRow | RevokedRow | OperatorRow | None
    if entry.header.kind == kinds.MACHINE_RECORD:
        raw = body_as(entry, kinds.MachineRecorded).record
        machine = checked("bad-record", open_record, raw, fleet)
        row = MachineRow(rows.stream, machine.machine, machine.serial, raw)
        known = rows.get(MACHINE, row.machine)
    elif entry.header.kind == kinds.MACHINE_REVOKE:
        raw = body_as(entry, kinds.MachineRevoke).revocation
        revocation = checked("bad-record", open_revocation, raw, fleet)
        row = RevokedRow(rows.stream, revocation.key, revocation.issued_ms, raw)
        known = rows.get(REVOKED, row.key)
    else:
        raw = body_as(entry, kinds.OperatorRecorded).record
        operator = checked("bad-record", open_operator, raw, fleet)
        row = OperatorRow(rows.stream, operator.operator, operator.issued_ms, raw)
        known = rows.get(OPERATOR, row.operator)
    # Of two documents of the same number the greater text counts, everywhere the same one.
    if known is not None and known > row:
        raise Skip("stale")
    return [row]


def _told(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    """What a machine says of itself: its facts, and in entries beside them what came later."""
    told: object
    row: type[FactsRow | LoginsRow | ReachRow | WakeRow]
    if entry.header.kind == kinds.MACHINE_LOGINS:
        row, told = LoginsRow, body_as(entry, Logins)
    elif entry.header.kind == kinds.MACHINE_REACH:
        row, told = ReachRow, body_as(entry, Reach).reach
    elif entry.header.kind == kinds.MACHINE_WAKE:
        row, told = WakeRow, body_as(entry, Wake).cards
    else:
        row, told = FactsRow, body_as(entry, Facts)
    text = canon.encode(told).decode()
    return [row(rows.stream, entry.header.author, entry.header.t[0], text)]


def _give(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.GrantGive)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    grant = body.grant
    if not gives(statement, grant):
        raise Skip("other-grant")
    id_, giver = document_id(body.statement.encode()), statement.operator
    to, verb, until_ms = grant.to, grant.verb, grant.until_ms
    bounds = canon.encode(grant.bounds).decode() if grant.bounds is not None else ""
    what = (to, verb, grant.object, until_ms, bounds, statement.issued_ms)
    return [GrantRow(rows.stream, id_, giver, *what)]


def _take(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.GrantTake)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not takes(statement, body.id):
        raise Skip("other-grant")
    return [TakenRow(rows.stream, body.id, statement.operator, statement.issued_ms)]


def _order(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.OrderTake)
    statement = checked("bad-statement", open_statement, body.statement, fleet)
    if not is_target(statement, entry.stream.machine):
        raise Skip("other-target")
    # Whether it was late is no question here: the stamps of a machine whose clock was set back
    # run ahead of its clock, and an order that it obeyed must be spent all the same.
    key = (statement.operator, statement.nonce)
    if rows.get(ORDER, *key) is not None:
        raise Skip("replayed")
    row = OrderRow(
        rows.stream, *key, statement.verb, statement.object, statement.args, body.grant,
        entry.id, entry.header.t[0], statement.until_ms,
    )  # fmt: skip
    return [row]


def _deny(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.OrderDeny)
    what, header = (body.by, body.verb, body.object, body.reason), entry.header
    return [DenialRow(rows.stream, header.seq, *what, header.t[0])]


def _acknowledge(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    """Who signed that a person looked at an incident."""
    said = read(entry)
    signed, fork = said.signed(fleet), isinstance(said.what, kinds.Fork)
    common = said.what.common if isinstance(said.what, kinds.Fork) else 0
    key = said.what.key if isinstance(said.what, kinds.Told) else ""
    end_ms = 0
    if said.until:
        try:
            end_ms = max(1, until_ms(said.until, signed.issued_ms))
        except Malformed as error:
            raise Skip("bad-body") from error
        if end_ms > signed.issued_ms + ACKNOWLEDGED_MS_MAX:
            raise Skip("too-long")
    what = (int(fork), said.what.stream, common, said.note, signed.issued_ms, key, end_ms)
    return [AcknowledgedRow(rows.stream, said.name, signed.operator, *what)]


def _end(entry: Entry, rows: Rows, fleet: FleetId) -> Iterable[NamedTuple]:
    """What still counts of a revoked operator's key."""
    raw = body_as(entry, kinds.OperatorEnd).end
    end = checked("bad-record", open_end, raw, fleet)
    return [EndedRow(rows.stream, document_id(raw.encode()), end.operator, raw)]


def _invite_open(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.InviteOpen)
    # Opened again, a used token would be good for a second machine.
    if rows.get(INVITE, body.sha256) is not None:
        raise Skip("invite-known")
    roles = " ".join(body.roles)
    return [InviteRow(rows.stream, body.sha256, body.name, roles, body.until_ms, "")]


def _invite_use(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.InviteUse)
    row = rows.get(INVITE, body.sha256)
    if row is None:
        raise Skip("invite-unknown")
    if row.machine:
        raise Skip("invite-used")
    return [row._replace(machine=body.machine)]


def _group(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    if entry.header.kind == kinds.GROUP_OPEN:
        name = body_as(entry, kinds.GroupOpen).name
        return [GroupRow(rows.stream, name, entry.header.t[0])]
    member, since, cuts = 0, "start", "{}"
    if entry.header.kind == kinds.GROUP_REMOVE:
        body: kinds.GroupAdd | kinds.GroupRemove = body_as(entry, kinds.GroupRemove)
    else:
        body = added = body_as(entry, kinds.GroupAdd)
        member, since, cuts = 1, added.since, canon.encode(added.cuts).decode()
    what = (member, since, cuts, *entry.header.t)
    return [MemberRow(rows.stream, body.name, body.machine, *what)]


def _incident_open(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.IncidentOpen)
    known = rows.get(INCIDENT, body.key)
    t_ms = _told_ms(entry, known)
    times, opened_ms, flaps, since_ms, grave_ms = 1, t_ms, 0, t_ms, t_ms
    if known is not None and known.open:
        times, opened_ms = known.times + 1, known.opened_ms
        flaps, since_ms = known.flaps, known.since_ms
    elif known is not None and t_ms - known.t_ms <= FLAP_MS:
        flaps = known.flaps + 1
        since_ms = t_ms if flaps == FLAPS_TOLD else known.since_ms
    if known is not None and since_ms == known.since_ms:
        grave_ms = t_ms if graver(body.severity, known.severity) else known.grave_ms
    what = (body.severity, body.title, body.detail, times, opened_ms, t_ms, flaps)
    return [IncidentRow(rows.stream, body.key, 1, *what, since_ms, grave_ms)]


def _incident_close(entry: Entry, rows: Rows, _fleet: FleetId) -> Iterable[NamedTuple]:
    body = body_as(entry, kinds.IncidentClose)
    known = rows.get(INCIDENT, body.key)
    if known is None or not known.open:
        raise Skip("incident-not-open")
    return [known._replace(open=0, detail=body.reason, t_ms=_told_ms(entry, known))]


def _told_ms(entry: Entry, known: IncidentRow | None) -> int:
    """When an incident was told, later than ever before: by this time it is named.

    A peer's clock that is ahead lets all that we say meanwhile have one time.
    """
    return max(entry.header.t[0], 0 if known is None else known.t_ms + 1)


_FOLDS: Final[dict[str, tuple[tuple[Table[Any], ...], dict[str, Handler]]]] = {
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
    "fleet.wake": ((WAKE,), {kinds.MACHINE_WAKE: _told}),
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
    "fleet.silence": ((SILENCE,), SILENCE_KINDS),
    "fleet.notify": ((NOTIFY,), NOTIFY_KINDS),
    "fleet.end": ((ENDED,), {kinds.OPERATOR_END: _end}),
    "fleet.device": ((DEVICE_OFFER, DEVICE), DEVICE_KINDS),
    "fleet.peer": ((PEER,), PEER_KINDS),
    "fleet.chat": ((CHAT, CHAT_ACKNOWLEDGED), CHAT_KINDS),
    "fleet.incident": (
        (INCIDENT,),
        {kinds.INCIDENT_OPEN: _incident_open, kinds.INCIDENT_CLOSE: _incident_close},
    ),
}
