"""What a part of the core may ask of the whole, and of the other parts. Nothing else.

The parts (calls, orders, members, work) are written against these Protocols; `core.py` is the one
file that knows them all. So each part can be read, and tried, alone.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, ParamSpec, Protocol

from muster.agent.mask import Secrets
from muster.channel.frame import Type
from muster.errors import MusterError
from muster.fleet.capability import Capability
from muster.fleet.machine import Authority
from muster.fleet.roster import Roster
from muster.fleet.statement import Statement
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId
from muster.log.stream import FLEET, MachineId, Scope, StreamName
from muster.log.sync import Sync
from muster.node import event as ev
from muster.node.claim import Claims
from muster.node.clock import Steady
from muster.node.counter import Counts
from muster.node.intake import Intake
from muster.node.link import Answer, Link
from muster.node.standing import Standing
from muster.store.store import Draft, Store
from muster.task.instruction import Now
from muster.task.live import Beat

React = Callable[[StreamName, Entry], None]
P = ParamSpec("P")


class OrderTaken(NamedTuple):
    """An order taken: by whom, and the entry that says so."""

    actor: str
    entry: EntryId
    operator: str
    object: str


class Mark(NamedTuple):
    """A moment within a step, to which the core can go back."""

    store: tuple[int, Stamp]
    effects: int
    fresh: int
    orders: tuple[int, int]


class Failure(NamedTuple):
    """What became of a unit that failed: one sentence, and whether the mistake is ours."""

    text: str
    mistake: bool


class GuardPart(Protocol):
    def run(
        self, unit: str, about: str, work: Callable[P, object], *args: P.args, **named: P.kwargs
    ) -> Failure | None: ...
    def failed(self, unit: str, about: str, error: Exception) -> Failure: ...


class OrdersPart(Protocol):
    def take(self, verb: str, object: str | None, args: Any, raw: str) -> OrderTaken: ...
    def check_operator(self, verb: str, raw: str) -> None: ...
    def capability(self, token: str, verb: str, args: Any) -> str: ...
    def deny(self, by: str, verb: str, object: str, error: MusterError, raw: str = "") -> None: ...
    def allow_agent(self, capability: Capability, secrets: Secrets | None = None) -> None: ...
    def forget_agent(self, task: str) -> None: ...


class MembersPart(Protocol):
    @property
    def settled(self) -> bool: ...

    def write(self, kind: str, body: Any) -> None: ...


class IncidentsPart(Protocol):
    def open(self, key: str, severity: str, title: str, detail: str = "") -> None: ...
    def close(self, key: str, reason: str) -> None: ...
    def close_anywhere(self, key: str, reason: str) -> None: ...


class DoubtPart(Protocol):
    floor_ms: int

    @property
    def waits(self) -> bool: ...

    def start(self) -> None: ...
    def tick(self) -> None: ...
    def begin(self, reasons: Sequence[str], awaited: Mapping[str, int] | None = None) -> None: ...
    def check(self, statement: Statement) -> None: ...
    def check_once(self, what: str) -> None: ...


class LivesPart(Protocol):
    @property
    def beside(self) -> str | None: ...

    def word(self) -> str: ...
    def process(self, peer: str) -> str: ...
    def known(self) -> list[str]: ...
    def heard(self, link: Link, raw: str) -> None: ...
    def closed(self, link: int) -> None: ...
    def tick(self) -> None: ...


class RouterPart(Protocol):
    waiting: list[Any]

    def answer(self, link: int, channel: int, answer: Answer, *, last: bool = True) -> None: ...
    def link_down(self, link: int) -> None: ...
    def resume(self) -> None: ...


class WorkPart(Protocol):
    def beat(self, machine: str, mark: str, holds: list[Beat]) -> None: ...
    def told(self, machine: str, verb: str, args: Mapping[str, Any]) -> None: ...
    def settled(self) -> None: ...
    def doubt_over(self) -> None: ...
    def take_up(self) -> None: ...
    def incarnation_changed(self) -> None: ...
    def machine_here(self, machine: str) -> None: ...
    def machine_gone(self, machine: str) -> None: ...
    def machine_removed(self, machine: str) -> None: ...
    def roster_changed(self) -> None: ...
    def is_anothers(self, task: str, owner: str) -> bool: ...


class ForksPart(Protocol):
    def proofs(self) -> Mapping[StreamName, bytes]: ...
    def bury(self, machine: MachineId, wall_ms: int) -> None: ...


class ReplicationPart(Protocol):
    longer: dict[StreamName, int]
    on_own_wanted: Callable[[MachineId, StreamName], None]
    may_receipt: bool
    intake: Intake
    claims: Claims

    @property
    def forks(self) -> ForksPart: ...

    def closed(self, link: int) -> None: ...


class Whole(Protocol):
    """The core, as its parts see it."""

    now: Now
    clock: Steady
    store: Store
    standing: Standing
    sync: Sync
    settings: Mapping[str, Any]
    counters: Counts
    links: dict[int, Link]
    authority: Authority | None

    @property
    def machine(self) -> MachineId: ...

    @property
    def roster(self) -> Roster: ...

    @property
    def name(self) -> str: ...

    @property
    def orders(self) -> OrdersPart: ...

    @property
    def members(self) -> MembersPart: ...

    @property
    def incidents(self) -> IncidentsPart: ...

    @property
    def doubt(self) -> DoubtPart: ...

    @property
    def lives(self) -> LivesPart: ...

    @property
    def guard(self) -> GuardPart: ...

    @property
    def router(self) -> RouterPart: ...

    @property
    def work(self) -> WorkPart: ...

    @property
    def replication(self) -> ReplicationPart: ...

    def on(self, kind: str, react: React) -> None: ...

    def link_to(self, machine: str) -> int | None: ...

    def append(
        self,
        kind: str,
        body: bytes,
        *,
        scope: Scope = FLEET,
        cause: Sequence[EntryId] = (),
        actor: str = "muster",
    ) -> Entry: ...

    def append_all(self, scope: Scope, drafts: Sequence[Draft]) -> list[Entry]: ...

    def send(self, link: int, type: Type, channel: int, payload: bytes) -> None: ...

    def do(self, effect: ev.Effect) -> None: ...

    def note(self, text: str) -> None: ...

    def mark(self) -> Mark: ...

    def undo(self, mark: Mark) -> None: ...

    def draw(self, count: int) -> bytes: ...

    def call(self, machine: str, verb: str, args: Mapping[str, Any]) -> bool: ...
