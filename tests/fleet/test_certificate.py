"""X.509 certificates: pinned by the fleet id, tied to the record's TLS key, read by a real TLS stack."""

import ssl
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from tests.fleet.world import (
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    HOUR,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
    record,
)
from tests.promise import proves

from muster import limits
from muster.errors import Denied, Forged, Malformed
from muster.fleet.certificate import (
    CertificateChain,
    check_peer,
    hub_of,
    issue,
    open_ca,
    peer_of,
    renew_at_ms,
    tls_files,
)

PAPERS = issue(AUTHORITY, STUDIO_RECORD, NOW)
# What OpenSSL calls X509_V_FLAG_NO_CHECK_TIME; channel/http.py sets it.
NO_CHECK_TIME = 0x200000


def der(pem: bytes) -> bytes:
    return x509.load_pem_x509_certificate(pem).public_bytes(Encoding.DER)


def context(purpose: int, certificates: CertificateChain, folder: Path) -> ssl.SSLContext:
    certificate, key, ca = tls_files(STUDIO, certificates)
    path = folder / "studio.pem"
    path.write_bytes(key + certificate)
    made = ssl.SSLContext(purpose)
    made.check_hostname = False
    made.verify_mode = ssl.CERT_REQUIRED
    made.verify_flags |= ssl.VERIFY_X509_STRICT | NO_CHECK_TIME
    made.load_cert_chain(path)
    made.load_verify_locations(cadata=ca.decode())
    return made


def handshake(folder: Path, certificates: CertificateChain) -> ssl.SSLObject:
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    server = context(ssl.PROTOCOL_TLS_SERVER, certificates, folder).wrap_bio(
        up, down, server_side=True
    )
    client = context(ssl.PROTOCOL_TLS_CLIENT, certificates, folder).wrap_bio(down, up)
    for _ in range(4):
        for side in (client, server):
            try:
                side.do_handshake()
            except ssl.SSLWantReadError:
                continue
    return client


@proves("fleet.certificate-key")
def test_a_strict_tls_stack_takes_the_certificates_and_names_the_machine(tmp_path: Path):
    client = handshake(tmp_path, PAPERS)
    assert client.version() == "TLSv1.3"
    peer = peer_of(client.getpeercert(binary_form=True) or b"")
    assert check_peer(peer, STUDIO_RECORD) == STUDIO.machine


@proves("fleet.certificate-key", "fleet.renewal")
def test_certificates_that_expired_years_ago_still_make_a_link(tmp_path: Path):
    old = issue(AUTHORITY, STUDIO_RECORD, NOW - 3 * 365 * 24 * HOUR)
    peer = peer_of(handshake(tmp_path, old).getpeercert(binary_form=True) or b"")
    assert check_peer(peer, STUDIO_RECORD) == STUDIO.machine


@proves("fleet.certificate-pin")
def test_the_authority_builds_the_same_certificate_every_time():
    assert issue(AUTHORITY, STUDIO_RECORD, NOW) == PAPERS
    later = issue(AUTHORITY, STUDIO_RECORD, NOW + 1000)
    assert later.ca_pem == PAPERS.ca_pem
    assert later != PAPERS


@proves("fleet.certificate-pin")
def test_who_knows_the_fleet_id_can_check_the_certificate():
    assert open_ca(PAPERS.ca_pem, FLEET_ID) == PAPERS.ca_pem


@proves("fleet.certificate-pin")
def test_a_certificate_of_another_fleet_is_refused():
    theirs = record(STUDIO, "studio", authority=OTHER_AUTHORITY)
    with pytest.raises(Forged, match="another fleet"):
        open_ca(issue(OTHER_AUTHORITY, theirs, NOW).ca_pem, FLEET_ID)


@proves("fleet.certificate-pin")
def test_a_leaf_is_not_taken_for_the_fleets_certificate():
    with pytest.raises(Forged, match="another key"):
        open_ca(PAPERS.tls_pem, FLEET_ID)


@proves("fleet.certificate-pin")
def test_a_newcomer_knows_the_hub_from_the_fleet_id_alone():
    assert hub_of(der(PAPERS.tls_pem), FLEET_ID).machine == STUDIO.machine


@proves("fleet.certificate-pin")
def test_a_member_that_is_no_hub_does_not_get_a_newcomers_token():
    with pytest.raises(Denied, match="not a hub"):
        hub_of(der(issue(AUTHORITY, BUILD_RECORD, NOW).tls_pem), FLEET_ID)


@proves("fleet.certificate-pin", "fleet.other-fleet")
def test_a_hub_of_another_fleet_is_not_taken_for_ours():
    theirs = record(STUDIO, "studio", roles=("hub",), authority=OTHER_AUTHORITY)
    with pytest.raises(Forged, match="another fleet"):
        hub_of(der(issue(OTHER_AUTHORITY, theirs, NOW).tls_pem), FLEET_ID)


@proves("fleet.certificate-pin")
def test_a_hubs_certificate_copied_under_another_signature_is_refused():
    ours = x509.load_pem_x509_certificate(PAPERS.tls_pem)
    stolen = _self_signed_with(*(extension.value for extension in ours.extensions))
    assert peer_of(der(stolen)).machine == STUDIO.machine
    with pytest.raises(Forged, match="not signed by the fleet"):
        hub_of(der(stolen), FLEET_ID)
    bare = _self_signed_with(
        ours.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    )
    with pytest.raises(Forged, match="no pin"):
        hub_of(der(bare), FLEET_ID)


@proves("fleet.certificate-pin")
def test_a_pin_copied_into_a_strangers_certificate_is_refused():
    ours = x509.load_pem_x509_certificate(PAPERS.ca_pem)
    pin = next(e for e in ours.extensions if isinstance(e.value, x509.UnrecognizedExtension))
    stolen = _self_signed_with(pin.value)
    with pytest.raises(Forged, match="another key"):
        open_ca(stolen, FLEET_ID)


def _self_signed_with(*extensions: x509.ExtensionType) -> bytes:
    key = Ed25519PrivateKey.from_private_bytes(b"m" * 32)
    theirs = x509.load_pem_x509_certificate(PAPERS.ca_pem)
    builder = (
        x509.CertificateBuilder()
        .subject_name(theirs.subject)
        .issuer_name(theirs.subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(theirs.not_valid_before_utc)
        .not_valid_after(theirs.not_valid_after_utc)
    )
    for extension in extensions:
        builder = builder.add_extension(extension, critical=False)
    return builder.sign(key, None).public_bytes(Encoding.PEM)


@proves("fleet.certificate-pin")
def test_a_changed_certificate_with_the_right_key_is_refused():
    raw = bytearray(der(PAPERS.ca_pem))
    at = raw.index(b"muster fleet")
    raw[at : at + 6] = b"mister"
    changed = x509.load_der_x509_certificate(bytes(raw)).public_bytes(Encoding.PEM)
    with pytest.raises(Forged, match="changed"):
        open_ca(changed, FLEET_ID)


@proves("fleet.certificate-key")
def test_a_certificate_for_an_old_tls_key_is_refused():
    peer = peer_of(der(PAPERS.tls_pem))
    with pytest.raises(Forged, match="not of machine build"):
        check_peer(peer, BUILD_RECORD)
    assert peer.machine == STUDIO.machine
    with pytest.raises(Forged, match="not of machine studio"):
        check_peer(peer._replace(tls=bytes(32)), STUDIO_RECORD)
    with pytest.raises(Forged, match="not of machine studio"):
        check_peer(peer._replace(machine=BUILD.machine), STUDIO_RECORD)


@proves("fleet.other-fleet")
def test_a_peer_of_another_fleet_is_refused():
    theirs = record(STUDIO, "studio", authority=OTHER_AUTHORITY)
    peer = peer_of(der(issue(OTHER_AUTHORITY, theirs, NOW).tls_pem))
    with pytest.raises(Forged, match="another fleet"):
        check_peer(peer, STUDIO_RECORD)
    with pytest.raises(Forged, match="another fleet"):
        issue(AUTHORITY, theirs, NOW)


@proves("fleet.certificate-key")
def test_certificates_for_another_machine_are_refused_before_tls_sees_them():
    with pytest.raises(Forged, match="another key"):
        tls_files(BUILD, PAPERS)


@proves("fleet.certificate-key")
def test_a_certificate_that_names_no_machine_is_refused():
    with pytest.raises(Malformed, match="names no machine"):
        peer_of(der(PAPERS.ca_pem))
    with pytest.raises(Malformed, match="names no machine"):
        peer_of(b"not a certificate")
    with pytest.raises(Malformed, match="bytes"):
        peer_of(bytes(100_000))


@proves("fleet.renewal")
def test_certificates_are_renewed_at_half_their_life():
    half_ms = (limits.CERTIFICATE_LIFE_MS + limits.CLOCK_SKEW_MS) // 2
    assert renew_at_ms(PAPERS.tls_pem) == NOW - limits.CLOCK_SKEW_MS + half_ms
