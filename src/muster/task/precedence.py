"""Which phases come before which: what follows from `after` and `review` alone.

Whoever waits for a phase that is reviewed waits for its reviewers, too: it is done when they
accept. And whoever waits for one of these waits for all of them: a review is done when all accept.
"""

from collections.abc import Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from muster import limits
from muster.errors import Malformed
from muster.task.spec import Spec


def in_order(spec: Spec) -> list[str]:
    """Every phase after its prerequisites.

    Raises:
        Malformed: the phases wait for each other, or for one that is not there.

    """
    try:
        names = list(TopologicalSorter(_waits(spec)).static_order())
    except CycleError as error:
        raise Malformed(f"phase {error.args[1][0]} of {spec.name} waits for itself") from error
    if len(names) != len(spec.phases):
        absent = min(set(names) - spec.phases.keys())
        raise Malformed(f"a phase of {spec.name} waits for {absent}, which is none")
    return names


def prerequisites(spec: Spec) -> dict[str, frozenset[str]]:
    """All phases that are done before each phase starts, near and far: in a cycle the whole cycle.
    Names that are no phases are left out.
    """
    near, found = _waits(spec), dict[str, frozenset[str]]()
    for name in near:
        reach, rest = set[str](), [name]
        while rest:
            for before in near[rest.pop()]:
                if before in found:
                    reach |= {before, *found[before]}
                elif before in near and before not in reach:
                    reach.add(before)
                    rest.append(before)
        found[name] = frozenset(reach)
    return found


def cycles(spec: Spec, reach: Mapping[str, frozenset[str]]) -> Iterator[list[str]]:
    """A cycle of each group of phases that wait for each other, in the order of waiting, beginning
    with the phase that is written first. `reach` is from `prerequisites`.
    """
    near = _waits(spec)
    while True:
        try:
            return TopologicalSorter(near).prepare()
        except CycleError as error:
            # It is told in the order of being done, and its first phase is its last one, too.
            cycle = error.args[1][:0:-1]
        group = {name for name in reach[cycle[0]] if cycle[0] in reach[name]}
        near = {name: before for name, before in near.items() if name not in group}
        first = cycle.index(next(name for name in spec.phases if name in cycle))
        yield cycle[first:] + cycle[:first]


def _waits(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Whom each phase waits for: of what is reviewed its reviewers, too, but for these; of a
    reviewer all reviewers of the same.
    """
    reviewers, found = spec.reviewers, {}
    for name, phase in spec.phases.items():
        before = phase.prerequisites
        judged = (_judged(spec, each) for each in before if each != phase.review)
        judges = (reviewers.get(each, ()) for each in judged)
        every = dict.fromkeys(chain(before, *judges))
        # That it names a fellow is said as that (review_check.py), and not as a cycle of one.
        found[name] = tuple(each for each in every if each != name or name in before)
    return found


def _judged(spec: Spec, name: str) -> str:
    """What a phase judges, or the phase itself where it judges none."""
    phase = spec.phases.get(name)
    return name if phase is None or phase.review is None else phase.review


def rounds_of(spec: Spec) -> dict[str, int]:
    """How many rounds there are of what is reviewed and of its reviewers, by phase.

    Where several judge one phase, the smallest number counts for all of them.
    """
    found: dict[str, int] = {}
    for judged, names in spec.reviewers.items():
        asked = (spec.phases[name].rounds or limits.REVIEW_ROUNDS for name in names)
        found |= dict.fromkeys((judged, *names), min(asked))
    return found


def together(spec: Spec, phase: str) -> tuple[str, ...]:
    """What is reviewed and its reviewers, where a phase is one of them; else the phase alone."""
    judged = spec.phases[phase].review or phase
    reviewers = spec.reviewers.get(judged)
    return (phase,) if reviewers is None else (judged, *reviewers)
