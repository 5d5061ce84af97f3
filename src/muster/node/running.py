"""Runs that this machine owns: from a spec's graph to tasks, from outcomes to the next tasks.

Rule 1: a run's progress is asked of `task/graph.py` anew after every change; what is kept here is
read back from the log after a start.
Rule 2: a dependent task starts from the commits its prerequisites ended on, and gets their values.
Rule 3: what fails is one run: it is settled as failed, with the reason, and its tasks are
cancelled.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, ParamSpec

from muster.errors import Conflict, NotFound, Refused
from muster.limits import EACH_MATCHES_MAX, REASON_CHARS_MAX, RETRY_DELAY_MS_MIN, RUN_TASKS_MAX
from muster.log.entry import Entry, EntryId
from muster.log.fold import Skip, body_as
from muster.log.stream import FLEET, StreamName
from muster.node import event as ev
from muster.node.owning import Owning, branch_of, settled_of
from muster.node.whole import Whole
from muster.task import graph, identity, kinds, order
from muster.task import values as values_of
from muster.task.graph import Fact, Slot
from muster.task.instruction import Draft, Settled
from muster.task.live import Order
from muster.task.problem import shown
from muster.task.spec import Spec, parse
from muster.task.state import LIVE

P = ParamSpec("P")
Watcher = Callable[[dict[str, Any]], None]
# As much as people read of why a run ended.
_REASON_CHARS_MAX: Final = 600
# What whoever follows a run is told of each of its tasks, as `verbs/tasks.py` shows them.
WATCHED: Final = (
    "phase", "instance", "task", "state", "machine", "agent", "tries", "losses", "reason",
    "summary", "commit", "opened_ms", "changed_ms",
)  # fmt: skip
# The entries that move a task without ending it.
_MOVES: Final = ("task.assign", "task.expire", "task.retry")
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
    # The phases whose matches were asked for; "" for the commit that the run starts from.
    asked: set[str] = field(default_factory=set)
    # Phases that cannot be opened, and why.
    barred: dict[str, str] = field(default_factory=dict)
    # The commit that `base` names, "" without one; None until the repository was asked.
    base: str | None = ""
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
        # What a repository out of reach is asked again, and when.
        self._again: dict[tuple[str, str], int] = {}
        for kind in _MOVES:
            core.on(kind, self._on_move)

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
        found = self._own_rows("run", state="open")
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
        return self.core.store.rows(table, writer=self.core.machine, **equals)

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
        if run.base is None and not run.cancelled:
            self._find_base(run)
            return
        plan = _plan(run)
        starts: dict[str, list[Slot]] = {}
        for slot in (*plan.start, *plan.ask):
            starts.setdefault(slot.phase, []).append(slot)
        if starts:
            ends = _by_phase(run)
            sources = {name: _sources(run, name) for name in starts}
            yields = self._yielded(run, plan, ends, set().union(*sources.values()))
            for name, slots in starts.items():
                known = {n: yields[n] for n in sources[name] & yields.keys()}
                self._open_phase(run, name, slots, ends, known)
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

    def _open_phase(
        self, run: Run, name: str, slots: list[Slot], ends: Ends, yields: Yields
    ) -> None:
        """Open a phase's tasks, all of them or none: what cannot be opened has failed."""
        try:
            if len(run.tasks) + len(slots) > RUN_TASKS_MAX:
                raise Refused(f"a run has at most {RUN_TASKS_MAX} tasks; make several runs of it")
            orders = [self._order(run, slot, ends, yields) for slot in slots]
            opened = self.owning.submit(orders)
        except (Refused, NotFound) as error:
            self._bar(run, name, str(error))
            return
        for slot, done in zip(slots, opened, strict=True):
            run.tasks[slot] = done.task
            run.number += 1
            state: Any = "waiting" if run.spec.phases[slot.phase].by_human else "queued"
            run.facts[slot] = Fact(state, run.number)
            begun = {"state": state, "opened_ms": self.core.now.wall_ms}
            self._tell_task(run.run, slot, done.task, begun)

    def _bar(self, run: Run, name: str, reason: str) -> None:
        """A phase cannot be opened: it failed, the rest of the run goes on."""
        run.barred[name] = reason[:_REASON_CHARS_MAX]
        self.moved(run.run)

    def _order(self, run: Run, slot: Slot, ends: Ends, yields: Yields) -> Order:
        phase = run.spec.phases[slot.phase]
        template = order.phase_order(run.spec, slot.phase, slot.instance, run.body.values)
        body = kinds.TaskOpen(
            task=identity.task_id(run.run, slot.phase, slot.instance),
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
            return run.base or ""
        found = self._commits_before(run, phase, ends, set())
        return " ".join(dict.fromkeys(found)) or run.base or ""

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
        if event.again:
            self._ask_again(run, event.phase)
        elif refusal := _match_refusal(run, event):
            self._bar(run, event.phase, refusal)
        else:
            run.matches[event.phase] = event.matches
            self.moved(run.run)

    def _find_base(self, run: Run) -> None:
        """Nothing begins before it is known where: every first phase starts from one commit."""
        if "" not in run.asked:
            run.asked.add("")
            self.core.do(ev.FindBase(run.run, run.body.repo, _base_of(run.body, run.spec)))

    def base_found(self, event: ev.BaseFound) -> None:
        run = self.runs.get(event.run)
        if run is None or run.base is not None:
            return
        if event.again:
            self._ask_again(run, "")
            return
        run.base = event.commit
        if event.reason:
            for name, phase in run.spec.phases.items():
                if not phase.prerequisites:
                    self._bar(run, name, event.reason)
        self.moved(run.run)

    def _ask_again(self, run: Run, what: str) -> None:
        self._again[run.run, what] = self.core.now.boot_ms + RETRY_DELAY_MS_MIN

    def tick(self) -> None:
        """Ask repositories again that were out of reach."""
        now = self.core.now.boot_ms
        for run, what in [key for key, at in self._again.items() if at <= now]:
            del self._again[run, what]
            if run in self.runs:
                self.runs[run].asked.discard(what)
                self.moved(run)

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
        self._tell_task(run.run, slot, end.task, self._row(end.task))
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

    def _on_move(self, stream: StreamName, entry: Entry) -> None:
        """A task got a machine, or lost it: whoever follows its run sees that."""
        if stream.machine != self.core.machine or not self.watchers:
            return
        try:
            body: Any = body_as(entry, kinds.KINDS[entry.header.kind])
        except Skip:
            return
        row = self._row(body.task)
        if row:
            moved: dict[str, Any] = {"changed_ms": entry.header.t[0]}
            if entry.header.kind != "task.assign":
                # Another machine may have it by now, in this very step.
                moved |= {"state": "queued", "reason": body.reason}
            slot = Slot(str(row["phase"]), str(row["instance"]))
            self._tell_task(str(row["run"]), slot, body.task, {**row, **moved})

    def _row(self, task: str) -> Mapping[str, Any]:
        return self.core.store.row("task", self.core.standing.own(FLEET), task) or {}

    def _tell_task(self, run: str, slot: Slot, task: str, row: Mapping[str, Any]) -> None:
        if not self.watchers.get(run):
            return
        found = {name: row[name] for name in WATCHED if name in row}
        found["machine"] = self._name(str(row.get("machine") or ""))
        found["commit"] = row.get("commit_id", "")
        place = {"phase": slot.phase, "instance": slot.instance, "task": task}
        self.tell(run, {**found, **place})

    def tell(self, run: str, change: dict[str, Any]) -> None:
        for watcher in self.watchers.get(run, ()):
            watcher(change)

    def progress(self, name: str) -> dict[str, graph.PhaseProgress]:
        """Where the phases of an open run stand. Raises: NotFound."""
        run = self.runs.get(name)
        if run is None:
            raise NotFound(f"no open run {name[:12]} here")
        return _plan(run).phases


def _run(body: kinds.RunOpen, opened: EntryId) -> Run:
    spec = parse(body.spec.encode())
    base = None if body.repo and _base_of(body, spec) else ""
    return Run(body.run, body, spec, opened, graph.in_order(spec), base=base)


def _base_of(body: kinds.RunOpen, spec: Spec) -> str:
    """What a run starts from: as it was ordered, else as the spec says."""
    return body.base or spec.base or ""


def _plan(run: Run) -> graph.Plan:
    return graph.plan(run.spec, run.facts, run.matches, run.cancelled, run.order, barred=run.barred)


def _match_refusal(run: Run, event: ev.Matched) -> str:
    """Why these matches cannot become tasks, or ""."""
    each = run.spec.phases[event.phase].each
    count = max(event.count, len(event.matches))
    if event.reason:
        return event.reason
    if count > EACH_MATCHES_MAX:
        return f"{each} matches {count} paths, at most {EACH_MATCHES_MAX}; split it by folder"
    for path in event.matches:
        if refusal := order.match_refusal(path):
            return f"{each} matches {shown(path)}, which {refusal}; rename it, or match less"
    return ""


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
