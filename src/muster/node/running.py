"""Runs that this machine owns: from a spec's graph to tasks, from outcomes to the next tasks.

Rule 1: a run's progress is asked of `task/graph.py` anew after every change; what is kept here is
read back from the log after a start.
Rule 2: a dependent task starts from the commits its prerequisites ended on, and gets their values.
Rule 3: what fails is one run: it is settled as failed, with the reason, and its tasks are
cancelled.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, ParamSpec

from muster.errors import Conflict, NotFound
from muster.limits import REASON_CHARS_MAX
from muster.log.entry import EntryId
from muster.log.fold import body_as
from muster.log.stream import FLEET
from muster.node import event as ev
from muster.node.owning import Owning, branch_of, settled_of
from muster.node.whole import Whole
from muster.task import graph, kinds, order
from muster.task import values as values_of
from muster.task.graph import Fact, Slot
from muster.task.instruction import Draft, Settled
from muster.task.live import Order
from muster.task.spec import Spec, parse
from muster.task.state import LIVE

P = ParamSpec("P")
Watcher = Callable[[dict[str, Any]], None]
# Settled slots of a run by phase, and what phases yielded by name.
Ends = dict[str, list[Settled]]
Yields = dict[str, dict[str, str]]


@dataclass(slots=True)
class Run:
    """An open run. `ends` has what each settled slot yielded."""

    run: str
    body: kinds.RunOpen
    spec: Spec
    opened: EntryId
    # Every phase after its prerequisites.
    order: list[str]
    facts: dict[Slot, Fact] = field(default_factory=dict)
    tasks: dict[Slot, str] = field(default_factory=dict)
    ends: dict[Slot, Settled] = field(default_factory=dict)
    matches: dict[str, tuple[str, ...]] = field(default_factory=dict)
    asked: set[str] = field(default_factory=set)
    cancelled: str = ""
    number: int = 0


class Running:
    """All open runs of this owner."""

    def __init__(self, core: Whole, owning: Owning) -> None:
        self.core = core
        self.owning = owning
        self.runs: dict[str, Run] = {}
        self.watchers: dict[str, list[Watcher]] = {}
        self._moved: dict[str, None] = {}

    # --- beginning ---------------------------------------------------------------------------

    def open(self, body: kinds.RunOpen, causes: tuple[EntryId, ...], actor: str) -> str:
        """Begin a run; its spec was checked before."""
        raw = kinds.body_bytes(body)
        entry = self.core.append("run.open", raw, cause=causes, actor=actor)
        self.runs[body.run] = _run(body, entry.id)
        self.moved(body.run)
        return body.run

    def start(self) -> None:
        """Read our open runs back; one of an earlier incarnation is opened anew in this one."""
        own = str(self.core.standing.own(FLEET))
        found = self.core.store.rows("run", state="open")
        for name in dict.fromkeys(str(row["run"]) for row in found):
            rows = self._own_rows("run", run=name)
            # A stream that ended says "open" for ever; what counts is whether any of ours settled.
            if rows and all(r["state"] == "open" for r in rows):
                self.about(name, self._take_up, name, rows, own)

    def _take_up(self, name: str, rows: list[dict[str, Any]], own: str) -> None:
        here = [r for r in rows if r["stream"] == own]
        if name in self.runs and here:
            return
        entry = self.core.store.entry(EntryId(_bytes((here or rows)[-1]["opened"])))
        if entry is None:
            return
        if name not in self.runs:
            run = _run(body_as(entry, kinds.RunOpen), entry.id)
            self._read_tasks(run)
            self.runs[name] = run
        if not here:
            self.core.append("run.open", entry.body or b"{}", cause=(entry.id,))
        self.moved(name)

    def taken_up(self) -> None:
        """The owner read its tasks back; what runs know of them is read back as well."""
        kept = {name: run.cancelled for name, run in self.runs.items()}
        self.runs.clear()
        self.start()
        for name in kept.keys() & self.runs.keys():
            self.runs[name].cancelled = kept[name]

    # --- what fails ---------------------------------------------------------------------------

    def about(self, run: str, work: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
        """Do something about one run; when it fails that run ends, and the others go on."""
        failure = self.core.guard.run("run", run[:12], work, *args, **named)
        if failure is not None:
            self._fail(run, failure.text)

    def _fail(self, name: str, reason: str) -> None:
        run = self.runs.pop(name, None)
        opened = run.opened if run is not None else None
        if opened is None:
            here = self._own_rows(
                "run", run=name, state="open", stream=self.core.standing.own(FLEET)
            )
            if not here:
                return
            opened = EntryId(_bytes(here[-1]["opened"]))
        for task in self.owning.owner.of_run(name):
            self.owning.about(
                task,
                self.owning.owner.cancel,
                task,
                f"the run failed: {reason}",
                (opened,),
                self.core.now,
            )
        body = kinds.body_bytes(kinds.RunSettle(name, "failed", summary=reason[:REASON_CHARS_MAX]))
        self.core.guard.run("run", name[:12], self.core.append, "run.settle", body, cause=(opened,))
        self.tell(name, {"run": name, "settled": "failed", "reason": reason})
        self.watchers.pop(name, None)

    def _own_rows(self, table: str, **equals: Any) -> list[dict[str, Any]]:
        rows = self.core.store.rows(table, **equals)
        return [row for row in rows if str(row["stream"]).startswith(self.core.machine)]

    def _read_tasks(self, run: Run) -> None:
        rows = self._own_rows("task", run=run.run)
        for row in sorted(rows, key=lambda r: _int(r["opened_ms"])):
            slot = Slot(str(row["phase"]), str(row["instance"]))
            run.tasks[slot] = str(row["task"])
            run.number += 1
            state: Any = row["state"]
            run.facts[slot] = Fact(state, run.number, self._name(str(row["machine"])))
            if state not in LIVE and row["settled"]:
                run.ends[slot] = settled_of(self.core.store, row)
        for name, phase in run.spec.phases.items():
            found = tuple(s.instance for s in run.tasks if s.phase == name)
            if phase.each is not None and found:
                run.matches[name] = found

    # --- going on ------------------------------------------------------------------------------

    def moved(self, run: str) -> None:
        """Ask the graph again before this step ends."""
        self._moved[run] = None

    def flush(self) -> bool:
        """Start, ask, match and cancel what the graphs say; False when there was nothing."""
        moved, self._moved = list(self._moved), {}
        for name in moved:
            run = self.runs.get(name)
            if run is not None:
                self.about(name, self._advance, run)
        return bool(moved)

    def _advance(self, run: Run) -> None:
        plan = graph.plan(run.spec, run.facts, run.matches, run.cancelled, run.order)
        starts = [*plan.start, *plan.ask]
        if starts:
            ends = _by_phase(run)
            names = {slot.phase for slot in starts}
            sources = {name: _sources(run, name) for name in names}
            yields = self._yielded(run, plan, ends, set().union(*sources.values()))
            orders = [
                self._order(
                    run, slot, ends, {n: yields[n] for n in sources[slot.phase] & yields.keys()}
                )
                for slot in starts
            ]
            for slot, done in zip(starts, self.owning.submit(orders), strict=True):
                run.tasks[slot] = done.task
                run.number += 1
                state: Any = "waiting" if run.spec.phases[slot.phase].by_human else "queued"
                run.facts[slot] = Fact(state, run.number)
                self.tell(run.run, {"phase": slot.phase, "instance": slot.instance,
                                    "task": done.task, "state": state})  # fmt: skip
        for name in plan.match:
            if name not in run.asked:
                run.asked.add(name)
                self._match(run, name)
        for slot, reason in plan.cancel:
            try:
                self.owning.owner.cancel(run.tasks[slot], reason, (run.opened,), self.core.now)
            except NotFound:
                # It settled in this very step; its outcome is on the way.
                continue
        if plan.settled:
            self._settle(run, plan)

    def _order(self, run: Run, slot: Slot, ends: Ends, yields: Yields) -> Order:
        phase = run.spec.phases[slot.phase]
        template = order.phase_order(run.spec, slot.phase, slot.instance, run.body.values)
        body = kinds.TaskOpen(
            task=self.core.draw(16).hex(),
            template=template,
            run=run.run,
            phase=slot.phase,
            instance=slot.instance,
            values=_values(run, slot, yields),
            repo=run.body.repo,
            base=self._base(run, slot.phase, ends),
            priority=run.body.priority + (phase.priority or 0),
            retries=phase.retries or 0,
            deadline_ms=self.core.now.wall_ms + phase.deadline_ms if phase.deadline_ms else 0,
        )
        causes = [run.opened]
        for before in phase.prerequisites:
            causes += [self._cite(end) for end in ends.get(before, ())][:3]
        known = tuple(dict.fromkeys(c for c in causes if c))[:15]
        return Order(body, run.run, known)

    def _cite(self, end: Settled) -> EntryId:
        cite = end.cite.id if isinstance(end.cite, Draft) else end.cite
        return cite or EntryId(b"")

    def _yielded(self, run: Run, plan: graph.Plan, ends: Ends, wanted: set[str]) -> Yields:
        """What the wanted phases yielded, as far as they settled; with `each` a line per match."""
        found: Yields = {}
        for before in run.order:
            if before not in wanted:
                continue
            winner = plan.phases[before].winner if before in plan.phases else None
            settled = ends.get(before, [])
            done = [e for e in settled if e.outcome == "done"]
            if winner is not None and winner in run.ends:
                done = [run.ends[winner]]
            for end in done or settled:
                known = found.setdefault(before, {})
                for name, text in self._yields(run, end).items():
                    known[name] = f"{known[name]}\n{text}" if name in known else text
        return found

    def _yields(self, run: Run, end: Settled) -> dict[str, str]:
        found = dict(end.values)
        found.update(status=end.outcome, summary=end.summary, commit=end.commit)
        if end.commit:
            found["branch"] = branch_of(run.run, end.phase, end.instance)
        return found

    def _base(self, run: Run, phase: str, ends: Ends) -> str:
        """The commits that a phase starts from: those its prerequisites ended on."""
        if not any(e.commit for settled in ends.values() for e in settled):
            return run.body.base
        found = self._commits_before(run, phase, ends, set())
        return " ".join(dict.fromkeys(found)) or run.body.base

    def _commits_before(self, run: Run, phase: str, ends: Ends, seen: set[str]) -> Iterator[str]:
        for before in run.spec.phases[phase].prerequisites:
            # Once for each phase: there are exponentially more ways through a graph than phases.
            if before in seen:
                continue
            seen.add(before)
            settled = ends.get(before, ())
            commits = [e.commit for e in settled if e.commit and e.outcome == "done"]
            # A phase without commits, such as a person's decision, hands on what it was given.
            yield from commits or self._commits_before(run, before, ends, seen)

    def _match(self, run: Run, name: str) -> None:
        phase = run.spec.phases[name]
        commit = self._base(run, name, _by_phase(run)).partition(" ")[0]
        self.core.do(ev.MatchGlob(run.run, name, run.body.repo, commit, phase.each or ""))

    def matched(self, event: ev.Matched) -> None:
        run = self.runs.get(event.run)
        if run is None or event.phase in run.matches:
            return
        if event.reason:
            run.asked.discard(event.phase)
            self.cancel(run.run, event.reason)
            return
        run.matches[event.phase] = event.matches
        self.moved(run.run)

    # --- ending ---------------------------------------------------------------------------------

    def settled(self, end: Settled) -> None:
        """A task has its outcome."""
        run = self.runs.get(end.run)
        if run is None:
            return
        slot = Slot(end.phase, end.instance)
        run.ends[slot] = end
        run.number += 1
        state: Any = end.outcome
        if run.spec.phases[slot.phase].by_human:
            self.core.members.resolved(f"ask-{end.task[:32]}", f"the phase is {end.outcome}")
        machine = self._name(end.machine)
        run.facts[slot] = Fact(state, run.number, machine)
        self.tell(run.run, {"phase": end.phase, "instance": end.instance, "task": end.task,
                            "state": end.outcome, "summary": end.summary, "machine": machine,
                            "commit": end.commit})  # fmt: skip
        self.moved(run.run)

    def _name(self, machine: str) -> str:
        return self.core.standing.name_of(machine) if machine else ""

    def cancel(self, name: str, reason: str) -> None:
        """Raises: NotFound where no such run is open here."""
        run = self.runs.get(name)
        if run is None:
            raise NotFound(
                f"no open run {name[:12]} here: it is settled, or another machine owns it"
            )
        if run.cancelled:
            raise Conflict(f"run {name[:12]} is being cancelled already")
        run.cancelled = reason or "nobody wants it any more"
        self.moved(name)

    def _settle(self, run: Run, plan: graph.Plan) -> None:
        outcome: Any = plan.settled
        body = kinds.RunSettle(run.run, outcome, summary=plan.reason[:2000])
        causes = [c for c in (self._cite(e) for e in run.ends.values()) if c][-15:]
        self.core.append("run.settle", kinds.body_bytes(body), cause=(run.opened, *causes))
        del self.runs[run.run]
        self.tell(run.run, {"run": run.run, "settled": plan.settled, "reason": plan.reason})
        self.watchers.pop(run.run, None)

    # --- watching --------------------------------------------------------------------------------

    def tell(self, run: str, change: dict[str, Any]) -> None:
        for watcher in self.watchers.get(run, ()):
            watcher(change)

    def progress(self, name: str) -> dict[str, graph.PhaseProgress]:
        """Where the phases of an open run stand. Raises: NotFound."""
        run = self.runs.get(name)
        if run is None:
            raise NotFound(f"no open run {name[:12]} here")
        return graph.plan(run.spec, run.facts, run.matches, run.cancelled, run.order).phases


def _run(body: kinds.RunOpen, opened: EntryId) -> Run:
    spec = parse(body.spec.encode())
    return Run(body.run, body, spec, opened, graph.in_order(spec))


def _by_phase(run: Run) -> Ends:
    ends: Ends = {}
    for slot, end in sorted(run.ends.items()):
        ends.setdefault(slot.phase, []).append(end)
    return ends


def _sources(run: Run, name: str) -> set[str]:
    """The phases whose values a phase is given: those just before it, and those it names."""
    phase = run.spec.phases[name]
    named = values_of.sources(order.texts_of(phase), run.spec.phases)
    return named.union(phase.prerequisites)


def _values(run: Run, slot: Slot, yields: Yields) -> Yields:
    """What a task is given: who its run is, its inputs, and what earlier phases yielded."""
    found: Yields = {"run": {"id": run.run, "name": run.body.name}}
    if run.spec.phases[slot.phase].each is not None:
        found["each"] = {"path": slot.instance}
    if inputs := {**(run.spec.inputs or {}), **run.body.values}:
        found["inputs"] = inputs
    for phase, known in yields.items():
        found[phase] = {**found.get(phase, {}), **known}
    return found


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""


def _int(value: object) -> int:
    return value if isinstance(value, int) else 0
