"""One context folder as it lies on this disk: looked at, read and written without leaving it.

Rule 1: every name is opened inside the folder that was opened before it, and no link is followed:
whoever puts a link in the place of a folder leads nobody out of it.
Rule 2: a file is written beside its place, whole, and then both change their names in one step. So
what was there is never gone before somebody has looked at it.
Rule 3: only plain files are read and written. What else is there stays as it is.
Rule 4: a folder that is not the one that was mapped is no folder: a disk that is not mounted must
not look like one whose files were all deleted. Where something else is mounted in it, nobody looks.
Rule 5: what was done outlasts the power before anybody writes down that it was.
"""

import contextlib
import errno
import hashlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from functools import cached_property
from typing import Final, NamedTuple

from muster.context.path import TEMPORARY
from muster.limits import CONTEXT_PATH_DEPTH_MAX
from muster.node.folders.modes import keeps_modes, mode_of
from muster.node.folders.onestep import (
    ASIDE,
    NEW,
    InTheWay,
    exchange,
    give_mode,
    libc,
    make_last,
    move,
    step_into,
)
from muster.node.folders.signature import Signature, signature_in, signature_of
from muster.node.folders.way import Way, told

_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK: Final = 256 * 1024
# What is wrong with one path, and not with the disk.
OF_PATH: Final = frozenset(
    {errno.EACCES, errno.EPERM, errno.ENAMETOOLONG, errno.EILSEQ, errno.ETXTBSY, errno.EBUSY,
     # A name that the disk cannot have, as FAT has no ?; or that it can do no such thing with.
     errno.EINVAL, errno.ENOTSUP}
)  # fmt: skip
NO_FILE: Final = "it is a link, or no plain file"


class Swapped(NamedTuple):
    """What a change of names left: the name under which the old file lies, "" without one.

    `new` is None where a file was taken away. `met` says that something unexpected has the place,
    and nothing was changed.
    """

    new: Signature | None
    old: str = ""
    old_signature: Signature | None = None
    met: bool = False


class Disk(Way):
    """See the rules at the top of this file."""

    @property
    def device(self) -> int:
        """The number of the device that the folder lies on now. Raises: NotThisFolder."""
        with self._folder([]) as folder:
            return os.fstat(folder).st_dev

    @cached_property
    def keeps_x(self) -> bool:
        """Whether the disk can tell what can be executed. Raises: NotThisFolder, OSError."""
        with self._folder([]) as folder:
            return keeps_modes(folder, temporary_name())

    # --- looking ------------------------------------------------------------------------------

    def signature(self, path: str, *, anew: bool = False) -> Signature | None:
        """Of the file there; None without one. Raises: InTheWay, NotThisFolder, OSError."""
        try:
            with self._parent(path, anew=anew) as (folder, name):
                return signature_in(name, folder)
        except FileNotFoundError:
            return None

    def is_folder(self, path: str) -> bool:
        """Whether a folder lies there. Raises: NotThisFolder, OSError."""
        try:
            with self._folder(path.split("/")):
                return True
        except (FileNotFoundError, InTheWay):
            return False

    def digest(self, path: str) -> bytes | None:
        """The SHA-256 of a file, None where it is gone. Raises: InTheWay, OSError."""
        found = hashlib.sha256()
        try:
            with self.open(path) as file, os.fdopen(os.dup(file), "rb") as reader:
                while chunk := reader.read(_CHUNK):
                    found.update(chunk)
        except FileNotFoundError:
            return None
        return found.digest()

    def read(self, path: str, most: int) -> bytes | None:
        """The bytes of a file; None where it is gone or has more. Raises: InTheWay, OSError."""
        try:
            with self.open(path) as file:
                found, more = b"", os.read(file, most + 1)
                while more and len(found) <= most:
                    found, more = found + more, os.read(file, most + 1)
        except FileNotFoundError:
            return None
        return None if len(found) > most else found

    @contextlib.contextmanager
    def open(self, path: str) -> Iterator[int]:
        """A plain file, for reading. Raises: FileNotFoundError, InTheWay, OSError."""
        with self._parent(path) as (folder, name):
            try:
                file = os.open(name, _FILE, dir_fd=folder)
            except OSError as error:
                raise told(path, error) from error
        try:
            if not stat.S_ISREG(os.fstat(file).st_mode):
                raise InTheWay(f"{path} is no plain file")
            yield file
        finally:
            os.close(file)

    def walk(
        self, below: str, leaves_out: Callable[[str], bool]
    ) -> Iterator[tuple[str, Signature | str]]:
        """Every file at or below a path; and what nobody can look at, or into, with the reason.

        Raises: NotThisFolder, OSError.
        """
        try:
            with self._folder(below.split("/") if below else []) as folder:
                yield from self._walk(folder, f"{below}/" if below else "", leaves_out)
        except (FileNotFoundError, InTheWay):
            # The folder to be looked at is no more: nothing lies below it.
            return
        except OSError as error:
            yield below, unread(error)

    def _walk(
        self, folder: int, prefix: str, leaves_out: Callable[[str], bool]
    ) -> Iterator[tuple[str, Signature | str]]:
        for name in sorted(os.listdir(folder)):
            path = prefix + name
            if leaves_out(path):
                continue
            try:
                found = os.stat(name, dir_fd=folder, follow_symlinks=False)
                inner = step_into(name, folder) if stat.S_ISDIR(found.st_mode) else -1
            except (FileNotFoundError, NotADirectoryError):
                # It went meanwhile, and is in the next look, if it is again.
                continue
            except InTheWay:
                # A link stands there: it is told as what is no file.
                yield path, NO_FILE
                continue
            except OSError as error:
                yield path, unread(error)
                continue
            if inner < 0:
                yield path, signature_of(found) or NO_FILE
                continue
            try:
                if path.count("/") < CONTEXT_PATH_DEPTH_MAX:
                    yield from self._walk(inner, path + "/", leaves_out)
            finally:
                os.close(inner)

    # --- writing ------------------------------------------------------------------------------

    def prepare(
        self, path: str, name: str, chunks: Iterable[bytes], *, x: bool, sync: bool
    ) -> Signature | None:
        """Write a file whole, under another name beside its place. Raises: InTheWay, OSError."""
        try:
            return self._prepare(path, name, chunks, x=x, sync=sync)
        except FileNotFoundError:
            if not self._held:
                raise
            # The folder that is held open was taken away since.
            self.leave()
            return self._prepare(path, name, chunks, x=x, sync=sync)

    def _prepare(
        self, path: str, name: str, chunks: Iterable[bytes], *, x: bool, sync: bool
    ) -> Signature | None:
        with self._parent(path, make=True) as (folder, own):
            mode = mode_of(own, folder, x=x)
            file, whole = os.open(name, NEW, mode or (0o755 if x else 0o644), dir_fd=folder), False
            try:
                if mode is not None:
                    give_mode(file, mode)
                for chunk in chunks:
                    left = memoryview(chunk)
                    while left:
                        left = left[os.write(file, left) :]
                if sync:
                    make_last(file, os.fdatasync)
                made = signature_of(os.fstat(file))
                whole = True
                return made
            finally:
                os.close(file)
                if not whole:
                    # The error that ended it is raised; `remove_unfinished` removes the rest.
                    with contextlib.suppress(OSError):
                        os.unlink(name, dir_fd=folder)

    def sync(self) -> None:
        """What was prepared outlasts the power. Raises: OSError."""
        with self._folder([]) as folder:
            if libc is None or libc.syncfs(folder):
                os.sync()

    def swap(self, path: str, name: str, *, expected: bool, sync: bool = True) -> Swapped:
        """Give a prepared file its place, where a file is expected, or nothing is.

        What has the place then lies under `name`. Raises: InTheWay, OSError.
        """
        with self._parent(path, anew=expected) as (folder, own):
            new = signature_in(name, folder)
            if not expected or not exchange(name, own, folder):
                if not move(name, own, folder):
                    there = os.stat(own, dir_fd=folder, follow_symlinks=False)
                    if stat.S_ISDIR(there.st_mode):
                        raise InTheWay(f"a folder lies where {path} is to be: it stays")
                    return Swapped(None, met=True)
                found = Swapped(new)
            else:
                old = signature_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
                if old is None:
                    # A folder, or a link, has the place now: it gets it back.
                    exchange(name, own, folder)
                    return Swapped(None, met=True)
                found = Swapped(new, name, old)
            if sync:
                make_last(folder)
            return found

    def take_away(self, path: str, name: str, *, sync: bool = True) -> Swapped:
        """Give the file at a path another name. Raises: InTheWay, OSError."""
        try:
            with self._parent(path, anew=True) as (folder, own):
                if not move(own, name, folder):
                    return Swapped(None, met=True)
                old = signature_of(os.stat(name, dir_fd=folder, follow_symlinks=False))
                if old is None:
                    move(name, own, folder)
                    return Swapped(None, met=True)
                if sync:
                    make_last(folder)
                return Swapped(None, name, old)
        except FileNotFoundError:
            return Swapped(None)

    def give_back(self, path: str, name: str, expected: Signature | None) -> bool:
        """Give what was replaced its place again, while there is what replaced it, or nothing.

        What has the place then lies under `name`, if anything. Raises: InTheWay, OSError.
        """
        with self._parent(path, anew=True) as (folder, own):
            if expected is None:
                return move(name, own, folder)
            try:
                if signature_in(own, folder) != expected or not exchange(name, own, folder):
                    return False
                if signature_in(name, folder) == expected:
                    return True
            except FileNotFoundError:
                return False
            # Somebody saved it at this moment: that is what he wants to be there.
            exchange(name, own, folder)
            return False

    def mend(self, path: str, name: str) -> None:
        """Bring back what a crash left between two names, where they change in three steps."""
        aside = name + ASIDE
        # Nothing is left between two names: there is nothing to bring back.
        with contextlib.suppress(FileNotFoundError), self._parent(path) as (folder, own):
            os.stat(aside, dir_fd=folder, follow_symlinks=False)
            if not move(aside, own, folder) and not move(aside, name, folder):
                raise InTheWay(f"{aside} was left by a crash beside {path}: look at it by hand")

    def drop(self, path: str, name: str, only: Signature | None = None) -> bool:
        """Remove what lies beside a path under this name; whether it was there, and is `only` that.

        Raises: InTheWay, OSError.
        """
        # It is gone already, which the answer says.
        with contextlib.suppress(FileNotFoundError), self._parent(path) as (folder, _):
            if only is not None and signature_in(name, folder) != only:
                return False
            os.unlink(name, dir_fd=folder)
            return True
        return False

    def tidy(self, path: str) -> None:
        """Remove the folders above a path that are empty."""
        parts = path.split("/")[:-1]
        # One that is not empty, or is a link, ends it: all above it stay too.
        with contextlib.suppress(OSError, InTheWay):
            while parts:
                with self._folder(parts[:-1]) as folder:
                    os.rmdir(parts.pop(), dir_fd=folder)


def unread(error: OSError) -> str:
    """Why one path cannot be read. Raises: OSError, the same, where that is not of one path."""
    if error.errno not in OF_PATH:
        raise error
    return f"it cannot be read ({error.strerror})"


def temporary_name() -> str:
    """A name that nobody else has, for a file that is not whole yet, or not needed any more."""
    return TEMPORARY + secrets.token_hex(8)
