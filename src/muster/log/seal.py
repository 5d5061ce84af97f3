r"""Seals and cosigns: who vouches for a stream's size and root.

Rule 1: a seal is the writer's word, a C2SP checkpoint; a cosign is another machine's word
over the same checkpoint text. Both stand alone: one note, one signature line.
Rule 2: the two strengths of a cosign are different statements under different keys, so
that a witness (*seen*) can never be passed off as a receipt (*held*).
Rule 3: opening a note re-derives its only spelling; extra lines, signatures or spaces are
refused, so that equal seals are equal bytes.

    muster/<fleet>/<machine>/<incarnation>/<scope>     the origin, and the seal's key name
    <size>
    <base64 of the root>

    — muster/<fleet>/<machine>/<incarnation>/<scope> <key id || Ed25519(text)>

A cosigner is named `muster/<machine>` and signs a first line, a time line and the text:

    seen    "cosignature/v1\n"  "time <s>\n"  text        type 0x04, tlog-cosignature
    held    "muster-held/v1\n"  "time <s>\n"  text        type 0xff "muster-held/v1"
"""

from base64 import b64decode, b64encode
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

from muster.errors import Forged, Malformed
from muster.limits import INT_ABS_MAX, STREAM_SIZE_MAX
from muster.log import keys
from muster.log import note as notes
from muster.log.stream import FleetId, MachineId, StreamName, fleet_id, machine_id
from muster.log.tree import EMPTY_ROOT, HASH_BYTES

Strength = Literal["seen", "held"]

# What a strength signs first, and the type in its key id: no statement fits under another.
_STATEMENT: Final[dict[Strength, tuple[str, bytes]]] = {
    "seen": ("cosignature/v1", notes.TYPE_COSIGNATURE),
    "held": ("muster-held/v1", notes.TYPE_HELD),
}
_TIME_BYTES: Final = 8
# A note is at most a few hundred bytes; it is asked for again within a step.
_NOTES_CACHED: Final = 32


@dataclass(frozen=True, slots=True)
class Seal:
    """The writer's signature over its stream's size and root; `note` is the whole of it."""

    stream: StreamName
    size: int
    root: bytes
    note: bytes


@dataclass(frozen=True, slots=True)
class Cosign:
    """Another machine's signature over a stream's size and root, as of `time_s`."""

    machine: MachineId
    strength: Strength
    stream: StreamName
    size: int
    root: bytes
    time_s: int
    note: bytes


def make_seal(
    fleet: FleetId, stream: StreamName, size: int, root: bytes, signer: keys.Signer
) -> Seal:
    """Return our seal. The caller has stored the entries: a seal is a promise never to differ."""
    text = _checkpoint(fleet, stream, size, root)
    return Seal(stream, size, root, notes.sign(text, _origin(fleet, stream), signer))


def open_seal(note: bytes, fleet: FleetId, public: bytes) -> Seal:
    """Return the seal in a note that `public`, the writer's seal key, signed.

    Raises: Malformed when it is not a checkpoint of this format; Forged when it belongs to
    another fleet or the signature does not hold.
    """
    parsed = _parse_one(note)
    their_fleet, stream, size, root = _read_checkpoint(parsed.text)
    _check_fleet(their_fleet, fleet)
    line = parsed.signatures[0]
    name = _origin(fleet, stream)
    if line.name != name or line.key_id != notes.key_id(name, notes.TYPE_ED25519, public):
        raise Forged(f"The seal of {stream} at {size} is signed by another key.")
    if not keys.verify(public, parsed.text.encode(), line.data):
        raise Forged(f"The signature under the seal of {stream} at {size} does not hold.")
    return Seal(stream, size, root, note)


def peek_stream(note: bytes) -> StreamName:
    """Return the stream a seal or cosign speaks of, unverified, to find the key by."""
    return _read_checkpoint(_parse_one(note).text)[1]


def peek_cosigner(note: bytes) -> MachineId:
    """Return the machine a cosign claims to be from, unverified, to find the keys by."""
    return _cosigner(_parse_one(note).signatures[0].name)


def make_cosign(  # noqa: PLR0917 - a cosign has this many parts
    fleet: FleetId,
    stream: StreamName,
    size: int,
    root: bytes,
    machine: MachineId,
    strength: Strength,
    signer: keys.Signer,
    time_s: int,
) -> Cosign:
    """Return our cosign of a checkpoint.

    `signer` is the machine's sub-key of that very strength. *held* may only be made when
    every entry up to `size` is durable here; *seen* when it is consistent with all seen before.
    """
    if not 0 <= time_s <= INT_ABS_MAX:
        raise Malformed(f"{time_s} is not a time in seconds since 1970.")
    text = _checkpoint(fleet, stream, size, root)
    name = f"muster/{machine_id(machine)}"
    signature = signer.sign(_statement(strength, time_s, text))
    key_id = notes.key_id(name, _STATEMENT[strength][1], signer.public)
    data = time_s.to_bytes(_TIME_BYTES, "big") + signature
    note = notes.encode(notes.Note(text, (notes.Signature(name, key_id, data),)))
    return Cosign(machine, strength, stream, size, root, time_s, note)


def open_cosign(note: bytes, fleet: FleetId, *, seen: bytes, held: bytes) -> Cosign:
    """Return the cosign in a note of the machine whose *seen* and *held* keys these are.

    Raises: Malformed or Forged, as `open_seal`.
    """
    publics: dict[Strength, bytes] = {"seen": seen, "held": held}
    parsed = _parse_one(note)
    their_fleet, stream, size, root = _read_checkpoint(parsed.text)
    _check_fleet(their_fleet, fleet)
    name, key_id, data = parsed.signatures[0]
    machine = _cosigner(name)
    if len(data) != _TIME_BYTES + keys.SIGNATURE_BYTES:
        raise Malformed(f"The cosign of {stream} by {machine} has no time and signature.")
    time_s = int.from_bytes(data[:_TIME_BYTES], "big")
    if time_s > INT_ABS_MAX:
        raise Malformed(f"The cosign of {stream} by {machine} has an impossible time.")
    for strength, public in publics.items():
        if key_id != notes.key_id(name, _STATEMENT[strength][1], public):
            continue
        if keys.verify(public, _statement(strength, time_s, parsed.text), data[_TIME_BYTES:]):
            return Cosign(machine, strength, stream, size, root, time_s, note)
        raise Forged(f"The signature under the cosign of {stream} by {machine} does not hold.")
    raise Forged(f"The cosign of {stream} by {machine} is signed by another key.")


def _statement(strength: Strength, time_s: int, text: str) -> bytes:
    return f"{_STATEMENT[strength][0]}\ntime {time_s}\n{text}".encode()


@lru_cache(maxsize=1024)
def _origin(fleet: FleetId, stream: StreamName) -> str:
    return f"muster/{fleet_id(fleet)}/{StreamName.parse(str(stream))}"


def _checkpoint(fleet: FleetId, stream: StreamName, size: int, root: bytes) -> str:
    _check_head(size, root)
    return f"{_origin(fleet, stream)}\n{size}\n{b64encode(root).decode()}\n"


@lru_cache(maxsize=_NOTES_CACHED)
def _read_checkpoint(text: str) -> tuple[FleetId, StreamName, int, bytes]:
    lines = text.split("\n")
    if len(lines) != 4 or lines[3]:
        raise Malformed("A checkpoint has other than three lines.")
    origin, size_text, root_text, _ = lines
    brand, _, rest = origin.partition("/")
    fleet_text, _, stream_text = rest.partition("/")
    if brand != "muster":
        raise Malformed("A checkpoint's origin is not muster/<fleet>/<stream>.")
    fleet, stream = fleet_id(fleet_text), StreamName.parse(stream_text)
    if not (size_text.isascii() and size_text.isdigit() and len(size_text) <= 13):
        raise Malformed(f"The checkpoint of {stream} has no size on its second line.")
    size = int(size_text)
    try:
        root = b64decode(root_text, validate=True)
    except ValueError as error:
        raise Malformed(f"The checkpoint of {stream} has no root on its third line.") from error
    _check_head(size, root)
    # Leading zeros and spare base64 bits would give one checkpoint several spellings.
    if str(size) != size_text or b64encode(root).decode() != root_text:
        raise Malformed(f"The checkpoint of {stream} is not in its shortest form.")
    return fleet, stream, size, root


def _check_head(size: int, root: bytes) -> None:
    if not 0 <= size <= STREAM_SIZE_MAX:
        raise Malformed(f"{size} is not the size of a stream.")
    if len(root) != HASH_BYTES or (size == 0) != (root == EMPTY_ROOT):
        raise Malformed(f"The root of a stream of {size} entries cannot be {root[:32].hex()}.")


def _check_fleet(theirs: FleetId, ours: FleetId) -> None:
    if theirs != ours:
        raise Forged(f"A checkpoint belongs to the fleet {theirs}, not to this one.")


# Whoever looks a note's key up opens the same bytes right after.
@lru_cache(maxsize=_NOTES_CACHED)
def _parse_one(note: bytes) -> notes.Note:
    parsed = notes.parse(note)
    if len(parsed.signatures) != 1:
        raise Malformed("A seal or cosign has exactly one signature line.")
    return parsed


def _cosigner(name: str) -> MachineId:
    brand, _, machine = name.partition("/")
    if brand != "muster":
        raise Malformed("A cosigner's key name is not muster/<machine>.")
    return machine_id(machine)
