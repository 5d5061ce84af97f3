"""A segment: consecutive entries of one stream, with the seal that covers them.

Rule 1: a segment is self-contained; who carried it, and how, changes nothing.
Rule 2: decoding checks form (sizes, canonical headers, body hashes, contiguous numbers);
whether it is taken, that is root, proof and signature, is `admit`'s decision.

    u32      length of the JSON header
    JSON     {"entries":[[header length, salt length, body length or -1],…],"proof":[hex,…],
              "seal":"<note>","start":n,"stream":"machine/incarnation/scope"}
    bytes    header, salt and body of each entry, one after the other

The seal may cover more than the entries: `proof` is then the RFC 6962 consistency proof
from start + number of entries to the seal's size. A segment without entries is a seal with
the proof from a size that the receiver already knows: that is how witnesses are fed.
"""

from dataclasses import dataclass
from typing import Annotated, Final

import msgspec

from muster.errors import Forged, Malformed
from muster.limits import (
    BODY_BYTES_MAX,
    HEADER_BYTES_MAX,
    NOTE_BYTES_MAX,
    PROOF_HASHES_MAX,
    SALT_BYTES,
    SEGMENT_ENCODED_BYTES_MAX,
    SEGMENT_ENTRIES_MAX,
    STREAM_SIZE_MAX,
)
from muster.log import canon, entry
from muster.log.entry import Entry
from muster.log.seal import Seal
from muster.log.stream import StreamName

_LENGTH_BYTES: Final = 4
# "[4096,16,65536]," is the longest line of the table of entries.
_ROW_BYTES_MAX: Final = 16
# The note is quoted (each newline is two bytes), and each hash of a proof is 67 characters.
PROLOGUE_BYTES_MAX: Final = 2 * NOTE_BYTES_MAX + 67 * PROOF_HASHES_MAX + 512

_Start = Annotated[int, msgspec.Meta(ge=0, le=STREAM_SIZE_MAX)]
_HeaderSize = Annotated[int, msgspec.Meta(ge=0, le=HEADER_BYTES_MAX)]
_SaltSize = Annotated[int, msgspec.Meta(ge=0, le=SALT_BYTES)]
_BodySize = Annotated[int, msgspec.Meta(ge=-1, le=BODY_BYTES_MAX)]
_Row = tuple[_HeaderSize, _SaltSize, _BodySize]


@dataclass(frozen=True, slots=True)
class Segment:
    """Entries [start, start + len(entries)) of `stream`, their seal, and the proof up to it."""

    stream: StreamName
    start: int
    entries: tuple[Entry, ...]
    seal: Seal | bytes
    proof: tuple[bytes, ...] = ()

    @property
    def end(self) -> int:
        """The size of the stream up to the last entry here."""
        return self.start + len(self.entries)

    @property
    def note(self) -> bytes:
        """The seal's bytes; a decoded segment's seal is unverified bytes anyway."""
        return self.seal.note if isinstance(self.seal, Seal) else self.seal


class _Frame(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    entries: Annotated[list[_Row], msgspec.Meta(max_length=SEGMENT_ENTRIES_MAX)]
    proof: Annotated[list[str], msgspec.Meta(max_length=PROOF_HASHES_MAX)]
    seal: str
    start: _Start
    stream: str


def weight(item: Entry) -> int:
    """Return the most bytes that `item` adds to an encoded segment, for packing.

    Entries fit together while their weights sum to no more than
    SEGMENT_ENCODED_BYTES_MAX - PROLOGUE_BYTES_MAX.
    """
    return _ROW_BYTES_MAX + len(item.raw) + len(item.salt) + len(item.body or b"")


def encode(segment: Segment) -> bytes:
    """Return the bytes of a segment of ours. Raises: Malformed when it exceeds the limits."""
    rows: list[_Row] = []
    parts: list[bytes] = []
    for item in segment.entries:
        size = -1 if item.body is None else len(item.body)
        rows.append((len(item.raw), len(item.salt), size))
        parts += (item.raw, item.salt, item.body or b"")
    if len(rows) > SEGMENT_ENTRIES_MAX or len(segment.proof) > PROOF_HASHES_MAX:
        raise Malformed(f"A segment has {len(rows)} entries; the limit is {SEGMENT_ENTRIES_MAX}.")
    proof, note = [each.hex() for each in segment.proof], segment.note.decode()
    frame = canon.encode(_Frame(rows, proof, note, segment.start, str(segment.stream)))
    raw = b"".join((len(frame).to_bytes(_LENGTH_BYTES, "big"), frame, *parts))
    _check_size(len(raw))
    return raw


def decode(raw: bytes) -> Segment:
    """Return the segment in these bytes; its seal and proof are unverified.

    Raises: Malformed, or Forged when a body or an author does not fit its header.
    """
    _check_size(len(raw))
    length = int.from_bytes(raw[:_LENGTH_BYTES], "big")
    at = _LENGTH_BYTES + length
    if len(raw) < at:
        raise Malformed("A segment ends before its header does.")
    frame = canon.decode_as(
        raw[_LENGTH_BYTES:at], _Frame, "A segment header", size_max=SEGMENT_ENCODED_BYTES_MAX
    )
    stream = StreamName.parse(frame.stream)
    if frame.start + len(frame.entries) > STREAM_SIZE_MAX:
        raise Malformed(f"A segment of {stream} ends beyond the largest stream.")
    entries: list[Entry] = []
    for seq, (header_size, salt_size, body_size) in enumerate(frame.entries, frame.start):
        salt_at = at + header_size
        body_at = salt_at + salt_size
        end = body_at + max(body_size, 0)
        if end > len(raw):
            raise Malformed(f"A segment of {stream} ends within entry {seq}.")
        body = None if body_size < 0 else raw[body_at:end]
        item = entry.parse(raw[at:salt_at], raw[salt_at:body_at], body)
        if item.header.seq != seq or item.header.stream != frame.stream:
            raise Forged(f"A segment of {stream} holds another entry at the place of {seq}.")
        entries.append(item)
        at = end
    if at != len(raw):
        raise Malformed(f"A segment of {stream} has {len(raw) - at} bytes too many.")
    try:
        proof = tuple(bytes.fromhex(each) for each in frame.proof)
    except ValueError as error:
        raise Malformed("A segment's proof is not made of hashes.") from error
    # fromhex skips spaces and takes capitals: only the one spelling is ours.
    if [each.hex() for each in proof] != frame.proof or any(len(each) != 32 for each in proof):
        raise Malformed("A segment's proof is not made of hashes.")
    return Segment(stream, frame.start, tuple(entries), frame.seal.encode(), proof)


def _check_size(size: int) -> None:
    if size > SEGMENT_ENCODED_BYTES_MAX:
        raise Malformed(f"A segment has {size} bytes; the limit is {SEGMENT_ENCODED_BYTES_MAX}.")
