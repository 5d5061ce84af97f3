"""Branches of settled phases: moved when an attempt is done, brought back when they are lost.

Rule 1: a branch moves only to a commit by the agent, and signed by the machine, that were given the
task; also when it is brought back.
Rule 2: whatever is begun here ends as exactly one event.
"""

from collections import Counter
from pathlib import Path
from typing import Final

from muster.agent import start_commit
from muster.errors import Conflict, Exhausted, MusterError, NotFound, Refused, Unreachable
from muster.git import prune, ref
from muster.git.cache import Origin
from muster.git.commit import Maker
from muster.git.fence import Epoch, attempt_ref
from muster.git.ref import Promotion
from muster.log.stream import MachineId
from muster.node.core import Core
from muster.node.runtime import AttemptTools
from muster.node.tasks.branches import BringBack, BroughtBack
from muster.task.instruction import MoveBranch, Promoted

# A second apart: longer than any race takes, shorter than a person's patience.
CONFLICTS_MAX: Final = 30


class Promotions:
    def __init__(self, effects: AttemptTools, core: Core) -> None:
        self.effects, self.core = effects, core
        # How often the branch of a task did not move because somebody else moved it.
        self._conflicts: Counter[str] = Counter()

    async def move(self, effect: MoveBranch) -> Promoted:
        """Promote an attempt's commit, or say why not."""
        reason, again = "", False
        try:
            path, url = self.effects.place_of(effect.repo)
            where = path or await self.effects.worktrees.refresh(Origin(effect.repo, url))
            promotion = await self._promotion(effect, where, url)
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

    def was_pruned(self, repo: str, branch: str) -> bool:
        """Whether a settled branch went by `muster repo prune`; only its keeper knows."""
        try:
            path, _ = self.effects.place_of(repo)
        except NotFound:
            return False
        return path is not None and prune.was_pruned(path, branch)

    async def bring_back(self, effect: BringBack) -> BroughtBack:
        """See that a settled branch stands; else its worker pushes the attempt once more."""
        move, reason, gone = effect.move, "", False
        try:
            path, _ = self.effects.place_of(move.repo)
            pruned = path is not None and prune.was_pruned(path, move.branch)
            if path and not pruned and not await ref.stands(path, move.branch, move.commit):
                gone = True
                # The fence, the attempt, the branch: as they were.
                epoch = Epoch(*move.epoch)
                await ref.register(path, move.task, epoch)
                if await ref.read(path, attempt_ref(move.task, epoch)) != move.commit:
                    await self._fetch_attempt(move, epoch)
                await ref.promote(path, await self._promotion(move, path, ""))
        except MusterError as error:
            reason = str(error)
        return BroughtBack(move.task, move.branch, move.repo, reason, gone)

    async def _fetch_attempt(self, move: MoveBranch, epoch: Epoch) -> None:
        """Have the worker that made it push it again. Raises: NotFound."""
        args = {"epoch": list(move.epoch), "task": move.task}
        if move.machine == self.core.machine:
            await self.push_again(move.repo, move.task, epoch, move.commit)
        elif await self.effects.ask(move.machine, "git.again", args) is None:
            name = self.core.membership.name_of(move.machine)
            raise NotFound(
                f"{name}, which made it, is away or has it no more; it is asked again when it "
                "is back, or run it again"
            )

    async def push_again(self, repo: str, task: str, epoch: Epoch, commit: str) -> None:
        """A commit that our cache still has, as the attempt's ref. Raises: NotFound without it."""
        _, url = self.effects.place_of(repo)
        store = self.effects.worktrees.cache_of(repo)
        if not (store / "HEAD").is_file() or not await ref.has(store, commit):
            raise NotFound(f"the cache of {repo} has the commit {commit[:12]} no more")
        name, where = attempt_ref(task, epoch), url or f"muster::{self.core.name}/{repo}"
        old = await ref.read_remote(store, where, name)
        if old != commit:
            await ref.swap_remote(store, where, name, old, commit)

    async def _promotion(self, move: MoveBranch, where: Path, url: str) -> Promotion:
        """What is to be moved, by whom it was made. Raises: Refused where nobody vouched for it."""
        membership, branch = self.core.membership, f"refs/heads/{move.branch}"
        name = membership.name_of(move.machine)
        old = await (ref.read_remote(where, url, branch) if url else ref.read(where, branch))
        base = move.bases[0] if move.bases else ""
        base = base or await start_commit.commit(where, url or str(where), move.repo, "")
        # Asked last: a shortage is waited out, a missing key is final.
        key = membership.key_of(MachineId(move.machine), "git")
        if key is None:
            raise Refused(f"machine {name} has no key to sign commits with: its work is not taken")
        maker = Maker(f"{move.agent}@{name}", name, key)
        place = (move.task, Epoch(*move.epoch), branch, move.commit, base, old, maker)
        return Promotion(*place, base_moves=not move.bases)
