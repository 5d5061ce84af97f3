"""An entry: one fact, as a header line and a body.

Rule 1: the header's exact bytes are the leaf; the entry's id is their RFC 6962 leaf hash.
Rule 2: the header holds only the salted hash of the body, so that body and salt can be
erased together while every proof over the header stays valid.
Rule 3: `compose` writes, `parse` reads, and `parse` accepts only what `compose` can write.

    {"actor":"claude@studio","author":"<machine>","body":{"sha256":"<hex>","size":52},
     "cause":["<entry id>"],"kind":"task.settle","seq":7,
     "stream":"<machine>/<incarnation>/<scope>","t":[1790000000000,0],"v":1}

Whether the body is well-formed JSON is the reader's question (a fold skips what it cannot
read): acceptance must be the same for a machine that holds the body and for one that
holds the header alone.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import Annotated, Final, NewType

import msgspec

from muster.errors import Forged, Malformed
from muster.limits import (
    ACTOR_CHARS_MAX,
    BODY_BYTES_MAX,
    CAUSES_MAX,
    HEADER_BYTES_MAX,
    INT_ABS_MAX,
    KIND_CHARS_MAX,
    SALT_BYTES,
    STREAM_NAMES_CACHED,
    STREAM_SIZE_MAX,
)
from muster.log.clock import Stamp
from muster.log.stream import StreamName
from muster.log.tree import leaf_hash

EntryId = NewType("EntryId", bytes)

VERSION: Final = 1

_Seq = Annotated[int, msgspec.Meta(ge=0, lt=STREAM_SIZE_MAX)]
_Natural = Annotated[int, msgspec.Meta(ge=0, le=INT_ABS_MAX)]
_BodySize = Annotated[int, msgspec.Meta(ge=0, le=BODY_BYTES_MAX)]
_Causes = Annotated[list[str], msgspec.Meta(max_length=CAUSES_MAX)]

_HASH = re.compile(r"[0-9a-f]{64}")
_KIND = re.compile(r"[a-z]+(?:\.[a-z-]+)+")
# Nothing here needs escaping in JSON, which is what lets `compose` format the header itself.
_ACTOR = re.compile(r"muster|op:[A-Za-z0-9._-]+|[A-Za-z0-9._:/-]+@[A-Za-z0-9._-]+")


class BodyRef(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """The salted hash and the size of a body."""

    sha256: str
    size: _BodySize


# The fields stand in alphabetical order: that is the order of the canonical bytes.
class Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What an entry says about itself, and what its writer signs."""

    actor: str
    author: str
    body: BodyRef
    cause: _Causes
    kind: str
    seq: _Seq
    stream: str
    t: tuple[_Natural, _Natural]
    v: int


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A checked entry. `body` is None, and `salt` empty, when it was erased or withheld."""

    raw: bytes
    header: Header
    id: EntryId
    salt: bytes
    body: bytes | None

    @property
    def stream(self) -> StreamName:
        return StreamName.parse(self.header.stream)

    @property
    def stamp(self) -> Stamp:
        return Stamp(*self.header.t)

    @property
    def causes(self) -> tuple[EntryId, ...]:
        return tuple(EntryId(bytes.fromhex(each)) for each in self.header.cause)

    def without_body(self) -> "Entry":
        """Return the entry as it is after erasure; its id and its proofs are unchanged."""
        return Entry(self.raw, self.header, self.id, b"", None)


_decoder = msgspec.json.Decoder(Header)
_encoder = msgspec.json.Encoder(order="sorted")


def compose(  # noqa: PLR0917 - an entry has this many parts, and the call is hot
    stream: StreamName,
    seq: int,
    t: Stamp,
    kind: str,
    actor: str,
    cause: Sequence[EntryId],
    body: bytes,
    salt: bytes,
) -> Entry:
    """Return a new entry of ours; `body` is canonical JSON, `salt` fresh random bytes.

    Raises: Malformed when the arguments do not make an entry that `parse` would accept.
    """
    if not 0 <= seq < STREAM_SIZE_MAX:
        raise Malformed(f"{seq} is not a place in a stream.")
    if not (0 <= t[0] <= INT_ABS_MAX and 0 <= t[1] <= INT_ABS_MAX):
        raise Malformed(f"{t} is not a time stamp.")
    _check_kind(kind)
    _check_actor(actor)
    if len(body) > BODY_BYTES_MAX:
        raise Malformed(
            f"This {kind} body has {len(body)} bytes; over {BODY_BYTES_MAX} it must be a blob."
        )
    if len(salt) != SALT_BYTES:
        raise Malformed(f"A body's salt has {SALT_BYTES} bytes, not {len(salt)}.")
    causes = [each.hex() for each in cause]
    if len(causes) > CAUSES_MAX or any(len(each) != 64 for each in causes):
        raise Malformed(f"An entry names at most {CAUSES_MAX} causes by their 32-byte ids.")
    name = _stream_text(stream)
    digest = sha256(salt + body).hexdigest()
    cause_text = '"' + '","'.join(causes) + '"' if causes else ""
    raw = (
        f'{{"actor":"{actor}","author":"{stream.machine}",'
        f'"body":{{"sha256":"{digest}","size":{len(body)}}},"cause":[{cause_text}],'
        f'"kind":"{kind}","seq":{seq},"stream":"{name}","t":[{t[0]},{t[1]}],"v":1}}'
    ).encode()
    body_ref, time = BodyRef(digest, len(body)), (t[0], t[1])
    header = Header(actor, stream.machine, body_ref, causes, kind, seq, name, time, VERSION)
    return Entry(raw, header, EntryId(leaf_hash(raw)), salt, body)


def parse(raw: bytes, salt: bytes, body: bytes | None) -> Entry:
    """Return the entry in these bytes, which came from anywhere.

    Raises: Malformed when the header is not exactly what `compose` writes; Forged when the
    author is not the stream's machine or the body is not the one that the header names.
    """
    if len(raw) > HEADER_BYTES_MAX:
        raise Malformed(f"An entry header has {len(raw)} bytes; the limit is {HEADER_BYTES_MAX}.")
    try:
        header = _decoder.decode(raw)
    except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
        raise Malformed(f"An entry header cannot be read: {error}.") from error
    if _encoder.encode(header) != raw:
        raise Malformed("An entry header is not in canonical form.")
    if header.v != VERSION:
        raise Malformed(f"An entry has format {header.v}; this Muster reads {VERSION}: update it.")
    _check_kind(header.kind)
    _check_actor(header.actor)
    for each in header.cause:
        if not _HASH.fullmatch(each):
            raise Malformed(f"A cause of entry {header.seq} is not an entry id.")
    if StreamName.parse(header.stream).machine != header.author:
        raise Forged(f"Entry {header.seq} names an author that does not own its stream.")
    if not _HASH.fullmatch(header.body.sha256):
        raise Malformed(f"The body hash of entry {header.seq} is not a SHA-256.")
    if body is None:
        if salt:
            raise Malformed(f"Entry {header.seq} has a salt without a body; both go together.")
    elif len(salt) != SALT_BYTES:
        raise Malformed(f"The salt of entry {header.seq} has {len(salt)} bytes, not {SALT_BYTES}.")
    elif len(body) != header.body.size or sha256(salt + body).hexdigest() != header.body.sha256:
        raise Forged(f"The body of entry {header.seq} is not the one that its header names.")
    return Entry(raw, header, EntryId(leaf_hash(raw)), salt, body)


# The same few kinds and actors come again and again: a cache is cheaper than a pattern.
@lru_cache(maxsize=STREAM_NAMES_CACHED)
def _check_kind(kind: str) -> None:
    if len(kind) > KIND_CHARS_MAX or not _KIND.fullmatch(kind):
        raise Malformed(f"{kind[:KIND_CHARS_MAX]!a} is not an entry kind such as task.open.")


@lru_cache(maxsize=STREAM_NAMES_CACHED)
def _check_actor(actor: str) -> None:
    if len(actor) > ACTOR_CHARS_MAX or not _ACTOR.fullmatch(actor):
        raise Malformed(
            f"{actor[:ACTOR_CHARS_MAX]!a} is not an actor: muster, op:<name> or agent@machine."
        )


@lru_cache(maxsize=STREAM_NAMES_CACHED)
def _stream_text(stream: StreamName) -> str:
    text = str(stream)
    StreamName.parse(text)
    return text
