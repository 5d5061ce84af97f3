"""Sealing: age for one receiver, and what is refused before it costs anything."""

import random

import pytest
from tests.promise import proves

from muster.errors import Forged, Malformed
from muster.fleet.machine import Identity

pyrage = pytest.importorskip("pyrage", reason="pip install 'muster-fleet[sealed]'")
from muster.channel import sealed  # noqa: E402 - it stands on the extra

OURS, OTHER = Identity(b"1" * 32), Identity(b"2" * 32)
PUBLIC = bytes.fromhex(OURS.keys["age"])
SECRET = OURS.secret("age")


def their_identity():
    return pyrage.x25519.Identity.from_str(sealed._bech32("age-secret-key-", SECRET).upper())


@proves("channel.sealed-age")
@pytest.mark.parametrize("size", [0, 1, 1000, 65536, 1_000_000])
def test_any_age_program_opens_ours_and_ours_opens_theirs(size: int):
    raw = random.Random(size).randbytes(size)
    assert pyrage.decrypt(sealed.seal(raw, PUBLIC), [their_identity()]) == raw
    recipient = their_identity().to_public()
    assert str(recipient) == sealed._bech32("age", PUBLIC)
    assert sealed.open_sealed(pyrage.encrypt(raw, [recipient]), SECRET) == raw


@proves("channel.sealed-age")
def test_keys_are_spelled_as_bip_173_says():
    # The vector of the age specification's own test suite is a key of pyrage itself.
    made = pyrage.x25519.Identity.generate()
    assert str(made).startswith("AGE-SECRET-KEY-1")
    assert sealed._bech32("a", b"") == "a12uel5l"


@proves("channel.sealed-header")
def test_what_we_seal_is_never_longer_than_what_we_read():
    # age adds a stanza of noise, of a size that it draws.
    for _ in range(300):
        assert sealed.open_sealed(sealed.seal(b"x", PUBLIC), SECRET) == b"x"


@proves("channel.sealed-for-one")
def test_nobody_else_opens_it_and_nobody_opens_what_was_changed():
    packet = sealed.seal(b"secret" * 100, PUBLIC)
    with pytest.raises(Forged):
        sealed.open_sealed(packet, OTHER.secret("age"))
    assert b"secret" not in packet
    rng = random.Random(3)
    for _ in range(500):
        at = rng.randrange(len(packet))
        changed = packet[:at] + bytes([packet[at] ^ 1 << rng.randrange(8)]) + packet[at + 1 :]
        with pytest.raises((Forged, Malformed)):
            sealed.open_sealed(changed, SECRET)
        with pytest.raises((Forged, Malformed)):
            sealed.open_sealed(packet[:at], SECRET)


@proves("channel.sealed-header")
@pytest.mark.parametrize("count", [3, 10_000])
def test_many_stanzas_are_refused_before_anything_is_decrypted(monkeypatch, count: int):
    packet = sealed.seal(b"x", PUBLIC)
    head, rest = packet.split(b"\n", 1)
    stanza = b"-> X25519 " + b"A" * 43 + b"\n" + b"A" * 43 + b"\n"
    calls = []
    monkeypatch.setattr(sealed, "decrypt", lambda *_: calls.append(1))
    for body in (head + b"\n" + stanza * count + rest, stanza * count, b"", b"x" * 2000):
        with pytest.raises(Malformed):
            sealed.open_sealed(body, SECRET)
    assert calls == []


@proves("channel.sealed-header")
def test_nothing_is_sealed_for_a_key_with_which_nothing_would_be_secret():
    for number in sealed._SMALL_ORDER:
        for high in (0, 1 << 255):
            with pytest.raises(Malformed):
                sealed.seal(b"x", (number | high).to_bytes(32, "little"))
    for size in (0, 31, 33):
        with pytest.raises(Malformed):
            sealed.seal(b"x", b"\x09" * size)
