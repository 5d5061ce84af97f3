"""The word of one process that it lives, signed by its machine's root key.

Rule 1: a life is drawn anew by each start, and nobody can know it before. So a word that names
another life was given after that other one began.
Rule 2: two lives of one key that name each other lived at the same time: two copies run. One that
was started again can name the life before, which cannot name it.
"""

from typing import Final

from muster import limits
from muster.fleet.document import Contents, Form
from muster.fleet.machine import Identity
from muster.fleet.name import Hex16, Hex32, Size
from muster.log.stream import FleetId


class Life(Contents, frozen=True):
    """`life` lives, and knows of `beside` ("0…" for none); a later word has a greater number."""

    beside: Hex16
    life: Hex16
    machine: Hex32
    number: Size


_LIFE: Final = Form("muster/life/v1", Life, "The word of a process", limits.LIFE_BYTES_MAX)
NOBODY: Final = "0" * 32


def sign_life(
    identity: Identity, fleet: FleetId, life: str, *, beside: str = NOBODY, number: int = 0
) -> bytes:
    """The word of this process."""
    body = Life(beside=beside, fleet=fleet, life=life, machine=identity.machine, number=number)
    return _LIFE.write(body, identity.root)


def open_life(raw: bytes, fleet: FleetId) -> Life:
    """The word in `raw`, when the machine that it names signed it. Raises: Refused."""
    document = _LIFE.read(raw, fleet)
    return document.check(document.value.machine)
