"""This machine as one that spends: no attempt begins that may cost money before that is reserved.

Rule 1: where a run has a budget, or this machine's owner names who keeps the money, an attempt of
an agent waits for a word of each of them. It is held to the least of what they and the signed spec
say; without their word it does not begin, and its owner hears why and gives it again later.
Rule 2: what an attempt was given it keeps: a keeper that cannot be reached stops nothing that runs.
Rule 3: what costs nothing, such as a shell, asks nobody.
"""

from typing import TYPE_CHECKING, Final

import msgspec
from msgspec.structs import replace

from muster.errors import MusterError, NotFound
from muster.log.entry import Entry
from muster.log.fold import body_or_none
from muster.log.stream import StreamName
from muster.node.part import Part
from muster.node.tasks import schedule_pots
from muster.node.tasks.attempt_body import AttemptEnded
from muster.node.tasks.payer import run_of
from muster.node.tasks.pots import Pots
from muster.task import budget, budget_kinds, kinds
from muster.task.budget import Amount
from muster.task.fault import NO_START, UNPAID
from muster.task.fold import TASK, of_attempt
from muster.task.instruction import StartAttempt, StopAttempt
from muster.task.route import NOOP
from muster.task.spec import parse
from muster.task.template import SHELL

if TYPE_CHECKING:
    from muster.node.core import Core

# Many times what an entry takes to a keeper and back; an attempt's place is taken meanwhile.
ASKED_MS: Final = 15_000
COSTS_NOTHING: Final = frozenset({SHELL, NOOP})


class _Held(msgspec.Struct):
    """An attempt that waits for a word of these machines, by the kind of pot that each keeps."""

    start: StartAttempt
    limits: Amount
    waits: dict[str, str]
    until_ms: int


class Purse(Part):
    """See the rules at the top of this file."""

    name = "purse"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._held: dict[str, _Held] = {}
        core.on("budget.reserve", self._on_reserve)
        core.on("budget.refuse", self._on_refuse)
        core.on("attempt.finish", self._on_finish)

    def holds_up(self, effect: StartAttempt | StopAttempt) -> bool:
        """Whether this begins later or not at all; or ended before it began."""
        if isinstance(effect, StopAttempt):
            held = self._held.get(effect.task)
            if held is None or held.start.assign.epoch != effect.epoch:
                return False
            del self._held[effect.task]
            # It used nothing, for certain.
            place, usage = (effect.task, effect.epoch), {budget.METERED: 1}
            ended = kinds.AttemptFinish(*place, "killed", reason=effect.reason, usage=usage)
            self.core.tell_later(AttemptEnded(ended))
            return True
        if effect.assign.agent in COSTS_NOTHING:
            return False
        self._begin(effect)
        return True

    def _begin(self, start: StartAttempt) -> None:
        task, core = start.assign.task, self.core
        rows = core.tables.rows(TASK, writer=start.owner, task=task)
        found = (core.log.entry(row.assigned) for row in rows)
        assign = next((e for e in found if e is not None and _is(e, start)), None)
        if assign is None:
            self._give_up(start, UNPAID, "its assignment cannot be read here")
            return
        try:
            asks, limits, waits = self._asks(start, assign)
        except NotFound as error:
            # Its owner mistyped it, or the keeper is not known here yet.
            self._give_up(start, UNPAID, f"`keeper` under [money] of config.toml: {error}")
            return
        except MusterError as error:
            self._give_up(start, NO_START, str(error))
            return
        if not waits:
            core.do(replace(start, limits=limits))
            return
        until_ms = core.now.boot_ms + ASKED_MS
        self._held[task] = _Held(start, limits, waits, until_ms)
        ask = budget_kinds.BudgetAsk(task, start.assign.epoch, asks.tokens, asks.usd_millionths)
        core.append_body(ask, cause=(assign.id,))

    def _asks(self, start: StartAttempt, assign: Entry) -> tuple[Amount, Amount, dict[str, str]]:
        """What was signed for it alone, the most that it may use up by what was signed of its run
        too, and who else must say something. Raises: MusterError.
        """
        found, waits, run = run_of(self.core, assign), dict[str, str](), Amount()
        instead: dict[str, int] = {}
        if found is not None:
            instead = found[1].budget
            run = budget.run_limit(parse(found[1].spec.encode()).budget, instead)
            if run:
                waits["run"] = start.owner
            schedule = schedule_pots.schedule_of(self.core, found[0])
            if schedule is not None:
                waits["schedule"] = start.owner
                run = run.within(schedule.day_most)
        if keeper := self.core.part(Pots).terms.keeper:
            waits["person"] = self.core.roster.find(keeper).machine
        asks = budget.attempt_limit(start.open.template, instead)
        return asks, asks.within(run), waits

    # --- answers -------------------------------------------------------------------------------

    def _on_reserve(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, budget_kinds.BudgetReserve)
        if body is None or body.worker != self.core.machine:
            return
        held = self._answered(stream, body)
        if held is None:
            return
        del held.waits[body.pot.partition(":")[0]]
        held.limits = held.limits.within(Amount(body.tokens, body.usd_millionths))
        if not held.waits:
            del self._held[body.task]
            self.core.do(replace(held.start, limits=held.limits))

    def _on_refuse(self, stream: StreamName, entry: Entry) -> None:
        body = body_or_none(entry, budget_kinds.BudgetRefuse)
        if body is None or self._answered(stream, body) is None:
            return
        code = NO_START if body.final else UNPAID
        self._end(body.task, code, budget.SPENT + body.reason if body.final else body.reason)

    def _answered(
        self, stream: StreamName, body: budget_kinds.BudgetReserve | budget_kinds.BudgetRefuse
    ) -> _Held | None:
        """What waits for this answer, of this machine."""
        held = self._held.get(body.task)
        if held is None or held.start.assign.epoch != body.epoch:
            return None
        what = body.pot.partition(":")[0]
        return held if held.waits.get(what) == stream.machine else None

    @property
    def needs_tick(self) -> bool:
        return bool(self._held)

    def tick(self) -> None:
        """Who says nothing in time keeps an attempt from beginning, and no place of ours."""
        for task, held in list(self._held.items()):
            if held.until_ms <= self.core.now.boot_ms:
                what, machine = next(iter(held.waits.items()))
                name, linked = self.core.membership.name_of(machine), self.core.link_to(machine)
                whose = "the money" if what == "person" else f"the budget of its {what}"
                away = "" if linked or machine == self.core.machine else ", and is not linked"
                self._end(task, UNPAID, f"{name}, which keeps {whose}, said nothing{away}")

    def _end(self, task: str, code: str, text: str) -> None:
        held = self._held.pop(task)
        self._give_up(held.start, code, text)

    def _give_up(self, start: StartAttempt, code: str, text: str) -> None:
        place = (start.assign.task, start.assign.epoch)
        self.core.tell_later(AttemptEnded(kinds.AttemptRefuse(*place, code, text)))

    # --- ends ----------------------------------------------------------------------------------

    def _on_finish(self, stream: StreamName, entry: Entry) -> None:
        """What an agent says it used, held against what passed its gateway here."""
        body = body_or_none(entry, kinds.AttemptFinish)
        if body is None or stream.machine != self.core.machine:
            return
        if off := budget.difference(body.usage):
            self._tell(body, off)
        elif budget.agrees(body.usage):
            key = _incident(_agent(self.core, body))
            self.core.incidents.close(key, "what it says agrees with its gateway again")

    def _tell(self, body: kinds.AttemptFinish, off: int) -> None:
        usage, agent = body.usage, _agent(self.core, body)
        counted, said = usage.get("tokens", 0), usage.get(budget.REPORTED, 0)
        more = "more" if off > 0 else "less"
        title = (
            f"{agent} says that it used {abs(off)} % {more} than passed its gateway in task "
            f"{body.task[:12]}: {said} tokens, and {counted} were counted"
        )
        severity = "warning" if off > 0 else "notice"
        self.core.incidents.open(_incident(agent), severity, title)


def _incident(agent: str) -> str:
    return f"usage-{agent}"[:64]


def _agent(core: "Core", body: kinds.AttemptFinish) -> str:
    rows = core.tables.rows(TASK, **of_attempt(body.task, body.epoch), limit=1)
    return rows[0].agent if rows else "an agent"


def _is(entry: Entry, start: StartAttempt) -> bool:
    given = body_or_none(entry, kinds.TaskAssign)
    return given is not None and given.epoch == start.assign.epoch
