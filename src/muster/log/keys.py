"""Ed25519, the only signature in the log; and X25519, for those who agree on a key.

Rule 1: this is the only file that imports PyNaCl.
Rule 2: a key signs one kind of statement; what separates the kinds is the key's purpose
(see fleet/derive.py) and the first line of the message, both the caller's duty.
"""

from nacl.bindings import (
    crypto_scalarmult,
    crypto_scalarmult_base,
    crypto_sign,
    crypto_sign_open,
    crypto_sign_seed_keypair,
)
from nacl.exceptions import BadSignatureError, CryptoError

SEED_BYTES = 32
PUBLIC_BYTES = 32
SIGNATURE_BYTES = 64


class Signer:
    """A secret key and the signatures it makes; it never shows its seed."""

    __slots__ = ("_secret", "public")

    def __init__(self, seed: bytes) -> None:
        assert len(seed) == SEED_BYTES, "an ed25519 seed has 32 bytes"
        self.public: bytes
        self.public, self._secret = crypto_sign_seed_keypair(seed)

    def sign(self, message: bytes) -> bytes:
        """Return the 64-byte signature of `message`."""
        return crypto_sign(message, self._secret)[:SIGNATURE_BYTES]

    def __repr__(self) -> str:
        return f"Signer(public={self.public.hex()})"


def agreement_key(secret: bytes) -> bytes:
    """The public half of an X25519 key."""
    public: bytes = crypto_scalarmult_base(secret)
    return public


def agree(secret: bytes, public: bytes) -> bytes | None:
    """What the holders of two X25519 keys alone know; None where nothing would be secret."""
    if len(public) != PUBLIC_BYTES:
        return None
    try:
        shared: bytes = crypto_scalarmult(secret, public)
    except CryptoError:
        # A point of small order.
        return None
    return shared if any(shared) else None


def verify(public: bytes, message: bytes, signature: bytes) -> bool:
    """Whether `signature` is `public`'s over `message`; wrong lengths are simply False."""
    if len(public) != PUBLIC_BYTES or len(signature) != SIGNATURE_BYTES:
        return False
    try:
        crypto_sign_open(signature + message, public)
    except BadSignatureError:
        return False
    return True
