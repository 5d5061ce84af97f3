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
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from muster.agent import git
from muster.errors import Refused

# What Git LFS puts in the place of a large file (its specification, version 1).
_POINTER: Final = re.compile(
    rb"version https://git-lfs\.github\.com/spec/v1\n(?:ext-.*\n)*"
    rb"oid sha256:([0-9a-f]{64})\nsize \d+\n"
)
_POINTER_BYTES_MAX: Final = 1024


class Git(NamedTuple):
    """The cache's git, looking at the folder through an index only we can write."""

    folder: Path
    settings: tuple[str, ...]
    env: dict[str, str]

    async def run(self, *args: str, stdin: bytes = b"", codes: Sequence[int] = (0,)) -> git.Answer:
        command = [*self.settings, *args]
        return await git.run_async(command, self.folder, env=self.env, stdin=stdin, codes=codes)


class _Entry(NamedTuple):
    """A changed file in the index, and what it was."""

    path: bytes
    mode: bytes
    blob: str
    before_mode: bytes
    before: str


async def settle(inside: Git, top: str) -> None:
    """Deal with changed files that a filter of the repository's should have cleaned.

    A filter is a program that the repository names, so it does not run here. Without it a large
    file, or a secret in plain text, would stay in the history for ever.
    """
    changed = [entry async for entry in _changed(inside, top)]
    if not changed:
        return
    listed = b"".join(entry.path + b"\0" for entry in changed)
    answer = await inside.run("check-attr", "-z", "--stdin", "filter", stdin=listed)
    fields = answer.out.split(b"\0")
    filters = dict(zip(fields[0::3], fields[2::3], strict=False))
    kept = []
    for entry in changed:
        name = filters.get(entry.path, b"unspecified")
        if name in (b"unspecified", b"unset", b"set", b""):
            continue
        if name == b"lfs" and await _pointer(inside, entry.blob):
            continue
        if name != b"lfs" or not await _points_at(inside, entry):
            raise Refused(
                f"The file {git.shown(entry.path)!r} has the filter {git.shown(name)!r} "
                "(.gitattributes), which does not run here; leave it as it was, or let the "
                "phase deliver it without a repository."
            )
        kept.append(b"%s %s\t%s" % (entry.before_mode, entry.before.encode(), entry.path))
    if kept:
        await inside.run("update-index", "-z", "--index-info", stdin=b"\0".join([*kept, b""]))


async def _changed(inside: Git, top: str) -> AsyncIterator[_Entry]:
    answer = await inside.run("diff-index", "--cached", "-z", "--no-renames", "--raw", top)
    fields = answer.out.split(b"\0")
    for about, path in zip(fields[0::2], fields[1::2], strict=False):
        before_mode, mode, before, blob, _ = about.lstrip(b":").split(b" ")
        if mode.startswith(b"100"):
            yield _Entry(path, mode, blob.decode(), before_mode, before.decode())


async def _pointer(inside: Git, blob: str) -> str:
    """The hash that a large file's pointer names; "" where the blob is none."""
    if not blob.strip("0"):
        return ""
    size = await inside.run("cat-file", "-s", blob)
    if int(size.text) > _POINTER_BYTES_MAX:
        return ""
    found = _POINTER.fullmatch((await inside.run("cat-file", "blob", blob)).out)
    return found[1].decode() if found else ""


async def _points_at(inside: Git, entry: _Entry) -> bool:
    """Whether the commit's pointer is of the very file that lies there, as after `git lfs pull`."""
    wanted = await _pointer(inside, entry.before)
    if not wanted:
        return False
    path = inside.folder / os.fsdecode(entry.path)
    return wanted == await asyncio.to_thread(_sha256, path)


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""
