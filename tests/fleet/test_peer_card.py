"""A pasted card is one fleet's word, and nothing stands in it that TLS would believe besides."""

import base64

import pytest
from tests.fleet.test_certificate import AUTHORITY, OTHER_AUTHORITY, PAPERS
from tests.promise import proves

from muster.errors import Malformed
from muster.fleet.assembly import _peers
from muster.fleet.certificate import open_ca
from muster.fleet.peer import Card, Door, read_card, write_card
from muster.log import canon

DOOR = Door("192.0.2.1:7447", "a" * 64, "yard")
CA = PAPERS.ca_pem.decode()
NOT_ONE = "-----BEGIN CERTIFICATE-----\nMAMCAQU=\n-----END CERTIFICATE-----\n"


def card(ca: str) -> str:
    raw = canon.encode(Card(ca, (DOOR,), AUTHORITY.fleet))
    return "peer1." + base64.urlsafe_b64encode(raw).decode().rstrip("=")


SPOILED = {
    "no end of the line": CA.rstrip("\n"),
    "something that is none behind it": CA + NOT_ONE,
    "itself twice": CA + CA,
    "words before it": "hello\n" + CA,
    "an empty line": CA + "\n",
}


@proves("peer.both-operators")
@pytest.mark.parametrize("what", SPOILED)
def test_a_card_with_anything_but_one_certificate_is_damaged(what: str) -> None:
    assert read_card(card(CA)).ca == CA
    with pytest.raises(Malformed):
        read_card(card(SPOILED[what]))
    with pytest.raises(Malformed):
        open_ca(SPOILED[what].encode(), AUTHORITY.fleet)
    with pytest.raises(Malformed):
        write_card(AUTHORITY.fleet, SPOILED[what], [DOOR])


@proves("peer.both-operators")
def test_a_card_that_an_older_version_took_in_ends_no_roster() -> None:
    rows = [
        (AUTHORITY.fleet, 1, "acme", card(CA + NOT_ONE)),
        (OTHER_AUTHORITY.fleet, 1, "fine", card(CA)),
    ]
    found = _peers(lambda *_, **__: rows, ["o"], frozenset(["o"]))  # type: ignore[arg-type]
    assert {fleet: peer.name for fleet, peer in found.items()} == {OTHER_AUTHORITY.fleet: "fine"}
