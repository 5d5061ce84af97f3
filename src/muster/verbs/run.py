"""Verbs about runs: hand one in, show all of them, and one with its graph."""

from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Any, Final

from msgspec import UNSET, Struct, UnsetType
from msgspec.structs import replace

from muster.errors import Denied, Malformed, MusterError, Refused
from muster.fleet.statement import open_statement
from muster.limits import BODY_BYTES_MAX, KEY_CHARS_MAX, RUN_TASKS_MAX
from muster.log.fold import Skip, body_as, body_or_none
from muster.node.services.presence import presence
from muster.node.tasks import unenclosed
from muster.node.tasks.actor import HandedOn, handed_on, said
from muster.node.tasks.kept import check_kept, is_done, kept_of
from muster.node.tasks.one_run import Again, again
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.runs import RunService
from muster.node.verb import Turns
from muster.task import check as checks
from muster.task import kinds, review
from muster.task import template as orders
from muster.task.budget import amount_of
from muster.task.fold import RUN, TASK, RunRow, TaskRow
from muster.task.graph import SETTLED, Fact, PhaseProgress, Slot, plan
from muster.task.identity import run_id
from muster.task.precedence import rounds_of
from muster.task.spec import Spec, read
from muster.task.state import why_of
from muster.verbs import peer_work
from muster.verbs.declaration import (
    Call,
    Core,
    Request,
    Words,
    data,
    opt,
    pos,
    verb,
)
from muster.verbs.find import Claim, claims, find_run, find_task
from muster.verbs.listing import LIMIT_MAX, Rows, say_cut
from muster.verbs.same_run import differs, keyed
from muster.verbs.spec import fleet
from muster.verbs.task import SHOWN_MAX, Task, task_view, waits_for

# Each is judged by the router against every machine; what keeps one keeps the others.
_WAITING_MAX: Final = 20


# --- handing in -------------------------------------------------------------------------------


class Run(Request, frozen=True):
    spec: Annotated[str, pos("the spec file, - for standard input", kind="file")]
    repo: Annotated[
        str, opt("take this repository instead of the one the spec names", kind="repository")
    ] = ""
    base: Annotated[
        str,
        opt("the branch or commit to start from, instead of the one the spec names", kind="branch"),
    ] = ""
    push: Annotated[
        str,
        opt(
            "for a spec with `on: push`: as if this branch had just been pushed",
            unsigned=True,
            kind="branch",
        ),
    ] = ""
    value: Annotated[
        Words, opt("NAME=TEXT for the spec's ${inputs.NAME}; give it several times")
    ] = ()
    # What the command makes of them, and signs.
    values: Annotated[dict[str, str], data()] = {}  # noqa: RUF012 - msgspec copies it
    # By phase the run that yielded it; `muster rerun` says so.
    kept: Annotated[dict[str, str], data()] = {}  # noqa: RUF012 - as above
    # In the place of every budget of the spec, and the run whose unfinished work goes on.
    budget: Annotated[dict[str, int], data()] = {}  # noqa: RUF012 - as above
    after: Annotated[str, data()] = ""
    key: Annotated[str, opt("an idempotency key: the same key is the same run", unsigned=True)] = ""
    again: Annotated[bool, opt("run although the same spec is still running", unsigned=True)] = (
        False
    )
    detach: Annotated[bool, opt("print the run's id and return", unsigned=True, short="d")] = False


class Begun(Struct, frozen=True):
    """The run, its owner, and its key where it has one; not `fresh`: it was there before."""

    run: str
    fresh: bool
    owner: str
    key: str | UnsetType = UNSET


@verb("run", auth="order", daily=True, group="Work", object="statement", target="hub",
      several="tells", steps=True, harmless=True)  # fmt: skip
def run(core: Core, call: Call, ask: Run) -> Begun:
    """Hand in a spec and follow it to its end.

    Whatever the run could not begin with is refused before anything is written.

        muster run notes.yaml
        muster run notes.yaml --repo main --value topic='the tests' --detach
        muster run notes.yaml --push main
    """
    text, repo = ask.spec, ask.repo
    spec = checks.admit(text.encode(), fleet(core), repo=repo, kept=ask.kept)
    if spec.name != call.object:
        raise Malformed(f"the order is for {call.object}, the spec is {spec.name}; sign it again")
    if spec.repo and not repo:
        raise Malformed(
            f"the spec works in repository {spec.repo}, the order in none; sign it anew"
        )
    if refusal := orders.push_refusal(spec, ask.base, ask.values):
        raise Malformed(refusal)
    if len(ask.key) > KEY_CHARS_MAX:
        raise Malformed(f"a key has at most {KEY_CHARS_MAX} characters, this one {len(ask.key)}")
    statement = call.statement.encode().hex()
    order = open_statement(call.statement.encode(), core.membership.fleet)
    if order.target != core.machine:
        raise Denied("a run is ordered of one machine, and this order is for every one")
    unenclosed.check_run(core, order, spec, ask.kept)
    body = kinds.RunOpen(
        run=run_id(core.machine, statement),
        name=spec.name,
        spec=text,
        statement=statement,
        repo=repo,
        base=ask.base,
        values=orders.given_inputs(spec, ask.values),
        key=ask.key,
        kept=ask.kept,
        budget=ask.budget,
        after=ask.after,
    )
    amount_of(ask.budget)
    _check_fits(spec, body)
    check_kept(core, spec, body)
    known = keyed(core, body) if body.key else None
    if known is None and not body.key and not ask.again:
        # Handing in the very order of an open run twice in error is one run.
        running = core.part(RunService).runs.values()
        known = next((each.run for each in running if not differs(each.body, body)), None)
    if known is None:
        core.part(RunService).open(body, call.cites, call.actor)
    return Begun(known or body.run, known is None, core.name, body.key or UNSET)


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
        order = orders.largest_order(spec, name, body.values)
        refusal = orders.size_refusal(spec, order, body.values)
        if refusal and not spec.phases[name].by_human:
            raise Refused(f"phase {name} with what the run is given {refusal}")


# --- showing ----------------------------------------------------------------------------------


class Runs(Request, frozen=True):
    run: Annotated[str, pos("one run, by the beginning of its id", kind="run")] = ""
    limit: Annotated[Rows, opt("show so many at most")] = None
    all: Annotated[bool, opt("show as many as a list may have", short="a")] = False
    follow: Annotated[bool, opt("show how they go on, until Ctrl-C", unsigned=True, short="f")] = (
        False
    )
    # Also how far each is, and who ordered it: what that costs a reader of thousands need not pay.
    more: Annotated[bool, data()] = False


class Phase(Struct, frozen=True):
    """`review`: the phase that it judges, where it judges one."""

    after: list[str]
    agent: list[str]
    human: bool
    review: str | UnsetType = UNSET


class Progress(Struct, frozen=True):
    state: str
    reason: str


class RunView(Struct, frozen=True, kw_only=True):
    """A run; with its graph where one is asked for, as far as its spec can be read here.

    `waits_for` is its owner where that is away: only its owner can go on with a run. `by` is who
    ordered it, `handed_on` which agent it was and what let it; `again` are runs that its owner
    began by the same order, which count for nothing; `done` phases of `total` are done.
    """

    run: str
    name: str
    state: str
    repo: str
    summary: str
    opened_ms: int
    changed_ms: int
    owner: str
    waits_for: str | UnsetType = UNSET
    by: str | UnsetType = UNSET
    handed_on: HandedOn | UnsetType = UNSET
    done: int | UnsetType = UNSET
    total: int | UnsetType = UNSET
    claims: list[Claim] | UnsetType = UNSET
    again: list[Again] | UnsetType = UNSET
    tasks: list[Task] | UnsetType = UNSET
    phases: dict[str, Phase] | UnsetType = UNSET
    progress: dict[str, Progress] | UnsetType = UNSET


@verb("runs", names="run", watches=("task", "run", "attempt", "work"), auth="local",
      group="Work", own="run", steps=True, harmless=True)  # fmt: skip
def runs(core: Core, call: Call, ask: Runs) -> Turns[list[RunView] | RunView]:
    """Runs, or one run with its graph.

    muster runs
    muster runs 1ae7
    muster runs --follow
    """
    if not ask.run:
        limit = ask.limit or (LIMIT_MAX if ask.all else SHOWN_MAX)
        found = yield from core.part(Ownership).listing(RUN, limit)
        if found.cut:
            say_cut(call, limit, "runs", "--limit or --all shows more")
        views = []
        for row in found.rows:
            views.append(_with_more(core, row) if ask.more else run_view(core, row))
            if ask.more:
                yield
        asked = [RunView(**each) for each in peer_work.views(core, limit)]
        return sorted([*views, *asked], key=lambda each: -each.opened_ms)[:limit]
    if (out := peer_work.meant(core, ask.run)) is not None:
        return RunView(**peer_work.view(core, out))
    held = find_run(core, ask.run)
    tasks = yield from tasks_of(core, held.row.run)
    queued = [at for at, each in enumerate(tasks) if each.state == "queued"]
    for at in queued[:_WAITING_MAX]:
        tasks[at] = replace(tasks[at], waits=waits_for(core, tasks[at].task)[0])
    if len(tasks) > LIMIT_MAX:
        say_cut(call, LIMIT_MAX, "tasks of this run", "an answer has no room for more")
    view = replace(
        run_view(core, held.row),
        handed_on=handed_on(core, held.row),
        claims=claims(core, RUN, held.row.run),
        again=again(core, held.owner, held.row.run) or UNSET,
        tasks=tasks[:LIMIT_MAX],
    )
    document = spec_of(core, held.row)
    if document is None:
        return view
    phases, progress = document.phases.items(), progress_of(core, view, tasks, document).items()
    return replace(
        view,
        phases={
            n: Phase(list(p.prerequisites), list(p.agents), p.by_human, p.review or UNSET)
            for n, p in phases
        },
        progress={name: Progress(each.state, each.reason) for name, each in progress},
    )


def _with_more(core: Core, row: RunRow) -> RunView:
    """A run with how far it is, and who ordered it."""
    view, entry = run_view(core, row), core.log.entry(row.opened)
    by = said(core, entry).name.removeprefix("op:") if entry is not None else ""
    spec = spec_of(core, row)
    if spec is None:
        return replace(view, by=by)
    return replace(view, by=by, done=_done(core, row, spec), total=len(spec.phases))


def _done(core: Core, row: RunRow, spec: Spec) -> int:
    """How many of its phases are done; its tasks are read only where nobody has counted them."""
    if row.run in core.part(RunService).runs:
        progress = core.part(RunService).progress(row.run)
        return sum(each.state == "done" for each in progress.values())
    if row.state == "done":
        return len(spec.phases)
    owner = row.stream.machine
    kept = kept_of(core.store, owner, row.run)
    return sum(n in kept or is_done(core.store, owner, row.run, spec, n) for n in spec.phases)


def tasks_of(core: Core, run: str) -> Turns[list[Task]]:
    """All tasks of a run and of the phases that it kept, in the order in which they were opened."""
    found = yield from core.part(Ownership).listing(TASK, RUN_TASKS_MAX, run=run)
    kept = list[TaskRow]()
    for phase, source in _kept(core, run).items():
        rows = yield from core.part(Ownership).listing(TASK, RUN_TASKS_MAX, run=source, phase=phase)
        kept += rows.rows
    return [task_view(core, row) for row in reversed([*found.rows, *kept])]


def _kept(core: Core, run: str) -> Mapping[str, str]:
    owner = core.part(Ownership).owner(RUN, run)
    return kept_of(core.store, owner, run) if owner is not None else {}


def spec_of(core: Core, row: RunRow) -> Spec | None:
    """What the run was ordered to do; None where that cannot be read here."""
    entry = core.log.entry(row.opened)
    try:
        return None if entry is None else _read(body_as(entry, kinds.RunOpen).spec)
    except (MusterError, Skip):
        return None


@lru_cache(maxsize=64)
def _read(text: str) -> Spec | None:
    return read(text.encode()).spec


def progress_of(
    core: Core, run: RunView, tasks: list[Task], spec: Spec
) -> Mapping[str, PhaseProgress]:
    """Where each phase stands and why; of a settled run, by what its tasks came to."""
    if run.run in core.part(RunService).runs:
        return core.part(RunService).progress(run.run)
    facts = dict[Slot, Fact]()
    matches = dict[str, list[str]]()
    for number, task in enumerate(tasks, 1):
        slot = Slot(task.phase, task.instance)
        rejected = ""
        if task.state == "done" and slot.phase in spec.phases and spec.phases[slot.phase].review:
            rejected = _rejected(core, task)
        state: Any = task.state
        why = why_of(state, task.reason, task.summary)
        facts[slot] = Fact(state, number, task.machine, rejected, why)
        matches.setdefault(slot.phase, []).append(slot.instance)
    cancelled = run.summary if run.state == "cancelled" else ""
    # The phase that could not be opened has no task that tells, but the end of its run does.
    # So has a later round of one that is reviewed.
    barred, began = {}, {task.phase for task in tasks} - rounds_of(spec).keys()
    for name in spec.phases.keys() - began:
        if run.summary.startswith(begins := f"phase {name} failed: "):
            barred = {name: run.summary.removeprefix(begins)}
    try:
        found = plan(spec, facts, matches, cancelled, barred=barred).phases
    except Malformed:
        return {}
    if run.state == "open":
        return found
    # It is over: nothing will begin any more, whatever could have.
    over = f"the run is {run.state}" + (f": {run.summary}" if run.summary else "")
    return {
        name: PhaseProgress("skipped", over) if each.state not in SETTLED else each
        for name, each in found.items()
    }


def _rejected(core: Core, task: Task) -> str:
    """Who rejected in this review, and why; "" where it accepted."""
    row = find_task(core, task.task).row
    body = body_or_none(core.log.entry(row.settled), kinds.TaskSettle)
    return review.rejected(body.values if body else {}, task.machine, task.agent)


def run_view(core: Core, row: RunRow) -> RunView:
    machine = row.stream.machine
    owner = core.membership.name_of(machine)
    left = row.state == "open" and machine != core.machine
    return RunView(
        **{name: getattr(row, name) for name in RunView.__struct_fields__[:7]},
        owner=owner,
        waits_for=owner if left and presence(core, machine) == "away" else UNSET,
    )
