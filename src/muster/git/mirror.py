"""A copy of a repository that another machine keeps, so that it can be kept here when that is gone.

Rule 1: a mirror has the branches, tags, attempts and fences of whoever keeps the repository, as
they are there: it decides nothing. It lies beside the repositories of this machine, not among them.
Rule 2: it is complete under its name, or not there. When this machine is to keep the repository it
is moved to the others, with its fence and its hooks, which it had from the beginning.
Rule 3: who kept a repository, and keeps it no more, follows whoever does with its own folder. What
it had and the other one has otherwise stays there, under `refs/follow/before/`, each time.
Rule 4: one git at a time makes a mirror like its keeper, also one that outlives who started it.
"""

import contextlib
import os
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from muster import atomic_file, limits
from muster.errors import Conflict, Damaged, unable
from muster.git import bare, ref, removal, repository
from muster.git import command as git
from muster.git.fence import HEADS_PREFIX, POST_PREFIX, repository_name

# Shown to nobody, like what was fetched of an origin. Below it the object that is kept, and what it
# was (`heads/main`): nothing that is kept is overwritten by the next.
_BEFORE: Final = "refs/follow/before/"
# What the keeper has, while it is compared with ours.
_NOW: Final = "refs/follow/now/"
# In a mirror, also when it was moved: of which machine it is one.
_FILE: Final = "muster-mirror"
# What people name: what machines note of attempts follows the keeper.
_OF_PEOPLE: Final = ("heads/", "tags/")
_UNFINISHED: Final = ".new-"
_MACHINE_BYTES_MAX: Final = 128

_FETCH: Final = (
    "fetch", "-q", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head",
)  # fmt: skip
# What machines leave for each other is no work of anybody.
_REFSPECS: Final = (
    "+refs/heads/*:refs/heads/*",
    f"^{POST_PREFIX}*",
    "+refs/tags/*:refs/tags/*",
    "+refs/muster/*:refs/muster/*",
)


class Followed(NamedTuple):
    """What was set aside or is not at the keeper at all, and whether that has all of it now."""

    aside: tuple[str, ...]
    whole: bool


class _From(NamedTuple):
    """Where a repository is kept, how long a fetch may take, and what that inherits of its turn."""

    url: str
    time_ms: int
    inherits: tuple[int, ...] = ()


def listing(mirrors: Path, repos: Path) -> tuple[tuple[str, str], ...]:
    """What is mirrored here: of each the machine that keeps it, and the repository's name.

    Also what was moved to the repositories: whether that is kept here the log says.
    """
    found = {(path.parent.name, path.stem) for path in mirrors.glob("[0-9a-f]*/*.git")}
    found |= {(of(path), name) for name, path in repository.listing(repos).items()}
    return tuple(sorted(each for each in found if each[0]))


def of(path: Path) -> str:
    """The machine of whose repository this was a mirror; "" where it was none."""
    try:
        with (path / _FILE).open(encoding="ascii") as file:
            return file.read(_MACHINE_BYTES_MAX)
    except (OSError, UnicodeDecodeError):
        return ""


def made_ms(mirrors: Path, machine: str, name: str, repos: Path) -> int:
    """When the last pull of a mirror that came to its end began; 0 where none did."""
    for path in (mirrors / machine / f"{name}.git", repos / f"{name}.git"):
        # No pull came to its end there; the next place is looked at.
        with contextlib.suppress(OSError):
            return (path / _FILE).stat().st_mtime_ns // 1_000_000
    return 0


async def pull(  # noqa: PLR0917 - what, from where, and how long
    mirrors: Path, machine: str, name: str, url: str, branch: str,
    time_ms: int = limits.GIT_ADD_MS_MAX,
) -> None:  # fmt: skip
    """Make the mirror of a machine's repository as that is now; `branch` is its default one.

    A fetch that takes longer than `time_ms` is ended.

    Raises: MusterError; the mirror stays as it was, or as far as it came.
    """
    path = mirrors / machine / f"{repository_name(name)}.git"
    if path.is_dir():
        async with bare.held(path) as held:
            try:
                await _copy(path, _From(url, time_ms, (held,)), branch)
            except Damaged:
                # A copy: the next one is made from the beginning.
                await removal.remove(path)
                raise
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        unfinished = Path(tempfile.mkdtemp(prefix=_UNFINISHED, dir=path.parent))
    except OSError as error:
        raise unable(f"A mirror cannot be written under {mirrors}: {error}.", error) from error
    try:
        await git.run_async(["init", "-q", "--bare", "--template=", "."], unfinished)
        repository.write_guard(unfinished)
        atomic_file.write_file(unfinished / _FILE, machine.encode())
        await _copy(unfinished, _From(url, time_ms), branch)
        _move(unfinished, path)
    finally:
        await removal.remove(unfinished)


async def follow(
    path: Path, machine: str, url: str, branch: str, time_ms: int = limits.GIT_ADD_MS_MAX
) -> Followed:
    """Make a repository that was kept here as it is at the machine that keeps it now.

    Nothing is lost: whatever of its branches and tags is another one there is kept before it moves.
    What was kept so, and what is not there at all when it is followed first, is named.
    Whole it is once all that was ever kept so, and every branch and tag, is in one that is there.
    """
    async with bare.held(path) as held:
        return await _follow(path, machine, _From(url, time_ms, (held,)), branch)


async def _follow(path: Path, machine: str, kept: _From, branch: str) -> Followed:
    is_first = of(path) != machine
    # A look that was cut off left them.
    left = await ref.under(path, _NOW)
    await ref.swap(path, [(_NOW + name, id, None) for name, id in left.items()])
    looked = [each.replace(":refs/", f":{_NOW}") for each in _REFSPECS]
    await _fetch(path, kept, looked)
    theirs = await ref.under(path, _NOW)
    ours = await ref.under(path, "refs/")
    in_the_way = _in_the_way(ours, theirs)
    lost = {name: ours[name] for name in in_the_way}
    for name, id in theirs.items():
        had = ours.get(name, id)
        if had != id and name.startswith(_OF_PEOPLE):
            is_after = name.startswith("heads/") and await ref.descends(path, had, id)
            lost |= {} if is_after else {name: had}
    saved = [(f"{_BEFORE}{id}/{name}", ours.get(f"follow/before/{id}/{name}"), id)
             for name, id in lost.items()]  # fmt: skip
    away = [(f"refs/{name}", ours[name], None) for name in in_the_way]
    await ref.swap(path, [*saved, *away])
    aside = {name: id for name, id in lost.items() if f"follow/before/{id}/{name}" not in ours}
    if is_first:
        aside |= {n: ours[n] for n in ours if n.startswith(_OF_PEOPLE) and n not in theirs}
    moves = [(f"refs/{name}", ours.get(name), id) for name, id in theirs.items()]
    moves = [move for move in moves if move[1] != move[2]]
    seen = [(_NOW + name, id, None) for name, id in theirs.items()]
    await ref.swap(path, [*moves, *seen])
    await _point(path, branch)
    if is_first:
        atomic_file.write_file(path / _FILE, machine.encode())
    alone = {id for name, id in ours.items() if name.startswith("follow/before/")}
    alone |= {id for n, id in ours.items() if n.startswith(_OF_PEOPLE) and n not in theirs}
    whole = await _is_in(path, alone | set(lost.values()), theirs.values())
    return Followed(tuple(f"{name} ({id[:12]})" for name, id in sorted(aside.items())), whole)


async def _is_in(path: Path, objects: set[str], tops: Iterable[str]) -> bool:
    """Whether all that these objects lead to is what others lead to as well."""
    if not objects:
        return True
    lines = "".join([*(f"{id}\n" for id in objects), *(f"^{id}\n" for id in tops)])
    walk = ["rev-list", "--objects", "--max-count=1", "--stdin"]
    return not (await git.run_async(walk, path, stdin=lines.encode())).out.strip()


def _in_the_way(ours: Iterable[str], theirs: Iterable[str]) -> list[str]:
    """Branches and tags of ours that are a folder where the keeper has one, or below one of its."""
    files = set(theirs)
    folders = {str(each) for name in files for each in PurePosixPath(name).parents}
    mine = [name for name in ours if name.startswith(_OF_PEOPLE)]
    return [
        name
        for name in mine
        if name in folders or files & {str(each) for each in PurePosixPath(name).parents}
    ]


async def keep(mirrors: Path, machine: str, name: str, repos: Path) -> None:
    """Move a mirror to the repositories of this machine; repeating it does nothing.

    Raises: Conflict where there is another repository of that name; NotFound without a mirror;
    Unreachable while a git that outlived its daemon writes into it.
    """
    target = repos / f"{repository_name(name)}.git"
    if target.exists():
        if of(target) == machine:
            return
        raise Conflict(f"this machine keeps another repository {name} already")
    path = repository.find(mirrors / machine, name)
    repository.check(path)
    async with bare.held(path):
        _move(path, target)


def _move(path: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        os.rename(path, target)
        atomic_file.sync_folder(target.parent)
    except OSError as error:
        raise unable(f"{target} cannot be written: {error}.", error) from error


async def _fetch(path: Path, kept: _From, specs: Iterable[str], *options: str) -> None:
    words = [*_FETCH, *options, "--end-of-options", kept.url, *specs]
    await git.run_async(words, path, timeout_ms=kept.time_ms, inherits=kept.inherits)


async def _point(path: Path, branch: str) -> None:
    """Have the default branch be this one: another machine's word, so only one that is there."""
    if branch in await ref.under(path, HEADS_PREFIX):
        await git.run_async(["symbolic-ref", "HEAD", HEADS_PREFIX + branch], path)


async def _copy(path: Path, kept: _From, branch: str) -> None:
    """Make all of a mirror as it is there."""
    began_ns = time.time_ns()
    await _fetch(path, kept, _REFSPECS, "--prune")
    await _point(path, branch)
    # Whoever asks how old it is looks at this file's time.
    with contextlib.suppress(OSError):
        os.utime(path / _FILE, ns=(began_ns, began_ns))
