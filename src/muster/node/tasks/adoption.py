"""Work whose owner is gone goes on here, by an operator's order: to take it over, or to stand in.

Rule 1: what is adopted is what is open by this machine's log, while the order lasts. All entries
about one run are written in one step: there is no half of an adoption.
Rule 2: an attempt that the owner before had given may run still, and nobody but its machine knows:
what is leased goes on when that attempt has ended, or its lease has, counted from the order.
Rule 3: while the owner is linked nothing is adopted: it does its own work.
Rule 4: a stand-in goes on when it heard nothing of the machine (hearing.py) for as long as was
ordered and for a lease: no lease lasts then that was renewed before. On a visit it adopts nothing.
Rule 5: whoever hears that work was taken over obeys, its owner before as well: attempts that it
gave end, and it writes nothing more of it. What it did meanwhile is its claim (ownership.py).
"""

from collections import deque
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from msgspec.structs import replace

from muster.fleet.folds import ORDER
from muster.limits import LEASE_MS
from muster.log.entry import Entry, EntryId
from muster.log.fold import body_or_none
from muster.log.stream import FleetId, MachineId, StreamName
from muster.node import event as ev
from muster.node.counter import DECLARED
from muster.node.incarnations.doubt import Doubt
from muster.node.part import Part
from muster.node.tasks.asking import asked_of
from muster.node.tasks.branches import Branches
from muster.node.tasks.elections import Elections, above_any, place_before
from muster.node.tasks.hearing import Hearing
from muster.node.tasks.keepers import Keepers, Kept, repository_of
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.ownership import Ownership, attempts_of
from muster.node.tasks.runs import RunService
from muster.node.tasks.standins import standins, still_counts
from muster.node.tasks.worker import WorkerService
from muster.task import kinds
from muster.task.adoption import TAKEOVER
from muster.task.fold import ADOPTION, RUN, TASK, RunRow, TaskRow
from muster.task.route import ORDER_SINCE
from muster.task.standin import STANDINS, StandinFold, StandinRow
from muster.task.state import LIVE
from muster.task.values import SINCE

if TYPE_CHECKING:
    from muster.node.core import Core

DECLARED[__name__] = {
    "adopted": "A run or task of a machine that is gone goes on here.",
    "taken-over": "A run or task of this machine goes on at another one.",
}

# Whether something more is known of the owner is looked at so often.
_PAUSE_MS: Final = 1_000
# What is left with an owner that is gone is looked at again after so long.
_AGAIN_MS: Final = 5_000
# So many runs and tasks are adopted in one step: some milliseconds.
_AT_ONCE: Final = 20


class Order(NamedTuple):
    """An operator's order to take over a machine's work: its entry, and until when it counts.

    At `leases_end_ms`, on the boot clock, nothing runs any more that the machine had given.
    """

    entry: EntryId
    until_ms: int
    leases_end_ms: int


class Work(NamedTuple):
    """The open work of a machine: what may be adopted, and what not, with the reason."""

    runs: list[RunRow]
    tasks: list[TaskRow]
    left: dict[str, str]


class Due(NamedTuple):
    """A run or task that can be adopted."""

    machine: MachineId
    order: Order
    row: RunRow | TaskRow


class Adoptions(Part):
    name = "adoption"

    def __init__(self, core: "Core") -> None:
        self.core = core
        self._owned, self._owners = core.part(Ownership), core.part(OwnerService)
        self._keepers, self._elections = core.part(Keepers), core.part(Elections)
        self._orders: dict[MachineId, Order] = {}
        self._look_ms = 0
        self._hearing = Hearing(core)
        # What is to be adopted; when a machine is looked at again, and whose word makes it sooner.
        self._due: deque[Due] = deque()
        self._again_ms: dict[str, int] = {}
        self._heeds: dict[str, set[str]] = {}
        # What was opened again by a machine that goes on with it, since the last tick.
        self._opened: dict[str, None] = {}
        # Whether something was adopted that no part took up yet.
        self._read_back = False
        core.on("run.open", self._on_open)
        core.on("task.open", self._on_open)
        core.on("fleet.standin", self._on_standin)
        core.on(ev.EntriesCame, self._came)
        core.on(Kept, lambda event: self._again_ms.pop(event.machine, None))
        core.on(ev.RosterChanged, self._operators_changed)
        for each in (ev.DoubtOver, ev.NewIncarnation):
            core.on(each, lambda _event: self.start())

    def start(self) -> None:
        """Take up the orders that have not ended."""
        now_ms = self.core.now.wall_ms
        for row in self.core.tables.rows(
            ORDER, writer=self.core.machine, verb=TAKEOVER, above={"until_ms": now_ms}
        ):
            self.begin(MachineId(row.object), row.entry, row.until_ms)

    def begin(self, machine: MachineId, order: EntryId, until_ms: int) -> None:
        """An operator ordered that this machine goes on with another one's work."""
        leases_end_ms = self.core.now.boot_ms + self._lease_ms()
        self._orders[machine] = Order(order, until_ms, leases_end_ms)
        self._look_ms = self._again_ms[machine] = 0

    def within_ms(self, work: "Work") -> int:
        """How long it is at most until this work goes on, 0 where nothing of it may run still."""
        tasks = [*work.tasks, *(row for run in work.runs for row in self._tasks_of(run))]
        return self._lease_ms() if any(map(self._may_run, tasks)) else 0

    def _lease_ms(self) -> int:
        return int(self.core.settings.get("lease_ms") or LEASE_MS)

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:
        return (StandinFold(fleet),)

    # --- what there is ---------------------------------------------------------------------

    def work(self, machine: str) -> Work:
        """The open work of a machine, as far as this one knows it."""
        runs: dict[str, RunRow] = {}
        tasks: dict[str, TaskRow] = {}
        left: dict[str, str] = {}
        for run in self.core.tables.rows(RUN, writer=machine, state="open"):
            held = self._owned.held(RUN, run.run)
            if held is not None and held.owner == machine and held.row.state == "open":
                runs[run.run] = held.row
        for state in sorted(LIVE):
            for row in self.core.tables.rows(TASK, writer=machine, state=state, run=""):
                known = self._owned.held(TASK, row.task)
                if known is not None and known.owner == machine and known.row.state in LIVE:
                    tasks[row.task] = known.row
        open_work: list[RunRow | TaskRow] = [*runs.values(), *tasks.values()]
        for each in open_work:
            if why := self._why_not(each, machine) or self._above_any(each):
                left[each.id] = why
                runs.pop(each.id, None)
                tasks.pop(each.id, None)
        return Work(list(runs.values()), list(tasks.values()), left)

    def _why_not(self, row: RunRow | TaskRow, machine: str) -> str:
        """Why this machine cannot go on with it, "" where it can."""
        core, opened = self.core, self.core.log.entry(row.opened)
        body: Any = opened and (
            body_or_none(opened, kinds.RunOpen) or body_or_none(opened, kinds.TaskOpen)
        )
        if opened is None or body is None:
            return "this machine cannot read what was ordered"
        me, rows = core.machine, core.tables.rows
        is_run = isinstance(row, RunRow)
        if rows(RUN, writer=me, run=row.id) if is_run else rows(TASK, writer=me, task=row.id):
            return "this machine had it before"
        keepers, repo = self._keepers, body.repo
        if repo and keepers.is_of(machine, repo) and not keepers.has_mirror(machine, repo):
            return f"its repository {body.repo} is kept by {core.membership.name_of(machine)}"
        if isinstance(row, TaskRow):
            once = body.template.get("once") is True and row.state == "leased"
            return "it is never run twice, and was under way" if once else ""
        if asked_of(core.log.entry, opened) is not None:
            return "an agent handed it on"
        return "it keeps phases of an earlier run" if body.kept else ""

    def _above_any(self, row: RunRow | TaskRow) -> str:
        """Why nobody would believe who goes on with it, "" where somebody would.

        Whoever is gone may have lied: its places are no measure for ours.
        """
        tasks = self._tasks_of(row) if isinstance(row, RunRow) else []
        if above_any(self.core, self._place_of(row, tasks) - 1):
            return "its owner gave it under a place above any that a machine comes to"
        return ""

    def _place_of(self, row: RunRow | TaskRow, tasks: Sequence[TaskRow]) -> int:
        """The lowest place under which this machine could have it."""
        return place_before(self.core, row, [row] if isinstance(row, TaskRow) else tasks) + 1

    # --- going on --------------------------------------------------------------------------

    @property
    def needs_tick(self) -> bool:
        return bool(self._orders or self._opened or self._read_back or self._due)

    def tick(self) -> None:
        """Adopt what can be, and obey where others did."""
        if self._opened or self._read_back:
            opened, self._opened = self._opened, {}
            lost = [what for what in opened if self._obey(what)]
            if lost or self._read_back:
                self._read_back = False
                self.core.counters["taken-over"] += len(lost)
                # What is ours now, and what is not, the tables say.
                self._owners.recover("", "")
        now = self.core.now
        if now.boot_ms < self._look_ms:
            self._go_on()
            return
        named = standins(self.core)
        self._look_ms = now.boot_ms + _PAUSE_MS
        self._hearing.leave_signs(named)
        if self.core.settings.get("visiting") or self.core.part(Doubt).waits:
            return
        self._stand_in(named)
        for machine, order in list(self._orders.items()):
            if now.wall_ms > order.until_ms or not still_counts(self.core, order.entry):
                del self._orders[machine]
            elif self.core.link_to(machine) is None:
                self._plan(machine, order)
        self._go_on()

    def _stand_in(self, named: Mapping[str, StandinRow]) -> None:
        """Go on with the work of those of whom nothing was heard for long enough."""
        claims = self._elections.claims(named)
        gone = self._hearing.gone(claims, self._lease_ms())
        for machine in self._elections.elected(claims, gone):
            self._plan(machine, Order(claims[machine].entry, 0, self.core.now.boot_ms))

    def _plan(self, machine: MachineId, order: Order) -> None:
        """Find what can be adopted now; looked at again when something is heard, or in a while."""
        now_ms = self.core.now.boot_ms
        # Its repositories first: work goes on where they are.
        self._keepers.take(machine, order.entry)
        if now_ms < self._again_ms.get(machine, 0):
            return
        found, over = self.work(machine), now_ms >= order.leases_end_ms
        waits, planned = {str(machine)}, {each.row.id for each in self._due}
        for row in self._elections.of_order(machine, order.entry, [*found.runs, *found.tasks]):
            if (repo := repository_of(self.core, row)) and self._keepers.is_of(machine, repo):
                continue
            tasks = self._tasks_of(row) if isinstance(row, RunRow) else [row]
            running = [] if over else [task for task in tasks if self._may_run(task)]
            waits |= {task.machine for task in running}
            if not running and row.id not in planned:
                self._due.append(Due(machine, order, row))
        self._again_ms[machine], self._heeds[machine] = now_ms + _AGAIN_MS, waits

    def _came(self, event: ev.EntriesCame) -> None:
        """Something of an owner that is gone, or of who worked for it: it is looked at anew."""
        for machine, heeds in self._heeds.items():
            if event.stream.machine in heeds:
                self._again_ms[machine] = 0

    def _go_on(self) -> None:
        """Adopt some of what is due: the rest has its turn in the next tick."""
        count = 0
        while self._due and count < _AT_ONCE:
            due = self._due.popleft()
            tasks = self._tasks_of(due.row) if isinstance(due.row, RunRow) else []
            count += 1 + len(tasks)
            away, may = self.core.link_to(due.machine) is None, self._elections.may
            if away and still_counts(self.core, due.order.entry) and may(due.order.entry):
                self.core.guard.run("adoption", due.row.id[:12], self._adopt_now, due, tasks)

    def _adopt_now(self, due: Due, tasks: list[TaskRow]) -> None:
        row, orders = due.row, due.order
        if not self._elections.place(orders.entry, self._place_of(row, tasks)):
            return
        if isinstance(row, RunRow):
            run = self._owned.held(RUN, row.run)
            if run is None or run.owner != due.machine or run.row.state != "open":
                return
            self._adopt_run(run.row, tasks, orders)
        else:
            task = self._owned.held(TASK, row.task)
            if task is None or task.owner != due.machine or task.row.state not in LIVE:
                return
            self._adopt(task.row, orders)
        self.core.counters["adopted"] += 1
        self._read_back = True

    def _tasks_of(self, run: RunRow) -> list[TaskRow]:
        """The tasks of another machine's run, each by its newest row."""
        rows = self.core.tables.rows(TASK, writer=str(run.stream.machine), run=run.run)
        rows.sort(key=lambda row: row.changed_ms)
        return list({row.task: row for row in rows}.values())

    def _may_run(self, row: TaskRow) -> bool:
        """Whether a machine that had the task may work on it still."""
        if row.state != "leased":
            return False
        return not any(a.ended for a in attempts_of(self.core, row.machine, row.task, row.epoch))

    def _adopt(
        self, row: RunRow | TaskRow, order: Order, tasks: Sequence[TaskRow] = ()
    ) -> tuple[Entry, Entry]:
        """Write down that this machine goes on with it, and open it again: both entries."""
        machine = str(row.stream.machine)
        before = self.core.log.entry(row.opened)
        assert before is not None, "it was read just before"
        generation = self._elections.place(order.entry, self._place_of(row, tasks))
        body = kinds.TaskAdopt(row.id, machine, generation)
        adopt = self.core.append_body(body, cause=(order.entry, row.opened))
        again = before.body or b"{}"
        return adopt, self.core.append(before.header.kind, again, cause=(row.opened, adopt.id))

    def _adopt_run(self, run: RunRow, tasks: list[TaskRow], order: Order) -> None:
        adopt, opened = self._adopt(run, order, tasks)
        for row in tasks:
            if row.state in LIVE:
                self._open_again(row, opened)
                continue
            state: Any = row.state
            body = kinds.TaskInherit(
                row.task, run.run, state, row.phase, row.instance, row.epoch, row.machine,
                row.agent, row.summary, row.reason, row.commit_id,
            )  # fmt: skip
            # What was assigned to nobody names its opening twice: each has its place.
            cited = (adopt.id, row.opened, row.assigned or row.opened, row.settled)
            self.core.append_body(body, cause=cited)
        self.core.part(Branches).look_for_all(run.run)

    def _open_again(self, row: TaskRow, run: Entry) -> None:
        """A task that has not ended is this machine's, whatever was tried of it before.

        A person is asked anew by the graph of the run.
        """
        body = body_or_none(self.core.log.entry(row.opened), kinds.TaskOpen)
        if body is None or row.state == "waiting":
            return
        # Older machines take it for a stranger's, and need not be asked.
        since = {SINCE: ".".join(map(str, ORDER_SINCE))}
        values = {**body.values, "run": {**body.values.get("run", {}), **since}}
        self.core.append_body(replace(body, values=values), cause=(run.id, row.opened))

    # --- obeying ---------------------------------------------------------------------------

    def _on_open(self, stream: StreamName, entry: Entry) -> None:
        """Somebody opens work again: perhaps to go on with ours, or with what we work on."""
        body: Any = body_or_none(entry, kinds.KINDS[entry.header.kind])
        if body is None or (entry.header.kind == "task.open" and body.run):
            return
        what = body.run or body.task
        if self.core.tables.rows(ADOPTION, stream=stream, what=what, limit=1):
            self._opened[what] = None

    def _on_standin(self, stream: StreamName, entry: Entry) -> None:
        """An operator says anew who stands in: what we adopted by an older word may not be ours.

        A member can write down what nobody ordered: that changes nothing.
        """
        ever = self.core.roster.operators_ever
        for row in self.core.tables.rows(STANDINS, stream=stream):
            if row.entry == entry.id and row.operator in ever:
                self._judge_anew(row.machine)

    def _operators_changed(self, event: ev.RosterChanged) -> None:
        """Who was no operator when the word came may be known as one now."""
        if event.before is not None and event.before.operators_ever != event.after.operators_ever:
            for machine in {row.machine for row in self.core.tables.rows(STANDINS)}:
                self._judge_anew(machine)

    def _judge_anew(self, machine: str) -> None:
        self._owned.judge_anew()
        for row in self._elections.adopted_by(machine):
            self._opened[row.what] = None

    def _obey(self, what: str) -> bool:
        """End what runs here by order of somebody who has it no more; whether we had it."""
        core = self.core
        owner = self._owned.owner(RUN, what) or self._owned.owner(TASK, what)
        if owner is None:
            return False
        reason = f"{core.membership.name_of(MachineId(owner))} took it over"
        worker = core.part(WorkerService).worker
        for given in worker.given():
            task, of = given.assign.task, given.opened.run or given.assign.task
            if of == what and given.owner != owner:
                worker.stop(given.owner, task, given.assign.epoch, reason)
        had = what in core.part(RunService).runs or self._owners.owner.is_open(what)
        if owner == core.machine or not had:
            return False
        for row in core.tables.rows(TASK, writer=core.machine, run=what, state="waiting"):
            core.incidents.close(f"ask-{row.task[:32]}", reason)
        core.note(f"{reason}: {what[:12]} is this machine's no more")
        return True
