"""Where an attempt works: a folder of its own, made from its prerequisites, gone afterwards.

Rule 1: every attempt has its own folder with its own `.git`; attempts share objects, nothing else.
Rule 2: what an agent can write is never believed: the cache looks at it from outside
        (collection.py), and pushes what it made of it as the attempt's ref.
Rule 3: nothing of an attempt outlives it: `close` removes all of it, `clear` what a crash left,
        but for the folder that the next attempt at the same task goes on in (`adopt`).
        What cannot be removed is set aside and told (removal.py); nothing fails for it.
Rule 4: a damaged cache is made anew, once, wherever an attempt meets it; attempts that are open
        go on with what they borrowed.

`repos-cache/<name>.git` is a bare copy of the remote that one fetch brings up to date. A folder
`work/<task>-<epoch>` borrows its objects (git's "alternates"), which costs no copy of the history,
and knows the remote's branches and tags as a clone would. A linked `git worktree` would cost the
same, but shares branches, stash and configuration between attempts, and an agent could make the
daemon run a program by writing one line into them.
"""

import asyncio
import contextlib
import tempfile
from collections import defaultdict
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Final, TypeVar

from muster.errors import Broken, Conflict, Damaged, MusterError, Refused, Unreachable, unable
from muster.git import bare, baseline, cache, collection, ref, removal, repository
from muster.git import command as git
from muster.git import commit as commits
from muster.git.cache import Origin, Worktree
from muster.git.fence import Epoch, attempt_ref, repository_name

T = TypeVar("T")

# In a cache no git of ours moves a ref for so long: a lock this old is a dead one's.
_LOCK_AGE_S: Final = 60.0


class Worktrees:
    """The caches and the work folders of one machine."""

    def __init__(self, cache: Path, work: Path) -> None:
        self._cache = cache
        self._work = work
        # Two fetches into one cache would fight over its ref locks.
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)
        # The open folders and the cache that each borrows from.
        self._lent: dict[Path, Path] = {}
        # How often a cache was made anew, so that of two that meet the damage one does it.
        self._renewed: dict[Path, int] = {}
        self.remains: dict[Path, str] = {}
        """What could not be removed, and why."""

    async def open(
        self,
        origin: Origin,
        task: str,
        epoch: Epoch,
        bases: Sequence[cache.Base],
        signature: commits.Signature,
    ) -> Worktree:
        """A fresh folder at the merged prerequisites, or at the remote's head without any.

        Raises NotFound when a prerequisite is not on the remote, Refused when two of them
        conflict or the order names a start that is not there, Unreachable without the remote. On
        an error nothing is left behind.
        """
        git.check_version()

        async def begin() -> Worktree:
            store = await self._refresh(origin)
            base = await cache.base(store, bases, signature)
            name = attempt_ref(task, epoch).removeprefix("refs/muster/attempt/").replace("/", "-")
            return await self._fill(
                Worktree(origin, task, epoch, self._work / name, store, base), signature.agent
            )

        return await self._healing(origin, begin)

    async def refresh(self, origin: Origin) -> Path:
        """The cache of a repository, as its remote is now; a repository to run git in."""
        return await self._healing(origin, lambda: self._refresh(origin))

    async def against(
        self, tree: Worktree, bases: Sequence[cache.Base], signature: commits.Signature
    ) -> tuple[str, frozenset[str]]:
        """Where the work that a folder is at began, and the files that it changes since.

        Without bases it began at the remote's head as it was then.
        """
        began = await cache.base(tree.cache, bases, signature)
        if not bases:
            common = ["merge-base", began, tree.base]
            found = await git.run_async(common, tree.cache, codes=(0, 1))
            began = began if found.code else git.object_id(found.text, "Where the work began")
        between = ["diff-tree", "-r", "-z", "--name-only", "--no-renames", began, tree.base]
        listed = (await git.run_async(between, tree.cache)).out
        names = listed.decode("utf-8", "surrogateescape").split("\0")
        return began, frozenset(name for name in names if name)

    async def push(self, tree: Worktree, commit: str) -> str:
        """Push the commit as the attempt's ref, and see that it is there; the ref's name.

        Refused when the fence has risen meanwhile. Repeating it does nothing.
        """
        name = attempt_ref(tree.task, tree.epoch)
        place, url = tree.cache, tree.origin.url
        borrowed = collection.borrow(tree.gitdir)
        try:
            # Nobody pushed it before, almost always; each question to the remote costs a stream.
            await ref.swap_remote(place, url, name, None, commit, env=borrowed)
        except (Conflict, Refused):
            old = await ref.read_remote(place, url, name)
            if old is None:
                raise
            if old != commit:
                await ref.swap_remote(place, url, name, old, commit, env=borrowed)
        return name

    async def close(self, tree: Worktree) -> None:
        """Remove the folder and all that was kept for it; raises nothing, may be repeated."""
        await self.discard(tree.path)
        # What stays in the cache is swept when the daemon starts.
        with contextlib.suppress(MusterError, OSError):
            tree.notes.unlink(missing_ok=True)
            if tree.cache.is_dir():
                await git.run_async(["update-ref", "-d", tree.held], tree.cache)
        self._lent.pop(tree.path, None)
        if tree.cache in self._lent.values():
            return
        # The last attempt that borrowed from a damaged cache has ended: it may go.
        old = cache.forget_before(tree.cache)
        if old is not None and (aside := removal.set_aside(old, self._cache)) is not None:
            await self._remove(aside)

    async def discard(self, path: Path) -> None:
        """Remove a folder of an attempt; raises nothing. What stays is in `remains`."""
        aside = removal.set_aside(path)
        if aside is not None:
            await self._remove(aside)

    async def adopt(self, left: Worktree, epoch: Epoch) -> Worktree | None:
        """The folder that an attempt was cut off in, as that of the next attempt at its task.

        None where what it borrowed or was known of it is gone; then nothing of it is left.
        """
        tree = left._replace(epoch=epoch)
        try:
            there = ["cat-file", "-e", f"{left.base}^{{commit}}"]
            await git.run_async(there, tree.cache)
            await git.run_async(["update-ref", tree.held, tree.base], tree.cache)
            left.notes.rename(tree.notes)
            await git.run_async(["update-ref", "-d", left.held], tree.cache)
        except (MusterError, OSError):
            for each in (tree, left):
                await self.close(each)
            return None
        self._lent[tree.path] = tree.cache
        return tree

    async def clear(self, left: Mapping[str, str] = {}) -> int:
        """Set aside what a crash left, before work begins: folders, holding refs, lock files.

        `left` names the folders of attempts that are gone on with, and what the cache calls each
        of them (`<task>-<epoch>`); what lies beside one of these is called as it is, with an
        ending. The number of folders.
        """
        count = 0
        for path in sorted(self._work.glob("*")) if self._work.is_dir() else []:
            if path.name.partition(".")[0] in left:
                continue
            if not path.name.startswith(removal.ASIDE_PREFIX):
                removal.set_aside(path)
                count += 1
        for store in sorted(self._cache.glob("*.git")) if self._cache.is_dir() else []:
            try:
                await _tidy(store, set(left.values()))
            except (MusterError, OSError):
                # It is only a copy; the next attempt makes another one.
                removal.set_aside(store)
        return count

    async def empty(self) -> None:
        """Remove everything that was set aside, now or earlier; that may take long."""
        for folder in (self._work, self._cache):
            for path in sorted(folder.glob(f"{removal.ASIDE_PREFIX}*")):
                await self._remove(path)

    async def maintain(self) -> None:
        """Pack the caches; what an open attempt starts from is held by a ref."""
        for store in sorted(self._cache.glob("*.git")):
            async with self._locks[store.stem]:
                await repository.maintain(store)

    def cache_of(self, repo: str) -> Path:
        """Where the cache of a repository is, or would be."""
        return self._cache / f"{repository_name(repo)}.git"

    async def _refresh(self, origin: Origin) -> Path:
        store = self.cache_of(origin.name)
        async with self._locks[origin.name]:
            await cache.refresh(store, origin.url)
        return store

    async def _healing(self, origin: Origin, work: Callable[[], Awaitable[T]]) -> T:
        """`work`, and once more where the cache was the trouble and could be mended."""
        before = self._renewed.get(self.cache_of(origin.name), 0)
        try:
            return await work()
        except (Broken, Conflict) as error:
            if not await self._heal(origin, error, before):
                raise
        return await work()

    async def _heal(self, origin: Origin, error: MusterError, before: int) -> bool:
        """Whether another try is worth it."""
        store = self.cache_of(origin.name)
        async with self._locks[origin.name]:
            if self._renewed.get(store, 0) != before:
                return True
            if isinstance(error, Conflict):
                return bare.unlock(store, _LOCK_AGE_S) > 0
            if not isinstance(error, Damaged) and await cache.sound(store):
                return False
            try:
                aside = Path(tempfile.mkdtemp(prefix=removal.ASIDE_PREFIX, dir=self._cache))
            except OSError as unable_to:
                raise unable(f"{store} cannot be made anew: {unable_to}.", unable_to) from unable_to
            borrowed = store in self._lent.values()
            await cache.renew(store, origin.url, aside / "x", borrowed=borrowed)
            self._renewed[store] = before + 1
        await self._remove(aside)
        return True

    async def _fill(self, tree: Worktree, agent: str) -> Worktree:
        """Make the folder, whole or not at all."""
        await self.discard(tree.path)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.close, tree)
            self._lent[tree.path] = tree.cache
            await git.run_async(["update-ref", tree.held, tree.base], tree.cache)
            name, _, email = commits.person(agent).removesuffix(">").partition(" <")
            who = f'[user]\n\tname = "{name}"\n\temail = "{email}"\n'
            bare.lend(tree.gitdir, [tree.cache], who)
            (tree.gitdir / "packed-refs").write_bytes(await _known_refs(tree.cache))
            (tree.gitdir / "HEAD").write_text(f"{tree.base}\n", encoding="ascii")
            reset = ["read-tree", "-u", "--reset", tree.base]
            await git.run_async(reset, tree.path, for_person=True)
            listed = await git.run_async(["ls-files", "-z"], tree.path)
            paths = filter(None, listed.out.split(b"\0"))
            await asyncio.to_thread(baseline.write, tree.notes, tree.path, paths)
            undo.pop_all()
        return tree

    async def _remove(self, aside: Path) -> None:
        if why := await removal.remove(aside):
            self.remains[aside] = why
        else:
            self.remains.pop(aside, None)


async def _known_refs(store: Path) -> bytes:
    """The remote's branches and tags as the folder's `packed-refs`: `git describe` wants them.

    What other runs left on the remote is theirs, and would only be in the way.
    """
    format = "--format=%(refname) %(objectname)"
    listed = await git.run_async(["for-each-ref", format, cache.BRANCHES, "refs/tags"], store)
    branches, known = cache.BRANCHES.encode(), []
    for line in listed.out.splitlines():
        name, _, id = line.rpartition(b" ")
        if not name.startswith(branches + b"muster/"):
            known.append((name.replace(branches, b"refs/remotes/origin/", 1), id))
    lines = [b"%s %s\n" % (id, name) for name, id in sorted(known)]
    return b"".join([b"# pack-refs with: sorted \n", *lines])


async def _tidy(store: Path, left: Collection[str]) -> None:
    """Take out of a cache what attempts left in it, but for those that are gone on with.

    Raises where it cannot be read.
    """
    if not (store / "HEAD").is_file():
        raise Damaged(f"{store} is no repository.")
    # Where no git outlived the daemon before this one, any lock is a dead one's.
    with contextlib.suppress(Unreachable):
        async with bare.alone(store / "held", 0):
            bare.unlock(store)
    notes = list((store / cache.ATTEMPTS).glob("*"))
    used = any(each.name in left for each in notes)
    if not used and (old := cache.forget_before(store)) is not None:
        removal.set_aside(old, store.parent)
    for each in notes:
        if each.name not in left:
            each.unlink()
    listed = await git.run_async(["for-each-ref", "--format=%(refname)", cache.HELD_PREFIX], store)
    for held in listed.text.splitlines():
        if held.removeprefix(cache.HELD_PREFIX).replace("/", "-") in left:
            continue
        await git.run_async(["update-ref", "-d", held], store)
