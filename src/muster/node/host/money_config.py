"""`[money]` of `config.toml`: who keeps people's money, and on that machine how much there is.

Rule: a machine that names a keeper begins no attempt of an agent without its word; what is spent
where nobody is named is shown by `muster spend` and held to what specs say alone.
"""

import re
from typing import Final

import msgspec

from muster.errors import Malformed
from muster.task.budget import MoneyTerms, millionths
from muster.task.problem import shown

_DOLLARS: Final = re.compile(r"[0-9]{1,6}(\.[0-9]{1,2})?")


class MoneyConfig(msgspec.Struct, frozen=True, omit_defaults=True):
    """`keeper` is the machine that keeps the money, by its name. There, `usd_day` and `usd_month`
    are what each person's work may cost in a day and a month (UTC), "" without a limit, and
    `usd_attempt` is what is reserved for an attempt of which nothing else says what it may cost.
    """

    keeper: str = ""
    usd_day: str = ""
    usd_month: str = ""
    usd_attempt: str = "5.00"

    def check(self) -> None:
        """Raises: Malformed naming the setting that is of no use."""
        for name in ("usd_day", "usd_month", "usd_attempt"):
            text = getattr(self, name)
            if text and not _DOLLARS.fullmatch(text):
                raise Malformed(f'`{name}` is {shown(text)}; write dollars in quotes, as "2.50"')
            if text and not millionths(text):
                raise Malformed(f"`{name}` is 0, and nothing would ever begin; leave it out")
        if (self.usd_day or self.usd_month) and not self.keeper:
            raise Malformed("`usd_day` and `usd_month` are of the keeper: say `keeper`, too")

    def terms(self) -> MoneyTerms:
        """What attempts are held to."""
        sums = (self.usd_day, self.usd_month, self.usd_attempt)
        return MoneyTerms(self.keeper, *map(millionths, sums))
