"""What a spec says of what it may use up, and cannot mean."""

from collections.abc import Iterator

from muster import limits
from muster.duration import duration_ms
from muster.task.budget import RunBudget
from muster.task.spec import Phase, Spec


def of_phase(phase: Phase) -> Iterator[tuple[str, str]]:
    """Each key of a phase with a mistake, and what is wrong with it."""
    if phase.budget is None:
        return
    if phase.budget.usd is not None and not phase.budget.usd_millionths:
        yield "budget.usd", "is 0, which no agent can keep; leave it out"
    if phase.shell and len(phase.agents) == 1:
        yield "budget", "does not go with agent: shell, which uses no tokens"


def of_run(spec: Spec) -> Iterator[tuple[str, str]]:
    """As `of_phase`, of the budget at the top of a spec."""
    most = spec.budget or RunBudget()
    if most.usd is not None and not most.usd_millionths:
        yield "budget.usd", "budget.usd is 0, which no agent can keep; leave it out"
    if most.time is not None and not 0 < duration_ms(most.time) <= limits.PHASE_DEADLINE_MS_MAX:
        hours = limits.PHASE_DEADLINE_MS_MAX // 3_600_000
        what = f"budget.time is {most.time}; it must be above 0 and at most {hours}h"
        yield "budget.time", what
    for name, phase in spec.phases.items():
        own, whole = phase.budget or RunBudget(), most.amount
        if own.amount.is_above(whole):
            yield f"phases.{name}.budget", f"one attempt of {name} may use more than the whole run"
