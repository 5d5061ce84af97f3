"""How a graph of phases proceeds.

Rule 1: what is to be done follows from the spec and from what became of the tasks, in any order of
        being told: after a crash the same facts give the same plan. What is planned already is not
        planned anew; a change concerns its phase, and those behind it while theirs change, too.
Rule 2: a task starts only when every prerequisite of its phase is done.
Rule 3: a phase that can never start is skipped, with the reason; the rest of the run goes on.
Rule 4: a run is settled when every phase is, and no task is live any more.

A phase is one task; or with `each` one per match, done when all are; or with `race` one per
racer, done when the first is: the others are cancelled and told who won. A phase that others
`review` is one task in each round, and so are its reviewers: it is done when all of a round accept,
and has failed when the last round was rejected. Retries and lost machines are the task's own
business (state.py): what arrives here is its outcome.

    phase:  waiting ──▶ ready ──▶ running ──▶ done
               │          ▲                 ├─▶ failed
               └─▶ skipped└─ (each: needs   └─▶ cancelled
                              its matches)
"""

import heapq
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Final, Literal, NamedTuple

from muster import limits
from muster.task.precedence import in_order, rounds_of, together
from muster.task.review import instance_of
from muster.task.spec import Phase, Spec
from muster.task.state import LIVE, State

PhaseState = Literal["waiting", "ready", "running", "done", "failed", "skipped", "cancelled"]
SETTLED: Final[frozenset[PhaseState]] = frozenset({"done", "failed", "skipped", "cancelled"})


class Slot(NamedTuple):
    """The place of one task in a run.

    `instance`: a match of `each`, a racer's number, a later round of a review, or "".
    """

    phase: str
    instance: str = ""


class Fact(NamedTuple):
    """What became of a slot's task. `order` is its place in the owner's log: lower came first.

    `rejected`: who rejected what it reviews, and why; "" where nobody did. `why` it failed.
    """

    state: State
    order: int = 0
    machine: str = ""
    rejected: str = ""
    why: str = ""


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
        # Who judges what; and of all of these phases how many rounds there are.
        self._reviewers = spec.reviewers
        self.rounds = rounds_of(spec)
        self._together = {name: together(spec, name) for name in self.rounds}
        self._states: dict[str, PhaseProgress] = {}
        # What changed since the states were computed, and what was computed since the last plan.
        self._moved, self._looked = set(self.order), set[str]()
        for name, phase in spec.phases.items():
            for before in phase.prerequisites:
                self._behind[before].append(name)
            if phase.review is not None:
                # Whether it was accepted is for the reviewed phase to say; a fellow that waits for
                # this one's word looks again when it will never have one.
                self._behind[name] += (phase.review, *self._reviewers[phase.review])
            slots = slots_of(name, phase, None)
            if name in self.rounds:
                every = range(1, self.rounds[name] + 1)
                slots = tuple(Slot(name, instance_of(number)) for number in every)
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
            self._moved.update(self._together.get(slot.phase, (slot.phase,)))

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
        start, ask = list[Slot](), list[Slot]()
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
                due = slots if name not in self.rounds else (self._slot(name, self._round(name)),)
                new.extend(slot for slot in due or () if slot not in self.facts)
            reason = f"the run was cancelled: {self.cancelled}" if self.cancelled else ""
            if state.winner is not None:
                machine = self.facts[state.winner].machine
                on = f" on {machine}" if machine else ""
                reason = f"racer {state.winner.instance}{on} passed first"
            if reason:
                known = (slot for slot in slots or () if slot in self.facts)
                cancel += [(s, reason) for s in known if self.facts[s].state in LIVE]
        settled, reason = self._outcome(phases)
        return Plan(phases, tuple(start), tuple(ask), tuple(match), tuple(cancel), settled, reason)

    def _state(self, name: str) -> PhaseProgress:
        phase, slots, counts = self.spec.phases[name], self._slots[name], self._counts[name]
        if name in self.rounds:
            return self._reviewed(name) if phase.review is None else self._review(name, phase)
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
            return self._gate(phase.prerequisites)
        if opened < len(slots or ()) and self.cancelled and not live:
            return PhaseProgress("cancelled", self.cancelled)
        # Half opened, after a crash in between: the prerequisites were done once and for all.
        return PhaseProgress("running")

    def _slot(self, name: str, number: int) -> Slot:
        return Slot(name, instance_of(number))

    def _round(self, name: str) -> int:
        """The round that a phase and its reviewers are at: the first that is not rejected."""
        judged, number = self.spec.phases[name].review or name, 1
        while number < self.rounds[name]:
            said = [self.facts.get(self._slot(r, number)) for r in self._reviewers[judged]]
            over = all(fact is not None and fact.state == "done" for fact in said)
            if not over or not self._rejections(judged, number):
                break
            number += 1
        return number

    def _rejections(self, judged: str, number: int) -> list[str]:
        """Who rejected this round, and why."""
        said = (self.facts.get(self._slot(r, number)) for r in self._reviewers[judged])
        return [fact.rejected for fact in said if fact is not None and fact.rejected]

    def _reviewed(self, name: str) -> PhaseProgress:
        """A phase that others judge: its own task of the round, then what they say of it."""
        number, phase = self._round(name), self.spec.phases[name]
        slot, most = self._slot(name, number), self.rounds[name]
        fact, before = self.facts.get(slot), self._rejections(name, number - 1)
        if name in self.barred and (fact is None or fact.state not in LIVE):
            return PhaseProgress("failed", self.barred[name])
        if fact is None and number == 1:
            return self._gate(phase.prerequisites)
        if fact is None and self.cancelled:
            return PhaseProgress("cancelled", self.cancelled)
        if fact is None or fact.state in LIVE:
            again = f"round {number} of {most}: rejected by {'; '.join(before)}" if before else ""
            return PhaseProgress("running", again)
        if fact.state != "done":
            return self._ended({slot: None})
        for reviewer in self._reviewers[name]:
            found = self.facts.get(self._slot(reviewer, number))
            state = self._states.get(reviewer, PhaseProgress("waiting"))
            if (found is None or found.state != "done") and state.state in SETTLED:
                if state.state == "cancelled" or self.cancelled:
                    return PhaseProgress("cancelled", state.reason)
                return PhaseProgress("failed", f"{reviewer} is {state.state}: {state.reason}")
            if found is None or found.state != "done":
                return PhaseProgress("running", f"round {number} of {most} is reviewed")
        if rejections := self._rejections(name, number):
            who = f"{most} time{'s' * (most > 1)} by {'; '.join(rejections)}"
            return PhaseProgress("failed", f"rejected {who}")
        return PhaseProgress("done")

    def _review(self, name: str, phase: Phase) -> PhaseProgress:
        """A phase that judges another one: it waits for each round of it."""
        number, judged = self._round(name), str(phase.review)
        slot = self._slot(name, number)
        fact, work = self.facts.get(slot), self.facts.get(self._slot(judged, number))
        if name in self.barred and (fact is None or fact.state not in LIVE):
            return PhaseProgress("failed", self.barred[name])
        if fact is None and (work is None or work.state != "done"):
            above = self._states[judged]
            if above.state in SETTLED and (work is None or work.state not in LIVE):
                return self._skipped(judged, above)
            waits = f"rejected round {number - 1}, waits for the next" if number > 1 else ""
            return PhaseProgress("waiting", waits)
        if fact is None:
            return self._gate([before for before in phase.prerequisites if before != judged])
        if fact.state in LIVE:
            return PhaseProgress("running")
        if fact.state != "done":
            return self._ended({slot: None})
        for other in self._reviewers[judged]:
            found = self.facts.get(self._slot(other, number))
            settled = self._states.get(other, PhaseProgress("waiting")).state in SETTLED
            if (found is None and not settled) or (found is not None and found.state in LIVE):
                return PhaseProgress("running", f"waits for what {other} says of the same")
        if fact.rejected:
            return PhaseProgress("failed", f"rejected by {fact.rejected}")
        return self._agreed(judged, number)

    def _agreed(self, judged: str, number: int) -> PhaseProgress:
        """What a review that accepted comes to: whoever waits for it waits for all of them."""
        for other in self._reviewers[judged]:
            found = self.facts.get(self._slot(other, number))
            if found is not None and found.rejected:
                return PhaseProgress("failed", f"{other} rejected it: {found.rejected}")
            ended = found.state if found is not None else self._states[other].state
            if ended != "done":
                off = self.cancelled or ended == "cancelled"
                return PhaseProgress("cancelled" if off else "failed", f"{other} is {ended}")
        return PhaseProgress("done")

    def _ended(self, slots: Mapping[Slot, None]) -> PhaseProgress:
        bad = [slot for slot in slots if self.facts[slot].state != "done"]
        failed = [slot for slot in bad if self.facts[slot].state != "cancelled"]
        if not failed:
            return PhaseProgress("cancelled", "it was cancelled") if bad else PhaseProgress("done")
        first, many = self.facts[failed[0]], f"{len(bad)} of {len(slots)} tasks failed, first "
        one = f"its task {'was ' * (first.state == 'lost')}{first.state}"
        what = many + failed[0].instance if len(slots) > 1 else one
        return PhaseProgress("failed", what + (f": {first.why}" if first.why else ""))

    def _gate(self, names: Sequence[str]) -> PhaseProgress:
        """What the prerequisites make of a phase of which no task is open."""
        if self.cancelled:
            return PhaseProgress("skipped", f"the run was cancelled: {self.cancelled}")
        for name in names:
            before = self._states[name]
            if before.state in SETTLED - {"done"}:
                return self._skipped(name, before)
        ready = all(self._states[name].state == "done" for name in names)
        return PhaseProgress("ready" if ready else "waiting")

    @staticmethod
    def _skipped(name: str, before: PhaseProgress) -> PhaseProgress:
        why = f": {before.reason}" if before.state != "skipped" and before.reason else ""
        return PhaseProgress("skipped", f"{name} is {before.state}{why}")

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


def slots_of(name: str, phase: Phase, paths: Sequence[str] | None) -> tuple[Slot, ...] | None:
    """The slots of a phase; None while the paths that its `each` matches are not known."""
    if phase.each is not None:
        return None if paths is None else tuple(Slot(name, path) for path in dict.fromkeys(paths))
    if phase.race is not None:
        return tuple(Slot(name, str(number)) for number in range(1, phase.race + 1))
    return (Slot(name),)
