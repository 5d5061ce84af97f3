"""Runs that this machine owns: from a spec's graph to tasks, from outcomes to the next tasks.

Rule 1: `task/graph.py` is told of every change and asked what is to be done now; what is kept here
is read back from the log after a start.
Rule 2: a dependent task starts from the commits its prerequisites ended on, and gets their values.
Rule 3: what fails is one run: it is settled as failed, with the reason, and its tasks are
cancelled.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, NamedTuple, ParamSpec

from muster.errors import Conflict, NotFound, Refused
from muster.limits import BODY_BYTES_MAX, GIT_BASES_MAX, REASON_CHARS_MAX, RUN_TASKS_MAX
from muster.log.entry import EntryId
from muster.log.fold import R, Table, body_as
from muster.log.stream import FLEET, StreamName
from muster.node.part import Part
from muster.node.tasks import results as yields
from muster.node.tasks.bases import BaseFound, Bases, FindBase, Matched, MatchGlob, beginnings
from muster.node.tasks.followers import Followers
from muster.node.tasks.kept import tasks_of
from muster.node.tasks.opened_run import opened_run
from muster.node.tasks.owner import OwnerService, ReadBack
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.results import Settlement, settled_of
from muster.node.tasks.run import Ends, Run, Yields
from muster.node.tasks.waivers import CountLines, LinesCounted, asks_first, decided
from muster.task import graph, identity, kinds, review
from muster.task import values as values_of
from muster.task.fold import RUN, TASK, RunRow, TaskRow
from muster.task.graph import Slot
from muster.task.instruction import Draft, Settled
from muster.task.open_task import Submission
from muster.task.review_check import reviewers_alone
from muster.task.state import LIVE
from muster.task.template import phase_order

if TYPE_CHECKING:
    from muster.node.core import Core

P = ParamSpec("P")
# What an opening keeps of the values that are too large for it: merges are named after it.
_SMALL: Final = frozenset({"commit"})


class Given(NamedTuple):
    """What a task is given of the phases before it, and whether that is all of it."""

    inline: Yields
    whole: bool


# What was given in this step already, by the phases before and what is used of them.
Asked = dict[tuple[tuple[str, ...], values_of.Uses, bool], Given]


class RunService(Part):
    """All open runs of this owner."""

    name = "runs"
    effects = (MatchGlob, FindBase, CountLines)

    def __init__(self, core: "Core") -> None:
        self.core = core
        self.owners, self.followers = core.part(OwnerService), core.part(Followers)
        self._owned = core.part(Ownership)
        self.runs: dict[str, Run] = {}
        self._moved: dict[str, None] = {}
        self._kept: yields.Kept = {}
        self.bases = look = Bases(
            core, self.runs, self.moved, self.followers.waits, self.followers.notes
        )
        core.on(Matched, lambda event: self.about(event.run, look.matched, event))
        core.on(BaseFound, lambda event: self.about(event.run, look.base_found, event))
        core.on(LinesCounted, lambda event: self.about(event.run, self.counted, event))
        core.on(Settled, lambda end: self.about(end.run, self.settled, end) if end.run else None)
        core.on(ReadBack, self._taken_up)

    # --- beginning ---------------------------------------------------------------------------

    def open(self, body: kinds.RunOpen, causes: tuple[EntryId, ...], actor: str) -> str:
        """Begin a run; its spec was checked before."""
        entry = self.core.append_body(body, cause=causes, actor=actor)
        self.runs[body.run] = self._opened(body, entry.id)
        self.moved(body.run)
        return body.run

    def adopt(self) -> None:
        """Read our open runs back; one of an earlier incarnation is opened anew in this one."""
        own = self.core.membership.own(FLEET)
        found = self._owned.ours(RUN, ("open",))
        for name in dict.fromkeys(row.run for row in found):
            rows = self._own_rows(RUN, run=name)
            # A stream that ended says "open" for ever; what counts is whether any of ours settled.
            if rows and all(r.state == "open" for r in rows):
                self.about(name, self._take_up, name, rows, own)

    def _take_up(self, name: str, rows: list[RunRow], own: StreamName) -> None:
        here = [r for r in rows if r.stream == own]
        if name in self.runs and here:
            return
        entry = self.core.log.entry((here or rows)[-1].opened)
        if entry is None:
            return
        if name not in self.runs:
            run = self._opened(body_as(entry, kinds.RunOpen), entry.id)
            kept, run.began = run.began, set()
            self._take_in(run, self._own_rows(TASK, run=run.run))
            if run.began or (run.tasks and not run.base_name and not run.is_held):
                # It began at that, or from what its repository had then.
                run.base = min(run.began, default="")
            run.began |= kept
            self.runs[name] = run
        if not here:
            self.core.append("run.open", entry.body or b"{}", cause=(entry.id,))
        self.moved(name)

    def _taken_up(self, _event: ReadBack) -> None:
        """The owner read its tasks back; what runs know of them is read back as well."""
        kept = {name: run.progress.cancelled for name, run in self.runs.items()}
        self.runs.clear()
        self.adopt()
        for name in kept.keys() & self.runs.keys():
            if kept[name]:
                self.runs[name].progress.cancel(kept[name])

    # --- what fails ---------------------------------------------------------------------------

    def about(self, run: str, work: Callable[P, object], *args: P.args, **named: P.kwargs) -> None:
        """Do something about one run; when it fails that run ends, and the others go on."""
        failure = self.core.guard.run("run", run[:12], work, *args, **named)
        if failure is not None:
            self._fail(run, failure)

    def _fail(self, name: str, reason: str) -> None:
        run = self.runs.pop(name, None)
        if (opened := run.opened if run is not None else None) is None:
            own = self.core.membership.own(FLEET)
            here = self._own_rows(RUN, run=name, state="open", stream=own)
            if not here:
                return
            opened = here[-1].opened
        for task in self.owners.owner.of_run(name):
            why = f"the run failed: {reason}"
            about, cancel = self.owners.about, self.owners.owner.cancel
            about(task, cancel, task, why, (opened,), self.core.now)
        body = kinds.RunSettle(name, "failed", summary=reason[:REASON_CHARS_MAX])
        self.core.guard.run("run", name[:12], self.core.append_body, body, cause=(opened,))
        self.followers.settled(name, "failed", reason)

    def _own_rows(self, table: Table[R], **equals: Any) -> list[R]:
        return self.core.tables.rows(table, writer=self.core.machine, **equals)

    def _opened(self, body: kinds.RunOpen, opened: EntryId) -> Run:
        store, me = self.core.store, self.core.machine
        run = opened_run(store, me, body, opened)
        run.adopted = self._owned.is_adopted(body.run)
        self._take_in(run, [r for p, of in body.kept.items() for r in tasks_of(store, me, of, p)])
        return run

    def _take_in(self, run: Run, rows: list[TaskRow]) -> None:
        """What became of tasks, in the order in which they ended."""
        for row in sorted(rows, key=self._place):
            slot = Slot(row.phase, row.instance)
            run.tasks[slot] = row.task
            end = None if row.state in LIVE else settled_of(self.core.store, row)
            machine = self.core.membership.name_of(row.machine)
            run.tell(slot, row.state, machine, end)
            if end is not None and row.settled:
                run.ended(slot, end)
        if run.is_held:
            run.began |= beginnings(self.core.store, rows, run.ends.values())
        for name, phase in run.spec.phases.items():
            found = tuple(s.instance for s in run.tasks if s.phase == name)
            if phase.each is not None and found and not run.progress.matched(name):
                run.progress.match(name, found)

    def _place(self, row: TaskRow) -> tuple[int, ...]:
        """When a task was settled, in our log's own order: of two racers the first one won."""
        entry = self.core.log.entry(row.settled)
        return (*entry.header.t, entry.header.seq) if entry else (row.opened_ms, 0, 0)

    # --- going on ------------------------------------------------------------------------------

    def moved(self, run: str) -> None:
        """Ask the graph again before this step ends."""
        self._moved[run] = None
        self.dirty = True

    @property
    def needs_tick(self) -> bool:
        return bool(self.runs)

    def tick(self) -> None:
        self.bases.tick()

    def flush(self) -> None:
        """Start, ask, match and cancel what the graphs say."""
        moved, self._moved = list(self._moved), {}
        for name in moved:
            run = self.runs.get(name)
            if run is not None:
                self.about(name, self._advance, run)

    def _advance(self, run: Run) -> None:
        if run.base is None and not run.progress.cancelled:
            # Nothing begins before it is known where: every first phase starts from one commit.
            if "" not in run.asked:
                run.asked.add("")
                self.core.do(FindBase(run.run, run.body.repo, run.base_name, run.is_held))
            return
        plan = run.progress.plan()
        starts: dict[str, list[Slot]] = {}
        asked_now = (slot for slot in plan.ask if not asks_first(self.core, run, slot))
        for slot in (*plan.start, *asked_now):
            starts.setdefault(slot.phase, []).append(slot)
        if starts:
            ends, asked = run.by_phase(), dict[Any, Given]()
            for name, slots in starts.items():
                self._open_phase(run, name, slots, ends, asked)
        for name in plan.match:
            if name not in run.asked:
                run.asked.add(name)
                commit, glob = run.start_of(Slot(name), run.by_phase()), run.spec.phases[name].each
                self.core.do(MatchGlob(run.run, name, run.body.repo, commit, glob or ""))
        for slot, reason in plan.cancel:
            try:
                self.owners.owner.cancel(run.tasks[slot], reason, (run.opened,), self.core.now)
            except NotFound:
                # It settled in this very step; its outcome is on the way.
                continue
        if self.followers.watchers.get(run.run):
            self._tell_phases(run)
        if plan.settled:
            body = kinds.RunSettle(run.run, plan.settled, summary=plan.reason[:2000])
            causes = [c for c in (self._cite(e) for e in run.ends.values()) if c][-15:]
            self.core.append_body(body, cause=(run.opened, *causes))
            del self.runs[run.run]
            if not self.runs:
                self._kept.clear()
            self.followers.settled(run.run, plan.settled, plan.reason)

    def counted(self, event: LinesCounted) -> None:
        """The change behind a question is counted: it is asked now, or need not be."""
        run, slot = self.runs.get(event.run), Slot(event.phase)
        if run is not None and slot not in run.tasks and decided(self.core, run, event):
            self._open_phase(run, event.phase, [slot], run.by_phase(), {})
            self.moved(run.run)

    def _tell_phases(self, run: Run) -> None:
        """Whoever follows it hears of phases without tasks, which leave no entries."""
        now = {n: each for n, each in self.taskless(run).items() if run.told.get(n) != each}
        run.told.update(now)
        self.followers.phases(run.run, now)

    def taskless(self, run: Run) -> dict[str, graph.PhaseProgress]:
        """Where the phases stand that have no task."""
        found = self.progress(run.run)
        return {n: each for n, each in found.items() if not run.progress.has_tasks(n)}

    def _open_phase(self, run: Run, name: str, slots: list[Slot], ends: Ends, asked: Asked) -> None:
        """Open a phase's tasks, all of them or none: what cannot be opened has failed."""
        try:
            if len(run.tasks) + len(slots) > RUN_TASKS_MAX:
                raise Refused(f"a run has at most {RUN_TASKS_MAX} tasks; make several runs of it")
            orders = self._orders(run, name, slots, ends, asked)
            opened = self.owners.submit(orders)
        except (Refused, NotFound) as error:
            run.bar(name, str(error))
            self.moved(run.run)
            return
        for slot, done in zip(slots, opened, strict=True):
            run.tasks[slot] = done.task
            run.tell(slot, "waiting" if run.spec.phases[slot.phase].by_human else "queued")
            self.followers.changed(run.run, done.task)

    def _orders(
        self, run: Run, name: str, slots: list[Slot], ends: Ends, asked: Asked
    ) -> list[Submission]:
        """The orders of a phase's tasks, with its values in them or, where they are too large,
        with what tells a worker that it has all of them.

        Raises: Refused, Malformed: a value cannot be handed on.
        """
        phase = run.spec.phases[name]
        bases = run.start_of(slots[0], ends).split()
        if len(bases) > GIT_BASES_MAX:
            raise Refused(
                f"it starts from {len(bases)} commits, and {GIT_BASES_MAX} is the most that are "
                "merged: let phases between gather a part of them each"
            )
        order = phase_order(run.spec, name, slots[0].instance, run.body.values)
        used, strict = values_of.uses_of(order), not phase.by_human
        # The phases whose values it is given: those just before it, and those it names.
        sources = used.sources(run.spec.phases).union(phase.prerequisites)
        known = tuple(n for n in run.progress.order if n in sources and n in ends)
        # The phases of one layer come after the same ones, and mostly use the same of them.
        given = asked.get((known, used, strict))
        if given is None:
            store, found = self.core.store, dict[str, list[Settlement]]()
            for n in known:
                every = (yields.settlement(store, end, self._kept) for end in ends[n])
                found[n] = [each for each in every if each is not None]
            given = asked[known, used, strict] = self._given(found, used, strict=strict)
        orders = [self._order(run, slot, ends, given.inline) for slot in slots]
        most = BODY_BYTES_MAX - 128  # The digest is added later.
        if given.whole and all(len(kinds.body_bytes(each.body)) <= most for each in orders):
            return orders
        # A worker reads them from our log, as we do here; the hash tells it that it has them all.
        found = yields.gathered(self.core.store, self.core.machine, run.run, known)
        self._given(found, used, strict=strict)
        apart = {n: {v: t for v, t in given.inline[n].items() if v in _SMALL} for n in found}
        results = yields.digest(found)
        return [self._order(run, slot, ends, apart, results) for slot in slots]

    def _given(
        self, found: dict[str, list[Settlement]], used: values_of.Uses, *, strict: bool
    ) -> Given:
        every = yields.pieces(self.core.store, found, self._kept)
        every = yields.used(every, used, strict=strict)
        inline = {n: {v: yields.joined(p) for v, p in each.items()} for n, each in every.items()}
        whole = all(p.large is None for each in every.values() for ps in each.values() for p in ps)
        return Given(inline, whole)

    def _order(
        self, run: Run, slot: Slot, ends: Ends, given: Yields, results: str = ""
    ) -> Submission:
        phase = run.spec.phases[slot.phase]
        template = phase_order(run.spec, slot.phase, slot.instance, run.body.values)
        more = run.owners_word(slot, ends)
        if slot.phase in run.spec.reviewers:
            roster, candidate = self.core.roster, self.core.membership.candidate
            there = [candidate(each) for each in roster.machines if each in roster.facts]
            place = (run.spec, slot.phase, run.body, there, run.machines_of(slot.phase))
            more[review.KEPT] = " ".join(sorted(reviewers_alone(*place)))
        body = kinds.TaskOpen(
            task=identity.task_id(run.run, slot.phase, slot.instance),
            template=template,
            run=run.run,
            phase=slot.phase,
            instance=slot.instance,
            values=run.values(slot, given, more, results),
            repo=run.body.repo,
            base=run.start_of(slot, ends),
            priority=run.body.priority + (phase.priority or 0),
            retries=phase.repeats,
            deadline_ms=run.deadline_ms(phase, self.core.now.wall_ms),
        )
        causes = [run.opened]
        reviewers: list[str] = template.get("reviewers", []) if slot.instance else []
        for before in (*phase.prerequisites, *reviewers):
            causes += [self._cite(end) for end in ends.get(before, ())][:3]
        known = tuple(dict.fromkeys(c for c in causes if c))[:15]
        spared = run.waivers.get(slot.phase)
        why = spared.sentence if spared is not None and spared.waived else ""
        return Submission(body, run.run, known, waived=why)

    def _cite(self, end: Settled) -> EntryId:
        cite = end.cite.id if isinstance(end.cite, Draft) else end.cite
        return cite or EntryId(b"")

    # --- ending ---------------------------------------------------------------------------------

    def settled(self, end: Settled) -> None:
        """A task has its outcome."""
        run = self.runs.get(end.run)
        if run is None:
            return
        slot = Slot(end.phase, end.instance)
        run.ended(slot, end)
        state: Any = end.outcome
        if run.spec.phases[slot.phase].by_human:
            self.core.incidents.close(f"ask-{end.task[:32]}", f"the phase is {end.outcome}")
        run.tell(slot, state, self.core.membership.name_of(end.machine), end)
        self.followers.changed(run.run, end.task)
        self.moved(run.run)

    def cancel(self, name: str, reason: str) -> None:
        """Raises: NotFound where no such run is open here."""
        run = self.runs.get(name)
        if run is None:
            raise NotFound(
                f"no open run {name[:12]} here: it is settled, or another machine owns it"
            )
        if run.progress.cancelled:
            raise Conflict(f"run {name[:12]} is being cancelled already")
        run.progress.cancel(reason or "nobody wants it any more")
        self.moved(name)

    def progress(self, name: str) -> dict[str, graph.PhaseProgress]:
        """Where the phases of an open run stand. Raises: NotFound."""
        run = self.runs.get(name)
        if run is None:
            raise NotFound(f"no open run {name[:12]} here")
        found = run.progress.phases
        for phase, reason in self.bases.waiting(run).items():
            if found[phase].state in ("ready", "waiting"):
                found[phase] = graph.PhaseProgress("waiting", reason)
        return found
