"""Verbs about deliverables without a repository: what there is, bringing it here, serving it."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from muster.channel.stream import Stream
from muster.errors import Conflict, NotFound
from muster.node import clock, holder
from muster.node import event as ev
from muster.node.call import Call
from muster.node.core import Core
from muster.node.holder import Source
from muster.task.artefact import Artefact
from muster.task.identity import branch_of
from muster.verbs.find import find_task
from muster.verbs.tasks import settlement

if TYPE_CHECKING:
    from muster.node.daemon import Daemon

# Often enough for a person, seldom enough for a socket.
_TOLD_EVERY_MS: Final = 500


def artefacts(core: Core, call: Call) -> Any:
    """What a task delivered: blobs, or with a repository the branch and commit that have it."""
    row = find_task(core, str(call.args.get("task", ""))).row
    answer: dict[str, Any] = {"task": row["task"], "phase": row["phase"], "state": row["state"]}
    body = settlement(core, row)
    if row["state"] != "done" or body is None:
        raise Conflict(f"task {str(row['task'])[:12]} is {row['state']}: it delivered nothing")
    if body.commit:
        branch = branch_of(str(row["run"]), str(row["phase"]), str(row["instance"]))
        repo = holder.repository_of(core, row)
        answer.update(commit=body.commit, repo=repo, branch=branch, paths=list(body.artefacts))
        return answer
    found = holder.sources(core, row)
    answer["artefacts"] = [
        {
            "path": each.artefact.path,
            "shape": each.artefact.shape,
            "sha256": each.artefact.sha256,
            "size": each.artefact.size,
            "machine": core.standing.name_of(each.machine),
        }
        for each in found
    ]
    return answer


async def bring(daemon: "Daemon", call: ev.Perform) -> Any:
    """Bring one deliverable of a task to this machine, telling how far it is."""
    core = daemon.core
    row = find_task(core, str(call.args.get("task", ""))).row
    source = _named(holder.sources(core, row), row, str(call.args.get("path", "")))
    told_ms = 0

    def tell(artefact: Artefact, got: int) -> None:
        nonlocal told_ms
        now_ms = clock.boot_ms()
        if now_ms - told_ms >= _TOLD_EVERY_MS:
            told_ms = now_ms
            value = {"got": got, "path": artefact.path, "size": artefact.size}
            daemon.answer(call, {"ok": True, "value": value}, last=False)

    await holder.bring(daemon, source, tell)
    return {"path": source.artefact.path, "sha256": source.artefact.sha256, "here": True}


def _named(found: list[Source], row: Mapping[str, Any], path: str) -> Source:
    for each in found:
        if each.artefact.path == path:
            return each
    raise NotFound(f"task {str(row['task'])[:12]} delivered no {path[:80]!r}")


async def serve(daemon: "Daemon", call: ev.Perform, stream: Stream) -> None:
    """A blob, to a machine that may read an entry that names it."""
    await holder.serve(daemon, call, stream)
