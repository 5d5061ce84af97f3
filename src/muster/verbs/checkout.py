"""`muster diff` and `muster checkout`: what a run made, looked at and worked on before it lands.

Rule 1: nothing that is there is overwritten: neither a folder nor a branch.
Rule 2: people meet a run's work under a short name, `fix-login-1ae7c03d`; the branches that the
fleet keeps it on have their own names and do not change.
"""

import asyncio
import os
from pathlib import Path
from typing import Annotated, Final

from msgspec import Struct, field

from muster.errors import Conflict, MusterError, NotFound, Refused
from muster.git import command as git
from muster.git import landing, person, place, ref, removal
from muster.git.landing import Plan
from muster.git.person import Identity
from muster.git.place import Place
from muster.node.verb import Line
from muster.verbs.client import Context
from muster.verbs.declaration import Context as Inside
from muster.verbs.declaration import opt, verb
from muster.verbs.results import Chosen, OfResults, choose, fetched

_WORK: Final = "refs/landing/work"
# Whoever only looks needs no name; what is made so is thrown away.
_NOBODY: Final = Identity(*["muster <muster@localhost> 0 +0000"] * 2)


class Diff(OfResults, frozen=True):
    stat: Annotated[bool, opt("how much changed in which file")] = False
    name_only: Annotated[bool, opt("the names of the files alone")] = field(
        name="name-only", default=False
    )


class Difference(Struct, frozen=True):
    """What changed between two commits, as git says it."""

    run: str
    base: str
    commit: str
    diff: str


@verb("diff", auth="local", runs="client", group="Work", harmless=True)
def diff(context: Inside, ask: Diff) -> Difference | None:
    """Show what a run changed, against where it started.

    With the pager and the colours that git has.

        muster diff notes
        muster diff 1ae7 --phase write --stat
    """
    return asyncio.run(_diff(context, ask, choose(context, ask)))


async def _diff(context: Context, ask: Diff, chosen: Chosen) -> Difference | None:
    async with fetched(context, chosen) as folder:
        base = await _base(folder, chosen)
        commit = await _together(folder, chosen, base)
        how = [
            name
            for name, is_asked in (("--stat", ask.stat), ("--name-only", ask.name_only))
            if is_asked
        ]
        words = ["diff", *how, base, commit]
        if not context.json:
            await person.show(words, folder)
            return None
        text = (await git.run_async(words, folder)).out.decode("utf-8", "replace")
        return Difference(chosen.run.run, base, commit, text)


async def _base(folder: Path, chosen: Chosen) -> str:
    """The commit that the results started from."""
    to = Place(chosen.url)
    try:
        onto = await place.tip(folder, to, chosen.run.base or chosen.branch)
    except NotFound:
        # It started from a tag or a commit.
        onto = await place.tip(folder, to, chosen.branch)
    tips = [each.commit for each in chosen.results]
    if all([await ref.descends(folder, tip, onto) for tip in tips]):
        # Merged already: where it was before it was.
        walk = ["rev-list", "--first-parent", "--ancestry-path", f"{tips[0]}..{onto}"]
        above = (await git.run_async(walk, folder)).text.split()
        onto = f"{above[-1]}^1" if above else onto
    found = await git.run_async(["merge-base", "--octopus", onto, *tips], folder, codes=(0, 1))
    if found.code:
        raise Refused("The results have no history in common with the branch they started from.")
    return found.text


async def _together(folder: Path, chosen: Chosen, base: str, who: Identity = _NOBODY) -> str:
    """The commit that has all results: the only one, else a merge of them all."""
    ids = list(dict.fromkeys(each.commit for each in chosen.results))
    if len(ids) == 1:
        return ids[0]
    results = tuple(each.result for each in chosen.results)
    message = f"Merge {chosen.labels} of {chosen.run.short}"
    try:
        built = await landing.build(
            folder, base, Plan(chosen.run.run, results, results, "merge", message, who)
        )
    except landing.Unmergeable as error:
        sides = "; ".join(f"{e.path}: {', '.join((*e.there, *e.result))}" for e in error.clashes)
        raise Refused(
            f"the results of {chosen.run.short} conflict with each other ({sides}): take one of "
            "them with --phase"
        ) from error
    return built.commit


class Checkout(OfResults, frozen=True):
    to: Annotated[
        str, opt("the folder to make (default: beside where you stand)", kind="place")
    ] = ""


class CheckedOut(Struct, frozen=True):
    """A folder with the work, on a local branch."""

    run: str
    folder: str
    branch: str
    commit: str
    worktree: bool


@verb(
    "checkout", auth="local", runs="client", group="Work", harmless=True,
    says=(Line("{folder} has it, on the branch {branch} ({commit:id})"),
          Line("it is a worktree of the clone you stand in: `git worktree remove {folder}` ends it",
               "worktree")),
)  # fmt: skip
def checkout(context: Inside, ask: Checkout) -> CheckedOut:
    """Put what a run made into a folder of its own, on a branch with a short name.

    Inside a clone of the repository that is a git worktree of it, elsewhere a clone.

        muster checkout notes
        muster checkout 1ae7 --phase write --to ~/src/try
    """
    return asyncio.run(_checkout(context, ask, choose(context, ask)))


async def _checkout(context: Context, ask: Checkout, chosen: Chosen) -> CheckedOut:
    branch = "-".join([chosen.run.short, *ask.phase])
    async with fetched(context, chosen) as folder:
        ids = [each.commit for each in chosen.results]
        several = len(set(ids)) > 1
        who = await person.identity(Path.cwd()) if several else _NOBODY
        base = await _base(folder, chosen) if several else ""
        commit = await _together(folder, chosen, base, who)
        await git.run_async(["update-ref", _WORK, commit], folder)
        clone = await _clone_here(folder, commit)
        to = _free(ask.to, clone, f"{chosen.run.repo}-{branch}", branch)
        if clone:
            await _worktree(folder, clone, to, branch)
        else:
            here = context.ask("status", {})["name"]
            # A folder of another machine is nothing to us, or something else.
            is_far = bool(chosen.folder) and chosen.keeper != here
            source = chosen.url if is_far else chosen.origin or chosen.url
            await _clone(folder, source, to, branch)
    return CheckedOut(chosen.run.run, str(to), branch, commit, clone is not None)


def _free(wanted: str, clone: Path | None, name: str, branch: str) -> Path:
    """The folder to make. Raises: Conflict where something is there."""
    beside = Path.cwd() / name if clone is None else clone.with_name(f"{clone.name}-{branch}")
    to = Path(wanted) if wanted else beside
    if os.path.lexists(to):
        raise Conflict(f"{to} is there already, and nothing is overwritten: take another --to")
    return to


async def _clone_here(folder: Path, commit: str) -> Path | None:
    """The clone that the person stands in; None where it has another history."""
    here = Path.cwd()
    top = await person.run(["rev-parse", "--show-toplevel"], here, codes=(0, 128))
    if top.code or not top.text:
        return None
    roots = (await git.run_async(["rev-list", "--max-parents=0", commit], folder)).text.split()
    for root in roots:
        there = ["cat-file", "-e", f"{root}^{{commit}}"]
        if (await person.run(there, here, codes=(0, 1, 128))).code == 0:
            # Folders are made beside its first work tree, not beside linked ones.
            listed = await person.run(["worktree", "list", "--porcelain"], here)
            return Path(listed.text.partition("\n")[0].removeprefix("worktree "))
    return None


async def _worktree(folder: Path, clone: Path, to: Path, branch: str) -> None:
    if await ref.read(clone, f"refs/heads/{branch}"):
        raise Conflict(f"{clone} has a branch {branch} already: `git switch {branch}` takes it")
    await _take(folder, clone, branch)
    try:
        await person.run(["worktree", "add", "-q", str(to), branch], clone)
    except MusterError:
        await person.run(["branch", "-q", "-D", branch], clone, codes=range(256))
        raise


async def _clone(folder: Path, source: str, to: Path, branch: str) -> None:
    made = False
    try:
        await person.run(["clone", "-q", "--no-checkout", "--", source, str(to)], Path.cwd())
        made = True
        await _take(folder, to, branch)
        await person.run(["switch", "-q", branch], to)
    except MusterError:
        if made:
            await removal.remove(to)
        raise


async def _take(folder: Path, clone: Path, branch: str) -> None:
    fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    await person.run([*fetch, str(folder), f"{_WORK}:refs/heads/{branch}"], clone)
