"""Packets that one machine can read: age (https://age-encryption.org/v1), X25519, one receiver.

Rule 1: the header of a sealed packet is a stranger's words, and each stanza of it costs a key
agreement. It is looked through first: what has more than two stanzas, or is longer than a header of
two can be, is refused before anything is decrypted.
Rule 2: sealing proves nothing about the writer: what lies inside has to (fleet/parcel.py).

Any age program reads what `seal` writes, and `open_sealed` what any of them seals for our key: the
key is the raw X25519 one, in age's own spelling (BIP 173) only on its way into the library.
"""

from functools import lru_cache
from typing import Final

# An extra: who has it not hears so where a mailbox is opened (node/links/posts.py).
from pyrage import (  # type: ignore[import-untyped, import-not-found, unused-ignore]
    DecryptError,
    decrypt,
    encrypt,
    x25519,
)

from muster.errors import Forged, Malformed

HEADER_BYTES_MAX: Final = 1024
STANZAS_MAX: Final = 2
_RECEIVERS_KEPT: Final = 256
_BEGIN: Final = b"age-encryption.org/v1\n"
_CHARSET: Final = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"
_GENERATOR: Final = (0x3B6A57B2, 0x26508E6D, 0x1EA119FA, 0x3D4233DD, 0x2A1462B3)


# The points of small order: with them nothing would be secret, and the library ends in a panic.
_PRIME: Final = 2**255 - 19
_SMALL_ORDER: Final = frozenset(
    {
        0,
        1,
        325606250916557431795983626356110631294008115727848805560023387167927233504,
        39382357235489614581723060781553021112529911719440698176882885853963445705823,
        _PRIME - 1,
        _PRIME,
        _PRIME + 1,
    }
)


def seal(raw: bytes, public: bytes) -> bytes:
    """`raw` for the holder of one X25519 key alone. Raises: Malformed for what is no such key."""
    sealed: bytes = encrypt(raw, [_recipient(public)])
    return sealed


@lru_cache(maxsize=_RECEIVERS_KEPT)
def _recipient(public: bytes) -> x25519.Recipient:
    """As the library calls it: to spell a key costs as much as to seal a small packet."""
    if len(public) != 32 or int.from_bytes(public, "little") % 2**255 in _SMALL_ORDER:
        raise Malformed("the age key of the receiver is no X25519 key")
    return x25519.Recipient.from_str(_bech32("age", public))


def open_sealed(raw: bytes, secret: bytes) -> bytes:
    """What was sealed for this key. Raises: Malformed, Forged (changed, or for another key)."""
    _check_header(raw)
    identity = x25519.Identity.from_str(_bech32("age-secret-key-", secret).upper())
    try:
        opened: bytes = decrypt(raw, [identity])
    except DecryptError as error:
        raise Forged("a sealed packet was changed, or is for another machine") from error
    return opened


def _check_header(raw: bytes) -> None:
    head = raw[:HEADER_BYTES_MAX]
    end = head.find(b"\n--- ")
    if not head.startswith(_BEGIN) or end < 0 or b"\n" not in head[end + 1 :]:
        raise Malformed("a packet is not sealed with age, or its header is too long")
    stanzas = sum(line.startswith(b"-> ") for line in head[:end].split(b"\n"))
    if stanzas > STANZAS_MAX:
        raise Malformed(f"a sealed packet has {stanzas} stanzas; at most {STANZAS_MAX} are read")


def _bech32(prefix: str, raw: bytes) -> str:
    """The bytes in the spelling of BIP 173."""
    bits, size = int.from_bytes(raw, "big"), len(raw) * 8
    spare = -size % 5
    data = [bits << spare >> at & 31 for at in range(size + spare - 5, -1, -5)]
    head = [*(ord(c) >> 5 for c in prefix), 0, *(ord(c) & 31 for c in prefix)]
    check = 1
    for value in (*head, *data, *[0] * 6):
        top = check >> 25
        check = (check & 0x1FFFFFF) << 5 ^ value
        for i, generator in enumerate(_GENERATOR):
            check ^= generator if top >> i & 1 else 0
    check ^= 1
    data += [check >> 5 * (5 - i) & 31 for i in range(6)]
    return prefix + "1" + "".join(_CHARSET[value] for value in data)
