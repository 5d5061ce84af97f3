"""How a person's word lets an agent do one thing, once.

    open ── answer ──► allowed ── use ──► used
     │ │                 │ │
     │ └─ answer ► denied│ └──── expire, withdraw
     └── expire, withdraw┘

Rule 1: a word is about one action, by the hash of all of it. Before it is used the action is looked
        at again; where anything differs it is another action, and a person is asked anew.
Rule 2: one machine writes the whole chain, the one where the agent waits: the first word that it
        takes counts, whoever comes later is told so. A yes is used up by one use.
Rule 3: it ends by either clock, whichever is first: that of people may be set, the other forgets
        where it began when the machine starts.
Rule 4: nothing here lasts longer than the process that asked. What an earlier one asked is
        withdrawn: its agent ended with it, and a yes to it would be a yes to nobody.
Rule 5: what is written is made first and taken in then (`took`): an entry that could not be written
        changes nothing.
"""

import hashlib
from collections.abc import Iterable
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from muster.errors import Conflict, Denied, NotFound
from muster.limits import APPROVALS_ENDED_MAX, APPROVALS_OPEN_MAX
from muster.log import canon
from muster.task.approval_kinds import (
    Answer,
    ApprovalAnswer,
    ApprovalAsk,
    ApprovalExpire,
    ApprovalUse,
    ApprovalWithdraw,
)
from muster.task.instruction import Now
from muster.task.kinds import Epoch

State = Literal["open", "allowed", "denied", "used", "expired", "withdrawn"]
Step: TypeAlias = ApprovalAnswer | ApprovalUse | ApprovalExpire | ApprovalWithdraw

# The verb whose statement answers one; its object is the approval's id.
VERB: Final = "approve"
_ID_CHARS: Final = 32

TRANSITIONS: Final[dict[State, dict[type[Any], State]]] = {
    "open": {ApprovalExpire: "expired", ApprovalWithdraw: "withdrawn"},
    "allowed": {
        ApprovalUse: "used", ApprovalExpire: "expired", ApprovalWithdraw: "withdrawn",
    },
    "denied": {}, "used": {}, "expired": {}, "withdrawn": {},
}  # fmt: skip
"""Where each entry leads; an answer leads from `open` to what it says."""
WAITS: Final = frozenset({"open", "allowed"})


def hash_of(fleet: str, machine: str, task: str, epoch: Epoch, action: str) -> str:
    """What a person's word is bound to.

    `action` is the sha256 that the driver made over all that the agent is about to do, and over a
    nonce that nobody else knows (agent/action.py).
    """
    whole = {
        "action": action, "epoch": list(epoch), "fleet": fleet, "machine": machine, "task": task,
    }  # fmt: skip
    return hashlib.sha256(b"muster/approval/v1\n" + canon.encode(whole)).hexdigest()


def id_of(hash: str) -> str:
    """What an approval is called: another action has another name, so none takes its place."""
    return hash[:_ID_CHARS]


def binds(said: str, meant: str) -> bool:
    """Whether a word about the one action is a word about the other: where they are the same."""
    return said == meant


def args_of(id: str, hash: str, answer: str) -> dict[str, str]:
    """The arguments that the statement of an answer is signed over."""
    return {"answer": answer, "approval": id, "hash": hash}


def grant_object(sort: str) -> str:
    """What a grant of `approve` names that is for one class of approvals."""
    return f"class:{sort}"


def state_after(state: State, step: Step) -> State | None:
    """Where an entry leads from there; None where it leads nowhere and is skipped."""
    if isinstance(step, ApprovalAnswer):
        said: dict[Answer, State] = {"allow": "allowed", "deny": "denied"}
        return said[step.answer] if state == "open" else None
    return TRANSITIONS[state].get(type(step))


class Standing(NamedTuple):
    """One approval: what was asked, how it stands, and who said so."""

    asked: ApprovalAsk
    # By the clock that counts sleep; `asked.until_ms` is by that of people.
    until_boot_ms: int
    state: State = "open"
    by: str = ""

    def is_late(self, now: Now) -> bool:
        return now.wall_ms > self.asked.until_ms or now.boot_ms > self.until_boot_ms


class Chains:
    """The approvals of one machine since its process began. See the top of this file."""

    def __init__(self) -> None:
        # Those that wait, the oldest first; and the newest of those that are over.
        self._waiting: dict[str, Standing] = {}
        self._ended: dict[str, Standing] = {}

    def get(self, id: str) -> Standing | None:
        return self._waiting.get(id) or self._ended.get(id)

    def waiting(self) -> list[Standing]:
        """Those that are neither over nor used, the oldest first."""
        return list(self._waiting.values())

    def has_room(self, task: str, epoch: Epoch) -> bool:
        """Whether this attempt may ask one thing more."""
        own = [s for s in self._waiting.values() if (s.asked.task, s.asked.epoch) == (task, epoch)]
        return len(own) < APPROVALS_OPEN_MAX

    def asked(self, ask: ApprovalAsk, until_boot_ms: int) -> None:
        """It was written down that somebody asks."""
        self._waiting[ask.id] = Standing(ask, until_boot_ms)

    def answer(
        self, id: str, hash: str, answer: Answer, statement: str, now: Now, *, account: str = ""
    ) -> ApprovalAnswer:
        """The entry of a person's word, signed or from a chat.

        Raises: NotFound, Conflict where it does not count.
        """
        found = self.get(id)
        if found is None:
            raise NotFound(
                f"no agent waits for approval {id[:12]} here; `muster questions --on all` lists "
                "what waits, and what an earlier daemon was asked is withdrawn"
            )
        if found.state == "open" and found.is_late(now):
            raise Conflict(f"approval {id[:12]} is over: nobody answered it in time")
        if found.state != "open":
            who = f"{found.by} has answered that already" if found.by else "nobody can answer that"
            raise Conflict(
                f"{who}, and the first answer counts: approval {id[:12]} is {found.state}"
            )
        if not binds(hash, found.asked.hash):
            raise Denied(
                f"this answers another action than the one that waits as {id[:12]}: "
                "`muster questions` shows what waits now"
            )
        return ApprovalAnswer(id, hash, answer, statement, account)

    def use(self, id: str, hash: str, now: Now) -> ApprovalUse | ApprovalExpire | ApprovalWithdraw:
        """What is written just before the agent is let, or instead of it. Raises: Conflict."""
        found = self._waiting.get(id)
        if found is None or found.state != "allowed":
            state = "unknown" if (known := self.get(id)) is None else known.state
            raise Conflict(f"approval {id[:12]} is {state}: it lets nobody do anything")
        if found.is_late(now):
            return ApprovalExpire(id)
        if not binds(hash, found.asked.hash):
            return ApprovalWithdraw(id, "what is to be done has changed since it was asked")
        return ApprovalUse(id, hash)

    def late(self, now: Now) -> list[ApprovalExpire]:
        """The ends of those whose time is up."""
        return [ApprovalExpire(id) for id, each in self._waiting.items() if each.is_late(now)]

    def of_attempt(self, task: str) -> list[Standing]:
        """Those of a task that wait."""
        return [each for each in self._waiting.values() if each.asked.task == task]

    def took(self, step: Step, by: str = "") -> Standing:
        """It was written, and counts. Raises: Conflict where it leads nowhere."""
        found = self.get(step.id)
        state = state_after(found.state, step) if found is not None else None
        if found is None or state is None:
            raise Conflict(f"approval {step.id[:12]} does not go on like that")
        fresh = found._replace(state=state, by=by or found.by)
        self._waiting.pop(step.id, None)
        if state in WAITS:
            self._waiting[step.id] = fresh
        else:
            self._ended[step.id] = fresh
            self._forget(list(self._ended)[:-APPROVALS_ENDED_MAX])
        return fresh

    def _forget(self, ids: Iterable[str]) -> None:
        for each in ids:
            del self._ended[each]
