"""The bodies of every entry about work. One Struct per kind; `KINDS` is the whole list.

Rule 1: a body is data of the moment it was written; nothing in it is computed again later.
Rule 2: a new field has a default, so that an old entry stays readable; a field is never renamed.
Rule 3: no floats; times are milliseconds, money is millionths of a dollar.
Rule 4: every field has a bound, and names have a form, here where the fold reads them: what is
        beyond is no such body, and the entry is skipped. Bounds are wider than what we ever write.

Who writes what: the owner of a task writes `run.*` and `task.*` (but not `task.decide`), a worker
writes `attempt.*`, a person's machine writes `task.decide` and `work.end`. Only the owner's entries
change a task's state; the others are inputs that the owner cites as causes.

A field is left out of the bytes where it has its default value, which keeps an entry small and
lets an older reader ignore nothing it ought to know: a new meaning gets a new kind.
"""

from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from muster import limits
from muster.log import canon
from muster.log.kind import bodies_of, kind, kind_of

# (owner incarnation order, counter), compared left to right: a restored owner gets a higher order.
Epoch = tuple[int, int]
NO_EPOCH: Final[Epoch] = (0, 0)

# Ids become parts of ref names and of folder names: nothing that leads out of a folder is one.
TaskWord = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{1,128}\Z")]
RunWord = Annotated[str, msgspec.Meta(pattern=r"^[A-Za-z0-9_-]{0,128}\Z")]
MachineWord = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{64}\Z")]
Count = Annotated[int, msgspec.Meta(ge=0)]
Fence = tuple[Count, Count]
# A machine, an agent, a mark, a code: one word, or none.
Short = Annotated[str, msgspec.Meta(max_length=400)]
Priority = Annotated[int, msgspec.Meta(ge=-limits.TASK_PRIORITY_MAX, le=limits.TASK_PRIORITY_MAX)]
LeaseMs = Annotated[int, msgspec.Meta(ge=0, le=limits.LEASE_MS_MAX)]

Outcome = Literal["done", "failed", "lost"]
Why = Literal["failed", "refused", "busy"]
RunOutcome = Literal["done", "failed", "cancelled"]


class Body(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What all bodies share: strict, immutable, small."""


B = TypeVar("B", bound=Body)


@kind("run.open")
class RunOpen(Body, frozen=True):
    """A spec becomes work. `statement` is the operator's signed order, in hex.

    `kept`: by phase the earlier run of the same owner that yielded it; it is not run again.
    `budget`: in the place of every budget of the spec. `after`: the run of the same owner whose
    unfinished work it goes on with.
    """

    run: TaskWord
    name: str
    spec: str
    statement: str
    repo: str = ""
    base: str = ""
    values: dict[str, str] = {}
    priority: Priority = 0
    key: Annotated[str, msgspec.Meta(max_length=200)] = ""
    kept: dict[str, TaskWord] = {}
    budget: dict[str, Count] = {}
    after: RunWord = ""


@kind("run.settle")
class RunSettle(Body, frozen=True):
    """A run ends; never again after that."""

    run: TaskWord
    outcome: RunOutcome
    summary: str = ""
    values: dict[str, str] = {}


@kind("task.open")
class TaskOpen(Body, frozen=True):
    """A piece of work exists. `template` is what the spec yields for (phase, instance).

    `values` are the results of the phases before, by phase. Where they are too large for this body,
    `values.run.results` is the sha256 over the ids of the `task.settle` that hold them, phase by
    phase. `deadline_ms` is a moment, 0 for none.
    """

    task: TaskWord
    template: dict[str, Any]
    run: RunWord = ""
    phase: str = ""
    instance: str = ""
    values: dict[str, dict[str, str]] = {}
    key: str = ""
    digest: str = ""
    statement: str = ""
    repo: str = ""
    base: str = ""
    priority: Priority = 0
    retries: Count = 0
    deadline_ms: Count = 0


@kind("task.assign")
class TaskAssign(Body, frozen=True):
    """One machine may try, until its lease ends. `mark` is the worker's own clock, given back.

    `candidates` is the decision for `muster why`: [machine, fits, score, reason] of each.
    """

    task: TaskWord
    epoch: Fence
    machine: Short
    agent: Short
    lease_ms: LeaseMs
    mark: Short = ""
    base: str = ""
    candidates: list[tuple[str, bool, int, str]] = []


@kind("task.expire")
class TaskExpire(Body, frozen=True):
    """The lease ended without a result: a loss of the infrastructure, not the task's fault."""

    task: TaskWord
    epoch: Fence
    reason: str


@kind("task.retry")
class TaskRetry(Body, frozen=True):
    """An attempt ended without success and another will follow, not before `after_ms`.

    `why` is `failed` (counts against the task's retries), `refused` (the machine would not, or
    nothing came of it without an agent's failure) or `busy` (the machine had no free slot; counts
    against nothing).
    """

    task: TaskWord
    epoch: Fence
    why: Why
    reason: str
    after_ms: Count = 0


@kind("task.cancel")
class TaskCancel(Body, frozen=True):
    """The task ends because somebody no longer wants it; `reason` says who or what."""

    task: TaskWord
    reason: str


@kind("task.settle")
class TaskSettle(Body, frozen=True):
    """The one outcome of a task; it never changes."""

    task: TaskWord
    outcome: Outcome
    epoch: Fence = NO_EPOCH
    summary: str = ""
    reason: str = ""
    commit: Short = ""
    values: dict[str, str] = {}
    artefacts: list[str] = []
    usage: dict[str, int] = {}


@kind("task.late")
class TaskLate(Body, frozen=True):
    """A result came after the task had moved on: recorded, and ignored."""

    task: TaskWord
    epoch: Fence
    machine: Short
    status: Short = ""
    commit: Short = ""


@kind("task.decide")
class TaskDecide(Body, frozen=True):
    """A person's answer to a task that waits for one; `statement` is signed by the person's key."""

    task: TaskWord
    verdict: Literal["approve", "reject"]
    statement: str
    text: str = ""
    values: dict[str, str] = {}


@kind("work.end")
class WorkEnd(Body, frozen=True):
    """An operator ends a run or task (`what`) whose owner cannot be asked now, or never again.

    `statement` is a `cancel` for the whole fleet, in hex, signed over `what` and `reason`. An owner
    that hears of it cancels; where the owner is gone, it is what the others have to show.
    """

    what: TaskWord
    statement: str
    reason: Annotated[str, msgspec.Meta(max_length=limits.REASON_CHARS_MAX)] = ""


@kind("task.adopt")
class TaskAdopt(Body, frozen=True):
    """A machine goes on with a run, or a task without one (`what`), in place of its owner `of`.

    It cites the operator's order as its machine took it, and the opening that it goes on with.
    `generation` is the place where its epochs begin, above all that the owner before is known to
    have given: of several that adopt the same, the one with the highest has it.
    """

    what: TaskWord
    of: MachineWord
    generation: Count


@kind("task.inherit")
class TaskInherit(Body, frozen=True):
    """How a task of an adopted run had ended, by what its owner before wrote of it.

    It cites `task.adopt`, then that owner's opening, assignment and settlement of the task, as far
    as there are such.
    """

    task: TaskWord
    run: TaskWord
    outcome: Literal["done", "failed", "lost", "cancelled"]
    phase: str = ""
    instance: str = ""
    epoch: Fence = NO_EPOCH
    machine: Short = ""
    agent: Short = ""
    summary: str = ""
    reason: str = ""
    commit: Short = ""


@kind("attempt.start")
class AttemptStart(Body, frozen=True):
    """The worker began; `tools` are the versions it works with."""

    task: TaskWord
    epoch: Fence
    agent: Short = ""
    tools: dict[str, str] = {}


@kind("attempt.refuse")
class AttemptRefuse(Body, frozen=True):
    """The worker will not; `reason` is a code of this machine, `text` says it to a person."""

    task: TaskWord
    epoch: Fence
    reason: Short
    text: str = ""


@kind("attempt.finish")
class AttemptFinish(Body, frozen=True):
    """The attempt ended. `killed`: by the worker itself, because its lease ran out or by order."""

    task: TaskWord
    epoch: Fence
    status: Literal["done", "failed", "killed"]
    summary: str = ""
    reason: str = ""
    commit: Short = ""
    values: dict[str, str] = {}
    artefacts: list[str] = []
    usage: dict[str, int] = {}


KINDS: Final = bodies_of(__name__)

_encoder = msgspec.json.Encoder(order="sorted")


def body_bytes(body: msgspec.Struct) -> bytes:
    """Canonical bytes of a body: the same bytes that log/canon.py makes of its fields."""
    return _encoder.encode(body)


def read(type_: type[B], raw: bytes) -> B:
    """The body in an entry that was admitted already.

    Raises:
        Malformed: it is not such a body.

    """
    return canon.decode_as(raw, type_, kind_of(type_), size_max=limits.BODY_BYTES_MAX)


def epoch_text(epoch: Epoch) -> str:
    """`1-7`: how an epoch is written in a ref name or to a person."""
    return f"{epoch[0]}-{epoch[1]}"
