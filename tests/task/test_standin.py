"""Of what operators said about a machine's stand-in the newest word is kept, and no forged one."""

import pytest
from msgspec import structs
from tests.promise import proves
from tests.task.orders import FLEET_ID, NOW_MS, OPERATOR, signed, standin
from tests.task.world import BUILD, OWNER, STUDIO, Stream

from muster.task.standin import STANDINS, StandinFold


def stream() -> Stream:
    return Stream(STUDIO, folds=(StandinFold(FLEET_ID),))


@proves("adopt.stands-in")
def test_whom_an_operator_named_is_known_with_how_long_and_by_whose_word():
    told = stream()
    entry = told.append(standin(OWNER, BUILD, STUDIO), (), NOW_MS)
    row = (told.rows.stream, OWNER, BUILD, 30_000, NOW_MS, OPERATOR.public.hex(), entry.id)
    assert told.rows.get(STANDINS, OWNER) == row


@proves("adopt.stands-in")
def test_the_order_that_was_signed_last_counts_and_may_name_nobody():
    told = stream()
    told.append(standin(OWNER, BUILD, STUDIO), (), NOW_MS)
    told.append(standin(OWNER, "", STUDIO, issued_ms=NOW_MS + 1), (), NOW_MS + 1)
    for late in (0, 1):
        told.append(standin(OWNER, BUILD, STUDIO, issued_ms=NOW_MS + late), (), NOW_MS + 2)
    row = told.rows.get(STANDINS, OWNER)
    assert row is not None
    assert (row.by, row.issued_ms) == ("", NOW_MS + 1)
    assert told.skipped == ["standin-older"] * 2


GOOD = standin(OWNER, BUILD, STUDIO)


@proves("adopt.stands-in")
@pytest.mark.parametrize(
    "forged",
    [
        structs.replace(GOOD, by=STUDIO),
        structs.replace(GOOD, by=""),
        structs.replace(GOOD, machine=BUILD),
        structs.replace(GOOD, after_ms=1_000),
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
