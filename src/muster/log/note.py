"""C2SP signed notes: a text, an empty line, and signature lines.

Rule 1: this is c2sp.org/signed-note@v1.0.0, so that foreign tools can check our seals.
Rule 2: parsing proves nothing; a signature line means something only once seal.py verified it.

    <text, ending in a newline>
    <empty line>
    — <key name> base64(key id, 4 bytes || signature)

A key id is the first four bytes of SHA-256(name || 0x0A || type || public key). The type
byte keeps statements of different meaning apart even under one name:

    0x01  Ed25519 over the text                                         (seals)
    0x04  cosignature/v1, timestamped                                   (cosign: seen)
    0xff  our own, followed by a longer identifier as the spec asks     (cosign: held)
"""

import re
from base64 import b64decode, b64encode
from functools import lru_cache
from hashlib import sha256
from typing import Final, NamedTuple

from muster.errors import Malformed
from muster.limits import NOTE_BYTES_MAX, NOTE_SIGNATURES_MAX
from muster.log import keys

TYPE_ED25519: Final = b"\x01"
TYPE_COSIGNATURE: Final = b"\x04"
TYPE_HELD: Final = b"\xffmuster-held/v1"

KEY_ID_BYTES: Final = 4
_DASH: Final = "— "
# Every control character of ASCII but the newline.
_CONTROL: Final = re.compile(r"[\x00-\x09\x0b-\x1f]")
_NOT_IN_NAME: Final = re.compile(r"[\s+]")


class Signature(NamedTuple):
    """One signature line: who claims to have signed, and the bytes after the key id."""

    name: str
    key_id: bytes
    data: bytes


class Note(NamedTuple):
    """A parsed note: the text with its final newline, and the unverified signatures."""

    text: str
    signatures: tuple[Signature, ...]


@lru_cache(maxsize=1024)
def key_id(name: str, type_: bytes, public: bytes) -> bytes:
    """Return the four bytes that tell keys of one name apart."""
    return sha256(name.encode() + b"\n" + type_ + public).digest()[:KEY_ID_BYTES]


def encode(note: Note) -> bytes:
    """Return the bytes of a note."""
    assert note.text.endswith("\n")
    lines = [
        f"{_DASH}{each.name} {b64encode(each.key_id + each.data).decode()}\n"
        for each in note.signatures
    ]
    return f"{note.text}\n{''.join(lines)}".encode()


def parse(raw: bytes) -> Note:
    """Return the note in these bytes, its signatures unverified. Raises: Malformed."""
    if len(raw) > NOTE_BYTES_MAX:
        raise Malformed(f"A note has {len(raw)} bytes; the limit is {NOTE_BYTES_MAX}.")
    try:
        whole = raw.decode()
    except UnicodeDecodeError as error:
        raise Malformed("A note is not UTF-8 text.") from error
    if _CONTROL.search(whole):
        raise Malformed("A note holds a control character.")
    text, gap, tail = whole.rpartition("\n\n")
    if not gap or not tail.endswith("\n"):
        raise Malformed("A note has no signature lines after an empty line.")
    lines = tail[:-1].split("\n")
    if len(lines) > NOTE_SIGNATURES_MAX:
        raise Malformed(f"A note has {len(lines)} signatures; the limit is {NOTE_SIGNATURES_MAX}.")
    return Note(text + "\n", tuple(_signature(line) for line in lines))


def sign(text: str, name: str, signer: keys.Signer) -> bytes:
    """Return `text` as a note with one Ed25519 signature."""
    data = signer.sign(text.encode())
    return encode(Note(text, (Signature(name, key_id(name, TYPE_ED25519, signer.public), data),)))


def _signature(line: str) -> Signature:
    if not line.startswith(_DASH):
        raise Malformed("A signature line does not begin with an em dash and a space.")
    name, _, text = line[len(_DASH) :].partition(" ")
    if not name or _NOT_IN_NAME.search(name):
        raise Malformed("A key name is empty, or holds a space or a plus.")
    try:
        data = b64decode(text, validate=True)
    except ValueError as error:
        raise Malformed("A signature line does not end in base64.") from error
    # Spare bits in the last character would give one signature several spellings.
    if len(data) <= KEY_ID_BYTES or b64encode(data).decode() != text:
        raise Malformed("A signature line does not end in canonical base64 of a signature.")
    return Signature(name, data[:KEY_ID_BYTES], data[KEY_ID_BYTES:])
