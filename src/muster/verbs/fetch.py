"""`muster fetch`: what a task delivered, into a folder of the person who asks.

Rule 1: the daemon brings blobs to this machine; this command places them, with the rights of the
person who typed it.
Rule 2: nothing is replaced without --force, and it is looked before anything is written.
"""

from pathlib import Path
from typing import Annotated, Any, Final

from msgspec import Struct

from muster.errors import NotFound, Refused
from muster.node.attempts.deliverables import Target
from muster.node.verb import Line
from muster.store.blobs import Blobs
from muster.task.artefact import Artefact
from muster.task.units import path_refusal
from muster.verbs.declaration import Context, opt, pos, verb
from muster.verbs.find import OfTask

# Below this nobody waits long enough to want to know.
_TOLD_BYTES: Final = 4 * 1024 * 1024


class Fetch(OfTask, frozen=True):
    path: Annotated[str, pos("only this deliverable")] = ""
    to: Annotated[
        str, opt("the folder to put it into (default: the current one)", kind="place")
    ] = ""
    force: Annotated[bool, opt("replace what is there")] = False


class Placed(Struct, frozen=True):
    path: str
    shape: str
    sha256: str
    size: int


class Fetched(Struct, frozen=True):
    task: str
    placed: list[Placed]


@verb(
    "fetch", auth="local", runs="client", group="Work", harmless=True, rows="placed",
    says=(
        Line("its files are in the repository {repo}, at {commit:id}:\n"
             "  muster checkout {task:id} --phase {phase}", "commit phase"),
        Line("its files are in the repository {repo}, on the branch {branch}:\n"
             "  git fetch && git checkout {branch}    # {commit}", "commit !phase"),
        Line("{path}/  {size} bytes", "shape=folder"),
        Line("{path}  {size} bytes", "path !shape=folder"),
    ),
)  # fmt: skip
def fetch(context: Context, ask: Fetch) -> Fetched | dict[str, Any]:
    """Bring what a settled task delivered to this machine.

    All of it, or what has this path; of a branch it says where that is.

        muster fetch 7d5e --to results
        muster fetch 7d5e report.txt
    """
    found: dict[str, Any] = context.ask("artefacts", {"task": ask.task})
    if "commit" in found:
        where = {name: found[name] for name in ("repo", "branch", "commit")}
        there = context.ask("git.stands", where)
        run = found.get("run")
        again = f"`muster rerun {run[:12]}` does its work again" if run else "order its work again"
        if there.get("pruned"):
            raise NotFound(
                f"the branch {found['branch']} was pruned from repository {found['repo']}, by "
                f"`muster repo prune`; {again}"
            )
        if not there["stands"]:
            raise NotFound(
                f"the branch {found['branch']} is gone from repository {found['repo']}; `muster "
                f"incidents` says whether it comes back, {again}"
            )
        return found
    wanted = []
    for each in found["artefacts"]:
        # Paths were checked by the daemon; this is where they would do harm, so they are once more.
        if refusal := path_refusal(str(each["path"])):
            raise Refused(f"{each['path']!a} {refusal}")
        wanted.append(Artefact(each["path"], each["sha256"], each["size"], each["shape"]))
    if path := ask.path.removesuffix("/"):
        wanted = [each for each in wanted if each.path == path]
    if not wanted:
        what = f"no {path!r}" if path else "no files"
        raise NotFound(f"task {found['task'][:12]} delivered {what}; `muster runs` shows its run")
    target = Target(Path(ask.to or "."), force=ask.force)
    target.check(wanted)
    blobs = Blobs(Path(context.home.blobs))
    for each in wanted:
        for told in context.stream("blob.bring", {"path": each.path, "task": found["task"]}):
            if "got" in told and told["size"] >= _TOLD_BYTES:
                context.say(f"{each.path}: {told['got'] * 100 // told['size']} %")
        target.place(each, blobs)
    placed = [
        Placed(str(target.folder / each.path), each.shape, each.sha256, each.size)
        for each in wanted
    ]
    return Fetched(found["task"], placed)
