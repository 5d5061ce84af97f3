"""Certificates beyond this fleet's own links: another fleet's machine, and a program that reads no pin."""

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from tests.fleet.test_certificate import PAPERS, der
from tests.fleet.world import (
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    NOW,
    OTHER_AUTHORITY,
    STUDIO_RECORD,
    record,
)
from tests.promise import proves

from muster import limits
from muster.errors import Denied, Forged, Malformed
from muster.fleet.certificate import (
    PIN_OID,
    check_issued,
    check_peer,
    foreign_of,
    issue,
    issue_unpinned,
    open_ca,
    peer_of,
    tls_key,
)

ACME = OTHER_AUTHORITY.fleet
THEIR_RECORD = record(BUILD, "yard", authority=OTHER_AUTHORITY)
THEIRS = issue(OTHER_AUTHORITY, THEIR_RECORD, NOW)
PLAIN = issue_unpinned(AUTHORITY, STUDIO_RECORD, NOW)


@proves("peer.card-checked", "fleet.other-fleet")
def test_a_machine_of_another_fleet_is_believed_by_that_fleets_card_and_the_calendar():
    theirs, ca = der(THEIRS.tls_pem), THEIRS.ca_pem
    found = foreign_of(theirs, ca, ACME, NOW)
    assert (found.fleet, found.machine) == (ACME, BUILD.machine)
    assert check_peer(found, THEIR_RECORD) == BUILD.machine
    skew, life = limits.CLOCK_SKEW_MS, limits.CERTIFICATE_LIFE_MS
    # It begins one difference of clocks early, and each end is held one more.
    for at_ms in (NOW - 2 * skew, NOW + life + skew):
        assert foreign_of(theirs, ca, ACME, at_ms) == found
    for at_ms in (NOW - 2 * skew - 1_000, NOW + life + skew + 1_000):
        with pytest.raises(Denied, match="has ended, or has not begun"):
            foreign_of(theirs, ca, ACME, at_ms)


@proves("peer.card-checked", "fleet.other-fleet")
def test_no_other_certificate_is_one_of_that_fleet():
    theirs = der(THEIRS.tls_pem)
    # Our own machine, our own fleet's card, and a machine of theirs by another authority.
    for raw, ca, fleet in (
        (der(PAPERS.tls_pem), THEIRS.ca_pem, ACME), (theirs, PAPERS.ca_pem, ACME),
        (theirs, THEIRS.ca_pem, FLEET_ID), (der(PAPERS.tls_pem), THEIRS.ca_pem, FLEET_ID),
    ):  # fmt: skip
        with pytest.raises(Forged):
            foreign_of(raw, ca, fleet, NOW)
    # Every byte of it is looked at, also where no signature reaches.
    for at in (3, 40, len(theirs) // 2, len(theirs) - 70, len(theirs) - 1):
        changed = theirs[:at] + bytes([theirs[at] ^ 1]) + theirs[at + 1 :]
        with pytest.raises((Forged, Malformed)):
            foreign_of(changed, THEIRS.ca_pem, ACME, NOW)
    for raw in (b"", b"no certificate", theirs + b"\x00", bytes(100_000), der(THEIRS.ca_pem)):
        with pytest.raises((Forged, Malformed)):
            foreign_of(raw, THEIRS.ca_pem, ACME, NOW)
    for ca in (b"", b"no certificate", bytes(100_000)):
        with pytest.raises(Malformed, match=r"PEM certificate|bytes"):
            foreign_of(theirs, ca, ACME, NOW)


@proves("fleet.certificate-key")
def test_a_program_that_reads_no_pin_gets_the_same_names_and_keys_without_one():
    pinned, plain = (x509.load_pem_x509_certificate(each.tls_pem) for each in (PAPERS, PLAIN))
    assert pinned.subject == plain.subject
    assert peer_of(der(PLAIN.tls_pem)) == peer_of(der(PAPERS.tls_pem))
    assert tls_key(PLAIN.tls_pem) == tls_key(PAPERS.tls_pem) == STUDIO_RECORD.key("tls")
    for each in (PLAIN.tls_pem, PLAIN.ca_pem):
        oids = {e.oid for e in x509.load_pem_x509_certificate(each).extensions}
        assert PIN_OID not in oids
    # No two certificates of one issuer have one number, and one is made the same each time.
    numbers = {
        x509.load_pem_x509_certificate(pem).serial_number
        for papers in (PAPERS, PLAIN)
        for pem in papers
    }
    assert len(numbers) == 4
    assert issue_unpinned(AUTHORITY, STUDIO_RECORD, NOW) == PLAIN
    check_issued(der(PLAIN.tls_pem), PLAIN.ca_pem)
    # A fleet vouches for none of it.
    with pytest.raises(Forged, match="no pin"):
        open_ca(PLAIN.ca_pem, FLEET_ID)


@proves("fleet.certificate-pin", "fleet.hostile-bytes")
def test_who_signed_a_certificate_is_checked_and_what_is_none_of_ours_is_refused():
    check_issued(der(PAPERS.tls_pem), PAPERS.ca_pem)
    for raw, ca in (
        (der(PAPERS.tls_pem), THEIRS.ca_pem), (der(PAPERS.tls_pem) + b"\x00", PAPERS.ca_pem),
        (der(PAPERS.tls_pem), PAPERS.tls_pem), (b"none", PAPERS.ca_pem),
        (der(PAPERS.tls_pem), b"none"),
    ):  # fmt: skip
        with pytest.raises((Forged, Malformed)):
            check_issued(raw, ca)
    ours = x509.load_pem_x509_certificate(PAPERS.tls_pem)
    names = ours.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    curve = (
        x509.CertificateBuilder()
        .subject_name(ours.subject)
        .issuer_name(ours.issuer)
        .public_key(generate_private_key(SECP256R1()).public_key())
        .serial_number(1)
        .not_valid_before(ours.not_valid_before_utc)
        .not_valid_after(ours.not_valid_after_utc)
        .add_extension(names, critical=False)
        .sign(Ed25519PrivateKey.from_private_bytes(b"m" * 32), None)
    )
    with pytest.raises(Malformed, match="not ed25519"):
        peer_of(curve.public_bytes(Encoding.DER))
    with pytest.raises(Malformed, match="not ed25519"):
        tls_key(curve.public_bytes(Encoding.PEM))
    # A year for which no calendar has a date.
    for now_ms in (limits.INT_ABS_MAX, 253_402_300_800_000):
        with pytest.raises(Malformed, match="No certificate can be made for build"):
            issue(AUTHORITY, BUILD_RECORD, now_ms)
