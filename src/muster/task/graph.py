"""How a graph of phases proceeds.

Rule 1: what is to be done follows from the spec and from what became of the tasks, in any order of
        being told: after a crash the same facts give the same plan. What is planned already is not
        planned anew; a change concerns its phase, and those behind it while theirs change, too.
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

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from graphlib import CycleError, TopologicalSorter
from typing import Final, Literal, NamedTuple

from muster import limits
from muster.errors import Malformed
from muster.task.spec import Phase, Spec
from muster.task.state import LIVE, State

PhaseState = Literal["waiting", "ready", "running", "done", "failed", "skipped", "cancelled"]
SETTLED: Final[frozenset[PhaseState]] = frozenset({"done", "failed", "skipped", "cancelled"})


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
    """What is to be done now, and was not told before. `settled`: nothing ever will be again."""

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
    *,
    barred: Mapping[str, str] | None = None,
) -> Plan:
    """What to do, from all that is known: see `Progress`. Raises: Malformed."""
    progress = Progress(spec)
    for name, paths in (matches or {}).items():
        if name in spec.phases and spec.phases[name].each is not None:
            progress.match(name, paths)
    for slot, fact in facts.items():
        progress.tell(slot, fact)
    for name, reason in (barred or {}).items():
        progress.bar(name, reason)
    if cancelled:
        progress.cancel(cancelled)
    return progress.plan()


class Progress:
    """Where a run stands: tasks to start, people to ask, globs to match and tasks to cancel.

    Raises:
        Malformed: the phases wait for each other, or for one that is not there; check.admit
            refuses such a spec.

    """

    def __init__(self, spec: Spec) -> None:
        self.spec = spec
        # Every phase after its prerequisites.
        self.order = in_order(spec)
        self.facts: dict[Slot, Fact] = {}
        self.barred: dict[str, str] = {}
        self.cancelled = ""
        self._place = {name: place for place, name in enumerate(self.order)}
        self._behind: dict[str, list[str]] = {name: [] for name in self.order}
        # None while the matches of the phase are not known.
        self._slots: dict[str, dict[Slot, None] | None] = {}
        self._counts = {name: Counter[State]() for name in self.order}
        self._live = 0
        self._states: dict[str, PhaseProgress] = {}
        # What changed since the states were computed, and what was computed since the last plan.
        self._moved, self._looked = set(self.order), set[str]()
        for name, phase in spec.phases.items():
            for before in phase.prerequisites:
                self._behind[before].append(name)
            slots = slots_of(name, phase, None)
            self._slots[name] = None if slots is None else dict.fromkeys(slots)

    # --- what becomes known ------------------------------------------------------------------

    def tell(self, slot: Slot, fact: Fact) -> None:
        """What became of a slot's task."""
        old = self.facts.get(slot)
        self.facts[slot] = fact
        self._live += (fact.state in LIVE) - (old is not None and old.state in LIVE)
        if slot in (self._slots.get(slot.phase) or ()):
            counts = self._counts[slot.phase]
            counts[fact.state] += 1
            if old is not None:
                counts[old.state] -= 1
            self._moved.add(slot.phase)

    def match(self, name: str, paths: Sequence[str]) -> None:
        """The paths of a phase with `each`, once."""
        slots = slots_of(name, self.spec.phases[name], paths) or ()
        self._slots[name] = dict.fromkeys(slots)
        found = (self.facts[slot].state for slot in slots if slot in self.facts)
        self._counts[name] = Counter(found)
        self._moved.add(name)

    def matched(self, name: str) -> bool:
        """Whether the tasks of a phase are known."""
        return self._slots[name] is not None

    def has_tasks(self, name: str) -> bool:
        """Whether any task of a phase was opened."""
        return self._counts[name].total() > 0

    def bar(self, name: str, reason: str) -> None:
        """A phase's tasks cannot be opened: it has failed, and only it."""
        self.barred[name] = reason
        self._moved.add(name)

    def cancel(self, reason: str) -> None:
        """Somebody no longer wants the run."""
        self.cancelled = reason
        self._moved.update(self.order)

    # --- what follows ------------------------------------------------------------------------

    @property
    def phases(self) -> dict[str, PhaseProgress]:
        """The state of each phase."""
        rest = [self._place[name] for name in self._moved]
        heapq.heapify(rest)
        while rest:
            name = self.order[heapq.heappop(rest)]
            if name not in self._moved:
                continue
            self._moved.remove(name)
            self._looked.add(name)
            state = self._state(name)
            if state != self._states.get(name):
                self._states[name] = state
                for behind in self._behind[name]:
                    self._moved.add(behind)
                    heapq.heappush(rest, self._place[behind])
        return {name: self._states[name] for name in self.order}

    def plan(self) -> Plan:
        """What is to be done that was not told before; a glob is told until it was matched."""
        phases, looked = self.phases, sorted(self._looked, key=self._place.__getitem__)
        self._looked.clear()
        start: list[Slot] = []
        ask: list[Slot] = []
        match: list[str] = []
        cancel: list[tuple[Slot, str]] = []
        for name in looked:
            state, slots = phases[name], self._slots[name]
            begins = state.state in ("ready", "running") and not self.cancelled
            if begins and name not in self.barred and slots is None:
                match.append(name)
                self._looked.add(name)
            elif begins and name not in self.barred:
                new = ask if self.spec.phases[name].by_human else start
                new.extend(slot for slot in slots or () if slot not in self.facts)
            reason = f"the run was cancelled: {self.cancelled}" if self.cancelled else ""
            if state.winner is not None:
                machine = self.facts[state.winner].machine
                where = f" on {machine}" if machine else ""
                reason = f"racer {state.winner.instance}{where} passed first"
            if reason:
                known = (slot for slot in slots or () if slot in self.facts)
                cancel += [(s, reason) for s in known if self.facts[s].state in LIVE]
        settled, reason = self._outcome(phases)
        return Plan(phases, tuple(start), tuple(ask), tuple(match), tuple(cancel), settled, reason)

    def _state(self, name: str) -> PhaseProgress:
        phase, slots, counts = self.spec.phases[name], self._slots[name], self._counts[name]
        live, opened = sum(counts[state] for state in LIVE), counts.total()
        if name in self.barred and not live:
            return PhaseProgress("failed", self.barred[name])
        if slots is not None and not slots:
            return PhaseProgress("failed", f"{phase.each} matches nothing in the repository")
        if slots is not None and len(slots) > limits.EACH_MATCHES_MAX:
            many = f"matches {len(slots)} paths, at most {limits.EACH_MATCHES_MAX}"
            return PhaseProgress("failed", f"{phase.each} {many}")
        if phase.race is not None and counts["done"]:
            done = [s for s in slots or () if s in self.facts and self.facts[s].state == "done"]
            return PhaseProgress("done", winner=min(done, key=lambda s: (self.facts[s].order, s)))
        if slots is not None and opened == len(slots) and not live:
            return self._ended(slots)
        if not opened:
            return self._gate(phase)
        if opened < len(slots or ()) and self.cancelled and not live:
            return PhaseProgress("cancelled", self.cancelled)
        # Half opened, after a crash in between: the prerequisites were done once and for all.
        return PhaseProgress("running")

    def _ended(self, slots: Mapping[Slot, None]) -> PhaseProgress:
        bad = [slot for slot in slots if self.facts[slot].state != "done"]
        if not bad:
            return PhaseProgress("done")
        failed = [slot for slot in bad if self.facts[slot].state != "cancelled"]
        if not failed:
            return PhaseProgress("cancelled", "it was cancelled")
        if len(slots) == 1:
            state = self.facts[failed[0]].state
            return PhaseProgress("failed", f"its task {'was ' * (state == 'lost')}{state}")
        what = f"{len(bad)} of {len(slots)} tasks failed, first {failed[0].instance}"
        return PhaseProgress("failed", what)

    def _gate(self, phase: Phase) -> PhaseProgress:
        """What the prerequisites make of a phase of which no task is open."""
        if self.cancelled:
            return PhaseProgress("skipped", f"the run was cancelled: {self.cancelled}")
        for name in phase.prerequisites:
            before = self._states[name]
            if before.state in SETTLED - {"done"}:
                why = f": {before.reason}" if before.state != "skipped" and before.reason else ""
                return PhaseProgress("skipped", f"{name} is {before.state}{why}")
        ready = all(self._states[name].state == "done" for name in phase.prerequisites)
        return PhaseProgress("ready" if ready else "waiting")

    def _outcome(
        self, phases: Mapping[str, PhaseProgress]
    ) -> tuple[Literal["", "done", "failed", "cancelled"], str]:
        states = {progress.state for progress in phases.values()}
        if self._live or not states <= SETTLED:
            return "", ""
        if states == {"done"}:
            return "done", ""
        if self.cancelled:
            return "cancelled", self.cancelled
        for wanted in ("failed", "cancelled"):
            for name, state in phases.items():
                if state.state == wanted:
                    return "failed", f"phase {name} {wanted}: {state.reason}"
        raise AssertionError("a phase is only skipped behind one that failed or was cancelled")


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


def slots_of(name: str, phase: Phase, paths: Sequence[str] | None) -> tuple[Slot, ...] | None:
    """The slots of a phase; None while the paths that its `each` matches are not known."""
    if phase.each is not None:
        return None if paths is None else tuple(Slot(name, path) for path in dict.fromkeys(paths))
    if phase.race is not None:
        return tuple(Slot(name, str(number)) for number in range(1, phase.race + 1))
    return (Slot(name),)
