"""What an attempt had made when its budget ended: kept as a commit, for whoever goes on with it.

Rule: it is looked at as a result is, for secrets and for what no sandbox lets be written; what
cannot go out is not kept, and keeps nobody from hearing why the attempt ended.
"""

import os
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple, Protocol

from muster.errors import MusterError
from muster.git.cache import Worktree
from muster.git.collection import Collected, collect
from muster.git.commit import Signature


class PathGuard(Protocol):
    """Who says which paths no result may change."""

    def forbidden(self, changed: Any) -> str:
        """Return why not, "" where it may."""


class Unfinished(NamedTuple):
    """See the top of this file. `told` says which secret a commit would tell, "" for none."""

    tree: Worktree
    message: str
    told: Callable[[Collected], str]
    guard: PathGuard

    async def kept(
        self, worktrees: Any, signature: Signature, patiently: Callable[..., Awaitable[Any]]
    ) -> str:
        """The commit, which is on the remote by then; "" where nothing is kept."""
        try:
            made = await patiently(lambda: collect(self.tree, [], self.message, signature))
            changed = map(os.fsdecode, made.all_changed)
            if not made.changed_count or self.told(made) or self.guard.forbidden(changed):
                return ""
            await patiently(lambda: worktrees.push(self.tree, made.commit))
        except MusterError:
            return ""
        return str(made.commit)
