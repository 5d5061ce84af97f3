r"""A device: a second key of an operator, on another machine, with less than the operator's rights.

Rule 1: a device's key is made where it is used and never leaves that machine. What travels is a
one-time string with the seed of a *ticket*; the ticket says which key took its place, and nothing
else. Whoever reads the string later has the ticket, which orders nothing.
Rule 2: the operator signs the terms before the key exists: on which machine, which verbs and
objects, until when, how long one order of the device may live. Anybody can follow the chain:

    operator's statement  ->  terms with the ticket's key  ->  binding signed by the ticket  ->  key

Rule 3: a ticket is for one key. Where two keys show one ticket, somebody copied the string, and
neither counts. A ticket is for one machine: only that machine's own stream may bind it.
Rule 4: terms are taken back as a grant is, by the id of the statement: also before they are used.

    muster-device1.<106 characters base32: fleet id 32, ticket's seed 32, checksum 2 bytes>
"""

import base64
import binascii
import hashlib
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.document import Contents, Form, document_id
from muster.fleet.grant import ANYTHING, GIVE, GRANT, TAKE, Given, Grant
from muster.fleet.name import Hex32, Hex64, Milliseconds, Word
from muster.fleet.statement import EVERY_MACHINE, Statement, sign_statement, tells_all
from muster.log.keys import Signer, verify
from muster.log.stream import FleetId, MachineId

# The verb of the statement that gives a device its terms; its object is the machine.
ADD: Final = "device.add"
# What no device holds, however it is asked for: with these it could make itself more.
NEVER: Final = frozenset(
    {ANYTHING, GRANT, GIVE, TAKE, ADD, "machine.rename", "operator.add", "role"}
)

_PROOF: Final = b"muster/device-key/v1\n"
_PREFIX: Final = "muster-device1"
_CODE_CHARS: Final = 106


class Right(Struct, frozen=True, forbid_unknown_fields=True, order=True):
    """One verb on one object (or `*`)."""

    verb: Word
    object: Word


class Terms(Struct, frozen=True, forbid_unknown_fields=True):
    """What an operator signs of a device before its key exists."""

    life_ms: Annotated[int, Meta(ge=1, le=limits.STATEMENT_LIFE_MS_MAX)]
    machine: Hex32
    # Until when the string may be used; the machine that it is for sees to it.
    open_ms: Milliseconds
    rights: Annotated[tuple[Right, ...], Meta(min_length=1, max_length=limits.DEVICE_RIGHTS_MAX)]
    ticket: Hex32
    until_ms: Milliseconds


class Binding(Contents, frozen=True):
    """The ticket's word: this key takes my place. `proof` shows that the key's holder agrees."""

    key: Hex32
    machine: Hex32
    proof: Hex64
    ticket: Hex32


_DEVICE: Final = Form("muster/device/v1", Binding, "The device's binding", limits.RECORD_BYTES_MAX)


class Device(NamedTuple):
    """A device whose chain holds; whether it counts, `roster.assemble` says."""

    key: str
    operator: str
    id: str
    terms: Terms

    def given(self) -> list[Given]:
        """Its rights as grants of its operator."""
        return [
            Given(
                self.id,
                self.operator,
                Grant(right.object, self.key, self.terms.until_ms, right.verb),
                self.terms.life_ms,
            )
            for right in self.terms.rights
        ]


def sign_terms(
    signer: Signer, fleet: FleetId, terms: Terms, *, nonce: bytes, issued_ms: int
) -> bytes:
    """The operator's statement that gives these terms."""
    return sign_statement(
        signer,
        fleet=fleet,
        verb=ADD,
        object=terms.machine,
        target=EVERY_MACHINE,
        args=terms,
        nonce=nonce,
        issued_ms=issued_ms,
        until_ms=min(terms.until_ms, issued_ms + limits.STATEMENT_LIFE_MS_MAX),
    )


def adds(statement: Statement, terms: Terms) -> bool:
    """Whether the statement gives exactly these terms, and none that a device never gets."""
    return tells_all(statement, ADD, terms.machine, terms) and not any(
        right.verb in NEVER for right in terms.rights
    )


def sign_device(ticket: Signer, key: Signer, fleet: FleetId, machine: MachineId) -> bytes:
    """The ticket's binding of a key that was just made on `machine`."""
    public = ticket.public.hex()
    proof = key.sign(_proof(fleet, machine, public)).hex()
    binding = Binding(
        fleet=fleet, key=key.public.hex(), machine=machine, proof=proof, ticket=public
    )
    return _DEVICE.write(binding, ticket)


def open_device(raw: bytes, fleet: FleetId) -> Binding:
    """The binding in `raw`, signed by the ticket and agreed to by the key that it names."""
    document = _DEVICE.read(raw, fleet)
    binding = document.check(document.value.ticket)
    proof = _proof(binding.fleet, binding.machine, binding.ticket)
    if not verify(bytes.fromhex(binding.key), proof, bytes.fromhex(binding.proof)):
        raise Forged(f"{document.what} names a key whose holder did not agree.")
    return binding


def device_of(statement: Statement, raw: str, terms: Terms, binding: Binding) -> Device | None:
    """The device that this chain makes; None where a link of it does not hold."""
    if not adds(statement, terms):
        return None
    if (binding.ticket, binding.machine) != (terms.ticket, terms.machine):
        return None
    return Device(binding.key, statement.operator, document_id(raw.encode()), terms)


def write_string(fleet: FleetId, seed: bytes) -> str:
    """The one-time string; `seed` is the ticket's, 32 fresh random bytes."""
    code = bytes.fromhex(fleet) + seed
    written = base64.b32encode(code + _checksum(code)).decode("ascii")
    return f"{_PREFIX}.{written.lower().rstrip('=')}"


def read_string(text: str) -> tuple[FleetId, Signer]:
    """The fleet and the ticket in a pasted string. Raises Malformed with what is wrong with it."""
    prefix, _, code = text.strip().lower().partition(".")
    if prefix != _PREFIX:
        raise Malformed(
            f"a device's string begins with `{_PREFIX}.` and this does not: copy what "
            "`muster device add` printed"
        )
    try:
        raw = base64.b32decode(code.upper() + "=" * (-len(code) % 8))
    except (binascii.Error, ValueError) as error:
        raise Malformed("the string is damaged: copy it again, all of it") from error
    if len(code) != _CODE_CHARS or raw[64:] != _checksum(raw[:64]):
        raise Malformed("the string is cut or damaged: copy it again, all of it")
    return FleetId(raw[:32].hex()), Signer(raw[32:64])


def _checksum(code: bytes) -> bytes:
    return hashlib.sha256(b"muster/device-string/v1\n" + code).digest()[:2]


def _proof(fleet: str, machine: str, ticket: str) -> bytes:
    return _PROOF + f"{fleet}\n{machine}\n{ticket}".encode("ascii")
