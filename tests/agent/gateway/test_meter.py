"""What calls use and cost, and when no other may begin; no clock and no network."""

import random

import pytest
from tests.promise import proves

from muster.agent.gateway.meter import UNSAID_OUTPUT, Full, Limits, Meter, Reserved, usd
from muster.agent.gateway.prices import Prices, known, read
from muster.agent.gateway.usage import TOKENS_MAX, Usage, count
from muster.errors import Broken

DAY = "2026-11-28"
SONNET = "claude-sonnet-5"


def meter(prices=None, **limits):
    return Meter(Limits(**limits), prices or known(DAY))


@proves("gateway.prices")
def test_a_call_costs_what_its_day_its_prompt_and_each_kind_of_token_cost():
    prices = known(DAY)
    used = Usage(input=1_000, output=2_000, cache_read=30_000, cache_write=400, cache_write_hour=50)
    # Millionths of a dollar: 1000 x 2 + 2000 x 10 + 30000 x 0.2 + 400 x 2.5 + 50 x 4.
    assert prices.of("claude-sonnet-5").of(used) == 29_200 * 10**6
    dated = Usage(cache_read=10**6)
    assert known("2026-10-06").of("claude-sonnet-5-5").of(dated) == 200_000 * 10**6
    assert known("2026-10-07").of("claude-sonnet-5-5").of(dated) == 100_000 * 10**6


@proves("gateway.prices")
def test_a_long_prompt_costs_more_with_all_of_its_tokens_wherever_they_came_from():
    price = known(DAY).of("gemini-2.5-pro")
    short = Usage(input=100_000, cache_read=100_000, output=10)
    assert price.of(short) == (125_000 + 12_500 + 100) * 10**6
    assert price.of(short + Usage(cache_read=1)) == (250_000 + 25_000 + 150) * 10**6 + 250_000


@proves("gateway.prices")
@pytest.mark.parametrize(
    ("model", "like"),
    [
        ("claude-haiku-4-5-20251001", "claude-haiku-4-5"),
        ("gpt-5-2026-01-31", "gpt-5"),
        ("claude-opus-4-20250514", "claude-opus-4-1"),
    ],
)
def test_the_date_of_a_model_is_no_part_of_its_name(model, like):
    assert known(DAY).of(model) == known(DAY).of(like) is not None


@proves("gateway.prices")
@pytest.mark.parametrize("model", ["", "gpt-5.9", "claude-sonnet-5-9", "gpt-5-pro", "scripted"])
def test_a_model_that_only_looks_alike_has_no_price(model):
    assert known(DAY).of(model) is None


@proves("gateway.prices")
def test_a_person_s_table_wins_and_the_longest_name_counts():
    row = (
        '[[price]]\nmodels = ["{}"]\nfrom = "2026-01-01"\ninput = {}\noutput = 1\ncache_read = 1\n'
    )
    prices = known(DAY, row.format("mine-*", 3) + row.format("mine-small", 2))
    assert prices.of("mine-large").rates.input == 3_000_000
    assert prices.of("mine-small").rates.input == 2_000_000
    assert known(DAY, row.format(SONNET, 7)).of(SONNET).rates.input == 7_000_000
    assert read(row.format("later", 1).replace("2026-01-01", "2026-12-01"), DAY) == {}


@proves("gateway.prices")
@pytest.mark.parametrize(
    "text", ["[[price", "[[price]]", "price = 3", '[[price]]\nfrom = "1"\nmodels = ["a"]\ninput=-1']
)
def test_a_table_in_another_form_is_refused(text):
    with pytest.raises(Broken, match="not in its form"):
        read(text, DAY)


@proves("gateway.prices")
def test_a_fraction_of_a_millionth_is_kept_until_the_sum_is_rounded_up():
    told = meter()
    for _ in range(3):
        told.settle(told.reserve("claude-haiku-5-5"), Usage(input=1))
    # Three times a tenth of a millionth.
    assert told.usd_millionths == 1
    for _ in range(7):
        told.settle(told.reserve("claude-haiku-5-5"), Usage(input=1))
    assert told.usd_millionths == 1


@proves("gateway.prices")
def test_the_model_that_answered_says_the_price_and_one_without_a_price_is_counted_in_tokens():
    told = meter()
    call = told.reserve("an-alias")
    assert told.settle(call, Usage(input=10**6), "claude-sonnet-5") == 2_000_000
    assert told.settle(told.reserve("an-alias"), Usage(output=7), "another") == 0
    assert (told.used.tokens, told.unpriced, told.usd_millionths) == (10**6 + 7, 7, 2_000_000)


@proves("gateway.prices", "gateway.budget")
def test_a_budget_in_dollars_refuses_a_model_without_a_price():
    told = meter(usd_millionths=1_000_000)
    full = told.reserve("scripted")
    assert isinstance(full, Full)
    assert not full.waits
    assert "nobody has said what the model 'scripted' costs" in full.why
    assert isinstance(meter(tokens=10).reserve("scripted"), Reserved)


@proves("gateway.budget")
def test_a_call_beyond_the_limit_is_refused_with_a_sentence_and_counts_nothing():
    told = meter(tokens=100)
    told.settle(told.reserve(SONNET), Usage(input=60, output=40))
    full = told.reserve(SONNET)
    assert full == Full(
        why="the budget of this task is spent: 100 of 100 tokens; give it more, and begin it again"
    )
    assert (told.used.tokens, told.running, told.refused) == (100, 0, 1)
    money = meter(usd_millionths=1_000_000)
    money.settle(money.reserve(SONNET), Usage(output=100_000))
    assert "$1.00 of $1.00" in money.reserve(SONNET).why


@proves("gateway.budget")
def test_the_output_of_a_call_is_limited_to_what_is_left_in_tokens_and_in_money():
    told = meter(tokens=10_000)
    assert told.reserve(SONNET, 4_000).output_max == 4_000
    assert told.reserve(SONNET, 32_000).output_max == 6_000
    # A dollar buys 100,000 tokens of output.
    assert meter(usd_millionths=1_000_000).reserve(SONNET, 10**6).output_max == 100_000
    assert meter().reserve(SONNET, 10**6).output_max == 10**6


@proves("gateway.budget")
def test_a_call_that_says_no_most_is_told_one_only_where_little_is_left():
    assert meter(tokens=UNSAID_OUTPUT).reserve(SONNET).output_max == 0
    assert meter(tokens=500).reserve(SONNET).output_max == 500
    assert meter().reserve(SONNET).output_max == 0


@proves("gateway.budget")
def test_calls_at_once_share_what_is_left_and_one_without_room_waits_for_those_that_run():
    told = meter(tokens=10_000)
    first = told.reserve(SONNET, 9_000)
    second = told.reserve(SONNET, 9_000)
    assert (first.output_max, second.output_max) == (9_000, 1_000)
    third = told.reserve(SONNET, 100)
    assert third == Full(why="calls that run may use all that is left", waits=True)
    told.settle(first, Usage(input=10, output=20))
    assert told.reserve(SONNET, 100).output_max == 100
    assert told.refused == 0, "who waits is not refused"


@proves("gateway.budget")
def test_a_call_for_which_too_little_is_left_is_refused_and_not_begun():
    told = meter(tokens=2_000)
    full = told.reserve(SONNET, 32_000, output_min=2_048)
    assert "2000 tokens are left, and this call needs 2048" in full.why
    assert not full.waits


@proves("gateway.budget")
def test_whoever_waits_is_told_of_each_call_that_ends_also_another_s():
    told, heard = meter(tokens=100), []
    for name in ("one gateway", "another"):
        told.follow(lambda name=name: heard.append((name, told.running)))
    told.settle(told.reserve(SONNET), Usage(input=5))
    assert heard == [("one gateway", 0), ("another", 0)]


@proves("gateway.budget")
def test_a_call_is_settled_once():
    told = meter(tokens=100)
    call = told.reserve(SONNET)
    told.settle(call, Usage(input=5))
    told.settle(call, Usage(input=5))
    assert told.used.tokens == 5


@proves("gateway.budget")
@pytest.mark.parametrize("seed", range(200))
def test_calls_at_once_pass_the_limit_by_at_most_one_call_of_each_that_runs(seed):
    """Each answers with no more output than it was granted, and with any prompt."""
    chance = random.Random(seed)
    unit = chance.choice(["tokens", "usd_millionths"])
    limit = chance.randrange(1, 200_000)
    told = meter(**{unit: limit})
    running, at_most, largest = [], 0, 0

    def spent():
        return told.used.tokens if unit == "tokens" else told.usd_millionths

    for _ in range(300):
        if running and chance.random() < 0.5:
            call = running.pop(chance.randrange(len(running)))
            most = call.output_max or UNSAID_OUTPUT
            used = Usage(
                input=chance.randrange(5_000),
                cache_read=chance.randrange(20_000),
                output=chance.randrange(most + 1),
            )
            before = spent()
            told.settle(call, used, SONNET)
            largest = max(largest, spent() - before)
            at_most = max(at_most, len(running) + 1)
            continue
        asked = chance.choice([0, 1, 500, 32_000])
        got = told.reserve(SONNET, asked)
        assert isinstance(got, Full) or spent() < limit, "begun beyond the limit"
        if isinstance(got, Reserved):
            running.append(got)
    assert spent() <= limit + at_most * largest
    for call in running:
        told.settle(call, Usage(), SONNET)
    assert told.running == 0
    assert bool(told.room()) == (spent() >= limit)


@proves("gateway.usage")
@pytest.mark.parametrize("value", [None, True, -1, 1.5, "7", [], {}, TOKENS_MAX + 1, float("nan")])
def test_what_is_no_number_of_tokens_counts_as_none(value):
    assert count(value) == 0


def test_a_sum_of_money_reads_as_people_write_it():
    assert [usd(n) for n in (0, 1, 1_250_000, 12_345_678)] == [
        "$0.00", "$0.000001", "$1.25", "$12.345678",
    ]  # fmt: skip


@proves("gateway.prices")
def test_every_row_of_our_table_says_where_it_was_read():
    import tomllib
    from importlib import resources

    file = resources.files("muster.agent.gateway").joinpath("prices.toml")
    rows = tomllib.loads(file.read_text("utf-8"))["price"]
    assert len(rows) > 20
    assert [row["models"] for row in rows if "/" not in row["source"] or not row["from"]] == []
    assert isinstance(known("2020-01-01"), Prices)
    assert known("2020-01-01").of(SONNET) is None, "it had no price yet"
