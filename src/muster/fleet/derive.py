"""One seed, many keys: how each purpose gets a key of its own.

Rule 1: no key is used by two protocols. A NATS client signs whatever nonce the server sends;
with one raw key for everything, a fake server obtained a valid git signature that way. `age` alone
has a second use, which signs nothing (machine.py, `shared`): its label keeps the two apart.
Rule 2: the seed itself is used for one thing only, the machine's root key, which signs
bindings and requests of this package and nothing else.
Rule 3: a sub-key says nothing about the seed or about another sub-key (HKDF, RFC 5869), so a
process of lower privilege can be handed the one sub-key it needs.

    sub-key = HKDF-SHA256(ikm = seed, salt = "muster/v1", info = "<purpose>/v1", 32 bytes)

The label ends in a version, so that one sub-key can be exchanged while the others stay.
"""

import hmac
from typing import Final, Literal, get_args

from muster.log.keys import Signer, agreement_key

SEED_BYTES: Final = 32
SALT: Final = b"muster/v1"

Purpose = Literal[
    "seal", "seen", "held", "git", "tls", "ssh", "nats", "wireguard", "age", "statement"
]
# What a machine's sub-keys are for. The order is the order of the documents that list them.
PURPOSES: Final[tuple[Purpose, ...]] = get_args(Purpose)
# Key agreement, not signatures. Derived, never mapped from the ed25519 key: the proof that
# one key may serve both covers age and does not cover WireGuard.
AGREEMENT_PURPOSES: Final = frozenset({"wireguard", "age"})


def derive_key(seed: bytes, purpose: str) -> bytes:
    """The 32 secret bytes that `seed` yields for `purpose`."""
    assert len(seed) == SEED_BYTES, "a seed has exactly 32 bytes"
    info = f"{purpose}/v1".encode("ascii")
    # Of as many bytes as the hash has HKDF is two steps; a library for them would cost each
    # signed command a tenth of its time.
    return hmac.digest(hmac.digest(SALT, seed, "sha256"), info + b"\x01", "sha256")


def public_key(purpose: str, secret: bytes) -> bytes:
    """The public half of a sub-key: X25519 for key agreement, ed25519 for everything else."""
    if purpose in AGREEMENT_PURPOSES:
        return agreement_key(secret)
    return Signer(secret).public
