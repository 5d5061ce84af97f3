"""The bodies of entries about work that agents hand on; what they mean is said in delegation.py.

A machine writes `delegation.open` and `delegation.withdraw` for its agents; the owner that was
asked answers with a `run.open` that cites the first, or with `delegation.refuse`.
"""

from typing import Annotated

from msgspec import Meta

from muster import limits
from muster.log.kind import kind
from muster.task.kinds import Body, Short, TaskWord


@kind("delegation.open")
class DelegationOpen(Body, frozen=True):
    """A machine hands on work for an agent of its own: an order of its statement key to an owner.

    `statement` (in hex) orders the run, as an operator's does. What lets the agent is the attempt
    whose `task.assign` this cites, or the operator's grant of this id. `run` is what becomes of it;
    `key` makes it one, however often it is asked for.
    """

    run: TaskWord
    owner: Short
    statement: str
    spec: Annotated[str, Meta(max_length=limits.DELEGATED_SPEC_BYTES_MAX)]
    repo: Short = ""
    base: Short = ""
    grant: Short = ""
    key: Annotated[str, Meta(max_length=limits.KEY_CHARS_MAX)] = ""
    session: Short = ""


@kind("delegation.refuse")
class DelegationRefuse(Body, frozen=True):
    """The owner that was asked does not begin the run, and never will; `reason` is a sentence."""

    run: TaskWord
    reason: Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)]


@kind("delegation.withdraw")
class DelegationWithdraw(Body, frozen=True):
    """Whoever handed it on wants it no more: its owner cancels it, or never begins it."""

    run: TaskWord
    reason: Annotated[str, Meta(max_length=limits.REASON_CHARS_MAX)] = ""
