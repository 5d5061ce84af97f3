"""What a folder, or a repository of the fleet, says of itself as a project; nothing is run."""

import asyncio
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from msgspec import Struct

from muster import limits
from muster.git import tree
from muster.task import project
from muster.task.language import Files
from muster.verbs.declaration import Daemon, Perform, Request, pos, verb


class Looked(Struct, frozen=True):
    """`folders`: a pattern of those that are alike."""

    parts: list[project.Part]
    folders: str


class Look(Request, frozen=True):
    repo: Annotated[str, pos("the repository")]


@verb("repo.project", auth="local", runs="async")
async def look(daemon: Daemon, call: Perform, ask: Look) -> Looked:
    """What the default branch of a repository of the fleet says of itself.

    Raises: NotFound where there is none, Unreachable without the machine that keeps it.
    """
    where, commit = await daemon.effects.start_of(ask.repo, "")
    files = await tree.texts(where, commit, project.wanted)
    # In a thread: strangers wrote these files, and everybody else waits meanwhile.
    return await asyncio.to_thread(_looked, files)


def _looked(files: Files) -> Looked:
    found = project.parts(files)
    return Looked(found, project.groups(found))


def look_at(folder: Path) -> Looked:
    """What the files of a folder say, as far as they can be read."""
    files: dict[str, str] = {}
    read = 0
    for name in _names(folder):
        files[name] = ""
        if project.wanted(name) and read < limits.PROJECT_READ_MAX:
            read += 1
            files[name] = _text(folder / name)
        if len(files) >= limits.PROJECT_FILES_MAX:
            break
    return _looked(files)


def _names(folder: Path) -> Iterator[str]:
    for here, folders, names in os.walk(folder):
        within = os.path.relpath(here, folder)
        depth = 0 if within == "." else within.count("/") + 1
        # A folder of somebody else's is not gone into; nor one that is deeper than counts.
        folders[:] = sorted(
            name for name in folders if depth < project.DEPTH_MAX and project.is_own(f"{name}/")
        )
        prefix = "" if within == "." else f"{within}/"
        yield from (prefix + name for name in sorted(names))


def _text(path: Path) -> str:
    """A file's text, "" where it is no plain file, cannot be read, or is too large."""
    try:
        # A link may lead anywhere, a pipe may never end.
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with open(handle, "rb") as file:
            raw = file.read(limits.PROJECT_FILE_BYTES_MAX + 1)
    except OSError:
        return ""
    return raw.decode("utf-8", "replace") if len(raw) <= limits.PROJECT_FILE_BYTES_MAX else ""
