"""Amounts as people write and read them, and what an agent's own words of its use come to."""

import pytest
from tests.promise import proves

from muster.errors import Malformed
from muster.task.budget import (
    MILLION,
    Amount,
    agrees,
    difference,
    millionths,
    parsed,
    reported_tokens,
    said,
    usd,
)


@proves("budget.retry")
def test_an_amount_is_read_as_people_write_it_and_anything_else_is_refused():
    for text, tokens, cost in (
        ("usd=5.00", 0, 5 * MILLION), ("usd=5", 0, 5 * MILLION), ("usd=0.05", 0, 50_000),
        ("tokens=200000", 200_000, 0), ("usd=1.50,tokens=7", 7, 1_500_000),
        (" tokens=7 , usd=1.50 ", 7, 1_500_000), ("tokens=9999999999", 9_999_999_999, 0),
    ):  # fmt: skip
        assert parsed(text) == Amount(tokens, cost), text
    for text in (
        "", "5", "usd=", "usd=0", "usd=0.00", "usd=-1", "usd=1.234", "usd=1,50", "eur=5", "usd=5=",
        "tokens=0", "tokens=-7", "tokens=1.5", "tokens=٣", "tokens=1e9", "tokens=10000000000",
        "usd=1,usd=2", "tokens=1,tokens=2", "usd=1,", "usd=1,time=5m", f"tokens={'9' * 5_000}",
        f"usd={'9' * 5_000}",
    ):  # fmt: skip
        with pytest.raises(Malformed, match="is no budget"):
            parsed(text)


@proves("budget.spend")
def test_a_sum_is_shown_with_its_cents_and_small_ones_to_the_millionth():
    shown = {0: "$0.00", 1: "$0.000001", 50_000: "$0.05", 1_250_000: "$1.25", MILLION: "$1.00"}
    shown |= {1_200_000: "$1.20", 123_456_789: "$123.456789", 10 * MILLION + 10: "$10.00001"}
    for amount, text in shown.items():
        assert usd(amount) == text
        if amount % 10_000 == 0:
            assert millionths(text.removeprefix("$")) == amount
    assert [millionths(each) for each in (None, "", "2", "2.5", "2.50")] == [
        0, 0, 2 * MILLION, 2_500_000, 2_500_000,
    ]  # fmt: skip
    assert said(Amount()) == "nothing"
    assert said(Amount(7, 50_000)) == "7 tokens and $0.05"
    assert (said(Amount(7)), said(Amount(0, 1))) == ("7 tokens", "$0.000001")


# What was counted, what the agent says, and by how many parts of a hundred that is off.
WORDS = [
    (100, 100, 0), (100, 110, 0), (100, 111, 11), (100, 90, 0), (100, 89, -11), (100, 300, 200),
    (100, 0, 0), (0, 100, 0), (1, 2, 100),
]  # fmt: skip


@proves("budget.cross-check")
def test_what_an_agent_says_is_off_where_both_say_something_and_more_than_a_tenth_differs():
    for counted, reported, off in WORDS:
        usage = {"tokens": counted, "metered": 1, "reported_tokens": reported}
        assert difference(usage) == off, usage
        assert agrees(usage) is (off == 0 and counted > 0 and reported > 0)
    assert reported_tokens({"input_tokens": 2, "output_tokens": 3, "thought_tokens": 4}) == 9
    assert reported_tokens({"total_tokens": 5, "input_tokens": 9}) == 5
    assert reported_tokens({}) == reported_tokens({"input_tokens": -3}) == 0
