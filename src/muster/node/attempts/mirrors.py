"""Mirrors on disk: copied from the machines that keep the repositories, and kept here one day.

Rule: whatever is begun here ends as exactly one event; which repositories are mirrored, and when,
the core says (node/tasks/keepers.py).
"""

from pathlib import Path
from typing import Final

from muster.errors import MusterError, NotFound, Unreachable
from muster.git import mirror, repository
from muster.log.stream import MachineId
from muster.node.attempts import question
from muster.node.runtime import Runtime
from muster.node.tasks.keepers import Keepers, KeepMirror, Kept, MirrorsHere, Pulled, PullMirror

_MOVED: Final = "git.moved"


class Mirrors:
    """See the top of this file."""

    def __init__(self, daemon: Runtime, repos: Path, folder: Path) -> None:
        self._daemon, self._repos, self._folder = daemon, repos, folder

    def prepare(self) -> None:
        """Tell the core what is mirrored here."""
        self._daemon.post(MirrorsHere(mirror.listing(self._folder, self._repos)))

    def folders(self) -> list[Path]:
        """Where unfinished mirrors may lie, and the mirrors."""
        return [path for path in self._folder.glob("*") if path.is_dir()]

    async def pull(self, effect: PullMirror) -> Pulled:
        """Copy a repository as it is where it is kept."""
        machine, repo, reason = effect.machine, effect.repo, ""
        core = self._daemon.core
        try:
            said = await question.ask(self._daemon, machine, "repo.about", {"name": repo})
            about = said.get("value") if said["ok"] else None
            if not isinstance(about, dict):
                name = core.membership.name_of(MachineId(machine))
                raise Unreachable(f"{name} does not say how repository {repo} stands")
            branch = str(about.get("branch", ""))
            url = f"muster::{core.membership.name_of(MachineId(machine))}/{repo}"
            if core.part(Keepers).kept_before(repo):
                path = repository.find(self._repos, repo)
                await mirror.follow(path, machine, url, branch)
            else:
                await mirror.pull(self._folder, machine, repo, url, branch)
        except MusterError as error:
            reason = str(error)
        return Pulled(machine, repo, reason)

    async def keep(self, effect: KeepMirror) -> Kept:
        """Make a mirror a repository of this machine, which tells that it has it."""
        reason = ""
        try:
            mirror.keep(self._folder, effect.machine, effect.repo, self._repos)
        except MusterError as error:
            reason = str(error)
        return Kept(effect.machine, effect.repo, reason)

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

    def tell(self, repo: str) -> None:
        """Something moved in a repository that is kept here: who mirrors it pulls now."""
        core, daemon = self._daemon.core, self._daemon
        for machine in sorted(core.part(Keepers).followers(repo)):
            if core.link_to(machine) is not None:
                told = daemon.effects.ask(machine, _MOVED, {"repo": repo})
                daemon.supervisor.run("git-moved", told)
