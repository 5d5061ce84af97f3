"""What an agent began with git and did not bring into its result.

Rule 1: half done is not done: a rebase that stopped in the middle, and the marks of a conflict that
        nobody resolved, fail the attempt by name.
Rule 2: what lies beside the result (a branch, a stash, a tag, the other side of a merge) is told.
Rule 3: what a sparse checkout hides was not removed; where its patterns do not name whole folders,
        all that is not there is kept, and that is told.
Rule 4: of the agent's `.git` only names, ids and patterns are read, as files; git never reads it.
"""

import asyncio
import itertools
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import Refused
from muster.git import command as git
from muster.git import untrusted_files

# While one is there, the commits that it has not come to yet are in no history that is checked out.
_REBASES: Final = ("rebase-merge", "rebase-apply/rebasing")
# These stay behind when the work is finished and committed by hand.
_SERIES: Final = {"rebase-apply": "`git am`", "sequencer": "series of picked or reverted commits"}
_JOINED: Final = {"MERGE_HEAD": "merge", "CHERRY_PICK_HEAD": "cherry-pick", "REVERT_HEAD": "revert"}
_STASH: Final = "refs/stash"
_ID: Final = re.compile(rb"[0-9a-f]{40}(?:[0-9a-f]{24})?")
_PACKED: Final = re.compile(rb"^([0-9a-f]{40,64}) (refs/heads/[^\n]+)$", re.MULTILINE)
_SPARSE: Final = re.compile(rb"^\s*sparsecheckout\s*=\s*(\w+)", re.MULTILINE | re.IGNORECASE)
_CONE: Final = re.compile(_SPARSE.pattern.replace(b"checkout", b"checkoutcone"), _SPARSE.flags)
# `/x/` is a folder and `!/x/*/` its folders; what is special in a pattern is escaped in a name.
_FOLDER: Final = re.compile(rb"(!?)/((?:[^*?\[\\]|\\[*?\[\\])+)/(\*/)?")
# Each is asked about by itself; nobody leaves more, or reads of more.
_TIPS_MAX: Final = 20
# So many names are arguments of one command; more take another one.
_BATCH: Final = 300
_SHOWN_MAX: Final = 5
_LINE_BYTES: Final = 4096
_PATTERN_BYTES_MAX: Final = 1024 * 1024


def refuse_stopped(gitdir: Path) -> None:
    """Raises Refused where git waits for the agent to go on."""
    stopped = {name: "rebase" for name in _REBASES if (gitdir / name).exists()}
    if any(_is(gitdir, head) for head in ("CHERRY_PICK_HEAD", "REVERT_HEAD")):
        stopped |= {name: what for name, what in _SERIES.items() if (gitdir / name).is_dir()}
    for name, what in stopped.items():
        raise Refused(
            f"The agent left a {what} unfinished (.git/{name}), so its work is there in part "
            "only; finish it, or end it with --abort."
        )


async def told(store: git.Git, gitdir: Path, base: str, top: str, made: str) -> tuple[str, ...]:
    """What the agent made and `made`, its result on top of its own `top`, does not contain.

    Raises Refused where git waits for the agent to resolve what it marked in the result.
    """
    found = await _unclear(store, gitdir, made)
    if not store.env:
        return tuple(found)
    series = [what for name, what in _SERIES.items() if (gitdir / name).is_dir()]
    open_ = [what for name, what in _JOINED.items() if _is(gitdir, name)]
    # What a stash could not be put back into is marked, and the stash is kept.
    waiting = [*series, *open_, *(["stash"] if _is(gitdir, _STASH) else [])]
    # A series makes commits by itself, so that marks in them are nobody's word either.
    since = base if series else top
    if waiting and (marked := await _marked(store, base, since, made)):
        what = waiting[0]
        raise Refused(f"The agent left a {what} unfinished: conflicts are marked in {marked}.")
    if top != base and (marked := await _marked(store, base, base, made)):
        # It said itself that this is the result.
        found.append(f"what conflict marks in {marked} stand for")
    found += [f"a {what} that was not finished" for what in series]
    found += [f"a {what} that was not committed as one" for what in open_]
    # The agent's branches, stash and tags that are not in its result.
    tips, tags = await asyncio.to_thread(_refs, gitdir)
    for name, id in tips[:_TIPS_MAX]:
        check = await store.run("merge-base", "--is-ancestor", id, made, codes=(0, 1, 128))
        if check.code == 1:
            found.append(f"the branch {git.shown(name)}" if name else "a stash")
    return (*found, *(f"the tag {git.shown(name)}" for name in tags[:_TIPS_MAX]))


def _is(gitdir: Path, name: str) -> bool:
    return untrusted_files.read(gitdir / name, 1) is not None


async def _marked(store: git.Git, base: str, before: str, made: str) -> str:
    """The files that got the marks of a conflict since `before`, for a person; "" for none.

    Some files are about such marks: what had them at `base` is no conflict of the agent.
    """
    changed = ("diff-tree", "-r", "-z", "--name-only", "--no-renames", before, made)
    names = await store.names(*changed)
    found = list[bytes]()
    for start in range(0, len(names), _BATCH):
        with_marks = await _with_marks(store, made, names[start : start + _BATCH])
        old = set(await _with_marks(store, base, with_marks))
        found += [name for name in with_marks if name not in old]
    return ", ".join(git.shown(name) for name in found[:_SHOWN_MAX])


async def _with_marks(store: git.Git, commit: str, names: list[bytes]) -> list[bytes]:
    if not names:
        return []
    marks = ["grep", "-z", "-l", "-I", "--all-match", "-e", "^<<<<<<< ", "-e", "^>>>>>>> "]
    found = await store.names(*marks, commit, "--", *map(os.fsdecode, names), codes=(0, 1))
    return [name.partition(b":")[2] for name in found]


def _refs(gitdir: Path) -> tuple[list[tuple[bytes, str]], list[bytes]]:
    """Branches with their commits (the one without a name is the stash), and new tags' names."""
    packed = untrusted_files.read(gitdir / "packed-refs", limits.GIT_OUTPUT_BYTES_MAX) or b""
    tips = {name.removeprefix(b"refs/heads/"): id for id, name in _PACKED.findall(packed)}
    for name in _names(gitdir, "heads"):
        text = untrusted_files.read(
            os.path.join(os.fsencode(gitdir / "refs" / "heads"), name), _LINE_BYTES
        )
        tips[name] = (text or b"").strip()
    if (stash := untrusted_files.read(gitdir / _STASH, _LINE_BYTES)) is not None:
        tips[b""] = stash.strip()
    whole = [
        (name, id.decode())
        for name, id in sorted(tips.items())
        # What the remote's branches are at is not the agent's work.
        if _ID.fullmatch(id) and b"%s refs/remotes/" % id not in packed
    ]
    # The tags that it was given are packed; what lies beside them is new.
    new = [name for name in _names(gitdir, "tags") if b" refs/tags/%s\n" % name not in packed]
    return whole, sorted(new)


def _names(gitdir: Path, kind: str) -> Iterator[bytes]:
    folder = gitdir / "refs" / kind
    if folder.is_symlink() or folder.parent.is_symlink():
        return iter(())
    names = (name for name in untrusted_files.files(folder) if not name.endswith(b".lock"))
    return itertools.islice(names, limits.GIT_BASES_MAX)


async def hidden(inside: git.Git, gitdir: Path) -> list[bytes]:
    """The files that are not in the folder because the agent's checkout is sparse."""
    patterns = _patterns(gitdir)
    if patterns is None:
        return []
    cone = _cone(gitdir, patterns)
    listed = await inside.names("ls-files", "-z", "-c")
    outside = [name for name in listed if not (cone and cone.shows(name))]
    return await asyncio.to_thread(_absent, inside.folder, outside)


async def _unclear(store: git.Git, gitdir: Path, made: str) -> list[str]:
    """What may have been removed, and was kept because the patterns do not tell."""
    patterns = _patterns(gitdir)
    if patterns is None or _cone(gitdir, patterns):
        return []
    listed = await store.names("ls-tree", "-r", "-z", "--name-only", made)
    absent = await asyncio.to_thread(_absent, gitdir.parent, listed)
    if not absent:
        return []
    what = f"of what its sparse checkout lacks ({git.listed(absent, _SHOWN_MAX)})"
    return [f"the removal, if one was meant, {what}"]


def _absent(root: Path, names: list[bytes]) -> list[bytes]:
    top = os.fsencode(root)
    return [name for name in names if not os.path.lexists(os.path.join(top, name))]


class _Cone(NamedTuple):
    """Folders that are wanted with all that is in them, and those with their own files only."""

    whole: set[bytes]
    parents: set[bytes]

    def shows(self, name: bytes) -> bool:
        """Whether git puts this file into the folder."""
        above = name.split(b"/")[:-1]
        folders = [b"/".join(above[: depth + 1]) for depth in range(len(above))]
        return not folders or folders[-1] in self.parents or not self.whole.isdisjoint(folders)


def _cone(gitdir: Path, patterns: bytes) -> _Cone | None:
    """The patterns as whole folders; None where git takes each by itself, as of an exclude file."""
    if not is_sparse(gitdir, _CONE):
        return None
    named, parents, rest = set[bytes](), set[bytes](), set[bytes]()
    for line in patterns.splitlines():
        found = _FOLDER.fullmatch(line)
        folder = re.sub(rb"\\(.)", rb"\1", found[2]) if found else b""
        if found and found[1] and found[3]:
            parents.add(folder)
        elif found and not found[1] and not found[3]:
            named.add(folder)
        elif line and not line.startswith(b"#"):
            rest.add(line)
    if rest != {b"/*", b"!/*/"} or not parents <= named:
        return None
    return _Cone(named - parents, parents)


def _patterns(gitdir: Path) -> bytes | None:
    """What a sparse checkout wants; None where the checkout is whole."""
    if not is_sparse(gitdir):
        return None
    return untrusted_files.read(gitdir / "info" / "sparse-checkout", _PATTERN_BYTES_MAX)


def is_sparse(gitdir: Path, setting: re.Pattern[bytes] = _SPARSE) -> bool:
    """Whether the agent's checkout is sparse, or so by cones, as far as its configuration says.

    As git reads it: the last word counts, and the work folder's own file comes last.
    """
    said = b"".join(
        untrusted_files.read(gitdir / name, _PATTERN_BYTES_MAX) or b""
        for name in ("config", "config.worktree")
    )
    found = setting.findall(said)
    return bool(found) and found[-1].lower() in (b"true", b"yes", b"on", b"1")
