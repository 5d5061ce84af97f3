"""The word of one process that it lives, signed by its machine's root key.

Rule 1: a life is drawn anew by each start, and nobody can know it before. So a word that names
another life was given after that other one began.
Rule 2: two lives of one key that name each other lived at the same time: two copies run. One that
was started again can name the life before, which cannot name it.
"""

from typing import Final

from msgspec import Struct

from muster import limits
from muster.fleet.document import check_fleet, read_document, write_document
from muster.fleet.machine import Identity
from muster.fleet.name import Hex16, Hex32, Size
from muster.log.stream import FleetId

_LIFE: Final = "muster/life/v1"


class Life(Struct, frozen=True, forbid_unknown_fields=True):
    """`life` lives, and knows of `beside` ("0…" for none); a later word has a greater number."""

    beside: Hex16
    fleet: Hex32
    life: Hex16
    machine: Hex32
    number: Size


NOBODY: Final = "0" * 32


def sign_life(
    identity: Identity, fleet: FleetId, life: str, *, beside: str = NOBODY, number: int = 0
) -> bytes:
    """The word of this process."""
    body = Life(beside=beside, fleet=fleet, life=life, machine=identity.machine, number=number)
    return write_document(_LIFE, body, identity.root)


def open_life(raw: bytes, fleet: FleetId) -> Life:
    """The word in `raw`, when the machine that it names signed it. Raises: Refused."""
    what = "The word of a process"
    document = read_document(raw, _LIFE, Life, what, size_max=limits.LIFE_BYTES_MAX)
    check_fleet(document.value.fleet, fleet, what)
    return document.check(document.value.machine)
