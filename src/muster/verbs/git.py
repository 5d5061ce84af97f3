"""The streams that git goes through, what its hooks ask, and what stands in a repository."""

import re
from typing import Annotated, Final, Literal

from msgspec import Meta, Struct

from muster.errors import Denied, Malformed, NotFound, Refused, Unreachable
from muster.git import mirror, ref, repository
from muster.git import serve as remote
from muster.git.fence import POST_PREFIX, SCHEDULE_PREFIX, Epoch, Update, may_push_all
from muster.limits import GIT_PUSH_REFS_MAX, SLOT_AHEAD_MS_MAX
from muster.log.stream import MachineId
from muster.node.attempts import blob_transfer as holder
from muster.node.counter import DECLARED
from muster.node.tasks.keepers import Keepers, RepositoryMoved
from muster.node.tasks.ownership import Ownership, attempts_of
from muster.node.tasks.push_policy import OwnerPushPolicy
from muster.task.fold import TASK
from muster.verbs.declaration import (
    Call,
    Core,
    Daemon,
    Perform,
    Request,
    Stream,
    data,
    pos,
    verb,
)

DECLARED[__name__] = {"push-refused": "A push to a repository here was refused by the fence."}

_SETTLED: Final = re.compile(r"muster/[A-Za-z0-9_-]{1,128}/[a-z0-9_-]{1,128}")


class Wanted(Request, frozen=True, forbid_unknown_fields=False):
    machine: Annotated[str, data()]
    repo: Annotated[str, data()]
    service: Annotated[remote.Service, data()]


@verb("git.connect", auth="local", runs="stream")
async def connect(daemon: Daemon, call: Perform, stream: Stream, ask: Wanted) -> None:
    """A stream for git, to a repository of ours or, through a link, to another machine's."""
    core = daemon.core
    record = core.roster.find(ask.machine)
    if record.machine == core.machine:
        await _serve(daemon, stream, ask, core.machine)
        return
    link = core.link_to(record.machine)
    if link is None:
        raise Unreachable(f"{record.name} is away: there is no link to it; try again later")
    await daemon.streams.pass_on(stream, link, "git.serve", call.args)


@verb("git.serve", auth="peer", runs="stream")
async def serve(daemon: Daemon, call: Perform, stream: Stream, ask: Wanted) -> None:
    """A repository of ours, to a machine whose link proved who it is."""
    await _serve(daemon, stream, ask, call.peer)


async def _serve(daemon: Daemon, stream: Stream, ask: Wanted, peer: str) -> None:
    found = repository.find(daemon.effects.repos, ask.repo)
    writes = ask.service == "git-receive-pack"
    if writes:
        _check_kept(daemon.core, ask.repo, mirrored=bool(mirror.of(found)))
    stream.accept()
    before = await ref.under(found, POST_PREFIX) if writes else {}
    server = await remote.serve(found, ask.service, peer=peer, sock=daemon.home.socket)
    try:
        await stream.join(*server.pair)
        await server.finish()
    finally:
        # Also where the stream broke: what was pushed by then stands.
        await server.stop()
        if writes:
            daemon.effects.mirrors.tell(ask.repo)
            if await ref.under(found, POST_PREFIX) != before:
                daemon.mailboxes.left_in(ask.repo)


def _check_kept(core: Core, repo: str, *, mirrored: bool) -> None:
    """Raises: Refused where this machine has a repository and decides nothing of it."""
    if not core.part(Keepers).is_kept_here(repo, mirrored=mirrored):
        keeper = core.part(Keepers).keeper(repo)
        name = keeper.name if keeper is not None else "another machine"
        raise Refused(f"{name} keeps repository {repo} now: push to muster::{name}/{repo}")


class Moved(Request, frozen=True, forbid_unknown_fields=False):
    repo: Annotated[str, Meta(max_length=64), data()]


@verb("git.moved", auth="peer", runs="async")
async def moved(daemon: Daemon, call: Perform, ask: Moved) -> bool:
    """Something moved in a repository of the calling machine: who meets there, or has a mirror of
    it, looks now.
    """
    daemon.mailboxes.moved(call.peer, ask.repo)
    daemon.post(RepositoryMoved(call.peer, ask.repo))
    return True


class Pushed(Request, frozen=True):
    repo: Annotated[str, data()]


@verb("push", auth="order", runs="stream", object="repo", daily=True, on="one")
async def push(daemon: Daemon, call: Perform, stream: Stream, ask: Pushed) -> None:
    """A repository of ours, to a person who pushes: `git push` asks for it, signed.

    muster grant bob push --object main
    """
    wanted = Wanted(machine=daemon.core.machine, repo=ask.repo, service="git-receive-pack")
    await _serve(daemon, stream, wanted, call.operator)


class Push(Request, frozen=True):
    """Which refs are to move, as the hook of a repository was told by git."""

    peer: Annotated[str, data()]
    updates: Annotated[list[Update], Meta(max_length=GIT_PUSH_REFS_MAX), data()]
    repo: Annotated[str, data()] = ""
    # Of each register of a schedule the slot that it is to move to.
    slots: Annotated[dict[str, int], Meta(max_length=GIT_PUSH_REFS_MAX), data()] = {}  # noqa: RUF012 - msgspec copies it


class Allowed(Struct, frozen=True):
    allowed: Literal[True] = True


@verb("git.may-push", auth="local")
def may_push(core: Core, call: Call, ask: Push) -> Allowed:
    """Whether a machine may move these refs, for the fence: anything unclear is a no."""
    if MachineId(ask.peer) in core.roster.known:
        core.roster.machine(ask.peer)
    refusal = may_push_all(ask.peer, ask.updates, OwnerPushPolicy(core, ask.repo))
    for update in ask.updates if refusal is None else ():
        ahead_ms = ask.slots.get(update.ref, core.now.wall_ms) - core.now.wall_ms
        if update.ref.startswith(SCHEDULE_PREFIX) and (
            update.ref not in ask.slots or ahead_ms > SLOT_AHEAD_MS_MAX
        ):
            refusal = f"the slot is {ahead_ms // 1000} s ahead of this machine's clock"
    if refusal is not None:
        core.counters["push-refused"] += 1
        raise Denied(refusal)
    return Allowed()


class Branch(Request, frozen=True):
    repo: Annotated[str, pos("repository")]
    branch: Annotated[str, pos("branch")]
    commit: Annotated[str, pos("commit")]


class Stands(Struct, frozen=True):
    """`pruned`: it is gone because somebody cleaned up."""

    stands: bool
    pruned: bool = False


@verb("git.stands", auth="local", runs="async")
async def stands(daemon: Daemon, call: Perform, ask: Branch) -> Stands:
    """Whether a settled branch is where its task says, as far as its repository is kept here."""
    if not _SETTLED.fullmatch(ask.branch):
        raise Malformed(f"{ask.branch[:80]!a} is no branch of a settled task")
    branches = daemon.effects.branches
    stands = await branches.stands(ask.repo, ask.branch, ask.commit)
    return Stands(stands, not stands and branches.was_pruned(ask.repo, ask.branch))


class Again(Request, frozen=True, forbid_unknown_fields=False):
    task: Annotated[str, data()]
    epoch: Annotated[tuple[int, int], data()]


class Sent(Struct, frozen=True):
    pushed: str


@verb("git.again", auth="peer", runs="async")
async def again(daemon: Daemon, call: Perform, ask: Again) -> Sent:
    """The commit of a settled attempt of ours, once more: its owner was set back, and asks."""
    core = daemon.core
    held = core.part(Ownership).held(TASK, ask.task)
    if held is None or held.owner != call.peer:
        raise Denied("only the owner of a task asks for its work")
    attempts = attempts_of(core, core.machine, ask.task, ask.epoch)
    done = [row.commit_id for row in attempts if row.state == "done" and row.commit_id]
    if not done:
        raise NotFound("this machine finished no such attempt")
    repo = holder.repository_of(core, held.row)
    await daemon.effects.branches.push_again(repo, ask.task, Epoch(*ask.epoch), done[0])
    return Sent(done[0])
