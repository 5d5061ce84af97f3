"""Seeds, sub-keys, and the documents by which machines and operators are known."""

import copy
import hmac
import pickle  # noqa: TID251 - to prove that a secret refuses it

import pytest
from tests.fleet.world import (
    ALICE,
    AUTHORITY,
    BUILD,
    FLEET_ID,
    LAPTOP,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
    operator,
    record,
    revocation,
    stream,
)
from tests.promise import proves

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet import record as records
from muster.fleet.derive import PURPOSES, derive_key
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.name import check_name, check_word
from muster.log.keys import Signer, verify
from muster.log.stream import StreamName, scope_group


def hkdf(seed: bytes, info: bytes) -> bytes:
    """RFC 5869 written out, so that the derivation is checked against the text and not a library."""
    key = hmac.digest(b"muster/v1", seed, "sha256")
    return hmac.digest(key, info + b"\x01", "sha256")


@proves("fleet.sub-keys")
def test_a_sub_key_is_hkdf_of_the_seed_under_its_purpose():
    for purpose in PURPOSES:
        assert derive_key(b"s" * 32, purpose) == hkdf(b"s" * 32, purpose.encode() + b"/v1")


@proves("fleet.sub-keys")
def test_no_two_purposes_share_a_key_and_none_is_the_root():
    keys = STUDIO.keys
    assert tuple(keys) == PURPOSES
    assert len({STUDIO.machine, *keys.values()}) == len(PURPOSES) + 1
    assert STUDIO.signer("seal").public.hex() == keys["seal"]
    assert not set(keys.values()) & set(BUILD.keys.values())


@proves("fleet.sub-keys")
def test_a_seed_of_another_length_is_refused():
    with pytest.raises(Malformed, match="32 bytes"):
        Identity(b"short")


@pytest.mark.parametrize("holder", [STUDIO, AUTHORITY, ALICE])
@proves("fleet.secrets-stay-inside")
def test_a_holder_of_a_seed_shows_only_its_public_id(holder: Identity | Authority | Operator):
    assert holder._seed.hex() not in repr(holder)
    assert "studio" not in repr(holder)
    for leak in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="never serialised"):
            leak(holder)


@proves("fleet.record-two-signatures")
def test_a_record_holds_what_the_machine_and_the_authority_said():
    assert STUDIO_RECORD.machine == STUDIO.machine
    assert STUDIO_RECORD.name == "studio"
    assert STUDIO_RECORD.keys == STUDIO.keys
    assert STUDIO_RECORD.roles == ("hub",)
    assert STUDIO_RECORD.serial == 1
    assert records.binding_of(STUDIO_RECORD) == records.sign_binding(STUDIO, FLEET_ID, "studio")


@proves("fleet.record-two-signatures")
def test_a_record_signed_by_another_authority_is_refused():
    lines = STUDIO_RECORD.raw.split(b"\n")
    message = b"\n".join(lines[:2])
    forged = message + b"\n" + OTHER_AUTHORITY.record.sign(message).hex().encode() + b"\n"
    with pytest.raises(Forged, match="not signed by the key it needs"):
        records.open_record(forged, FLEET_ID)


@proves("fleet.record-two-signatures")
def test_the_authority_cannot_enrol_a_key_whose_holder_did_not_sign():
    body = records.Binding(fleet=FLEET_ID, keys=LAPTOP.keys, machine=LAPTOP.machine, name="laptop")
    forged = records._BINDING.write(body, BUILD.root)
    with pytest.raises(Forged):
        records.sign_record(AUTHORITY, forged, roles=(), serial=1, issued_ms=NOW)
    wrapped = records._RecordBody(
        binding=forged.decode(), fleet=FLEET_ID, issued_ms=NOW, roles=(), serial=1
    )
    with pytest.raises(Forged, match="binding"):
        records.open_record(records._RECORD.write(wrapped, AUTHORITY.record), FLEET_ID)


@proves("fleet.record-two-signatures")
def test_a_single_changed_byte_anywhere_in_a_record_is_refused():
    raw = STUDIO_RECORD.raw
    for at in range(0, len(raw), 7):
        changed = raw[:at] + bytes([raw[at] ^ 1]) + raw[at + 1 :]
        with pytest.raises((Forged, Malformed)):
            records.open_record(changed, FLEET_ID)


@proves("fleet.sub-keys")
def test_a_binding_that_uses_one_key_twice_is_refused():
    keys = {**STUDIO.keys, "git": STUDIO.keys["ssh"]}
    body = records.Binding(fleet=FLEET_ID, keys=keys, machine=STUDIO.machine, name="studio")
    with pytest.raises(Forged, match="one key for two purposes"):
        records.open_binding(records._BINDING.write(body, STUDIO.root), FLEET_ID)


@proves("fleet.sub-keys")
def test_a_binding_that_leaves_a_purpose_out_is_refused():
    keys = {p: k for p, k in STUDIO.keys.items() if p != "git"}
    body = records.Binding(fleet=FLEET_ID, keys=keys, machine=STUDIO.machine, name="studio")
    with pytest.raises(Malformed, match="one key for each"):
        records.open_binding(records._BINDING.write(body, STUDIO.root), FLEET_ID)


@proves("fleet.other-fleet")
def test_documents_of_another_fleet_are_refused():
    theirs = record(STUDIO, "studio", authority=OTHER_AUTHORITY)
    for opened, raw in (
        (records.open_record, theirs.raw),
        (records.open_binding, records.binding_of(theirs)),
        (records.open_operator, operator(ALICE, "alice", OTHER_AUTHORITY)),
        (records.open_revocation, revocation(LAPTOP, authority=OTHER_AUTHORITY).encode()),
    ):
        with pytest.raises(Forged, match="another fleet"):
            opened(raw, FLEET_ID)


@proves("fleet.other-fleet")
def test_a_binding_of_another_fleet_cannot_be_wrapped_into_a_record():
    with pytest.raises(Forged, match="another fleet"):
        records.sign_record(
            AUTHORITY,
            records.sign_binding(STUDIO, OTHER_AUTHORITY.fleet, "studio"),
            roles=(),
            serial=1,
            issued_ms=NOW,
        )


@proves("fleet.one-kind")
def test_a_document_relabelled_as_another_kind_is_refused():
    raw = operator(ALICE, "alice")
    relabelled = raw.replace(b"muster/operator/v1", b"muster/operator/v2", 1)
    with pytest.raises(Malformed, match="should begin with"):
        records.open_operator(relabelled, FLEET_ID)
    document = records._OPERATOR._replace(kind="muster/operator/v2").read(relabelled, FLEET_ID)
    with pytest.raises(Forged):
        document.check(FLEET_ID)


@proves("fleet.one-kind")
def test_every_signature_covers_the_kind_of_its_document():
    raw = operator(ALICE, "alice")
    kind, body, signature = raw.split(b"\n")[:3]
    public = AUTHORITY.record.public
    assert verify(public, kind + b"\n" + body, bytes.fromhex(signature.decode()))
    assert not verify(public, body, bytes.fromhex(signature.decode()))


@pytest.mark.parametrize(
    "name",
    [
        "",
        ".",
        "..",
        "../etc",
        "a/b",
        "a\\b",
        "A",
        "stüdio",
        "a b",
        "a\n",
        "-a",
        "a-",
        "a" * 64,
        "a\0",
    ],
)
@proves("fleet.names")
def test_a_name_that_could_be_a_path_is_refused(name: str):
    with pytest.raises(Malformed):
        check_name(name, "The machine name")
    with pytest.raises(Malformed):
        records.sign_binding(STUDIO, FLEET_ID, name)
    body = records.Binding(fleet=FLEET_ID, keys=STUDIO.keys, machine=STUDIO.machine, name=name)
    with pytest.raises(Malformed):
        records.open_binding(records._BINDING.write(body, STUDIO.root), FLEET_ID)


@proves("fleet.names")
def test_a_name_that_means_something_else_is_refused():
    with pytest.raises(Malformed, match="another meaning"):
        records.sign_binding(STUDIO, FLEET_ID, "all")


@proves("fleet.tombstone")
def test_a_revocation_names_only_streams_of_its_own_key():
    with pytest.raises(Malformed, match="never wrote"):
        revocation(LAPTOP, cuts={str(stream(BUILD)): 3})
    good = records.open_revocation(
        revocation(LAPTOP, cuts={str(stream(LAPTOP)): 3}).encode(), FLEET_ID
    )
    assert good.cuts == {str(stream(LAPTOP)): 3}
    assert isinstance(stream(LAPTOP), StreamName)


@proves("fleet.tombstone")
def test_a_revocation_by_an_operator_key_is_refused():
    raw = revocation(LAPTOP).encode()
    message = raw.rsplit(b"\n", 2)[0]
    forged = message + b"\n" + ALICE.statement.sign(message).hex().encode() + b"\n"
    with pytest.raises(Forged):
        records.open_revocation(forged, FLEET_ID)


@proves("fleet.record-two-signatures")
def test_an_operator_is_known_by_the_authoritys_word():
    known = records.open_operator(operator(ALICE, "alice"), FLEET_ID)
    assert (known.operator, known.name) == (ALICE.key, "alice")
    assert Signer(derive_key(b"alice".ljust(32), "statement")).public.hex() == ALICE.key


@proves("fleet.revocation-bounded")
def test_a_revocation_names_the_streams_that_were_known_first_as_far_as_there_is_room():
    what = {
        "of": "machine", "key": LAPTOP.machine, "name": "laptop", "issued_ms": NOW,
        "reason": "\u0001\U0001f5dd" * (limits.REVOCATION_REASON_CHARS_MAX // 2),
    }  # fmt: skip
    scope = scope_group(LAPTOP.machine, "x" * 32)
    for count in (0, 1, 5, 2_000):
        sizes = [(stream(LAPTOP, scope, n), n % 3 and 2**40) for n in range(count)]
        cuts = records.fitting_cuts(AUTHORITY, sizes, **what)
        raw = records.sign_revocation(AUTHORITY, cuts=cuts, **what)
        assert len(raw) <= limits.REVOCATION_BYTES_MAX
        assert records.open_revocation(raw, FLEET_ID).cuts == cuts
        # What counts up to nothing need not be named.
        named = [str(each) for each, size in sizes if size]
        assert list(cuts) == named[: len(cuts)]
        assert len(cuts) == len(named) or limits.REVOCATION_BYTES_MAX - len(raw) < 300


@proves("fleet.names")
def test_a_word_of_an_order_stands_in_one_line_and_a_name_means_one_thing():
    for word in ("run", "schedule.set", "notes/1", "*", "x" * 200, "!~"):
        assert check_word(word, "The verb") == word
    for word in ("", "a b", "a\n", "ä", "x" * 201, "a\x7f", "\x00"):
        with pytest.raises(Malformed, match=r"^The verb .* is none that anything can have"):
            check_word(word, "The verb")
    for name in ("all", "any", "fleet", "journal", "muster", "op"):
        with pytest.raises(Malformed, match="has another meaning in Muster"):
            check_name(name, "The machine")
    for name in ("a", "a-b", "0", "x" * 63):
        assert check_name(name, "The machine") == name
    for name in ("", "-a", "a-", "A", "a.b", "a/b", "x" * 64, "a\n"):
        with pytest.raises(Malformed, match="is not a name"):
            check_name(name, "The machine")
