"""Other fleets: their cards as they are pasted, and the places in them."""

import base64
from typing import Any

import pytest
from tests.fleet.world import (
    AUTHORITY,
    FLEET_ID,
    NOW,
    OTHER_AUTHORITY,
    record,
)
from tests.promise import proves

from muster import limits
from muster.errors import Malformed
from muster.fleet import certificate
from muster.fleet.machine import Identity
from muster.fleet.peer import (
    Card,
    Door,
    Foreign,
    fingerprint,
    foreign,
    read_card,
    split_place,
    write_card,
)
from muster.log import canon

ACME = OTHER_AUTHORITY.fleet
YARD = Identity(b"yard".ljust(32))
DOOR = Door("yard.acme.example:7447", YARD.machine, "yard")


def ca_of(authority: Any) -> str:
    chain = certificate.issue(authority, record(YARD, "yard", authority=authority), NOW)
    return chain.ca_pem.decode()


ACME_CA, OUR_CA = ca_of(OTHER_AUTHORITY), ca_of(AUTHORITY)
CARD = write_card(ACME, ACME_CA, [DOOR])


def pasted(card: Any) -> str:
    """A card of any contents, as nobody who is careful writes it."""
    raw = card if isinstance(card, bytes) else canon.encode(card)
    return "peer1." + base64.urlsafe_b64encode(raw).decode().rstrip("=")


def card(**changes: Any) -> dict[str, Any]:
    door = {"address": DOOR.address, "machine": DOOR.machine, "name": DOOR.name}
    return {"ca": ACME_CA, "doors": [door], "fleet": ACME, **changes}


def door(**changes: Any) -> dict[str, Any]:
    return card(doors=[{**card()["doors"][0], **changes}])


# --- the card -----------------------------------------------------------------------------------


@proves("peer.card-checked")
def test_a_card_says_who_a_fleet_is_and_where_it_is_dialled():
    assert read_card(CARD) == Card(ACME_CA, (DOOR,), ACME)
    assert pasted(card()) == CARD


@proves("peer.card-checked")
def test_a_card_that_a_terminal_or_a_mail_broke_into_lines_is_read():
    lines = "\r\n\t ".join(CARD[at : at + 60] for at in range(0, len(CARD), 60))
    assert read_card(f"  {lines}\n\u00a0") == read_card(CARD)


@pytest.mark.parametrize(
    "text",
    ["", "peer1", "peer2." + CARD[6:], "muster1.abc", "P" + CARD[1:]],
    ids=["empty", "bare", "newer", "invite", "upper"],
)
@proves("peer.card-checked")
def test_what_is_no_card_is_told_how_one_begins(text: str):
    with pytest.raises(Malformed, match=r"begins with `peer1\.` and this does not"):
        read_card(text)


@pytest.mark.parametrize(
    "text",
    [
        "peer1.",
        CARD[:-1],
        CARD[:-4],
        CARD + CARD,
        CARD + "====",
        CARD.replace("e", "\u0435"),  # A Cyrillic letter that looks the same.
        CARD[:50] + "\u200b" + CARD[50:],
        CARD[:50] + "\x00" + CARD[50:],
        CARD[:6] + "!" + CARD[7:],
        CARD[:6] + "\ud800" + CARD[7:],
    ],
    ids=[
        "empty",
        "cut",
        "shorter",
        "twice",
        "padded",
        "cyrillic",
        "zero-width",
        "nul",
        "sign",
        "surrogate",
    ],
)
@proves("peer.card-checked")
def test_a_card_of_which_something_is_missing_or_other_is_damaged(text: str):
    with pytest.raises(Malformed):
        read_card(text)


@pytest.mark.parametrize(
    "contents",
    [
        b"",
        b"null",
        b"[" * 200,
        b'{"ca":' * 200,
        b"\xff\xfe",
        canon.encode(card()).replace(b'","', b'", "', 1),
        card(fleet=ACME[:-1]),
        card(fleet=ACME.upper()),
        card(more=1),
        card(doors=[]),
        card(doors=card()["doors"] * (limits.PEER_DOORS_MAX + 1)),
        card(ca=""),
        card(ca="ä" + ACME_CA),
        card(ca=ACME_CA + "\n" * limits.RECORD_BYTES_MAX),
        card(ca=1),
        door(name="../yard"),
        door(name="Yard"),
        door(machine="yard"),
        door(address=""),
        door(address="yard.acme.example"),
        door(address="yard.acme.example:0"),
        door(address="yard.acme.example:65536"),
        door(address="-oProxyCommand=x:22"),
        door(address="yard acme:22"),
        door(address="yard.acme.example:7447\n"),
        door(address="http://yard:7447"),
        door(address="y\u0430rd:7447"),
        door(address="hub.\u212aelvin:7447"),
        door(address="y" * 200 + ":7447"),
        door(port=7447),
    ],
    ids=lambda each: repr(each)[-40:],
)
@proves("peer.card-checked")
def test_a_card_whose_contents_are_not_those_of_one_is_damaged(contents: Any):
    with pytest.raises(Malformed, match="The card is damaged: copy it again, all of it"):
        read_card(pasted(contents))


@proves("peer.card-checked", "fleet.other-fleet")
def test_a_certificate_counts_only_beside_the_id_of_the_fleet_that_vouches_for_it():
    for mixed in (card(ca=OUR_CA), card(fleet=FLEET_ID)):
        with pytest.raises(Malformed, match="damaged"):
            read_card(pasted(mixed))


@proves("peer.card-checked")
def test_a_leaf_of_the_fleet_is_no_authority():
    leaf = certificate.issue(OTHER_AUTHORITY, record(YARD, "yard", authority=OTHER_AUTHORITY), NOW)
    with pytest.raises(Malformed, match="damaged"):
        read_card(pasted(card(ca=leaf.tls_pem.decode())))


@proves("peer.card-checked")
def test_a_card_of_as_many_doors_as_there_may_be_fits_and_a_longer_text_is_not_decoded():
    doors = [
        Door(f"{'y' * 190}.b:6{n:03}", f"{n:064x}", "y" * limits.NAME_CHARS_MAX)
        for n in range(limits.PEER_DOORS_MAX)
    ]
    text = write_card(ACME, ACME_CA, doors)
    assert len(text) <= limits.PEER_CARD_CHARS_MAX
    assert read_card(text).doors == tuple(doors)
    for size in (limits.PEER_CARD_CHARS_MAX + 1, 100 * limits.PEER_CARD_CHARS_MAX):
        with pytest.raises(Malformed, match="damaged"):
            read_card("peer1.".ljust(size, "A"))


@pytest.mark.parametrize(
    ("fleet", "ca", "doors"),
    [
        (FLEET_ID, ACME_CA, [DOOR]),
        (ACME, OUR_CA, [DOOR]),
        (ACME, ACME_CA, []),
        (ACME, ACME_CA, [DOOR] * (limits.PEER_DOORS_MAX + 1)),
        (ACME, ACME_CA, [Door("nowhere", YARD.machine, "yard")]),
        (ACME, ACME_CA, [Door(DOOR.address, "yard", "yard")]),
    ],
)
@proves("peer.card-checked")
def test_a_card_that_nobody_could_take_in_is_never_shown(fleet: Any, ca: str, doors: list[Door]):
    with pytest.raises(Malformed):
        write_card(fleet, ca, doors)


@proves("peer.card-checked")
def test_what_two_operators_read_to_each_other_is_all_of_the_id():
    groups = fingerprint(ACME).split(" ")
    assert ("".join(groups), {*map(len, groups)}) == (ACME, {8})


# --- who and where ------------------------------------------------------------------------------


@proves("peer.reaches-nothing-else")
def test_a_machine_of_another_fleet_is_called_so_and_nobody_else_is():
    other = Foreign(ACME, YARD.machine)
    assert foreign(str(other)) == other
    for peer in (
        "",
        YARD.machine,
        f"{ACME}/{YARD.machine}",
        f"foreign:{YARD.machine}",
        f"foreign:{ACME}/{YARD.machine[:-1]}",
        f"foreign:{ACME}/{YARD.machine}0",
        f"foreign:{ACME.upper()}/{YARD.machine}",
        f"foreign:{ACME}/{YARD.machine}\n",
        f" foreign:{ACME}/{YARD.machine}",
        f"foreign:{ACME}/{'٣' * 64}",
    ):
        assert foreign(peer) is None


@proves("peer.place-named")
def test_a_place_in_another_fleet_is_a_machine_or_an_agent_on_one():
    assert split_place("yard.acme") == ("", "yard", "acme")
    assert split_place("claude@yard.acme") == ("claude", "yard", "acme")
    longest = "a" * limits.NAME_CHARS_MAX
    assert split_place(f"{longest}@{longest}.{longest}") == (longest,) * 3


@pytest.mark.parametrize(
    "to",
    [
        "",
        "yard",
        ".",
        "yard.",
        ".acme",
        "@yard.acme",
        "claude@yard",
        "claude@.acme",
        "a@b@yard.acme",
        "claude@yard.acme.example",
        "Claude@yard.acme",
        "claude@Yard.acme",
        "yard.acme\n",
        "../..",
        "yard\x00.acme",
        "y\u00e4rd.acme",
        "-rf.acme",
        "a" * (limits.NAME_CHARS_MAX + 1) + ".acme",
    ],
)
@proves("peer.place-named")
def test_a_place_that_nobody_can_be_at_is_refused_with_how_one_is_written(to: str):
    with pytest.raises(Malformed, match=r"write machine\.fleet, or agent@machine\.fleet"):
        split_place(to)


@proves("peer.place-named")
def test_of_a_place_however_long_the_refusal_quotes_a_little():
    with pytest.raises(Malformed) as refused:
        split_place("\x1b[2J" * 10_000)
    assert len(str(refused.value)) < 500
    assert "\x1b" not in str(refused.value)
