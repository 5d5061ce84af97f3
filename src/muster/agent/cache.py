"""The cache of a remote repository, and the commit an attempt starts from.

Rule 1: a cache is a bare repository that only Muster's git writes, one for each remote's name.
Rule 2: an attempt starts from every prerequisite's pushed commit. Several are merged here; a
        conflict is refused with the names of the phases and files, never left to the agent.
"""

import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.agent import commit as commits
from muster.agent import git
from muster.errors import Malformed, NotFound, Refused, unable

_FETCH: Final = ("fetch", "-q", "--prune", "--no-tags", "--no-recurse-submodules")
_REFSPECS: Final = ("+refs/heads/*:refs/remote/*",)
_CONFIG: Final = "[core]\n\trepositoryformatversion = 0\n\tbare = true\n"


class Base(NamedTuple):
    """One prerequisite: the phase it came from and the commit it ended with."""

    label: str
    commit: str


async def refresh(cache: Path, url: str) -> None:
    """Bring the cache up to date with the remote, and make it first where there is none."""
    if not (cache / "HEAD").is_file():
        _bare(cache, _CONFIG)
    await git.run_async([*_FETCH, "--end-of-options", url, *_REFSPECS], cache)


async def base(cache: Path, url: str, bases: Sequence[Base], signature: commits.Signature) -> str:
    """One commit that contains every prerequisite; the remote's head when there is none."""
    wanted = _distinct(bases)
    return await _merged(cache, wanted, signature) if wanted else await _remote_head(cache, url)


def _distinct(bases: Sequence[Base]) -> list[Base]:
    if len(bases) > limits.GIT_BASES_MAX:
        raise Malformed(f"{len(bases)} prerequisites are more than {limits.GIT_BASES_MAX}.")
    for base in bases:
        git.object_id(base.commit, f"The commit of {base.label!r}")
    return list({base.commit: base for base in reversed(bases)}.values())[::-1]


async def _merged(cache: Path, bases: list[Base], signature: commits.Signature) -> str:
    for base in bases:
        found = await git.run_async(
            ["cat-file", "-e", f"{base.commit}^{{commit}}"], cache, codes=(0, 1, 128)
        )
        if found.code:
            raise NotFound(
                f"The commit {base.commit[:12]} of {base.label!r} is not on the remote; "
                "its branch must be pushed before a later phase starts."
            )
    ids = [base.commit for base in bases]
    # A prerequisite that another one already contains needs no merge.
    tips = (await git.run_async(["merge-base", "--independent", *ids], cache)).text.split()
    first, *others = [base for base in bases if base.commit in tips]
    merged = first.commit
    for number, other in enumerate(others, 1):
        before = ", ".join(base.label for base in [first, *others][:number])
        merged = await _merge(cache, merged, before, other, signature)
    return merged


async def _merge(
    cache: Path, ours: str, before: str, other: Base, signature: commits.Signature
) -> str:
    """A signed merge commit, made in a folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="muster-merge-", dir=cache) as folder:
        scratch = Path(folder)
        lend(scratch / ".git", cache)
        await git.run_async(["read-tree", "-u", "--reset", ours], scratch)
        await git.run_async(["update-ref", "--no-deref", "HEAD", ours], scratch)
        author = {
            f"GIT_{who}_{what}": text
            for who in ("AUTHOR", "COMMITTER")
            for what, text in (("NAME", "muster"), ("EMAIL", "muster@localhost"))
        }
        merge = ["merge", "-q", "--no-ff", "--no-commit", "--no-stat", "--no-verify-signatures"]
        done = await git.run_async([*merge, other.commit], scratch, env=author, codes=(0, 1, 2))
        if done.code:
            listed = await git.run_async(["diff", "--name-only", "--diff-filter=U"], scratch)
            files = ", ".join(git.clean(line) for line in listed.text.splitlines()[:5])
            raise Refused(
                f"The results of {before} and {other.label} conflict in "
                f"{files or git.reason(done.err)}; let one phase come after the other."
            )
        tree = (await git.run_async(["write-tree"], scratch)).text
        # The objects are the scratch folder's; what is kept must be the cache's.
        _move_objects(scratch, cache)
    message = f"Merge {other.label} into {before}"
    return await commits.write(cache, tree, [ours, other.commit], message, signature)


def _move_objects(scratch: Path, cache: Path) -> None:
    for path in (scratch / ".git" / "objects").glob("??/*"):
        target = cache / "objects" / path.parent.name / path.name
        target.parent.mkdir(exist_ok=True)
        os.replace(path, target)


async def _remote_head(cache: Path, url: str) -> str:
    listed = await git.run_async(["ls-remote", "--end-of-options", url, "HEAD"], cache)
    if not listed.text:
        raise NotFound("The repository has no commit on its default branch yet; push one.")
    return git.object_id(listed.text.split("\t")[0], "The remote's HEAD")


def _bare(path: Path, config: str) -> None:
    try:
        for part in ("objects/info", "objects/pack", "refs/heads", "info"):
            (path / part).mkdir(parents=True, exist_ok=True)
        (path / "config").write_text(config, encoding="utf-8")
        # Last, because a folder without HEAD is no repository and `sweep` removes it.
        (path / "HEAD").write_text("ref: refs/heads/main\n", encoding="ascii")
    except OSError as error:
        what = f"{path} cannot be written: {error}; free some disk space."
        raise unable(what, error) from error


def lend(gitdir: Path, cache: Path, more: str = "") -> None:
    """A repository of its own that borrows the cache's objects."""
    _bare(gitdir, _CONFIG.replace("true", "false") + more)
    lent = str((cache / "objects").resolve())
    (gitdir / "objects" / "info" / "alternates").write_text(f"{lent}\n", encoding="utf-8")
