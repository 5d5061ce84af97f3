"""Where work lands: the fleet's copy of a repository, its origin at an address, or a folder here.

Rule 1: a branch moves from the very commit that was built upon to the one that was built, in one
step of git's own, or not at all; it never goes back and is never made.
Rule 2: an answer that got lost is no failure: the branch is read again before anything is said.
Rule 3: a folder that has the branch checked out is moved as a person would move it, by `merge
--ff-only`, and only while nothing in it is uncommitted.
"""

import asyncio
import os
from pathlib import Path
from typing import Final, NamedTuple

from muster.errors import Conflict, MusterError, NotFound, Refused
from muster.git import command as git
from muster.git import person, ref
from muster.task.problem import did_you_mean

_ONTO: Final = "refs/landing/onto"
_BUILT: Final = "refs/landing/built"
_NAMES_MAX: Final = 8


class Moved(Conflict):
    """Somebody else moved the branch; whatever is to land is built again."""


class NoBranch(NotFound):
    """The place has no branch of that name."""


class Place(NamedTuple):
    """What git reaches by `address`; where that is a `folder` here, it may have work trees."""

    address: str
    folder: Path | None = None


async def tip(scratch: Path, place: Place, branch: str) -> str:
    """The commit of a branch, fetched. Raises: NoBranch with the branches that are there."""
    name = f"refs/heads/{branch}"
    if (await git.run_async(["check-ref-format", name], scratch, codes=(0, 1))).code:
        raise NoBranch(f"{git.clean(branch)!r} is no name that a branch can have.")
    fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    source = ["--end-of-options", place.address, f"+{name}:{_ONTO}"]
    try:
        await person.run([*fetch, *source], scratch)
    except NotFound as error:
        if "couldn't find remote ref" not in str(error):
            raise
        listed = await person.run(
            ["ls-remote", "--heads", "--end-of-options", place.address], scratch
        )
        names = [line.partition("\trefs/heads/")[2] for line in listed.text.splitlines()]
        own = [git.clean(name) for name in names if not name.startswith("muster/")]
        hint = did_you_mean(branch, own) or f"; it has {git.listed(own, _NAMES_MAX) or 'none'}"
        raise NoBranch(f"{place.address} has no branch {git.clean(branch)!r}{hint}") from error
    found = await ref.read(scratch, _ONTO)
    assert found is not None, "it was just fetched"
    return found


async def move(scratch: Path, place: Place, branch: str, old: str, new: str) -> None:
    """Move the branch from `old` to `new`, which the scratch repository has and which follows it.

    Raises: Moved; Refused where the place does not let us.
    """
    await git.run_async(["update-ref", _BUILT, new], scratch)
    try:
        at = await _work_tree(place.folder, branch) if place.folder is not None else None
        if at is None:
            name = f"refs/heads/{branch}"
            push = ["push", "--porcelain", "--no-follow-tags", f"--force-with-lease={name}:{old}"]
            await person.run(
                [*push, "--end-of-options", place.address, f"{_BUILT}:{name}"], scratch
            )
        else:
            await _move_in(scratch, at, branch, new)
    except MusterError as error:
        try:
            now = await tip(scratch, place, branch)
        except MusterError:
            # What is known of it is the first error.
            raise error from None
        if await ref.descends(scratch, new, now):
            return
        if now != old:
            raise Moved(f"{branch} moved meanwhile: {error}") from error
        raise


async def _work_tree(folder: Path, branch: str) -> Path | None:
    """The folder in which a branch of this repository is checked out, if it is in any."""
    at = ""
    for line in (await person.run(["worktree", "list", "--porcelain"], folder)).text.splitlines():
        word, _, text = line.partition(" ")
        at = text if word == "worktree" else at
        if word == "branch" and text == f"refs/heads/{branch}":
            if not await asyncio.to_thread(os.path.isdir, at):
                raise Refused(
                    f"{branch} is checked out in {at}, which is gone: `git worktree prune` in "
                    f"{folder} ends that."
                )
            return Path(at)
    return None


async def _move_in(scratch: Path, at: Path, branch: str, new: str) -> None:
    """As `move`, where a work tree has the branch."""
    status = await person.run(["status", "--porcelain", "--untracked-files=no"], at)
    if status.text:
        raise Refused(
            f"{branch} is checked out in {at}, which has changes that are not committed; commit or "
            "stash them there first."
        )
    fetch = ["fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"]
    await person.run([*fetch, str(scratch), _BUILT], at)
    done = await person.run(["merge", "-q", "--ff-only", new], at, codes=range(256), whole=True)
    if done.code:
        raise Refused(f"{branch} is checked out in {at} and stays as it is: {git.clean(done.err)}")
