"""A certificate authority for tests: the one the fleet layer will be, reduced to the bone."""

import datetime as dt
import hashlib
from dataclasses import dataclass, field

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.x509.oid import NameOID

from muster.channel.tls import Credentials
from muster.errors import Denied, Forged

LONG_AGO = dt.datetime(2020, 1, 1, tzinfo=dt.UTC)
LAST_YEAR = dt.datetime(2025, 1, 1, tzinfo=dt.UTC)
FAR_AWAY = dt.datetime(2999, 1, 1, tzinfo=dt.UTC)


def _name(common: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


def raw_key(der: bytes) -> bytes:
    public = x509.load_der_x509_certificate(der).public_key()
    assert isinstance(public, Ed25519PublicKey)
    return public.public_bytes_raw()


@dataclass
class TestAuthority:
    """Issues credentials, remembers which TLS key is which machine, and who was revoked."""

    __test__ = False
    label: str
    machines: dict[bytes, str] = field(default_factory=dict)
    revoked: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._key = Ed25519PrivateKey.from_private_bytes(
            hashlib.sha256(self.label.encode()).digest()
        )
        self.public = self._key.public_key().public_bytes_raw()
        self.certificate = (
            x509.CertificateBuilder()
            .subject_name(_name(self.label))
            .issuer_name(_name(self.label))
            .public_key(self._key.public_key())
            .serial_number(1)
            .not_valid_before(LONG_AGO)
            .not_valid_after(FAR_AWAY)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .sign(self._key, None)
        )

    def issue(
        self, name: str, *, expired: bool = False, known: bool = True
    ) -> tuple[str, Credentials]:
        """A machine id and the credentials of that machine."""
        machine = hashlib.sha256(name.encode()).hexdigest()
        key = Ed25519PrivateKey.generate()
        leaf = (
            x509.CertificateBuilder()
            .subject_name(_name(name))
            .issuer_name(_name(self.label))
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(LONG_AGO)
            .not_valid_after(LAST_YEAR if expired else FAR_AWAY)
            .sign(self._key, None)
        )
        if known:
            self.machines[key.public_key().public_bytes_raw()] = machine
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        return machine, Credentials(_pem(leaf), private, _pem(self.certificate))

    def identify(self, der: bytes) -> str:
        """What the fleet does: the key decides, not the calendar and not the name."""
        machine = self.machines.get(raw_key(der))
        if machine is None:
            raise Forged("this TLS key is in no record of the fleet")
        if machine in self.revoked:
            raise Denied(f"machine {machine[:8]} was revoked")
        return machine

    def pin(self, der: bytes) -> str:
        """What a joiner does: it knows one key, from the invitation."""
        leaf = x509.load_der_x509_certificate(der)
        issuer = Ed25519PublicKey.from_public_bytes(self.public)
        try:
            issuer.verify(leaf.signature, leaf.tbs_certificate_bytes)
        except InvalidSignature as error:
            raise Forged("not signed by the fleet of the invitation") from error
        return ""
