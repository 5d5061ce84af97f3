"""The bodies of entries about what an agent may do once, if a person says so.

The worker writes all of them, each into its stream of scope `fleet`: what is asked stays in its
journal. What they mean is said in approval.py.
"""

from typing import Annotated, Literal

from msgspec import Meta, field

from muster import limits
from muster.fleet.grant import CHAT_KEY_PATTERN
from muster.fleet.name import Hex16, Hex32
from muster.log.kind import kind
from muster.task.kinds import Body, Count, Fence, TaskWord

ClassWord = Annotated[str, Meta(pattern=r"^[a-z][a-z-]{0,31}\Z")]
Answer = Literal["allow", "deny"]


@kind("approval.ask")
class ApprovalAsk(Body, frozen=True):
    """An agent waits for a person's word until `until_ms`, about the one action of this hash.

    The class (`sort`) says what sort of action it is, for grants; nothing else of it is told.
    """

    id: Hex16
    task: TaskWord
    epoch: Fence
    hash: Hex32
    until_ms: Count
    sort: ClassWord = field(name="class")


@kind("approval.answer")
class ApprovalAnswer(Body, frozen=True):
    """The first word that counted; `statement` is the signed order `approve` that says it.

    Of an account of a chat there is none: `account` is what grants call it, and the press is cited.
    """

    id: Hex16
    hash: Hex32
    answer: Answer
    statement: Annotated[str, Meta(max_length=limits.STATEMENT_BYTES_MAX)]
    account: Annotated[str, Meta(pattern=CHAT_KEY_PATTERN)] = ""


@kind("approval.use")
class ApprovalUse(Body, frozen=True):
    """The agent is let do it, once. `hash` was computed again just before."""

    id: Hex16
    hash: Hex32


@kind("approval.expire")
class ApprovalExpire(Body, frozen=True):
    """Its time is up; nothing was done by it, and nothing will be."""

    id: Hex16


@kind("approval.withdraw")
class ApprovalWithdraw(Body, frozen=True):
    """Nobody waits for it any more: the attempt ended, its daemon did, or the action changed."""

    id: Hex16
    reason: Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)] = ""
