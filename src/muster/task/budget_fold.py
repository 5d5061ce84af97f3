"""Entries about what work uses up become rows: what was reserved, what was settled, what was spent.

Rule 1: `reservation` and `settlement` are the word of who keeps a pot, in its own stream; the
machines that spend from it have no say in either.
Rule 2: `spending` is what a worker says that an attempt of its own used, also where no pot is kept.
"""

from collections.abc import Iterable
from typing import Final, NamedTuple

from muster.log.entry import Entry, EntryId
from muster.log.fold import Rows, Skip, Table, body_as
from muster.log.stream import StreamName
from muster.task.budget import Amount, used
from muster.task.budget_kinds import BudgetReserve, BudgetSettle
from muster.task.kinds import AttemptFinish
from muster.task.pot import Key, day_of


class ReservationRow(NamedTuple):
    stream: StreamName
    task: str
    epoch_order: int
    epoch_count: int
    pot: str
    worker: str
    day: int
    tokens: int
    usd_millionths: int
    entry: EntryId

    @property
    def key(self) -> Key:
        return (self.task, self.epoch_order, self.epoch_count)

    @property
    def amount(self) -> Amount:
        return Amount(self.tokens, self.usd_millionths)


class SettlementRow(NamedTuple):
    stream: StreamName
    task: str
    epoch_order: int
    epoch_count: int
    pot: str
    tokens: int
    usd_millionths: int
    # 1 where nobody counted it but the agent itself, or nobody at all.
    estimated: int
    # That of its reservation; where that stands in another stream its own, which is no earlier.
    day: int

    @property
    def key(self) -> Key:
        return (self.task, self.epoch_order, self.epoch_count)

    @property
    def amount(self) -> Amount:
        return Amount(self.tokens, self.usd_millionths)


class SpendingRow(NamedTuple):
    """What an attempt of this stream's machine used; `estimated` as of a settlement."""

    stream: StreamName
    task: str
    epoch_order: int
    epoch_count: int
    tokens: int
    usd_millionths: int
    estimated: int
    at_ms: int


RESERVATION: Final = Table(
    "reservation", ReservationRow, key=4, indexes=(("pot", "day"), ("task",)), ids=True
)
SETTLEMENT: Final = Table(
    "settlement", SettlementRow, key=4, indexes=(("pot", "day"), ("task",)), ids=True
)
SPENDING: Final = Table("spending", SpendingRow, key=3, indexes=(("at_ms",),), ids=True)


class PotFold:
    """The stream of a machine that keeps pots."""

    name = "pot"
    tables = (RESERVATION, SETTLEMENT)
    kinds = frozenset({"budget.reserve", "budget.settle"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        if entry.header.kind == "budget.settle":
            end = body_as(entry, BudgetSettle)
            place = (end.task, *end.epoch, end.pot)
            if rows.get(SETTLEMENT, *place) is not None:
                raise Skip("settled-before")
            kept = rows.get(RESERVATION, *place)
            day = day_of(entry.header.t[0]) if kept is None else kept.day
            row = SettlementRow(
                rows.stream, *place, end.tokens, end.usd_millionths, int(end.estimated), day
            )
            return (row,)
        body = body_as(entry, BudgetReserve)
        key = (body.task, *body.epoch, body.pot)
        if rows.get(RESERVATION, *key) is not None:
            raise Skip("reserved-before")
        return (
            ReservationRow(
                rows.stream, *key, body.worker, body.day, body.tokens, body.usd_millionths, entry.id
            ),
        )


class SpendingFold:
    """The stream of a machine that works."""

    name = "spending"
    tables = (SPENDING,)
    kinds = frozenset({"attempt.finish"})

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        body = body_as(entry, AttemptFinish)
        found = used(body.usage)
        if not found.amount:
            return ()
        key = (body.task, *body.epoch)
        if rows.get(SPENDING, *key) is not None:
            raise Skip("spent-before")
        amount = found.amount
        row = SpendingRow(
            rows.stream, *key, amount.tokens, amount.usd_millionths, int(found.estimated),
            entry.header.t[0],
        )  # fmt: skip
        return (row,)
