"""Where a run starts: the commit that a branch, a tag, a commit's id or nothing at all names.

Rule 1: the remote is asked, never a cache: what a machine happens to have fetched decides nothing.
Rule 2: a name that is not there is refused with the names that are.
"""

from pathlib import Path
from typing import Final

from muster.errors import NotFound
from muster.git import command as git
from muster.git import repository
from muster.git.fence import BRANCH_PREFIX
from muster.task.problem import did_you_mean, shown

_BRANCHES: Final = "refs/heads/"
_TAGS: Final = "refs/tags/"
# More names than these nobody reads in one sentence.
_NAMES_MAX: Final = 8


async def commit(where: Path, url: str, name: str, base: str) -> str:
    """The commit of `base` in the repository `name` at `url`; without `base` the newest of its
    default branch. `where` is a repository that has what the remote has.

    Raises: NotFound when there is no such branch or commit, Unreachable without the remote.
    """
    if not base and url == str(where):
        # Our own repository is no remote: a look into it starts no server.
        return await repository.head(where)
    if not base:
        listed = await git.run_async(["ls-remote", "--end-of-options", url, "HEAD"], where)
        if not listed.text:
            raise NotFound(f"Repository {name!r} has no commit on its default branch; push one.")
        return git.object_id(listed.text.split("\t")[0], "The remote's HEAD")
    # The branches and the tags, each with its object.
    asked = ["ls-remote", "--refs", "--heads", "--tags", "--end-of-options", url]
    lines = (await git.run_async(asked, where)).text.splitlines()
    pairs = [(ref, id) for id, _, ref in (line.partition("\t") for line in lines)]
    refs = {ref.removeprefix(_BRANCHES): id for ref, id in pairs if ref.startswith(_BRANCHES)}
    tags = {ref.removeprefix(_TAGS): id for ref, id in pairs if ref.startswith(_TAGS)}
    if base in refs:
        return refs[base]
    if base in tags:
        # The commit that an annotated tag is about, and not the tag.
        asked = ["rev-parse", "--verify", "-q", f"{tags[base]}^{{commit}}"]
        found = await git.run_async(asked, where, codes=(0, 1, 128))
        if found.code:
            raise NotFound(f"The tag {shown(base)} of repository {name!r} is of no commit.")
        return git.object_id(found.text, f"The tag {base[:80]}")
    if len(base) in (40, 64) and not set(base) - set("0123456789abcdef"):
        there = ["cat-file", "-e", f"{base}^{{commit}}"]
        if (await git.run_async(there, where, codes=(0, 1, 128))).code == 0:
            return base
        raise NotFound(f"Repository {name!r} has no commit {base[:12]}; push the branch with it.")
    own = [
        branch for branch in refs if not branch.startswith(BRANCH_PREFIX.removeprefix(_BRANCHES))
    ]
    hint = did_you_mean(base, own) or f"; it has {', '.join(sorted(own)[:_NAMES_MAX]) or 'none'}"
    raise NotFound(f"Repository {name!r} has no branch {shown(base)}{hint}")


async def parent(where: Path, commit: str) -> str:
    """The commit before this one on its branch, "" where it is the first.

    Raises: Damaged and others where git could not tell: that is no answer.
    """
    asked = ["rev-parse", "--verify", "-q", f"{commit}^1"]
    found = await git.run_async(asked, where, codes=(0, 1))
    return git.object_id(found.text, "The commit before") if found.code == 0 else ""
