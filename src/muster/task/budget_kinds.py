"""The bodies of entries about what work may use up; what they mean is said in pot.py.

A worker writes `budget.ask` before an attempt begins. Who keeps a pot that it spends from (the
run's owner, of its schedule's as well; the fleet's keeper of money) answers with `budget.reserve`
or `budget.refuse`, and writes `budget.settle` when the attempt has ended. A pot has one writer.
"""

from typing import Annotated

from msgspec import Meta

from muster import limits
from muster.log.kind import kind
from muster.task.kinds import Body, Count, Fence, MachineWord, TaskWord

# `run:ID`, `schedule:NAME` of the schedule that began it, or `person:KEY` of the operator whose
# order it follows from.
PotWord = Annotated[str, Meta(pattern=r"^(run|schedule|person):[A-Za-z0-9_-]{1,128}\Z")]
# A day (UTC) as a number: 20261128.
DayCount = Annotated[int, Meta(ge=0, le=99_991_231)]


@kind("budget.ask")
class BudgetAsk(Body, frozen=True):
    """A worker is to begin this attempt, and asks for what it may use up; 0 is as much as there is.

    It cites the assignment.
    """

    task: TaskWord
    epoch: Fence
    tokens: Count = 0
    usd_millionths: Count = 0


@kind("budget.reserve")
class BudgetReserve(Body, frozen=True):
    """So much of a pot is kept for an attempt of `worker`, from this day; 0 is without a limit.

    It cites `budget.ask`. What is reserved counts as used until `budget.settle` says otherwise.
    """

    task: TaskWord
    epoch: Fence
    pot: PotWord
    worker: MachineWord
    day: DayCount
    tokens: Count = 0
    usd_millionths: Count = 0


@kind("budget.refuse")
class BudgetRefuse(Body, frozen=True):
    """Nothing is reserved for this attempt, and why; `final`: nor will anything be later."""

    task: TaskWord
    epoch: Fence
    pot: PotWord
    reason: Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)]
    final: bool = False


@kind("budget.settle")
class BudgetSettle(Body, frozen=True):
    """What an attempt for which something was reserved has used. It cites that, and its end."""

    task: TaskWord
    epoch: Fence
    pot: PotWord
    tokens: Count = 0
    usd_millionths: Count = 0
    estimated: bool = False
