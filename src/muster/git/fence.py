"""Who may move which ref: the rules of the fence.

Rule 1: a worker pushes its own attempt, `refs/muster/attempt/<task>/<k>-<n>`, and nothing else.
Rule 2: `<k>-<n>` is the epoch of its lease. Only the current epoch counts, and it only rises.
Rule 3: the owner of a task moves its fence `refs/muster/fence/<task>`; the owner of a run moves its
        branches `refs/heads/muster/<run>/<phase>`. Nobody else does.
Rule 4: other branches are people's: who was granted `push` moves them, and only forward.
Rule 5: of these, `refs/heads/muster-post/<machine>` is that machine's alone, and made anew by it.
Rule 6: the keepers of a schedule move its register, `refs/muster/schedule/<id>`, to a later slot,
        and to none that is ahead of the hub's clock: so a slot is fired once (task/slot_keeper.py).
Rule 7: whatever is not allowed here is refused, and so is whatever cannot be decided.

An epoch (k, n) is the owner's incarnation counter and its own counter in it. The owner writes a
new epoch into the fence *before* it hands out the lease, so a worker that slept, was cut off or
was restored from a snapshot finds its epoch spent, whether or not it ever learns why.

The rules are asked twice. `pre-receive` asks the hub, which knows the machine, the task and the
lease. `reference-transaction` then compares the attempt's epoch with the fence in the repository
itself, because the epoch can rise between the two. A worker whose transaction had been prepared
a moment before the fence rose has written a ref that nobody will promote: a promotion verifies
the fence in the same transaction that moves the branch (`ref.promote`).

Everything here is pure and imports nothing heavy, because git's hooks start with it.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final, Literal, NamedTuple, Protocol

from muster.errors import Malformed
from muster.limits import REGISTER_BYTES_MAX

ATTEMPT_PREFIX: Final = "refs/muster/attempt/"
FENCE_PREFIX: Final = "refs/muster/fence/"
BRANCH_PREFIX: Final = "refs/heads/muster/"
HEADS_PREFIX: Final = "refs/heads/"
SCHEDULE_PREFIX: Final = "refs/muster/schedule/"
POST_PREFIX: Final = "refs/heads/muster-post/"
"""Behind it stand so many letters of a machine's id: the branch of its parcels (mailbox.py)."""
WRITER_CHARS: Final = 16

_WORD: Final = r"[a-z0-9](?:[a-z0-9-]{0,126}[a-z0-9])?"
_NUMBER: Final = r"(?:0|[1-9][0-9]{0,15})"
_NAME: Final = re.compile(_WORD)
_EPOCH: Final = re.compile(rf"({_NUMBER})-({_NUMBER})")
_ATTEMPT: Final = re.compile(rf"refs/muster/attempt/({_WORD})/({_NUMBER})-({_NUMBER})")
_FENCE: Final = re.compile(rf"refs/muster/fence/({_WORD})")
_SCHEDULE: Final = re.compile(r"refs/muster/schedule/([0-9a-f]{64})")
_BRANCH: Final = re.compile(rf"refs/heads/muster/({_WORD})/({_WORD})")
# What people call branches; stricter than git itself, which allows nearly every byte.
_HEAD: Final = re.compile(r"refs/heads/(?!muster(?:/|$))[A-Za-z0-9_][A-Za-z0-9_./+-]{0,199}")
# Canonical JSON, of which nothing else holds this key: texts in it have their quotes escaped.
_SLOT: Final = re.compile(rb'[{,]"slot":([1-9][0-9]{0,15})[,}]')
_OBJECT_ID: Final = re.compile(r"[0-9a-f]{40}(?:[0-9a-f]{24})?")


class Epoch(NamedTuple):
    """A lease's fencing number; compared from left to right."""

    incarnation: int
    counter: int

    def __str__(self) -> str:
        return f"{self.incarnation}-{self.counter}"

    @classmethod
    def parse(cls, text: str) -> "Epoch":
        """The epoch written as `k-n`; anything else is Malformed."""
        found = _EPOCH.fullmatch(text)
        if found is None:
            raise Malformed(f"{text[:40]!r} is not an epoch of the form k-n.")
        return cls(int(found[1]), int(found[2]))


class Update(NamedTuple):
    """One ref that a push wants to move, in git's own words; zeros mean 'none'."""

    ref: str
    old: str
    new: str


class PushPolicy(Protocol):
    """What the hub knows about tasks, runs and machines. A lookup that fails must raise."""

    def epoch(self, task: str) -> Epoch | None:
        """The task's current epoch; None when no such task is assigned."""

    def holder(self, task: str) -> str | None:
        """The machine that holds the task's lease now."""

    def owner(self, what: Literal["task", "run"], name: str) -> str | None:
        """The machine that owns a task or a run."""

    def keeps(self, peer: str, schedule: str) -> bool:
        """Whether the machine is a keeper of the schedule."""

    def bars(self, peer: str) -> str | None:
        """Why this machine or key may not move ordinary branches; None where it was granted."""


def attempt_ref(task: str, epoch: Epoch) -> str:
    """The only ref that an attempt may push."""
    return f"{ATTEMPT_PREFIX}{_word(task, 'task')}/{epoch}"


def fence_ref(task: str) -> str:
    """The ref that holds the task's current epoch at the remote."""
    return FENCE_PREFIX + _word(task, "task")


def fence_bytes(epoch: Epoch) -> bytes:
    """What the fence's blob holds."""
    return f"{epoch}\n".encode()


def fence_epoch(raw: bytes) -> Epoch:
    """The epoch in a fence's blob."""
    return Epoch.parse(raw[:64].decode("ascii", "replace").removesuffix("\n"))


def may_push(peer: str, update: Update, policy: PushPolicy) -> str | None:
    """Why this machine may not move this ref; None when it may.

    Decided from what the hub knows. What only the repository knows (the fence as it is at
    this moment, whether a branch is rewritten) is checked by the hooks.
    """
    if not peer:
        return "the pushing machine is not known"
    if _OBJECT_ID.fullmatch(update.old) is None or _OBJECT_ID.fullmatch(update.new) is None:
        return "the push names something that is not an object id"
    if not update.new.strip("0"):
        return f"{_shown(update.ref)} may not be deleted by a push"
    if found := _ATTEMPT.fullmatch(update.ref):
        task, epoch = found[1], Epoch(int(found[2]), int(found[3]))
        current = policy.epoch(task)
        if current is None:
            return f"task {task} is not assigned"
        if epoch != current:
            word = "stale" if epoch < current else "not handed out"
            return f"epoch {epoch} of task {task} is {word}; the current one is {current}"
        if policy.holder(task) != peer:
            return f"the lease of task {task} is held by another machine"
        return None
    if found := _FENCE.fullmatch(update.ref):
        if policy.owner("task", found[1]) != peer:
            return f"only the owner of task {found[1]} moves its fence"
        return None
    if found := _SCHEDULE.fullmatch(update.ref):
        return (
            None if policy.keeps(peer, found[1]) else "only its keepers move a schedule's register"
        )
    if found := _BRANCH.fullmatch(update.ref):
        if policy.owner("run", found[1]) != peer:
            return f"only the owner of run {found[1]} moves its branches"
        return None
    if update.ref.startswith(POST_PREFIX) and update.ref != POST_PREFIX + peer[:WRITER_CHARS]:
        return f"{_shown(update.ref)} holds the parcels of another machine"
    if _HEAD.fullmatch(update.ref) and ".." not in update.ref:
        reason = policy.bars(peer)
        return f"{_shown(update.ref)} is a person's branch: {reason}" if reason else None
    return f"{_shown(update.ref)} is not a ref that may be pushed"


def may_push_all(peer: str, updates: Sequence[Update], policy: PushPolicy) -> str | None:
    """The first reason against a push, which is refused as a whole; None when there is none."""
    if not updates:
        return "the push names no ref"
    reasons = (may_push(peer, update, policy) for update in updates)
    return next((reason for reason in reasons if reason is not None), None)


def may_commit(update: Update, blob: Callable[[str], bytes | None]) -> str | None:
    """Why a prepared ref transaction must abort, from the repository alone; None when it may pass.

    `blob` gives the contents of an object or ref of the repository, None when it is not there.
    """
    try:
        if found := _ATTEMPT.fullmatch(update.ref):
            epoch, raw = Epoch(int(found[2]), int(found[3])), blob(fence_ref(found[1]))
            if raw is None:
                return f"task {found[1]} has no fence here"
            current = fence_epoch(raw)
            if epoch != current:
                return f"epoch {epoch} of task {found[1]} is not {current}, which the fence holds"
        elif found := _FENCE.fullmatch(update.ref):
            raw, held = blob(update.new), blob(fence_ref(found[1]))
            if raw is None:
                return f"the fence of task {found[1]} would hold nothing"
            new, now = fence_epoch(raw), None if held is None else fence_epoch(held)
            if now is not None and new <= now:
                return f"the fence of task {found[1]} only rises, and {new} is not above {now}"
        elif _SCHEDULE.fullmatch(update.ref):
            moved, held = blob(update.new), blob(update.ref)
            if moved is None or slot_of(moved) <= (0 if held is None else slot_of(held)):
                return "the register of a schedule only moves to a later slot"
        elif not (_BRANCH.fullmatch(update.ref) or _HEAD.fullmatch(update.ref)):
            return f"{_shown(update.ref)} is not a ref that may be pushed"
    except Malformed as error:
        return f"the fence cannot be read: {error}"
    return None


def must_advance(update: Update) -> bool:
    """True when only new history may be added, so that the hook has to compare the commits."""
    is_new = not update.old.strip("0")
    free = (BRANCH_PREFIX, FENCE_PREFIX, POST_PREFIX, SCHEDULE_PREFIX)
    return not is_new and not update.ref.startswith(free)


def schedule_ref(schedule: str) -> str:
    """The ref that is a schedule's register; its object says which slot it is at."""
    return SCHEDULE_PREFIX + schedule


def slot_of(raw: bytes) -> int:
    """The slot that an object of a register is at. Raises: Malformed."""
    found = _SLOT.search(raw[:REGISTER_BYTES_MAX])
    if found is None or len(raw) > REGISTER_BYTES_MAX:
        raise Malformed("what the register of a schedule would hold says no slot")
    return int(found[1])


def _word(text: str, what: str) -> str:
    if _NAME.fullmatch(text) is None:
        raise Malformed(f"{text[:80]!r} is not a {what} name; use a-z, 0-9 and inner dashes.")
    return text


def repository_name(text: str) -> str:
    """The text as a repository's name; never a path."""
    if len(text) > 64:
        raise Malformed("A repository's name has at most 64 characters; choose a shorter one.")
    return _word(text, "repository")


def _shown(ref: str) -> str:
    return "".join(mark if mark.isprintable() and mark.isascii() else "?" for mark in ref[:120])
