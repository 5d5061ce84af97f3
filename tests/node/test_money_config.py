"""`[money]` of config.toml: who keeps people's money, and how much there is of it."""

from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.node.host.config import Config, config_text, read_config
from muster.node.host.money_config import MoneyConfig
from muster.task.budget import MoneyTerms

FILE = Path("config.toml")


@proves("budget.configured")
@pytest.mark.parametrize(
    ("money", "sentence"),
    [
        ({"keeper": "nas", "usd_day": "a"}, '`usd_day` is "a"; write dollars in quotes'),
        ({"keeper": "nas", "usd_month": "-1"}, "`usd_month` is"),
        ({"keeper": "nas", "usd_attempt": "0.00"}, "`usd_attempt` is 0"),
        ({"usd_day": "2"}, "say `keeper`, too"),
        ({"keeper": "nas", "usd_week": "2"}, "`money.usd_week` is not a setting"),
        ({"keeper": 7}, "`money.keeper` must be a text in quotes"),
        ("nas", "`money` must be a table"),
    ],
)
def test_what_is_of_no_use_is_refused_by_its_name(money, sentence):
    with pytest.raises(Broken) as refused:
        read_config({"money": money}, FILE)
    assert sentence in str(refused.value)


@proves("budget.configured")
def test_what_is_said_of_money_is_read_and_written_again():
    said = {"keeper": "nas", "usd_day": "20.00", "usd_month": "200"}
    found = read_config({"money": said}, FILE)
    assert found.money.terms() == MoneyTerms("nas", 20_000_000, 200_000_000, 5_000_000)
    assert b'money.usd_day = "20.00"' in config_text(found)
    assert b"money" not in config_text(Config())
    assert Config().money == MoneyConfig()
    assert MoneyConfig().terms().keeper == ""
