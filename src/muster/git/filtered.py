"""Changed files that a filter of the repository's should have cleaned: large ones, secret ones.

Rule 1: a filter is a program that the repository names, so it does not run here.
Rule 2: without it a large file, or a secret in plain text, would stay in the history for ever:
        such a change is refused by name.
Rule 3: a Git LFS pointer is what the filter would have made, and a file that its committed pointer
        points at is no change.
"""

import asyncio
import hashlib
import os
import re
from pathlib import Path
from typing import Final

from muster.errors import Refused
from muster.git import command as git

# What Git LFS puts in the place of a large file (its specification, version 1).
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize (\d{1,18})\n"
)
_POINTER_BYTES_MAX: Final = 1024


async def leave_large(inside: git.Git, base: str, paths: list[bytes]) -> set[bytes]:
    """Those of these files that are what a pointer of the base points at; git reads none of them.

    As after `git lfs pull`: no change, like the smaller ones that `settle` finds after git read
    them. Only a pointer of the base counts, so no agent decides how much is read here.
    """
    asked = [path for path in paths if b"\n" not in path]
    if not asked:
        return set()
    question = b"".join(b"%s:%s\n:0:%s\n" % (base.encode(), path, path) for path in asked)
    named = ["cat-file", "--batch-check=%(objecttype) %(objectname)"]
    lines = (await inside.run(*named, stdin=question)).out.split(b"\n")
    filters = await _filters(inside, asked)
    left = set[bytes]()
    for path, before, now in zip(asked, lines[0::2], lines[1::2], strict=False):
        kind, _, blob = before.partition(b" ")
        if kind == b"blob" and before == now and filters.get(path) == b"lfs":
            left |= {path} if await _points_at(inside, blob.decode(), path) else set()
    await inside.keep(left)
    return left


async def settle(inside: git.Git, top: str) -> None:
    """Deal with changed files that a filter of the repository's should have cleaned."""
    fields = await inside.names("diff-index", "--cached", "-z", "--no-renames", "--raw", top)
    changed = {
        path: about.removeprefix(b":").split(b" ")
        for about, path in zip(fields[0::2], fields[1::2], strict=False)
        if about.split(b" ")[1].startswith(b"100")
    }
    filters = await _filters(inside, list(changed)) if changed else {}
    kept = []
    for path, (before_mode, _, before, blob, _) in changed.items():
        name = filters.get(path, b"unspecified")
        if name in (b"unspecified", b"unset", b"set", b""):
            continue
        if name == b"lfs" and await _pointer(inside, blob.decode()):
            continue
        if name != b"lfs" or not await _points_at(inside, before.decode(), path):
            raise Refused(
                f"The file {git.shown(path)!r} has the filter {git.shown(name)!r} "
                "(.gitattributes), which does not run here; leave it as it was, or let the "
                "phase deliver it without a repository."
            )
        kept.append(b"%s %s\t%s" % (before_mode, before, path))
    if kept:
        await inside.run("update-index", "-z", "--index-info", paths=kept)


async def _filters(inside: git.Git, paths: list[bytes]) -> dict[bytes, bytes]:
    """The filter that .gitattributes gives each of these files."""
    answer = await inside.run("check-attr", "-z", "--stdin", "filter", paths=paths)
    fields = answer.out.split(b"\0")
    return dict(zip(fields[0::3], fields[2::3], strict=False))


async def _pointer(inside: git.Git, blob: str) -> tuple[str, int] | None:
    """SHA-256 and size of the large file that a pointer names; None where the blob is none."""
    if not blob.strip("0"):
        return None
    size = await inside.run("cat-file", "-s", blob)
    if int(size.text) > _POINTER_BYTES_MAX:
        return None
    found = _POINTER.fullmatch((await inside.run("cat-file", "blob", blob)).out)
    return (found[1].decode(), int(found[2])) if found else None


async def _points_at(inside: git.Git, blob: str, path: bytes) -> bool:
    """Whether a committed pointer is of the very file that lies there, as after `git lfs pull`."""
    wanted = await _pointer(inside, blob)
    return wanted is not None and await asyncio.to_thread(
        _is_of, *wanted, inside.folder / os.fsdecode(path)
    )


def _is_of(sha256: str, size: int, path: Path) -> bool:
    """Its size is asked first: what is larger or smaller is never read."""
    try:
        with path.open("rb") as file:
            if os.fstat(file.fileno()).st_size != size:
                return False
            return hashlib.file_digest(file, "sha256").hexdigest() == sha256
    except OSError:
        return False
