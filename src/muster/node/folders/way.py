"""The way to a file of a folder on this disk: each name is opened inside the one before it.

Rule 1: no link is followed, and nothing is entered that is mounted there.
Rule 2: a folder that is not the one that was mapped is no folder.
Rule 3: whoever goes on in some folders may hold them open for some files (`near`). Whoever takes
something away goes the whole way: what was moved meanwhile keeps what it has, wherever it lies.
"""

import contextlib
import errno
import os
import stat
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from muster.errors import Conflict
from muster.node.folders.onestep import FOLDER, InTheWay, step_into

# So many folders are held open at once.
_HELD_MAX: Final = 100


class NotThisFolder(Conflict):
    """The folder is gone, or another one lies where it was."""


class Way:
    """See the rules at the top of this file.

    `inode` and `device` are of the folder that was mapped; without a device, of any.
    """

    def __init__(self, top: Path, inode: int, device: int | None = None) -> None:
        self.top = top
        self._inode, self._device = inode, device
        # Whether folders are held open; by their paths those that are.
        self._is_near = False
        self._held: dict[str, int] = {}

    @contextlib.contextmanager
    def near(self) -> Iterator[None]:
        """Hold the folders of files open: whoever goes on in one of them is there already.

        For some files at a time, and no longer: whatever else stands there now, they are the same
        folders that are looked into, and no link. Within another one this is the same one.
        """
        if self._is_near:
            yield
            return
        self._is_near = True
        try:
            yield
        finally:
            self._is_near = False
            self.leave()

    def leave(self) -> None:
        """The next way is gone from the top."""
        held, self._held = self._held, {}
        for folder in held.values():
            os.close(folder)

    @contextlib.contextmanager
    def _parent(
        self, path: str, *, make: bool = False, anew: bool = False
    ) -> Iterator[tuple[int, str]]:
        """The folder of a file, and its name there.

        Whoever takes something away goes the whole way `anew`: a folder that was moved meanwhile
        keeps what it has, wherever it lies.
        """
        above, _, name = path.rpartition("/")
        if self._is_near and not anew:
            if len(self._held) > _HELD_MAX:
                self.leave()
            yield self._reached(above, make=make), name
            return
        with self._folder(above.split("/") if above else [], make=make) as folder:
            yield folder, name

    def _reached(self, path: str, *, make: bool) -> int:
        """A folder, open and held: the top of the way is the same for all of them."""
        found = self._held.get(path)
        if found is not None:
            return found
        if not path:
            found = self._way([], make=make)
        else:
            at = self._reached("", make=make)
            found = self._gone(os.dup(at), path.split("/"), make=make)
        self._held[path] = found
        return found

    @contextlib.contextmanager
    def _folder(self, parts: Iterable[str], *, make: bool = False) -> Iterator[int]:
        at = self._way(parts, make=make)
        try:
            yield at
        finally:
            os.close(at)

    def _way(self, parts: Iterable[str], *, make: bool) -> int:
        """The folder there, open; whoever asked closes it."""
        try:
            at = os.open(self.top, FOLDER)
        except OSError as error:
            raise NotThisFolder(f"{self.top} is gone ({error.strerror})") from error
        found = os.fstat(at)
        if found.st_ino != self._inode or self._device not in (None, found.st_dev):
            os.close(at)
            raise NotThisFolder(f"another folder lies at {self.top} than was mapped")
        return self._gone(at, parts, make=make)

    def _gone(self, at: int, parts: Iterable[str], *, make: bool) -> int:
        """The folder to which these lead from an open one, which is closed."""
        there = False
        try:
            for part in parts:
                inner = self._enter(at, part, make=make)
                os.close(at)
                at = inner
            there = True
        finally:
            if not there:
                os.close(at)
        return at

    @staticmethod
    def _enter(at: int, part: str, *, make: bool) -> int:
        for _ in range(2):
            try:
                return step_into(part, at)
            except FileNotFoundError:
                if not make:
                    raise
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=at)
            except NotADirectoryError as error:
                there = os.stat(part, dir_fd=at, follow_symlinks=False)
                if not make and stat.S_ISREG(there.st_mode):
                    # Below a plain file there is nothing.
                    raise FileNotFoundError(part) from error
                raise InTheWay(f"{part} is a link, or no folder") from error
            except OSError as error:
                raise told(part, error) from error
        raise InTheWay(f"{part} is taken away and put back by somebody")


def told(path: str, error: OSError) -> OSError | InTheWay:
    """What is told of one step of the way that could not be gone."""
    if error.errno in (errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.ENXIO):
        return InTheWay(f"{path} is a link, or no plain file or folder")
    return error
