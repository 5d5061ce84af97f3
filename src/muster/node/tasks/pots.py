"""This machine as a keeper of pots: of the runs that it owns, and of people's money where it is
named for that (`[money] keeper` of config.toml).

Rule 1: a pot has one writer. What is left is found in our own entries, of all our incarnations, so
a restart forgets nothing and nobody else can give anything away.
Rule 2: whoever asks is held to what it was given to do: the assignment is proven here as it is by
the worker. What is not here yet is waited for, and never guessed.
Rule 3: what was reserved is settled by the end of its attempt. An end that says nothing of what it
used (a worker that died) counts with all of it; no end at all stays reserved.
Rule 4: whatever comes first, what is reserved and has ended is settled: each of an end, a
reservation, a takeover and our own return is looked at for what the others left (pot_ends.py).
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from muster.errors import MusterError
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import FleetId, StreamName
from muster.node.part import Part
from muster.node.tasks.asking import Asking
from muster.node.tasks.payer import payer, run_of
from muster.node.tasks.pot_ends import PotEnds, writers_of
from muster.task import budget, budget_kinds, evidence, kinds, pot
from muster.task.budget import Amount, MoneyTerms
from muster.task.budget_fold import RESERVATION, SETTLEMENT, PotFold, SpendingFold
from muster.task.causes import Unproven
from muster.task.fold import TASK
from muster.task.spec import parse

if TYPE_CHECKING:
    from muster.node.core import Core

# How long what an asking follows from may be under way to us.
_UNDER_WAY_MS: Final = 60_000
_ASKED_MAX: Final = 1_000


class _Asked(NamedTuple):
    stream: StreamName
    entry: Entry
    until_ms: int


class _Pot(NamedTuple):
    """A pot as an attempt meets it."""

    name: str
    states: tuple[pot.State, ...]
    want: Amount
    sharers: int = 1


class Pots(Part):
    """See the rules at the top of this file."""

    name = "pots"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._waiting: dict[pot.Key, _Asked] = {}
        core.on("budget.ask", self._on_ask)
        self._ends = PotEnds(core)

    def start(self) -> None:
        self._ends.look()

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (PotFold(), SpendingFold())

    @property
    def terms(self) -> MoneyTerms:
        found = self.core.settings.get("money")
        return found if isinstance(found, MoneyTerms) else MoneyTerms()

    @property
    def is_keeper(self) -> bool:
        """Whether people's money is kept here."""
        return bool(self.terms.keeper) and self.terms.keeper == self.core.name

    # --- asking --------------------------------------------------------------------------------

    def _on_ask(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, budget_kinds.BudgetAsk)
        if body is None:
            return
        asked = _Asked(stream, entry, self.core.now.boot_ms + _UNDER_WAY_MS)
        done = self.core.settled and self._answer(asked, body)
        if not done and len(self._waiting) < _ASKED_MAX:
            self._waiting[body.task, *body.epoch] = asked

    @property
    def needs_tick(self) -> bool:
        return bool(self._waiting)

    def tick(self) -> None:
        """What an asking follows from may be here now."""
        now_ms = self.core.now.boot_ms
        for key, asked in list(self._waiting.items()):
            body = body_or_none(asked.entry, budget_kinds.BudgetAsk)
            if asked.until_ms <= now_ms or body is None or self._answer(asked, body):
                del self._waiting[key]

    def _answer(self, asked: _Asked, body: budget_kinds.BudgetAsk) -> bool:
        """Say what it gets of each pot that is kept here; False where that is not known yet."""
        core, causes = self.core, asked.entry.causes
        assign = core.log.entry(causes[0]) if causes else None
        if assign is None:
            return not causes
        given = body_or_none(assign, kinds.TaskAssign)
        if given is None or (given.task, given.epoch) != (body.task, body.epoch):
            return True
        if given.machine != asked.stream.machine:
            return True
        owns = assign.header.author == core.machine
        if not owns and not self.is_keeper:
            return True
        try:
            self._prove(assign, asked.stream)
            pots = [*(self._of_run(assign, body) if owns else ())]
            if self.is_keeper:
                pots.append(self._of_person(assign, body))
        except Unproven as unproven:
            # What is missing may come; all else stays as it is, and its worker gives up.
            return not unproven.reason.endswith("-missing")
        for each in pots:
            self._give(each, asked, body)
        return True

    def _prove(self, assign: Entry, stream: StreamName) -> None:
        core, asking = self.core, Asking(self.core)
        try:
            evidence.check_evidence(
                assign, me=stream.machine, fleet=core.membership.fleet, lookup=core.log.entry,
                authority=core.roster.permit, recompute=asking.recompute,
                now_ms=core.now.wall_ms, asking=asking,
            )  # fmt: skip
        except Unproven:
            raise
        except MusterError as error:
            raise Unproven("open-bad-body", str(error)) from error

    def _of_run(self, assign: Entry, body: budget_kinds.BudgetAsk) -> list[_Pot]:
        found = run_of(self.core, assign)
        if found is None:
            return []
        run = found[1]
        most = budget.run_limit(parse(run.spec.encode()).budget, run.budget)
        if not most:
            return []
        name = f"run:{run.run}"
        want = Amount(body.tokens, body.usd_millionths)
        if run.budget:
            # What an attempt may use up by that is what the run may.
            want = Amount()
        parts = [part for _, part in self.parts(name).values()]
        return [_Pot(name, (pot.state(most, parts),), want, self._sharers(run.run, name))]

    def _sharers(self, run: str, name: str) -> int:
        """How many tasks of a run are to begin still, and have nothing reserved."""
        core = self.core
        live: set[str] = set()
        for state in ("queued", "leased"):
            rows = core.tables.rows(TASK, writer=core.machine, run=run, state=state)
            live |= {row.task for row in rows}
        held = {key[0] for key, (_, part) in self.parts(name).items() if part.settled is None}
        return max(1, len(live - held))

    def _of_person(self, assign: Entry, body: budget_kinds.BudgetAsk) -> _Pot:
        person = payer(self.core, assign)
        if not person:
            raise Unproven("operator-not-allowed", "nobody known stands behind this work")
        terms, day, parts = self.terms, self._day(), self.parts(_person(person))
        states = [
            pot.state(Amount(0, most), found)
            for most, found in (
                (terms.day, pot.days_parts(parts, day)),
                (terms.month, pot.months_parts(parts, day)),
            )
            if most
        ]
        want = Amount(0, body.usd_millionths or terms.attempt)
        return _Pot(_person(person), tuple(states), want)

    def _day(self) -> int:
        return pot.day_of(self.core.now.wall_ms)

    def parts(self, name: str) -> dict[pot.Key, tuple[int, pot.Part]]:
        """What was ever reserved of a pot of ours, by attempt, with the day of each.

        Of a run that was taken over also what its owner before had reserved.
        """
        tables = self.core.tables
        found, ends = dict[pot.Key, tuple[int, pot.Part]](), dict[pot.Key, Amount]()
        # What we settled ourselves counts first.
        every = writers_of(self.core, name)[::-1]
        for writer in every:
            settled = tables.rows(SETTLEMENT, writer=writer, pot=name)
            ends |= {row.key: row.amount for row in settled}
        for writer in every:
            for row in tables.rows(RESERVATION, writer=writer, pot=name):
                found[row.key] = row.day, pot.Part(row.amount, ends.get(row.key))
        return found

    def _give(self, kept: _Pot, asked: _Asked, body: budget_kinds.BudgetAsk) -> None:
        core, place = self.core, (body.task, body.epoch)
        if (body.task, *body.epoch) in self.parts(kept.name):
            return
        got = pot.share(kept.states, kept.want, kept.sharers)
        if got.none:
            final = got.none == pot.SPENT and kept.name.startswith("run:")
            reason = self._why(kept, got.none)
            refused = budget_kinds.BudgetRefuse(*place, kept.name, reason, final)
            core.append_body(refused, cause=(asked.entry.id,))
            return
        amount = got.amount
        reserved = budget_kinds.BudgetReserve(
            *place, kept.name, asked.stream.machine, self._day(), amount.tokens,
            amount.usd_millionths,
        )  # fmt: skip
        core.append_body(reserved, cause=(asked.entry.id,))

    def _why(self, kept: _Pot, none: str) -> str:
        what, _, name = kept.name.partition(":")
        state = max(kept.states, key=_fullness)
        whose = "the budget of this run" if what == "run" else f"the money of {name}"
        most, gone = state.most, budget.said(state.used.of(state.most))
        text = f"{whose} is {budget.said(most)}: {gone} are used"
        if held := state.held.of(most):
            text += f", {budget.said(held)} are held by attempts that have not ended"
        if none == pot.WAIT:
            return text
        if what == "run":
            return f"{text}; `muster retry --budget` gives it more"
        return f"{text}; it goes on with the next {'day' if self.terms.day else 'month'} (UTC)"


def _person(name: str) -> str:
    safe = "".join(c if c.isascii() and (c.isalnum() or c in "_-") else "-" for c in name)
    return f"person:{safe[:128] or '-'}"


def _fullness(state: pot.State) -> int:
    """How little is left, for whoever asks which of several limits it was."""
    most, gone = state.most, state.used + state.held
    tokens = gone.tokens * 1000 // most.tokens if most.tokens else 0
    cost = gone.usd_millionths * 1000 // most.usd_millionths if most.usd_millionths else 0
    return max(tokens, cost)
