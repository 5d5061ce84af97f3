r"""A signed document: the one form in which the fleet says who may do what.

Rule 1: the signed bytes are stored and verified as they are; nothing is re-serialised.
Rule 2: the first line says what the document is and in which version, and it is signed, so a
signature under one kind of document never counts for another.
Rule 3: one document has exactly one encoding, so equal hashes mean equal documents.

    muster/statement/v1\n               the kind: product, type, version
    {"args":"…","fleet":"…",…}\n        canonical JSON
    <128 hex digits>\n                  ed25519 over both lines, the last newline excluded

A document is text, so that it fits as a string into an entry's body and stays byte for byte
what was signed. Who must have signed follows from the contents (the fleet's record key, the
machine's root key, the operator's key): the caller names the key, never the document. Every
document names the fleet that it is for.
"""

import hashlib
import re
from typing import Final, Generic, NamedTuple, TypeVar

import msgspec

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.name import Hex32
from muster.log import canon
from muster.log.keys import Signer, verify


class Contents(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What every document says beside what is its own."""

    fleet: Hex32


T = TypeVar("T", bound=Contents)

_SIGNATURE: Final = re.compile(rb"[0-9a-f]{128}\Z")


class Document(NamedTuple, Generic[T]):
    """A document whose form was checked and whose signature was not, until `check` says so."""

    value: T
    what: str
    message: bytes
    signature: bytes

    def check(self, public: str) -> T:
        """The contents, when the key `public` (hex) signed them; raises Forged otherwise."""
        if not verify(bytes.fromhex(public), self.message, self.signature):
            raise Forged(
                f"{self.what} is not signed by the key it needs: it was changed or forged."
            )
        return self.value


class Form(NamedTuple, Generic[T]):
    """One kind of document: its first line, its contents, what a sentence calls it, its size."""

    kind: str
    type: type[T]
    what: str
    bytes_max: int = limits.RECORD_BYTES_MAX

    def write(self, value: T, signer: Signer) -> bytes:
        """The document with these contents, signed."""
        message = self.kind.encode("ascii") + b"\n" + canon.encode(value)
        return message + b"\n" + signer.sign(message).hex().encode("ascii") + b"\n"

    def read(self, raw: bytes, fleet: str) -> Document[T]:
        """The document in `raw`, its form and fleet checked; `check` the right key before use."""
        what = self.what
        if len(raw) > self.bytes_max:
            raise Malformed(f"{what} has {len(raw)} bytes; at most {self.bytes_max} are read.")
        lines = raw.split(b"\n")
        if len(lines) != 4 or lines[3] != b"" or not _SIGNATURE.match(lines[2]):
            raise Malformed(
                f"{what} is not a signed document of three lines: it is cut or damaged."
            )
        if lines[0] != self.kind.encode("ascii"):
            found = lines[0][:40].decode("ascii", "replace")
            raise Malformed(f"{what} should begin with {self.kind!r} and begins with {found!r}.")
        value = canon.decode_as(lines[1], self.type, what, size_max=self.bytes_max)
        check_fleet(value.fleet, fleet, what)
        message = raw[: len(lines[0]) + 1 + len(lines[1])]
        return Document(value, what, message, bytes.fromhex(lines[2].decode("ascii")))


def check_fleet(found: str, fleet: str, what: str) -> None:
    """Raises Forged when a document of another fleet is shown to this one."""
    if found != fleet:
        raise Forged(f"{what} belongs to another fleet ({found[:12]}…, this is {fleet[:12]}…).")


def document_id(raw: bytes) -> str:
    """What a document is cited by: the sha256 of its exact bytes, in hex."""
    return hashlib.sha256(raw).hexdigest()
