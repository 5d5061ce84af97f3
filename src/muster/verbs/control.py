"""Verbs that change work under way: stop it, try it again, decide it.

Rule: what is named is looked for before anything is written; what is settled already, or not
ours, is refused with what to do instead.
"""

from typing import Annotated, Final, Literal

from msgspec import UNSET, Struct, UnsetType

from muster.errors import Conflict, Exhausted, Malformed, NotFound, Unreachable
from muster.fleet.statement import EVERY_MACHINE, open_statement
from muster.limits import REASON_CHARS_MAX
from muster.node.tasks.owner import OwnerService
from muster.node.tasks.runs import RunService
from muster.node.verb import Line
from muster.task import kinds
from muster.task.state import LIVE
from muster.verbs import peer_work
from muster.verbs.declaration import Call, Core, Request, opt, pos, verb
from muster.verbs.find import Meant, OfTask, find_task, whose


class Cancel(Request, frozen=True):
    what: Annotated[str, pos("task or run: its id, RUN/PHASE, or the name of a spec", kind="task")]
    reason: Annotated[str, opt("why, for the log", empty=True)] = ""


class Cancelled(Struct, frozen=True):
    """What is cancelled; `left_for` its owner, which cannot be asked now."""

    run: str | UnsetType = UNSET
    task: str | UnsetType = UNSET
    cancelled: bool = True
    left_for: str | UnsetType = UNSET


_LEFT: Final = (
    "is ended: {left_for}, its owner, cannot be asked now and obeys when it is back; if {left_for} "
    "is lost, `muster revoke {left_for}`"
)


@verb(
    "cancel", auth="order", daily=True, group="Work", object="what", target="owner or all",
    says=(
        Line("run {run:id} is being cancelled", "run !left_for"),
        Line("task {task:id} is being cancelled", "!run !left_for"),
        Line("run {run:id} " + _LEFT, "run left_for"),
        Line("task {task:id} " + _LEFT, "!run left_for"),
    ),
)  # fmt: skip
def cancel(core: Core, call: Call, ask: Cancel) -> Cancelled:
    """Stop a task or a run.

    One of ours, or one whose owner cannot be asked.

        muster cancel 1ae7 --reason 'wrong branch'
        muster cancel nightly/test    # a task of the newest run of that spec
    """
    what, reason = ask.what, ask.reason or f"{call.actor} cancelled it"
    if (asked := peer_work.meant(core, what)) is not None:
        peer_work.cancel(core, call, asked, ask.reason)
        return Cancelled(run=asked.letter)
    known = whose(core, what)
    if known.id in core.part(RunService).runs:
        core.part(RunService).cancel(known.id, reason)
        return Cancelled(run=known.id)
    if known.machine != core.machine and not known.there and known.open:
        return _leave_word(core, call, ask, known)
    if known.what == "run":
        run, owner = f"run {known.id[:12]}", known.owner
        if not known.open:
            raise Conflict(f"{run} is {known.state} already; nothing was changed")
        if known.machine == core.machine:
            raise Exhausted(f"{run} is not taken up yet by the daemon that just began; again, soon")
        raise NotFound(f"{run} is owned by {owner}: say it there, with --on {owner}")
    task = _open(core, what)
    core.part(OwnerService).owner.cancel(task, reason, call.cites, core.now)
    return Cancelled(task=task)


def _leave_word(core: Core, call: Call, ask: Cancel, known: Meant) -> Cancelled:
    """The order to end it, where its owner finds it, and where all others see it."""
    statement = open_statement(call.statement.encode(), core.membership.fleet)
    if statement.target != EVERY_MACHINE or ask.what != known.id:
        raise Unreachable(
            f"{known.owner} owns {known.what} {known.id[:12]} and cannot be asked now; "
            "order it of the whole fleet, under its full id"
        )
    if len(ask.reason) > REASON_CHARS_MAX:
        raise Malformed(f"a reason has at most {REASON_CHARS_MAX} characters")
    end = kinds.WorkEnd(known.id, call.statement.encode().hex(), ask.reason)
    core.append_body(end, cause=call.cites[:1], actor=call.actor)
    run, task = (known.id, UNSET) if known.what == "run" else (UNSET, known.id)
    return Cancelled(run, task, left_for=known.owner)


class Retried(Struct, frozen=True):
    task: str


class Retry(OfTask, frozen=True):
    budget: Annotated[
        str,
        opt("go on with what ended at its budget: what the rest may use up", unsigned=True),
    ] = ""
    detach: Annotated[
        bool, opt("with --budget: print the run's id and return", unsigned=True, short="d")
    ] = False


@verb("retry", auth="order", daily=True, group="Work", object="task", target="owner", steps=True)
def retry(core: Core, call: Call, ask: Retry) -> Retried:
    """Try a task now that waits for its next try.

    With --budget its run goes on as another one: what is done is kept, what ended at its budget
    goes on from what it had made by then, and the budget takes the place of every one in the spec.

        muster retry 7d5e
        muster retry 7d5e --budget usd=5.00
    """
    if ask.budget:
        raise Malformed("a task that has ended goes on as another run: order that run")
    task = _open(core, ask.task)
    if core.part(OwnerService).owner.why(task).state == "leased":
        raise Conflict(f"task {task[:12]} is running: `muster cancel` ends it, if it should end")
    core.part(OwnerService).owner.retry(task)
    return Retried(task)


class Decide(OfTask, frozen=True):
    answer: Annotated[Literal["yes", "no"], pos("yes or no")]
    note: Annotated[str, opt("what you want to say with it", empty=True)] = ""


class Decided(Struct, frozen=True):
    task: str
    answer: Literal["approve", "reject"]


@verb(
    "decide", auth="order", daily=True, group="Work", object="task", target="owner",
    says=(
        Line("task {task:id}: your yes is written down", "answer=approve"),
        Line("task {task:id}: your no is written down", "answer=reject"),
    ),
)  # fmt: skip
def decide(core: Core, call: Call, ask: Decide) -> Decided:
    """Answer a phase that waits for a person.

    muster decide 7d5e yes --note 'reads well'
    """
    task = _open(core, ask.task)
    said: Literal["approve", "reject"] = "approve" if ask.answer == "yes" else "reject"
    body = kinds.TaskDecide(task, said, call.statement.encode().hex(), ask.note[:2000])
    if core.part(OwnerService).owner.why(task).state != "waiting":
        raise Conflict(f"task {task[:12]} does not wait for a person")
    core.part(OwnerService).owner.decide(call.write(body).id, body)
    return Decided(task, said)


def _open(core: Core, text: str) -> str:
    """The task of ours that is meant. Raises: NotFound, Conflict where it is settled already."""
    held = find_task(core, text)
    task = held.row.task
    if held.row.state not in LIVE:
        raise Conflict(f"task {task[:12]} is {held.row.state} already; nothing was changed")
    if held.owner != core.machine:
        name = core.membership.name_of(held.owner)
        raise NotFound(f"task {task[:12]} is owned by {name}: say it there, with --on {name}")
    return task
