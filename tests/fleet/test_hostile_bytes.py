"""Whatever bytes arrive where a document of the fleet is expected, the answer is a refusal."""

import contextlib
from collections.abc import Callable
from ssl import DER_cert_to_PEM_cert, PEM_cert_to_DER_cert
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.fleet.world import (
    ADDRESS,
    ALICE,
    AUTHORITY,
    BUILD_RECORD,
    FLEET_ID,
    HOUR,
    LAPTOP,
    NONCE,
    NOW,
    STUDIO,
    STUDIO_RECORD,
    World,
    operator,
    revocation,
    small_fleet,
    stream,
)
from tests.promise import proves

from muster.errors import Malformed, Refused
from muster.fleet import kinds
from muster.fleet.capability import make_capability, read_token
from muster.fleet.certificate import hub_of, issue, open_ca, peer_of, renew_at_ms
from muster.fleet.device import open_device, read_string, sign_device, write_string
from muster.fleet.folds import LOGINS
from muster.fleet.invite import read_invite, write_invite
from muster.fleet.join import _JOIN, _Request, open_answer, open_join, renew, sign_join, sign_renew
from muster.fleet.record import (
    binding_of,
    open_binding,
    open_operator,
    open_record,
    open_revocation,
)
from muster.fleet.statement import open_statement, sign_statement
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.keys import Signer

# A library that only warns of a bent serial number today; the refusal follows anyway.
pytestmark = pytest.mark.filterwarnings("ignore:Parsed a serial number")

INVITE = read_invite(write_invite(FLEET_ID, NONCE, ADDRESS))
STATEMENT = sign_statement(
    ALICE.statement,
    fleet=FLEET_ID,
    verb="run",
    object="project",
    target="fleet",
    args={},
    nonce=NONCE,
    issued_ms=NOW,
    until_ms=NOW + HOUR,
)
PAPERS = issue(AUTHORITY, STUDIO_RECORD, NOW)
ROSTER = small_fleet().roster


def _renew(raw: bytes) -> object:
    return renew(AUTHORITY, ROSTER, raw, hub=STUDIO_RECORD, address=ADDRESS, now_ms=NOW)


def _invite(raw: bytes) -> object:
    return read_invite(raw.decode("latin-1"))


def _token(raw: bytes) -> object:
    return read_token(raw.decode("latin-1"))


DECODERS: dict[str, tuple[Callable[[bytes], object], bytes]] = {
    "binding": (lambda raw: open_binding(raw, FLEET_ID), binding_of(STUDIO_RECORD)),
    "record": (lambda raw: open_record(raw, FLEET_ID), STUDIO_RECORD.raw),
    "operator": (lambda raw: open_operator(raw, FLEET_ID), operator(ALICE, "alice")),
    "revocation": (
        lambda raw: open_revocation(raw, FLEET_ID),
        revocation(LAPTOP, cuts={str(stream(LAPTOP)): 3}).encode(),
    ),
    "statement": (lambda raw: open_statement(raw, FLEET_ID), STATEMENT),
    "device": (
        lambda raw: open_device(raw, FLEET_ID),
        sign_device(
            Signer(b"ticket".ljust(32)), Signer(b"key".ljust(32)), FLEET_ID, LAPTOP.machine
        ),
    ),
    "string": (
        lambda raw: read_string(raw.decode("latin-1")),
        write_string(FLEET_ID, bytes(32)).encode(),
    ),
    "join": (lambda raw: open_join(raw, FLEET_ID), sign_join(LAPTOP, INVITE, "laptop")),
    "renew": (
        _renew,
        sign_renew(LAPTOP, ROSTER.find("laptop"), nonce=NONCE, issued_ms=NOW),
    ),
    "answer": (
        lambda raw: open_answer(raw, STUDIO, FLEET_ID),
        b'{"address":"a:1","ca_pem":"","fleet":"","hub":"","operators":[],"record":"","tls_pem":"","v":1}',
    ),
    "invite": (_invite, write_invite(FLEET_ID, NONCE, ADDRESS).encode()),
    "capability": (
        _token,
        make_capability(bytes(32), task="t", agent="a", verbs=(), until_ms=0)[0].encode(),
    ),
    "ca": (lambda raw: open_ca(raw, FLEET_ID), PAPERS.ca_pem),
    "leaf": (renew_at_ms, PAPERS.tls_pem),
    "peer": (peer_of, b""),
    "hub": (lambda raw: hub_of(raw, FLEET_ID), PEM_cert_to_DER_cert(PAPERS.tls_pem.decode())),
}

# Bytes that were nearly right: a good document cut, doubled, changed or filled up.
EDITS = st.one_of(
    st.tuples(st.just("change"), st.integers(0, 4000), st.binary(min_size=1, max_size=3)),
    st.tuples(st.just("cut"), st.integers(0, 4000), st.just(b"")),
    st.tuples(st.just("insert"), st.integers(0, 4000), st.binary(max_size=40)),
)


def edited(raw: bytes, edit: tuple[str, int, bytes]) -> bytes:
    how, at, what = edit
    at %= len(raw) + 1
    if how == "cut":
        return raw[:at]
    return raw[:at] + what + raw[at + (len(what) if how == "change" else 0) :]


@pytest.mark.parametrize("name", DECODERS)
@proves("fleet.hostile-bytes")
@settings(max_examples=60, deadline=None)
@given(raw=st.binary(max_size=300))
def test_random_bytes_are_refused(name: str, raw: bytes):
    with contextlib.suppress(Refused):
        DECODERS[name][0](raw)
        pytest.fail(f"{raw!r} was taken for a {name}")


@pytest.mark.parametrize("name", DECODERS)
@proves("fleet.hostile-bytes")
@settings(max_examples=60, deadline=None)
@given(edit=EDITS)
def test_a_document_that_was_edited_is_refused(name: str, edit: tuple[str, int, bytes]):
    decoder, good = DECODERS[name]
    raw = edited(good, edit)
    if name in {"ca", "leaf", "invite", "capability", "string"}:
        # PEM allows other line breaks; an invite other letter case; a token another secret.
        with contextlib.suppress(Refused):
            decoder(raw)
        return
    if raw != good:
        with pytest.raises(Refused):
            decoder(raw)


@proves("fleet.hostile-bytes", "fleet.certificate-pin")
@pytest.mark.parametrize(
    "name", ["hub", "binding", "record", "operator", "revocation", "statement", "device"]
)
def test_no_single_byte_of_a_document_can_change_unnoticed(name: str):
    """Each byte in turn, so that no luck is needed to find the one that nothing covers."""
    decoder, good = DECODERS[name]
    for at, byte in enumerate(good):
        for other in {byte ^ 1, byte ^ 0x80, byte ^ 0x55}:
            with pytest.raises(Refused):
                decoder(good[:at] + bytes([other]) + good[at + 1 :])


@proves("fleet.hostile-bytes", "fleet.certificate-pin")
def test_the_fleets_certificate_is_taken_in_one_spelling_only():
    whole = PEM_cert_to_DER_cert(PAPERS.ca_pem.decode())
    assert open_ca(PAPERS.ca_pem, FLEET_ID) == PAPERS.ca_pem
    for at, byte in enumerate(whole):
        bent = DER_cert_to_PEM_cert(whole[:at] + bytes([byte ^ 1]) + whole[at + 1 :])
        with pytest.raises(Refused):
            open_ca(bent.encode(), FLEET_ID)


@proves("fleet.hostile-bytes")
def test_a_good_document_of_each_kind_is_taken():
    for name, (decoder, good) in DECODERS.items():
        if name not in {"answer", "peer"}:
            assert decoder(good), name


@proves("fleet.hostile-bytes")
def test_documents_beyond_their_bounds_are_refused_before_they_are_read():
    for name, (decoder, _) in DECODERS.items():
        with pytest.raises(Malformed):
            decoder(b"1" * 10_000_000)
        assert name


@proves("fleet.hostile-bytes")
def test_a_good_signature_over_nonsense_inside_is_refused():
    body = _Request(binding="\u0000\u00e4", fleet=FLEET_ID, token="0" * 32)
    with pytest.raises(Malformed):
        open_join(_JOIN.write(body, LAPTOP.root), FLEET_ID)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53) + 1, 2**53 - 1) | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["record", "name", "machine", "key", "id", "v"]), inner)
    ),
    max_leaves=8,
)
KINDS = sorted({kind for fold in World().folds for kind in fold.kinds})


@proves("fleet.folds-total", "fleet.hostile-bytes")
@settings(max_examples=150, deadline=None)
@given(kind=st.sampled_from(KINDS), body=VALUES)
def test_no_body_makes_a_fold_fail(kind: str, body: Any):
    world = World()
    world.write(STUDIO, kind, body)
    assert len(world.skipped) == 1 or world.rows


@proves("fleet.folds-total", "fleet.hostile-bytes")
@settings(max_examples=100, deadline=None)
@given(raw=st.binary(max_size=200), kind=st.sampled_from(KINDS))
def test_no_bytes_make_a_fold_fail(kind: str, raw: bytes):
    world = World()
    entry = compose(stream(STUDIO), 0, Stamp(NOW, 0), kind, "muster", [], raw, bytes(16))
    world.fold(entry)
    # That nobody is logged in anywhere is said in two bytes; all else takes more than there is.
    assert not [key for key in world.rows if key[0] != LOGINS.name]


@proves("fleet.folds-total", "fleet.hostile-bytes")
@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=80))
def test_text_where_a_document_should_be_is_skipped(text: str):
    world = World()
    world.write(STUDIO, kinds.MACHINE_RECORD, kinds.MachineRecorded(record=text))
    world.write(STUDIO, kinds.MACHINE_REVOKE, kinds.MachineRevoke(revocation=text))
    world.write(STUDIO, kinds.ORDER_TAKE, kinds.OrderTake(grant="0" * 64, statement=text))
    assert world.skipped == ["bad-record", "bad-record", "bad-statement"]
    assert world.rows == {}
    assert BUILD_RECORD.raw
