"""How a graph of phases proceeds.

Rule 1: `plan` is a pure question: given the spec and what became of the tasks so far, what is to
        be done now? It keeps nothing, so it can be asked after every entry and after a crash.
Rule 2: a task starts only when every prerequisite of its phase is done.
Rule 3: a phase that can never start is skipped, with the reason; the rest of the run goes on.
Rule 4: a run is settled when every phase is, and no task is live any more.

A phase is one task; or with `each` one per match, done when all are; or with `race` one per
racer, done when the first is: the others are cancelled and told who won. Retries and lost
machines are the task's own business (state.py): what arrives here is its outcome.

    phase:  waiting ──▶ ready ──▶ running ──▶ done
               │          ▲                 ├─▶ failed
               └─▶ skipped└─ (each: needs   └─▶ cancelled
                              its matches)
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal, NamedTuple

from muster import limits
from muster.errors import Malformed
from muster.task.spec import Phase, Spec
from muster.task.state import LIVE, State

PhaseState = Literal["waiting", "ready", "running", "done", "failed", "skipped", "cancelled"]
SETTLED: Final[frozenset[PhaseState]] = frozenset({"done", "failed", "skipped", "cancelled"})
# Phases whose slots are kept: more than the largest runs have that go on at the same time.
_MATCHED_KEPT: Final = 256


class Slot(NamedTuple):
    """The place of one task in a run. `instance`: a match of `each`, a racer's number, or ""."""

    phase: str
    instance: str = ""


class Fact(NamedTuple):
    """What became of a slot's task. `order` is its place in the owner's log: lower came first."""

    state: State
    order: int = 0
    machine: str = ""


class PhaseProgress(NamedTuple):
    """A phase's state, why it is in it, and for a race the slot that won."""

    state: PhaseState
    reason: str = ""
    winner: Slot | None = None


class Plan(NamedTuple):
    """What is to be done now. `settled` is set when nothing ever will be again."""

    phases: dict[str, PhaseProgress]
    start: tuple[Slot, ...] = ()
    ask: tuple[Slot, ...] = ()
    match: tuple[str, ...] = ()
    cancel: tuple[tuple[Slot, str], ...] = ()
    settled: Literal["", "done", "failed", "cancelled"] = ""
    reason: str = ""


Facts = Mapping[Slot, Fact]
Matches = Mapping[str, Sequence[str]]


def plan(
    spec: Spec,
    facts: Facts,
    matches: Matches | None = None,
    cancelled: str = "",
    order: Sequence[str] = (),
    *,
    barred: Mapping[str, str] | None = None,
) -> Plan:
    """What to do now: tasks to `start`, people to `ask`, globs to `match`, tasks to `cancel`.

    `matches` has the paths of each phase with `each` once it was in `plan.match`; they must not
    change afterwards. `cancelled` is why somebody no longer wants the run. `order` is what
    `in_order` gave, from a caller that asks again and again. `barred` has phases whose tasks cannot
    be opened, with the reason: such a phase has failed, and only it.

    Raises:
        Malformed: the phases wait for each other, or for one that is not there; check.admit
            refuses such a spec.

    """
    progress: dict[str, PhaseProgress] = {}
    for name in order or in_order(spec):
        slots = slots_of(name, spec.phases[name], matches or {})
        state = _own_state(spec.phases[name], slots, facts)
        if barred and name in barred and not _lives(slots, facts):
            state = PhaseProgress("failed", barred[name])
        elif state.state in ("waiting", "running") and _unopened(slots, facts):
            state = _gate(spec.phases[name], slots, facts, progress, cancelled) or state
        progress[name] = state
    free = {name: state for name, state in progress.items() if name not in (barred or {})}
    start, ask, match = _starts(spec, facts, matches or {}, free, cancelled)
    cancel = _cancels(spec, facts, matches or {}, progress, cancelled)
    settled, reason = _outcome(progress, facts, cancelled)
    return Plan(progress, start, ask, match, cancel, settled, reason)


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
    return {name: phase.prerequisites for name, phase in spec.phases.items()}


def slots_of(name: str, phase: Phase, matches: Matches) -> tuple[Slot, ...] | None:
    """The slots of a phase; None while its matches are not known."""
    if phase.each is not None:
        found = matches.get(name)
        if found is None:
            return None
        return _matched(name, tuple(found))
    if phase.race is not None:
        return tuple(Slot(name, str(number)) for number in range(1, phase.race + 1))
    return (Slot(name),)


@lru_cache(maxsize=_MATCHED_KEPT)
def _matched(name: str, paths: tuple[str, ...]) -> tuple[Slot, ...]:
    """A run with thousands of matches is planned anew after every one of them."""
    return tuple(Slot(name, path) for path in dict.fromkeys(paths))


def _unopened(slots: Iterable[Slot] | None, facts: Facts) -> bool:
    return slots is None or any(slot not in facts for slot in slots)


def _lives(slots: Iterable[Slot] | None, facts: Facts) -> bool:
    return any(slot in facts and facts[slot].state in LIVE for slot in slots or ())


def _own_state(phase: Phase, slots: tuple[Slot, ...] | None, facts: Facts) -> PhaseProgress:
    """The state that a phase's own tasks give it, whatever its prerequisites are."""
    if slots is None:
        return PhaseProgress("waiting")
    if not slots:
        return PhaseProgress("failed", f"{phase.each} matches nothing in the repository")
    if len(slots) > limits.EACH_MATCHES_MAX:
        most = limits.EACH_MATCHES_MAX
        return PhaseProgress("failed", f"{phase.each} matches {len(slots)} paths, at most {most}")
    opened = [slot for slot in slots if slot in facts]
    states = [facts[slot].state for slot in opened]
    if phase.race is not None and "done" in states:
        done = [slot for slot in opened if facts[slot].state == "done"]
        winner = min(done, key=lambda slot: (facts[slot].order, slot))
        return PhaseProgress("done", winner=winner)
    if not opened:
        return PhaseProgress("waiting")
    if len(opened) < len(slots) or not LIVE.isdisjoint(states):
        return PhaseProgress("running")
    if states.count("done") == len(slots):
        return PhaseProgress("done")
    return _ended({slot: facts[slot] for slot in opened}, len(slots))


def _ended(known: Facts, count: int) -> PhaseProgress:
    bad = [(slot, fact) for slot, fact in known.items() if fact.state != "done"]
    if all(fact.state == "cancelled" for _, fact in bad):
        return PhaseProgress("cancelled", "it was cancelled")
    slot, fact = next(pair for pair in bad if pair[1].state != "cancelled")
    if count == 1:
        return PhaseProgress("failed", f"its task {'was ' * (fact.state == 'lost')}{fact.state}")
    return PhaseProgress("failed", f"{len(bad)} of {count} tasks failed, first {slot.instance}")


def _gate(
    phase: Phase,
    slots: tuple[Slot, ...] | None,
    facts: Facts,
    progress: Mapping[str, PhaseProgress],
    cancelled: str,
) -> PhaseProgress | None:
    """What the prerequisites make of a phase whose tasks are not all open; None: let it be."""
    if slots is not None and any(slot in facts for slot in slots):
        # Half opened, after a crash in between: the prerequisites were done once and for all.
        live = any(facts[slot].state in LIVE for slot in slots if slot in facts)
        return PhaseProgress("cancelled", cancelled) if cancelled and not live else None
    if cancelled:
        return PhaseProgress("skipped", f"the run was cancelled: {cancelled}")
    for name in phase.prerequisites:
        before = progress[name]
        if before.state in SETTLED - {"done"}:
            why = f": {before.reason}" if before.state != "skipped" and before.reason else ""
            return PhaseProgress("skipped", f"{name} is {before.state}{why}")
    if all(progress[name].state == "done" for name in phase.prerequisites):
        return PhaseProgress("ready")
    return PhaseProgress("waiting")


def _starts(
    spec: Spec,
    facts: Facts,
    matches: Matches,
    progress: Mapping[str, PhaseProgress],
    cancelled: str,
) -> tuple[tuple[Slot, ...], tuple[Slot, ...], tuple[str, ...]]:
    start: list[Slot] = []
    ask: list[Slot] = []
    match: list[str] = []
    for name, state in progress.items():
        if cancelled or state.state not in ("ready", "running"):
            continue
        phase = spec.phases[name]
        slots = slots_of(name, phase, matches)
        if slots is None:
            match.append(name)
            continue
        (ask if phase.by_human else start).extend(slot for slot in slots if slot not in facts)
    return tuple(start), tuple(ask), tuple(match)


def _cancels(
    spec: Spec,
    facts: Facts,
    matches: Matches,
    progress: Mapping[str, PhaseProgress],
    cancelled: str,
) -> tuple[tuple[Slot, str], ...]:
    result: list[tuple[Slot, str]] = []
    for name, state in progress.items():
        reason = f"the run was cancelled: {cancelled}" if cancelled else ""
        if state.winner is not None:
            machine = facts[state.winner].machine
            where = f" on {machine}" if machine else ""
            reason = f"racer {state.winner.instance}{where} passed first"
        if reason:
            slots = slots_of(name, spec.phases[name], matches) or ()
            result += [(s, reason) for s in slots if s in facts and facts[s].state in LIVE]
    return tuple(result)


def _outcome(
    progress: Mapping[str, PhaseProgress], facts: Facts, cancelled: str
) -> tuple[Literal["", "done", "failed", "cancelled"], str]:
    # The phases first: there are fewer of them than tasks.
    if any(state.state not in SETTLED for state in progress.values()):
        return "", ""
    if any(fact.state in LIVE for fact in facts.values()):
        return "", ""
    if all(state.state == "done" for state in progress.values()):
        return "done", ""
    if cancelled:
        return "cancelled", cancelled
    for wanted in ("failed", "cancelled"):
        for name, state in progress.items():
            if state.state == wanted:
                return "failed", f"phase {name} {wanted}: {state.reason}"
    raise AssertionError("a phase is only skipped behind one that failed or was cancelled")
