"""What comes before a phase, and phases that wait for each other.

Rule: both are total; unknown names are ignored here and reported by check.py.
"""

from muster.task.spec import Spec


def prerequisites(spec: Spec) -> dict[str, frozenset[str]]:
    """All phases that are done before each phase starts, near and far. In a cycle, that is the
    whole cycle.
    """
    near = _near(spec)
    found: dict[str, frozenset[str]] = {}
    for name, before in near.items():
        if all(each in found for each in before):
            found[name] = frozenset(before).union(*(found[each] for each in before))
        else:
            # It is written before one that it waits for, or stands in a cycle.
            found[name] = _reach(near, name)
    return found


def cycles(spec: Spec, reach: dict[str, frozenset[str]]) -> list[list[str]]:
    """One shortest cycle for each group of phases that wait for each other, in the order of
    waiting, beginning with the phase that is written first. `reach` is from `prerequisites`.
    """
    near = _near(spec)
    told: set[str] = set()
    result = []
    for name in spec.phases:
        if name in reach[name] and name not in told:
            group = {other for other in reach[name] if name in reach[other]}
            told |= group
            result.append(_shortest(near, name))
    return result


def _near(spec: Spec) -> dict[str, list[str]]:
    return {
        name: [other for other in phase.prerequisites if other in spec.phases]
        for name, phase in spec.phases.items()
    }


def _reach(near: dict[str, list[str]], start: str) -> frozenset[str]:
    seen: set[str] = set()
    rest = list(near[start])
    while rest:
        name = rest.pop()
        if name not in seen:
            seen.add(name)
            rest.extend(near[name])
    return frozenset(seen)


def _shortest(near: dict[str, list[str]], start: str) -> list[str]:
    """The way from `start` back to itself, breadth first."""
    came: dict[str, str] = {}
    rest = [start]
    for name in rest:
        for other in near[name]:
            if other == start:
                way = [name]
                while way[-1] != start:
                    way.append(came[way[-1]])
                return way[::-1]
            if other not in came:
                came[other] = name
                rest.append(other)
    raise AssertionError(f"{start} is in no cycle")
