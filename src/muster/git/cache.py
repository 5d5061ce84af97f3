"""The cache of a remote repository, and the commit an attempt starts from.

Rule 1: a cache is a bare repository that only Muster's git writes, one for each remote's name.
Rule 2: an attempt starts from every prerequisite's pushed commit. Several are merged here; a
        conflict is refused with the names of the phases and files, never left to the agent.
Rule 3: a cache is a copy: one that a power cut or a failing disk damaged is made anew, and no
        attempt fails for it. What attempts borrow from the old one stays until they have ended.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Broken, Malformed, NotFound, Refused, unable
from muster.git import bare, merge
from muster.git import command as git
from muster.git import commit as commits
from muster.git.fence import POST_PREFIX, Epoch

BRANCHES: Final = "refs/remote/"
BEFORE: Final = "before"
"""Where a cache keeps the objects of the damaged one that it replaced."""
ATTEMPTS: Final = "attempts"
"""Where a cache keeps what it knows of each open attempt's folder."""
HELD_PREFIX: Final = "refs/attempt/"
"""Where a cache holds what attempts start from, so that its maintenance cannot drop it."""

_FETCH: Final = ("fetch", "-q", "--prune", "--no-tags", "--no-recurse-submodules")
# What machines leave for each other is no work of anybody.
_REFSPECS: Final = (
    f"+refs/heads/*:{BRANCHES}*",
    f"^{POST_PREFIX}*",
    "+refs/tags/*:refs/tags/*",
)
# Fetched with everything else: another question would be another stream.
_REMOTE_HEAD: Final = "refs/remote-head"
_NO_HEAD: Final = "couldn't find remote ref HEAD"
_LABELS_MAX: Final = 8


class Origin(NamedTuple):
    """A repository's name and where it is."""

    name: str
    url: str


class Worktree(NamedTuple):
    """An open folder of one attempt."""

    origin: Origin
    task: str
    epoch: Epoch
    path: Path
    cache: Path
    base: str

    @property
    def notes(self) -> Path:
        """What is known of the files that were written into the folder."""
        return self.cache / ATTEMPTS / f"{self.task}-{self.epoch}"

    @property
    def gitdir(self) -> Path:
        """The agent's own `.git`; never read as a repository by us."""
        return self.path / ".git"

    @property
    def held(self) -> str:
        """The ref in the cache that holds what is worked on."""
        return f"{HELD_PREFIX}{self.task}/{self.epoch}"


class Base(NamedTuple):
    """One prerequisite: the phase it came from and the commit it ended with."""

    label: str
    commit: str


async def refresh(cache: Path, url: str) -> None:
    """Bring the cache up to date with the remote, and make it first where there is none.

    Raises Damaged where the copy cannot be read: `renew` makes another one.
    """
    bare.make(cache, bare.CONFIG)
    fetch = [*_FETCH, "--end-of-options", url, *_REFSPECS]
    async with bare.held(cache) as held:
        try:
            await git.run_async([*fetch, f"+HEAD:{_REMOTE_HEAD}"], cache, inherits=(held,))
        except NotFound as error:
            if _NO_HEAD not in str(error):
                raise
            # Nothing is on the default branch; what phases made may be there all the same.
            await git.run_async(["update-ref", "-d", _REMOTE_HEAD], cache)
            await git.run_async(fetch, cache, inherits=(held,))


async def sound(cache: Path) -> bool:
    """Whether everything in the cache can be read. Reads all of it."""
    try:
        await git.run_async(["fsck", "--no-dangling", "--no-progress"], cache)
    except (Broken, NotFound):
        return False
    return True


async def renew(cache: Path, url: str, aside: Path, *, borrowed: bool) -> None:
    """Put a fresh copy in the place of a damaged one, which is moved to `aside`.

    `borrowed`: attempts still read its objects, and may find there what the remote has not.
    """
    try:
        os.rename(cache, aside)
        bare.make(cache, bare.CONFIG)
        if (aside / ATTEMPTS).is_dir():
            os.rename(aside / ATTEMPTS, cache / ATTEMPTS)
    except OSError as error:
        raise unable(f"{cache} cannot be made anew: {error}; look who owns it.", error) from error
    await refresh(cache, url)
    if borrowed:
        os.rename(aside, cache / BEFORE)
        # Read what only the damaged one has; that one may have replaced another one in its time.
        lent, at = "", cache / BEFORE
        while (at / "objects").is_dir():
            lent += f"{(at / 'objects').resolve()}\n"
            (at / "objects" / "info" / "alternates").unlink(missing_ok=True)
            at /= BEFORE
        (cache / "objects" / "info" / "alternates").write_text(lent, encoding="utf-8")


def forget_before(cache: Path) -> Path | None:
    """Nobody borrows any more: what was kept of a damaged cache may go. Where it is."""
    if not (cache / BEFORE).exists():
        return None
    (cache / "objects" / "info" / "alternates").unlink(missing_ok=True)
    return cache / BEFORE


async def base(cache: Path, bases: Sequence[Base], signature: commits.Signature) -> str:
    """One commit that contains every prerequisite; the remote's head when there is none.

    The cache has just been refreshed.
    """
    if len(bases) > limits.GIT_BASES_MAX:
        raise Malformed(
            f"An attempt starts from {len(bases)} commits; {limits.GIT_BASES_MAX} is the most."
        )
    for each in bases:
        git.object_id(each.commit, f"The commit of {each.label!r}")
    if bases:
        distinct = {each.commit: each for each in reversed(bases)}
        return await _merged(cache, list(distinct.values())[::-1], signature)
    asked = ["rev-parse", "--verify", "-q", f"{_REMOTE_HEAD}^{{commit}}"]
    found = await git.run_async(asked, cache, codes=(0, 1))
    if found.code:
        raise Refused("The repository has no commit on its default branch yet; push one.")
    return git.object_id(found.text, "The remote's HEAD")


async def _merged(cache: Path, bases: list[Base], signature: commits.Signature) -> str:
    ids = [base.commit for base in bases]
    asked = "".join(f"{each}^{{commit}}\n" for each in ids).encode()
    found = await git.run_async(["cat-file", "--batch-check"], cache, stdin=asked)
    for base, answer in zip(bases, found.text.splitlines(), strict=True):
        if answer.endswith("missing"):
            raise NotFound(
                f"The commit {base.commit[:12]} of {base.label!r} is not on the remote; "
                "its branch must be pushed before a later phase starts."
            )
    # A prerequisite that another one already contains needs no merge.
    tips = (await git.run_async(["merge-base", "--independent", *ids], cache)).text.split()
    first, *others = [base for base in bases if base.commit in tips]
    if not others:
        return first.commit
    # One folder for all of them: two phases or two hundred, the files are written once.
    with tempfile.TemporaryDirectory(prefix="muster-merge-", dir=cache) as folder:
        scratch = Path(folder)
        bare.lend(scratch / ".git", [cache])
        await merge.stand_at(scratch, first.commit)
        merged, before = first.commit, [first.label]
        for other in others:
            await git.run_async(["update-ref", "--no-deref", "HEAD", merged], scratch)
            tree = await _merge(scratch, git.listed(before, _LABELS_MAX), other)
            # The objects are the scratch folder's; what is kept must be the cache's.
            for path in (scratch / ".git" / "objects").glob("??/*"):
                target = cache / "objects" / path.parent.name / path.name
                target.parent.mkdir(exist_ok=True)
                os.replace(path, target)
            message = f"Merge {other.label} into {git.listed(before, _LABELS_MAX)}"
            parents = [merged, other.commit]
            merged = await commits.write(cache, tree, parents, message, signature)
            before.append(other.label)
    return merged


async def _merge(scratch: Path, before: str, other: Base) -> str:
    """The tree of what lies in the folder merged with another commit."""
    done = await merge.into(scratch, other.commit)
    if not done.tree:
        raise Refused(
            f"The results of {before} and {other.label} conflict in "
            f"{git.listed(done.files, 5) or done.said}; let one phase come after the other."
        )
    return done.tree
