"""How the fleet's copy of a repository follows its origin: each branch by compare-and-set.

Rule 1: a commit that is only ours is never lost: a branch moves to what the origin has where ours
is a part of that, or is what the origin had when it was last fetched. Else ours stays, and the
difference is told.
Rule 2: what somebody works on stays: the default branch is not removed, and no commit that a live
task starts from is left without a branch.
Rule 3: what cannot be taken whole, or has what `add` refuses, moves nothing.
Rule 4: a crash anywhere leaves a repository that the next update brings on: what moves goes with
the record of it (`refs/follow/heads/*`) in one transaction.

              origin has it too            origin has it no more
    ours     in step, or moved on to       removed, or kept where something stands on it
    alike
    ours     fast-forward; else kept:      kept
    changed  ahead, or diverged
    none     created                       -

The origin of a working copy says which branches there are, not which is the default one: what is
checked out there changes from hour to hour.
"""

import os
import tempfile
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Final, Literal, NamedTuple

from msgspec import Struct
from msgspec.structs import replace

from muster import limits
from muster.errors import Conflict, Refused
from muster.git import command as git
from muster.git import origin as origins
from muster.git import ref, repository, source
from muster.git.fence import HEADS_PREFIX
from muster.git.origin import Origin
from muster.git.repository import FOLLOWED

What = Literal[
    "created", "moved", "rewritten", "removed", "default", "ahead", "diverged", "gone", "held",
    "in the way",
]  # fmt: skip

# What the origin has otherwise than we, with the reason why ours stays.
UNLIKE: Final[Mapping[What, str]] = {
    "ahead": "ours has commits that the origin lacks",
    "diverged": "ours and the origin's have commits that the other lacks: ours stays",
    "gone": "the origin has it no more; ours has commits of its own, and stays",
    "held": "the origin removed or rewrote it; ours stays while a task, or the default, is on it",
    "in the way": "the origin has it; a branch of ours has a name that leaves no room for it",
}
_NEW: Final = "refs/follow/new/"
_NEW_TAGS: Final = "refs/follow/new-tags/"
_TAGS: Final = "refs/tags/"
_ROUNDS: Final = 3
# How a branch moved is looked at for so many of them; the others only "moved".
_TOLD_MAX: Final = 64
_UNLIKE_MAX: Final = 32


class Change(Struct, frozen=True):
    """What became of a branch of ours, or why nothing did; `old` and `new` are our commit and the
    origin's, or the names of the two branches where another became the default one.
    """

    branch: str
    what: What
    old: str = ""
    new: str = ""


class Updated(NamedTuple):
    """What an update found and did."""

    origin: Origin
    changes: tuple[Change, ...]


class _Seen(NamedTuple):
    """The branches by their short names: ours, the origin's, and those when it was last fetched."""

    ours: Mapping[str, str]
    theirs: Mapping[str, str]
    before: Mapping[str, str]
    default: str
    """Our default branch, and what it is to be."""
    wanted: str


class _Plan(NamedTuple):
    """What is to become of the branches; `done` is what became of them already."""

    changes: list[Change]
    removals: list[tuple[str, str | None, str | None]]
    moves: list[tuple[str, str | None, str | None]]
    done: list[Change]


async def update(repo: Path, kept: Origin, used: Collection[str], now_ms: int) -> Updated:
    """Follow the origin once. `used` are the commits that live tasks start from, "" for the newest
    of the default branch.

    Nobody else updates this repository meanwhile; pushes may come. Raises what keeps the origin
    from being read, and Refused for what it has; nothing has moved then.
    """
    with tempfile.TemporaryDirectory(prefix=".new-", dir=repo.parent) as scratch:
        asked = await source.ask(kept.address, Path(scratch), limits.GIT_FOLLOW_ASK_MS_MAX)
        theirs = await _fetch(repo, asked)
    earlier = list[Change]()
    for left in range(_ROUNDS, 0, -1):
        seen = await _look(repo, asked, kept, theirs)
        plan = await _plan(repo, seen, used)
        try:
            await _carry_out(repo, seen, plan)
            break
        except Conflict:
            # Somebody pushed in between: what that means is looked at anew. What moved before
            # stays, and is seen as nothing new then.
            if left == 1:
                raise
            earlier += plan.done
    changes = [*earlier, *plan.changes]
    if seen.wanted != seen.default:
        changes.append(Change(seen.wanted, "default", seen.default, seen.wanted))
    unlike = [f"{each.branch}: {UNLIKE[each.what]}" for each in changes if each.what in UNLIKE]
    head = _head(asked, theirs)
    found = replace(
        kept, synced_ms=now_ms, error="", unlike=unlike[:_UNLIKE_MAX],
        # One that ours could not become yet is looked at again.
        head=head if head == seen.wanted else kept.head,
    )  # fmt: skip
    origins.write(repo, found)
    await _clear(repo, (_NEW, _NEW_TAGS))
    return Updated(found, tuple(changes))


async def adopt(repo: Path, place: str, follow: bool | None) -> tuple[str, ...]:
    """Say of a repository that is there where it is from; the next update takes over what is new.

    What of the place it has not, as of `repository.add`, whose errors it raises; Conflict where the
    place has another history. Nobody else updates the repository meanwhile.
    """
    with tempfile.TemporaryDirectory(prefix=".new-", dir=repo.parent) as scratch:
        found = await source.look(place, Path(scratch))
        there = f"{_NEW}{found.branch}"
        await _clear(repo, (_NEW,))
        spec = f"+{HEADS_PREFIX}{found.branch}:{there}"
        await repository.fetch(repo, found.asked.address, [spec], limits.GIT_ADD_MS_MAX)
    shared = await git.run_async(["merge-base", "HEAD", there], repo, codes=(0, 1))
    await _clear(repo, (_NEW,))
    if shared.code:
        raise Conflict(
            f"There is a repository {repo.stem!r} already, and {found.asked.origin} has another "
            "history; choose another name."
        )
    before = origins.read(repo)
    if before is None or before.address != found.asked.origin:
        # What another origin had says nothing of this one: nothing moves but forward.
        await _clear(repo, (FOLLOWED,))
    follows = not found.asked.bundle if follow is None else follow
    origins.write(repo, Origin(found.asked.origin, follows, found.branch))
    return found.left_out


async def _fetch(repo: Path, asked: source.Asked) -> dict[str, str]:
    """Take over what is new, under names of its own; the origin's branches, by their short names.

    What came of it counts: the origin may have moved on since it was asked.
    """
    theirs = {
        _short(os.fsdecode(name)): id
        for name, id in source.heads_of(asked).items()
        if not source.is_ours(name)
    }
    await _clear(repo, (_NEW, _NEW_TAGS))
    before, tags = await ref.under(repo, FOLLOWED), await ref.under(repo, _TAGS)
    changed = [name for name, id in theirs.items() if before.get(name) != id]
    fresh = [
        name
        for name in (os.fsdecode(each) for each in asked.known.tips)
        if name.startswith(_TAGS) and name.removeprefix(_TAGS) not in tags
    ]
    if not changed and not fresh:
        return theirs
    specs = [f"+{HEADS_PREFIX}{name}:{_NEW}{name}" for name in changed]
    specs += [f"+{tag}:{_NEW_TAGS}{tag.removeprefix(_TAGS)}" for tag in fresh]
    await repository.fetch(repo, asked.address, specs, limits.GIT_FOLLOW_MS_MAX)
    came = await ref.under(repo, _NEW)
    if lost := set(changed) - came.keys():
        raise Refused(
            f"The branch {git.clean(min(lost))!r} of the origin could not be taken in whole; if it "
            "is a shallow clone, run `git fetch --unshallow` there first."
        )
    here = [*tags]
    for name, id in (await ref.under(repo, _NEW_TAGS)).items():
        if not any(_clash(name, each) for each in here):
            here.append(name)
            await ref.swap(repo, [(_TAGS + name, None, id)])
    return theirs | came


async def _look(repo: Path, asked: source.Asked, kept: Origin, theirs: Mapping[str, str]) -> _Seen:
    """What is there on both sides, and which branch is to be the default one."""
    heads = await ref.under(repo, HEADS_PREFIX)
    ours = {n: id for n, id in heads.items() if not source.is_ours(f"{HEADS_PREFIX}{n}".encode())}
    before = await ref.under(repo, FOLLOWED)
    default = wanted = await repository.default_branch(repo)
    head = _head(asked, theirs)
    untouched = ours.get(default) in (None, before.get(default), theirs.get(default))
    if head and head != default and untouched:
        is_gone = default not in theirs and default in before
        moved_on = not asked.working and default == kept.head
        if is_gone or moved_on:
            wanted = head
    if wanted in theirs and theirs[wanted] != before.get(wanted):
        await repository.check_commit(repo, theirs[wanted])
    return _Seen(ours, theirs, before, default, wanted)


async def _plan(repo: Path, seen: _Seen, used: Collection[str]) -> _Plan:
    """What is to become of each branch."""
    plan, found = _Plan([], [], [], []), dict[str, What]()
    for name in sorted({*seen.ours, *seen.theirs, *seen.before}):
        what = await _change(repo, seen, name, used, told=len(found) < _TOLD_MAX)
        if what is not None:
            found[name] = what
    here = [name for name in seen.ours if found.get(name) != "removed"]
    for name in [name for name, what in found.items() if what == "created"]:
        if any(_clash(name, each) for each in here):
            found[name] = "in the way"
        else:
            here.append(name)
    for name in {*found, *seen.theirs, *seen.before}:
        our, their, old = seen.ours.get(name), seen.theirs.get(name), seen.before.get(name)
        what = found.get(name)
        if what == "removed":
            plan.removals.append((HEADS_PREFIX + name, our, None))
        elif what in ("created", "moved", "rewritten"):
            plan.moves.append((HEADS_PREFIX + name, our, their))
        # What stays as it is for now is looked at again as if nothing had been fetched.
        if what not in ("held", "in the way") and their != old:
            (plan.moves if their else plan.removals).append((FOLLOWED + name, old, their))
    for name, what in found.items():
        our, their = seen.ours.get(name, ""), seen.theirs.get(name, "")
        plan.changes.append(Change(_shown(name), what, our, their))
    return plan


async def _change(
    repo: Path, seen: _Seen, name: str, used: Collection[str], *, told: bool
) -> What | None:
    our, their, old = seen.ours.get(name), seen.theirs.get(name), seen.before.get(name)
    if our is None:
        return None if their is None else "created"
    if our == their or (their is None and old is None):
        return None
    if their is None:
        if our != old:
            return "gone"
        is_held = name == seen.wanted or await _stands_on(repo, seen, name, used, None)
        return "held" if is_held else "removed"
    if our == old:
        # What the origin had. Whether it was rewritten matters to tasks, and to who reads of it.
        if not used and not told:
            return "moved"
        if await ref.descends(repo, our, their):
            return "moved"
        return "held" if await _stands_on(repo, seen, name, used, their) else "rewritten"
    if await ref.descends(repo, our, their):
        return "moved"
    return "ahead" if await ref.descends(repo, their, our) else "diverged"


async def _stands_on(
    repo: Path, seen: _Seen, name: str, used: Collection[str], new: str | None
) -> bool:
    """Whether a live task starts from what only this branch has, or from its newest commit."""
    if "" in used and name == seen.default:
        return True
    # Only what no update moves counts as another way to reach it: a result, a tag.
    kept = ["--glob=refs/heads/muster", "--tags", *([new] if new else [])]
    for commit in filter(None, used):
        if await ref.descends(repo, commit, seen.ours[name]):
            asked = ["rev-list", "--max-count=1", commit, "--not", *kept]
            if (await git.run_async(asked, repo)).text:
                return True
    return False


async def _carry_out(repo: Path, seen: _Seen, plan: _Plan) -> None:
    """Remove, move, change the default branch, and remove the old one; each of them whole or not.

    What is removed may be in the way of what is made, and git does not do both in one transaction.
    """
    # Its record goes with it: without one it would be a branch that only we have.
    old = (HEADS_PREFIX + seen.default, FOLLOWED + seen.default)
    first = [each for each in plan.removals if each[0] not in old]
    last = [each for each in plan.removals if each[0] in old]
    if first:
        await ref.swap(repo, first)
        default = _shown(seen.default)
        plan.done.extend(e for e in plan.changes if e.what == "removed" and e.branch != default)
    if plan.moves:
        await ref.swap(repo, plan.moves)
        plan.done.extend(e for e in plan.changes if e.what in ("created", "moved", "rewritten"))
    if seen.wanted != seen.default:
        await git.run_async(["symbolic-ref", "HEAD", HEADS_PREFIX + seen.wanted], repo)
        plan.done.append(Change(seen.wanted, "default", seen.default, seen.wanted))
    if last:
        await ref.swap(repo, last)


async def _clear(repo: Path, prefixes: Collection[str]) -> None:
    """Remove what an update left, or one that was ended in the middle."""
    for prefix in prefixes:
        left = [(prefix + name, id, None) for name, id in (await ref.under(repo, prefix)).items()]
        if left:
            await ref.swap(repo, [*left])


def _clash(one: str, other: str) -> bool:
    """Whether git can make no two branches of these names: one is a folder of the other."""
    return one.startswith(f"{other}/") or other.startswith(f"{one}/")


def _short(name: str) -> str:
    return name.removeprefix(HEADS_PREFIX)


def _shown(name: str) -> str:
    return git.shown(os.fsencode(name))


def _head(asked: source.Asked, theirs: Collection[str]) -> str:
    """The default branch of the origin, "" where it has none that we could have."""
    name = _short(asked.known.head)
    return name if name in theirs and name.isprintable() else ""
