"""Verbs about deliverables without a repository: what there is, bringing it here, serving it."""

from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Conflict, NotFound
from muster.log.fold import body_or_none
from muster.node.attempts import blob_transfer as holder
from muster.node.host import clock
from muster.task.artefact import Artefact
from muster.task.identity import branch_of
from muster.task.kinds import TaskSettle
from muster.verbs.declaration import Call, Core, Daemon, Perform, Request, Stream, data, pos, verb
from muster.verbs.find import OfTask, find_task

# Often enough for a person, seldom enough for a socket.
_TOLD_EVERY_MS: Final = 500


class Kept(Struct, frozen=True):
    """A deliverable, and a machine that keeps it."""

    path: str
    shape: str
    sha256: str
    size: int
    machine: str


class Delivered(Struct, frozen=True, kw_only=True):
    """Blobs, or with a repository the branch and commit that have them."""

    task: str
    phase: str
    state: str
    run: str | UnsetType = UNSET
    commit: str | UnsetType = UNSET
    repo: str | UnsetType = UNSET
    branch: str | UnsetType = UNSET
    paths: list[str] | UnsetType = UNSET
    artefacts: list[Kept] | UnsetType = UNSET


@verb("artefacts", auth="local")
def artefacts(core: Core, call: Call, ask: OfTask) -> Delivered:
    """What a settled task delivered."""
    row = find_task(core, ask.task).row
    task: Any = {"task": row.task, "phase": row.phase, "state": row.state, "run": row.run or UNSET}
    body = body_or_none(core.log.entry(row.settled), TaskSettle)
    if row.state != "done" or body is None:
        raise Conflict(f"task {row.task[:12]} is {row.state}: it delivered nothing")
    if body.commit:
        branch = branch_of(row.run, row.phase, row.instance)
        repo = holder.repository_of(core, row)
        return Delivered(
            **task, commit=body.commit, repo=repo, branch=branch, paths=list(body.artefacts)
        )
    found = holder.sources(core, row)
    kept = ((each.artefact, core.membership.name_of(each.machine)) for each in found)
    return Delivered(
        **task, artefacts=[Kept(a.path, a.shape, a.sha256, a.size, name) for a, name in kept]
    )


class Bring(OfTask, frozen=True):
    path: Annotated[str, pos("the deliverable")]


class Got(Struct, frozen=True):
    """How far one is that comes."""

    got: int
    path: str
    size: int


class Brought(Struct, frozen=True):
    path: str
    sha256: str
    here: bool = True


@verb("blob.bring", auth="local", runs="async")
async def bring(daemon: Daemon, call: Perform, ask: Bring) -> Brought:
    """Bring a deliverable to this machine.

    Each answer before the last says how far it is.
    """
    core = daemon.core
    row = find_task(core, ask.task).row
    found = holder.sources(core, row)
    source = next((each for each in found if each.artefact.path == ask.path), None)
    if source is None:
        raise NotFound(f"task {row.task[:12]} delivered no {ask.path[:80]!r}")
    told_ms = 0

    def tell(artefact: Artefact, got: int) -> None:
        nonlocal told_ms
        now_ms = clock.boot_ms()
        if now_ms - told_ms >= _TOLD_EVERY_MS:
            told_ms = now_ms
            value = Got(got, artefact.path, artefact.size)
            daemon.answer(call, {"ok": True, "value": value}, last=False)

    await holder.bring(daemon, source, tell)
    return Brought(source.artefact.path, source.artefact.sha256)


class Serve(Request, frozen=True, forbid_unknown_fields=False):
    """By an entry that names it, from byte `at` on; `direct`: not from a third machine."""

    entry: Annotated[str, data()] = ""
    sha256: Annotated[str, data()] = ""
    direct: Annotated[bool, data()] = False
    at: Annotated[int, data()] = 0


@verb("blob.serve", auth="peer", runs="stream")
async def serve(daemon: Daemon, call: Perform, stream: Stream, ask: Serve) -> None:
    """A blob, to a machine that may read an entry that names it."""
    await holder.serve(daemon, call, stream)
