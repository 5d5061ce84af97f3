"""An owner with its table and its workers, in memory: what the owner asks is carried out at once."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from muster.context.fold import ContextFold
from muster.fleet.facts import Facts
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose
from muster.log.fold import Gone, R, Skip, Table
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Incarnation, MachineId, StreamName
from muster.memory.fold import MemoryFold
from muster.memory.showing import MemoryReadFold
from muster.message.fold import MessageFold, ReadingFold
from muster.message.peer_file import PeerFileFold
from muster.task import kinds
from muster.task.approval_fold import ApprovalFold
from muster.task.budget_fold import PotFold, SpendingFold
from muster.task.delegation_fold import DelegationFold, RefusalFold
from muster.task.fold import TASK, AttemptFold, DecisionFold, EndingFold, TaskFold, TaskRow
from muster.task.instruction import Draft, Now, OwnerInstruction
from muster.task.keeping import KeepingFold
from muster.task.ledger import Ledger
from muster.task.open_task import Restored, Submission
from muster.task.owner import Owner
from muster.task.peer_work import PeerWorkFold
from muster.task.route import Machine
from muster.task.schedule_fold import ScheduleFold, SlotFold
from muster.task.standin import StandinFold
from muster.task.trust import TrustFold

OWNER = "0" * 64
BUILD = "b" * 64
STUDIO = "5" * 64


_FOLDS = (
    *(TaskFold, AttemptFold, DecisionFold, EndingFold),
    *(MessageFold, ReadingFold, TrustFold, MemoryFold, MemoryReadFold, ContextFold),
    *(StandinFold, KeepingFold, DelegationFold, RefusalFold, ApprovalFold, PotFold, SpendingFold),
    *(ScheduleFold, SlotFold, PeerFileFold, PeerWorkFold),
)


class MemoryRows:
    """The rows of one stream."""

    def __init__(self, machine: str) -> None:
        self.stream = StreamName(MachineId(machine), Incarnation("1" * 32), FLEET)
        self._tables = {table.row: table for fold in _FOLDS for table in fold.tables}
        self.held: dict[tuple[Any, ...], NamedTuple] = {}
        self.rest: bytes | None = None

    def get(self, table: Table[R], *key: Any) -> R | None:
        found: Any = self.held.get((table.name, *key))
        return found

    def every(self, table: Table[R]) -> list[R]:
        return [row for row in self.held.values() if isinstance(row, table.row)]

    def apply(self, rows: Iterable[NamedTuple]) -> None:
        for row in list(rows):
            if isinstance(row, Gone):
                gone = row.row
                del self.held[self._tables[type(gone)].name, *self._key(gone)]
                continue
            table = self._tables[type(row)]
            assert row[0] == self.stream
            self.held[table.name, *self._key(row)] = row

    def _key(self, row: NamedTuple) -> tuple[Any, ...]:
        return row[1 : 1 + self._tables[type(row)].key]


@dataclass
class Stream:
    """One machine's stream, folded as it grows."""

    machine: str
    rows: MemoryRows = field(init=False)
    entries: list[Entry] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)
    folds: tuple[Any, ...] = (TaskFold(), AttemptFold(), DecisionFold(), EndingFold())

    def __post_init__(self) -> None:
        self.rows = MemoryRows(self.machine)

    def append(
        self, body: Any, causes: Iterable[EntryId] = (), at_ms: int = 1000, actor: str = "muster"
    ) -> Entry:
        kind = kind_of(type(body))
        return self.append_raw(kind, kinds.body_bytes(body), causes, at_ms, actor)

    def append_raw(
        self, kind: str, raw: bytes, causes: Iterable[EntryId] = (), at_ms: int = 1000,
        actor: str = "muster",
    ) -> Entry:  # fmt: skip
        name = self.rows.stream
        seq = len(self.entries)
        stamp = Stamp(at_ms, 0)
        entry = compose(name, seq, stamp, kind, actor, list(causes), raw, bytes(16))
        self.entries.append(entry)
        for fold in self.folds:
            if entry.header.kind in fold.kinds:
                try:
                    self.rows.apply(fold.apply(entry, self.rows))
                except Skip as skip:
                    self.skipped.append(skip.reason)
        return entry

    def task(self, name: str) -> TaskRow:
        row = self.rows.get(TASK, name)
        assert row is not None
        return row


def machine(id: str, slots: dict[str, int] | None = None, **changes: Any) -> Machine:
    """A machine with a shell, git and two slots; what is no field of Machine is a fact."""
    own = {name: changes.pop(name) for name in ("load_percent", "cost", "name") if name in changes}
    known: dict[str, Any] = {
        "os": "linux",
        "arch": "x86_64",
        "cpus": 4,
        "memory_mib": 8192,
        "agents": {"shell": ""},
        "tools": {"git": "git version 2.43.0", "python": "Python 3.12.1"},
    }
    own.setdefault("name", {BUILD: "build", STUDIO: "studio"}.get(id, "other"))
    sizes = {"": 2} if slots is None else slots
    return Machine(id, facts=Facts(**{**known, **changes}), slots=sizes, **own)


def order(name: str, cause: str = "op:ann", again: bool = False, **changes: Any) -> Submission:
    """An order for a shell task; `name` is its id."""
    known: dict[str, Any] = {"template": {"agent": "shell", "do": "make test"}}
    return Submission(kinds.TaskOpen(name, **{**known, **changes}), cause, again=again)


class World:
    """An owner whose drafts are appended and folded at once."""

    def __init__(self, *machines: Machine, incarnation_order: int = 1, **options: Any) -> None:
        self.now = Now(1_000, 1_790_000_000_000)
        self.stream = Stream(OWNER)
        self.workers: dict[str, Stream] = {}
        self.seen: list[OwnerInstruction] = []
        self.options = options
        self.machines = machines
        self.owner = self._new_owner(incarnation_order)

    def _new_owner(self, incarnation_order: int) -> Owner:
        ledger = Ledger(
            incarnation_order,
            settled_with_key=self._settled_with_key,
            is_mine=lambda task: self.stream.rows.get(TASK, task) is not None,
            **self.options,
        )
        owner = Owner(ledger)
        for each in self.machines:
            owner.machine_up(each)
        return owner

    def _settled_with_key(self, dedupe: str) -> str | None:
        found = (row.task for row in self.stream.rows.every(TASK) if row.dedupe == dedupe)
        return next(found, None)

    def tick(self) -> None:
        """Ring what is due, as the daemon does."""
        for key in self.owner.due(self.now):
            self.owner.ring(key, self.now)

    def later(self, ms: int) -> None:
        self.now = Now(self.now.boot_ms + ms, self.now.wall_ms + ms)

    def flush(self) -> list[OwnerInstruction]:
        """Carry out the drafts; return everything."""
        out = self.owner.flush(self.now)
        for each in out:
            if isinstance(each, Draft):
                entry = self.stream.append_raw(
                    each.kind, each.raw, each.cites(), self.now.wall_ms, each.actor
                )
                each.id = entry.id
        self.seen += out
        assert self.stream.skipped == [], "the owner wrote what its own fold does not take"
        return out

    def submit(self, *orders: Submission) -> list[OwnerInstruction]:
        self.owner.submit(orders, self.now)
        return self.flush()

    def finish(self, name: str, status: Any = "done", **changes: Any) -> list[OwnerInstruction]:
        """The holder finishes its attempt."""
        row = self.stream.task(name)
        return self.say(row.machine, kinds.AttemptFinish(name, row.epoch, status, **changes))

    def say(self, machine: str, body: Any) -> list[OwnerInstruction]:
        """A worker writes an entry, and the owner hears of it."""
        worker = self.workers.setdefault(machine, Stream(machine))
        entry = worker.append(body)
        self.owner.report(entry.id, machine, body, self.now)
        return self.flush()

    def restart(self, incarnation_order: int) -> None:
        """The owner dies and reads its table again; what it had not flushed is gone."""
        self.owner = self._new_owner(incarnation_order)
        bodies = {e.id: e.body for e in self.stream.entries}
        restored = []
        for task in self.stream.rows.every(TASK):
            if task.state in {"queued", "waiting", "leased"}:
                raw = bodies[task.opened]
                assert raw is not None
                body = kinds.read(kinds.TaskOpen, raw)
                restored.append(Restored(task, body, ended=self._ended(task)))
        self.owner.restore(restored, self.now)

    def _ended(self, task: TaskRow) -> Any:
        worker = self.workers.get(task.machine)
        for entry in worker.entries if worker else []:
            body = kinds.read(kinds.KINDS[entry.header.kind], entry.body or b"")
            if not isinstance(body, kinds.AttemptStart) and (body.task, body.epoch) == (
                task.task, task.epoch,
            ):  # fmt: skip
                return entry.id, task.machine, body
        return None


def of(out: list[Any], wanted: type[Any]) -> list[Any]:
    """The instructions of one type, or the bodies of the drafts of one kind."""
    if issubclass(wanted, kinds.Body):
        return [e.body for e in out if isinstance(e, Draft) and isinstance(e.body, wanted)]
    return [each for each in out if isinstance(each, wanted)]
