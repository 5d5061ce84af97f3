"""Ed25519: signing, and every way a signature does not hold."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.promise import proves

from muster.log.keys import Signer, agree, agreement_key, verify

SIGNER = Signer(bytes(32))


@proves("log.keys-rfc8032")
def test_the_signature_is_that_of_rfc_8032_test_2():
    seed = bytes.fromhex("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb")
    signer = Signer(seed)
    assert signer.public.hex() == "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c"
    assert signer.sign(b"\x72").hex() == (
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da"
        "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
    )


@proves("log.keys-refuse")
@given(st.binary(max_size=64), st.integers(0, 511))
def test_a_signature_with_one_changed_bit_does_not_hold(message, bit):
    signature = bytearray(SIGNER.sign(message))
    assert verify(SIGNER.public, message, bytes(signature))
    signature[bit // 8] ^= 1 << bit % 8
    assert not verify(SIGNER.public, message, bytes(signature))


@proves("log.keys-refuse")
def test_another_message_or_key_does_not_hold():
    signature = SIGNER.sign(b"yes")
    assert not verify(SIGNER.public, b"no", signature)
    assert not verify(Signer(b"x" * 32).public, b"yes", signature)


@proves("log.keys-refuse")
@pytest.mark.parametrize("size", [0, 31, 33, 63, 65, 128])
def test_wrong_lengths_are_false_and_not_an_error(size):
    signature = SIGNER.sign(b"yes")
    assert not verify(SIGNER.public, b"yes", bytes(size))
    assert not verify(bytes(size), b"yes", signature)


@proves("log.keys-refuse")
def test_the_all_zero_key_verifies_nothing():
    # A small-order key would let one signature hold for many messages.
    assert not verify(bytes(32), b"yes", bytes(64))


@proves("log.keys-silent")
def test_a_signer_does_not_show_its_seed():
    seed = bytes(range(32))
    assert seed.hex() not in repr(Signer(seed))
    assert repr(seed) not in repr(Signer(seed))


@proves("log.keys-refuse")
def test_two_keys_agree_on_what_both_know_and_on_nothing_with_a_point_that_gives_it_away():
    mine, theirs, third = (bytes([n]) * 32 for n in (1, 2, 3))
    shared = agree(mine, agreement_key(theirs))
    assert shared is not None
    assert len(shared) == 32
    assert agree(theirs, agreement_key(mine)) == shared
    assert agree(third, agreement_key(mine)) not in (None, shared)
    # Points of small order, with which the outcome would be the same for everybody.
    weak = ["00" * 32, f"01{'00' * 31}", f"ec{'ff' * 30}7f", f"ed{'ff' * 30}7f", f"ee{'ff' * 30}7f"]
    weak += ["e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"]
    for point in weak:
        assert agree(mine, bytes.fromhex(point)) is None
    for public in (b"", bytes(31), agreement_key(mine) + b"\x00"):
        assert agree(mine, public) is None
