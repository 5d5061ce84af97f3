"""SSH certificates: one encoding, pinned by the fleet's id, read by the tools of others."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key
from cryptography.hazmat.primitives.serialization.ssh import (
    SSHCertificate,
    SSHCertificateType,
    load_ssh_public_identity,
)
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fleet.world import (
    AUTHORITY,
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    NOW,
    OTHER_AUTHORITY,
    STUDIO,
    STUDIO_RECORD,
    record,
)
from tests.promise import proves

from muster import limits
from muster.errors import Forged, Malformed, Refused
from muster.fleet.ssh_certificate import (
    issue_ssh,
    open_ssh,
    principal,
    private_key,
    public_line,
    renew_ssh_at_ms,
    ssh_authority,
)

PAPERS = issue_ssh(AUTHORITY, STUDIO_RECORD, NOW)


@proves("ssh.certificates")
def test_another_reader_finds_what_was_meant_in_it():
    user, host = (load_ssh_public_identity(t.encode()) for t in (PAPERS.user, PAPERS.host))
    for each in (user, host):
        assert isinstance(each, SSHCertificate)
        each.verify_cert_signature()
        assert each.public_key().public_bytes_raw() == STUDIO_RECORD.key("ssh")
        assert each.valid_after == (NOW - limits.CLOCK_SKEW_MS) // 1000
        assert each.valid_before == (NOW + limits.CERTIFICATE_LIFE_MS) // 1000
        assert each.key_id == STUDIO.machine.encode()
        assert each.extensions == {}
    assert user.type is SSHCertificateType.USER
    assert user.valid_principals == [principal(STUDIO.machine).encode()]
    assert user.critical_options == {b"force-command": b'exec "$HOME/.local/bin/muster-ssh-serve"'}
    assert host.type is SSHCertificateType.HOST
    assert host.valid_principals == [STUDIO.machine.encode()]
    assert host.critical_options == {}


@proves("ssh.certificates")
def test_the_key_that_others_read_is_the_one_of_the_record():
    key = load_ssh_private_key(private_key(STUDIO), password=None)
    assert isinstance(key, Ed25519PrivateKey)
    assert key.public_key().public_bytes_raw() == STUDIO_RECORD.key("ssh")
    assert public_line(STUDIO_RECORD.key("ssh")).split()[0] == "ssh-ed25519"


@proves("ssh.certificates")
def test_a_machine_takes_its_own_and_the_authority_makes_the_same_again():
    assert open_ssh(PAPERS, STUDIO, FLEET_ID) is PAPERS
    assert issue_ssh(AUTHORITY, STUDIO_RECORD, NOW) == PAPERS
    assert issue_ssh(AUTHORITY, STUDIO_RECORD, NOW + 1) != PAPERS
    assert ssh_authority(PAPERS, FLEET_ID).startswith("ssh-ed25519 ")
    half = NOW + (limits.CERTIFICATE_LIFE_MS - limits.CLOCK_SKEW_MS) // 2
    assert abs(renew_ssh_at_ms(PAPERS, FLEET_ID) - half) <= 1000


@proves("ssh.certificates")
@pytest.mark.parametrize(
    "found",
    [
        issue_ssh(AUTHORITY, BUILD_RECORD, NOW),
        replace(PAPERS, user=PAPERS.host),
        replace(PAPERS, host=PAPERS.user),
        replace(PAPERS, pin=issue_ssh(OTHER_AUTHORITY, record(STUDIO, "studio", authority=OTHER_AUTHORITY), NOW).pin),
        replace(PAPERS, user=issue_ssh(OTHER_AUTHORITY, record(STUDIO, "studio", authority=OTHER_AUTHORITY), NOW).user),
        replace(PAPERS, user=PAPERS.user.replace("cert-v01", "cert-v02")),
        replace(PAPERS, user=PAPERS.user[:-8]),
        replace(PAPERS, user=PAPERS.user + "A" * 5000),
        replace(PAPERS, user=""),
    ],
)  # fmt: skip
def test_what_is_not_the_fleets_for_this_machine_is_refused(found):
    with pytest.raises(Refused):
        open_ssh(found, STUDIO, FLEET_ID)


@proves("ssh.certificates")
@given(at=st.integers(0, 10_000), bit=st.integers(0, 7))
def test_no_bit_of_it_can_be_another(at: int, bit: int):
    kind, _, text = PAPERS.user.partition(" ")
    raw = bytearray(base64.b64decode(text))
    raw[at % len(raw)] ^= 1 << bit
    bent = replace(PAPERS, user=f"{kind} {base64.b64encode(raw).decode()}")
    with pytest.raises((Forged, Malformed)):
        open_ssh(bent, STUDIO, FLEET_ID)


@proves("ssh.certificates")
def test_none_is_made_for_a_machine_of_another_fleet_or_without_a_clock():
    with pytest.raises(Forged):
        issue_ssh(AUTHORITY, record(BUILD, "build", authority=OTHER_AUTHORITY), NOW)
    with pytest.raises(Malformed, match="clock"):
        issue_ssh(AUTHORITY, BUILD_RECORD, 0)
