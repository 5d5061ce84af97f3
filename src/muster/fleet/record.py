"""What the authority says about machines and operators, in documents it signs.

Rule 1: a machine record carries the machine's own binding, signed by the machine's root key:
the authority cannot enrol a key whose holder did not ask, and nobody can enrol with sub-keys
under somebody else's root key.
Rule 2: of two records of one machine the higher serial counts; times are for people.
Rule 3: a revocation tombstones its key for ever. The name is free again for another key.
Rule 4: a stream of a revoked machine that no cut names counts up to nothing. There are as many cuts
as one document holds, of the streams that became known first: so every machine can be revoked.

    binding      machine root key:  this machine, this name, these sub-keys, this fleet
    record       authority:         binding + roles + serial
    operator     authority:         this key speaks for the person of this name
    revocation   authority:         this key counts no more, and of its streams only so much
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Final, Literal

from msgspec import Meta, Struct

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.derive import PURPOSES
from muster.fleet.document import check_fleet, read_document, write_document
from muster.fleet.machine import Authority, Identity
from muster.fleet.name import Hex32, Milliseconds, Name, Size, Text, check_name
from muster.log.stream import FleetId, MachineId, StreamName

ROLES: Final = ("hub", "workstation", "mobile", "edge")
Role = Literal["hub", "workstation", "mobile", "edge"]
Roles = Annotated[tuple[Role, ...], Meta(max_length=len(ROLES))]

_BINDING: Final = "muster/binding/v1"
_RECORD: Final = "muster/record/v1"
_OPERATOR: Final = "muster/operator/v1"
_REVOCATION: Final = "muster/revocation/v1"


class Binding(Struct, frozen=True, forbid_unknown_fields=True):
    """What a machine says about itself."""

    fleet: Hex32
    keys: dict[str, Hex32]
    machine: Hex32
    name: Name


class _RecordBody(Struct, frozen=True, forbid_unknown_fields=True):
    binding: str
    fleet: Hex32
    issued_ms: Milliseconds
    roles: Roles
    serial: Annotated[int, Meta(ge=1, le=limits.INT_ABS_MAX)]


class MachineRecord(Struct, frozen=True):
    """A machine of the fleet, as the authority and the machine itself both signed it."""

    fleet: FleetId
    machine: MachineId
    name: str
    keys: dict[str, str]
    roles: tuple[str, ...]
    serial: int
    issued_ms: int
    raw: bytes

    def key(self, purpose: str) -> bytes:
        """The public sub-key for one purpose."""
        return bytes.fromhex(self.keys[purpose])


class _OperatorBody(Struct, frozen=True, forbid_unknown_fields=True):
    fleet: Hex32
    issued_ms: Milliseconds
    name: Name
    operator: Hex32


class OperatorRecord(Struct, frozen=True):
    """A person's key, and the name the fleet knows the person by."""

    fleet: FleetId
    operator: str
    name: str
    issued_ms: int
    raw: bytes


class Revocation(Struct, frozen=True, forbid_unknown_fields=True):
    """A key that counts no more, and how much of its streams still does."""

    cuts: dict[str, Size]
    fleet: Hex32
    issued_ms: Milliseconds
    key: Hex32
    name: Name
    of: Literal["machine", "operator"]
    reason: Text


def sign_binding(identity: Identity, fleet: FleetId, name: str) -> bytes:
    """The machine's own word: this name and these sub-keys are mine, in this fleet."""
    check_name(name, "The machine name")
    binding = Binding(fleet=fleet, keys=identity.keys, machine=identity.machine, name=name)
    return write_document(_BINDING, binding, identity.root)


def open_binding(raw: bytes, fleet: FleetId) -> Binding:
    """The binding in `raw`, signed by the root key of the machine it names."""
    what = "The machine's binding"
    document = read_document(raw, _BINDING, Binding, what, size_max=limits.RECORD_BYTES_MAX)
    value = document.value
    check_fleet(value.fleet, fleet, what)
    check_name(value.name, "The machine name")
    if set(value.keys) != set(PURPOSES):
        raise Malformed(f"{what} must name one key for each of {', '.join(PURPOSES)}.")
    if len({value.machine, *value.keys.values()}) != len(PURPOSES) + 1:
        raise Forged(f"{what} uses one key for two purposes.")
    return document.check(value.machine)


def sign_record(
    authority: Authority, binding: bytes, *, roles: Sequence[Role], serial: int, issued_ms: int
) -> bytes:
    """The record that makes the machine of this binding a member of the fleet."""
    open_binding(binding, authority.fleet)
    body = _RecordBody(
        binding=binding.decode("ascii"),
        fleet=authority.fleet,
        issued_ms=issued_ms,
        roles=tuple(sorted(set(roles))),
        serial=serial,
    )
    return write_document(_RECORD, body, authority.record)


def open_record(raw: bytes, fleet: FleetId) -> MachineRecord:
    """The machine in `raw`, when both the authority and the machine's root key signed it."""
    what = "The machine record"
    document = read_document(raw, _RECORD, _RecordBody, what, size_max=limits.RECORD_BYTES_MAX)
    check_fleet(document.value.fleet, fleet, what)
    body = document.check(fleet)
    binding = open_binding(body.binding.encode(), fleet)
    return MachineRecord(
        fleet=fleet,
        machine=MachineId(binding.machine),
        name=binding.name,
        keys=binding.keys,
        roles=body.roles,
        serial=body.serial,
        issued_ms=body.issued_ms,
        raw=raw,
    )


def binding_of(record: MachineRecord) -> bytes:
    """The exact binding inside an opened record; a renewal with the same keys signs it again."""
    what = "The machine record"
    body = read_document(record.raw, _RECORD, _RecordBody, what, size_max=limits.RECORD_BYTES_MAX)
    return body.value.binding.encode()


def sign_operator(authority: Authority, key: str, name: str, issued_ms: int) -> bytes:
    """The record that makes the holder of `key` an operator of the fleet."""
    check_name(name, "The operator name")
    body = _OperatorBody(fleet=authority.fleet, issued_ms=issued_ms, name=name, operator=key)
    raw = write_document(_OPERATOR, body, authority.record)
    open_operator(raw, authority.fleet)
    return raw


def open_operator(raw: bytes, fleet: FleetId) -> OperatorRecord:
    """The operator in `raw`, when the authority signed it."""
    what = "The operator record"
    document = read_document(raw, _OPERATOR, _OperatorBody, what, size_max=limits.RECORD_BYTES_MAX)
    check_fleet(document.value.fleet, fleet, what)
    body = document.check(fleet)
    return OperatorRecord(fleet, body.operator, body.name, body.issued_ms, raw)


def sign_revocation(
    authority: Authority,
    *,
    of: Literal["machine", "operator"],
    key: str,
    name: str,
    cuts: Mapping[str, int],
    reason: str,
    issued_ms: int,
) -> bytes:
    """The document that tombstones `key`; `cuts` is how much of each of its streams counts."""
    revocation = Revocation(
        cuts=dict(cuts),
        fleet=authority.fleet,
        issued_ms=issued_ms,
        key=key,
        name=name,
        of=of,
        reason=reason,
    )
    raw = write_document(_REVOCATION, revocation, authority.record)
    open_revocation(raw, authority.fleet)
    return raw


def fitting_cuts(
    authority: Authority, sizes: Iterable[tuple[StreamName, int]], **what: Any
) -> dict[str, int]:
    """The cuts of a revocation, as many as one document holds; `what` is all else that it says.

    `sizes` come in the order in which their streams became known. A machine can open streams as
    it likes: what it opened to make itself unrevokable came last, and is what finds no room.
    """
    empty = sign_revocation(authority, cuts={}, **what)
    room, found = limits.REVOCATION_BYTES_MAX - len(empty), {}
    for stream, size in sizes:
        # A stream that counts up to nothing need not be named.
        if size:
            room -= len(f'"{stream}":{size},')
            if room < 0:
                break
            found[str(stream)] = size
    return found


def open_revocation(raw: bytes, fleet: FleetId) -> Revocation:
    """The revocation in `raw`, when the authority signed it."""
    what = "The revocation"
    size_max = limits.REVOCATION_BYTES_MAX
    document = read_document(raw, _REVOCATION, Revocation, what, size_max=size_max)
    check_fleet(document.value.fleet, fleet, what)
    revocation = document.check(fleet)
    for stream in revocation.cuts:
        if StreamName.parse(stream).machine != revocation.key:
            raise Malformed(f"{what} cuts stream {stream}, which its key never wrote.")
    return revocation
