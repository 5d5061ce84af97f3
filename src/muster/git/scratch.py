"""A repository for a moment, in which something is made before anybody sees it.

Rule 1: it lies in a folder of ours, never in a person's, and goes when it was used.
Rule 2: what a process that was killed left there is removed by the next one. A folder is somebody's
while a process holds the lock in it, whatever its age.
Rule 3: it borrows the objects that are on this machine already, so that little is fetched; but only
of a repository that has all that its commits lead to.
"""

import contextlib
import fcntl
import os
import tempfile
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Final

from muster.errors import unable
from muster.git import bare, removal

_PREFIX: Final = "new-"
_HELD: Final = "held"
_LENDS_NOT: Final = ("sha256", "partialclone", "promisor")


@contextlib.asynccontextmanager
async def opened(area: Path, lenders: Sequence[Path]) -> AsyncIterator[Path]:
    """An empty repository with a work tree; `lenders` are repositories that may have objects."""
    folder, held, left = _begin(area)
    try:
        for each in left:
            await removal.remove(each)
        bare.lend(folder / "tree" / ".git", [each for each in lenders if _lends(each)])
        yield folder / "tree"
    finally:
        await removal.remove(folder)
        os.close(held)


def _lends(repo: Path) -> bool:
    """Whether a repository has objects of the kind that the fleet's have, and every one of them."""
    try:
        if not (repo / "objects").is_dir() or (repo / "shallow").exists():
            return False
        # Git takes a commit that a lender has for one whose whole past is there. What a partial
        # clone lacks it would fetch from its own remote, and that is no remote of ours.
        config = (repo / "config").read_text(encoding="utf-8").lower()
        partial = next((repo / "objects" / "pack").glob("*.promisor"), None)
    except (OSError, UnicodeDecodeError):
        return False
    return partial is None and not any(word in config for word in _LENDS_NOT)


def _begin(area: Path) -> tuple[Path, int, list[Path]]:
    """A new folder, the lock that says that it is ours, and what others left."""
    try:
        area.mkdir(parents=True, exist_ok=True, mode=0o700)
        # One at a time, for a folder is nobody's until its lock is held.
        with _lock(area / _HELD, fcntl.LOCK_EX):
            for each in area.glob(f"{_PREFIX}*"):
                if not _is_held(each):
                    removal.set_aside(each)
            folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=area))
            held = _open(folder / _HELD)
            fcntl.flock(held, fcntl.LOCK_EX)
        return folder, held, list(area.glob(f"{removal.ASIDE_PREFIX}*"))
    except OSError as error:
        raise unable(f"{area} cannot be written: {error}; look who owns it.", error) from error


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


@contextlib.contextmanager
def _lock(path: Path, how: int) -> Iterator[None]:
    handle = _open(path)
    try:
        fcntl.flock(handle, how)
        yield
    finally:
        os.close(handle)


def _is_held(folder: Path) -> bool:
    try:
        with _lock(folder / _HELD, fcntl.LOCK_EX | fcntl.LOCK_NB):
            return False
    except BlockingIOError:
        return True
    except OSError:
        # What cannot be opened holds nobody; whether it can be removed is seen then.
        return False
