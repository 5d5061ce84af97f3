"""Mirrors on disk: copied from the machines that keep the repositories, and kept here one day.

Rule: whatever is begun here ends as exactly one event; which repositories are mirrored, and when,
the core says (node/tasks/keepers.py).
"""

import contextlib
from pathlib import Path
from typing import Final

from muster.errors import Conflict, MusterError, NotFound, Refused, Unreachable
from muster.git import mirror, ref, repository
from muster.git.fence import Epoch
from muster.log.stream import MachineId
from muster.node.attempts import question
from muster.node.runtime import Runtime
from muster.node.tasks.behind import Whole
from muster.node.tasks.keepers import Keepers, KeepMirror, Kept, MirrorsHere, Pulled, PullMirror

_MOVED: Final = "git.moved"


class Mirrors:
    """See the top of this file."""

    def __init__(self, daemon: Runtime, repos: Path, folder: Path) -> None:
        self._daemon, self._repos, self._folder = daemon, repos, folder

    def prepare(self) -> None:
        """Tell the core what is mirrored here."""
        found = mirror.listing(self._folder, self._repos)
        made = tuple(mirror.made_ms(self._folder, *each, self._repos) for each in found)
        self._daemon.post(MirrorsHere(found, made))

    def folders(self) -> list[Path]:
        """Where unfinished mirrors may lie, and the mirrors."""
        return [path for path in self._folder.glob("*") if path.is_dir()]

    async def pull(self, effect: PullMirror) -> Pulled:
        """Copy a repository as it is where it is kept."""
        machine, repo, reason = effect.machine, effect.repo, ""
        aside, whole = tuple[str, ...](), False
        core = self._daemon.core
        try:
            said = await question.ask(self._daemon, machine, "repo.about", {"name": repo})
            about = said.get("value") if said["ok"] else None
            if not isinstance(about, dict):
                name = core.membership.name_of(MachineId(machine))
                raise Unreachable(f"{name} does not say how repository {repo} stands")
            if not core.part(Keepers).wants(machine, repo):
                name = core.membership.name_of(MachineId(machine))
                raise Refused(f"{name} keeps repository {repo} no more: no grant says so now")
            time_ms = core.part(Keepers).time_ms(machine, repo)
            branch = str(about.get("branch", ""))
            url = f"muster::{core.membership.name_of(MachineId(machine))}/{repo}"
            if core.part(Keepers).kept_before(repo):
                path = repository.find(self._repos, repo)
                aside, whole = await mirror.follow(path, machine, url, branch, time_ms)
            else:
                await mirror.pull(self._folder, machine, repo, url, branch, time_ms)
        except MusterError as error:
            reason = str(error)
        return Pulled(machine, repo, reason, aside, whole)

    async def keep(self, effect: KeepMirror) -> Kept:
        """Make a mirror a repository of this machine, which tells that it has it."""
        reason, missing = "", list[str]()
        try:
            await mirror.keep(self._folder, effect.machine, effect.repo, self._repos)
            missing = await self._missing(effect.machine, effect.repo)
        except MusterError as error:
            reason = str(error)
        return Kept(effect.machine, effect.repo, reason, tuple(missing))

    async def _missing(self, machine: str, repo: str) -> list[str]:
        """What the log says was pushed and is not in a mirror; its fences rise to theirs."""
        path, found = repository.find(self._repos, repo), list[str]()
        for each in self._daemon.core.part(Keepers).behind.pushed(machine, repo):
            try:
                # The fence is higher already where this was copied, and more.
                with contextlib.suppress(Refused, Conflict):
                    await ref.register(path, each.task, Epoch(*each.epoch))
                there = await ref.has(path, each.commit)
            except MusterError:
                # An odd commit, or a git that fails, is named and keeps nobody from all the rest.
                there = False
            if not there:
                found.append(f"{each.branch} ({each.commit[:12]})")
        return found

    async def check_start(self, where: Path, repo: str, task: str) -> None:
        """Raises: NotFound where a task starts from what its repository's new keeper lacks."""
        keepers = self._daemon.core.part(Keepers)
        keeper = keepers.successor(repo)
        for commit in keepers.behind.starts(task) if keeper is not None else ():
            if keeper is not None and not await ref.has(where, commit):
                raise NotFound(
                    f"it starts from commit {commit[:12]}, which is not in repository {repo} since "
                    f"{keeper.name} goes on with an older copy of it: push it there, and it goes on"
                )

    def place_of(self, repo: str) -> tuple[Path | None, str]:
        """Where a repository is: our own folder, or the address of the machine that keeps it.

        Raises: NotFound.
        """
        keepers, missing = self._daemon.core.part(Keepers), None
        try:
            path = repository.find(self._repos, repo)
            if keepers.is_kept_here(repo, mirrored=bool(mirror.of(path))):
                return path, ""
        except NotFound as error:
            missing = error
        keeper = keepers.keeper(repo)
        if keeper is None:
            raise missing or NotFound(f"nobody keeps repository {repo} now; try again later")
        return None, f"muster::{keeper.name}/{repo}"

    async def _look_whole(self, repo: str) -> None:
        """Say so once all that was named as missing is in a repository."""
        machine = mirror.of(repository.find(self._repos, repo))
        if machine and not await self._missing(machine, repo):
            self._daemon.post(Whole(repo))

    def tell(self, repo: str) -> None:
        """Something moved in a repository that is kept here: who mirrors it pulls now."""
        core, daemon = self._daemon.core, self._daemon
        if core.part(Keepers).behind.names_missing(repo):
            daemon.supervisor.run("git-whole", self._look_whole(repo))
        for machine in sorted(core.part(Keepers).followers(repo)):
            if core.link_to(machine) is not None:
                told = daemon.effects.ask(machine, _MOVED, {"repo": repo})
                daemon.supervisor.run("git-moved", told)
