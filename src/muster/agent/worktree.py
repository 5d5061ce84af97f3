"""Where an attempt works: a folder of its own, made from its prerequisites, gone afterwards.

Rule 1: every attempt has its own folder with its own `.git`; attempts share objects, nothing else.
Rule 2: what an agent can write is never believed: git runs with the cache as its repository, so
        no configuration, hook, filter or index an agent left behind is ever read.
Rule 3: nothing of an attempt outlives it: `close` removes all of it, `sweep` what a crash left.

`repos-cache/<name>.git` is a bare copy of the remote that one fetch brings up to date. A folder
`work/<task>-<epoch>` borrows its objects (git's "alternates"), which costs no copy of the history.
A linked `git worktree` would cost the same, but shares branches, stash and configuration between
attempts, and an agent could make the daemon run a program by writing one line into them.

At the end the cache looks at the folder from outside: it writes the tree, makes the signed
commit on top of what the agent committed itself, and pushes it as the attempt's ref. The agent's
own commits are read through its object folder; of its `.git` only HEAD is parsed, here.
"""

import asyncio
import contextlib
import os
import re
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Final, NamedTuple

from muster.agent import cache, git, ref
from muster.agent import commit as commits
from muster.agent.fence import Epoch, attempt_ref, repository_name
from muster.errors import Broken, Malformed, Refused

_GONE: Final = ".gone-"
_HELD_PREFIX: Final = "refs/attempt/"
_SYMBOLIC: Final = re.compile(r"ref: (refs/heads/[^\s\0]{1,200})")
_PATHS_MAX: Final = 1_000


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
    def gitdir(self) -> Path:
        """The agent's own `.git`; never read as a repository by us."""
        return self.path / ".git"

    @property
    def reads(self) -> tuple[Path, ...]:
        """What a sandbox must let the agent read besides its folder, and never write."""
        return (self.cache / "objects",)


class Collected(NamedTuple):
    """What an attempt produced."""

    commit: str
    base: str
    changed: tuple[str, ...]
    """The changed files, the first thousand by name."""
    changed_count: int
    missing: tuple[str, ...]
    """Promised deliverables that are not there."""
    left_out: tuple[str, ...]
    """Folders that are repositories themselves and therefore stay out of the commit."""


class Workshop:
    """The caches and the work folders of one machine."""

    def __init__(self, cache: Path, work: Path) -> None:
        self._cache = cache
        self._work = work
        # Two fetches into one cache would fight over its ref locks.
        self._locks: dict[str, asyncio.Lock] = {}

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
        conflict, Unreachable without the remote. On an error nothing is left behind.
        """
        git.check_version()
        store = await self._refresh(origin)
        base = await cache.base(store, origin.url, bases, signature)
        path = self._work / attempt_ref(task, epoch).removeprefix("refs/muster/attempt/").replace(
            "/", "-"
        )
        tree = Worktree(origin, task, epoch, path, store, base)
        self._discard(path)
        async with contextlib.AsyncExitStack() as undo:
            undo.push_async_callback(self.close, tree)
            # Held by a ref, so that maintenance of the cache cannot drop what is worked on.
            await git.run_async(["update-ref", _held(tree), base], store)
            await _populate(tree, signature.agent)
            undo.pop_all()
        return tree

    async def collect(
        self, tree: Worktree, deliver: Sequence[str], message: str, signature: commits.Signature
    ) -> Collected:
        """Turn the folder's contents into one signed commit; the agent must have ended."""
        paths = [_inside(path) for path in deliver]
        missing = tuple(path for path in paths if not _present(tree.path, path))
        borrowed = _borrow(tree)
        top = await _head(tree, borrowed)
        nested = _nested(tree.path)
        present = [path for path in paths if path not in missing]
        written = await _write_tree(tree, top, borrowed, nested, present)
        made = await commits.write(tree.cache, written, [top], message, signature)
        listed = await git.run_async(
            ["diff-tree", "-r", "-z", "--name-only", "--no-renames", tree.base, made],
            tree.cache,
            env=borrowed,
        )
        changed = [part.decode("utf-8", "replace") for part in listed.out.split(b"\0") if part]
        return Collected(
            made, tree.base, tuple(changed[:_PATHS_MAX]), len(changed), missing, tuple(nested)
        )

    async def push(self, tree: Worktree, commit: str) -> str:
        """Push the commit as the attempt's ref, and see that it is there; the ref's name.

        Refused when the fence has risen meanwhile. Repeating it does nothing.
        """
        name = attempt_ref(tree.task, tree.epoch)
        old = await ref.read_remote(tree.cache, tree.origin.url, name)
        if old != commit:
            await ref.swap_remote(tree.cache, tree.origin.url, name, old, commit, env=_borrow(tree))
        return name

    async def close(self, tree: Worktree) -> None:
        """Remove the folder and all that was kept for it; harmless when repeated."""
        self._discard(tree.path)
        if tree.cache.is_dir():
            await git.run_async(["update-ref", "-d", _held(tree)], tree.cache)

    async def sweep(self, keep: Sequence[Path] = ()) -> int:
        """Remove what a crash left: folders, holding refs, lock files. The number of folders."""
        count = 0
        for path in sorted(self._work.glob("*")) if self._work.is_dir() else []:
            if path not in keep:
                self._discard(path)
                count += 1
        kept = {path.name for path in keep}
        for store in sorted(self._cache.glob("*.git")) if self._cache.is_dir() else []:
            if not (store / "HEAD").is_file():
                _remove(store)
                continue
            # No git of ours runs when the daemon starts, so any lock is a dead one's.
            for lock in [*store.glob("*.lock"), *store.glob("refs/**/*.lock")]:
                lock.unlink(missing_ok=True)
            listed = await git.run_async(
                ["for-each-ref", "--format=%(refname)", _HELD_PREFIX], store
            )
            for held in listed.text.splitlines():
                if held.removeprefix(_HELD_PREFIX).replace("/", "-") not in kept:
                    await git.run_async(["update-ref", "-d", held], store)
        return count

    async def _refresh(self, origin: Origin) -> Path:
        store = self._cache / f"{repository_name(origin.name)}.git"
        async with self._locks.setdefault(origin.name, asyncio.Lock()):
            await cache.refresh(store, origin.url)
        return store

    def _discard(self, path: Path) -> None:
        if not os.path.lexists(path):
            return
        # Renamed first: from here on nobody takes the half-removed folder for a whole one.
        aside = Path(tempfile.mkdtemp(prefix=_GONE, dir=self._work))
        path.rename(aside / "x")
        _remove(aside)


async def _populate(tree: Worktree, agent: str) -> None:
    name, _, email = commits.person(agent).removesuffix(">").partition(" <")
    cache.lend(tree.gitdir, tree.cache, f'[user]\n\tname = "{name}"\n\temail = "{email}"\n')
    await git.run_async(["update-ref", "--no-deref", "HEAD", tree.base], tree.path)
    await git.run_async(["read-tree", "-u", "--reset", tree.base], tree.path, for_person=True)


def _held(tree: Worktree) -> str:
    return f"{_HELD_PREFIX}{tree.task}/{tree.epoch}"


def _borrow(tree: Worktree) -> dict[str, str]:
    """The environment in which the cache sees the agent's own objects."""
    objects = tree.gitdir / "objects"
    if tree.gitdir.is_symlink() or objects.is_symlink() or not objects.is_dir():
        return {}
    # The agent could have pointed it at any repository this user can read.
    (objects / "info" / "alternates").unlink(missing_ok=True)
    quoted = str(objects.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"'}


async def _head(tree: Worktree, borrowed: dict[str, str]) -> str:
    """The agent's own last commit, or the base when it made none."""
    if not borrowed:
        return tree.base
    text = _read(tree.gitdir / "HEAD")
    if found := _SYMBOLIC.fullmatch(text):
        text = _read_ref(tree.gitdir, found[1])
    if text == tree.base or not text:
        return tree.base
    top = git.object_id(text, "HEAD of the work folder")
    check = ["merge-base", "--is-ancestor", tree.base, top]
    answer = await git.run_async(check, tree.cache, env=borrowed, codes=(0, 1, 128))
    if answer.code:
        raise Refused(
            f"The agent's commit {top[:12]} does not descend from {tree.base[:12]}, where it "
            "started; the history it was given must stay."
        )
    return top


def _read(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1024).decode("utf-8", "replace").strip()
    except OSError:
        return ""


def _read_ref(gitdir: Path, name: str) -> str:
    if ".." in name:
        return ""
    if loose := _read(gitdir / name):
        return loose
    try:
        packed = (gitdir / "packed-refs").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    found = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(name)}$", packed, re.MULTILINE)
    return found[1] if found else ""


async def _write_tree(
    tree: Worktree, top: str, borrowed: dict[str, str], nested: list[str], deliver: list[str]
) -> str:
    """The folder's contents as a tree object, through an index only we can write."""
    with tempfile.TemporaryDirectory(prefix="muster-index-", dir=tree.cache) as folder:
        excluded = Path(folder) / "exclude"
        excluded.write_text("".join(f"/{_escaped(path)}/\n" for path in nested), encoding="utf-8")
        env = {**borrowed, "GIT_INDEX_FILE": str(Path(folder) / "index")}
        here = [f"--git-dir={tree.cache}", f"--work-tree={tree.path}"]
        here += ["-c", "core.bare=false", "-c", f"core.excludesFile={excluded}"]
        await git.run_async([*here, "read-tree", top], tree.path, env=env)
        await _refuse_entered(here, tree, env, nested)
        await git.run_async([*here, "add", "--all", "."], tree.path, env=env)
        if deliver:
            # A promised file counts even where .gitignore names it.
            listed = "\0".join(deliver).encode()
            add = ["add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul"]
            await git.run_async([*here, *add], tree.path, env=env, stdin=listed)
        return (await git.run_async([*here, "write-tree"], tree.path, env=env)).text


async def _refuse_entered(
    here: list[str], tree: Worktree, env: dict[str, str], nested: list[str]
) -> None:
    """Git would run inside a tracked submodule, with the configuration an agent left there."""
    if not nested:
        return
    listed = await git.run_async([*here, "ls-files", "-z", "--stage"], tree.path, env=env)
    entries = [part.partition(b"\t") for part in listed.out.split(b"\0")]
    links = {path.decode("utf-8", "replace") for mode, _, path in entries if mode[:6] == b"160000"}
    if entered := links.intersection(nested):
        raise Refused(f"The submodule {min(entered)!r} was filled; submodules must stay empty.")


def _nested(root: Path) -> list[str]:
    """The folders below the work folder that are repositories themselves."""
    found = []
    for folder, names, files in os.walk(root):
        if Path(folder) != root and (".git" in names or ".git" in files):
            found.append(Path(folder).relative_to(root).as_posix())
            names.clear()
        names[:] = [name for name in names if name != ".git"]
    return sorted(found)


def _escaped(path: str) -> str:
    return re.sub(r"([\\*?\[\]#! ])", r"\\\1", path)


def _inside(text: str) -> str:
    """A deliverable's path, which must stay in the work folder."""
    path = PurePosixPath(text)
    if not text or path.is_absolute() or ".." in path.parts or ".git" in path.parts:
        raise Malformed(
            f"The deliverable {git.clean(text)!r} must be a path inside the work folder."
        )
    return str(path)


def _present(root: Path, path: str) -> bool:
    try:
        return (root / path).resolve(strict=True).is_relative_to(root.resolve())
    except (OSError, RuntimeError):
        return False


def _remove(path: Path) -> None:
    shutil.rmtree(path, ignore_errors=True)
    if not path.exists():
        return
    # Package caches like to be read-only; a folder of ours is ours to remove all the same.
    for folder, _, _ in os.walk(path):
        os.chmod(folder, 0o700)
    shutil.rmtree(path, ignore_errors=True)
    if path.exists():
        raise Broken(f"{path} cannot be removed; look who owns what is in it.")
