"""One open run of an owner: what is known of it, and what follows from that alone.

Rule: nothing here writes or asks anybody; runs.py does.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

from msgspec.structs import replace

from muster.log.entry import EntryId
from muster.task import graph, kinds, review, template, waiver
from muster.task import values as values_of
from muster.task.graph import Fact, Slot
from muster.task.instruction import Settled
from muster.task.route import ORDER_SINCE
from muster.task.spec import Phase, Spec
from muster.task.state import State, why_of

# As much as people read of why a run ended.
_REASON_CHARS_MAX: Final = 600
# What ended by phase, and what phases yielded by name.
Ends = dict[str, list[Settled]]
Yields = dict[str, dict[str, str]]


@dataclass(slots=True)
class Run:
    """An open run. `ends` has what each settled slot yielded."""

    run: str
    body: kinds.RunOpen
    spec: Spec
    progress: graph.Progress
    opened: EntryId
    tasks: dict[Slot, str] = field(default_factory=dict)
    ends: dict[Slot, Settled] = field(default_factory=dict)
    # The phases whose matches were asked for; "" for the commit that the run starts from.
    asked: set[str] = field(default_factory=set)
    # The commit that `base` names, or that was newest where it counts later (`is_held`), else "";
    # None until the repository follows its origin.
    base: str | None = ""
    # Where tasks began, by the log: those of phases that were kept, and our own after a start.
    began: set[str] = field(default_factory=set)
    # What a person should know of how it began.
    note: str = ""
    number: int = 0
    # What its followers were told of phases without tasks.
    told: dict[str, graph.PhaseProgress] = field(default_factory=dict)
    # Of phases whose rule may say that nobody is asked, what it said.
    waivers: dict[str, waiver.Decision] = field(default_factory=dict)
    # Whether any of the ends has a commit.
    has_commits: bool = False
    # Whether an agent handed it on.
    handed_on: bool = False
    # Whether its owner before is gone, and this machine goes on with it.
    adopted: bool = False
    # When it was opened for the first time, by its owner's wall clock.
    began_ms: int = 0
    # What unfinished tasks of the run that it goes on with had made.
    left: dict[Slot, str] = field(default_factory=dict)

    @property
    def base_name(self) -> str:
        """The branch, tag or commit that it is to start from, "" for the default branch."""
        return self.body.base or self.spec.base or ""

    def tell(self, slot: Slot, state: State, machine: str = "", end: Settled | None = None) -> None:
        """What became of a task; what is told later came later."""
        self.number += 1
        rejected = ""
        if end is not None and state == "done" and self.spec.phases[slot.phase].review is not None:
            rejected = review.rejected(end.values, machine, end.agent)
        why = "" if end is None else why_of(state, end.reason, end.summary)
        self.progress.tell(slot, Fact(state, self.number, machine, rejected, why))

    def bar(self, phase: str, reason: str) -> None:
        """A phase cannot be opened: it failed, the rest of the run goes on."""
        self.progress.bar(phase, reason[:_REASON_CHARS_MAX])

    def ended(self, slot: Slot, end: Settled) -> None:
        """A task has its outcome. Its values are read when they are used: a run has many ends."""
        self.ends[slot] = replace(end, values={})
        self.has_commits |= bool(end.commit)

    def by_phase(self) -> Ends:
        """What counts of each phase: of a race the winner, of a review the last round, else what
        is done, else all ends.
        """
        ends: Ends = {}
        for slot, end in sorted(self.ends.items()):
            ends.setdefault(slot.phase, []).append(end)
        for name, every in ends.items():
            if name in self.progress.rounds:
                ends[name] = [max(every, key=lambda end: review.round_of(end.instance))]
                continue
            done = [end for end in every if end.outcome == "done"]
            if self.spec.phases[name].race is not None and done:
                done = [
                    min(done, key=lambda e: self.progress.facts[Slot(e.phase, e.instance)].order)
                ]
            ends[name] = done or every
        return ends

    def start_of(self, slot: Slot, ends: Ends) -> str:
        """The commits that a task starts from: those its phase's prerequisites ended on; a review
        from what it judges, and a later round from what was rejected.
        """
        if (left := self.left.get(slot)) is not None:
            return left
        if not self.has_commits:
            return self.base or ""
        judged = self.spec.phases[slot.phase].review
        if judged is not None or review.round_of(slot.instance) > 1:
            return ends[judged or slot.phase][0].commit
        found = self._commits_before(slot.phase, ends, set())
        return " ".join(dict.fromkeys(found)) or self.base or ""

    def _commits_before(self, phase: str, ends: Ends, seen: set[str]) -> Iterator[str]:
        for before in self.spec.phases[phase].prerequisites:
            # Once for each phase: there are exponentially more ways through a graph than phases.
            if before in seen:
                continue
            seen.add(before)
            settled = ends.get(before, ())
            commits = [e.commit for e in settled if e.commit and e.outcome == "done"]
            # A phase without commits, such as a person's decision, hands on what it was given.
            yield from commits or self._commits_before(before, ends, seen)

    def deadline_ms(self, phase: Phase, now_ms: int) -> int:
        """When a task that is opened now must be over, by the wall clock; 0 where it need not."""
        own = now_ms + phase.deadline_ms if phase.deadline_ms else 0
        time_ms = self.spec.budget.time_ms if self.spec.budget is not None else 0
        last = self.began_ms + time_ms if time_ms and not phase.by_human else 0
        return min(own, last) if own and last else own or last

    @property
    def is_held(self) -> bool:
        """Whether what it makes is held against where it began: by a reviewer or by a rule."""
        phases = self.spec.phases.values()
        return bool(self.progress.rounds) or any(p.unless for p in phases)

    @property
    def is_newer(self) -> bool:
        """Whether a Muster before 0.3 cannot read what was ordered: the spec, the entry that opens
        the run, or why this machine goes on with it.
        """
        phases = self.spec.phases.values()
        may = self.spec.memory or any(p.may or p.memory or p.mcp or p.secrets for p in phases)
        may = may or any(p.says_sandbox for p in phases)
        # One of a schedule has no statement of its own.
        may = (
            may
            or not self.body.statement
            or bool(self.spec.budget or self.body.budget or self.body.after)
        )
        more = may or self.handed_on or self.adopted
        return bool(self.is_held or self.spec.on or self.body.kept or more)

    def owners_word(self, slot: Slot, ends: Ends) -> dict[str, str]:
        """What a task is told of its run beside its order: which Muster reads it, and of a review
        and what is reviewed who does it (task/review.py, rule 4).
        """
        found, phase = dict[str, str](), self.spec.phases[slot.phase]
        if self.is_newer:
            found[values_of.SINCE] = ".".join(map(str, ORDER_SINCE))
        if phase.review is not None:
            found[review.BEGAN] = self.start_of(Slot(phase.review), ends)
            did, judges = ends[phase.review][0], self.spec.reviewers[phase.review]
            epoch = kinds.epoch_text(did.epoch)
            found[review.DID] = f"{did.machine} {did.agent} {epoch} {len(judges)}"
            if not phase.same:
                found[review.APART] = " ".join(self.machines_of(phase.review))
        if review.round_of(slot.instance) > 1:
            last = ends[slot.phase][0]
            found[review.BEFORE] = f"{last.agent}@{last.machine}"
            judges = self.spec.reviewers.get(slot.phase, ())
            apart = [name for name in judges if not self.spec.phases[name].same]
            if apart:
                found[review.JUDGED_BY] = " ".join(self.machines_of(*apart))
        if slot.phase in self.waivers:
            found[review.RULE] = self.waivers[slot.phase].sentence
        return found

    def machines_of(self, *phases: str) -> list[str]:
        """The machines of all rounds of these phases so far."""
        rounds = range(1, max(self.progress.rounds.get(name, 1) for name in phases) + 1)
        slots = (Slot(name, review.instance_of(n)) for name in phases for n in rounds)
        found = (self.ends[slot].machine for slot in slots if slot in self.ends)
        return sorted({machine for machine in found if machine})

    def values(self, slot: Slot, given: Yields, more: dict[str, str], results: str = "") -> Yields:
        """What a task is given: who its run is (and `more`), inputs, and what phases yielded."""
        found: Yields = {"run": {"id": self.run, "name": self.body.name, **more}}
        if results:
            found["run"][values_of.RESULTS] = results
        if self.spec.phases[slot.phase].each is not None:
            found["each"] = {"path": slot.instance}
        if inputs := template.every_input(self.spec, self.body.values):
            found["inputs"] = inputs
        return found | given
