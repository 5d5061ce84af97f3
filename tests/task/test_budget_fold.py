"""Budgets as rows: what is reserved, settled and spent, and what counts for nothing."""

import pytest
from tests.promise import proves
from tests.task.world import BUILD, OWNER, Stream

from muster.errors import Malformed
from muster.task import budget
from muster.task.budget import Amount, MoneyTerms
from muster.task.budget_fold import (
    RESERVATION,
    SETTLEMENT,
    SPENDING,
    PotFold,
    SpendingFold,
)
from muster.task.budget_kinds import BudgetReserve, BudgetSettle
from muster.task.kinds import AttemptFinish
from muster.task.pot import day_of

TASK, EPOCH = "ab" * 16, (7, 1)
POT = "person:ann"
DAY_MS = 86_400_000


@proves("budget.settled", "budget.pot")
def test_a_reservation_and_its_settlement_are_rows_once_and_the_first_of_each_counts():
    keeper = Stream(OWNER, folds=(PotFold(),))
    reserve = BudgetReserve(TASK, EPOCH, POT, BUILD, 3, 100, 2_000_000)
    reserved = keeper.append(reserve)
    keeper.append(BudgetReserve(TASK, EPOCH, POT, BUILD, 4, 1, 1))
    (row,) = keeper.rows.every(RESERVATION)
    assert (row.key, row.amount, row.day) == ((TASK, *EPOCH), Amount(100, 2_000_000), 3)
    assert (row.worker, row.entry) == (BUILD, reserved.id)
    keeper.append(BudgetSettle(TASK, EPOCH, POT, 40, 900_000, True), at_ms=9 * DAY_MS)
    keeper.append(BudgetSettle(TASK, EPOCH, POT, 41, 1))
    (end,) = keeper.rows.every(SETTLEMENT)
    assert (end.key, end.amount) == (row.key, Amount(40, 900_000))
    # It is of the day of its reservation, whenever it is settled.
    assert (end.day, end.estimated) == (3, 1)
    assert keeper.skipped == ["reserved-before", "settled-before"]
    # Of what stands in another stream the day is its own; another pot is another row.
    keeper.append(BudgetSettle(TASK, EPOCH, "run:" + "1" * 32, 1, 0), at_ms=9 * DAY_MS + 5)
    assert {each.day for each in keeper.rows.every(SETTLEMENT)} == {3, day_of(9 * DAY_MS)}


@proves("budget.spend")
def test_what_an_attempt_used_is_a_row_of_its_workers_own_once():
    worker = Stream(BUILD, folds=(SpendingFold(),))
    metered = {budget.METERED: 1, "tokens": 30, "usd_millionths": 5, budget.REPORTED: 31}
    worker.append(AttemptFinish(TASK, EPOCH, "done", usage=metered), at_ms=77)
    worker.append(AttemptFinish(TASK, EPOCH, "done", usage={"total_tokens": 9}))
    worker.append(AttemptFinish(TASK, (7, 2), "failed", usage={"total_tokens": 9}), at_ms=78)
    worker.append(AttemptFinish(TASK, (7, 3), "failed"))
    rows = sorted(worker.rows.every(SPENDING), key=lambda row: row.epoch_count)
    found = [(row.tokens, row.usd_millionths, row.estimated, row.at_ms) for row in rows]
    assert found == [(30, 5, 0, 77), (9, 0, 1, 78)]
    assert worker.skipped == ["spent-before"]


@proves("budget.cross-check")
@pytest.mark.parametrize(
    ("counted", "said", "off", "agrees"),
    [
        (100, 100, 0, True), (100, 110, 0, True), (100, 111, 11, False), (100, 89, -11, False),
        (100, 90, 0, True), (0, 50, 0, False), (50, 0, 0, False),
    ],
)  # fmt: skip
def test_what_an_agent_says_is_held_against_its_gateway(counted, said, off, agrees):
    usage = {budget.METERED: 1, "tokens": counted, budget.REPORTED: said}
    assert (budget.difference(usage), budget.agrees(usage)) == (off, agrees)
    del usage[budget.METERED]
    assert (budget.difference(usage), budget.agrees(usage)) == (0, False)


@proves("budget.retry")
@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("usd=5.00", Amount(0, 5_000_000)), ("usd=0.5", Amount(0, 500_000)), ("tokens=7", Amount(7)),
        ("tokens=7, usd=1", Amount(7, 1_000_000)), ("usd=1,tokens=7", Amount(7, 1_000_000)),
        *((bad, None) for bad in (
            "", "5", "usd=", "usd=0", "usd=1.234", "usd=-1", "tokens=0", "tokens=1e3", "tokens=٣",
            "tokens=99999999999", "usd=1,", "usd=1,usd=2", "eur=1", "usd=1;tokens=2",
        )),
    ],
)  # fmt: skip
def test_a_budget_as_a_person_types_it_is_understood_or_refused(text, amount):
    if amount is not None:
        assert budget.parsed(text) == amount
        return
    with pytest.raises(Malformed, match=r"write usd=5\.00, tokens=200000, or both"):
        budget.parsed(text)


@proves("budget.spend", "budget.checked")
def test_sums_read_as_people_write_them_and_limits_as_they_were_signed():
    assert budget.said(Amount(3, 1_250_000)) == "3 tokens and $1.25"
    assert [budget.said(Amount(0, usd)) for usd in (1, 10_000, 0)] == [
        "$0.000001",
        "$0.01",
        "nothing",
    ]
    assert budget.attempt_limit({"budget": {"tokens": 5}}, {}) == Amount(5)
    assert budget.attempt_limit({"budget": {"tokens": 5}}, {"usd_millionths": 7}) == Amount(0, 7)
    assert budget.run_limit(None, {}) == Amount()
    assert budget.run_limit(budget.RunBudget(tokens=9, time="2h"), {}) == Amount(9)
    assert budget.RunBudget(time="2h").time_ms == 7_200_000
    assert budget.RunBudget().time_ms == 0
    for odd in ({"tokens": "5"}, {"tokens": -1}, 5):
        with pytest.raises(Malformed, match="cannot be read"):
            budget.attempt_limit({"budget": odd}, {})
    assert MoneyTerms().keeper == ""
