"""OpenSSH's format for a signature by an ed25519 key, as git puts it in a commit.

Rule 1: no private key is ever written to a file for this; the machine's `git` sub-key signs in
        memory, and `ssh-keygen` or `git verify-commit` elsewhere checks it with the public key.

The signature is OpenSSH's PROTOCOL.sshsig, version 1: what is signed is the magic, the namespace
and a hash of the message, so a signature of a commit is good for nothing else, which is the
domain separation every one of our signatures has.
"""

import base64
import binascii
import hashlib
import struct
from typing import Final

from muster.errors import Malformed
from muster.log import keys

_NAMESPACE: Final = b"git"

_MAGIC: Final = b"SSHSIG"
_ALGORITHM: Final = b"ssh-ed25519"
_HASH: Final = b"sha512"
_BEGIN: Final = "-----BEGIN SSH SIGNATURE-----"
_END: Final = "-----END SSH SIGNATURE-----"
# Chosen to be what ssh-keygen writes, so that both sides' bytes are the same.
_LINE: Final = 70
_SIGNATURE_CHARS_MAX: Final = 2_000


def sign(signer: keys.Signer, message: bytes) -> str:
    """The armoured signature of a message; ends with a newline."""
    signature = _string(_ALGORITHM) + _string(signer.sign(_signed(message)))
    key = _string(_ALGORITHM) + _string(signer.public)
    fields = (key, _NAMESPACE, b"", _HASH, signature)
    blob = _MAGIC + struct.pack(">I", 1) + b"".join(map(_string, fields))
    text = base64.b64encode(blob).decode("ascii")
    lines = [text[at : at + _LINE] for at in range(0, len(text), _LINE)]
    return "\n".join([_BEGIN, *lines, _END, ""])


def open_signature(armoured: str, message: bytes) -> tuple[bytes, bytes, bytes]:
    """Take a signature apart into (public key, signed bytes, raw signature); verify nothing.

    The caller decides whether it trusts the key, and verifies with `muster.log.keys.verify`.
    """
    lines = armoured.strip().splitlines()
    ends = (lines[0], lines[-1]) if len(lines) >= 3 else ()
    if len(armoured) > _SIGNATURE_CHARS_MAX or ends != (_BEGIN, _END):
        raise Malformed("This is not an SSH signature; sign the commit with the machine's key.")
    try:
        blob = base64.b64decode("".join(lines[1:-1]), validate=True)
    except binascii.Error as error:
        raise Malformed("The SSH signature is not base64; it was damaged.") from error
    if blob[:10] != _MAGIC + struct.pack(">I", 1):
        raise Malformed("The SSH signature is not of version 1; sign with OpenSSH 8.1 or newer.")
    key, space, reserved, hashed, signature = _strings(blob[10:], 5)
    if (space, reserved, hashed) != (_NAMESPACE, b"", _HASH):
        raise Malformed("The SSH signature was not made for 'git' with sha512.")
    (kind, public), (kind_again, raw) = _strings(key, 2), _strings(signature, 2)
    if kind != _ALGORITHM or kind_again != _ALGORITHM or len(public) != 32 or len(raw) != 64:
        raise Malformed("The SSH signature is not by an ed25519 key.")
    return public, _signed(message), raw


def _signed(message: bytes) -> bytes:
    fields = (_NAMESPACE, b"", _HASH, hashlib.sha512(message).digest())
    return _MAGIC + b"".join(map(_string, fields))


def _string(value: bytes) -> bytes:
    return struct.pack(">I", len(value)) + value


def _strings(raw: bytes, count: int) -> list[bytes]:
    found = []
    for _ in range(count):
        size = int.from_bytes(raw[:4], "big")
        if len(raw) < 4 + size or len(raw) < 4:
            raise Malformed("The SSH signature is cut off.")
        found.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    if raw:
        raise Malformed("The SSH signature has bytes after its end.")
    return found
