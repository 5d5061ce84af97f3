"""The verb that hands in single tasks: what programs use, and runs never need."""

from collections.abc import Iterable
from typing import Annotated, Any

from msgspec import UNSET, Meta, Struct, UnsetType
from msgspec.structs import replace

from muster.errors import Conflict
from muster.fleet.statement import check_order, open_statement
from muster.limits import KEY_CHARS_MAX, RETRIES_MAX, TASK_PRIORITY_MAX, TASKS_SUBMIT_MAX
from muster.log import canon
from muster.log.fold import body_as
from muster.node.call.answers import Answers
from muster.node.incarnations.doubt import Doubt
from muster.node.tasks import unenclosed
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.service import TaskService
from muster.node.verb import LATER, Later
from muster.task import kinds
from muster.task.evidence import task_args
from muster.task.fold import TASK
from muster.task.instruction import Settled
from muster.task.open_task import Submission
from muster.task.problem import shown
from muster.verbs.declaration import Call, Core, Request, data, verb


class Item(Struct, frozen=True, forbid_unknown_fields=True):
    """One task. What the statement does not sign is bounded here."""

    task: kinds.TaskWord
    template: dict[str, Any]
    statement: str
    repo: str = ""
    base: str = ""
    key: Annotated[str, Meta(max_length=KEY_CHARS_MAX)] = ""
    priority: Annotated[int, Meta(ge=-TASK_PRIORITY_MAX, le=TASK_PRIORITY_MAX)] = 0
    retries: Annotated[int, Meta(ge=0, le=RETRIES_MAX)] = 0


class Submit(Request, frozen=True):
    tasks: Annotated[Annotated[list[Item], Meta(min_length=1, max_length=TASKS_SUBMIT_MAX)], data()]
    wait: Annotated[bool, data()] = False


class Accepted(Struct, frozen=True):
    task: str
    fresh: bool


class End(Struct, frozen=True):
    """How a task ended."""

    task: str
    outcome: str
    summary: str
    commit: str
    values: dict[str, str]


class Submitted(Struct, frozen=True):
    tasks: list[Accepted]
    ends: list[End] | UnsetType = UNSET


@verb("submit", auth="local", writes=True)
def submit(core: Core, call: Call, ask: Submit) -> Submitted | Later:
    """Hand in single tasks, each with its own statement.

    With `wait` the answer comes when all are settled, with each one's outcome.
    """
    ordered = [_order(core, item) for item in ask.tasks]
    _refuse_known(core, [order.body.task for order in ordered])
    _refuse_other_content(core, [order.body for order in ordered if order.body.key])
    if ask.wait:
        call.check_streaming()
    done = core.part(OwnerService).submit(ordered)
    answer = Submitted([Accepted(d.task, d.fresh) for d in done])
    if not ask.wait:
        return answer
    # Under a key that was used before there is a task already, and it may be over.
    known = [core.part(OwnerService).ended(d.task) for d in done if not d.fresh]
    over = {end.task: end for end in known if end is not None}
    left = [d.task for d in done if d.task not in over]
    if not left:
        return replace(answer, ends=_ends(over.values()))

    waiting = core.part(Answers).open

    def tell(ends: list[Settled]) -> None:
        # Nothing more follows: whoever hangs up now ends nothing.
        waiting.pop((call.link, call.channel), None)
        call.end(replace(answer, ends=_ends([*over.values(), *ends])))

    waiting[call.link, call.channel] = core.part(TaskService).when_settled(left, tell)
    return LATER


def _ends(ends: Iterable[Settled]) -> list[End]:
    return [End(e.task, e.outcome, e.summary, e.commit, dict(e.values)) for e in ends]


def _order(core: Core, item: Item) -> Submission:
    same: Any = {name: getattr(item, name) for name in Item.__struct_fields__}
    body = kinds.TaskOpen(**{**same, "statement": item.statement.encode().hex()})
    order = open_statement(item.statement.encode(), core.membership.fleet)
    # A task's order is spent by its opening, which may be among what is not known of our past.
    core.part(Doubt).check(order)
    check_order(order, verb="task", object=body.task, machine=core.machine,
                args=task_args(body), now_ms=core.now.wall_ms)  # fmt: skip
    core.roster.permit(order, core.now.wall_ms)
    unenclosed.check_task(core, order, body.template)
    actor = f"op:{core.roster.speaker(order.operator)}"
    return Submission(body, order.operator, actor=actor, again=True)


def _refuse_known(core: Core, tasks: list[str]) -> None:
    """Raises: Conflict where one was ordered of us before. One question for all: a hot path.

    That another machine wrote the same id says nothing: whoever hears of one can write it.
    """
    found = core.tables.query(
        "select task from task join stream on stream.id = task.stream"
        " where task in (select value from json_each(?)) and stream.name like ? limit 1",
        (canon.encode(tasks).decode(), f"{core.machine}/%"),
    )
    if found:
        raise Conflict(f"task {str(found[0][0])[:12]} was ordered before: nothing was done again")


def _refuse_other_content(core: Core, bodies: list[kinds.TaskOpen]) -> None:
    """Raises: Conflict where a key was used before, for something else."""
    known: dict[str, dict[str, Any]] = {}
    for body in bodies:
        if body.key not in known:
            own = core.tables.rows(TASK, writer=core.machine, dedupe=f"key:{body.key}")
            entry = core.log.entry(own[0].opened) if own else None
            known[body.key] = task_args(body_as(entry, kinds.TaskOpen) if entry else body)
        if task_args(body) != known[body.key]:
            raise Conflict(
                f"the key {shown(body.key)} is that of a task with another content: take another"
            )
