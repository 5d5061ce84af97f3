"""The verb that says who spent what on what, from the log.

Rule: each attempt counts once, as the machine that worked says, and only where its owner gave it
that attempt. What nobody counted but the agent itself is marked.
"""

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

from msgspec import Struct

from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.node.tasks.payer import payer, run_of
from muster.node.verb import Column, Line, Turns
from muster.task import budget
from muster.task.budget import Amount
from muster.task.budget_fold import SPENDING, SpendingRow
from muster.task.causes import Unproven
from muster.task.fold import ATTEMPT
from muster.task.kinds import AttemptStart, TaskAssign
from muster.task.schedule_proof import fired, is_fired
from muster.verbs.declaration import Call, Core, Request, opt, verb
from muster.verbs.task import moment

# As many as are looked at in a step.
_AT_ONCE: Final = 200
_UNKNOWN: Final = "?"
_BY_HAND: Final = "no schedule"


class Spend(Request, frozen=True):
    by: Annotated[
        Literal["person", "agent", "run", "schedule", "day", "machine"], opt("what is summed up")
    ] = "person"
    since: Annotated[str, opt("from then on: 7d (ago), or 2026-11-20")] = "7d"


class Spent(Struct, frozen=True):
    """What was spent on one of them; `estimated` is the part that no gateway counted."""

    what: str
    usd: str
    usd_millionths: int
    tokens: int
    attempts: int
    estimated: str
    estimated_millionths: int
    estimated_tokens: int


class Spending(Struct, frozen=True):
    """Each of them, who spent most first, and all together."""

    spent: list[Spent]
    usd: str
    tokens: int
    since_ms: int


class _Sum(Struct):
    amount: Amount = Amount()
    estimated: Amount = Amount()
    attempts: int = 0


@verb(
    "spend", auth="local", group="Work", rows="spent", harmless=True,
    columns=(
        Column("what", "of", form="bold"), Column("usd", "dollars"), Column("tokens"),
        Column("attempts"), Column("estimated", "of it estimated", rank=1),
    ),
    nothing="Nothing was spent in that time, as far as this machine knows.",
    says=(Line("{usd} and {tokens} tokens in all.", "tokens"),),
)  # fmt: skip
def spend(core: Core, call: Call, ask: Spend) -> Turns[Spending]:
    """Say who spent what on what.

    What agents used, from the log: counted by the gateways of their machines, or as the agents say
    themselves, which is marked as estimated. The person is whoever signed the order.

        muster spend
        muster spend --by agent --since 30d
        muster spend --by run --json
    """
    since_ms = moment(ask.since, core.now.wall_ms)
    rows = core.tables.rows(SPENDING, above={"at_ms": since_ms})
    known, sums = dict[str, str](), dict[str, _Sum]()
    for number, row in enumerate(rows):
        if number % _AT_ONCE == _AT_ONCE - 1:
            yield
        assign = _given(core, row)
        if assign is None:
            continue
        found = sums.setdefault(_OF[ask.by](core, row, assign, known), _Sum())
        amount = Amount(row.tokens, row.usd_millionths)
        found.amount += amount
        found.estimated += amount if row.estimated else Amount()
        found.attempts += 1
    spent = [_view(what, each) for what, each in sums.items()]
    spent.sort(key=lambda each: (-each.usd_millionths, -each.tokens, each.what))
    if ask.by == "day":
        spent.sort(key=lambda each: each.what)
    cost = sum(each.usd_millionths for each in spent)
    return Spending(spent, budget.usd(cost), sum(each.tokens for each in spent), since_ms)


def _view(what: str, found: _Sum) -> Spent:
    amount, guess = found.amount, found.estimated
    return Spent(
        what, budget.usd(amount.usd_millionths), amount.usd_millionths, amount.tokens,
        found.attempts, budget.said(guess) if guess else "", guess.usd_millionths, guess.tokens,
    )  # fmt: skip


def _given(core: Core, row: SpendingRow) -> Entry | None:
    """The assignment of an attempt, None where nobody gave it to the machine that tells of it."""
    key: dict[str, Any] = {"task": row.task, "epoch_order": row.epoch_order}
    key["epoch_count"] = row.epoch_count
    for each in core.tables.rows(ATTEMPT, stream=row.stream, **key):
        began = core.log.entry(each.started)
        if began is None or body_or_none(began, AttemptStart) is None:
            continue
        for cause in began.causes:
            assign = core.log.entry(cause)
            given = body_or_none(assign, TaskAssign)
            if assign is None or given is None:
                continue
            place = (given.task, *given.epoch, given.machine)
            if place == (row.task, row.epoch_order, row.epoch_count, row.stream.machine):
                return assign
    return None


def _person(core: Core, row: SpendingRow, assign: Entry, known: dict[str, str]) -> str:
    if row.task not in known:
        try:
            known[row.task] = payer(core, assign) or _UNKNOWN
        except Unproven:
            # Its causes do not lead to a person here, or not yet: nobody is named who may not pay.
            known[row.task] = _UNKNOWN
    return known[row.task]


def _agent(_core: Core, _row: SpendingRow, assign: Entry, _known: dict[str, str]) -> str:
    given = body_or_none(assign, TaskAssign)
    return given.agent if given is not None else _UNKNOWN


def _run(core: Core, row: SpendingRow, assign: Entry, known: dict[str, str]) -> str:
    if row.task not in known:
        try:
            found = run_of(core, assign)
        except Unproven:
            # As above: no run is named that it may not belong to.
            known[row.task] = _UNKNOWN
        else:
            own = f"task {row.task[:12]}"
            known[row.task] = f"{found[1].name} {found[1].run[:12]}" if found else own
    return known[row.task]


def _schedule(core: Core, row: SpendingRow, assign: Entry, known: dict[str, str]) -> str:
    if row.task not in known:
        try:
            found, lookup = run_of(core, assign), core.log.entry
            known[row.task] = _BY_HAND
            if found is not None and is_fired(found[0], lookup):
                fire = fired(found[0], core.membership.fleet, lookup)
                known[row.task] = fire.schedule.schedule
        except Unproven:
            # As above: no schedule is named that it may not be of.
            known[row.task] = _UNKNOWN
    return known[row.task]


def _day(_core: Core, row: SpendingRow, _assign: Entry, _known: dict[str, str]) -> str:
    return datetime.fromtimestamp(row.at_ms / 1000, UTC).date().isoformat()


def _machine(core: Core, row: SpendingRow, _assign: Entry, _known: dict[str, str]) -> str:
    return core.membership.name_of(row.stream.machine)


_OF: Final[Mapping[str, Callable[[Core, SpendingRow, Entry, dict[str, str]], str]]] = {
    "person": _person, "agent": _agent, "run": _run, "schedule": _schedule, "day": _day,
    "machine": _machine,
}  # fmt: skip
