r"""A parcel: what one machine leaves for another in a mailbox, signed by its root key.

Rule 1: the place is trusted with nothing. That a machine of the fleet wrote it, for this machine
and none other, and that no byte of it was changed, is checked before anything of the rest is read.
Rule 2: a place may give a parcel twice, late, or years later. `life` and `number` tell what is
newer of what one process wrote. `heard_life` is the last word that the writer had from its
receiver: who finds its own present life there knows that the parcel was written since its start.
Rule 3: what travels are items. A reader passes over those of a type that it does not know.

    muster/parcel/v1\n {"fleet":"…","life":"…",…}\n <signature>\n     a document (document.py)
    u32 length, u8 type, so many bytes                                each item

The document names size and sha256 of all that follows it.
"""

import hashlib
import struct
from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Denied, Forged, Malformed
from muster.fleet.document import Contents, Form
from muster.fleet.life import NOBODY
from muster.fleet.machine import Identity
from muster.fleet.name import Hex16, Hex32, Milliseconds, Size
from muster.log.stream import FleetId

# One frame of a link (docs/spec/frames.md).
FRAME: Final = 1
# Asides: whether the receiver comes by, and that it does; both with the same 16 bytes.
PING: Final = 2
PONG: Final = 3
# The name of a channel that the receiver is to look after.
MEND: Final = 4
# A question for a blob, and a piece of one (node/links/blob_parcels.py).
BLOB_WANT: Final = 5
BLOB_PART: Final = 6
# Its writer takes parcels whose name tells their writer (channel/turn.py): of no bytes.
NAMES_READ: Final = 7
ASIDES: Final = frozenset({PING, PONG, MEND, BLOB_WANT, BLOB_PART})
ITEM_HEAD_BYTES: Final = 5


class Parcel(Contents, frozen=True):
    """Who wrote it for whom, and of what it knew; see the rules above."""

    heard_life: Hex16
    heard_number: Size
    life: Hex16
    machine: Hex32
    number: Size
    sent_ms: Milliseconds
    sha256: Hex32
    size: Size
    to: Hex32


class Item(NamedTuple):
    type: int
    body: bytes


class Heard(NamedTuple):
    """The newest parcel of a machine that was dealt with: its life, and its number in that life."""

    life: str = NOBODY
    number: int = 0


_PARCEL: Final = Form("muster/parcel/v1", Parcel, "A parcel", limits.PARCEL_HEAD_BYTES_MAX)
_HEAD: Final = struct.Struct(">IB")


def write_parcel(  # noqa: PLR0917 - what a parcel says
    identity: Identity,
    fleet: FleetId,
    to: str,
    mine: Heard,
    heard: Heard,
    sent_ms: int,
    items: Iterable[Item],
) -> bytes:
    """A parcel of the process `mine.life`, its number `mine.number`."""
    body = b"".join(_HEAD.pack(len(each.body), each.type) + each.body for each in items)
    parcel = Parcel(
        fleet=fleet,
        heard_life=heard.life,
        heard_number=heard.number,
        life=mine.life,
        machine=identity.machine,
        number=mine.number,
        sent_ms=sent_ms,
        sha256=hashlib.sha256(body).hexdigest(),
        size=len(body),
        to=to,
    )
    return _PARCEL.write(parcel, identity.root) + body


def read_parcel(
    raw: bytes, fleet: FleetId, me: str, is_member: Callable[[str], bool]
) -> tuple[Parcel, list[Item]]:
    """What a machine of the fleet left for `me`. Raises: Malformed, Forged, Denied."""
    end = 0
    for _ in range(3):
        end = raw.find(b"\n", end, limits.PARCEL_HEAD_BYTES_MAX) + 1
        if not end:
            raise Malformed("A parcel does not begin with a signed document.")
    document = _PARCEL.read(raw[:end], fleet)
    parcel = document.value
    if parcel.to != me:
        raise Denied(f"A parcel is for another machine ({parcel.to[:12]}…).")
    if parcel.machine == me or not is_member(parcel.machine):
        raise Denied(
            f"A parcel was written by no other machine of this fleet ({parcel.machine[:12]}…)."
        )
    document.check(parcel.machine)
    body = memoryview(raw)[end:]
    if len(body) != parcel.size or hashlib.sha256(body).hexdigest() != parcel.sha256:
        raise Forged("The contents of a parcel are not what its writer signed.")
    return parcel, _items(body)


def _items(body: memoryview) -> list[Item]:
    found: list[Item] = []
    at = 0
    while at < len(body):
        if len(body) - at < ITEM_HEAD_BYTES or len(found) >= limits.PARCEL_ITEMS_MAX:
            raise Malformed("The items of a parcel are cut, or too many.")
        size, type = _HEAD.unpack_from(body, at)
        at += ITEM_HEAD_BYTES
        if size > len(body) - at:
            raise Malformed("The items of a parcel are cut.")
        found.append(Item(type, bytes(body[at : at + size])))
        at += size
    return found
