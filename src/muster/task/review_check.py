"""What a review, and what is reviewed, cannot be: each with the way out.

Rule: a review that passes can be done. There is one task with one commit to judge, and a machine
beside the author's where one is wanted.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from muster.task import route
from muster.task.kinds import RunOpen
from muster.task.local_paths import Finding
from muster.task.spec import Phase, Spec, listed
from muster.task.template import largest_order, phase_order

# A review is one task, and hands on a verdict and nothing else.
_NOT_OF_REVIEW: Final = ("by", "deliver", "check", "race", "each")


def reviews(spec: Spec, repo: str, fleet: route.Fleet | None) -> Iterator[Finding]:
    """What is wrong with the reviews of a spec; without a fleet it is not asked for machines."""
    for name, phase in spec.phases.items():
        if phase.review is not None:
            yield from _review(spec, name, phase, repo)
            yield from _elsewhere(spec, name, phase, repo, fleet)
            continue
        for key in ("rounds", "same"):
            if getattr(phase, key) is not None:
                yield Finding(name, key, "goes with review: PHASE only; leave it out")


def _review(spec: Spec, name: str, phase: Phase, repo: str) -> Iterator[Finding]:
    for key in _NOT_OF_REVIEW:
        if getattr(phase, key) is not None:
            what = "does not go with review; make a phase of its own of it"
            yield Finding(name, key, what)
    judged = spec.phases.get(phase.review or "")
    if phase.review == name:
        what = "names itself; a phase cannot judge itself"
        yield Finding(name, "review", what)
    elif judged is not None:
        kind = "is a review itself" if judged.review else "has each" if judged.each else ""
        kind = kind or ("is a race" if judged.race else "is a person's" if judged.by else "")
        if kind:
            what = f"judges {phase.review}, which {kind}; only a phase of one task is reviewed"
            yield Finding(name, "review", what)
    if not repo:
        what = "judges a commit, and the spec names no repository; add repo: NAME"
        yield Finding(name, "review", what)
    fellows = set(spec.reviewers[phase.review or ""]) - {name}
    for other in listed(phase.after):
        if other in fellows:
            what = f"names {other}, which judges the same; reviewers of one phase work at once"
            yield Finding(name, "after", what)


def _elsewhere(
    spec: Spec, name: str, phase: Phase, repo: str, fleet: route.Fleet | None
) -> Iterator[Finding]:
    """A review needs a machine beside the author's."""
    judged = spec.phases.get(phase.review or "")
    if judged is None or phase.same or phase.by_human or judged.by_human or fleet is None:
        return
    order = largest_order(spec, name, {})
    does = _fitting(largest_order(spec, phase.review or "", {}), repo, fleet.machines)
    if len(does) == 1 and does == _fitting(order, repo, fleet.machines):
        alone = next(each.name for each in fleet.machines if each.id in does)
        what = f"fits only {alone}, which is the only one for {phase.review}, too, and a "
        what += "reviewer works on another machine; say same: true where it need not"
        yield Finding(name, "review", what)


def reviewer_alone(spec: Spec, name: str, run: RunOpen, machines: Sequence[route.Machine]) -> str:
    """The one machine that can review what a phase does, where another one can do it; else "".

    Its review would wait for ever once it had done the work itself.
    """
    found: set[str] = set()
    for each in spec.reviewers.get(name, ()):
        order = phase_order(spec, each, "", run.values)
        fits = set() if spec.phases[each].same else _fitting(order, run.repo, machines)
        found |= fits if len(fits) == 1 else set()
    others = _fitting(phase_order(spec, name, "", run.values), run.repo, machines) - found
    return found.pop() if len(found) == 1 and others else ""


def _fitting(order: Mapping[str, object], repo: str, machines: Sequence[route.Machine]) -> set[str]:
    wants = route.wants_of(order, repo)
    return {each.id for each in machines if route.judge(wants, each).fits}
