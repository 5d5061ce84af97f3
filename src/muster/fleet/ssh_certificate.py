"""SSH certificates: with one a machine gets through the sshd of another machine, and no further.

Rule 1: the key that signs them is a sub-key of the authority's (`ssh`), which a document that the
record key signed names: who knows the fleet's id can check every certificate.
Rule 2: the certificate of a machine as a user runs one program, whatever is asked for, and allows
no terminal and no forwarding; so a stolen one gets no shell. The program stands in the certificate
alone: sshd refuses one that is named in authorized_keys as well.
Rule 3: a certificate opens sshd and proves nothing to us. Who is at the far end, and whether it is
one of the fleet still, is what TLS says inside (channel/tunnel.py).
Rule 4: nothing is random: the nonce is a hash of the rest, so the authority can make it again.

The format is OpenSSH's (PROTOCOL.certkeys), of the kind ed25519 alone; it is written here byte by
byte, and what is read back has to be what would have been written.
"""

import base64
import hashlib
import struct
from typing import Final, NamedTuple

import msgspec

from muster import limits
from muster.errors import Forged, Malformed
from muster.fleet.document import Contents, Form, check_fleet
from muster.fleet.machine import Authority, Identity
from muster.fleet.name import Hex32
from muster.fleet.record import MachineRecord
from muster.log.keys import Signer, verify
from muster.log.stream import FleetId, MachineId

PROGRAM: Final = ".local/bin/muster-ssh-serve"
"""What a certificate runs at the far side, from the home folder of whose sshd lets it in."""

_FORCED: Final = f'exec "$HOME/{PROGRAM}"'
_KEY_KIND: Final = "ssh-ed25519"
_KIND: Final = "ssh-ed25519-cert-v01@openssh.com"
_USER: Final = 1
_HOST: Final = 2
_TEXT_CHARS_MAX: Final = 4096
_NONCE_BYTES: Final = 32


class _Pin(Contents, frozen=True):
    ssh: Hex32


_PIN: Final = Form("muster/ssh/v1", _Pin, "The pin of the fleet's SSH key")


class SshCertificates(msgspec.Struct, frozen=True):
    """What a machine shows as a user, and what its sshd may show of it; `pin` is the document
    with which the fleet vouches for the key that signed both.
    """

    pin: str
    user: str
    host: str


class _Claim(NamedTuple):
    """What a certificate says: whose key, as what, and until when."""

    key: bytes
    kind: int
    machine: MachineId
    serial: int
    from_s: int
    until_s: int


def principal(machine: str) -> str:
    """What sshd knows a machine by, as a user."""
    return f"muster-{machine}"


def issue_ssh(authority: Authority, record: MachineRecord, now_ms: int) -> SshCertificates:
    """Certificates for the `ssh` key of this record, valid from a little before `now_ms`."""
    check_fleet(record.fleet, authority.fleet, "The machine record")
    signer = Signer(authority.ssh_secret())
    pin = _PIN.write(_Pin(fleet=authority.fleet, ssh=signer.public.hex()), authority.record)
    times = (now_ms - limits.CLOCK_SKEW_MS) // 1000, (now_ms + limits.CERTIFICATE_LIFE_MS) // 1000
    if times[0] < 0:
        raise Malformed(f"No SSH certificate can be made for {record.name}: the clock is not set.")
    texts = []
    for kind in (_USER, _HOST):
        parts = ("muster/ssh-serial/v1", str(kind), record.machine, str(record.serial), str(now_ms))
        serial = int.from_bytes(hashlib.sha256("\n".join(parts).encode()).digest()[:8], "big")
        claim = _Claim(record.key("ssh"), kind, MachineId(record.machine), serial, *times)
        texts.append(_text(_KIND, _signed(claim, signer)))
    return SshCertificates(pin.decode("ascii"), *texts)


def open_ssh(found: SshCertificates, identity: Identity, fleet: FleetId) -> SshCertificates:
    """`found` itself, when the fleet vouches for both and both are this machine's.

    Raises: Forged, Malformed.
    """
    authority = _authority(found.pin, fleet)
    for kind, text in ((_USER, found.user), (_HOST, found.host)):
        claim = _claim(text, authority)
        if (claim.kind, claim.machine, claim.key.hex()) != (
            kind,
            identity.machine,
            identity.keys["ssh"],
        ):
            raise Forged("The SSH certificate is not one for this machine.")
    return found


def ssh_authority(found: SshCertificates, fleet: FleetId) -> str:
    """The key that signs the fleet's SSH certificates, a line as OpenSSH writes it."""
    return public_line(_authority(found.pin, fleet))


def renew_ssh_at_ms(found: SshCertificates, fleet: FleetId) -> int:
    """When half of their life is over: from then on they should be renewed."""
    claim = _claim(found.user, _authority(found.pin, fleet))
    return (claim.from_s + claim.until_s) * 500


def public_line(key: bytes) -> str:
    """A public key as OpenSSH writes it."""
    return _text(_KEY_KIND, _string(_KEY_KIND.encode()) + _string(key))


def private_key(identity: Identity) -> bytes:
    """The `ssh` key of a machine as OpenSSH keeps one in a file, without a passphrase."""
    secret = identity.secret("ssh")
    public = Signer(secret).public
    blob = _string(_KEY_KIND.encode()) + _string(public)
    # Two equal numbers tell a reader that it decrypted right; nothing here is encrypted.
    inner = struct.pack(">II", 0, 0) + blob + _string(secret + public) + _string(b"")
    inner += bytes(range(1, 1 + -len(inner) % 8))
    names = _string(b"none") + _string(b"none") + _string(b"")
    raw = b"openssh-key-v1\0" + names + struct.pack(">I", 1) + _string(blob) + _string(inner)
    text = base64.b64encode(raw).decode("ascii")
    lines = "\n".join(text[at : at + 70] for at in range(0, len(text), 70))
    edge = "-----{} OPENSSH PRIVATE KEY-----"
    return f"{edge.format('BEGIN')}\n{lines}\n{edge.format('END')}\n".encode("ascii")


def _authority(pin: str, fleet: FleetId) -> bytes:
    return bytes.fromhex(_PIN.read(pin.encode(), fleet).check(fleet).ssh)


def _string(data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + data


def _text(kind: str, raw: bytes) -> str:
    return f"{kind} {base64.b64encode(raw).decode('ascii')}"


def _signed(claim: _Claim, signer: Signer) -> bytes:
    said = _said(claim, signer.public)
    return said + _string(_string(_KEY_KIND.encode()) + _string(signer.sign(said)))


def _said(claim: _Claim, authority: bytes) -> bytes:
    """What is signed: the one encoding that a certificate of ours with this claim can have."""
    user = claim.kind == _USER
    names = principal(claim.machine) if user else claim.machine
    forced = _string(b"force-command") + _string(_string(_FORCED.encode()))
    rest = b"".join(
        (
            _string(claim.key),
            struct.pack(">QI", claim.serial, claim.kind),
            _string(claim.machine.encode()),
            _string(_string(names.encode())),
            struct.pack(">QQ", claim.from_s, claim.until_s),
            _string(forced if user else b""),
            _string(b""),
            _string(b""),
            _string(_string(_KEY_KIND.encode()) + _string(authority)),
        )
    )
    nonce = hashlib.sha256(b"muster/ssh-nonce/v1\n" + rest).digest()
    return _string(_KIND.encode()) + _string(nonce) + rest


def _claim(text: str, authority: bytes) -> _Claim:
    """What a certificate says that is whole and of this authority. Raises: Malformed, Forged."""
    kind, _, encoded = text.partition(" ")
    try:
        if kind != _KIND or len(text) > _TEXT_CHARS_MAX:
            raise ValueError
        raw = base64.b64decode(encoded, validate=True)
        at = len(_string(_KIND.encode())) + 4 + _NONCE_BYTES
        key_size, key, serial, type_, size = struct.unpack_from(">I32sQII", raw, at)
        machine = raw[at + 52 : at + 52 + size].decode("ascii")
        after = at + 52 + size
        after += 4 + int.from_bytes(raw[after : after + 4], "big")
        from_s, until_s = struct.unpack_from(">QQ", raw, after)
    except (ValueError, struct.error) as error:
        raise Malformed("The SSH certificate is none of this fleet: ask a hub anew.") from error
    claim = _Claim(key, type_, MachineId(machine), serial, from_s, until_s)
    said = _said(claim, authority)
    signature = raw[len(said) :]
    head = struct.pack(">I", len(signature) - 4) + _string(_KEY_KIND.encode())
    head += struct.pack(">I", 64)
    if (
        key_size != 32
        or raw[: len(said)] != said
        or not signature.startswith(head)
        or not verify(authority, said, signature[len(head) :])
    ):
        raise Forged("The SSH certificate is not signed by the fleet, or was changed.")
    return claim
