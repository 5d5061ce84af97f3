"""Joining a fleet, and renewing: the requests, the answers, and what the hub writes.

Rule 1: the proof of possession is checked before the token is looked at (`open_join` before
`enrol`), and the token is spent in the transaction that writes the record: what fails in
between changes nothing.
Rule 2: the machine that used a token gets an answer again, so a lost answer is no loss.
Rule 3: the newcomer trusts the invite alone. It carries the fleet's record key; every part of
the answer is signed by that key, and the hub's certificate is pinned by it.
Rule 4: a request holds the token: it travels over pinned TLS and is never stored or shown.
Rule 5: a renewal is signed by the root key of a record that counts; the calendar is not asked.

A join in steps: dial the invite's address without a certificate of one's own; `hub_of` the
certificate shown there, with the invite's fleet id; send the request; `open_answer`.
"""

from typing import Annotated, Any, Final, Literal, NamedTuple

from msgspec import Meta, Struct

from muster import limits
from muster.address import check_address
from muster.errors import Conflict, Denied, Forged
from muster.fleet.certificate import CertificateChain, issue, open_ca, tls_files
from muster.fleet.document import Contents, Form, check_fleet
from muster.fleet.folds import InviteRow
from muster.fleet.invite import Invite, token_hash
from muster.fleet.kinds import INVITE_USE, MACHINE_RECORD, InviteUse, MachineRecorded
from muster.fleet.machine import Authority, Identity
from muster.fleet.name import Hex16, Hex32, Milliseconds
from muster.fleet.record import (
    ROLES,
    Binding,
    MachineRecord,
    OperatorRecord,
    binding_of,
    open_binding,
    open_operator,
    open_record,
    sign_binding,
    sign_record,
)
from muster.fleet.roster import Roster
from muster.log import canon
from muster.log.stream import FleetId, MachineId


class _Request(Contents, frozen=True):
    binding: str
    token: Hex16


class Join(NamedTuple):
    """A request whose proof of possession holds; `sha256` is what its invite is kept under."""

    binding: Binding
    raw_binding: bytes
    sha256: str


class RenewRequest(Contents, frozen=True):
    """A machine asks for fresh certificates, and with another binding for another record."""

    binding: str
    issued_ms: Milliseconds
    machine: Hex32
    nonce: Hex16
    serial: Annotated[int, Meta(ge=1, le=limits.INT_ABS_MAX)]


_JOIN: Final = Form("muster/join/v1", _Request, "The join request", limits.JOIN_BYTES_MAX)
_RENEW: Final = Form("muster/renew/v1", RenewRequest, "The renew request", limits.JOIN_BYTES_MAX)


class JoinAnswer(Struct, frozen=True, forbid_unknown_fields=True):
    """Everything a machine needs to be one of the fleet; every part is signed by itself."""

    address: str
    ca_pem: str
    fleet: Hex32
    hub: str
    operators: Annotated[tuple[str, ...], Meta(max_length=limits.OPERATORS_MAX)]
    record: str
    tls_pem: str
    v: Literal[1] = 1


class Welcome(NamedTuple):
    """An answer whose every part was checked."""

    record: MachineRecord
    certificates: CertificateChain
    hub: MachineRecord
    operators: tuple[OperatorRecord, ...]
    answer: JoinAnswer


class Enrolment(NamedTuple):
    """What the hub writes (kind and body, in one transaction) and then answers."""

    entries: tuple[tuple[str, Any], ...]
    answer: bytes


def sign_join(identity: Identity, invite: Invite, name: str) -> bytes:
    """The request to join under `name`. It holds the token: never store or show it."""
    binding = sign_binding(identity, invite.fleet, name)
    request = _Request(
        binding=binding.decode("ascii"), fleet=invite.fleet, token=invite.token.hex()
    )
    return _JOIN.write(request, identity.root)


def open_join(raw: bytes, fleet: FleetId) -> Join:
    """The request in `raw`, signed by the root key that it wants enrolled.

    The signature covers the token, so an old binding does not pass for a new request.
    """
    document = _JOIN.read(raw, fleet)
    raw_binding = document.value.binding.encode()
    binding = open_binding(raw_binding, fleet)
    request = document.check(binding.machine)
    return Join(binding, raw_binding, token_hash(bytes.fromhex(request.token)))


def enrol(
    authority: Authority,
    roster: Roster,
    join: Join,
    invite: InviteRow | None,
    *,
    hub: MachineRecord,
    address: str,
    now_ms: int,
) -> Enrolment:
    """The entries that make the machine a member, and the answer to send when they are durable.

    Run it, and write its entries, in the transaction that read `invite`. Raises Denied or
    Forged; then nothing was spent.
    """
    binding = join.binding
    if invite is None:
        raise Denied("No invite has this token: ask for a new one with `muster invite`.")
    if invite.name != binding.name:
        raise Denied(f"This invite is for the name {invite.name}, not for {binding.name}.")
    if invite.machine not in ("", binding.machine):
        raise Denied(
            f"The invite for {invite.name} was used by another machine: ask for a new one."
        )
    if invite.machine == binding.machine:
        known = roster.machine(binding.machine)
        return _enrolment((), authority, roster, known, hub=hub, address=address, now_ms=now_ms)
    if now_ms > invite.until_ms:
        raise Denied(f"The invite for {invite.name} has expired: ask for a new one.")
    roster.check_binding(binding)
    earlier = roster.known.get(MachineId(binding.machine))
    raw = sign_record(
        authority,
        join.raw_binding,
        roles=[role for role in ROLES if role in invite.roles.split()],
        serial=1 if earlier is None else earlier.serial + 1,
        issued_ms=now_ms,
    )
    record = open_record(raw, authority.fleet)
    entries = (
        (INVITE_USE, InviteUse(machine=record.machine, sha256=join.sha256)),
        (MACHINE_RECORD, MachineRecorded(record=raw.decode("ascii"))),
    )
    return _enrolment(entries, authority, roster, record, hub=hub, address=address, now_ms=now_ms)


def sign_renew(identity: Identity, record: MachineRecord, *, nonce: bytes, issued_ms: int) -> bytes:
    """The request for fresh certificates; the link may show an expired certificate."""
    binding = sign_binding(identity, record.fleet, record.name)
    request = RenewRequest(
        binding=binding.decode("ascii"),
        fleet=record.fleet,
        issued_ms=issued_ms,
        machine=identity.machine,
        nonce=nonce.hex(),
        serial=record.serial,
    )
    return _RENEW.write(request, identity.root)


def renew(
    authority: Authority,
    roster: Roster,
    raw: bytes,
    *,
    hub: MachineRecord,
    address: str,
    now_ms: int,
) -> Enrolment:
    """Fresh certificates for a machine that is not revoked, and a new record when its keys changed.

    The calendar is not asked: the root key of a record that counts is enough. A request that
    is replayed yields certificates for the machine's own key, of no use to anyone else. Other keys
    are taken now and then: each is an entry, and a member could ask without end.
    """
    document, what = _RENEW.read(raw, authority.fleet), _RENEW.what
    if MachineId(document.value.machine) not in roster.known:
        raise Denied(f"{what} is from a machine that is not in this fleet: join it anew.")
    known = roster.machine(document.value.machine)
    request = document.check(known.machine)
    if request.serial != known.serial:
        raise Conflict(f"{what} is for record {request.serial}; the newest is {known.serial}.")
    raw_binding = request.binding.encode()
    binding = open_binding(raw_binding, authority.fleet)
    if (binding.machine, binding.name) != (known.machine, known.name):
        raise Forged(f"{what} binds another machine or name than {known.name}.")
    if raw_binding == binding_of(known):
        return _enrolment((), authority, roster, known, hub=hub, address=address, now_ms=now_ms)
    roster.check_binding(binding)
    # A clock that was set back since then keeps nobody waiting.
    if 0 <= now_ms - known.issued_ms < limits.KEYS_CHANGED_MS_MIN:
        wait_s = (limits.KEYS_CHANGED_MS_MIN - now_ms + known.issued_ms) // 1000
        raise Conflict(f"{what} brings other keys too soon after the last: ask in {wait_s} s.")
    fresh = sign_record(
        authority,
        raw_binding,
        roles=[role for role in ROLES if role in known.roles],
        serial=known.serial + 1,
        issued_ms=now_ms,
    )
    record = open_record(fresh, authority.fleet)
    entries = ((MACHINE_RECORD, MachineRecorded(record=fresh.decode("ascii"))),)
    return _enrolment(entries, authority, roster, record, hub=hub, address=address, now_ms=now_ms)


def open_answer(raw: bytes, identity: Identity, fleet: FleetId) -> Welcome:
    """The answer in `raw`, each part checked against the fleet's key and this machine's."""
    what = "The join answer"
    answer = canon.decode_as(raw, JoinAnswer, what, size_max=limits.JOIN_BYTES_MAX)
    check_fleet(answer.fleet, fleet, what)
    record = open_record(answer.record.encode(), fleet)
    if record.machine != identity.machine or record.keys != identity.keys:
        raise Forged(f"{what} is for another machine.")
    certificates = CertificateChain(answer.tls_pem.encode(), open_ca(answer.ca_pem.encode(), fleet))
    tls_files(identity, certificates)
    hub = open_record(answer.hub.encode(), fleet)
    operators = tuple(open_operator(each.encode(), fleet) for each in answer.operators)
    check_address(answer.address)
    return Welcome(record, certificates, hub, operators, answer)


def _enrolment(
    entries: tuple[tuple[str, Any], ...],
    authority: Authority,
    roster: Roster,
    record: MachineRecord,
    *,
    hub: MachineRecord,
    address: str,
    now_ms: int,
) -> Enrolment:
    certificates = issue(authority, record, now_ms)
    answer = JoinAnswer(
        address=check_address(address),
        ca_pem=certificates.ca_pem.decode("ascii"),
        fleet=authority.fleet,
        hub=hub.raw.decode("ascii"),
        operators=tuple(roster.operators[k].raw.decode() for k in sorted(roster.operators)),
        record=record.raw.decode("ascii"),
        tls_pem=certificates.tls_pem.decode("ascii"),
    )
    return Enrolment(entries, canon.encode(answer))
