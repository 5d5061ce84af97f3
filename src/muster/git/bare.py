"""A repository that only Muster's git writes: what makes a folder one, and its locks."""

import asyncio
import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Final

from muster import limits
from muster.errors import Damaged, Unreachable, unable
from muster.git import command as git

CONFIG: Final = f"[core]\n\trepositoryformatversion = 0\n\tbare = true\n{git.LARGE_FILES}"
_HEAD: Final = "ref: refs/heads/main\n"
# Chosen arbitrarily: how soon it is seen that a git has ended that is not ours.
_LOOK_S: Final = 0.02


def make(path: Path, config: str) -> None:
    """The few files that make a folder a repository, as they must be; what is there already stays.

    A power cut leaves files empty, and git then takes the folder for none.
    """
    try:
        for part in ("objects/info", "objects/pack", "refs/heads", "info"):
            (path / part).mkdir(parents=True, exist_ok=True)
        # HEAD last, because a folder without it is no repository and `clear` removes it.
        for name, text in (("config", config), ("HEAD", _HEAD)):
            # Whatever cannot be read is written anew, and that error is raised.
            with contextlib.suppress(OSError):
                if (path / name).read_bytes() == text.encode():
                    continue
            (path / name).write_text(text, encoding="utf-8")
    except OSError as error:
        if isinstance(error, FileExistsError | NotADirectoryError | IsADirectoryError):
            # A file where a folder belongs, or the other way: not what we wrote.
            raise Damaged(f"{path} is damaged: {error}.") from error
        what = f"{path} cannot be written: {error}; free some disk space, or look who owns it."
        raise unable(what, error) from error


def lend(gitdir: Path, lenders: Sequence[Path], more: str = "") -> None:
    """A repository of its own that borrows the objects of caches, or of other repositories."""
    make(gitdir, CONFIG.replace("bare = true", "bare = false") + more)
    lent = "".join(f"{(each / 'objects').resolve()}\n" for each in lenders)
    (gitdir / "objects" / "info" / "alternates").write_text(lent, encoding="utf-8")


def held(path: Path) -> contextlib.AbstractAsyncContextManager[int]:
    """A turn at a repository of ours for what overwrites its refs; see `alone`.

    A git that goes on after its daemon was killed makes them what they were when that began.
    """
    return alone(path / "held", limits.GIT_OUTLIVED_MS_MAX)


@contextlib.asynccontextmanager
async def alone(lock: Path, wait_ms: int) -> AsyncIterator[int]:
    """A turn at a repository; whoever inherits this descriptor keeps it until it has ended.

    Raises: Unreachable where a git that outlived who started it still has it.
    """
    loop = asyncio.get_running_loop()
    handle = os.open(lock, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        ends_s = loop.time() + wait_ms / 1000
        while not _is_taken(handle):
            if loop.time() > ends_s:
                raise Unreachable(
                    f"a git of an earlier start still works in {lock.parent}; try later"
                )
            await asyncio.sleep(_LOOK_S)
        yield handle
    finally:
        os.close(handle)


def _is_taken(handle: int) -> bool:
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def unlock(cache: Path, older_s: float = 0.0) -> int:
    """Remove the locks of a git that was ended in the middle; how many there were."""
    # The disk's own time, which a network disk may take from elsewhere.
    with tempfile.TemporaryFile(dir=cache) as new:
        now_s = os.fstat(new.fileno()).st_mtime
    count = 0
    for lock in [*cache.glob("*.lock"), *cache.glob("refs/**/*.lock")]:
        if now_s - lock.stat().st_mtime >= older_s:
            lock.unlink(missing_ok=True)
            count += 1
    return count
