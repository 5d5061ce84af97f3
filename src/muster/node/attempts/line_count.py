"""The lines of a change, counted by the owner from git: nobody's word is taken for it.

Rule: what cannot be counted (it is out of reach, too large, or holds a repository of its own) is
told as that, and never as little.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from muster.errors import MusterError, Refused
from muster.git import command as git
from muster.node.tasks.waivers import CountLines, LinesCounted
from muster.task.waiver import lines_of

# (repository, commit) -> a repository that has the commit, and the commit; raises MusterError.
StartOf = Callable[[str, str], Awaitable[tuple[Path, str]]]

# Every change as text, whatever attributes say of a file, and without lines around it.
_PATCH: Final = (
    *("diff-tree", "-r", "-p", "-U0", "--text", "--no-renames", "--no-color"),
    *("--no-ext-diff", "--no-textconv", "--submodule=short"),
)


async def counted(start_of: StartOf, effect: CountLines) -> LinesCounted:
    """How many lines there are between where a run began and where its phases ended."""
    place, total = (effect.run, effect.phase), 0
    try:
        if not effect.commits:
            raise Refused("the phases before made no commit")
        if not effect.bases:
            raise Refused("it is not known at which commit the run began")
        for each in effect.commits.split():
            where, commit = await start_of(effect.repo, each)
            bases = effect.bases.split()
            total += max([await _between(where, base, commit, effect.most) for base in bases])
            if total > effect.most:
                break
    except MusterError as error:
        return LinesCounted(*place, None, str(error))
    return LinesCounted(*place, total)


async def _between(where: Path, base: str, commit: str, most: int) -> int:
    """The lines of a change since it left `base`. Raises: MusterError."""
    # It may have been left before, as by a change that began at an older run's commit.
    common = await git.run_async(["merge-base", base, commit], where, codes=(0, 1))
    if common.code:
        raise Refused("the change has no history in common with where it began")
    began = git.object_id(common.text, "Where the change began")
    patch = (await git.run_async([*_PATCH, began, commit], where)).out
    lines = await asyncio.to_thread(lines_of, patch, most)
    if lines is None:
        raise Refused("the change holds a repository of its own")
    return lines
