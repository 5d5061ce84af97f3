"""Verbs about runs that sessions propose: what is proposed, and a person's signed word about it.

`muster questions` lists them, `muster answer` orders or refuses one.
"""

import asyncio
from typing import Annotated, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Malformed
from muster.limits import PROPOSAL_WAIT_S_MAX, REASON_CHARS_MAX
from muster.node.tasks.followers import Followers
from muster.node.tasks.proposals import Proposal, Proposals, State
from muster.verbs.declaration import Call, Core, Daemon, Perform, Request, Stream, data, verb


class OfProposal(Request, frozen=True):
    proposal: Annotated[str, data()]
    key: Annotated[str, data()] = ""


class Proposed(Struct, frozen=True, kw_only=True):
    """A run that a session proposes to a person, and what became of that.

    `command` is what the person types, `page` where that is shown, `url` its whole address.
    `because` is why the session may not simply hand it on; `run` was ordered of it, `owner` has it.
    """

    proposal: str
    state: State
    command: str
    because: str
    until_ms: int
    page: str
    url: str | UnsetType = UNSET
    run: str | UnsetType = UNSET
    owner: str | UnsetType = UNSET
    by: str | UnsetType = UNSET
    reason: str | UnsetType = UNSET


def proposed(each: Proposal) -> Proposed:
    """A proposal as its session sees it."""
    return Proposed(
        proposal=each.id, state=each.state, command=f"muster answer {each.id[:12]} yes",
        because=each.because, until_ms=each.until_ms, page=f"/ask/{each.id}?key={each.key}",
        run=each.run or UNSET, owner=each.owner or UNSET, by=each.by or UNSET,
        reason=each.reason or UNSET,
    )  # fmt: skip


class About(Struct, frozen=True, kw_only=True):
    """A proposal as a person reads it before a word about it."""

    proposal: str
    state: State
    actor: str
    session: str
    because: str
    name: str
    spec: str
    repo: str
    base: str
    asked_ms: int
    until_ms: int
    run: str
    by: str


@verb("proposal.about", auth="local", on="none")
def about(core: Core, call: Call, ask: OfProposal) -> About:
    """What is proposed. With a `key` that is another one's there is nothing."""
    each = core.part(Proposals).find(ask.proposal, ask.key)
    return About(**{name: getattr(each, name if name != "proposal" else "id")
                    for name in About.__struct_fields__})  # fmt: skip


@verb("proposal.decided", auth="local", runs="stream", followed=True, on="none")
async def decided(daemon: Daemon, call: Perform, stream: Stream, ask: OfProposal) -> Proposed:
    """How it stands when a person said something, or nobody did for a while."""
    part, follow = daemon.core.part(Proposals), daemon.core.part(Followers).follow
    each, now = part.find(ask.proposal), asyncio.get_running_loop().time
    stop, end_s = follow(each.id, lambda _: stream.tell_later("moved")), now() + PROPOSAL_WAIT_S_MAX
    try:
        while each.state == "open" and (left_s := end_s - now()) > 0:
            await stream.hear(left_s)
    finally:
        stop()
    return proposed(each)


class Ending(Request, frozen=True):
    proposal: Annotated[str, data()]
    answer: Annotated[Literal["yes", "no"], data()]
    run: Annotated[str, data()] = ""
    owner: Annotated[str, data()] = ""
    reason: Annotated[str, data()] = ""


@verb("proposal.end", auth="order", object="proposal", daily=True, on="none")
def end(core: Core, call: Call, ask: Ending) -> Proposed:
    """A person's word about a proposal: `yes` names the run that they ordered of it."""
    part = core.part(Proposals)
    each = part.find(ask.proposal)
    if (ask.answer == "yes") != bool(ask.run):
        raise Malformed("a proposal that was ordered has a run, and no other one has")
    if each.state == "open":
        each.run, each.owner = ask.run[:64], ask.owner[:64]
    state: State = "ordered" if ask.run else "refused"
    part.end(each, state, call.actor, ask.reason[:REASON_CHARS_MAX])
    return proposed(each)
