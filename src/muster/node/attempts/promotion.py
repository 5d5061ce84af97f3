"""Branches of settled phases: moved when an attempt is done, brought back when they are lost.

Rule 1: a branch moves only to a commit by the agent, and signed by the machine, that were given the
task; also when it is brought back.
Rule 2: whatever is begun here ends as exactly one event.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Protocol

from muster.agent import start_commit
from muster.errors import Conflict, Exhausted, MusterError, NotFound, Refused, Unreachable
from muster.git import ref
from muster.git.commit import Maker
from muster.git.fence import Epoch, attempt_ref
from muster.git.ref import Promotion
from muster.git.worktree import Worktrees
from muster.log.stream import MachineId
from muster.node.runtime import Runtime
from muster.node.tasks.branches import BroughtBack
from muster.task.instruction import MoveBranch, Promoted

# A second apart: longer than any race takes, shorter than a person's patience.
CONFLICTS_MAX: Final = 30


class Tools(Protocol):
    """What is needed of the daemon's hands."""

    daemon: Runtime
    worktrees: Worktrees

    def place_of(self, repo: str) -> tuple[Path | None, str]: ...

    async def scratch(self, name: str, url: str) -> Path: ...

    async def ask(self, machine: str, verb: str, args: Mapping[str, Any]) -> Any | None: ...


class Promotions:
    """See the rules at the top of this file."""

    def __init__(self, effects: Tools) -> None:
        self.effects = effects
        # How often the branch of a task did not move because somebody else moved it.
        self._conflicts: Counter[str] = Counter()

    async def move(self, effect: MoveBranch) -> Promoted:
        """Promote an attempt's commit, or say why not."""
        reason, again = "", False
        try:
            path, url = self.effects.place_of(effect.repo)
            where = path or await self.effects.scratch(effect.repo, url)
            branch = f"refs/heads/{effect.branch}"
            old = await (ref.read(where, branch) if path else ref.read_remote(where, url, branch))
            base = effect.bases[0] if effect.bases else ""
            base = base or await start_commit.commit(where, url or str(where), effect.repo, "")
            promotion = Promotion(
                effect.task, Epoch(*effect.epoch), branch, effect.commit, base, old,
                self._maker(effect.machine, effect.agent), base_moves=not effect.bases,
            )  # fmt: skip
            if path is not None:
                await ref.promote(path, promotion)
            else:
                await ref.promote_remote(where, url, promotion)
        except (Unreachable, Exhausted) as error:
            reason, again = str(error), True
        except Conflict as error:
            # Somebody moved the branch, and may again; but not for ever.
            reason, again = str(error), self._conflicts[effect.task] < CONFLICTS_MAX
            self._conflicts[effect.task] += 1
        except MusterError as error:
            reason = str(error)
        if not again:
            del self._conflicts[effect.task]
        return Promoted(effect.task, effect.epoch, effect.commit, reason, again)

    async def stands(self, repo: str, branch: str, commit: str) -> bool:
        """Whether a settled branch is there, as far as this machine can see it."""
        try:
            path, _ = self.effects.place_of(repo)
        except NotFound:
            return True
        return path is None or await ref.stands(path, branch, commit)

    async def bring_back(self, move: MoveBranch) -> BroughtBack:
        """See that a settled branch stands; else its worker pushes the attempt once more."""
        reason, gone = "", False
        try:
            path, _ = self.effects.place_of(move.repo)
            if path is not None and not await ref.stands(path, move.branch, move.commit):
                gone = True
                await self._mend(path, move)
        except MusterError as error:
            reason = str(error)
        return BroughtBack(move.task, move.branch, move.repo, reason, gone)

    async def _mend(self, path: Path, move: MoveBranch) -> None:
        """The fence, the attempt, the branch: as they were. Raises: why that cannot be."""
        epoch, branch = Epoch(*move.epoch), f"refs/heads/{move.branch}"
        await ref.register(path, move.task, epoch)
        if await ref.read(path, attempt_ref(move.task, epoch)) != move.commit:
            core = self.effects.daemon.core
            name = core.membership.name_of(move.machine)
            args = {"epoch": list(move.epoch), "task": move.task}
            if move.machine == core.machine:
                await self.push_again(move.repo, move.task, epoch, move.commit)
            elif await self.effects.ask(move.machine, "git.again", args) is None:
                raise NotFound(
                    f"{name}, which made it, is away or has it no more; it is asked again when it "
                    "is back, or run it again"
                )
        old = await ref.read(path, branch)
        base = (
            move.bases[0]
            if move.bases
            else await start_commit.commit(path, str(path), move.repo, "")
        )
        maker = self._maker(move.machine, move.agent)
        place = (move.task, epoch, branch, move.commit, base, old, maker)
        await ref.promote(path, Promotion(*place, base_moves=not move.bases))

    async def push_again(self, repo: str, task: str, epoch: Epoch, commit: str) -> None:
        """A commit that our cache still has, as the attempt's ref. Raises: NotFound without it."""
        _, url = self.effects.place_of(repo)
        store = self.effects.worktrees.cache_of(repo)
        if not (store / "HEAD").is_file() or not await ref.has(store, commit):
            raise NotFound(f"the cache of {repo} has the commit {commit[:12]} no more")
        name, where = (
            attempt_ref(task, epoch),
            url or f"muster::{self.effects.daemon.core.name}/{repo}",
        )
        old = await ref.read_remote(store, where, name)
        if old != commit:
            await ref.swap_remote(store, where, name, old, commit)

    def _maker(self, machine: str, agent: str) -> Maker:
        """Who must have made a commit. Raises: Refused where nobody vouched for that machine."""
        membership = self.effects.daemon.core.membership
        name, key = membership.name_of(machine), membership.key_of(MachineId(machine), "git")
        if key is None:
            raise Refused(f"machine {name} has no key to sign commits with: its work is not taken")
        return Maker(f"{agent}@{name}", name, key)
