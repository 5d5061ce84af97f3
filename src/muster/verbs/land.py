"""`muster land`: what a run made, on the branch that it is for.

Rule 1: it is built and checked where nobody looks, and moves in one step or not at all
(git/landing.py).
Rule 2: it lands where the repository is from; the fleet's copy then follows. A repository that
follows nothing has the fleet's copy alone.
Rule 3: everything is done by who typed it: their git, their name, their credentials, their machine.
"""

import asyncio
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from msgspec import Struct, field

from muster.errors import Malformed, MusterError, Refused
from muster.git import command as git
from muster.git import landing, person, place, pull_request
from muster.git.landing import Built, Plan, Unmergeable
from muster.git.place import NoBranch, Place
from muster.verbs import check_run
from muster.verbs.check_run import Check, CheckFailed
from muster.verbs.client import Context, Finding
from muster.verbs.declaration import Context as Inside
from muster.verbs.declaration import Words, opt, verb
from muster.verbs.results import Chosen, Ended, OfResults, choose, fetched

CONFLICT_EXIT: Final = 10
CHECK_FAILED_EXIT: Final = 11

Outcome = Literal["landed", "already", "tried", "requested", "conflict", "check-failed"]


class Land(OfResults, frozen=True):
    onto: Annotated[
        str, opt("the branch to land on, instead of the one the run started from", kind="branch")
    ] = ""
    squash: Annotated[bool, opt("as one commit (this is the default)")] = False
    rebase: Annotated[bool, opt("as its own commits, one after the other")] = False
    merge: Annotated[bool, opt("as a merge of its own commits")] = False
    check: Annotated[
        Words, opt("a command that must succeed on the merged files; give it several times")
    ] = ()
    no_check: Annotated[
        bool, opt("do not run the checks of the landed phases again on the merged files")
    ] = field(name="no-check", default=False)
    pr: Annotated[bool, opt("open a pull request instead, by gh or glab")] = False
    message: Annotated[str, opt("what the commit says, instead of what the phases said")] = ""
    dry_run: Annotated[bool, opt("build and check it, and move nothing")] = field(
        name="dry-run", default=False
    )


class Landed(Struct, frozen=True, kw_only=True):
    """What came of it: the branch, where that is, and the commit that it has now (or would have).

    `files` are those that conflict, each with both sides; `output` the end of what a check said.
    """

    outcome: Outcome
    run: str
    name: str
    repo: str
    branch: str
    where: str
    commit: str = ""
    phases: list[str] = []
    mode: landing.Mode = "squash"
    commits: int = 0
    changed: str = ""
    files: list[dict[str, Any]] = []
    check: str = ""
    output: str = ""
    request: str = ""
    next: str = ""


@verb("land", auth="local", runs="client", group="Work")
def land(context: Inside, ask: Land) -> Landed | Finding:
    """Land what a run made on a branch: squashed, rebased or merged, all of it or nothing.

    Onto the branch that the run started from, in the repository's origin where it follows one. What
    conflicts, and what a check fails on, is refused and changes nothing.

        muster land notes --dry-run
        muster land 1ae7 --onto main --rebase --check 'test -s report.txt'
        muster land 1ae7
        muster land 1ae7 --pr
    """
    given = [mode for mode in ("squash", "rebase", "merge") if getattr(ask, mode)]
    if len(given) > 1:
        raise Malformed(f"--{given[0]} and --{given[1]} are two ways to land: take one of them")
    mode: Any = given[0] if given else "squash"
    return asyncio.run(_Landing(context, ask, choose(context, ask), mode).run())


class _Landing:
    """One landing, on its way."""

    def __init__(self, context: Context, ask: Land, chosen: Chosen, mode: landing.Mode) -> None:
        self.context, self.ask, self.chosen, self.mode = context, ask, chosen, mode
        self.branch = ask.onto or chosen.run.base or chosen.branch

    async def run(self) -> Landed | Finding:
        ask, chosen = self.ask, self.chosen
        to = await self._place()
        request = await pull_request.of(to.address, chosen.run.short) if ask.pr else None
        who = await person.identity(Path.cwd())
        results = tuple(each.result for each in chosen.results)
        known = tuple(each.result for each in chosen.run.results)
        message = ask.message or _message(chosen)
        plan = Plan(chosen.run.run, results, known, self.mode, message, who)
        async with fetched(self.context, chosen) as folder:
            try:
                if ask.dry_run or request:
                    onto = await place.tip(folder, to, self.branch)
                    built = await landing.build(folder, onto, plan)
                    if built.parts:
                        await self._check(folder, built)
                else:
                    built = await landing.land(
                        folder, to, self.branch, plan, lambda built: self._check(folder, built)
                    )
            except Unmergeable as error:
                return Finding(self._conflict(error), CONFLICT_EXIT)
            except CheckFailed as error:
                failed = self._said("check-failed", check=error.command, output=error.output)
                return Finding(failed, CHECK_FAILED_EXIT)
            except NoBranch as error:
                if ask.onto or not chosen.run.base:
                    raise
                raise NoBranch(f"{error} `--onto` names the branch that it lands on.") from error
            except Refused as error:
                if "hook declined" in str(error) and chosen.origin:
                    hint = f"where {self.branch} is protected, --pr opens a pull request"
                    raise Refused(f"{error} {hint}") from error
                raise
            if not built.parts:
                return self._said("already", commit=built.commit)
            said = await self._told(folder, built)
            if ask.dry_run:
                return self._said("tried", **said)
            if request:
                url = await request.open(folder, to.address, self.branch, built.commit, message)
                return self._said("requested", request=url, **said)
        return self._said("landed", **said, next=self._follow(to))

    async def _place(self) -> Place:
        """Where it lands."""
        chosen, path = self.chosen, self.chosen.folder
        if not path:
            return Place(chosen.origin or chosen.url)
        here = self.context.ask("status", {})["name"]
        if chosen.keeper != here:
            raise Refused(
                f"repository {chosen.run.repo} follows the folder {path} on {chosen.keeper}, and "
                f"this is {here}: give the command there, or take the work with `muster checkout`"
            )
        return Place(path, Path(path))

    async def _check(self, folder: Path, built: Built) -> None:
        """What must hold before anything moves. Raises: CheckFailed, Refused."""
        checks = [Check(each) for each in self.ask.check]
        if not self.ask.no_check and not await self._is_checked(folder, built):
            parts = {part.commit for part in built.parts}
            again = [each for each in self.chosen.results if each.commit in parts and each.check]
            checks += [Check(each.check, each.shell) for each in again]
        for check in dict.fromkeys(checks):
            self.context.say(f"checking: {check.command}")
            await check_run.run(check, folder)

    async def _is_checked(self, folder: Path, built: Built) -> bool:
        """Whether the files are the very ones that the phase's own check saw."""
        asked = ["rev-parse", f"{built.commit}^{{tree}}"]
        asked += [f"{each.commit}^{{tree}}" for each in built.parts]
        tree, *seen = (await git.run_async(asked, folder)).text.split()
        return tree in seen

    async def _told(self, folder: Path, built: Built) -> dict[str, Any]:
        span = f"{built.onto}..{built.commit}"
        count = await git.run_async(["rev-list", "--count", span], folder)
        stat = await git.run_async(["diff", "--shortstat", built.onto, built.commit], folder)
        labels = [part.label for part in built.parts]
        return {
            "commit": built.commit, "commits": int(count.text), "changed": stat.text,
            "phases": labels,
        }  # fmt: skip

    def _follow(self, to: Place) -> str:
        """After it landed: the fleet's copy follows; what the person does to have it."""
        repo = self.chosen.run.repo
        if self.chosen.origin:
            try:
                found = self.context.ask("repo.sync", {"name": repo}, on=self.chosen.keeper)
                why = str(found[0]["error"])
            except MusterError as error:
                why = str(error)
            if why:
                return f"the fleet's copy is not there yet ({why}): `muster repo sync {repo}`"
        return "" if to.folder else "`git pull` brings it into a clone"

    def _where(self) -> str:
        return self.chosen.origin or f"the fleet's repository {self.chosen.run.repo}"

    def _conflict(self, error: Unmergeable) -> Landed:
        run = self.chosen.run
        files = [
            {"path": each.path, "there": list(each.there), "result": list(each.result)}
            for each in error.clashes
        ]
        next = by_hand(run.short, self.branch)
        return self._said("conflict", files=files, output="" if files else str(error), next=next)

    def _said(self, outcome: Outcome, **more: Any) -> Landed:
        run = self.chosen.run
        return Landed(
            outcome=outcome,
            run=run.run,
            name=run.name,
            repo=run.repo,
            branch=self.branch,
            where=self._where(),
            mode=self.mode,
            **{"phases": [each.label for each in self.chosen.results], **more},
        )


def by_hand(run: str, branch: str) -> str:
    """What a person does where a result conflicts; `run` is what its branches are called."""
    return (
        f"`muster checkout {run}` gives you the work on a branch: merge {branch} into it and push "
        f"that, or `muster rerun {run}` does the work again"
    )


def _message(chosen: Chosen) -> str:
    """What the run did, in the words of its agents: the phases that lead to what lands."""
    run = chosen.run
    lines = [_line(each) for each in run.results]
    return f"{run.name}: {chosen.labels}\n\n" + "\n".join(lines) + f"\n\nBy muster run {run.short}."


def _line(ended: Ended) -> str:
    said = git.clean(ended.summary.partition("\n")[0])[:200]
    return f"- {ended.label}: {said or 'done'} ({ended.agent} on {ended.machine})"
