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
from muster.node.tasks import schedule_pots
from muster.node.tasks.asking import Asking
from muster.node.tasks.payer import opened_of, payer, run_of
from muster.node.tasks.pot_ends import PotEnds, writers_of
from muster.task import budget, budget_kinds, evidence, kinds, pot
from muster.task.budget import Amount, MoneyTerms
from muster.task.budget_fold import RESERVATION, SETTLEMENT, PotFold, SpendingFold
from muster.task.causes import Unproven
from muster.task.fold import TASK, of_attempt
from muster.task.spec import parse

if TYPE_CHECKING:
    from muster.node.core import Core

# How long what an asking follows from may be under way to us.
_UNDER_WAY_MS: Final = 60_000
# Many times what a machine has slots; so many wait of each, and nobody fills the places of others.
ASKED_OF_ONE_MAX: Final = 100
_WHOSE: Final = {
    "run": "the budget of this run",
    "schedule": "the budget of the schedule {} for a day",
    "person": "the money of {}",
}

# Of a pot: what was reserved for an attempt, with its day.
Parts = dict[pot.Key, tuple[int, pot.Part]]


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
        # By who asks: an asking of anybody for the same attempt takes the place of none.
        self._waiting: dict[tuple[StreamName, pot.Key], _Asked] = {}
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
        waiting = sum(each.machine == stream.machine for each, _ in self._waiting)
        if not done and waiting < ASKED_OF_ONE_MAX:
            self._waiting[stream, (body.task, *body.epoch)] = asked

    @property
    def needs_tick(self) -> bool:
        return bool(self._waiting)

    def tick(self) -> None:
        """What an asking follows from may be here now, or we may write again."""
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
            want = self._want(assign, body)
            pots = [*self._of_run(assign, want), *self._of_schedule(assign, want)] if owns else []
            if self.is_keeper:
                pots.append(self._of_person(assign, want))
        except Unproven as unproven:
            # What is missing may come; all else stays as it is, and its worker gives up.
            return not unproven.reason.endswith("-missing")
        except MusterError:
            return True
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

    def _want(self, assign: Entry, body: budget_kinds.BudgetAsk) -> Amount:
        """What it asks for, within what was signed for it alone: of the rest it has its share."""
        found = run_of(self.core, assign)
        template = opened_of(self.core, assign)[1].template
        limit = budget.attempt_limit(template, found[1].budget if found is not None else {})
        return Amount(body.tokens, body.usd_millionths).within(limit).of(limit)

    def _of_run(self, assign: Entry, want: Amount) -> list[_Pot]:
        found = run_of(self.core, assign)
        if found is None:
            return []
        run = found[1]
        most = budget.run_limit(parse(run.spec.encode()).budget, run.budget)
        if not most:
            return []
        name = f"run:{run.run}"
        if run.budget:
            # What an attempt may use up by that is what the run may.
            want = Amount()
        parts = self.parts(name)
        state = pot.state(most, (part for _, part in parts.values()))
        return [_Pot(name, (state,), want, self._sharers(run.run, parts))]

    def _of_schedule(self, assign: Entry, want: Amount) -> list[_Pot]:
        found = run_of(self.core, assign)
        schedule = schedule_pots.schedule_of(self.core, found[0]) if found is not None else None
        if found is None or schedule is None:
            return []
        name = f"{schedule_pots.PREFIX}{schedule.schedule}"
        sharers = self._sharers(found[1].run, self.parts(name, self._day()))
        return [_Pot(name, (schedule_pots.state(self.core, schedule),), want, sharers)]

    def _sharers(self, run: str, parts: Parts) -> int:
        """How many tasks of a run are to begin still, and have nothing reserved."""
        core = self.core
        live: set[str] = set()
        for state in ("queued", "leased"):
            rows = core.tables.rows(TASK, writer=core.machine, run=run, state=state)
            live |= {row.task for row in rows}
        held = {key[0] for key, (_, part) in parts.items() if part.settled is None}
        return max(1, len(live - held))

    def _of_person(self, assign: Entry, want: Amount) -> _Pot:
        person = payer(self.core, assign)
        if not person:
            raise Unproven("operator-not-allowed", "nobody known stands behind this work")
        terms, day, name = self.terms, self._day(), _person(person)
        parts = self.parts(name, pot.month_of(day))
        states = [
            pot.state(Amount(0, most), found)
            for most, found in (
                (terms.day, pot.days_parts(parts, day)),
                (terms.month, pot.months_parts(parts, day)),
            )
            if most
        ]
        return _Pot(name, tuple(states), Amount(0, want.usd_millionths or terms.attempt))

    def _day(self) -> int:
        return pot.day_of(self.core.now.wall_ms)

    def parts(self, name: str, since: int = 0) -> Parts:
        """What was reserved of a pot of ours from that day on, by attempt, with the day of each.

        Of a run that was taken over also what its owner before had reserved.
        """
        tables = self.core.tables
        found, ends = Parts(), dict[pot.Key, Amount]()
        from_day = {"day": since - 1}
        # What we settled ourselves counts first.
        every = writers_of(self.core, name)[::-1]
        for writer in every:
            settled = tables.rows(SETTLEMENT, writer=writer, pot=name, above=from_day)
            ends |= {row.key: row.amount for row in settled}
        for writer in every:
            for row in tables.rows(RESERVATION, writer=writer, pot=name, above=from_day):
                found[row.key] = row.day, pot.Part(row.amount, ends.get(row.key))
        return found

    def _give(self, kept: _Pot, asked: _Asked, body: budget_kinds.BudgetAsk) -> None:
        core, place = self.core, (body.task, body.epoch)
        attempt = of_attempt(body.task, body.epoch)
        if core.tables.rows(RESERVATION, writer=core.machine, pot=kept.name, **attempt, limit=1):
            return
        got = pot.share(kept.states, kept.want, kept.sharers)
        if got.none:
            final = got.none == pot.SPENT and not kept.name.startswith("person:")
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
        whose = _WHOSE[what].format(name)
        most, gone = state.most, budget.said(state.used.of(state.most))
        text = f"{whose} is {budget.said(most)}: {gone} are used"
        if held := state.held.of(most):
            text += f", {budget.said(held)} are held by attempts that have not ended"
        if none == pot.WAIT:
            return text
        if what == "schedule":
            return f"{text} today (UTC)"
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
