"""A commit merged into what lies in a folder, or picked onto it: the tree, or what conflicts.

Rule 1: the folder is a repository of ours that nobody else looks at; what a conflict leaves in it
goes with it.
Rule 2: no commit is made here: whoever asked says who made it, and signs it.
Rule 3: files lie there byte for byte. An attribute that asks for other line ends (`text`, `ident`)
would make git take what it has just written for a change of somebody's, and refuse to merge.
"""

import re
from pathlib import Path
from typing import Final, NamedTuple

from muster.git import command as git

_OF_COMMIT: Final = re.compile(rb"~(?:HEAD|[0-9a-f]{40})(?:_\d+)?$")
# Git wants somebody for a merge that it is told not to commit.
_SOMEBODY: Final = {
    f"GIT_{who}_{what}": text
    for who in ("AUTHOR", "COMMITTER")
    for what, text in (("NAME", "muster"), ("EMAIL", "muster@localhost"))
}
_AS_IT_IS: Final = "* -text -ident -filter -working-tree-encoding\n"
_MERGE: Final = ("merge", "-q", "--no-ff", "--no-commit", "--no-stat", "--no-verify-signatures")
_PICK: Final = ("cherry-pick", "--no-commit")


class Outcome(NamedTuple):
    """The tree; or "", the files that conflict, and what git said where there are none."""

    tree: str
    files: tuple[bytes, ...] = ()
    said: str = ""


async def stand_at(folder: Path, commit: str) -> None:
    """The folder, its index and its HEAD are what this commit has."""
    (folder / ".git" / "info" / "attributes").write_text(_AS_IT_IS, encoding="utf-8")
    await git.run_async(["read-tree", "-u", "--reset", commit], folder)
    await git.run_async(["update-ref", "--no-deref", "HEAD", commit], folder)


async def into(folder: Path, commit: str) -> Outcome:
    """Merge a commit into the folder's HEAD."""
    return await _do([*_MERGE, commit], folder)


async def pick(folder: Path, commit: str) -> Outcome:
    """Do in the folder what a commit, which is no merge, did where it was made."""
    return await _do([*_PICK, commit], folder)


async def _do(args: list[str], folder: Path) -> Outcome:
    done = await git.run_async(args, folder, env=_SOMEBODY, codes=(0, 1, 2))
    if done.code:
        listed = await git.run_async(["diff", "-z", "--name-only", "--diff-filter=U"], folder)
        # Where a file meets a folder, git calls the file by its commit, too.
        names = [_OF_COMMIT.sub(b"", name) for name in listed.out.split(b"\0") if name]
        return Outcome("", tuple(dict.fromkeys(names)), git.reason(done.err))
    tree = (await git.run_async(["write-tree"], folder)).text
    # We make the commit: git must not take the next merge for a second half of this one.
    for left in (folder / ".git").glob("MERGE_*"):
        left.unlink()
    return Outcome(git.object_id(tree, "The merged tree"))
