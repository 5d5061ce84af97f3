"""A file below a folder, reached through no link that leads out of it; and one that comes in parts.

Rule 1: what is looked at is what is opened: a path is resolved once, compared, and then walked from
the folder on by descriptors that follow no link. Who puts a link there meanwhile is refused.
Rule 2: only plain files are read and replaced: a pipe would wait, a device would act.
Rule 3: nothing of the folders that are `shut` is read or written, by whatever way.
Rule 4: what comes lies beside its place under a name of its own until all of it is there, and is
hashed from its first byte on, also what lay there from an earlier try.
"""

import contextlib
import errno
import fcntl
import os
import stat
from collections.abc import Iterator, Sequence
from hashlib import sha256
from typing import Final, NamedTuple, Self

from muster.atomic_file import sync_handle
from muster.errors import Conflict, Denied, Malformed, MusterError, NotFound, Refused, unable
from muster.printable import visible

NAME_BYTES_MAX: Final = 255
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE: Final = os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_HASHED_BYTES: Final = 1024 * 1024


class Spot(NamedTuple):
    """Where a file is or will be: a descriptor of its folder, its name there, its whole path."""

    folder: int
    name: str
    path: str


@contextlib.contextmanager
def spot(
    root: str,
    path: str,
    *,
    person: str,
    shut: Sequence[str],
    follow: bool = False,
    make: bool = False,
    itself: bool = False,
) -> Iterator[Spot]:
    """The file at `path` below the folder `root`, which may begin with `~`, the home of `person`.

    `follow`: where it is itself a link that stays below `root`, what that leads to. `make`: the
    folders between, where there are none. `itself`: the path `.` is the folder.
    Raises: Malformed for what is no such path, NotFound, Refused, Denied.
    """
    parts = ["."] if itself and path == "." else _parts(path)
    top = os.path.realpath(_absolute(root, person))
    whole = os.path.join(top, *parts)
    above, name = os.path.realpath(os.path.dirname(whole)), parts[-1]
    if follow and os.path.islink(os.path.join(above, name)):
        above, name = os.path.split(os.path.realpath(whole))
    said = visible(f"{root}/{path}")[:200]
    if not is_in(above, top):
        raise Refused(f"{said} leads out of {visible(root)[:100]} by a link: name where it leads")
    closed = [os.path.realpath(each) for each in shut]
    if any(is_in(above, each) for each in closed):
        raise Denied(f"{said} is in Muster's own home, which holds its keys: it is never copied")
    marks = {_mark(os.stat(each)) for each in closed if os.path.isdir(each)}
    with contextlib.ExitStack() as stack:
        at = _open_folder(top, None, said, stack)
        for part in filter(None, os.path.relpath(above, top).split(os.sep)):
            if part != os.curdir:
                if make:
                    _make(part, at, said)
                at = _open_folder(part, at, said, stack)
                if _mark(os.fstat(at)) in marks:
                    raise Denied(f"{said} is in Muster's own home: it is never copied")
        yield Spot(at, name, os.path.join(above, name))


def _parts(path: str) -> list[str]:
    try:
        parts = os.fsencode(path).decode().split("/")
    except UnicodeError:
        parts = []
    good = all(part not in ("", ".", "..") and _fits(part) for part in parts)
    if not parts or not good or "\0" in path:
        raise Malformed(f"{visible(path)[:80]!r} is no path below a folder: no `..`, no empty part")
    return parts


def _fits(name: str) -> bool:
    return len(name.encode()) <= NAME_BYTES_MAX


def _absolute(root: str, person: str) -> str:
    first, slash, rest = root.partition("/")
    found = f"{person}{slash}{rest}" if first == "~" else root
    if not os.path.isabs(found) or "\0" in found or ".." in found.split("/"):
        raise Malformed(
            f"{visible(root)[:80]!r} is no folder: a whole path, or one that begins with ~, no `..`"
        )
    return found


def is_in(path: str, folder: str) -> bool:
    """Whether a whole path is that folder, or is below it."""
    return folder in ("/", path) or path.startswith(f"{folder}/")


def _mark(found: os.stat_result) -> tuple[int, int]:
    return found.st_dev, found.st_ino


def _open_folder(name: str, at: int | None, said: str, stack: contextlib.ExitStack) -> int:
    try:
        found = os.open(name, _FOLDER, dir_fd=at)
    except FileNotFoundError as error:
        raise NotFound(f"the folder of {said} is not there: make it first") from error
    except OSError as error:
        raise _refusal(said, error) from error
    stack.callback(os.close, found)
    return found


def _make(name: str, at: int, said: str) -> None:
    try:
        os.mkdir(name, dir_fd=at)
    except FileExistsError:
        return
    except OSError as error:
        raise _refusal(said, error) from error


def _refusal(said: str, error: OSError) -> MusterError:
    if error.errno == errno.ENOENT:
        return NotFound(f"there is no {said} there")
    if error.errno in (errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENXIO):
        return Refused(f"{said} is a link, a device or no folder: only plain files are copied")
    if isinstance(error, PermissionError):
        return Refused(f"{said} is not to be opened by whose daemon runs there")
    return unable(f"{said}: {error.strerror}", error)


def open_file(at: Spot) -> int:
    """A descriptor of a plain file, to read. Raises: NotFound, Refused."""
    said = visible(at.path)[:200]
    try:
        found = os.open(at.name, os.O_RDONLY | _FILE, dir_fd=at.folder)
    except OSError as error:
        raise _refusal(said, error) from error
    if not stat.S_ISREG(os.fstat(found).st_mode):
        os.close(found)
        raise Refused(f"{said} is no plain file: folders, pipes and devices are not copied")
    return found


def is_there(at: Spot, size: int, digest: str) -> bool:
    """Whether a plain file of this size and digest is there already."""
    try:
        file = open_file(at)
    except MusterError:
        return False
    try:
        known, left = sha256(), os.fstat(file).st_size == size
        while left and (piece := os.read(file, _HASHED_BYTES)):
            known.update(piece)
        return left and known.hexdigest() == digest
    finally:
        os.close(file)


def is_taken(at: Spot) -> bool:
    """Whether anything at all has that name."""
    try:
        os.stat(at.name, dir_fd=at.folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


class Part:
    """A file that comes; use it as a context. `size` bytes of it are there, `digest` is theirs."""

    def __init__(self, at: Spot, key: str) -> None:
        """`key`: what tells it from other files of that name. Raises: Refused, Conflict."""
        self._at, said = at, visible(at.path)[:200]
        mark = sha256(f"{at.name}\n{key}".encode()).hexdigest()[:24]
        self._name = f".muster-{mark}.part"
        # Nothing has this name yet: it may be made.
        with contextlib.suppress(FileNotFoundError):
            there = os.stat(at.name, dir_fd=at.folder, follow_symlinks=False).st_mode
            if stat.S_ISDIR(there):
                raise Conflict(f"{said} is a folder: end the target with / to copy into it")
            if not stat.S_ISREG(there):
                raise Refused(f"{said} is a link or no plain file, and is not replaced")
        try:
            self._file = os.open(
                self._name, os.O_RDWR | os.O_CREAT | _FILE, 0o600, dir_fd=at.folder
            )
        except OSError as error:
            raise _refusal(said, error) from error
        try:
            self._claim(said)
        except MusterError:
            os.close(self._file)
            raise
        self.size, self._hash, self._placed = 0, sha256(), False

    def _claim(self, said: str) -> None:
        """Raises: Refused for what somebody else put there, Conflict while another one writes."""
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            named = os.stat(self._name, dir_fd=self._at.folder, follow_symlinks=False)
        except OSError as error:
            raise Conflict(f"{said} is being copied by another command: wait for it") from error
        found = os.fstat(self._file)
        if _mark(named) != _mark(found):
            raise Conflict(f"{said} was just copied by another command: give this one again")
        plain = stat.S_ISREG(found.st_mode) and found.st_nlink == 1
        if not plain or found.st_uid != os.geteuid():
            raise Refused(f"beside {said} lies a {self._name} that is not ours: remove it there")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # Nothing of it came: there is nothing to go on with.
        if not self._placed and os.fstat(self._file).st_size == 0:
            self.discard()
        os.close(self._file)

    @property
    def digest(self) -> str:
        return self._hash.hexdigest()

    def resume(self, most: int) -> int:
        """Take up what lies there from an earlier try; from which byte on it goes on.

        What is longer than `most` bytes is of another file: it begins anew.
        """
        if os.fstat(self._file).st_size > most:
            self.begin()
        while piece := os.read(self._file, _HASHED_BYTES):
            self._hash.update(piece)
            self.size += len(piece)
        return self.size

    def begin(self) -> None:
        """Forget what lies there."""
        os.ftruncate(self._file, 0)
        os.lseek(self._file, 0, os.SEEK_SET)
        self.size, self._hash = 0, sha256()

    def write(self, data: bytes) -> None:
        """Raises: Broken, Exhausted: the disk refused."""
        try:
            left = memoryview(data)
            while left:
                left = left[os.write(self._file, left) :]
        except OSError as error:
            raise self._failed(error) from error
        self._hash.update(data)
        self.size += len(data)

    def place(self, mode: int, *, new: bool = False) -> None:
        """All of it is there: put it in its place, durably. `new`: where nothing is yet.

        Raises: Broken, Exhausted; Refused where `new` is not so.
        """
        try:
            os.fchmod(self._file, mode)
            sync_handle(self._file)
            at = self._at.folder
            if new:
                # No other call puts a name there that nothing has yet, whoever is quicker.
                os.link(self._name, self._at.name, src_dir_fd=at, dst_dir_fd=at)
                os.unlink(self._name, dir_fd=at)
            else:
                os.rename(self._name, self._at.name, src_dir_fd=at, dst_dir_fd=at)
            os.fsync(at)
        except FileExistsError as error:
            raise Refused("a file of that name is there by now, and is not replaced") from error
        except OSError as error:
            raise self._failed(error) from error
        self._placed = True

    def _failed(self, error: OSError) -> MusterError:
        return unable(f"{visible(self._at.path)[:200]} is not written: {error.strerror}", error)

    def discard(self) -> None:
        """It is of no use: it is gone."""
        # It is most often not there; the next copy of the same begins it anew.
        with contextlib.suppress(OSError):
            os.unlink(self._name, dir_fd=self._at.folder)
