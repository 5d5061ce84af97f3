"""Letters between two fleets and their receipts: what each is good for, and everything else."""

from typing import Any

import pytest
from tests.fleet.world import AUTHORITY, BUILD, BUILD_RECORD, FLEET_ID, NOW, OTHER_AUTHORITY, record
from tests.promise import proves

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.document import document_id
from muster.fleet.letter import (
    Letter,
    Receipt,
    letter_of,
    open_letter,
    open_receipt,
    sign_letter,
    sign_receipt,
)
from muster.fleet.machine import Identity
from muster.log import canon

ACME = OTHER_AUTHORITY.fleet
YARD, SHED = Identity(b"yard".ljust(32)), Identity(b"shed".ljust(32))
YARD_RECORD = record(YARD, "yard", authority=OTHER_AUTHORITY)
SHED_RECORD = record(SHED, "shed", authority=OTHER_AUTHORITY)


def said(**changes: Any) -> Letter:
    """A letter from acme's yard to the studio of this fleet, through the build machine."""
    fields: dict[str, Any] = {
        "fleet": FLEET_ID,
        "by": YARD.machine,
        "door": BUILD.machine,
        "issued_ms": NOW,
        "nonce": "0" * 32,
        "of": ACME,
        "text": "hello",
        "to": "studio",
    }
    return Letter(**{**fields, **changes})


def written(signer: Any = YARD, purpose: str = "statement", **changes: Any) -> bytes:
    """The same without a look at what it says, as a stranger writes it."""
    message = b"muster/letter/v1\n" + canon.encode(said(**changes))
    return message + b"\n" + signer.signer(purpose).sign(message).hex().encode() + b"\n"


def bent(raw: bytes) -> bytes:
    """The same document, one digit of its signature another."""
    return raw[:-60] + (b"1" if raw[-60:-59] == b"0" else b"0") + raw[-59:]


GOOD = sign_letter(YARD.signer("statement"), said())


@proves("peer.forged-refused")
def test_a_letter_is_read_with_the_machine_that_signed_it():
    assert open_letter(GOOD, YARD_RECORD.raw, FLEET_ID) == (said(), YARD_RECORD)
    assert letter_of(GOOD, FLEET_ID) == said()
    assert written() == GOOD


@proves("peer.forged-refused")
def test_what_people_of_any_tongue_write_comes_as_it_was_written():
    text = 'Grüße, "世界"\n\\ \x00 \u202e 👩‍🚀'
    raw = sign_letter(YARD.signer("statement"), said(text=text, to="claude@studio"))
    letter, _ = open_letter(raw, YARD_RECORD.raw, FLEET_ID)
    assert (letter.text, letter.to) == (text, "claude@studio")


@pytest.mark.parametrize(
    ("raw", "beside", "sentence"),
    [
        (written(SHED), YARD_RECORD, "not signed by the key it needs"),
        (written(purpose="held"), YARD_RECORD, "not signed by the key it needs"),
        (GOOD.replace(b'"hello"', b'"hullo"'), YARD_RECORD, "not signed by the key it needs"),
        (bent(GOOD), YARD_RECORD, "not signed by the key it needs"),
        (GOOD, SHED_RECORD, "record beside it is of another machine"),
        (written(by=SHED.machine), YARD_RECORD, "record beside it is of another machine"),
        (GOOD, record(YARD, "yard"), "belongs to another fleet"),
        (written(of=FLEET_ID), YARD_RECORD, "belongs to another fleet"),
        (written(fleet=ACME), YARD_RECORD, "belongs to another fleet"),
    ],
)
@proves("peer.forged-refused")
def test_a_letter_that_its_sender_did_not_write_so_is_forged(
    raw: bytes, beside: Any, sentence: str
):
    with pytest.raises(Forged, match=sentence):
        open_letter(raw, beside.raw, FLEET_ID)


@proves("peer.forged-refused")
def test_a_record_that_the_other_authority_did_not_sign_vouches_for_nobody():
    raw = YARD_RECORD.raw
    for beside in (raw.replace(b'"serial":1', b'"serial":2'), bent(raw)):
        assert beside != raw
        with pytest.raises(Forged):
            open_letter(GOOD, beside, FLEET_ID)
    for beside in (b"", b"\xff" * 40, raw[:-1], GOOD, raw + b" " * limits.RECORD_BYTES_MAX):
        with pytest.raises(Malformed):
            open_letter(GOOD, beside, FLEET_ID)


@proves("peer.forged-refused")
def test_a_machine_of_this_fleet_sends_it_no_letter_of_another():
    raw = written(BUILD, by=BUILD.machine, of=FLEET_ID)
    with pytest.raises(Forged, match="has other ways to speak"):
        open_letter(raw, BUILD_RECORD.raw, FLEET_ID)


@pytest.mark.parametrize(
    "changes",
    [
        {"text": ""},
        {"text": "x" * (limits.PEER_TEXT_BYTES_MAX + 1)},
        {"to": "x" * (2 * limits.NAME_CHARS_MAX + 2)},
        {"by": "yard"},
        {"door": BUILD.machine.upper()},
        {"nonce": "0" * 31},
        {"of": ""},
        {"issued_ms": -1},
        {"issued_ms": limits.INT_ABS_MAX + 1},
        {"text": None},
        {"v": 2},
    ],
    ids=str,
)
@proves("peer.forged-refused", "peer.letter-readable")
def test_a_letter_of_other_fields_is_neither_read_nor_signed(changes: dict[str, Any]):
    with pytest.raises(Malformed):
        open_letter(written(**changes), YARD_RECORD.raw, FLEET_ID)
    with pytest.raises(Malformed):
        sign_letter(YARD.signer("statement"), said(**changes))


@proves("peer.letter-readable")
def test_the_longest_letter_of_the_widest_signs_is_read_and_one_byte_over_its_bound_is_not_parsed():
    raw = sign_letter(YARD.signer("statement"), said(text="\x00" * limits.PEER_TEXT_BYTES_MAX))
    assert len(open_letter(raw, YARD_RECORD.raw, FLEET_ID)[0].text) == limits.PEER_TEXT_BYTES_MAX
    over = b"[" * (limits.PEER_LETTER_BYTES_MAX + 1)
    with pytest.raises(Malformed, match=f"at most {limits.PEER_LETTER_BYTES_MAX} are read"):
        open_letter(over, YARD_RECORD.raw, FLEET_ID)


# --- receipts -----------------------------------------------------------------------------------

LETTER = document_id(GOOD)


def receipt(signer: Any = BUILD, purpose: str = "held", **changes: str) -> bytes:
    """Of the build machine, a door of this fleet, for acme's letter."""
    whose = {"fleet": ACME, "door": BUILD.machine, "letter": LETTER, "of": FLEET_ID, **changes}
    return sign_receipt(signer.signer(purpose), **whose)


def settle(raw: bytes, beside: bytes = BUILD_RECORD.raw, **changes: str) -> None:
    whose = {"fleet": ACME, "letter": LETTER, "of": FLEET_ID, "door": BUILD.machine, **changes}
    open_receipt(raw, beside, **whose)


@proves("peer.letter-settles-by-receipt")
def test_the_doors_own_receipt_settles_the_letter_of_its_hash():
    settle(receipt())


@pytest.mark.parametrize(
    ("raw", "changes", "sentence"),
    [
        (receipt(YARD), {}, "not signed by the key it needs"),
        (receipt(purpose="statement"), {}, "not signed by the key it needs"),
        (bent(receipt()), {}, "not signed by the key it needs"),
        (receipt(letter="0" * 64), {}, "another letter, or from another door"),
        (receipt(), {"letter": "0" * 64}, "another letter, or from another door"),
        (receipt(door=YARD.machine), {}, "another letter, or from another door"),
        (receipt(), {"door": YARD.machine}, "another letter, or from another door"),
        (receipt(of=ACME), {}, "belongs to another fleet"),
        (receipt(), {"of": ACME}, "belongs to another fleet"),
        (receipt(fleet=FLEET_ID), {}, "belongs to another fleet"),
        (receipt(), {"fleet": FLEET_ID}, "belongs to another fleet"),
        (receipt(), {"beside": YARD_RECORD.raw}, "belongs to another fleet"),
        (receipt(), {"beside": record(YARD, "build").raw}, "of another machine"),
        (receipt(), {"beside": record(BUILD, "build", authority=OTHER_AUTHORITY).raw}, "another"),
    ],
)
@proves("peer.letter-settles-by-receipt", "peer.forged-refused")
def test_no_other_receipt_settles_it(raw: bytes, changes: Any, sentence: str):
    with pytest.raises(Forged, match=sentence):
        settle(raw, **changes)


@proves("peer.letter-settles-by-receipt", "peer.forged-refused")
def test_a_letter_is_no_receipt_and_a_receipt_no_letter():
    with pytest.raises(Malformed, match="should begin with 'muster/letter-receipt/v1'"):
        settle(GOOD)
    with pytest.raises(Malformed, match="should begin with 'muster/letter/v1'"):
        open_letter(receipt(), BUILD_RECORD.raw, ACME)
    # Neither does the key's signature over the same contents count under the other's first line.
    contents = canon.encode(Receipt(ACME, BUILD.machine, LETTER, FLEET_ID))
    signature = BUILD.signer("held").sign(b"muster/held/v1\n" + contents).hex().encode()
    with pytest.raises(Forged, match="not signed by the key it needs"):
        settle(b"muster/letter-receipt/v1\n" + contents + b"\n" + signature + b"\n")


@pytest.mark.parametrize("raw", [b"", b"\n\n\n", receipt()[:-1], receipt() * 2, b"\xff" * 300])
@proves("peer.letter-settles-by-receipt", "peer.forged-refused")
def test_a_receipt_that_is_cut_or_no_receipt_at_all_settles_nothing(raw: bytes):
    with pytest.raises(Malformed):
        settle(raw)
    with pytest.raises(Malformed, match="are read"):
        settle(receipt().ljust(limits.RECORD_BYTES_MAX + 1))


@proves("peer.forged-refused")
def test_a_receipt_of_a_machine_that_another_authority_enrolled_settles_nothing():
    assert AUTHORITY.fleet == FLEET_ID
    imposter = record(BUILD, "build", authority=OTHER_AUTHORITY)
    with pytest.raises(Forged):
        settle(receipt(), imposter.raw)
