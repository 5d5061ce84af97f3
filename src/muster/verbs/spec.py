"""Verbs about specs: everything that is wrong with one, with line and column, and their schema.

Rule: what the text alone tells needs no daemon and no fleet; only whether a machine meets the needs
of a phase is asked of the daemon, and where none runs the answer says that it was not asked.
"""

from typing import Annotated, Any

from msgspec import UNSET, Struct, UnsetType

from muster.agent import start_commit
from muster.errors import NotFound
from muster.node.tasks.keepers import Keepers
from muster.node.verb import Line
from muster.task import check as checks
from muster.task import schema as specs
from muster.task.route import Fleet
from muster.verbs.agent import advice
from muster.verbs.declaration import (
    Call,
    Context,
    Core,
    Daemon,
    Nothing,
    Perform,
    Request,
    opt,
    pos,
    verb,
)


class Check(Request, frozen=True):
    spec: Annotated[str, pos("the spec file, - for standard input", kind="file")]
    repo: Annotated[
        str, opt("the repository that `muster run --repo` would name", kind="repository")
    ] = ""
    alone: Annotated[bool, opt("check the file only, not whether a machine meets its needs")] = (
        False
    )


class Problem(Struct, frozen=True):
    line: int
    column: int
    path: str
    text: str
    warning: bool


class Checked(Struct, frozen=True, kw_only=True):
    """`compared`: its needs were held against machines. What a spec says, where it can be read."""

    compared: bool
    problems: list[Problem]
    name: str | UnsetType = UNSET
    phases: int | UnsetType = UNSET
    repo: str | UnsetType = UNSET
    base: str | UnsetType = UNSET
    pushes: list[str] | UnsetType = UNSET
    base_at: tuple[int, int] | UnsetType = UNSET


@verb("check", auth="local", group="Work", harmless=True, steps=True,
      then=(Line("`muster run` with the same file runs it.", "compared !problems"),))  # fmt: skip
def check(core: Core, call: Call, ask: Check) -> Checked:
    """Say what is wrong with a spec, with line and column.

    muster check notes.yaml
    """
    return problems(ask.spec, None if ask.alone else fleet(core), ask.repo)


def problems(text: str, fleet: Fleet | None = None, repo: str = "") -> Checked:
    """The problems of a spec."""
    report = checks.check(text.encode(), fleet, repo=repo)
    spec = report.spec
    return Checked(
        compared=fleet is not None,
        problems=[
            Problem(each.line, each.column, each.path, each.sentence, each.warning)
            for each in report.problems
        ],
        name=spec.name if spec else UNSET,
        phases=len(spec.phases) if spec else UNSET,
        repo=repo or spec.repo or "" if spec else UNSET,
        base=spec.base or "" if spec else UNSET,
        pushes=list(spec.pushes) if spec and spec.pushes else UNSET,
        base_at=report.base_at if spec else UNSET,
    )


def fleet(core: Core) -> Fleet:
    """What a spec is checked against: as routing and place_of would find it."""
    roster, keepers = core.roster, core.part(Keepers)
    kept = {
        name
        for machine, facts in roster.facts.items()
        if machine in roster.machines
        for name in facts.repositories
        # The same question that decides where a task's repository is fetched from.
        if machine == core.machine or keepers.keeper(name) is not None
    }
    machines = tuple(core.membership.candidate(m) for m in roster.machines if m in roster.facts)
    return Fleet(machines, frozenset(kept), advice())


class Base(Request, frozen=True):
    repo: Annotated[str, pos("the repository")]
    base: Annotated[str, opt("a branch or a commit")] = ""
    before: Annotated[bool, opt("also the commit before it")] = False
    kept: Annotated[bool, opt("only as it is kept here, without a look at its origin")] = False


class Commit(Struct, frozen=True):
    """`before`: its first parent, "" where it is the first one."""

    commit: str
    before: str | UnsetType = UNSET


@verb("check.base", auth="local", runs="async")
async def base(daemon: Daemon, call: Perform, ask: Base) -> Commit:
    """The commit that a run would start from.

    Raises: NotFound where there is no such branch or commit, Unreachable without the repository.
    """
    effects = daemon.effects
    try:
        where, commit = await effects.start_of(ask.repo, ask.base)
    except NotFound:
        if ask.kept:
            raise
        # The origin may have it since today.
        await effects.fresh(ask.repo)
        where, commit = await effects.start_of(ask.repo, ask.base)
    return Commit(commit, await start_commit.parent(where, commit) if ask.before else UNSET)


@verb("schema", auth="local", runs="client", group="What is true", harmless=True)
def schema(context: Context, ask: Nothing) -> dict[str, Any]:
    """Print the JSON Schema of specs, for editors.

    muster schema > muster.schema.json
    """
    return specs.schema()
