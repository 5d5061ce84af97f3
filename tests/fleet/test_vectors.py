"""The frozen bytes of tests/vectors/fleet.json: read, checked against the code, never written."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.promise import proves

from muster.errors import Refused
from muster.fleet.capability import read_token
from muster.fleet.certificate import CertificateChain, issue, open_ca, tls_files
from muster.fleet.derive import PURPOSES, derive_key, public_key
from muster.fleet.invite import read_invite, token_hash, write_invite
from muster.fleet.join import _RENEW, open_join
from muster.fleet.machine import Authority, Identity, Operator
from muster.fleet.record import open_binding, open_operator, open_record, open_revocation
from muster.fleet.statement import open_statement

PATH = Path(__file__).parents[1] / "vectors" / "fleet.json"
# Whoever changes this line changes documents that were signed: see tests/vectors/README.md.
SHA256 = "9973b7306fdceb6525617dab76181a17e0ff34cf3a09c5477e1ba4fd58dee317"
VECTORS: dict[str, Any] = json.loads(PATH.read_text(encoding="utf-8"))
FLEET = VECTORS["fleet"]


def _renew(raw: bytes, fleet: str) -> object:
    document = _RENEW.read(raw, fleet)
    return document.check(document.value.machine)


OPENERS: dict[str, Callable[[bytes, Any], object]] = {
    "binding": open_binding,
    "record": open_record,
    "operator": open_operator,
    "revocation": open_revocation,
    "statement": open_statement,
    "grant": open_statement,
    "take": open_statement,
    "join": open_join,
    "renew": _renew,
}


def seed(name: str) -> bytes:
    return bytes.fromhex(VECTORS["seeds"][name])


@proves("fleet.vectors")
def test_the_frozen_file_is_the_one_that_was_frozen():
    assert hashlib.sha256(PATH.read_bytes()).hexdigest() == SHA256


@proves("fleet.vectors")
def test_frozen_seeds_give_the_frozen_keys():
    assert Authority(seed("authority")).fleet == FLEET
    assert Operator(seed("alice")).key == VECTORS["operator"]
    assert Identity(seed("studio")).machine == VECTORS["machine"]
    assert tuple(VECTORS["sub_keys"]) == PURPOSES
    for purpose, known in VECTORS["sub_keys"].items():
        secret = derive_key(seed("studio"), purpose)
        assert (secret.hex(), public_key(purpose, secret).hex()) == (
            known["secret"],
            known["public"],
        )
    for purpose, known in VECTORS["authority_keys"].items():
        assert derive_key(seed("authority"), purpose).hex() == known


@pytest.mark.parametrize("name", OPENERS)
@proves("fleet.vectors")
def test_a_frozen_document_is_accepted(name: str):
    assert OPENERS[name](VECTORS["accept"][name].encode(), FLEET)


@pytest.mark.parametrize("case", VECTORS["refuse"], ids=lambda c: f"{c['document']}: {c['why']}")
@proves("fleet.vectors")
def test_a_frozen_bad_document_is_refused(case: dict[str, str]):
    with pytest.raises(Refused):
        OPENERS[case["document"]](case["text"].encode(), FLEET)


@proves("fleet.vectors")
def test_the_frozen_invite_is_read_and_its_damaged_copies_are_not():
    known = VECTORS["invite"]
    invite = read_invite(known["text"])
    assert (invite.fleet, invite.token.hex(), invite.address) == (
        FLEET,
        known["token"],
        known["address"],
    )
    assert token_hash(invite.token) == known["token_sha256"]
    assert write_invite(invite.fleet, invite.token, invite.address) == known["text"]
    for damaged in known["refuse"]:
        with pytest.raises(Refused):
            read_invite(damaged)


@proves("fleet.vectors")
def test_the_frozen_certificates_are_rebuilt_byte_for_byte():
    certificates = CertificateChain(VECTORS["tls_pem"].encode(), VECTORS["ca_pem"].encode())
    assert open_ca(certificates.ca_pem, FLEET) == certificates.ca_pem
    assert tls_files(Identity(seed("studio")), certificates)[0] == certificates.tls_pem
    known = open_record(VECTORS["accept"]["record"].encode(), FLEET)
    again = issue(Authority(seed("authority")), known, VECTORS["now_ms"])
    assert again == certificates


@proves("fleet.vectors")
def test_the_frozen_capability_is_read():
    known = VECTORS["capability"]
    assert read_token(known["token"]) == (known["task"], known["sha256"])
