"""What goes into the owner and what it keeps of a task while the task is open.

`Live` is changed by ledger.py alone; everything else here is a value.
"""

from hashlib import sha256
from typing import Final, NamedTuple

import msgspec

from muster import limits
from muster.log.entry import EntryId
from muster.log.stream import FLEET, Scope
from muster.task import kinds
from muster.task.fold import TaskRow
from muster.task.instruction import Cite, Draft, Settled
from muster.task.queue import Candidate
from muster.task.route import Verdict

# What an honest worker reports at most, see node/tasks/attempt_body.py: names, values, artefacts.
_WORD_CHARS_MAX: Final = 64
_ITEMS_MAX: Final = 32
_ARTEFACTS_MAX: Final = 101

_encode = msgspec.json.Encoder(order="sorted").encode

Ended = kinds.AttemptRefuse | kinds.AttemptFinish


class Submission(NamedTuple):
    """What `submit` takes: `body` with a fresh random task id, and why it is asked.

    `cause` names what two equal submissions must share to be one task: the run, the schedule's
    firing, or the person who ordered.
    """

    body: kinds.TaskOpen
    cause: str
    causes: tuple[Cite, ...] = ()
    scope: Scope = FLEET
    actor: str = "muster"
    again: bool = False
    # Why the person of the task is not asked: it is done at once.
    waived: str = ""

    @property
    def dedupe(self) -> str:
        """What makes two submissions one task: the explicit key, or the content and its cause."""
        body = self.body
        if body.key:
            return "key:" + body.key
        content = (self.cause, body.run, body.phase, body.instance, body.template, body.values,
                   body.repo, body.base)  # fmt: skip
        return sha256(_encode(content)).hexdigest()


class Submitted(NamedTuple):
    """The task that an order became; not `fresh` when it was there already."""

    task: str
    fresh: bool


class Restored(NamedTuple):
    """What `restore` needs of a live task: its row, its opening, and an end of its attempt."""

    row: TaskRow
    body: kinds.TaskOpen
    scope: Scope = FLEET
    ended: tuple[EntryId, str, Ended] | None = None


class Beat(NamedTuple):
    """One lease in a worker's beat."""

    task: str
    epoch: kinds.Epoch
    progress: str = ""


class Why(NamedTuple):
    """Where a live task stands and how each machine suits it."""

    state: str
    stage: str
    machine: str
    epoch: kinds.Epoch
    reason: str
    verdicts: tuple[Verdict, ...]
    # The machines that fit and have room for it now.
    idle: tuple[str, ...] = ()


class Live(msgspec.Struct):
    """A live task. `stage` refines the state: delayed, fencing, running, promoting."""

    body: kinds.TaskOpen
    opened: Cite
    rank: tuple[int, int, int]
    dedupe: str
    scope: Scope
    state: str = "queued"
    stage: str = ""
    epoch: kinds.Epoch = kinds.NO_EPOCH
    machine: str = ""
    agent: str = ""
    tries: int = 0
    losses: int = 0
    refusals: int = 0
    assigned: Cite | None = None
    ended: EntryId | None = None
    result: kinds.AttemptFinish | None = None
    candidates: list[Candidate] = []
    busy: int = 0
    avoid: frozenset[str] = frozenset()
    tried: frozenset[str] = frozenset()
    session: str = ""
    progress: str = ""
    # When the attempt began, when its worker was heard last, and how long it was fetching,
    # delivering or clearing up, on the boot clock: together they say when it must have ended.
    began_ms: int = 0
    heard_ms: int = 0
    moving_ms: int = 0
    # Why it is queued again: the entry that ended the attempt before, for the next one to cite.
    moved: Cite | None = None
    reason: str = ""
    # Which detector ended an attempt of it as stuck, on which machine (detector.py).
    stuck: frozenset[tuple[str, str]] = frozenset()
    # How often a machine gave it away that did not say among its facts that it drains.
    drained: int = 0


def settled(task: Live, draft: Draft) -> Settled | None:
    """What its run is told of the entry that ended a task; None where that ends none."""
    body, end = task.body, draft.body
    place = (body.task, body.run, body.phase, body.instance)
    if isinstance(end, kinds.TaskSettle):
        result = (end.outcome, end.summary, end.commit, end.values)
        who = (task.machine, task.agent)
        return Settled(*place, *result, draft, *who, end.reason, end.epoch)
    if isinstance(end, kinds.TaskCancel):
        return Settled(*place, "cancelled", end.reason, "", {}, draft, task.machine)
    return None


def settlement(
    task: Live, body: kinds.AttemptFinish, outcome: kinds.Outcome, reason: str
) -> kinds.TaskSettle:
    """What the owner repeats of an attempt's end, within the bounds of an honest worker's."""
    usage = {name[:_WORD_CHARS_MAX]: n for name, n in list(body.usage.items())[:_ITEMS_MAX]}
    values = {name[:_WORD_CHARS_MAX]: text for name, text in list(body.values.items())[:_ITEMS_MAX]}
    return kinds.TaskSettle(
        task.body.task, outcome, task.epoch, body.summary[: limits.SUMMARY_CHARS_MAX], reason,
        body.commit[:_WORD_CHARS_MAX], values, body.artefacts[:_ARTEFACTS_MAX], usage,
    )  # fmt: skip
