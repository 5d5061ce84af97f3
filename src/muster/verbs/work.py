"""Verbs that order work: hand it in, stop it, try it again, decide it.

Rule 1: what is named is looked for before anything is written; what is settled already, or not
ours, is refused with what to do instead.
"""

from collections.abc import Iterable
from typing import Annotated, Any, Final

import msgspec

from muster.errors import Conflict, Malformed, MusterError, NotFound, Refused, Unreachable
from muster.fleet.statement import EVERY_MACHINE, check_order, open_statement
from muster.limits import (
    BODY_BYTES_MAX,
    KEY_CHARS_MAX,
    REASON_CHARS_MAX,
    RETRIES_MAX,
    TASK_PRIORITY_MAX,
    TASKS_SUBMIT_MAX,
)
from muster.log import canon
from muster.log.entry import EntryId
from muster.log.fold import body_as
from muster.node.call import Call
from muster.node.core import Core
from muster.node.verb import LATER
from muster.task import check as checks
from muster.task import kinds, route
from muster.task import order as orders
from muster.task.evidence import task_args
from muster.task.identity import run_id
from muster.task.instruction import Settled
from muster.task.live import Order
from muster.task.problem import shown
from muster.task.spec import Spec
from muster.task.state import LIVE
from muster.verbs.find import Meant, find_task, whose


def run(core: Core, call: Call) -> Any:
    """Hand in a spec: check it against the fleet, write it down with its order, begin.

    Whatever the run could not begin with is refused before anything is written.
    """
    text, repo = str(call.args.get("spec", "")), str(call.args.get("repo", ""))
    spec = checks.admit(text.encode(), fleet(core), repo=repo)
    if spec.name != call.object:
        raise Malformed(f"the order is for {call.object}, the spec is {spec.name}; sign it again")
    if spec.repo and not repo:
        raise Malformed(
            f"the spec works in repository {spec.repo}, the order in none; sign it anew"
        )
    statement = call.statement.encode().hex()
    body = kinds.RunOpen(
        run=run_id(core.machine, statement),
        name=spec.name,
        spec=text,
        statement=statement,
        repo=repo,
        base=str(call.args.get("base", "")),
        values=orders.given_inputs(spec, call.args.get("values", {})),
        key=_key(call.options.get("key")),
    )
    _check_fits(spec, body)
    known = _keyed(core, body) if body.key else None
    if known is None and not body.key and not call.options.get("again"):
        known = _running(core, body)
    answer = {"owner": core.name, **({"key": body.key} if body.key else {})}
    if known is not None:
        return {"run": known, "fresh": False, **answer}
    core.work.running.open(body, call.cites, call.actor)
    return {"run": body.run, "fresh": True, **answer}


def _check_fits(spec: Spec, body: kinds.RunOpen) -> None:
    """Raises: Refused where the run or one of its tasks would not fit into an entry."""
    if (body.base or spec.base) and not body.repo:
        raise Refused(f"the spec {spec.name} works in no repository; leave the base out")
    size = len(kinds.body_bytes(body))
    if size > BODY_BYTES_MAX:
        raise Refused(
            f"the spec and what the run is given take {size} bytes together, at most "
            f"{BODY_BYTES_MAX}; put long texts into files of the repository"
        )
    # Without values it was looked at when the spec was checked.
    for name in spec.phases if body.values else ():
        if not spec.phases[name].by_human and (
            refusal := orders.opening_refusal(spec, name, body.values)
        ):
            raise Refused(f"phase {name} with what the run is given {refusal}")


def _key(given: object) -> str:
    key = str(given or "")
    if len(key) > KEY_CHARS_MAX:
        raise Malformed(f"a key has at most {KEY_CHARS_MAX} characters, this one {len(key)}")
    return key


# What makes two runs one, and what people call it.
_SAME: Final = {"spec": "spec", "repo": "repository", "base": "base", "values": "values"}


def _differs(one: kinds.RunOpen, other: kinds.RunOpen) -> list[str]:
    return [word for name, word in _SAME.items() if getattr(one, name) != getattr(other, name)]


def _running(core: Core, body: kinds.RunOpen) -> str | None:
    """The open run of this very order: handing it in twice in error is one run."""
    for run in core.work.running.runs.values():
        if not _differs(run.body, body):
            return run.run
    return None


def _keyed(core: Core, body: kinds.RunOpen) -> str | None:
    """The run of ours that was handed in under this key, settled or not.

    Raises: Conflict where that one was ordered with something else.
    """
    for row in core.store.rows("run", writer=core.machine, dedupe=f"key:{body.key}"):
        entry = core.store.entry(EntryId(_blob(row["opened"])))
        if entry is None:
            continue
        if differs := _differs(body_as(entry, kinds.RunOpen), body):
            raise Conflict(
                f"the key {shown(body.key)} is that of run {str(row['run'])[:12]}, which was "
                f"ordered with another {' and '.join(differs)}: take another key"
            )
        return str(row["run"])
    return None


def fleet(core: Core) -> route.Fleet:
    """What a spec is checked against: as routing and place_of would find it."""
    now_ms, roster = core.now.wall_ms, core.roster
    kept = {
        name
        for machine, facts in roster.facts.items()
        if machine in roster.machines
        for name in facts.repositories
        # The same question that decides where a task's repository is fetched from.
        if machine == core.machine or roster.keeper(name, now_ms) is not None
    }
    machines = tuple(core.standing.candidate(m) for m in roster.machines if m in roster.facts)
    return route.Fleet(machines, frozenset(kept))


def submit(core: Core, call: Call) -> Any:
    """Single tasks, each with the statement that orders exactly it.

    With `wait` the answer comes when all are settled, with each one's outcome.
    """
    items = call.args.get("tasks")
    if not isinstance(items, list) or not 0 < len(items) <= TASKS_SUBMIT_MAX:
        raise Malformed(
            f"`tasks` is a list of 1 to {TASKS_SUBMIT_MAX} of "
            "{task, template, repo, base, statement}"
        )
    ordered = [_order(core, item) for item in items]
    _refuse_known(core, [order.body.task for order in ordered])
    _refuse_other_content(core, [order.body for order in ordered if order.body.key])
    if call.args.get("wait"):
        core.router.check_streaming(call)
    done = core.work.owning.submit(ordered)
    answer = {"tasks": [{"task": d.task, "fresh": d.fresh} for d in done]}
    if not call.args.get("wait"):
        return answer
    # Under a key that was used before there is a task already, and it may be over.
    known = [core.work.owning.ended(d.task) for d in done if not d.fresh]
    over = {end.task: end for end in known if end is not None}
    left = [d.task for d in done if d.task not in over]
    if not left:
        return {**answer, "ends": _ends(over.values())}

    def tell(ends: list[Settled]) -> None:
        core.router.open.pop((call.link, call.channel), None)
        call.end({**answer, "ends": _ends([*over.values(), *ends])})

    stop = core.work.when_settled(left, tell)
    core.router.streaming(call, stop)
    return LATER


def _ends(ends: Iterable[Settled]) -> list[dict[str, Any]]:
    return [
        {"task": e.task, "outcome": e.outcome, "summary": e.summary, "commit": e.commit,
         "values": e.values}
        for e in ends
    ]  # fmt: skip


class _Item(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One task of `submit`. What the statement does not sign is bounded here."""

    task: kinds.TaskWord
    template: dict[str, Any]
    statement: str
    repo: str = ""
    base: str = ""
    key: Annotated[str, msgspec.Meta(max_length=KEY_CHARS_MAX)] = ""
    priority: Annotated[int, msgspec.Meta(ge=-TASK_PRIORITY_MAX, le=TASK_PRIORITY_MAX)] = 0
    retries: Annotated[int, msgspec.Meta(ge=0, le=RETRIES_MAX)] = 0


def _order(core: Core, raw: Any) -> Order:
    try:
        item = msgspec.convert(raw, _Item)
    except msgspec.ValidationError as error:
        raise Malformed(f"a task to submit cannot be read: {error}") from error
    body = kinds.TaskOpen(
        task=item.task,
        template=item.template,
        repo=item.repo,
        base=item.base,
        statement=item.statement.encode().hex(),
        key=item.key,
        priority=item.priority,
        retries=item.retries,
    )
    order = open_statement(item.statement.encode(), core.standing.fleet)
    # A task's order is spent by its opening, which may be among what is not known of our past.
    core.doubt.check(order)
    check_order(order, verb="task", object=body.task, machine=core.machine,
                args=task_args(body), now_ms=core.now.wall_ms)  # fmt: skip
    core.roster.permit(order, core.now.wall_ms)
    actor = f"op:{core.roster.speaker(order.operator)}"
    return Order(body, order.operator, actor=actor, again=True)


def _refuse_known(core: Core, tasks: list[str]) -> None:
    """Raises: Conflict where one was ordered of us before. One question for all: a hot path.

    That another machine wrote the same id says nothing: whoever hears of one can write it.
    """
    found = core.store.query(
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
            own = core.store.rows("task", writer=core.machine, dedupe=f"key:{body.key}")
            entry = core.store.entry(EntryId(_blob(own[0]["opened"]))) if own else None
            known[body.key] = task_args(body_as(entry, kinds.TaskOpen) if entry else body)
        if task_args(body) != known[body.key]:
            raise Conflict(
                f"the key {shown(body.key)} is that of a task with another content: take another"
            )


def cancel(core: Core, call: Call) -> Any:
    """Stop a task or a whole run: one of ours, or one whose owner cannot be asked."""
    what, reason = (
        str(call.args["what"]),
        str(call.args.get("reason") or f"{call.actor} cancelled it"),
    )
    found = [r for r in core.work.running.runs if r.startswith(what)]
    if len(found) == 1 and len(what) >= 4:
        core.work.running.cancel(found[0], reason)
        return {"run": found[0], "cancelled": True}
    known = whose(core, what)
    if known.machine != core.machine and not known.there and known.open:
        return _leave_word(core, call, known)
    if known.what == "run":
        raise _not_open(known)
    task = _open(core, what)
    core.work.owning.owner.cancel(task, reason, call.cites, core.now)
    return {"task": task, "cancelled": True}


def _leave_word(core: Core, call: Call, known: Meant) -> Any:
    """The order to end it, where its owner finds it, and where all others see it."""
    statement = open_statement(call.statement.encode(), core.standing.fleet)
    if statement.target != EVERY_MACHINE or call.args["what"] != known.id:
        raise Unreachable(
            f"{known.owner} owns {known.what} {known.id[:12]} and cannot be asked now; "
            "order it of the whole fleet, under its full id"
        )
    reason = str(call.args.get("reason") or "")
    if len(reason) > REASON_CHARS_MAX:
        raise Malformed(f"a reason has at most {REASON_CHARS_MAX} characters")
    endings = core.work.ownership.endings
    endings.write(str(known.id), reason, call.statement, call.cites[0], call.actor)
    return {known.what: known.id, "cancelled": True, "left_for": known.owner}


def _not_open(known: Meant) -> MusterError:
    """Why a run cannot be cancelled here."""
    run, owner = f"run {known.id[:12]}", known.owner
    if not known.open:
        return Conflict(f"{run} is {known.state} already; nothing was changed")
    return NotFound(f"{run} is owned by {owner}: say it there, with --on {owner}")


def retry(core: Core, call: Call) -> Any:
    """Try a task again that waits for its next try."""
    task = _open(core, str(call.args["task"]))
    if core.work.owning.owner.why(task).state == "leased":
        raise Conflict(f"task {task[:12]} is running: `muster cancel` ends it, if it should end")
    core.work.owning.owner.retry(task)
    return {"task": task}


def decide(core: Core, call: Call) -> Any:
    """A person's answer to a phase that waits for one."""
    task = _open(core, str(call.args["task"]))
    approve = call.args.get("answer") == "yes"
    body = kinds.TaskDecide(
        task,
        "approve" if approve else "reject",
        call.statement.encode().hex(),
        str(call.args.get("note", ""))[:2000],
    )
    if core.work.owning.owner.why(task).state != "waiting":
        raise Conflict(f"task {task[:12]} does not wait for a person")
    entry = core.append("task.decide", kinds.body_bytes(body), cause=call.cites, actor=call.actor)
    core.work.owning.owner.decide(entry.id, body)
    return {"task": task, "answer": body.verdict}


def _open(core: Core, text: str) -> str:
    """The task of ours that is meant. Raises: NotFound, Conflict where it is settled already."""
    held = find_task(core, text)
    task = str(held.row["task"])
    if held.row["state"] not in LIVE:
        raise Conflict(f"task {task[:12]} is {held.row['state']} already; nothing was changed")
    if held.owner != core.machine:
        name = core.standing.name_of(held.owner)
        raise NotFound(f"task {task[:12]} is owned by {name}: say it there, with --on {name}")
    return task


def _blob(value: object) -> bytes:
    return value if isinstance(value, bytes) else b""
