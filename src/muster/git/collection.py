"""What an attempt leaves: from its folder to one signed commit.

Rule 1: what an agent can write is never believed: git runs with the cache as its repository and an
        index of its own, so no configuration, hook, filter or index an agent left is ever read.
Rule 2: a deliverable counts when it is in the commit (deliverables.py).
Rule 3: a file that nobody changed stays byte for byte as it was, whatever its attributes say.
Rule 4: what cannot be committed is refused by name: it is the agent's doing, and would be the same
        on every machine. Only what is wrong with the cache or the disk is this machine's.

The cache looks at the folder from outside: it writes the tree and makes the signed commit on top
of what the agent committed itself. The agent's own commits are read through its object folder; of
its `.git` only HEAD is parsed, here.
"""

import asyncio
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Broken, Conflict, Damaged, NotFound, Refused
from muster.git import (
    baseline,
    cache,
    checkout,
    deliverables,
    filtered,
    folders,
    unfinished,
    untrusted_files,
)
from muster.git import command as git
from muster.git import commit as commits
from muster.git.cache import Worktree

_SYMBOLIC: Final = re.compile(r"ref: (refs/heads/[^\s\0]{1,200})")
_PATHS_MAX: Final = 1_000
# Chosen arbitrarily: an attempt makes a few.
_COMMITS_MAX: Final = 10_000
_LEFT_OUT_MAX: Final = 100


class Collected(NamedTuple):
    """What an attempt produced."""

    commit: str
    base: str
    changed: tuple[str, ...]
    """The changed files, the first thousand by name; readable, whatever their names are."""
    changed_count: int
    missing: tuple[str, ...]
    """Promised deliverables that are not in the commit, each with the reason where it is known."""
    left_out: tuple[str, ...]
    """Folders that are repositories themselves and therefore stay out of the commit."""
    beside: tuple[str, ...] = ()
    """What else the agent made with git that the commit does not contain."""
    messages: str = ""
    """What the agent wrote into commits of its own, names of people included."""
    names: str = ""
    """The names of all files that these commits and the result change."""
    all_changed: tuple[bytes, ...] = ()
    """The changed files, every one, as git has them."""


async def collect(
    tree: Worktree, deliver: Sequence[str], message: str, signature: commits.Signature
) -> Collected:
    """Turn the folder's contents into one signed commit; the agent must have ended.

    Raises Refused for what is the agent's doing, Broken for what is this machine's.
    """
    paths = [deliverables.inside(path) for path in deliver]
    # An agent can remove its folder, or put a link to another one in its place.
    if not tree.path.is_dir() or tree.path.is_symlink():
        raise Refused(
            "The work folder is gone: the agent removed it or put something in its place."
        )
    try:
        return await _collect(tree, paths, message, signature)
    except Damaged:
        raise
    except (Broken, NotFound, Conflict) as error:
        if not await cache.sound(tree.cache):
            raise Damaged(f"{error} The copy of the repository is damaged.") from error
        raise Refused(f"What was left in the work folder cannot be committed: {error}") from error


async def _collect(
    tree: Worktree, paths: list[str], message: str, signature: commits.Signature
) -> Collected:
    store = git.Git(tree.cache, borrow(tree.gitdir))
    unfinished.refuse_stopped(tree.gitdir)
    top = await _head(tree, store)
    looked = await asyncio.to_thread(folders.look, tree.path)
    nested = looked.nested
    obstacles = {path: deliverables.obstacle(tree.path, path, nested) for path in paths}
    plain = [path for path, obstacle in obstacles.items() if not obstacle]
    written = await _write_tree(tree, store, top, looked, plain)
    missing = await deliverables.missing(tree.path, store, written, obstacles)
    # The repositories inside that are no submodules: nothing of them is in the commit.
    left_out = nested[:_LEFT_OUT_MAX]
    if left_out:
        inside = ("ls-tree", "-z", "--name-only", written, "--", *map(os.fsdecode, left_out))
        kept = await store.names(*inside)
        left_out = [path for path in left_out if path not in kept]
    made = await commits.write(tree.cache, written, [top], message, signature)
    beside = await unfinished.told(store, tree.gitdir, tree.base, top, made)
    between = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", tree.base, made)
    changed = await store.names(*between)
    return Collected(
        made,
        tree.base,
        tuple(git.shown(part) for part in changed[:_PATHS_MAX]),
        len(changed),
        missing,
        tuple(map(git.shown, left_out)),
        beside,
        *await _told(store, tree.base, top, changed),
        tuple(changed),
    )


async def _told(store: git.Git, base: str, top: str, changed: list[bytes]) -> tuple[str, str]:
    """What the agent's own commits say, and the names of all that they and the result change.

    What the remote has is there for everybody already.
    """
    names = b"\n".join(changed).decode(errors="replace")
    if top == base:
        return "", names
    log, own = ("log", f"--max-count={_COMMITS_MAX}"), (f"{base}..{top}", "--not", "--all")
    said = await store.run(*log, "--format=%an %ae %cn %ce%n%B", *own)
    between = await store.names(*log, "--format=", "--name-only", "--no-renames", "-m", "-z", *own)
    return said.text, names + "\n" + b"\n".join(between).decode(errors="replace")


def borrow(gitdir: Path) -> dict[str, str]:
    """The environment in which the cache sees the agent's own objects."""
    objects = gitdir / "objects"
    parts = (gitdir, objects, objects / "info")
    if any(part.is_symlink() for part in parts) or not objects.is_dir():
        return {}
    # The agent could have pointed it at any repository this user can read.
    (objects / "info" / "alternates").unlink(missing_ok=True)
    quoted = str(objects.resolve()).replace("\\", "\\\\").replace('"', '\\"')
    return {"GIT_ALTERNATE_OBJECT_DIRECTORIES": f'"{quoted}"'}


async def _head(tree: Worktree, store: git.Git) -> str:
    """The agent's own last commit, or the base when it made none."""
    if not store.env:
        return tree.base
    text = _read(tree.gitdir / "HEAD")
    if found := _SYMBOLIC.fullmatch(text):
        name = found[1]
        text = "" if ".." in name else _read(tree.gitdir / name)
        if not text and ".." not in name:
            packed = _read(tree.gitdir / "packed-refs", limits.GIT_OUTPUT_BYTES_MAX)
            line = re.search(rf"^([0-9a-f]{{40,64}}) {re.escape(name)}$", packed, re.MULTILINE)
            text = line[1] if line else ""
    if text == tree.base or not text:
        return tree.base
    top = git.object_id(text, "HEAD of the work folder")
    check = ("merge-base", "--is-ancestor", tree.base, top)
    if (await store.run(*check, codes=(0, 1, 128))).code:
        raise Refused(
            f"The agent's commit {top[:12]} does not descend from {tree.base[:12]}, where it "
            "started; the history it was given must stay."
        )
    return top


def _read(path: Path, most: int = 1024) -> str:
    return (untrusted_files.read(path, most) or b"").decode("utf-8", "replace").strip()


async def _write_tree(
    tree: Worktree, store: git.Git, top: str, looked: folders.Folders, deliver: list[str]
) -> str:
    """The folder's contents as a tree object."""
    with tempfile.TemporaryDirectory(prefix="muster-index-", dir=tree.cache) as folder:
        excluded, index = Path(folder) / "exclude", Path(folder) / "index"
        names = (re.sub(rb"([\\*?\[\]#! ])", rb"\\\1", path) for path in looked.nested)
        # A line break cannot stand in a line of an exclude file, but be guessed.
        lines = (b"/%s/\n" % re.sub(rb"[\n\r]", b"?", name) for name in names)
        excluded.write_bytes(b"".join(lines))
        settings = (
            f"--git-dir={tree.cache}", f"--work-tree={tree.path}",
            "-c", "core.bare=false", "-c", f"core.excludesFile={excluded}",
        )  # fmt: skip
        inside = git.Git(tree.path, {**store.env, "GIT_INDEX_FILE": str(index)}, settings)
        await inside.run("read-tree", top)
        # A file that is as it was written is not read again: its line ends are nobody's change. Of
        # some the agent's own commit says something else than what was written.
        moved = set[bytes]()
        if top != tree.base:
            moved |= {*await inside.names("diff-tree", "-r", "-z", "--name-only", tree.base, top)}
        same = await asyncio.to_thread(lambda: [*baseline.untouched(tree.notes, tree.path)])
        same = [path for path in same if path not in moved]
        await inside.keep(same + await unfinished.hidden(inside, tree.gitdir))
        await folders.refuse(inside, looked, deliver, tree.base)
        await _point_submodules(inside, tree, looked.nested)
        await inside.run("add", "--all", ".")
        if deliver:
            # A promised file counts even where .gitignore names it.
            force = ("add", "--force", "--pathspec-from-file=-", "--pathspec-file-nul")
            await inside.run(*force, paths=map(str.encode, deliver))
        if looked.attributes or unfinished.is_sparse(tree.gitdir):
            await filtered.settle(inside, top)
        return (await inside.run("write-tree")).text


async def _point_submodules(inside: git.Git, tree: Worktree, nested: list[bytes]) -> None:
    """A filled submodule is where its own HEAD says; git itself never enters it.

    Git would run there with the configuration that an agent left in it.
    """
    if not nested:
        return
    listed = await inside.names("ls-files", "-z", "--stage")
    entries = [part.partition(b"\t") for part in listed]
    links = {path: about.split(b" ")[1] for about, _, path in entries if about[:6] == b"160000"}
    filled = [path for path in nested if path in links]
    moved = []
    for path in filled:
        tip = await asyncio.to_thread(checkout.tip_of, tree.path / os.fsdecode(path))
        if len(tip) == len(links[path]):
            moved.append(b"160000 %s\t%s" % (tip.encode(), path))
    if moved:
        await inside.run("update-index", "-z", "--index-info", paths=moved)
    await inside.keep(filled)
