"""A person's own repository, read from its files: where it is, what HEAD says, which refs it has.

Rule 1: its configuration is not read at all, by nobody: git's own server program would read it
        where it runs in that folder, and a line of it can start a program, fetch from elsewhere,
        or point at a file that never ends. So git is shown a view instead: a repository of ours
        with the same refs, which borrows the objects.
Rule 2: so it does not matter who owns it either.
"""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple

from muster import limits
from muster.errors import NotFound, Refused
from muster.git import bare, untrusted_files

_REF: Final = re.compile(rb"ref: *(refs/[^\s\0]{1,1000})\s*")
_ID: Final = re.compile(rb"([0-9a-f]{40}(?:[0-9a-f]{24})?)\s*")
_PACKED: Final = re.compile(rb"^([0-9a-f]{40}(?:[0-9a-f]{24})?) (refs/[^\n]+)$", re.MULTILINE)
_FOLLOWED_MAX: Final = 5
_LINE_BYTES: Final = 4096


class Checkout(NamedTuple):
    """Where the parts of a repository are; a linked worktree has its own HEAD only."""

    head: Path
    common: Path


class Refs(NamedTuple):
    """What HEAD says, and every branch and tag."""

    head: str
    """The branch that is checked out, "" where HEAD is detached."""
    tip: str
    """The commit that is checked out, "" where there is none."""
    tips: Mapping[bytes, str]


def find(path: Path) -> Checkout:
    """The repository in a folder. Raises NotFound with the checkout that the folder lies in."""
    for place in (path / ".git", path):
        linked = untrusted_files.read(place, _LINE_BYTES) or b""
        named = os.fsdecode(linked.removeprefix(b"gitdir: ").strip())
        folder = path / named if linked.startswith(b"gitdir: ") else place
        text = untrusted_files.read(folder / "commondir", _LINE_BYTES)
        common = folder / os.fsdecode(text.strip()) if text else folder
        head = untrusted_files.read(folder / "HEAD", _LINE_BYTES) is not None
        if (head or (folder / "HEAD").is_symlink()) and (common / "objects").is_dir():
            return Checkout((folder / "HEAD").absolute(), common.resolve())
    above = next((each for each in path.parents if (each / ".git").exists()), None)
    hint = (
        f"it lies in the checkout {above}"
        if above is not None
        else "give a git checkout, a bundle or an address"
    )
    raise NotFound(f"There is no git repository in {path}; {hint}.")


def _packed(found: Checkout) -> dict[bytes, str]:
    packed = untrusted_files.read(found.common / "packed-refs", limits.GIT_OUTPUT_BYTES_MAX) or b""
    return {name: id.decode() for id, name in _PACKED.findall(packed)}


def _resolved(found: Checkout, name: bytes) -> str:
    """What a loose ref names; a symbolic one is followed, one to nowhere is none."""
    for _ in range(_FOLLOWED_MAX):
        text = untrusted_files.read(
            os.path.join(os.fsencode(found.common), name), _LINE_BYTES, follow=True
        )
        if text is None:
            return _packed(found).get(name, "")
        if id := _ID.fullmatch(text):
            return id[1].decode()
        if not (further := _REF.fullmatch(text)) or b".." in further[1]:
            shown = name.decode("utf-8", "backslashreplace")
            raise Refused(f"The source's {shown!a} cannot be read; see `git fsck` there.")
        name = further[1]
    return ""


def _head(found: Checkout) -> tuple[str, str]:
    if found.head.is_symlink():
        # How git once wrote it.
        to = os.readlink(found.head)
        return (to, "") if to.startswith("refs/heads/") else ("", "")
    text = untrusted_files.read(found.head, _LINE_BYTES) or b""
    if further := _REF.fullmatch(text):
        return further[1].decode("utf-8", "surrogateescape"), ""
    id = _ID.fullmatch(text)
    return "", id[1].decode() if id else ""


def tip_of(path: Path) -> str:
    """The commit that is checked out in a folder, "" where that cannot be read."""
    try:
        found = find(path)
        head, tip = _head(found)
        return _resolved(found, os.fsencode(head)) if head else tip
    except (NotFound, Refused):
        return ""


def view(folder: Path, path: Path) -> Refs:
    """Make a repository of ours that shows the folder's branches and tags, and borrows the objects.

    Raises Refused for what has only a part of its history, keeps its refs otherwise, or has one
    that cannot be read.
    """
    found = find(folder)
    if (found.common / "shallow").exists():
        raise Refused(
            "The source is a shallow clone, which has only a part of its history; run "
            "`git fetch --unshallow` there first."
        )
    if any((found.common / "objects" / "pack").glob("*.promisor")):
        raise Refused(
            "The source is a partial clone, which has only a part of its files; clone it without "
            "--filter, or give the address that it was cloned from."
        )
    if (found.common / "reftable").exists():
        raise Refused(
            "The source keeps its branches in git's newer way (reftable); convert it with "
            "`git refs migrate --ref-format=files` first."
        )
    kept = (b"refs/heads/", b"refs/tags/")
    tips = {name: id for name, id in _packed(found).items() if name.startswith(kept)}
    for part in ("refs/heads", "refs/tags"):
        for each in untrusted_files.files(found.common / part):
            name = os.path.join(part.encode(), each)
            if not name.endswith(b".lock") and (id := _resolved(found, name)):
                tips[name] = id
    head, tip = _head(found)
    bare.lend(path, [found.common])
    lines = b"".join(b"%s %s\n" % (id.encode(), name) for name, id in sorted(tips.items()))
    (path / "packed-refs").write_bytes(b"# pack-refs with: sorted \n" + lines)
    return Refs(head, tips.get(head.encode("utf-8", "surrogateescape"), "") if head else tip, tips)
