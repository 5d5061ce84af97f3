"""X.509 certificates for TLS: the fleet's certificate authority and one leaf for each machine.

Rule 1: TLS keys are sub-keys of their own (`tls`, and the authority's `x509`).
Rule 2: a link trusts the key in the machine's record, never the certificate alone: after the
handshake compare `peer_of(der)` with the record (`check_peer`). The channel tells OpenSSL not
to ask the calendar, so a machine that slept for weeks still reaches the hub to renew.
Rule 3: every certificate is pinned by the fleet id. The key that signs them is not the record
key, so each carries, in an extension, a document signed by the record key that names it.
Whoever knows the fleet id (from an invite) can check a certificate that a stranger shows.
Rule 4: nothing is random. Serial numbers are hashes and ed25519 is deterministic, so the
authority can rebuild the same bytes, and a simulation too.

There is no signing request: the authority knows the TLS key from the machine's record. The
leaf names its machine in a URI, `muster://<fleet>/<machine>`, and its roles in the subject: a
newcomer hands its token to a hub only, not to any machine that got in between.
"""

import datetime as dt
import hashlib
import re
from typing import Final, NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from muster import limits
from muster.errors import Denied, Forged, Malformed
from muster.fleet.document import Contents, Form, check_fleet
from muster.fleet.machine import Authority, Identity
from muster.fleet.name import Hex32
from muster.fleet.record import MachineRecord
from muster.log.stream import FleetId, MachineId

# An arc that needs no registration: 2.25 and the UUIDv5 of "muster/fleet-certificate/v1".
PIN_OID: Final = x509.ObjectIdentifier("2.25.112600727232667601822691043746932430822")

_PIN_BYTES_MAX: Final = 1024
_CERTIFICATE_BYTES_MAX: Final = 8 * 1024
# What the library raises on a certificate that somebody bent.
_UNREADABLE: Final = (
    ValueError,
    TypeError,
    UnsupportedAlgorithm,
    x509.DuplicateExtension,
    x509.ExtensionNotFound,
    x509.InvalidVersion,
    x509.UnsupportedGeneralNameType,
)
# What stands behind the signed part (RFC 8410): the algorithm ed25519, 64 bytes in a bit string.
_ED25519_NAMED: Final = bytes.fromhex("300506032b6570")
_SIGNATURE_HEAD: Final = bytes.fromhex("034100")
_SAN: Final = re.compile(r"^muster://([0-9a-f]{64})/([0-9a-f]{64})\Z")
# The authority lives as long as its key; RFC 5280 writes "no end" as this date.
_CA_FROM: Final = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
_CA_UNTIL: Final = dt.datetime(9999, 12, 31, 23, 59, 59, tzinfo=dt.UTC)


class _Pin(Contents, frozen=True):
    x509: Hex32


_PIN: Final = Form("muster/x509/v1", _Pin, "The pin", _PIN_BYTES_MAX)


class CertificateChain(NamedTuple):
    """What TLS needs beside the key: the leaf certificate and the authority's, in PEM."""

    tls_pem: bytes
    ca_pem: bytes


class Peer(NamedTuple):
    """Whom a certificate names. Proves nothing until compared with the machine's record."""

    fleet: FleetId
    machine: MachineId
    tls: bytes


def issue(authority: Authority, record: MachineRecord, now_ms: int) -> CertificateChain:
    """Certificates for the `tls` key of this record, valid from a little before `now_ms`."""
    return _chain(authority, record, now_ms, pinned=True)


def issue_unpinned(authority: Authority, record: MachineRecord, now_ms: int) -> CertificateChain:
    """As `issue`, for programs that read no pin: those of Go refuse it."""
    return _chain(authority, record, now_ms, pinned=False)


def _chain(
    authority: Authority, record: MachineRecord, now_ms: int, *, pinned: bool
) -> CertificateChain:
    check_fleet(record.fleet, authority.fleet, "The machine record")
    key = Ed25519PrivateKey.from_private_bytes(authority.x509_secret())
    public = key.public_key()
    name = _subject(f"muster fleet {authority.fleet[:16]}")
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(public)
        .serial_number(_serial("ca" if pinned else "unpinned-ca", authority.fleet))
        .not_valid_before(_CA_FROM)
        .not_valid_after(_CA_UNTIL)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )
    if pinned:
        builder = builder.add_extension(_pin(authority, key), critical=False)
    ca = builder.sign(key, None)
    leaf = _leaf(authority, key, record, now_ms, pinned=pinned)
    return CertificateChain(leaf.public_bytes(Encoding.PEM), ca.public_bytes(Encoding.PEM))


def open_ca(pem: bytes, fleet: FleetId) -> bytes:
    """`pem` itself, when the fleet's record key vouches for it; raises Forged otherwise.

    This is what makes it safe to take the certificate from a server not yet trusted. Raises
    Malformed where anything else stands in the text: TLS would believe a second certificate, too.
    """
    what = "The fleet's certificate"
    certificate = _load(pem, what)
    if certificate.public_bytes(Encoding.PEM) != pem:
        raise Malformed(f"{what} is not one certificate and nothing else: copy it again.")
    _check_whole(certificate.public_bytes(Encoding.DER), certificate, what)
    if _ed25519(certificate, what) != _pinned_key(certificate, fleet, what):
        raise Forged(f"{what} is for another key than the fleet vouches for.")
    try:
        certificate.verify_directly_issued_by(certificate)
    except (InvalidSignature, *_UNREADABLE) as error:
        raise Forged("The fleet's certificate was changed after it was signed.") from error
    return pem


def tls_files(identity: Identity, ca: CertificateChain) -> tuple[bytes, bytes, bytes]:
    """Certificate, key and authority in PEM, as `ssl.SSLContext` reads them from files.

    Raises Forged when the certificates are for another key, before TLS fails with a riddle.
    """
    certificate = _load(ca.tls_pem, "This machine's certificate")
    if _ed25519(certificate, "This machine's certificate").hex() != identity.keys["tls"]:
        raise Forged(
            "This machine's certificate is for another key: restart the daemon to renew it."
        )
    key = Ed25519PrivateKey.from_private_bytes(identity.secret("tls"))
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    return ca.tls_pem, pem, ca.ca_pem


def tls_key(pem: bytes) -> bytes:
    """The key that a certificate of a machine is for. Raises Malformed for none of ours."""
    what = "A machine's certificate"
    return _ed25519(_load(pem, what), what)


def peer_of(der: bytes) -> Peer:
    """Whom a certificate names, and its TLS key.

    The handshake proved that the other side holds this key and that the fleet's authority
    signed the certificate; that the key is (still) the machine's, only `check_peer` says.
    """
    if len(der) > _CERTIFICATE_BYTES_MAX:
        raise Malformed(f"The peer's certificate has {len(der)} bytes; ours have under 2000.")
    try:
        certificate = x509.load_der_x509_certificate(der)
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    except _UNREADABLE as error:
        raise Malformed("The peer's certificate names no machine of a fleet.") from error
    match = _SAN.match(uris[0]) if len(uris) == 1 else None
    if match is None:
        raise Malformed("The peer's certificate names no machine of a fleet.")
    tls = _ed25519(certificate, "The peer's certificate")
    return Peer(FleetId(match[1]), MachineId(match[2]), tls)


def hub_of(der: bytes, fleet: FleetId) -> Peer:
    """The hub that shows this certificate, for a newcomer who knows only the fleet's id.

    Raises Forged when the fleet does not vouch for it, Denied when it is no hub. That its key
    is in use TLS has proven; whether it was revoked, a newcomer cannot know.
    """
    what = "The hub's certificate"
    peer = peer_of(der)
    check_fleet(peer.fleet, fleet, what)
    certificate = x509.load_der_x509_certificate(der)
    _check_issued(der, certificate, _pinned_key(certificate, fleet, what), what)
    units = certificate.subject.get_attributes_for_oid(NameOID.ORGANIZATIONAL_UNIT_NAME)
    if "hub" not in {unit.value for unit in units}:
        raise Denied("The machine at this address is not a hub: check the invite's address.")
    return peer


def foreign_of(der: bytes, ca: bytes, fleet: str, now_ms: int) -> Peer:
    """The machine of another fleet that shows this certificate; `ca` is that authority's, in PEM.

    The calendar counts: who was revoked there, nobody here hears.
    Raises: Forged, Denied, Malformed.
    """
    what = "The other fleet's certificate"
    peer = peer_of(der)
    check_fleet(peer.fleet, fleet, what)
    certificate = x509.load_der_x509_certificate(der)
    _check_issued(der, certificate, _ed25519(_load(ca, what), what), what)
    begins_ms = certificate.not_valid_before_utc.timestamp() * 1000 - limits.CLOCK_SKEW_MS
    ends_ms = certificate.not_valid_after_utc.timestamp() * 1000 + limits.CLOCK_SKEW_MS
    if not begins_ms <= now_ms <= ends_ms:
        raise Denied(f"{what} has ended, or has not begun.")
    return peer


def check_issued(der: bytes, ca: bytes) -> None:
    """That the authority with this certificate, in PEM, signed it. Raises: Forged, Malformed."""
    what = "The certificate"
    try:
        certificate = x509.load_der_x509_certificate(der)
    except _UNREADABLE as error:
        raise Malformed(f"{what} is none.") from error
    _check_issued(der, certificate, _ed25519(_load(ca, what), what), what)


def _check_issued(der: bytes, certificate: x509.Certificate, key: bytes, what: str) -> None:
    """Raises Forged unless the holder of this key signed it, and nothing of it was changed."""
    _check_whole(der, certificate, what)
    issuer = Ed25519PublicKey.from_public_bytes(key)
    try:
        issuer.verify(certificate.signature, certificate.tbs_certificate_bytes)
    except InvalidSignature as error:
        raise Forged(f"{what} is not signed by the fleet.") from error


def check_peer(peer: Peer, record: MachineRecord) -> MachineId:
    """The peer's machine id, when its certificate has the TLS key of that machine's record."""
    check_fleet(peer.fleet, record.fleet, "The peer's certificate")
    if peer.machine != record.machine or peer.tls != record.key("tls"):
        raise Forged(f"The peer shows a certificate that is not of machine {record.name}.")
    return record.machine


def renew_at_ms(tls_pem: bytes) -> int:
    """When half of the certificate's life is over: from then on it should be renewed."""
    certificate = _load(tls_pem, "This machine's certificate")
    start = certificate.not_valid_before_utc.timestamp()
    end = certificate.not_valid_after_utc.timestamp()
    return int((start + end) * 500)


# An extension's value must be DER: a UTF8String whose length takes two bytes.
_PIN_HEAD: Final = b"\x0c\x82"


def _pin(authority: Authority, key: Ed25519PrivateKey) -> x509.UnrecognizedExtension:
    pin = _Pin(fleet=authority.fleet, x509=key.public_key().public_bytes_raw().hex())
    text = _PIN.write(pin, authority.record)
    assert 256 <= len(text) < 65536, "a pin is some 300 bytes"
    return x509.UnrecognizedExtension(PIN_OID, _PIN_HEAD + len(text).to_bytes(2, "big") + text)


def _pinned_key(certificate: x509.Certificate, fleet: FleetId, what: str) -> bytes:
    try:
        extension = certificate.extensions.get_extension_for_oid(PIN_OID).value
    except _UNREADABLE as error:
        raise Forged(f"{what} carries no pin of its fleet.") from error
    pin_what = f"{what}: its pin"
    der = extension.public_bytes()
    if der[:2] != _PIN_HEAD or int.from_bytes(der[2:4], "big") != len(der) - 4:
        raise Malformed(f"{pin_what} is damaged.")
    document = _PIN._replace(what=pin_what).read(der[4:], fleet)
    return bytes.fromhex(document.check(fleet).x509)


def _leaf(
    authority: Authority,
    key: Ed25519PrivateKey,
    record: MachineRecord,
    now_ms: int,
    *,
    pinned: bool,
) -> x509.Certificate:
    try:
        public = Ed25519PublicKey.from_public_bytes(record.key("tls"))
        start = _moment(now_ms - limits.CLOCK_SKEW_MS)
        end = _moment(now_ms + limits.CERTIFICATE_LIFE_MS)
    except (ValueError, OverflowError) as error:
        raise Malformed(f"No certificate can be made for {record.name}: {error}.") from error
    uri = f"muster://{record.fleet}/{record.machine}"
    purposes = [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]
    authority_key = x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key())
    what = "leaf" if pinned else "unpinned"
    serial = _serial(what, record.fleet, record.machine, str(record.serial), str(now_ms))
    builder = (
        x509.CertificateBuilder()
        .subject_name(_subject(record.name, *record.roles))
        .issuer_name(_subject(f"muster fleet {authority.fleet[:16]}"))
        .public_key(public)
        .serial_number(serial)
        .not_valid_before(start)
        .not_valid_after(end)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(purposes), critical=False)
        .add_extension(
            x509.SubjectAlternativeName([x509.UniformResourceIdentifier(uri)]), critical=False
        )
        .add_extension(authority_key, critical=False)
    )
    if pinned:
        builder = builder.add_extension(_pin(authority, key), critical=False)
    return builder.sign(key, None)


def _subject(name: str, *units: str) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit) for unit in units]
    return x509.Name([*attributes, x509.NameAttribute(NameOID.COMMON_NAME, name)])


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not ca,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _serial(*parts: str) -> int:
    digest = hashlib.sha256("\n".join(("muster/serial/v1", *parts)).encode("ascii")).digest()
    # RFC 5280 allows at most 20 octets, positive and not zero.
    return int.from_bytes(digest[:19], "big") | 1 << 151


def _moment(time_ms: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(time_ms // 1000, tz=dt.UTC)


def _load(pem: bytes, what: str) -> x509.Certificate:
    if len(pem) > _CERTIFICATE_BYTES_MAX:
        raise Malformed(f"{what} has {len(pem)} bytes; at most {_CERTIFICATE_BYTES_MAX} are read.")
    try:
        return x509.load_pem_x509_certificate(pem)
    except _UNREADABLE as error:
        raise Malformed(f"{what} is not a PEM certificate.") from error


def _check_whole(der: bytes, certificate: x509.Certificate, what: str) -> None:
    """Raises Forged unless these are the only bytes that this certificate can have.

    The signature covers the middle of a certificate: the lengths around it, and the name of the
    algorithm behind it, could be changed unnoticed. They are written again here and compared.
    """
    signed = certificate.tbs_certificate_bytes
    rest = _ED25519_NAMED + _SIGNATURE_HEAD + certificate.signature
    size = len(signed) + len(rest)
    # All of ours have between 256 and 65,535 bytes, whose length DER writes with two.
    if der != b"\x30\x82" + size.to_bytes(2, "big") + signed + rest:
        raise Forged(f"{what} was changed outside of what is signed.")


def _ed25519(certificate: x509.Certificate, what: str) -> bytes:
    try:
        public = certificate.public_key()
    except _UNREADABLE as error:
        raise Malformed(f"{what} has a key of an unknown kind.") from error
    if not isinstance(public, Ed25519PublicKey):
        raise Malformed(f"{what} has a key that is not ed25519.")
    return public.public_bytes_raw()
