"""Phases that deliver to one place and meet in a later phase.

Rule 1: without a repository that phase's folder can hold only one of the two: the task would fail
when everything before it was paid for (`artefact.laid_over`), so it is an error before.
Rule 2: with a repository git merges them, which works where both wrote the same: a warning.
Rule 3: a phase that comes after the other has its file and replaces it: that is no collision.
"""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Final

from muster.task.local_paths import Finding
from muster.task.problem import shown
from muster.task.spec import Spec

# A spec in which everything collides is told by the first of them.
_FOUND_MAX: Final = 20
# Looking at so many pairs of places takes a tenth of a second; an honest spec has a few hundred.
_PAIRS_MAX: Final = 200_000

# A phase, and which of its deliverables.
Place = tuple[str, int]


def collisions(spec: Spec, before: Mapping[str, frozenset[str]], repo: str) -> Iterator[Finding]:
    """Each pair of phases of which neither comes before the other, that deliver one place or one
    inside the other, and that a third phase comes after.
    """
    # The phases that come after each phase, near and far, as the bits of a number.
    after: dict[str, int] = {}
    for number, above in enumerate(before.values()):
        for name in above:
            after[name] = after.get(name, 0) | 1 << number
    told: set[tuple[str, str]] = set()
    for count, (one, other) in enumerate(_pairs(spec)):
        if count >= _PAIRS_MAX or len(told) >= _FOUND_MAX:
            return
        x, y = one[0], other[0]
        both = after.get(x, 0) & after.get(y, 0)
        if not both or (y, x) in told or x in before[y] or y in before[x]:
            continue
        told.add((y, x))
        meeting = list(before)[(both & -both).bit_length() - 1]
        phase, elsewhere = spec.phases[x], spec.phases[y].deliverables[other[1]]
        key = "deliver" if isinstance(phase.deliver, str) else f"deliver[{one[1]}]"
        what = f"is delivered to by {y}, too ({shown(elsewhere)}), and {meeting} comes after both: "
        if repo:
            what += "git must merge them, which fails where they differ"
        else:
            what += "its folder can hold only one"
        way = "deliver to another path, or let one phase come after the other"
        yield Finding(x, key, f"{what}; {way}", bool(repo))


def _pairs(spec: Spec) -> Iterator[tuple[Place, Place]]:
    """Every two places of different phases that are one, or one inside the other."""
    makers: dict[str, list[Place]] = {}
    below: dict[str, list[Place]] = {}
    for name, phase in spec.phases.items():
        for number, path in enumerate(phase.deliverables):
            if "${" in path:
                continue
            # Without case, as some disks compare, and as artefact.laid_over does.
            key, here = path.rstrip("/").casefold(), (name, number)
            parts = key.split("/")
            folders = ["/".join(parts[:count]) for count in range(1, len(parts))]
            holding = (makers.get(folder, ()) for folder in folders)
            for other in chain(makers.get(key, ()), below.get(key, ()), *holding):
                if other[0] != name:
                    yield here, other
            makers.setdefault(key, []).append(here)
            for folder in folders:
                below.setdefault(folder, []).append(here)
