"""What the owner and the worker ask of whoever drives them. They never do it themselves.

Instructions are carried out in the order given, the drafts of one flush inside one transaction;
everything that leaves the machine goes out after that transaction is durable. What is to be done
outside is an `Effect`, and what comes of it an `Event`, in the same form from here to where git and
processes are (node/event.py).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import NamedTuple

from msgspec import Struct

from muster.log.entry import EntryId
from muster.log.kind import kind_of
from muster.log.stream import FLEET, Scope
from muster.task.budget import Amount
from muster.task.kinds import NO_EPOCH, Body, Epoch, TaskAssign, TaskOpen, body_bytes


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


class Event(Struct, frozen=True):
    """Something happened outside: what the core of a machine is told of."""


class Effect(Struct, frozen=True):
    """Something is to be done outside, once everything it speaks of is durable."""


class RaiseFence(Effect, frozen=True):
    """Owner: register a task's new epoch at its repository; answer with `Fenced`."""

    task: str
    epoch: Epoch
    machine: str
    repo: str


class Fenced(Event, frozen=True):
    """The repository's fence took (or refused, with the reason) a new epoch.

    `newest` is what the fence holds where it refused because of that.
    """

    task: str
    epoch: Epoch
    reason: str = ""
    newest: Epoch = NO_EPOCH


class MoveBranch(Effect, frozen=True):
    """Owner: promote an attempt's commit by compare-and-set; answer with `Promoted`.

    It counts only where it is by that agent and signed by that machine.
    """

    task: str
    epoch: Epoch
    repo: str
    branch: str
    commit: str
    bases: tuple[str, ...]
    machine: str
    agent: str


class Promoted(Event, frozen=True):
    """The branch of a phase moved to `commit`; or did not, with the reason: `again` it may."""

    task: str
    epoch: Epoch
    commit: str = ""
    reason: str = ""
    again: bool = False


class StartAttempt(Effect, frozen=True):
    """Worker: run an agent on a task that this machine holds; it ends with one report.

    `attempt.start` is already among the drafts before this. `foreign`: another fleet asked for it.
    `limits` is what it may use up, once all who have a say in that have said it.
    """

    open: TaskOpen
    assign: TaskAssign
    values: Mapping[str, Mapping[str, str]]
    owner: str
    foreign: bool = False
    limits: Amount = Amount()


class StopAttempt(Effect, frozen=True):
    """Worker: end the attempt's whole process tree; its end is reported when it is gone."""

    task: str
    epoch: Epoch
    reason: str


class Stop(Struct, frozen=True):
    """Owner: tell the worker that it no longer holds this. It would find out by itself, later."""

    machine: str
    task: str
    epoch: Epoch
    reason: str


class BeatReply(Struct, frozen=True):
    """Owner: answer a worker's beat. `gone` are the leases that it does not hold."""

    machine: str
    mark: str
    held: tuple[tuple[str, Epoch], ...]
    gone: tuple[tuple[str, Epoch], ...]


class AskPerson(Struct, frozen=True):
    """Owner: a task waits for a person's decision."""

    task: str
    run: str
    phase: str


class MachineFault(Struct, frozen=True):
    """Owner: a machine failed at this part of itself, for the first time in a row."""

    machine: str
    part: str
    reason: str


class MachineMended(Struct, frozen=True):
    """Owner: what a machine failed at works again."""

    machine: str
    part: str


class Settled(Event, frozen=True):
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
    # The last that had it, and which agent of it; "" for none.
    machine: str = ""
    agent: str = ""
    # Why it came to nothing.
    reason: str = ""
    epoch: Epoch = NO_EPOCH


OwnerInstruction = (
    Draft
    | RaiseFence
    | MoveBranch
    | Stop
    | BeatReply
    | AskPerson
    | MachineFault
    | MachineMended
    | Settled
)
