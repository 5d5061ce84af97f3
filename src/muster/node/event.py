"""What reaches the core of a machine, and what the core wants done; both plain data.

Whoever drives the core (the daemon, the simulator) turns the world into events, and carries
effects out only after `Core.step` has returned: by then everything they speak of is durable.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from muster.channel.frame import Type
from muster.task.duration import Stage
from muster.task.kinds import Epoch, TaskAssign, TaskOpen

# --- events ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LinkUp:
    """A link works. `peer` is what the channel proved; `local` is a program of the same user.

    `through` is the machine in the middle of a relayed link.
    """

    link: int
    peer: str = ""
    local: bool = False
    channel: str = ""
    through: str = ""


@dataclass(frozen=True, slots=True)
class LinkDown:
    link: int
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Arrived:
    """One frame came in."""

    link: int
    type: Type
    channel: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class Tick:
    """Time passed; nothing else happened."""


@dataclass(frozen=True, slots=True)
class FactsChanged:
    """The machine looked at itself again; `facts` as fleet/facts.py writes them."""

    facts: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ShutOut:
    """A peer refused our link and showed a document: ours to check, whoever showed it."""

    proof: str


@dataclass(frozen=True, slots=True)
class HadNoRoom:
    """The disk was full for so long; what was ended to make room, and how many lines were lost."""

    for_ms: int
    ended: tuple[str, ...] = ()
    dropped: int = 0


@dataclass(frozen=True, slots=True)
class Noticed:
    """Something about this machine that a person must see; without a `title` it is over."""

    key: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class AttemptEvent:
    """An attempt of ours did something: for the journal."""

    task: str
    epoch: Epoch
    kind: str
    fields: Mapping[str, Any]
    actor: str = "muster"


@dataclass(frozen=True, slots=True)
class AttemptStage:
    """What an attempt of ours is at now; its owner hears of it with the next beat."""

    task: str
    epoch: Epoch
    stage: Stage


@dataclass(frozen=True, slots=True)
class AttemptEnded:
    """An attempt of ours ended; `status` is done, failed or killed.

    `fault` names what of this machine failed before the agent began: agent, repo or machine.
    """

    task: str
    epoch: Epoch
    status: str
    summary: str = ""
    reason: str = ""
    commit: str = ""
    values: Mapping[str, str] = field(default_factory=dict)
    artefacts: tuple[str, ...] = ()
    usage: Mapping[str, int] = field(default_factory=dict)
    fault: str = ""
    large: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Fenced:
    """The repository's fence took (or refused, with the reason) a new epoch.

    `newest` is what the fence holds where it refused because of that.
    """

    task: str
    epoch: Epoch
    reason: str = ""
    newest: Epoch = (0, 0)


@dataclass(frozen=True, slots=True)
class Promoted:
    """The branch of a phase moved to `commit`; or did not, with the reason: `again` it may."""

    task: str
    epoch: Epoch
    commit: str = ""
    reason: str = ""
    again: bool = False


@dataclass(frozen=True, slots=True)
class BroughtBack:
    """The branch of a settled task stands; or is gone, and why it could not be brought back."""

    task: str
    branch: str
    repo: str
    reason: str = ""
    was_gone: bool = False


@dataclass(frozen=True, slots=True)
class Matched:
    """What the glob of an `each:` phase matches in the commit it starts from."""

    run: str
    phase: str
    matches: tuple[str, ...]
    reason: str = ""
    # How many there are, where that is more than are told.
    count: int = 0
    again: bool = False


@dataclass(frozen=True, slots=True)
class BaseFound:
    """The commit that a run starts from; or why there is none: `again` the remote may be asked."""

    run: str
    commit: str = ""
    reason: str = ""
    again: bool = False


Event = (
    LinkUp
    | LinkDown
    | Arrived
    | Tick
    | FactsChanged
    | ShutOut
    | HadNoRoom
    | Noticed
    | AttemptEvent
    | AttemptStage
    | AttemptEnded
    | Fenced
    | Promoted
    | BroughtBack
    | Matched
    | BaseFound
)

# --- effects -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Send:
    """Send a frame; `bulk` waits behind what is not."""

    link: int
    frame: bytes
    bulk: bool = False


@dataclass(frozen=True, slots=True)
class Cut:
    """Close a link."""

    link: int
    reason: str


@dataclass(frozen=True, slots=True)
class Perform:
    """A call that has to wait for input or output: run its handler in the loop."""

    link: int
    channel: int
    verb: str
    args: Mapping[str, Any]
    peer: str
    caller: str
    # The Request of its handler.
    asked: tuple[Any, ...] = ()


@dataclass(frozen=True, slots=True)
class Stray:
    """A frame of a stream that the core knows nothing of: its call may just have been begun."""

    link: int
    type: Type
    channel: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class StartAttempt:
    """Run an agent on a task that this machine holds."""

    open: TaskOpen
    assign: TaskAssign
    values: Mapping[str, Mapping[str, str]]
    owner: str


@dataclass(frozen=True, slots=True)
class StopAttempt:
    task: str
    epoch: Epoch
    reason: str


@dataclass(frozen=True, slots=True)
class AnswerAttempt:
    """A person's answer to a permission that an agent asked for."""

    task: str
    epoch: Epoch
    ask: str
    allow: bool
    by: str


@dataclass(frozen=True, slots=True)
class RaiseFence:
    """Register a task's new epoch at its repository; answer with `Fenced`."""

    task: str
    epoch: Epoch
    machine: str
    repo: str


@dataclass(frozen=True, slots=True)
class MoveBranch:
    """Promote an attempt's commit by compare-and-set; answer with `Promoted`.

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


@dataclass(frozen=True, slots=True)
class BringBack:
    """See that a settled branch stands, with its worker's help where it does not.

    Answer with `BroughtBack`.
    """

    move: MoveBranch


@dataclass(frozen=True, slots=True)
class MatchGlob:
    """List what a glob matches; answer with `Matched`."""

    run: str
    phase: str
    repo: str
    commit: str
    glob: str


@dataclass(frozen=True, slots=True)
class FindBase:
    """Find the commit that a run's `base` names; answer with `BaseFound`."""

    run: str
    repo: str
    base: str


@dataclass(frozen=True, slots=True)
class FreshPapers:
    """Our record changed: show a certificate that says so, from the next handshake on."""


@dataclass(frozen=True, slots=True)
class ReachedAt:
    """Others reach us under this address from now on: remember it, and tell them."""

    address: str


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the daemon's own log; never more than a sentence, never a secret."""

    text: str


Effect = (
    Send
    | Cut
    | Perform
    | Stray
    | StartAttempt
    | StopAttempt
    | AnswerAttempt
    | RaiseFence
    | MoveBranch
    | BringBack
    | MatchGlob
    | FindBase
    | FreshPapers
    | ReachedAt
    | Note
)
