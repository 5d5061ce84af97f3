"""Of what operators said about a machine's stand-in the newest word is kept, and no forged one."""

import pytest
from msgspec import structs
from tests.promise import proves
from tests.task.orders import FLEET_ID, NOW_MS, OPERATOR, signed, standin
from tests.task.world import BUILD, OWNER, STUDIO, Stream

from muster.task.standin import STANDINS, StandinFold, order_of


def stream() -> Stream:
    return Stream(STUDIO, folds=(StandinFold(FLEET_ID),))


@proves("adopt.stands-in")
def test_whom_an_operator_named_is_known_with_how_long_and_by_whose_word():
    told = stream()
    entry = told.append(standin(OWNER, BUILD, STUDIO), (), NOW_MS)
    body = standin(OWNER, BUILD, STUDIO)
    key = OPERATOR.public.hex()
    row = (told.rows.stream, OWNER, order_of(body), "", BUILD, 30_000, key, entry.id, "")
    assert told.rows.get(STANDINS, OWNER, order_of(body)) == row


@proves("adopt.stands-in")
def test_each_order_is_kept_once_with_the_one_that_it_replaces():
    told = stream()
    first = standin(OWNER, BUILD, STUDIO)
    other = standin(OWNER, "", STUDIO, replaces=order_of(first), issued_ms=NOW_MS - 1)
    for body in (first, other, first, other):
        told.append(body, (), NOW_MS)
    row = told.rows.get(STANDINS, OWNER, order_of(other))
    assert row is not None
    assert (row.by, row.replaces) == ("", order_of(first))
    assert told.skipped == ["standin-again"] * 2


@proves("adopt.elected")
def test_several_who_are_named_are_known_in_their_order():
    told = stream()
    body = standin(OWNER, BUILD, STUDIO, others=("a" * 64, STUDIO))
    told.append(body, (), NOW_MS)
    row = told.rows.get(STANDINS, OWNER, order_of(body))
    assert row is not None
    assert row.named == body.named == (BUILD, "a" * 64, STUDIO)
    nobody = standin(OWNER, "", STUDIO)
    assert nobody.named == ()


GOOD = standin(OWNER, BUILD, STUDIO)


@proves("adopt.stands-in")
@pytest.mark.parametrize(
    "forged",
    [
        structs.replace(GOOD, by=STUDIO),
        structs.replace(GOOD, by=""),
        structs.replace(GOOD, machine=BUILD),
        structs.replace(GOOD, after_ms=1_000),
        structs.replace(GOOD, others=(STUDIO,)),
        structs.replace(GOOD, replaces="1" * 64),
        structs.replace(GOOD, statement="no order"),
        standin(OWNER, BUILD, BUILD),
        structs.replace(GOOD, statement=signed("takeover", OWNER, STUDIO, {"machine": OWNER})),
    ],
)
def test_what_no_order_says_makes_nobody_a_standin(forged):
    told = stream()
    told.append(forged, (), NOW_MS)
    assert told.skipped == ["standin-not-ordered"]
    assert told.rows.held == {}
