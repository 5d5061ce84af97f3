"""How a ref moves: by compare-and-set, or not at all.

Rule 1: every move says what the ref must have been; when it was something else, nothing moves.
Rule 2: a promotion verifies the fence and the attempt in the transaction that moves the branch.
Rule 3: on a remote that is not ours, `git push --force-with-lease=<ref>:<old>` is the same
        compare-and-set; what came of it is read back, because "pushed" is what a pusher says.

Only owners call this. A hub owner's moves run on its own bare repository without hooks: the
checks the hooks make for pushes are made here, with the compare-and-set as the last word.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from muster.errors import Conflict, Damaged, NotFound, Refused
from muster.git import command as git
from muster.git import commit
from muster.git.fence import Epoch, attempt_ref, fence_bytes, fence_epoch, fence_ref


class Promotion(NamedTuple):
    """One settled attempt that becomes its phase's branch."""

    task: str
    epoch: Epoch
    branch: str
    commit: str
    base: str
    # The branch's commit as the owner last saw it; None when the branch is new.
    expected: str | None
    # Who was given the task: nobody else's commit counts. None where unsigned work is kept.
    maker: commit.Maker | None
    # The base is the newest commit of the default branch, which others push to while one works.
    base_moves: bool = False


async def read(repo: Path, ref: str) -> str | None:
    """The object a ref names; None when there is no such ref."""
    answer = await git.run_async(["rev-parse", "--verify", "-q", ref], repo, codes=(0, 1))
    return None if answer.code else git.object_id(answer.text, ref)


async def read_remote(cwd: Path, url: str, ref: str) -> str | None:
    """The object a remote's ref names; None when the remote has no such ref."""
    answer = await git.run_async(["ls-remote", "--refs", "--end-of-options", url, ref], cwd)
    for line in answer.text.splitlines():
        found, _, name = line.partition("\t")
        # A pattern also matches refs that merely end like it.
        if name == ref:
            return git.object_id(found, ref)
    return None


async def under(repo: Path, prefix: str) -> dict[str, str]:
    """The refs below a prefix, by their names without it, and the object of each."""
    asked = ["for-each-ref", "--format=%(objectname) %(refname)", prefix.removesuffix("/")]
    found = {}
    for line in (await git.run_async(asked, repo)).out.splitlines():
        id, _, name = line.partition(b" ")
        found[os.fsdecode(name).removeprefix(prefix)] = id.decode()
    return found


async def has(repo: Path, commit: str) -> bool:
    """Whether a commit and everything it leads to is in a repository."""
    git.object_id(commit, "The commit")
    walk = ["rev-list", "--objects", "--quiet", commit, "--not", "--all"]
    return (await git.run_async(walk, repo, codes=(0, 1, 128))).code == 0


async def stands(repo: Path, branch: str, commit: str) -> bool:
    """Whether a branch is at a commit, or at one after it."""
    top = await read(repo, f"refs/heads/{branch}")
    return top is not None and await descends(repo, commit, top)


async def epoch(repo: Path, task: str) -> Epoch | None:
    """The task's epoch in its fence; None when it has no fence yet."""
    found = await read(repo, fence_ref(task))
    return None if found is None else await _epoch_of(repo, found)


async def register(repo: Path, task: str, new: Epoch, url: str = "") -> None:
    """Raise a task's fence to a new epoch; durable on return, so the lease may go out.

    With `url` at this remote: another machine's hub, or a foreign one without our hooks.
    Registering the current epoch again does nothing: an owner that crashed between the two steps
    repeats both. Raises Refused for an older epoch, Conflict when another owner was faster.
    """
    ref = fence_ref(task)
    old = await (read_remote(repo, url, ref) if url else read(repo, ref))
    if old is not None:
        if url:
            await _fetch_object(repo, url, ref)
        current = await _epoch_of(repo, old)
        if new < current:
            raise Refused(f"The fence of task {task} is at {current} and cannot go back to {new}.")
        if new == current:
            return
    written = await git.run_async(["hash-object", "-w", "--stdin"], repo, stdin=fence_bytes(new))
    blob = git.object_id(written.text, "The fence's object")
    await (swap_remote(repo, url, ref, old, blob) if url else swap(repo, [(ref, old, blob)]))


async def promote(repo: Path, promotion: Promotion) -> None:
    """Move a phase's branch to an attempt's commit, all or nothing.

    Raises Conflict when the branch, the attempt or the fence moved on; Refused when the commit is
    not what was attempted. Repeating a promotion that has happened does nothing.
    """
    attempt, barrier = attempt_ref(promotion.task, promotion.epoch), fence_ref(promotion.task)
    found = await _objects(repo, attempt, barrier, new=promotion.branch)
    if found[promotion.branch].id == promotion.commit:
        return
    pushed, fence = found[attempt], found[barrier]
    current = fence_epoch(fence.raw) if fence.id else None
    await _check(repo, promotion, pushed, current)
    checked = [(barrier, fence.id, fence.id), (attempt, pushed.id, pushed.id)]
    await swap(repo, [*checked, (promotion.branch, promotion.expected, promotion.commit)])


async def promote_remote(cwd: Path, url: str, promotion: Promotion) -> None:
    """`promote` at a remote, from a repository that can fetch the attempt.

    The fence is read just before, not in the same transaction; the branch's compare-and-set
    is the fence here, and it is the owner's own branch.
    """
    if await read_remote(cwd, url, promotion.branch) == promotion.commit:
        return
    attempt, barrier = attempt_ref(promotion.task, promotion.epoch), fence_ref(promotion.task)
    pushed = await read_remote(cwd, url, attempt)
    fence = await read_remote(cwd, url, barrier)
    for ref, found in ((attempt, pushed), (barrier, fence)):
        if found is not None:
            await _fetch_object(cwd, url, ref)
    current = None if fence is None else await _epoch_of(cwd, fence)
    attempted = (await _objects(cwd, pushed))[pushed] if pushed else _Object(None, b"")
    await _check(cwd, promotion, attempted, current)
    await swap_remote(cwd, url, promotion.branch, promotion.expected, promotion.commit)


async def swap(repo: Path, moves: list[tuple[str, str | None, str | None]]) -> None:
    """Move local refs from old to new in one transaction; equal old and new only verifies."""
    lines = ["start"]
    for ref, old, new in moves:
        before, after = old or git.ZERO, new or git.ZERO
        lines.append(f"verify {ref} {before}" if old == new else f"update {ref} {after} {before}")
    script = "\n".join([*lines, "prepare", "commit", ""])
    await git.run_async(
        ["update-ref", "--stdin"], repo, stdin=script.encode("utf-8", "surrogateescape")
    )


async def swap_remote(
    cwd: Path,
    url: str,
    ref: str,
    old: str | None,
    new: str,
    *,
    env: Mapping[str, str] | None = None,
) -> None:
    """Move a remote's ref from old to new, and see that it is there."""
    lease = f"--force-with-lease={ref}:{old or ''}"
    push = ["push", "--porcelain", "--no-verify", "--no-follow-tags", lease]
    await git.run_async([*push, "--end-of-options", url, f"{new}:{ref}"], cwd, env=env)
    found = await read_remote(cwd, url, ref)
    if found != new:
        raise Conflict(f"{ref} at the remote is {found or 'absent'} after the push; read it again.")


async def descends(repo: Path, base: str, commit: str) -> bool:
    """True when `commit` has `base` among its ancestors, or is it."""
    answer = await git.run_async(
        ["merge-base", "--is-ancestor", base, commit], repo, codes=(0, 1, 128)
    )
    return answer.code == 0


class _Object(NamedTuple):
    """What a ref names: its id, None where there is no such ref, and its bytes."""

    id: str | None
    raw: bytes


async def _objects(repo: Path, *names: str, new: str = "") -> dict[str, _Object]:
    """What several refs of a repository name, in one look. Raises Damaged for a lost object.

    Git says the same of it and of a ref that is not there, so it is asked again; not about the ref
    `new`, which mostly is not there, and which `swap` does not make where it is.
    """
    names = (*names, new) if new else names
    asked = "".join(f"{name}\n" for name in names).encode()
    out = (await git.run_async(["cat-file", "--batch"], repo, stdin=asked)).out
    found, at = {}, 0
    for name in names:
        end = out.index(b"\n", at)
        id, _, about = out[at:end].decode("utf-8", "replace").rpartition(" ")[0].partition(" ")
        if out[at:end].endswith(b" missing"):
            if name != new and await read(repo, name):
                raise Damaged(
                    f"{name} is there and what it names is lost: the repository {repo.name} is "
                    "damaged; mend it from another clone."
                )
            found[name], at = _Object(None, b""), end + 1
            continue
        size = int(out[at:end].rpartition(b" ")[2])
        raw = out[end + 1 : end + 1 + size]
        found[name] = _Object(git.object_id(id, f"{name} ({about})"), raw)
        at = end + size + 2
    return found


async def _check(
    repo: Path, promotion: Promotion, attempted: _Object, current: Epoch | None
) -> None:
    git.object_id(promotion.commit, "The reported commit")
    git.object_id(promotion.base, "The attempt's base")
    task = promotion.task
    pushed = attempted.id
    if pushed is None:
        raise NotFound(f"The attempt {promotion.epoch} of task {task} was never pushed.")
    if pushed != promotion.commit:
        raise Refused(
            f"Task {task} reported {promotion.commit[:12]} but pushed {pushed[:12]}; "
            "the attempt does not count."
        )
    if current != promotion.epoch:
        raise Conflict(
            f"Task {task} is at epoch {current}, not {promotion.epoch}; a late result stays out."
        )
    starts_there = await descends(repo, promotion.base, promotion.commit)
    if not starts_there and promotion.base_moves:
        # It began at what its base was then.
        common = ["merge-base", promotion.base, promotion.commit]
        starts_there = (await git.run_async(common, repo, codes=(0, 1, 128))).code == 0
        if not starts_there:
            raise Refused(
                f"Commit {promotion.commit[:12]} of task {task} has no history in common with the "
                f"default branch, now at {promotion.base[:12]}: it was rewritten meanwhile; run it "
                "again."
            )
    if not starts_there:
        raise Refused(
            f"Commit {promotion.commit[:12]} of task {task} does not descend from its base "
            f"{promotion.base[:12]}; the attempt does not count."
        )
    if promotion.maker is not None:
        commit.check(attempted.raw, promotion.maker)


async def _epoch_of(repo: Path, blob: str) -> Epoch:
    return fence_epoch((await git.run_async(["cat-file", "blob", blob], repo)).out)


async def _fetch_object(cwd: Path, url: str, ref: str) -> None:
    fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    await git.run_async([*fetch, "--end-of-options", url, ref], cwd)
