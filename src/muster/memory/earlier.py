"""What earlier work came to, as lines of a digest (pure).

Rule 1: nobody writes this down to be remembered: it is read out of what the work left anyway, and
so cannot be forgotten, made up or laundered by a model.
Rule 2: a line is one entry, whose id it carries: a try's end, a task's outcome, a decision.
Rule 3: what failed before a success stands beside it, so that cause and cure are told together.
"""

from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

from muster.log.entry import EntryId
from muster.memory.digest import Line

_RUN_DIGITS: Final = 8
_DECIDED: Final = {"approve": "yes", "reject": "no"}


class Try(NamedTuple):
    """An attempt that did not succeed, by the entry of its end."""

    entry: EntryId
    machine: str
    by: str
    at_ms: int
    reason: str
    run: str = ""


class Outcome(NamedTuple):
    """What a task of an earlier run came to; `tries` are those that failed before."""

    entry: EntryId
    machine: str
    by: str
    at_ms: int
    run: str
    state: str
    retries: int
    said: str
    tries: tuple[Try, ...] = ()


class Decision(NamedTuple):
    """What a person decided in an earlier run, in their words."""

    entry: EntryId
    machine: str
    by: str
    at_ms: int
    run: str
    phase: str
    verdict: str
    text: str


def of_this_task(tries: Iterable[Try]) -> list[Line]:
    """Its failed tries, the newest first."""
    return [tried(each._replace(run="")) for each in _newest(tries)]


def of_runs(runs: Iterable[tuple[Sequence[Outcome], Sequence[Decision]]]) -> list[Line]:
    """What runs came to, one after the other: outcome, what had failed before it, decisions."""
    lines = list[Line]()
    for outcomes, decisions in runs:
        for outcome in outcomes:
            lines.append(came_to(outcome))
            lines += [tried(each._replace(run=outcome.run)) for each in _newest(outcome.tries)]
        lines += [decided(each) for each in decisions if each.text]
    return lines


def tried(each: Try) -> Line:
    """A try that failed; with its run, where that is an earlier one."""
    says = f"a try in run {each.run[:_RUN_DIGITS]} failed:" if each.run else "it failed:"
    return Line(each.entry, each.machine, each.by, each.at_ms, says, each.reason)


def came_to(each: Outcome) -> Line:
    """What a task came to."""
    after = f" after {each.retries} that failed" if each.retries else ""
    says = f"run {each.run[:_RUN_DIGITS]}: {each.state}{after}:"
    return Line(each.entry, each.machine, each.by, each.at_ms, says, each.said)


def decided(each: Decision) -> Line:
    """What a person decided."""
    verdict = _DECIDED.get(each.verdict, each.verdict)
    says = f"run {each.run[:_RUN_DIGITS]}: a person said {verdict} to {each.phase}:"
    return Line(each.entry, each.machine, each.by, each.at_ms, says, each.text)


def _newest(tries: Iterable[Try]) -> list[Try]:
    return sorted(tries, key=lambda each: (each.at_ms, each.entry), reverse=True)
