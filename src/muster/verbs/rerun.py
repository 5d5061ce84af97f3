"""The verb that runs a run again: all of it, or what did not succeed, or from one phase on.

Rule 1: a run is over for ever. To run again is another run, of the spec as it was stored, that an
operator orders; what it keeps of the earlier one is in that order.
Rule 2: here is only said what is to be ordered; the command signs it, and the owner looks again.
"""

from collections.abc import Iterable
from typing import Annotated

from msgspec import Struct, field, to_builtins

from muster.errors import Conflict, Malformed, NotFound, Refused
from muster.log.fold import body_or_none
from muster.node.verb import Turns
from muster.task import kinds
from muster.task.budget import parsed
from muster.task.fold import RunRow
from muster.task.precedence import prerequisites
from muster.task.spec import Spec, parse
from muster.verbs.declaration import Call, Core, Request, opt, pos, verb
from muster.verbs.find import find_run, find_task
from muster.verbs.run import progress_of, run_view, tasks_of
from muster.verbs.task import Task


class Rerun(Request, frozen=True):
    run: Annotated[str, pos("run: its id, or the name of its spec", kind="run")]
    failed: Annotated[bool, opt("keep what is done; run the other phases")] = False
    start: Annotated[str, opt("keep what is done; run this phase and all that come after it")] = (
        field(default="", name="from")
    )
    fresh_base: Annotated[
        bool, opt("with --failed or --from: start from where the base is now, not where it was")
    ] = field(default=False, name="fresh-base")
    budget: Annotated[
        str, opt("with --failed or --from: what that may use up, in the place of every budget")
    ] = ""
    detach: Annotated[bool, opt("print the run's id and return", unsigned=True, short="d")] = False


class Order(Struct, frozen=True):
    """What to sign as a `run`, and who owns what it keeps; `phases` are those that run."""

    name: str
    owner: str
    run: str
    spec: str
    repo: str
    base: str
    values: dict[str, str]
    kept: dict[str, str]
    phases: list[str]
    budget: dict[str, int] = {}
    after: str = ""


@verb("rerun", auth="local", group="Work", on="one", steps=True, harmless=True)
def rerun(core: Core, call: Call, ask: Rerun) -> Turns[Order]:
    """Run again what a run was ordered to do.

    It is a new run of the spec as it was stored, with the same inputs and repository. With --failed
    the phases that are done keep their results, and the others run; with --from also those run
    that come after this phase. Both go on from the commit that the first run started from; with
    --budget what ended at its budget goes on from what it had made by then.

        muster rerun 1ae7
        muster rerun nightly --failed
        muster rerun 1ae7 --from test --detach
        muster rerun 1ae7 --failed --budget usd=5.00
    """
    if ask.failed and ask.start:
        raise Malformed("--failed and --from say two things: give one of them")
    if ask.budget and not (ask.failed or ask.start):
        raise Malformed("--budget is for what goes on: give --failed or --from with it")
    more: dict[str, int] = to_builtins(parsed(ask.budget)) if ask.budget else {}
    row = find_run(core, ask.run).row
    if row.state == "open":
        short = row.run[:12]
        raise Conflict(
            f"run {short} goes on still, and a run is run again when it is over: `muster await "
            f"{short}` waits for that, `muster cancel {short}` ends it now"
        )
    body = body_or_none(core.log.entry(row.opened), kinds.RunOpen)
    if body is None:
        raise NotFound(f"what run {row.run[:12]} was ordered to do cannot be read here")
    part = bool(ask.failed or ask.start)
    kept, base, spec = dict[str, str](), body.base, parse(body.spec.encode())
    if part:
        tasks = yield from tasks_of(core, row.run)
        progress = progress_of(core, run_view(core, row), tasks, spec)
        done = {name for name, each in progress.items() if each.state == "done"}
        again = _whole(spec, done, _again(row, spec, done, ask.start))
        kept = {name: body.kept.get(name, row.run) for name in spec.phases if name in done - again}
        if not ask.fresh_base:
            base = _base_of(core, spec, tasks) or base
    owner = core.membership.name_of(row.stream.machine)
    runs = [name for name in spec.phases if name not in kept]
    after = row.run if more else ""
    held = (body.spec, body.repo, base, body.values, kept, runs, more, after)
    return Order(body.name, owner, row.run, *held)


def _again(row: RunRow, spec: Spec, done: set[str], start: str) -> set[str]:
    """The phases that run although they are done. Raises: NotFound, Refused."""
    if not start:
        if done == spec.phases.keys():
            short = row.run[:12]
            raise Refused(f"every phase of {short} is done: `muster rerun {short}` runs all again")
        return set()
    if start not in spec.phases:
        raise NotFound(
            f"run {row.run[:12]} has no phase {start[:80]!r}; it has {', '.join(spec.phases)}"
        )
    behind = prerequisites(spec)
    return {name for name in spec.phases if name == start or start in behind[name]}


def _whole(spec: Spec, done: set[str], again: set[str]) -> set[str]:
    """With every phase that is reviewed its reviewers, and what is behind them."""
    behind = prerequisites(spec)
    groups = [{judged, *names} for judged, names in spec.reviewers.items()]
    found: set[str] = set()
    while found != again:
        found = again
        touched = [group for group in groups if group & found or not group <= done]
        again = found.union(*touched)
        again |= {name for name in spec.phases if any(behind[name] & group for group in touched)}
    return again


def _base_of(core: Core, spec: Spec, tasks: Iterable[Task]) -> str:
    """The commit that the first phases started from, "" where that is not known."""
    for task in tasks:
        if not spec.phases[task.phase].prerequisites:
            held = find_task(core, task.task)
            opened = body_or_none(core.log.entry(held.row.opened), kinds.TaskOpen)
            if opened is not None:
                return opened.base
    return ""
