"""What a model costs on a day: a table in a file (prices.toml), read without a clock.

Rule 1: whole numbers only. Rates are millionths of a dollar for a million tokens, so a sum is exact
until it is rounded, once, upwards.
Rule 2: a model without a row has no price: nobody guesses from a name that looks alike.
"""

import re
import tomllib
from decimal import Decimal
from fnmatch import fnmatchcase
from importlib import resources
from typing import Any, Final

import msgspec

from muster.agent.gateway.usage import Usage
from muster.errors import Broken

_MILLION: Final = 1_000_000
# A name's date: `-20251001` or `-2026-01-31`.
_DATED = re.compile(r"-\d{8}\Z|-\d{4}-\d{2}-\d{2}\Z")


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Millionths of a dollar for a million tokens of each kind."""

    input: int
    output: int
    cache_read: int
    cache_write: int
    cache_write_hour: int

    def of(self, usage: Usage) -> int:
        """In millionths of a millionth of a dollar, exactly."""
        return (
            usage.input * self.input
            + usage.output * self.output
            + usage.cache_read * self.cache_read
            + usage.cache_write * self.cache_write
            + usage.cache_write_hour * self.cache_write_hour
        )


class Price(msgspec.Struct, frozen=True, kw_only=True):
    """What one model costs."""

    rates: Rates
    above: int = 0
    """Prompts of more tokens cost what `long` says; 0 where all cost the same."""
    long: Rates | None = None

    def of(self, usage: Usage) -> int:
        """One call in millionths of a millionth of a dollar."""
        far = self.long is not None and usage.prompt > self.above
        return (self.long if far and self.long else self.rates).of(usage)

    @property
    def output(self) -> int:
        """The most that a million tokens of output cost, in millionths of a dollar."""
        return max(self.rates.output, self.long.output if self.long else 0)


class Prices:
    """The prices of one day."""

    def __init__(self, priced: dict[str, Price]) -> None:
        # The longest name first: it is the most exact.
        self._priced = sorted(priced.items(), key=lambda item: (-len(item[0]), item[0]))

    def of(self, model: str) -> Price | None:
        """What this model costs; None where nobody has said."""
        plain = _DATED.sub("", model)
        for name, price in self._priced:
            if fnmatchcase(model, name) or fnmatchcase(plain, name):
                return price
        return None


def known(day: str, *more: str) -> Prices:
    """Our own table on a day (`2026-11-28`, UTC), with a person's tables over it.

    Raises: Broken where a table is not in its form.
    """
    own = resources.files("muster.agent.gateway").joinpath("prices.toml").read_text("utf-8")
    return Prices({k: v for text in (own, *more) for k, v in read(text, day).items()})


def read(text: str, day: str) -> dict[str, Price]:
    """The prices of a table that hold on a day. Raises: Broken where it is not in its form."""
    try:
        rows = tomllib.loads(text, parse_float=Decimal).get("price", [])
        begun = [row for row in rows if str(row["from"]) <= day]
        return {
            str(model): _price(row)
            for row in sorted(begun, key=lambda row: str(row["from"]))
            for model in row["models"]
        }
    except (KeyError, TypeError, ValueError, ArithmeticError, AttributeError) as error:
        raise Broken(f"A table of prices is not in its form: {error!r}.") from error


def _price(row: dict[str, Any]) -> Price:
    far = row.get("long")
    return Price(
        rates=_rates(row), above=int(row.get("above", 0)), long=_rates(far) if far else None
    )


def _rates(row: dict[str, Any]) -> Rates:
    write = row.get("cache_write", row["input"])
    return Rates(
        input=_millionths(row["input"]),
        output=_millionths(row["output"]),
        cache_read=_millionths(row["cache_read"]),
        cache_write=_millionths(write),
        cache_write_hour=_millionths(row.get("cache_write_hour", write)),
    )


def _millionths(usd: Any) -> int:
    if isinstance(usd, bool) or not isinstance(usd, int | Decimal) or usd < 0:
        raise ValueError(f"{usd!r} is no price")
    exact = Decimal(usd) * _MILLION
    if exact != int(exact):
        raise ValueError(f"{usd} is finer than a millionth of a dollar")
    return int(exact)
