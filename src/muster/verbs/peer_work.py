"""Verbs about work between fleets: ask another fleet for a task, and take what one of them says.

Rule 1: what was asked is shown beside our own runs, under the id of its document; of what is over
there, nothing is known here but what its door reports.
Rule 2: what may be a task of another fleet, or a run or task of ours, is neither: whoever says it
hears of both (find.py, rule 3).
"""

from typing import Annotated, Any

from msgspec import Struct

from muster.errors import Malformed, NotFound, Refused
from muster.limits import KEY_CHARS_MAX
from muster.node.services.letters import Held
from muster.node.services.peer_asks import PeerAsks
from muster.node.services.peer_work import PeerWork
from muster.task.peer_order import narrowed
from muster.task.peer_work import SaidRow
from muster.verbs.declaration import Call, Core, Request, data, pos, verb
from muster.verbs.find import whose


class Narrow(Request, frozen=True):
    spec: Annotated[str, data()]
    to: Annotated[str, data()]


class Narrowed(Struct, frozen=True):
    """The spec as another fleet's machine is to get it."""

    spec: str


@verb("peer.spec", auth="local")
def spec(core: Core, call: Call, ask: Narrow) -> Narrowed:
    """A spec with what another fleet's machine is told of it: that machine, and no memory."""
    return Narrowed(narrowed(ask.spec, ask.to.partition(".")[0]))


class Ask(Request, frozen=True):
    to: Annotated[str, pos("machine.fleet")]
    spec: Annotated[str, data()]
    repo: Annotated[str, data()] = ""
    base: Annotated[str, data()] = ""
    key: Annotated[str, data()] = ""


class Asked(Struct, frozen=True):
    """A task that is written down for another fleet; not `fresh`: it was before."""

    task: str
    fresh: bool
    to: str


@verb("peer.ask", auth="order", object="to", target="here")
def ask(core: Core, call: Call, ask: Ask) -> Asked:
    """Ask a machine of another fleet to do a spec, within what its operator grants this one."""
    if len(ask.key) > KEY_CHARS_MAX:
        raise Malformed(f"a key has at most {KEY_CHARS_MAX} characters, this one {len(ask.key)}")
    what = (ask.spec, ask.repo, ask.base, ask.key)
    task, fresh = core.part(PeerAsks).ask(call, ask.to, *what)
    return Asked(task, fresh, ask.to)


class Work(Request, frozen=True):
    letter: Annotated[str, data()] = ""
    record: Annotated[str, data()] = ""


@verb("peer.work", auth="foreign")
def work(core: Core, call: Call, ask: Work) -> Held:
    """Take a task of another fleet, its cancelling, or the report of one that it was asked."""
    return core.part(PeerWork).take(call, ask.letter, ask.record)


# --- what was asked, beside our own --------------------------------------------------------------


def find(core: Core, text: str) -> SaidRow:
    """The task asked of another fleet whose id begins so. Raises: NotFound, Refused."""
    rows = core.part(PeerAsks).asked(limit=8, text=text) if text else []
    if len(rows) > 1:
        ids = ", ".join(row.letter[:12] for row in rows)
        raise Refused(f"more than one task asked of other fleets begins so: {ids}")
    if not rows:
        raise NotFound(f"nothing that begins with {text[:40]!r} was asked of another fleet")
    return rows[0]


def meant(core: Core, text: str) -> SaidRow | None:
    """The task asked of another fleet that is meant; None where one of ours is, or nothing.

    Raises: Refused for several, or where one of ours may be meant as well.
    """
    try:
        out = find(core, text)
    except NotFound:
        return None
    try:
        own = whose(core, text)
    except NotFound:
        return out
    if text in (out.letter, own.id):
        # A whole id counts.
        return out if text == out.letter else None
    owner = view(core, out)["owner"]
    raise Refused(
        f"{text[:40]!r} may be {own.what} {own.id[:12]} of {own.owner}, {own.state}, or task "
        f"{out.letter[:12]} asked of {owner}; give more of the id that is meant"
    )


def view(core: Core, row: SaidRow) -> dict[str, Any]:
    """What `runs` shows of it: the run of another fleet's machine."""
    part = core.part(PeerAsks)
    task, report = part.task(row), part.report(row)
    return {
        "run": row.letter,
        "name": part.spec(task).name,
        "state": part.state(row),
        "repo": task.repo,
        "summary": report.summary if report else "",
        "opened_ms": row.t_ms,
        "changed_ms": part.changed_ms(row),
        "owner": part.name_of(row, task.to),
    }


def views(core: Core, limit: int) -> list[dict[str, Any]]:
    """The newest of them."""
    return [view(core, row) for row in core.part(PeerAsks).asked(limit)]


def cancel(core: Core, call: Call, row: SaidRow, reason: str) -> None:
    """Take it back. Raises: Conflict where it is over, NotFound where another machine asked it."""
    writer = row.stream.machine
    if writer != core.machine:
        name = core.membership.name_of(writer)
        raise NotFound(f"task {row.letter[:12]} was asked from {name}: say it there, --on {name}")
    core.part(PeerAsks).cancel(call, row, reason)
