"""Phases that deliver to one place and meet in a later phase.

Rule 1: without a repository that phase's folder can hold only one of the two: the task would fail
when everything before it was paid for (`artefact.laid_over`), so it is an error before.
Rule 2: with a repository git merges them, which works where both wrote the same: a warning.
Rule 3: a phase that comes after the other has its file and replaces it: that is no collision.
"""

from collections.abc import Iterator, Mapping

from muster.task.local import Finding
from muster.task.problem import shown
from muster.task.spec import Spec

# A spec in which everything collides is told by the first of them.
_FOUND_MAX = 20


def collisions(spec: Spec, before: Mapping[str, frozenset[str]], repo: str) -> Iterator[Finding]:
    """Each pair of phases of which neither comes before the other, that deliver one place or one
    inside the other, and that a third phase comes after.
    """
    makers: dict[str, list[tuple[str, int]]] = {}
    below: dict[str, list[tuple[str, int]]] = {}
    told: set[tuple[str, str]] = set()
    for name, phase in spec.phases.items():
        for number, path in enumerate(phase.deliverables):
            if "${" in path:
                continue
            # Without case, as some disks compare, and as artefact.laid_over does.
            key = path.rstrip("/").casefold()
            parts = key.split("/")
            folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
            others = [*makers.get(key, ()), *below.get(key, ())]
            for folder in folders:
                others += makers.get(folder, ())
            for other, place in others:
                if other == name or (other, name) in told or len(told) >= _FOUND_MAX:
                    continue
                meeting = _meeting(before, name, other)
                if meeting:
                    told.add((other, name))
                    yield _found(spec, (name, number), (other, place), meeting, repo)
            makers.setdefault(key, []).append((name, number))
            for folder in folders:
                below.setdefault(folder, []).append((name, number))


def _meeting(before: Mapping[str, frozenset[str]], one: str, other: str) -> str:
    """The first phase that comes after both, "" where none does or where one follows the other."""
    if one in before[other] or other in before[one]:
        return ""
    return next((name for name, above in before.items() if one in above and other in above), "")


def _found(
    spec: Spec, one: tuple[str, int], other: tuple[str, int], meeting: str, repo: str
) -> Finding:
    name, number = one
    phase, elsewhere = spec.phases[name], spec.phases[other[0]].deliverables[other[1]]
    key = "deliver" if isinstance(phase.deliver, str) else f"deliver[{number}]"
    what = (
        f"is delivered to by {other[0]}, too ({shown(elsewhere)}), and {meeting} comes after both"
    )
    if repo:
        why = "git must merge them, which fails where they differ"
    else:
        why = "its folder can hold only one"
    sentence = f"{what}: {why}; deliver to another path, or let one phase come after the other"
    return Finding(name, key, sentence, bool(repo))
