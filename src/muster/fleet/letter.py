"""A letter to another fleet, and the receipt for it: two documents that go between operators.

Rule 1: a letter is signed by the machine that sends it, for one fleet and one door of it. Another
door refuses it: so it is taken once, however often it is shown.
Rule 2: a receipt is signed by that door with the key that signs receipts in its own fleet, over the
letter's id, when the machine that the letter is for holds it. Nothing else settles a letter.
Rule 3: neither says whether its writer is a machine of the fleet that it names. Its record does,
which travels beside it and is signed by that fleet's authority.
Rule 4: who sent a letter and what it says is text from another operator, and orders nothing.

    letter    machine's `statement` key:  for this fleet, through this door, to this name: this text
    receipt   door's `held` key:          of the letter with this id
"""

from typing import Annotated, Any, Final, Literal

from msgspec import Meta

from muster import limits
from muster.errors import Forged
from muster.fleet.document import Contents, Document, Form, check_fleet
from muster.fleet.name import Hex16, Hex32, Milliseconds
from muster.fleet.record import MachineRecord, open_record
from muster.log.keys import Signer
from muster.log.stream import FleetId

To = Annotated[str, Meta(max_length=2 * limits.NAME_CHARS_MAX + 1)]


class Said(Contents, frozen=True):
    """What a machine of one fleet says to one of another: `fleet` is the one that it is for, `door`
    the machine there, `of` the one that `by` is a machine of.
    """

    by: Hex32
    door: Hex32
    issued_ms: Milliseconds
    nonce: Hex16
    of: Hex32


class Letter(Said, frozen=True):
    """`to` is whom it is for there."""

    text: Annotated[str, Meta(min_length=1, max_length=limits.PEER_TEXT_BYTES_MAX)]
    to: To
    v: Literal[1] = 1


class Receipt(Contents, frozen=True):
    """`fleet` is the one that sent the letter, `of` the one whose door it went through."""

    door: Hex32
    letter: Hex32
    of: Hex32
    v: Literal[1] = 1


_LETTER: Final = Form("muster/letter/v1", Letter, "The letter", limits.PEER_LETTER_BYTES_MAX)
_RECEIPT: Final = Form("muster/letter-receipt/v1", Receipt, "The receipt")


def sign_letter(signer: Signer, letter: Letter) -> bytes:
    """The letter, signed by its sender's `statement` key. Raises: Malformed for no such letter."""
    raw = _LETTER.write(letter, signer)
    letter_of(raw, letter.fleet)
    return raw


def letter_of(raw: bytes, fleet: str) -> Letter:
    """What a letter for this fleet says, whoever signed it; for one that we signed ourselves."""
    return _LETTER.read(raw, fleet).value


def open_letter(raw: bytes, record: bytes, fleet: str) -> tuple[Letter, MachineRecord]:
    """A letter for `fleet` and the machine that signed it. Raises: Forged, Malformed."""
    document = _LETTER.read(raw, fleet)
    return document.value, sender_of(document, record, fleet)


def sender_of(document: Document[Any], record: bytes, fleet: str) -> MachineRecord:
    """The machine of another fleet than this one that signed what it says. Raises: Forged,
    Malformed.
    """
    said = document.value
    sender = machine_in(record, said.of, said.by)
    if said.of == fleet:
        raise Forged("It is from a machine of this fleet, which has other ways to speak.")
    document.check(sender.keys["statement"])
    return sender


def sign_receipt(signer: Signer, *, fleet: str, door: str, letter: str, of: str) -> bytes:
    """The receipt of a door for a letter of `fleet`, signed by its `held` key."""
    return _RECEIPT.write(Receipt(fleet, door, letter, of), signer)


def open_receipt(raw: bytes, record: bytes, *, fleet: str, letter: str, of: str, door: str) -> None:
    """Check the receipt for a letter of `fleet`, by this door of the fleet `of`.

    Raises: Forged, Malformed.
    """
    document = _RECEIPT.read(raw, fleet)
    receipt = document.value
    check_fleet(receipt.of, of, "The receipt")
    if (receipt.letter, receipt.door) != (letter, door):
        raise Forged("The receipt is for another letter, or from another door.")
    document.check(machine_in(record, of, door).keys["held"])


def machine_in(record: bytes, fleet: str, machine: str) -> MachineRecord:
    """The machine of this id, by the word of its fleet's authority. Raises: Forged, Malformed."""
    found = open_record(record, FleetId(fleet))
    if found.machine != machine:
        raise Forged("The record beside it is of another machine.")
    return found
