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
from msgspec.structs import asdict

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.derive import PURPOSES
from muster.fleet.document import Contents, Form
from muster.fleet.machine import Authority, Identity
from muster.fleet.name import Hex32, Milliseconds, Name, Size, Text, check_name
from muster.log.stream import FleetId, MachineId, StreamName

# The reason of a machine that left in order, by which readers tell it from one that was shut out.
LEFT: Final = "it left the fleet"
ROLES: Final = ("hub", "workstation", "mobile", "edge")
Role = Literal["hub", "workstation", "mobile", "edge"]
Roles = Annotated[tuple[Role, ...], Meta(max_length=len(ROLES))]


class Binding(Contents, frozen=True):
    """What a machine says about itself."""

    keys: dict[str, Hex32]
    machine: Hex32
    name: Name


class _RecordBody(Contents, frozen=True):
    binding: str
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


class _OperatorBody(Contents, frozen=True):
    issued_ms: Milliseconds
    name: Name
    operator: Hex32


class OperatorRecord(_OperatorBody, frozen=True):
    """A person's key, and the name the fleet knows the person by."""

    raw: bytes


class Revocation(Contents, frozen=True):
    """A key that counts no more, and how much of its streams still does."""

    cuts: dict[str, Size]
    issued_ms: Milliseconds
    key: Hex32
    name: Name
    of: Literal["machine", "operator"]
    reason: Text

    @property
    def left(self) -> bool:
        """Whether it was a machine that left in order."""
        return self.of == "machine" and self.reason == LEFT

    @property
    def how(self) -> str:
        """How it went, as a sentence says it."""
        return "left the fleet" if self.left else "is revoked"


_BINDING: Final = Form("muster/binding/v1", Binding, "The machine's binding")
_RECORD: Final = Form("muster/record/v1", _RecordBody, "The machine record")
_OPERATOR: Final = Form("muster/operator/v1", _OperatorBody, "The operator record")
_REVOCATION: Final = Form(
    "muster/revocation/v1", Revocation, "The revocation", limits.REVOCATION_BYTES_MAX
)


def sign_binding(identity: Identity, fleet: FleetId, name: str) -> bytes:
    """The machine's own word: this name and these sub-keys are mine, in this fleet."""
    check_name(name, "The machine name")
    binding = Binding(fleet=fleet, keys=identity.keys, machine=identity.machine, name=name)
    return _BINDING.write(binding, identity.root)


def open_binding(raw: bytes, fleet: FleetId) -> Binding:
    """The binding in `raw`, signed by the root key of the machine it names."""
    document = _BINDING.read(raw, fleet)
    value, what = document.value, document.what
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
    return _RECORD.write(body, authority.record)


def open_record(raw: bytes, fleet: FleetId) -> MachineRecord:
    """The machine in `raw`, when both the authority and the machine's root key signed it."""
    body = _RECORD.read(raw, fleet).check(fleet)
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
    return _RECORD.read(record.raw, record.fleet).value.binding.encode()


def sign_operator(authority: Authority, key: str, name: str, issued_ms: int) -> bytes:
    """The record that makes the holder of `key` an operator of the fleet."""
    check_name(name, "The operator name")
    body = _OperatorBody(fleet=authority.fleet, issued_ms=issued_ms, name=name, operator=key)
    raw = _OPERATOR.write(body, authority.record)
    open_operator(raw, authority.fleet)
    return raw


def open_operator(raw: bytes, fleet: FleetId) -> OperatorRecord:
    """The operator in `raw`, when the authority signed it."""
    return OperatorRecord(raw=raw, **asdict(_OPERATOR.read(raw, fleet).check(fleet)))


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
    raw = _REVOCATION.write(revocation, authority.record)
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
    revocation = _REVOCATION.read(raw, fleet).check(fleet)
    for stream in revocation.cuts:
        if StreamName.parse(stream).machine != revocation.key:
            raise Malformed(f"{_REVOCATION.what} cuts stream {stream}, which its key never wrote.")
    return revocation
