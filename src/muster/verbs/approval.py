"""Verbs about approvals: where one waits, and the signed order that answers it.

Rule: the order names the approval and the hash of all that is asked for; a grant of `approve` names
one approval, `class:` and the class of it, or `*`. A yes is used once and never kept.
"""

from typing import Annotated, Final, Literal

from msgspec import Struct

from muster.errors import Conflict, NotFound, Refused
from muster.limits import APPROVAL_MS_MAX
from muster.node.tasks.approvals import Approvals
from muster.task.approval import VERB
from muster.task.approval_fold import APPROVAL, ApprovalRow
from muster.verbs.declaration import Call, Core, Request, data, verb
from muster.verbs.find import find_task

_LOOKED_MAX: Final = 200
_WORDS: Final = ("kind", "title", "because", "input")


class Approved(Struct, frozen=True):
    """What was answered, and how."""

    task: str
    question: str
    title: str
    answer: Literal["allow", "deny"]


class Approve(Request, frozen=True):
    approval: Annotated[str, data()]
    hash: Annotated[str, data()]
    answer: Annotated[Literal["allow", "deny"], data()]


@verb(VERB, auth="order", daily=True, object="approval")
def approve(core: Core, call: Call, ask: Approve) -> Approved:
    """A person's word about one action that an agent waits for, where it waits."""
    (order,) = call.cites
    found = core.part(Approvals).answer(
        ask.approval, ask.hash, ask.answer, call.actor, call.statement, order
    )
    return Approved(found.task, found.id, str(found.fields.get("title", "")), ask.answer)


class Of(Request, frozen=True):
    approval: Annotated[str, data()] = ""
    task: Annotated[str, data()] = ""


class Asked(Struct, frozen=True):
    """All that a person is shown of what an agent asks for; `input` has both its ends."""

    approval: str
    hash: str
    sort: str
    task: str
    actor: str
    asked_ms: int
    until_ms: int
    tool: str
    title: str
    paths: list[str]
    because: str
    input: str


@verb("approval.about", auth="local", daily=True)
def about(core: Core, call: Call, ask: Of) -> Asked:
    """What waits here under this id, or the oldest of a task."""
    for each in core.part(Approvals).listing():
        if each.task == ask.task and ask.approval in ("", each.id):
            said = {name: str(each.fields.get(name, "")) for name in _WORDS}
            paths = [str(path) for path in each.fields.get("paths") or ()]
            return Asked(
                each.id, each.hash, each.sort, each.task, each.actor, each.asked_ms, each.until_ms,
                said["kind"], said["title"], paths, said["because"], said["input"],
            )  # fmt: skip
    raise Conflict(
        f"nobody waits for an answer about task {ask.task[:12]}; "
        "`muster questions --on all` lists who does"
    )


class Which(Request, frozen=True):
    id: Annotated[str, data()] = ""


class Where(Struct, frozen=True):
    """The machine where it waits; of a task, `approval` is "" where the fleet knows of none yet."""

    approval: str
    task: str
    machine: str


@verb("approval.find", auth="local", on="none")
def find(core: Core, call: Call, ask: Which) -> Where:
    """Where an approval waits that begins so; the oldest where nothing is named; or a task's."""
    found = _waiting(core, ask.id)
    if not ask.id and not found:
        raise Conflict("nobody waits for an answer; `muster questions --on all` asks every machine")
    if ask.id and len(found) > 1:
        raise Refused(f"more than one begins so: {', '.join(row.id[:16] for row in found[:6])}")
    if found:
        return Where(found[0].id, found[0].task, found[0].stream.machine)
    if over := _named(core, ask.id):
        raise Conflict(_told(core, over[0]))
    try:
        held = find_task(core, ask.id)
    except NotFound as error:
        raise NotFound(
            f"nothing that waits for a person begins with {ask.id[:40]!r}, and no task; "
            "`muster questions --on all` lists what waits"
        ) from error
    if held.row.state != "leased":
        raise Conflict(f"task {held.row.task[:12]} is {held.row.state}: nobody waits for an answer")
    return Where("", held.row.task, held.row.machine)


def _waiting(core: Core, beginning: str) -> list[ApprovalRow]:
    """What waits and begins so, the oldest first: what is over by its time hides nothing here."""
    now_ms = core.now.wall_ms
    return _named(core, beginning, "open", now_ms, now_ms + APPROVAL_MS_MAX)


def _named(
    core: Core, beginning: str, state: str = "", since_ms: int = 0, before_ms: int = 2**62
) -> list[ApprovalRow]:
    """Those that begin so and end in that time, the oldest first, whatever else there is."""
    found = core.tables.query(
        "select id from approval where ? in ('', state) and until_ms >= ? and until_ms < ? "
        "and substr(id, 1, ?) = ? order by asked_ms limit ?",
        (state, since_ms, before_ms, len(beginning), beginning, _LOOKED_MAX),
    )
    ids = dict.fromkeys(str(id) for (id,) in found)
    return [row for id in ids for row in core.tables.rows(APPROVAL, id=id)]


def _told(core: Core, row: ApprovalRow) -> str:
    """Why nothing can be said about it any more."""
    if row.state == "open":
        return f"approval {row.id[:12]} is over: nobody answered it in time"
    by = f" ({core.roster.speaker(row.operator)} answered it)" if row.operator else ""
    return f"approval {row.id[:12]} is {row.state}{by}; nothing was changed"
