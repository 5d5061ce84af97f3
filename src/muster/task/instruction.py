"""What the owner and the worker ask of whoever drives them. They never do it themselves.

Instructions are carried out in the order given, the drafts of one flush inside one transaction;
everything that leaves the machine goes out after that transaction is durable.
"""

from dataclasses import dataclass
from typing import NamedTuple

from muster.log.entry import EntryId
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Scope
from muster.task.kinds import Body, Epoch, body_bytes


class Now(NamedTuple):
    """The two clocks, given from outside: boot time counts sleep, wall time is a person's."""

    boot_ms: int
    wall_ms: int


@dataclass(slots=True, eq=False)
class Draft:
    """Append this entry. Whoever appends it writes the entry's id back into `id`.

    A cause may be another draft: it was given earlier, so it has its id by then.
    """

    body: Body
    causes: "tuple[EntryId | Draft, ...]" = ()
    scope: Scope = FLEET
    actor: str = "muster"
    id: EntryId | None = None
    _raw: bytes | None = None

    @property
    def kind(self) -> str:
        """The entry's kind."""
        return kind_of(type(self.body))

    @property
    def raw(self) -> bytes:
        """The entry's body as canonical bytes, made once."""
        if self._raw is None:
            self._raw = body_bytes(self.body)
        return self._raw

    def cites(self) -> list[EntryId]:
        """The causes as entry ids."""
        ids = [c.id if isinstance(c, Draft) else c for c in self.causes]
        # A missing id is our own mistake: a draft was carried out before the one it cites.
        assert None not in ids
        return [i for i in ids if i is not None]


Cite = EntryId | Draft


@dataclass(slots=True, frozen=True)
class RegisterEpoch:
    """Owner: raise the task's epoch at the repository's fence, then call `fenced` or `unfenced`."""

    task: str
    epoch: Epoch
    machine: str
    repo: str


@dataclass(slots=True, frozen=True)
class Promote:
    """Owner: move the branch of (run, phase) to the commit; then `promoted` or `unpromoted`.

    `machine` and `agent` are who was given the task: the commit must be theirs, and signed.
    """

    task: str
    epoch: Epoch
    repo: str
    run: str
    phase: str
    instance: str
    commit: str
    machine: str
    agent: str


@dataclass(slots=True, frozen=True)
class Stop:
    """Owner: tell the worker that it no longer holds this. It would find out by itself, later."""

    machine: str
    task: str
    epoch: Epoch
    reason: str


@dataclass(slots=True, frozen=True)
class BeatReply:
    """Owner: answer a worker's beat. `gone` are the leases that it does not hold."""

    machine: str
    mark: str
    held: tuple[tuple[str, Epoch], ...]
    gone: tuple[tuple[str, Epoch], ...]


@dataclass(slots=True, frozen=True)
class AskPerson:
    """Owner: a task waits for a person's decision."""

    task: str
    run: str
    phase: str


@dataclass(slots=True, frozen=True)
class MachineFault:
    """Owner: a machine failed at this part of itself, for the first time in a row."""

    machine: str
    part: str
    reason: str


@dataclass(slots=True, frozen=True)
class MachineMended:
    """Owner: what a machine failed at works again."""

    machine: str
    part: str


@dataclass(slots=True, frozen=True)
class Settled:
    """Owner: a task has its outcome (or was cancelled); the run may go on. `cite` is the entry."""

    task: str
    run: str
    phase: str
    instance: str
    outcome: str
    summary: str
    commit: str
    values: dict[str, str]
    cite: EntryId | Draft | None
    # The last that had it, "" for none.
    machine: str = ""


OwnerInstruction = (
    Draft
    | RegisterEpoch
    | Promote
    | Stop
    | BeatReply
    | AskPerson
    | MachineFault
    | MachineMended
    | Settled
)
