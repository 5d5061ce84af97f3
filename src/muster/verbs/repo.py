"""Verbs about repositories, and the streams git goes through."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from muster.channel.stream import Stream
from muster.errors import Denied, Malformed, MusterError, NotFound, Unreachable
from muster.git import repository
from muster.git import serve as remote
from muster.git.fence import Epoch, Update, may_push_all, repository_name
from muster.node import event as ev
from muster.node import holder
from muster.node.call import Call
from muster.node.core import Core
from muster.node.counter import DECLARED
from muster.node.member import FactsChanged

DECLARED[__name__] = {"push-refused": "A push to a repository here was refused by the fence."}

_SETTLED: Final = re.compile(r"muster/[A-Za-z0-9_-]{1,128}/[a-z0-9_-]{1,128}")

if TYPE_CHECKING:
    from muster.node.daemon import Daemon


async def repo(daemon: "Daemon", call: ev.Perform) -> Any:
    """Add a repository to the fleet, kept on this machine; `list` is `repo.list` as an order."""
    folder = daemon.hands.repos
    if call.args.get("action") == "list":
        return await listing(daemon, call)
    name, source = str(call.args.get("name") or ""), str(call.args.get("path") or "")
    if not name or not source:
        raise Malformed("`repo add` needs a name and a path: muster repo add main ~/src/project")
    made = await repository.add(folder, repository_name(name), source)
    daemon.post(FactsChanged(await daemon.hands.facts()))
    answer: dict[str, Any] = {"name": made.name, "head": await _head(made.path)}
    answer["branch"] = made.branch
    if made.left_out:
        answer["left_out"] = list(made.left_out)
    return answer


async def listing(daemon: "Daemon", call: ev.Perform) -> Any:
    """Every repository of the fleet with the machines that keep it; the head of those kept here.

    One that only machines kept which count no more is there, too: it can be brought back.
    """
    roster, here = (
        daemon.core.roster,
        {r.name: r.path for r in repository.listing(daemon.hands.repos)},
    )
    kept = {name: {daemon.core.name} for name in here}
    for machine, record in roster.machines.items():
        for name in roster.facts[machine].repositories if machine in roster.facts else ():
            kept.setdefault(name, set()).add(record.name)
    lost: dict[str, set[str]] = {}
    for machine in roster.facts.keys() - roster.machines.keys():
        for name in roster.facts[machine].repositories:
            lost.setdefault(name, set()).add(daemon.core.standing.name_of(machine))
    return [
        {
            "name": name,
            "head": await _head(here[name]) if name in here else "",
            "machines": sorted(kept.get(name, ())),
            "lost": [] if name in kept else sorted(lost[name]),
        }
        for name in sorted(kept.keys() | lost.keys())
    ]


async def _head(path: Path) -> str:
    try:
        return await repository.head(path)
    except MusterError:
        return ""


async def connect(daemon: "Daemon", call: ev.Perform, stream: Stream) -> None:
    """A local git wants a repository: our own is served here, another machine's through a link."""
    request = remote.parse(dict(call.args))
    core = daemon.core
    record = core.roster.find(request.machine)
    if record.machine == core.machine:
        await _serve(daemon, stream, request, core.machine)
        return
    link = core.link_to(record.machine)
    if link is None:
        raise Unreachable(f"{record.name} is away: there is no link to it; try again later")
    await daemon.streams.pass_on(stream, link, "git.serve", call.args)


async def serve(daemon: "Daemon", call: ev.Perform, stream: Stream) -> None:
    """A repository of ours, to a machine whose link proved who it is."""
    await _serve(daemon, stream, remote.parse(dict(call.args)), call.peer)


async def _serve(daemon: "Daemon", stream: Stream, request: remote.Request, peer: str) -> None:
    found = repository.find(daemon.hands.repos, request.repo)
    stream.accept()
    server = await remote.serve(found.path, request.service, peer=peer, sock=daemon.home.socket)
    try:
        await stream.join(*server.pair)
        await server.finish()
    finally:
        await server.stop()


def ask(core: Core, call: Call) -> Any:
    """The fence's question: may this machine move these refs? Anything unclear is a no."""
    peer, moves = str(call.args.get("peer", "")), call.args.get("updates")
    if not peer or not isinstance(moves, list):
        raise Malformed("a fence question names a peer and its updates")
    core.roster.machine(peer)
    try:
        updates = [Update(str(ref), str(old), str(new)) for ref, old, new in moves]
    except (TypeError, ValueError) as error:
        raise Malformed("a fence question's updates cannot be read") from error
    refusal = may_push_all(peer, updates, Standing(core))
    if refusal is not None:
        core.counters["push-refused"] += 1
        raise Denied(refusal)
    return {"allowed": True}


class Standing:
    """What this machine knows about tasks, for the fence; see `node/ownership.py`."""

    def __init__(self, core: Core) -> None:
        self.core = core

    def _row(self, task: str) -> dict[str, Any] | None:
        held = self.core.work.ownership.held("task", task)
        return None if held is None else held.row

    def epoch(self, task: str) -> Epoch | None:
        row = self._row(task)
        if row is None or not row["assigned"]:
            return None
        return Epoch(int(row["epoch_order"]), int(row["epoch_count"]))

    def holder(self, task: str) -> str | None:
        held = self.core.work.owning.owner.holder(task)
        if held is not None:
            return held[0]
        row = self._row(task)
        if row is not None and row["state"] == "leased":
            return str(row["machine"])
        # After a restore the worker of a settled task is asked for its work once more.
        return self.core.work.branches.pusher(task)

    def owner(self, task: str) -> str | None:
        return self.core.work.ownership.owner("task", task)

    def run_owner(self, run: str) -> str | None:
        return self.core.work.ownership.owner("run", run)

    def writes(self, peer: str) -> bool:
        """Ordinary branches: only to a machine that was granted `push`."""
        try:
            self.core.roster.decide(peer, "push", "*", self.core.now.wall_ms)
        except MusterError:
            return False
        return True


async def stands(daemon: "Daemon", call: ev.Perform) -> Any:
    """Whether a settled branch is there, where its repository is kept here."""
    repo, branch, commit = (str(call.args.get(n, "")) for n in ("repo", "branch", "commit"))
    if not _SETTLED.fullmatch(branch):
        raise Malformed(f"{branch[:80]!a} is no branch of a settled task")
    return {"stands": await daemon.hands.branches.stands(repo, branch, commit)}


async def again(daemon: "Daemon", call: ev.Perform) -> Any:
    """Push the commit of a settled attempt of ours once more: its owner was set back, and asks."""
    args, core = call.args, daemon.core
    task, epoch = str(args.get("task", "")), _epoch(args.get("epoch"))
    held = core.work.ownership.held("task", task)
    if held is None or held.owner != call.peer:
        raise Denied("only the owner of a task asks for its work")
    commit = _delivered(core, task, epoch)
    repo = holder.repository_of(core, held.row)
    await daemon.hands.branches.push_again(repo, task, Epoch(*epoch), commit)
    return {"pushed": commit}


def _epoch(value: Any) -> tuple[int, int]:
    if not isinstance(value, list) or [type(each) for each in value] != [int, int]:
        raise Malformed("an epoch is two numbers")
    return value[0], value[1]


def _delivered(core: Core, task: str, epoch: tuple[int, int]) -> str:
    """The commit that we reported as done. Raises: NotFound."""
    order, count = epoch
    for row in core.store.rows(
        "attempt", writer=core.machine, task=task, epoch_order=order, epoch_count=count
    ):
        if row["state"] == "done" and row["commit_id"]:
            return str(row["commit_id"])
    raise NotFound("this machine finished no such attempt")
