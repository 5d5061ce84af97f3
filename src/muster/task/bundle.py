"""A bundle: evidence that stands alone, for a worker that may not read the owner's stream.

Rule 1: a bundle proves that the owner sealed these entries; what they mean is evidence.py's
        question, asked of `lookup`, which a bundle answers like a store.
Rule 2: all entries are of one stream under one seal; anything else makes the whole bundle void.

    u32      length of the JSON header
    JSON     {"entries":[[header length, salt length, body length,[hash,…]],…],"seal":"<note>"}
    bytes    header, salt and body of each entry, one after the other
"""

from collections.abc import Callable, Iterable, Mapping
from typing import Annotated, Final, NamedTuple

import msgspec

from muster import limits
from muster.errors import Forged, Malformed
from muster.log import canon
from muster.log.entry import Entry, EntryId, parse
from muster.log.seal import Seal, open_seal, peek_stream
from muster.log.stream import FleetId, MachineId
from muster.log.tree import verify_inclusion

_LENGTH_BYTES: Final = 4
# Three links lead from an assignment to an order; the rest is room for a longer chain one day.
ENTRIES_MAX: Final = 16

_Hash = Annotated[str, msgspec.Meta(pattern="^[0-9a-f]{64}$")]
_Proof = Annotated[list[_Hash], msgspec.Meta(max_length=limits.PROOF_HASHES_MAX)]
_Size = Annotated[int, msgspec.Meta(ge=0, le=limits.BODY_BYTES_MAX)]


class _Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entries: Annotated[
        list[tuple[_Size, _Size, _Size, _Proof]], msgspec.Meta(max_length=ENTRIES_MAX)
    ]
    seal: str


class Proven(NamedTuple):
    """An entry with the proof that it is in the tree of the bundle's seal."""

    entry: Entry
    proof: tuple[bytes, ...]


def encode_bundle(seal: Seal, entries: Iterable[Proven]) -> bytes:
    """The bytes of a bundle of ours.

    Raises:
        Malformed: a body is missing, or the bundle is too large.

    """
    rows, parts = [], []
    for entry, proof in entries:
        if entry.body is None:
            raise Malformed(f"entry {entry.header.seq} has no body, so it proves nothing")
        sizes = (len(entry.raw), len(entry.salt), len(entry.body))
        rows.append((*sizes, [each.hex() for each in proof]))
        parts += [entry.raw, entry.salt, entry.body]
    if len(rows) > ENTRIES_MAX:
        raise Malformed(f"a bundle has {len(rows)} entries; the most is {ENTRIES_MAX}")
    frame = canon.encode(_Frame(rows, seal.note.decode()))
    raw = b"".join((len(frame).to_bytes(_LENGTH_BYTES, "big"), frame, *parts))
    if len(raw) > limits.EVIDENCE_BUNDLE_BYTES_MAX:
        raise Malformed(f"a bundle has {len(raw)} bytes, more than it may")
    return raw


def open_bundle(
    raw: bytes, fleet: FleetId, seal_key: Callable[[MachineId], bytes]
) -> Mapping[EntryId, Entry]:
    """The entries of a bundle, each proven to be under the seal of its owner's key.

    Raises:
        Malformed: these bytes are no bundle.
        Forged: a seal, a proof or a body does not hold.

    """
    if len(raw) > limits.EVIDENCE_BUNDLE_BYTES_MAX:
        raise Malformed(f"a bundle has {len(raw)} bytes, more than it may")
    at = _LENGTH_BYTES + int.from_bytes(raw[:_LENGTH_BYTES], "big")
    size_max = limits.EVIDENCE_BUNDLE_BYTES_MAX
    frame = canon.decode_as(raw[_LENGTH_BYTES:at], _Frame, "a bundle's header", size_max=size_max)
    note = frame.seal.encode()
    seal = open_seal(note, fleet, seal_key(peek_stream(note).machine))
    entries: dict[EntryId, Entry] = {}
    for header_size, salt_size, body_size, proof in frame.entries:
        salt_at, body_at = at + header_size, at + header_size + salt_size
        end = body_at + body_size
        if end > len(raw):
            raise Malformed("a bundle ends within an entry")
        entry = parse(raw[at:salt_at], raw[salt_at:body_at], raw[body_at:end])
        _check_sealed(entry, [bytes.fromhex(each) for each in proof], seal)
        entries[entry.id] = entry
        at = end
    if at != len(raw):
        raise Malformed(f"a bundle has {len(raw) - at} bytes too many")
    return entries


def _check_sealed(entry: Entry, proof: list[bytes], seal: Seal) -> None:
    if entry.header.stream != str(seal.stream):
        raise Forged(f"a bundle of {seal.stream} holds an entry of another stream")
    if not verify_inclusion(entry.id, entry.header.seq, seal.size, proof, seal.root):
        raise Forged(f"entry {entry.header.seq} is not under the seal of {seal.stream}")
