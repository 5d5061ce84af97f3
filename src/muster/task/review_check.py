"""What a review, and what is reviewed, cannot be: each with the way out.

Rule: a review that passes can be done. There is one task with one commit to judge, and a machine
beside the author's where one is wanted.
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final

from muster import limits
from muster.task import route
from muster.task.kinds import RunOpen
from muster.task.local_paths import Finding
from muster.task.precedence import together
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
    if len(fellows) >= limits.REVIEWERS_MAX:
        what = f"is one of {len(fellows) + 1} that judge {phase.review}; take at most "
        yield Finding(name, "review", what + str(limits.REVIEWERS_MAX))
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
    orders = {each: largest_order(spec, each, {}) for each in together(spec, name)}
    # Somebody may log in until then.
    fits = {each: _fitting(o, repo, fleet.machines, logins=False) for each, o in orders.items()}
    alone = _alone(spec, phase.review or "", fits)
    if len(fits[name]) == 1 and fits[phase.review or ""] <= alone:
        only = next(each.name for each in fleet.machines if each.id in fits[name])
        what = f"fits only {only}, and {phase.review} fits no machine that is not needed to review "
        what += "it; say same: true where a reviewer may judge the work of its own machine"
        yield Finding(name, "review", what)


def reviewers_alone(
    spec: Spec,
    name: str,
    run: RunOpen,
    machines: Sequence[route.Machine],
    authors: Collection[str] = (),
) -> frozenset[str]:
    """The machines that alone can do one of the reviews of a phase, where another one can do the
    phase itself; none of the `authors` of its rounds so far can. The review would wait for ever
    once its machine had done the work.
    """
    orders = {each: phase_order(spec, each, "", run.values) for each in together(spec, name)}
    fits = {each: _fitting(order, run.repo, machines) for each, order in orders.items()}
    alone = _alone(spec, name, fits, authors)
    return alone if fits[name] - alone else frozenset()


def _alone(
    spec: Spec, judged: str, fits: Mapping[str, frozenset[str]], authors: Collection[str] = ()
) -> frozenset[str]:
    """The machines without which one of the reviews of a phase fits nowhere."""
    apart = [name for name in spec.reviewers[judged] if not spec.phases[name].same]
    left = (fits[name].difference(authors) for name in apart)
    return frozenset[str]().union(*(each for each in left if len(each) == 1))


def _fitting(
    order: Mapping[str, object],
    repo: str,
    machines: Sequence[route.Machine],
    *,
    logins: bool = True,
) -> frozenset[str]:
    """Those that can do it, or without `logins` could if somebody logged in."""
    wants = route.wants_of(order, repo)
    verdicts = [route.judge(wants, each) for each in machines]
    return frozenset(v.machine for v in verdicts if v.fits or (v.login and not logins))
