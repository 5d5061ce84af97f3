"""Letters as entries: what stands for a letter that went out, was settled, or came in."""

from typing import Any

import pytest
from tests.fleet.test_letter import (
    ACME,
    GOOD,
    SHED_RECORD,
    YARD,
    YARD_RECORD,
    receipt,
    said,
    written,
)
from tests.fleet.world import (
    BUILD,
    BUILD_RECORD,
    FLEET_ID,
    NOW,
    OTHER_AUTHORITY,
    SALT,
    STUDIO,
    record,
    stream,
)
from tests.promise import proves

from muster import limits
from muster.fleet.document import document_id
from muster.fleet.letter import sign_letter, sign_receipt
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import compose
from muster.log.fold import Skip
from muster.log.kind import kind_of
from muster.message.letter import (
    SENT,
    SETTLED,
    TAKEN,
    LetterFold,
    PeerSend,
    PeerSettle,
    PeerTake,
    SentRow,
    SettledRow,
    TakenRow,
)

GRANT = "9" * 64


class Written:
    """A machine's stream and the rows of its letters."""

    def __init__(self, by: Any = BUILD, fleet: Any = FLEET_ID) -> None:
        self.stream, self.fold = stream(by), LetterFold(fleet)
        self.held: dict[tuple[Any, ...], Any] = {}
        self.size = 0
        self.rest = None

    def get(self, table: Any, *key: Any) -> Any:
        return self.held.get((table.name, *key))

    def append(self, body: Any, kind: str = "", *, raw: bytes | None = None) -> Any:
        """The row that it makes; why it makes none."""
        raw = canon.encode(body) if raw is None else raw
        seq, kind = self.size, kind or kind_of(type(body))
        assert kind in self.fold.kinds
        self.size += 1
        entry = compose(self.stream, seq, Stamp(NOW + seq, 0), kind, "muster", [], raw, SALT)
        if raw == ERASED:
            entry = entry.without_body()
        before = dict(self.held)
        try:
            (row,) = self.fold.apply(entry, self)  # type: ignore[arg-type]
        except Skip as skip:
            assert self.held == before
            return skip.reason
        table = next(each for each in self.fold.tables if each.row is type(row))
        self.held[table.name, *row[1 : 1 + table.key]] = row
        return row


ERASED = b'{"erased":1}'
OURS = sign_letter(
    BUILD.signer("statement"), said(fleet=ACME, by=BUILD.machine, door=YARD.machine, of=FLEET_ID)
)
OUR_ID = document_id(OURS)


def send(letter: bytes = OURS, fleet: str = ACME, key: str = "") -> PeerSend:
    return PeerSend(fleet, letter.decode(), key)


def answer(**changes: str) -> bytes:
    """The receipt of acme's yard for the letter of ours."""
    whose = {"fleet": FLEET_ID, "door": YARD.machine, "letter": OUR_ID, "of": ACME, **changes}
    return sign_receipt(YARD.signer("held"), **whose)


def settle(raw: bytes | None = None, beside: Any = YARD_RECORD, **changes: str) -> PeerSettle:
    whose = {"door": YARD.machine, "fleet": ACME, "letter": OUR_ID, **changes}
    raw = answer() if raw is None else raw
    return PeerSettle(receipt=raw.decode(), record=beside.raw.decode(), **whose)


def take(letter: bytes = GOOD, beside: Any = YARD_RECORD, grant: str = GRANT) -> PeerTake:
    return PeerTake(grant, letter.decode(), beside.raw.decode())


# --- what goes out ------------------------------------------------------------------------------


@proves("peer.letter-settles-by-receipt")
def test_a_letter_that_is_to_go_out_is_a_row_with_its_door_and_what_makes_it_one():
    mine = Written()
    row = mine.append(send(key="deploy-7"))
    assert row == SentRow(mine.stream, OUR_ID, 0, ACME, YARD.machine, "deploy-7", NOW)
    assert mine.get(SENT, OUR_ID) == row


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (send(fleet=FLEET_ID), "letter-forged"),
        (send(b"dear acme"), "letter-forged"),
        (send(answer()), "letter-forged"),
        (send(OURS[:-1]), "letter-forged"),
        (send(OURS + b"\n"), "letter-forged"),
        (send(b""), "letter-forged"),
        (send(fleet="acme"), "bad-body"),
        (send(key="k" * 201), "bad-body"),
        (send(b"x" * (limits.PEER_LETTER_BYTES_MAX + 1)), "bad-body"),
    ],
)
@proves("peer.forged-refused")
def test_what_is_no_letter_for_that_fleet_does_not_go_out(body: PeerSend, reason: str):
    mine = Written()
    assert mine.append(body) == reason
    assert not mine.held


# --- what settles it ----------------------------------------------------------------------------


@proves("peer.letter-settles-by-receipt")
def test_the_receipt_of_its_door_settles_a_letter():
    mine = Written()
    mine.append(send())
    assert mine.append(settle()) == SettledRow(mine.stream, OUR_ID, NOW + 1)
    assert mine.get(SETTLED, OUR_ID) is not None


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (settle(answer(letter="0" * 64)), "letter-forged"),
        (settle(letter="0" * 64), "letter-forged"),
        (settle(door=BUILD.machine), "letter-forged"),
        (settle(fleet=FLEET_ID), "letter-forged"),
        (settle(answer(fleet=ACME)), "letter-forged"),
        (settle(receipt()), "letter-forged"),
        (settle(OURS), "letter-forged"),
        (settle(b"held"), "letter-forged"),
        (settle(beside=SHED_RECORD), "letter-forged"),
        (settle(beside=record(YARD, "yard")), "letter-forged"),
        (settle(letter="hello"), "bad-body"),
        (settle(b"x" * (limits.PEER_LETTER_BYTES_MAX + 1)), "bad-body"),
    ],
)
@proves("peer.letter-settles-by-receipt")
def test_nothing_else_settles_it(body: PeerSettle, reason: str):
    mine = Written()
    mine.append(send())
    assert mine.append(body) == reason
    assert mine.get(SETTLED, OUR_ID) is None


# --- what comes in ------------------------------------------------------------------------------


@proves("peer.taken-once")
def test_a_letter_that_its_door_took_is_a_row_with_who_says_it():
    door = Written()
    row = door.append(take())
    expected = (document_id(GOOD), 0, ACME, YARD.machine, "yard", NOW)
    assert row == TakenRow(door.stream, *expected)


@proves("peer.taken-once")
def test_a_letter_that_is_shown_again_is_known_and_another_of_the_same_words_is_not():
    door = Written()
    first = door.append(take())
    assert door.append(take()) == "letter-known"
    # The record beside it and the grant do not make it another letter.
    renewed = record(YARD, "yard", serial=2, authority=OTHER_AUTHORITY)
    assert door.append(take(beside=renewed, grant="8" * 64)) == "letter-known"
    assert door.get(TAKEN, first.letter) == first
    assert door.append(take(written(nonce="1" * 32))).letter != first.letter


@proves("peer.forged-refused")
def test_a_door_takes_no_letter_for_another_door():
    assert Written(STUDIO).append(take()) == "letter-of-another-door"
    door = Written()
    assert door.append(take(written(door=STUDIO.machine))) == "letter-of-another-door"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (take(written(purpose="held")), "letter-forged"),
        (take(GOOD.replace(b'"hello"', b'"hullo"')), "letter-forged"),
        (take(written(fleet=ACME)), "letter-forged"),
        (take(written(BUILD, by=BUILD.machine, of=FLEET_ID), BUILD_RECORD), "letter-forged"),
        (take(beside=SHED_RECORD), "letter-forged"),
        (take(beside=record(YARD, "yard")), "letter-forged"),
        (take(receipt()), "letter-forged"),
        (take(b"hello"), "letter-forged"),
        (take(grant="none"), "bad-body"),
        (take(b"x" * (limits.PEER_LETTER_BYTES_MAX + 1)), "bad-body"),
    ],
)
@proves("peer.forged-refused")
def test_a_letter_that_does_not_hold_is_not_taken(body: PeerTake, reason: str):
    door = Written()
    assert door.append(body) == reason
    assert not door.held


@proves("peer.letter-readable")
def test_the_longest_letter_of_the_widest_signs_fits_into_the_entries_of_both_ends():
    letter = written(text="\x00" * limits.PEER_TEXT_BYTES_MAX, to="a" * 63 + "@" + "b" * 63)
    long = record(YARD, "y" * 63, roles=("edge", "hub", "mobile"), authority=OTHER_AUTHORITY)
    for body in (take(letter, long), send(letter, FLEET_ID, "k" * 200)):
        assert len(canon.encode(body)) <= limits.BODY_BYTES_MAX
        assert isinstance(Written().append(body), NamedRow)


NamedRow = (SentRow, TakenRow)


@pytest.mark.parametrize("kind", sorted(LetterFold.kinds))
@proves("peer.forged-refused")
def test_an_entry_without_its_body_or_of_another_shape_makes_no_row(kind: str):
    mine = Written()
    assert mine.append(None, kind, raw=ERASED) == "no-body"
    odd = [b"", b"{}", b"[]", b'{"letter":"\\ud800"}', b"\xff", b"[" * 300, b'{"more":1}']
    assert {mine.append(None, kind, raw=raw) for raw in odd} == {"bad-body"}
    assert not mine.held
