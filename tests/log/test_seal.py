"""Seals and cosigns: one spelling, one key, one fleet, one meaning."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.log.material import (
    BUILD,
    FLEET_ID,
    HELD,
    OTHER_FLEET,
    SEAL,
    SEEN,
    STREAM,
    STUDIO,
    entries,
    root,
    sealed,
)
from tests.promise import proves

from muster.errors import Forged, Malformed, Refused
from muster.log import keys, note, seal
from muster.log.keys import Signer
from muster.log.stream import FleetId
from muster.log.tree import EMPTY_ROOT

FIVE = entries(5)
ROOT = root(FIVE)
SEALED = sealed(FIVE)
KEYS = {"seen": SEEN, "held": HELD}


def cosigned(strength: seal.Strength, signer: Signer | None = None) -> seal.Cosign:
    return seal.make_cosign(
        FLEET_ID, STREAM, 5, ROOT, BUILD, strength, signer or KEYS[strength], 1_790_000_000
    )


def opened(
    raw: bytes, *, seen: bytes = SEEN.public, held: bytes = HELD.public, fleet: FleetId = FLEET_ID
) -> seal.Cosign:
    return seal.open_cosign(raw, fleet, seen=seen, held=held)


BOTH = {each: cosigned(each) for each in ("seen", "held")}


@proves("log.seal-checkpoint")
def test_a_seal_is_a_checkpoint_that_a_signed_note_reader_verifies():
    parsed = note.parse(SEALED.note)
    origin = f"muster/{FLEET_ID}/{STREAM}"
    assert parsed.text.split("\n")[:2] == [origin, "5"]
    line = parsed.signatures[0]
    assert line.name == origin
    assert keys.verify(SEAL.public, parsed.text.encode(), line.data)


@proves("log.seal-checkpoint")
def test_a_seal_opens_to_what_was_sealed():
    assert seal.open_seal(SEALED.note, FLEET_ID, SEAL.public) == SEALED
    assert seal.peek_stream(SEALED.note) == STREAM
    empty = seal.make_seal(FLEET_ID, STREAM, 0, EMPTY_ROOT, SEAL)
    assert seal.open_seal(empty.note, FLEET_ID, SEAL.public).size == 0


@proves("log.seal-refuses")
def test_a_seal_by_another_key_or_of_another_fleet_is_forged():
    with pytest.raises(Forged):
        seal.open_seal(SEALED.note, FLEET_ID, HELD.public)
    with pytest.raises(Forged, match="belongs to the fleet"):
        seal.open_seal(SEALED.note, OTHER_FLEET, SEAL.public)


@proves("log.seal-refuses")
@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"\n5\n", b"\n6\n"),
        (b"\n5\n", b"\n05\n"),
        (b"\n5\n", b"\n+5\n"),
        (b"\n5\n", "\n٥\n".encode()),
        (b"\n5\n", b"\n1099511627777\n"),
        (b"\n5\n", b"\n0\n"),
        (b"\n5\n", b"\n5\nextension\n"),
        (b"\n\n", b"\n\n\n"),
        (b"muster/", b"mister/"),
        (b"/fleet", b"/journal"),
        (b"/fleet ", b"/journal "),
    ],
)
def test_a_seal_with_a_changed_or_respelled_line_is_refused(old, new):
    changed = (
        SEALED.note.replace(old, new, 1) if old != b"/fleet " else SEALED.note.replace(old, new)
    )
    assert changed != SEALED.note
    with pytest.raises(Refused):
        seal.open_seal(changed, FLEET_ID, SEAL.public)


@proves("log.seal-refuses")
def test_a_seal_with_a_second_signature_line_is_refused():
    # It would verify, but one seal must not have two spellings.
    line = SEALED.note.split(b"\n\n")[1]
    with pytest.raises(Malformed):
        seal.open_seal(SEALED.note + line, FLEET_ID, SEAL.public)


@proves("log.seal-refuses")
def test_an_impossible_head_is_never_sealed():
    for size, head in ((0, ROOT), (5, EMPTY_ROOT), (-1, ROOT), (2**40 + 1, ROOT), (5, b"short")):
        with pytest.raises(Malformed):
            seal.make_seal(FLEET_ID, STREAM, size, head, SEAL)


@proves("log.seal-refuses", "log.cosign-refuses")
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_is_refused(place, change):
    for raw in (SEALED.note, BOTH["seen"].note, BOTH["held"].note):
        changed = bytearray(raw)
        changed[place % len(changed)] ^= change
        with pytest.raises(Refused):
            if raw is SEALED.note:
                seal.open_seal(bytes(changed), FLEET_ID, SEAL.public)
            else:
                assert opened(bytes(changed)).machine == BUILD


@proves("log.seal-refuses")
@given(st.binary(max_size=300))
def test_arbitrary_bytes_raise_nothing_but_a_refusal(raw):
    for read in (
        lambda: seal.open_seal(raw, FLEET_ID, SEAL.public),
        lambda: opened(raw),
        lambda: seal.peek_stream(raw),
        lambda: seal.peek_cosigner(raw),
    ):
        with pytest.raises(Refused):
            read()


@proves("log.cosign-round-trip")
@pytest.mark.parametrize("strength", ["seen", "held"])
def test_a_cosign_opens_to_what_was_cosigned(strength):
    it = BOTH[strength]
    assert opened(it.note) == it
    assert (seal.peek_stream(it.note), seal.peek_cosigner(it.note)) == (STREAM, BUILD)
    # The checkpoint in it is the seal's, byte for byte.
    assert note.parse(it.note).text == note.parse(SEALED.note).text


@proves("log.cosign-round-trip")
def test_seen_is_a_tlog_cosignature_byte_for_byte():
    parsed = note.parse(BOTH["seen"].note)
    line = parsed.signatures[0]
    assert line.key_id == note.key_id(f"muster/{BUILD}", b"\x04", SEEN.public)
    message = b"cosignature/v1\ntime 1790000000\n" + parsed.text.encode()
    assert line.data == (1_790_000_000).to_bytes(8, "big") + SEEN.sign(message)


@proves("log.cosign-strengths-apart")
def test_a_witness_cannot_be_passed_off_as_a_receipt():
    seen = note.parse(BOTH["seen"].note)
    line = seen.signatures[0]
    # The attacker relabels the line as held; the signature is over another first line.
    held_id = note.key_id(line.name, note.TYPE_HELD, SEEN.public)
    relabelled = note.encode(note.Note(seen.text, (line._replace(key_id=held_id),)))
    with pytest.raises(Forged, match="does not hold"):
        opened(relabelled, held=SEEN.public)
    with pytest.raises(Forged, match="another key"):
        opened(BOTH["seen"].note, seen=SEAL.public, held=SEEN.public)
    with pytest.raises(Forged, match="another key"):
        opened(BOTH["seen"].note, seen=HELD.public)


@proves("log.cosign-strengths-apart")
def test_a_strength_under_the_other_strengths_key_is_forged():
    crossed = cosigned("held", SEEN)
    with pytest.raises(Forged):
        opened(crossed.note)


@proves("log.cosign-refuses")
def test_a_cosign_with_another_time_or_machine_is_forged():
    parsed = note.parse(BOTH["held"].note)
    line = parsed.signatures[0]
    later = line._replace(data=(1_790_000_001).to_bytes(8, "big") + line.data[8:])
    renamed = line._replace(name=f"muster/{STUDIO}")
    for wrong in (later, renamed):
        with pytest.raises(Forged):
            opened(note.encode(note.Note(parsed.text, (wrong,))))
    with pytest.raises(Forged):
        opened(BOTH["held"].note, fleet=OTHER_FLEET)


@proves("log.cosign-refuses")
def test_a_seal_is_no_cosign_and_a_cosign_no_seal():
    with pytest.raises(Refused):
        opened(SEALED.note, seen=SEAL.public, held=SEAL.public)
    with pytest.raises(Refused):
        seal.open_seal(BOTH["seen"].note, FLEET_ID, SEEN.public)


@proves("log.cosign-refuses")
def test_an_impossible_time_is_not_signed():
    for time_s in (-1, 2**53):
        with pytest.raises(Malformed):
            seal.make_cosign(FLEET_ID, STREAM, 5, ROOT, BUILD, "seen", SEEN, time_s)


@proves("log.seal-refuses")
def test_a_longer_spelling_that_the_writer_itself_signed_is_refused():
    text = note.parse(SEALED.note).text
    origin, size, head = text.splitlines()
    # The character before the padding carries two spare bits.
    spare = head[:-2] + chr(ord(head[-2]) + 1) + "="
    for respelled in (f"{origin}\n0{size}\n{head}\n", f"{origin}\n{size}\n{spare}\n"):
        signed = note.sign(respelled, origin, SEAL)
        with pytest.raises(Malformed, match="shortest"):
            seal.open_seal(signed, FLEET_ID, SEAL.public)
