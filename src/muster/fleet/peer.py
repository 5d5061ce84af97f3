"""Another operator's fleet that this one deals with: its card, and who it is.

Rule 1: a card is no secret, and authority is not in it: it says by which key another fleet's
machines are told, and where some of them can be dialled. What they may ask, grants say.
Rule 2: the fleet's id is its record key, which vouches for the certificate in the card: whoever
compared the id with the other operator has compared all that counts.
Rule 3: both operators take in the other one's card. Before both did, nothing goes either way: each
side lets in whom it knows.
Rule 4: of another fleet's machines nobody here hears who was revoked there. So for them the
calendar counts, which for our own does not: who gets no new certificate is out when its last ends.

    peer1.<base64url of canonical JSON>

A machine of another fleet is called `foreign:<fleet>/<machine>` where it comes over a link; it is
no member, and no place where a member's id is looked up ever finds that.
"""

import base64
import binascii
import re
from collections.abc import Sequence
from typing import Annotated, Final, NamedTuple

from msgspec import Meta, Struct

from muster import limits
from muster.address import check_address
from muster.errors import Malformed, MusterError
from muster.fleet.certificate import open_ca
from muster.fleet.name import NAME_PATTERN, Hex32, Name
from muster.log import canon
from muster.log.stream import FleetId

# The verbs of the two orders about peers.
ADD: Final = "peer.add"
REMOVE: Final = "peer.remove"

_PREFIX: Final = "peer1."
_FOREIGN: Final = re.compile(r"foreign:([0-9a-f]{64})/([0-9a-f]{64})")
_NAMED: Final = re.compile(NAME_PATTERN)

Address = Annotated[str, Meta(max_length=200)]


class Door(Struct, frozen=True, forbid_unknown_fields=True):
    """A machine of that fleet which others may dial, and where."""

    address: Address
    machine: Hex32
    name: Name


class Card(Struct, frozen=True, forbid_unknown_fields=True):
    """What a fleet shows of itself: its id, its authority's certificate in PEM, its doors."""

    ca: Annotated[str, Meta(max_length=limits.RECORD_BYTES_MAX)]
    doors: Annotated[tuple[Door, ...], Meta(min_length=1, max_length=limits.PEER_DOORS_MAX)]
    fleet: Hex32


class PeerFleet(NamedTuple):
    """A fleet that an operator took in, by the name that it has here."""

    name: str
    card: Card


class Foreign(NamedTuple):
    """A machine of another fleet."""

    fleet: str
    machine: str

    def __str__(self) -> str:
        return f"foreign:{self.fleet}/{self.machine}"


def foreign(peer: str) -> Foreign | None:
    """The machine of another fleet that a link proved to come from; None for anybody else."""
    match = _FOREIGN.fullmatch(peer)
    return Foreign(match[1], match[2]) if match else None


def write_card(fleet: FleetId, ca: str, doors: Sequence[Door]) -> str:
    """The string that the other operator takes in."""
    card = Card(ca, tuple(doors), fleet)
    text = base64.urlsafe_b64encode(canon.encode(card)).decode("ascii").rstrip("=")
    read_card(_PREFIX + text)
    return _PREFIX + text


def read_card(text: str) -> Card:
    """The card in a pasted string. Raises: Malformed with what is wrong with it."""
    text = re.sub(r"\s+", "", text[: 2 * limits.PEER_CARD_CHARS_MAX])
    if not text.startswith(_PREFIX):
        raise Malformed(
            "A card begins with `peer1.` and this does not: copy again what `muster peer card` "
            "printed in the other fleet."
        )
    code = text.removeprefix(_PREFIX)
    damaged = Malformed("The card is damaged: copy it again, all of it.")
    if len(text) > limits.PEER_CARD_CHARS_MAX:
        raise damaged
    try:
        raw = base64.b64decode(code + "=" * (-len(code) % 4), b"-_", validate=True)
        card = canon.decode_as(raw, Card, "The card", size_max=limits.PEER_CARD_CHARS_MAX)
        open_ca(card.ca.encode("ascii"), FleetId(card.fleet))
        for door in card.doors:
            check_address(door.address)
    except (binascii.Error, ValueError, MusterError) as error:
        raise damaged from error
    return card


def fingerprint(fleet: str) -> str:
    """What two operators read to each other: the whole id, in groups."""
    return " ".join(fleet[at : at + 8] for at in range(0, len(fleet), 8))


def peer_args(card: str, fleet: str, name: str) -> dict[str, str]:
    """What an operator signs who takes a fleet in."""
    return {"card": card, "fleet": fleet, "name": name}


def split_place(to: str) -> tuple[str, str, str]:
    """Agent ("" for none), machine and fleet of `agent@machine.fleet`. Raises: Malformed."""
    agent, at, rest = to.rpartition("@")
    machine, dot, fleet = rest.partition(".")
    words = [machine, fleet, *([agent] if at else [])]
    if not dot or not all(map(_NAMED.match, words)):
        raise Malformed(
            f"{to[:80]!r} is nobody in another fleet: write machine.fleet, or agent@machine.fleet"
        )
    return agent, machine, fleet
