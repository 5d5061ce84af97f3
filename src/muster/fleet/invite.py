"""The invite: one short string that lets one machine of one name into one fleet.

Rule 1: a token is used once, by one name, until its time; the hub keeps only its hash.
Rule 2: a token is a secret. The string is shown once, to the person who asked for it.
Rule 3: the string carries the fleet's id (its record key), so the newcomer needs to trust
nothing else: whoever answers at the address must prove itself against that key.

    muster1.<80 characters base32: fleet id 32, token 16, checksum 2 bytes>.<host:port>

The checksum covers the address, so that a typing error is told apart from a wrong fleet.
"""

import base64
import binascii
import hashlib
import re
from collections.abc import Sequence
from typing import Final, NamedTuple

from muster import limits
from muster.address import check_address
from muster.errors import Malformed
from muster.fleet.kinds import InviteOpen
from muster.fleet.name import check_name
from muster.fleet.record import Role
from muster.log.stream import FleetId

TOKEN_BYTES: Final = 16

_PREFIX: Final = "muster1"
_CODE_CHARS: Final = 80


# What a chat puts around a word, and what ends the sentence that it stands in.
_AROUND: Final = " \t\r\n\u00a0`'\"*_~<>(){}.,;:!?|\u2018\u2019\u201a\u201c\u201d\u201e\u00ab\u00bb"
_INVISIBLE: Final = re.compile("[\u00ad\u200b-\u200f\u2060\u202a-\u202e\ufeff]")
_DASHES: Final = re.compile("[\u2010-\u2015\u2212]")
# [address](http://address) of Markdown, and <http://address|address> of chats.
_LINKED: Final = re.compile(
    r"\[([^\]\s]{1,280})\]\(https?://[^)\s]{1,280}\)|<https?://[^|>\s]{1,280}\|([^>\s]{1,280})>"
)


class Invite(NamedTuple):
    """What the invite string says."""

    fleet: FleetId
    token: bytes
    address: str

    def __repr__(self) -> str:
        return f"Invite(fleet={self.fleet}, token=…, address={self.address!r})"


def write_invite(fleet: FleetId, token: bytes, address: str) -> str:
    """The invite string; `token` is 16 fresh random bytes, `address` is host:port."""
    assert len(token) == TOKEN_BYTES, "a token has 16 random bytes"
    address = check_address(address)
    code = bytes.fromhex(fleet) + token
    code += _checksum(code, address)
    return f"{_PREFIX}.{base64.b32encode(code).decode('ascii').lower()}.{address}"


def pasted(text: str) -> str:
    """The string as it was printed, of one that went through a chat, a mail or a document.

    These put quotes, brackets or a full stop around it, make a link of its address, and replace
    dashes; the checksum tells whether what is left is what was printed.
    """
    if len(text) > limits.INVITE_CHARS_MAX:
        return text
    text = _INVISIBLE.sub("", text)
    text = _LINKED.sub(lambda m: m[1] or m[2], text)
    text = _DASHES.sub("-", text).strip(_AROUND)
    return text.removeprefix("muster join").strip(_AROUND)


def read_invite(text: str) -> Invite:
    """The invite in a pasted string; raises Malformed with what is wrong with it."""
    text = pasted(text).lower()
    if len(text) > limits.INVITE_CHARS_MAX:
        raise Malformed(
            "The invite is too long: paste only the string that `muster invite` printed."
        )
    prefix, _, rest = text.partition(".")
    if prefix != _PREFIX:
        raise Malformed(f"An invite begins with `{_PREFIX}.` and this does not: copy it again.")
    code, dot, address = rest.partition(".")
    if not dot or len(code) != _CODE_CHARS:
        raise Malformed(
            f"The invite is cut or has extra characters: its middle part has {len(code)} "
            f"characters instead of {_CODE_CHARS}."
        )
    address = check_address(address)
    try:
        raw = base64.b32decode(code.upper())
    except (binascii.Error, ValueError) as error:
        raise Malformed("The invite is damaged: copy it again, all of it.") from error
    if raw[48:] != _checksum(raw[:48], address):
        raise Malformed("The invite is damaged (its checksum is wrong): copy it again, all of it.")
    return Invite(FleetId(raw[:32].hex()), raw[32:48], address)


def token_hash(token: bytes) -> str:
    """What the hub keeps of a token."""
    return hashlib.sha256(b"muster/token/v1\n" + token).hexdigest()


def open_invite(
    token: bytes,
    name: str,
    roles: Sequence[Role],
    now_ms: int,
    life_ms: int = limits.INVITE_LIFE_MS,
) -> InviteOpen:
    """The body of the entry that makes a token valid."""
    check_name(name, "The machine name")
    return InviteOpen(
        name=name, sha256=token_hash(token), until_ms=now_ms + life_ms, roles=tuple(roles)
    )


def _checksum(code: bytes, address: str) -> bytes:
    return hashlib.sha256(b"muster/invite/v1\n" + code + address.encode("ascii")).digest()[:2]
