"""What a run ended on, phase by phase, and how a command brings that to where it is looked at.

Rule 1: only the settlements of the run's owner count, as for the phases that come after them.
Rule 2: what is meant is what the last phases ended on; one without a commit, such as a person's
decision, stands for what came before it.
Rule 3: a command takes exactly the commits that were settled, wherever the branches are now.
"""

import contextlib
import os
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, NamedTuple

from msgspec import Struct, convert

from muster.errors import Conflict, NotFound, Unreachable
from muster.git import command as git
from muster.git import person, ref, scratch
from muster.git.landing import Result
from muster.log.fold import body_or_none
from muster.node.tasks.kept import is_done
from muster.node.tasks.ownership import Ownership
from muster.node.tasks.results import Settlement, gathered
from muster.task import kinds
from muster.task.fold import TASK
from muster.task.identity import branch_of
from muster.task.precedence import in_order
from muster.task.problem import did_you_mean
from muster.task.spec import Spec, parse
from muster.task.template import phase_order
from muster.verbs.client import Context
from muster.verbs.declaration import Call, Core, Request, Words, opt, pos, verb
from muster.verbs.find import find_run

_SHORT: Final = 8
_RESULTS: Final = "refs/results/"


class OfResults(Request, frozen=True):
    """Of which run, and of which of its phases."""

    run: Annotated[str, pos("run, by its name or the beginning of its id", kind="run")]
    phase: Annotated[
        Words, opt("what this phase ended on, instead of the last ones; several times")
    ] = ()


class Ended(Struct, frozen=True):
    """What a phase, or one task of it, ended on; `last`: nothing with a commit comes after it.

    `check` is what its commit passed, "" where that needs values of other phases.
    """

    phase: str
    instance: str
    task: str
    commit: str
    branch: str
    machine: str
    agent: str
    summary: str
    check: str
    shell: str
    last: bool

    @property
    def label(self) -> str:
        return f"{self.phase}[{self.instance}]" if self.instance else self.phase

    @property
    def result(self) -> Result:
        return Result(self.label, self.commit, f"{self.agent}@{self.machine}")


class Results(Struct, frozen=True):
    """A run, and its results in the order of its phases."""

    run: str
    name: str
    state: str
    summary: str
    repo: str
    base: str
    phases: list[str]
    results: list[Ended]

    @property
    def short(self) -> str:
        """What people call the run, and branches that are made of it."""
        return f"{self.name}-{self.run[:_SHORT]}"


class OfRun(Request, frozen=True):
    run: Annotated[str, pos("run id", kind="run")]


@verb("run.results", auth="local")
def results(core: Core, call: Call, ask: OfRun) -> Results:
    """The commits that a run ended on, as its owner settled them."""
    held = find_run(core, ask.run)
    row = held.row
    body = body_or_none(core.log.entry(row.opened), kinds.RunOpen)
    if body is None:
        raise NotFound(f"what run {row.run[:12]} was ordered to do is not on this machine")
    spec = parse(body.spec.encode())
    order, reviewed = in_order(spec), spec.reviewers
    found = gathered(core.store, held.owner, row.run, order)
    found = {name: [each for each in found[name] if each.body.commit] for name in order}
    for name in reviewed.keys() & found.keys():
        # What nobody accepted is no result.
        runs = {each.run for each in found[name]}
        if not all(is_done(core.store, held.owner, run, spec, name) for run in runs):
            found[name] = []
    last = _last(spec, found)
    ended = [
        _ended(core, spec, name, each, last=name in last) for name in order for each in found[name]
    ]
    base = body.base or spec.base or ""
    state, summary = row.state, row.summary
    return Results(row.run, row.name, state, summary, row.repo, base, order, ended)


def _last(spec: Spec, found: Mapping[str, Sequence[Settlement]]) -> set[str]:
    """The phases with commits behind which no other phase has one."""
    after = {before for phase in spec.phases.values() for before in phase.prerequisites}
    last, seen, rest = set[str](), set[str](), [name for name in spec.phases if name not in after]
    while rest:
        name = rest.pop()
        if name in seen:
            continue
        seen.add(name)
        if found[name]:
            last.add(name)
        else:
            rest += spec.phases[name].prerequisites
    return last


def _ended(core: Core, spec: Spec, name: str, of: Settlement, *, last: bool) -> Ended:
    task = core.part(Ownership).held(TASK, of.body.task)
    order = phase_order(spec, name, of.instance)
    check = str(order.get("check") or "")
    return Ended(
        phase=name,
        # Nothing is said by the number of a racer or of a round: one of them counts.
        instance=of.instance if spec.phases[name].each is not None else "",
        task=of.body.task,
        commit=of.body.commit,
        branch=branch_of(of.run, name, of.instance),
        machine=core.membership.name_of(task.row.machine) if task else "",
        agent=task.row.agent if task else "",
        summary=of.body.summary,
        check="" if "${" in check else check,
        shell=str(order.get("shell") or "sh"),
        last=last,
    )


# --- inside the command -------------------------------------------------------------------------


class Chosen(NamedTuple):
    """The results that are meant, of those that the run has; where its repository is kept."""

    run: Results
    results: list[Ended]
    keeper: str
    branch: str
    """The repository's default branch."""
    origin: str
    """Where the repository follows what is there, "" where it follows nothing."""

    @property
    def url(self) -> str:
        return f"muster::{self.keeper}/{self.run.repo}"

    @property
    def folder(self) -> str:
        """The origin where that is a folder, which is one of the keeper's machine; else ""."""
        # Git takes `file://a/b` for the folder /a/b, too.
        path = self.origin.removeprefix("file:")
        return path if os.path.isabs(path) else ""

    @property
    def labels(self) -> str:
        return git.listed([each.label for each in self.results], 5)


def choose(context: Context, ask: OfResults) -> Chosen:
    """The results that are meant. Raises: NotFound, Conflict: there are none, or not yet."""
    run = convert(context.ask("run.results", {"run": ask.run}), Results)
    there = {each.phase for each in run.results}
    short = run.run[:12]
    for name in ask.phase:
        if name not in run.phases:
            raise NotFound(
                f"run {short} ({run.name}) has no phase {name[:60]!r}"
                f"{did_you_mean(name, run.phases) or '; it has ' + ', '.join(run.phases)}"
            )
        if name not in there:
            raise NotFound(
                f"phase {name} of run {short} has no commit: it is not done, or works in no "
                f"repository; `muster runs {short}` shows it"
            )
    if not ask.phase and run.state != "done":
        done = f"; `--phase` takes what is done: {', '.join(sorted(there))}" if there else ""
        if run.state == "open":
            raise Conflict(f"run {short} ({run.name}) is still going{done}")
        why = f" ({run.summary})" if run.summary else ""
        raise NotFound(f"run {short} ({run.name}) is {run.state}{why}{done}")
    found = [each for each in run.results if (each.phase in ask.phase if ask.phase else each.last)]
    if not run.repo or not found:
        raise NotFound(
            f"run {short} ({run.name}) ended without a commit: it "
            f"{'changed no' if run.repo else 'works in no'} repository; `muster fetch` brings the "
            "files that its tasks delivered"
        )
    about = context.ask("repo.origin", {"name": run.repo})
    if not about["branch"]:
        machines = context.ask("machines", {})
        if any(m["name"] == about["keeper"] and m["state"] == "away" for m in machines):
            raise Unreachable(
                f"{about['keeper']}, which keeps repository {run.repo}, is away; try again when "
                "it is back"
            )
        raise Unreachable(
            f"{about['keeper']}, which keeps repository {run.repo}, does not say where that is "
            "from: it may be of an older version; try again, or update it"
        )
    origin = str(about["origin"]) if about["follows"] else ""
    return Chosen(run, found, str(about["keeper"]), str(about["branch"]), origin)


@contextlib.asynccontextmanager
async def fetched(context: Context, chosen: Chosen) -> AsyncIterator[Path]:
    """A scratch repository that has all results of the run as far as they are there."""
    home, name = context.home, f"{chosen.run.repo}.git"
    lenders = [Path(home.repos) / name, home.repos_cache / name]
    if (mine := await person.repository_at(Path.cwd())) is not None:
        lenders.append(mine)
    async with scratch.opened(home.landing, lenders) as folder:
        await _fetch(folder, chosen)
        yield folder


async def _fetch(folder: Path, chosen: Chosen) -> None:
    fetch = ["fetch", "-q", "--no-tags", "--no-write-fetch-head", "--end-of-options", chosen.url]
    # What a rerun kept is where the run before it left it.
    runs = dict.fromkeys(each.branch.rpartition("/")[0] for each in chosen.run.results)
    wanted = [f"+refs/heads/{run}/*:{_RESULTS}{run}/*" for run in runs]
    await git.run_async([*fetch, *wanted], folder)
    gone = [each.label for each in chosen.results if not await ref.has(folder, each.commit)]
    if gone:
        raise NotFound(
            f"the branches of {git.listed(gone, 5)} are gone from repository {chosen.run.repo}: "
            "they were pruned, or `muster incidents` says how they were lost; "
            f"`muster rerun {chosen.run.short}` does the work again"
        )
