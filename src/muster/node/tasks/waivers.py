"""People who need not be asked, of the runs that this machine owns (task/waiver.py has the rule).

Rule 1: the change is counted from the commits that the first tasks began at, which the log has in
their openings, to where the phases before ended, near and far; of several beginnings the one counts
from which it is the largest. Where one is not known the person is asked. Its authors are all agents
that made a commit in those phases, also in a round that was rejected: one more can only mean that
the person is asked.
Rule 2: the question is opened when the count is there, and answered in the same step where the rule
holds: the entry that settles it has the numbers.
"""

from typing import TYPE_CHECKING

from muster.node import event as ev
from muster.node.tasks.run import Run
from muster.node.tasks.trust import Trust
from muster.task import waiver
from muster.task.graph import Slot
from muster.task.precedence import prerequisites
from muster.task.trust import NOTHING_KNOWN

if TYPE_CHECKING:
    from muster.node.core import Core


class CountLines(ev.Effect, frozen=True):
    """Count the lines that each of several commits has since it left `bases`, commits as well, and
    no further than to `most`; answer with `LinesCounted`.
    """

    run: str
    phase: str
    repo: str
    bases: str
    commits: str
    most: int


class LinesCounted(ev.Event, frozen=True):
    """How many lines a change has, more than `most` standing for any number above it; None where
    they were not counted, with the reason.
    """

    run: str
    phase: str
    lines: int | None
    reason: str = ""


def asks_first(core: "Core", run: Run, slot: Slot) -> bool:
    """Whether the phase's rule is held against the change first; then the count is asked for."""
    rule = run.spec.phases[slot.phase].unless
    if rule is None or slot.phase in run.waivers:
        return False
    if slot.phase not in run.asked:
        run.asked.add(slot.phase)
        ends = run.by_phase()
        commits = run.start_of(slot, ends) if run.has_commits else ""
        began = {run.base or "", *run.began}
        bases = "" if "" in began else " ".join(sorted(began))
        core.do(CountLines(run.run, slot.phase, run.body.repo, bases, commits, rule.lines))
    return True


def decided(core: "Core", run: Run, event: LinesCounted) -> bool:
    """Whether the question may be opened now; the run then knows how it is decided."""
    phase, rule = event.phase, run.spec.phases[event.phase].unless
    if rule is None or phase in run.waivers or run.progress.cancelled:
        return False
    run.waivers[phase] = waiver.decide(rule, event.lines, _streaks(core, run, phase), event.reason)
    return True


def _streaks(core: "Core", run: Run, phase: str) -> list[tuple[str, int]]:
    """What passed in a row of every agent with a commit in the phases before, under the name that
    people read; what this very run passed is left out, what failed in it is not.
    """
    before = prerequisites(run.spec)[phase]
    # By the machine's id: its name may be another one's by now.
    authors = {
        (end.machine, end.agent)
        for slot, end in run.ends.items()
        if slot.phase in before and end.commit and end.outcome == "done"
    }
    trust = core.part(Trust).without(run.tasks.values(), authors)
    name = core.membership.name_of
    return [
        (f"{who[1]}@{name(who[0])}", trust.get(who, NOTHING_KNOWN).streak)
        for who in sorted(authors)
    ]
