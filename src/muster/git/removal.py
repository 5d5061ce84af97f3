"""How a folder goes away, whatever is in it.

Rule 1: nothing here raises or keeps the loop waiting: what is small goes in a thread, the rest in
        a child process. No depth, number or name of files is too much for either.
Rule 2: a folder that is to go is set aside first, under a name that nobody takes for a whole one.
Rule 3: what cannot be removed stays where it was set aside, and is told with the reason: files of
        another user (a container's), unchangeable ones, a place where a disk is mounted.
"""

import asyncio
import contextlib
import os
import shutil
import tempfile
from pathlib import Path
from typing import Final

from muster import child_process, limits

ASIDE_PREFIX: Final = ".gone-"

# A folder up to here goes in a moment; a larger one would hold the interpreter for seconds.
_SMALL_ENTRIES: Final = 500
# `shutil.rmtree` goes down by recursion and keeps a descriptor open at each level.
_SMALL_DEPTH: Final = 20


def set_aside(path: Path, where: Path | None = None) -> Path | None:
    """Move a folder to where it goes, beside it or in `where`; None where there is nothing to move.

    The folder above it is ours, so this works whoever owns what is inside.
    """
    if not os.path.lexists(path):
        return None
    aside = None
    try:
        # To move a folder its own mode must allow it, and an agent may have taken that away.
        if not path.is_symlink():
            path.chmod(0o700)
        aside = Path(tempfile.mkdtemp(prefix=ASIDE_PREFIX, dir=where or path.parent))
        path.rename(aside / "x")
    except OSError:
        # It cannot even be moved: it is told under the name it has.
        if aside is not None:
            # An empty folder of this name is no loss; `sweep` takes it with the rest.
            with contextlib.suppress(OSError):
                aside.rmdir()
        return path
    return aside


async def remove(path: Path) -> str:
    """Remove a folder; "" when it is gone, else why it is still there."""
    if (mounted := await asyncio.to_thread(_mounted, path)) is not None:
        # Removing goes into what is mounted, and that may be a person's home.
        return f"{mounted} is mounted in it"
    if await asyncio.to_thread(_small, path):
        await asyncio.to_thread(shutil.rmtree, path, True)
    why = ""
    for command in (("rm", "-rf"), ("chmod", "-R", "u+rwx"), ("rm", "-rf")):
        if not _is_there(path):
            return ""
        # Package caches like to be read-only: what is ours is made writable and goes all the same.
        why = await _run(*command, "--", str(path))
    return why or "something writes into it" if _is_there(path) else ""


def _is_there(path: Path) -> bool:
    return os.path.lexists(path)


def _small(path: Path) -> bool:
    """Whether the folder has few entries, in few levels; looked at without recursion."""
    count, waiting = 0, [(str(path), 0)]
    while waiting:
        folder, depth = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    count += 1
                    if count > _SMALL_ENTRIES or depth > _SMALL_DEPTH:
                        return False
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append((entry.path, depth + 1))
        except OSError:
            return False
    return True


def _mounted(path: Path) -> str | None:
    """A place in the folder where something is mounted. Linux alone says where that is."""
    try:
        lines = Path("/proc/self/mountinfo").read_bytes().splitlines()
    except OSError:
        return None
    below = os.fsencode(path.parent.resolve() / path.name) + b"/"
    for line in lines:
        # The fifth field, in which a space and a few others are written in octal.
        place = line.split(b" ")[4].decode("unicode_escape").encode("latin-1")
        if place.startswith(below):
            return os.fsdecode(place[len(below) :])
    return None


async def _run(*command: str) -> str:
    """Run one of the system's own tools; the last line it said."""
    try:
        process = await child_process.start(
            *command,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.DEVNULL,
            stderr=asyncio.subprocess.PIPE,
            env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        )
    except OSError as error:
        return f"{command[0]} cannot be started: {error}"
    try:
        async with asyncio.timeout(limits.REMOVAL_MS_MAX / 1000):
            # A hundred thousand files that stay are a hundred thousand lines; one is kept.
            assert process.stderr is not None
            kept = b""
            while chunk := await process.stderr.read(64 * 1024):
                kept = (kept + chunk)[-2000:]
            await process.wait()
            return kept.decode("utf-8", "replace").strip().rpartition("\n")[2]
    except TimeoutError:
        return f"{command[0]} took longer than {limits.REMOVAL_MS_MAX // 60_000} minutes"
    finally:
        await process.end()
