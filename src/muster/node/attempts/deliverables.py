"""Deliverables: from an agent's folder to blobs, and from blobs into a folder.

Rule 1: no link is followed, on the way in or out, at any depth: what an agent points at is not what
it made, and what a tar points at is not in the folder.
Rule 2: only plain files and folders travel, under names that every system takes; the rest is
refused by name, never left out silently.
Rule 3: the same content gives the same bytes: a folder's tar has sorted names, no times, no owners.
Rule 4: a file appears at its place whole, and nothing that is there is replaced unless asked.

Everything here blocks on the disk: the daemon calls it in a thread.
"""

import contextlib
import errno
import os
import secrets
import stat
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from muster import limits
from muster.errors import Broken, Conflict, Malformed, MusterError, Refused, unable
from muster.store.blobs import Blobs, Incoming
from muster.task.artefact import Artefact, Shape
from muster.task.units import path_refusal

_CHUNK: Final = 256 * 1024
_INNER_PATH_CHARS_MAX: Final = 1_000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# Not blocking: opening a pipe that nobody writes to would wait for ever.
_FILE: Final = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


def missing(folder: Path, deliver: Iterable[str]) -> list[str]:
    """What was promised and is not there."""
    return [path for path in deliver if not os.path.lexists(folder / path)]


def collect(folder: Path, deliver: Sequence[str], blobs: Blobs) -> list[Artefact]:
    """Keep each deliverable as a blob; all are durable on return.

    Raises: Refused: something cannot be delivered; Broken: the disk refused.
    """
    wanted = sorted({path.removesuffix("/") for path in deliver})
    found: list[Artefact] = []
    total = 0
    for path in wanted:
        if any(path.startswith(f"{other}/") for other in wanted):
            # It travels in the folder that is delivered, too.
            continue
        with _opened(folder, path) as handle, blobs.incoming() as blob:
            shape = _copy(handle, path, blob)
            total += blob.size
            if total > limits.BLOB_ATTEMPT_BYTES_MAX:
                raise Refused(
                    f"the deliverables are more than {limits.BLOB_ATTEMPT_BYTES_MAX} bytes; "
                    "deliver less, or use a repository"
                )
            found.append(Artefact(path, blob.keep(), blob.size, shape))
    if sum(len(str(each).encode()) for each in found) > limits.ARTEFACT_NAMES_BYTES_MAX:
        raise Refused("the deliverables have too many or too long names; deliver one folder")
    return found


_WHY_NOT: Final = {
    errno.ENXIO: "it is neither a file nor a folder",
    errno.EACCES: "it cannot be read",
    errno.EPERM: "it cannot be read",
}


@contextlib.contextmanager
def _opened(folder: Path, path: str) -> Iterator[int]:
    """A file or folder below `folder`, reached through no link."""
    *above, last = path.split("/")
    try:
        at = os.open(folder, _FOLDER)
        try:
            for part in above:
                below = os.open(part, _FOLDER, dir_fd=at)
                os.close(at)
                at = below
            handle = os.open(last, _FILE, dir_fd=at)
        finally:
            os.close(at)
    except OSError as error:
        why = _WHY_NOT.get(error.errno or 0, "it is a link, or behind one")
        raise Refused(f"{path} cannot be delivered: {why}") from error
    try:
        yield handle
    finally:
        os.close(handle)


def _copy(handle: int, path: str, blob: Incoming) -> Shape:
    about = os.fstat(handle)
    try:
        if stat.S_ISREG(about.st_mode):
            while chunk := os.read(handle, _CHUNK):
                blob.write(chunk)
            return "program" if about.st_mode & 0o100 else "file"
        if stat.S_ISDIR(about.st_mode):
            _pack(handle, blob)
            return "folder"
    except Malformed as error:
        most = limits.BLOB_BYTES_MAX
        raise Refused(f"{path} is more than {most} bytes; deliver it in parts") from error
    raise Refused(f"{path} is neither a file nor a folder")


def _pack(handle: int, blob: Incoming) -> None:
    out: Any = blob
    with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
        for count, (name, file) in enumerate(_below(handle, "")):
            if count >= limits.BLOB_FOLDER_ENTRIES_MAX:
                raise Refused(
                    f"a delivered folder has more than {limits.BLOB_FOLDER_ENTRIES_MAX} entries; "
                    "deliver an archive instead"
                )
            about, info = os.fstat(file), tarfile.TarInfo(name)
            if stat.S_ISDIR(about.st_mode):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(info)
                continue
            info.size, info.mode = about.st_size, 0o755 if about.st_mode & 0o100 else 0o644
            with os.fdopen(os.dup(file), "rb") as content:
                tar.addfile(info, content)


def _below(handle: int, above: str) -> Iterator[tuple[str, int]]:
    """Everything in an open folder, in order; each handle is open until the next is asked for."""
    for part in sorted(os.listdir(handle)):
        name = f"{above}{part}"
        if refusal := _inner_refusal(name):
            raise Refused(f"{name!a} in a delivered folder {refusal}")
        try:
            file = os.open(part, _FILE, dir_fd=handle)
        except OSError as error:
            raise Refused(f"{name} in a delivered folder is a link or unreadable") from error
        try:
            mode = os.fstat(file).st_mode
            if not stat.S_ISREG(mode) and not stat.S_ISDIR(mode):
                raise Refused(f"{name} in a delivered folder is neither a file nor a folder")
            yield name, file
            if stat.S_ISDIR(mode):
                yield from _below(file, f"{name}/")
        finally:
            os.close(file)


def _inner_refusal(name: str) -> str:
    """Why a path inside a folder's tar is none, or ""."""
    if len(name) > _INNER_PATH_CHARS_MAX or name.count("/") > limits.BLOB_FOLDER_DEPTH_MAX:
        return "lies too deep"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "is not UTF-8"
    # Below the folder a name may begin with a dash: no command is handed it alone.
    parts = name.split("/")
    if "" in parts:
        return "is no plain path"
    return next(filter(None, (path_refusal(f"x/{part}") for part in parts)), "")


class Target:
    """A folder that artefacts are placed into."""

    def __init__(self, folder: Path, *, force: bool = False) -> None:
        self.folder = folder
        self.force = force

    def check(self, artefacts: Iterable[Artefact]) -> None:
        """Raises: Conflict where something is there already; nothing was changed then."""
        for each in artefacts:
            if not self.force and os.path.lexists(self.folder / each.path):
                raise Conflict(
                    f"{self.folder / each.path} is there already; --force replaces it, or give "
                    "another folder with --to"
                )

    def place(self, artefact: Artefact, blobs: Blobs) -> None:
        """Put one artefact at its place. Raises: Conflict, Refused, NotFound, Broken."""
        try:
            if artefact.shape == "folder":
                self._unpack(artefact, blobs)
            else:
                mode = 0o755 if artefact.shape == "program" else 0o644
                self._file(artefact.path, mode, blobs.read(artefact.sha256))
        except OSError as error:
            why = error.strerror or error
            what = f"{self.folder / artefact.path} cannot be written ({why})"
            raise unable(what, error) from error

    def _file(self, path: str, mode: int, chunks: Iterable[bytes]) -> None:
        """The file, whole or not at all, as replacing a name is one act."""
        *above, last = path.split("/")
        with self._inside(above) as at:
            # Nothing has this name yet, which is what is asked for.
            with contextlib.suppress(FileNotFoundError):
                if not self.force and os.stat(last, dir_fd=at, follow_symlinks=False):
                    raise Conflict(f"{self.folder / path} is there already")
            temporary = f".muster-{secrets.token_hex(8)}"
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            try:
                with os.fdopen(os.open(temporary, flags, mode, dir_fd=at), "wb") as file:
                    for chunk in chunks:
                        file.write(chunk)
                os.rename(temporary, last, src_dir_fd=at, dst_dir_fd=at)
            except (OSError, MusterError):
                # The first error is raised; what could not be made is most often not there.
                with contextlib.suppress(OSError):
                    os.unlink(temporary, dir_fd=at)
                raise

    @contextlib.contextmanager
    def _inside(self, parts: Iterable[str]) -> Iterator[int]:
        """A folder below ours, made where it is missing; reached through no link."""
        self.folder.mkdir(parents=True, exist_ok=True)
        at = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            for part in parts:
                with contextlib.suppress(FileExistsError):
                    os.mkdir(part, 0o755, dir_fd=at)
                try:
                    below = os.open(part, _FOLDER, dir_fd=at)
                except OSError as error:
                    raise Refused(f"{part} in {self.folder} is a link or no folder") from error
                os.close(at)
                at = below
            yield at
        finally:
            os.close(at)

    def _unpack(self, artefact: Artefact, blobs: Blobs) -> None:
        # The whole is looked at before any of it is believed.
        if not blobs.intact(artefact.sha256):
            raise Broken(f"the blob of {artefact.path} is not here whole; fetch it again")
        with self._inside(artefact.path.split("/")):
            pass
        with blobs.open(artefact.sha256) as raw:
            try:
                with tarfile.open(fileobj=raw, mode="r|") as tar:
                    self._members(artefact, tar)
            except (tarfile.TarError, ValueError, EOFError, RecursionError) as error:
                raise Malformed(f"the folder {artefact.path} arrived as no tar") from error

    def _members(self, artefact: Artefact, tar: tarfile.TarFile) -> None:
        room = artefact.size
        for count, member in enumerate(tar):
            plain = member.type == tarfile.REGTYPE and member.sparse is None
            refusal = _inner_refusal(member.name)
            if count >= limits.BLOB_FOLDER_ENTRIES_MAX:
                refusal = "is one too many"
            elif not plain and member.type != tarfile.DIRTYPE:
                refusal = "is neither a file nor a folder"
            elif member.size < 0:
                refusal = "is less than empty"
            room -= member.size
            if refusal or room < 0:
                raise Malformed(
                    f"{ascii(member.name)[:80]} in {artefact.path} {refusal or 'is too large'}"
                )
            path = f"{artefact.path}/{member.name}"
            if not plain:
                with self._inside(path.split("/")):
                    continue
            content = tar.extractfile(member)
            assert content is not None, "a plain file has content"
            chunks = iter(partial(content.read, _CHUNK), b"")
            self._file(path, 0o755 if member.mode & 0o100 else 0o644, chunks)
