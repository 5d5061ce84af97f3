"""Files of the work folder that programs of the host would run or obey: an agent may read them.

Rule 1: each is there while the program runs, mounted read-only upon itself: what is mounted upon
cannot be changed, removed or renamed away. So is the folder that it is in, for one that is renamed
would take it along.
Rule 2: one that is not there is occupied by an empty folder. Git keeps no empty folders, so none
is ever committed; and no such file is a folder by rights, so whoever finds one may remove it,
whatever became of the shim that made it. What git itself reads is occupied by an empty file, which
says nothing and may be removed likewise.
Rule 3: none is reached over a link: what the link leads to is not in the work folder.
Rule 4: a folder that is no repository gets none: what its program makes there is its own.
Rule 5: git carries files that no folder holds, so a result is asked as well (`held`), in every
spelling that a person's disk would take for such a path.
"""

import contextlib
import os
import stat
from collections.abc import Callable, Collection, Iterable, Iterator
from typing import Final

from muster.errors import Broken

PROTECTED: Final = (
    ".git/config",
    ".git/config.worktree",
    ".git/hooks",
    ".claude/settings.json",
    ".claude/settings.local.json",
    ".mcp.json",
    ".vscode",
)
# A folder there would end every git of a repository that has this extension.
_OF_GIT: Final = ".git/config.worktree"
_PARENTS: Final = (".git", ".claude")
# It tells git that configuration and hooks are elsewhere. Occupied it would end every git.
_ELSEWHERE: Final = "commondir"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_MODE: Final = 0o755


def occupy(cwd: str, free: Collection[str]) -> tuple[list[str], list[str]]:
    """Make sure that each is there: the folders to pin, and the paths to protect, relative.

    Raises: Broken for a work folder that is none, or a link on the way; OSError.
    """
    if not _is(cwd, stat.S_ISDIR):
        raise Broken(f"the work folder {cwd} is not there, or is a link; nothing was started")
    wanted = [path for path in PROTECTED if path not in free]
    for path in wanted:
        for part in _and_above(path):
            if _is(f"{cwd}/{part}", stat.S_ISLNK):
                raise Broken(
                    f"{part} in the work folder is a link, and what it leads to cannot be "
                    "protected; remove it, or let the phase free it under `paths: write`"
                )
    has_repository = _is(f"{cwd}/.git", stat.S_ISDIR)
    with contextlib.suppress(OSError):
        # Of an attempt whose shim and daemon died.
        os.unlink(f"{cwd}/.git/{_ELSEWHERE}")
    if not has_repository:
        wanted = [path for path in wanted if not path.startswith(".git/")]
    for path in wanted:
        for part in _and_above(path):
            # What is there already keeps its place, which is all that is wanted.
            with contextlib.suppress(FileExistsError):
                _make(f"{cwd}/{part}", is_file=part == _OF_GIT)
    if not has_repository and os.path.lexists(f"{cwd}/.git"):
        # A linked worktree's: it only names the repository, which is elsewhere.
        wanted.insert(0, ".git")
    pinned = [each for each in _PARENTS if any(path.startswith(f"{each}/") for path in wanted)]
    return pinned, wanted


def release(cwd: str) -> None:
    """Take away what `occupy` made, and what would lead git elsewhere; harmless otherwise."""
    # A folder that is gone, or that nobody can look into, holds nothing that leads elsewhere.
    with contextlib.suppress(OSError):
        folder = os.open(cwd, _FOLDER)
        try:
            for path in PROTECTED:
                _remove(folder, path)
            with _opened(folder, ".git") as git:
                if git is not None:
                    # Most often it is not there; a folder in its place leads git nowhere.
                    with contextlib.suppress(OSError):
                        os.unlink(_ELSEWHERE, dir_fd=git)
        finally:
            os.close(folder)


def held(paths: Iterable[str], free: Collection[str]) -> tuple[str, str]:
    """The first of these, relative, that is a protected path, in one or what leads to one; and
    what frees it. Empty where none is.
    """
    kept = {_plain(path): path for path in PROTECTED if path not in free}
    for path in paths:
        plain = _plain(path)
        for name, frees in kept.items():
            if name.startswith(f"{plain}/"):
                return path, frees[: len(plain)]
            if f"{plain}/".startswith(f"{name}/"):
                return path, frees
    return "", ""


def _plain(path: str) -> str:
    # Some disks take a name in any case, without what is not seen, or what ends it.
    parts = ("".join(filter(str.isprintable, part)) for part in path.casefold().split("/"))
    return "/".join(part.partition(":")[0].rstrip(". ") for part in parts)


def _make(path: str, *, is_file: bool) -> None:
    if is_file:
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644))
    else:
        os.mkdir(path, _MODE)


def _remove(folder: int, path: str) -> None:
    parent, _, name = path.rpartition("/")
    with _opened(folder, parent or ".") as at:
        if at is not None:
            # Only what is empty: nobody's work is that.
            with contextlib.suppress(OSError):
                if path == _OF_GIT:
                    status = os.lstat(name, dir_fd=at)
                    if stat.S_ISREG(status.st_mode) and not status.st_size:
                        os.unlink(name, dir_fd=at)
                else:
                    os.rmdir(name, dir_fd=at)
    if parent and parent != ".git":
        # There is something of the work in it: then it stays.
        with contextlib.suppress(OSError):
            os.rmdir(parent, dir_fd=folder)


@contextlib.contextmanager
def _opened(folder: int, name: str) -> Iterator[int | None]:
    try:
        handle = os.open(name, _FOLDER, dir_fd=folder)
    except OSError:
        # It is not there, or is a link or a file: then nothing of ours lies in it.
        yield None
        return
    try:
        yield handle
    finally:
        os.close(handle)


def _and_above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[: count + 1]) for count in range(len(parts))]


def _is(path: str, kind: Callable[[int], bool]) -> bool:
    try:
        return kind(os.lstat(path).st_mode)
    except OSError:
        return False
