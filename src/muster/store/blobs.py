"""Blobs: bytes too large for an entry, in a folder, each under its sha256.

Rule 1: a blob that `put` or `Incoming.keep` returned for is durable and whole.
Rule 2: every read is checked against the name; a rotten blob is reported, never passed off as good.
Rule 3: a hash is not a capability: who may read is decided above, by the entry that names it. So a
blob keeps its claims beside it: under what this machine came to have it. Another entry that names
the same hash gives nobody a right to our copy.
Rule 4: what is half written is never seen under a name, and is gone after the next start; or lies
apart, under what it is fetched for, to be gone on with. Of that nothing is believed: it is read
again, and all of it counts by its hash alone.

The folder is spread over 256 folders by the first two digits, so that no listing grows huge.
"""

import contextlib
import hashlib
import json
import os
import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final, Self

from muster.atomic_file import failed, sync_folder, sync_handle, write_file
from muster.errors import (
    USED_UP,
    Broken,
    Exhausted,
    Forged,
    Malformed,
    NotFound,
    unable,
)
from muster.limits import BLOB_BYTES_MAX, BLOB_CLAIMS_MAX, BLOB_PARTS_MAX

_NAME: Final = re.compile(r"[0-9a-f]{64}")
_CHUNK: Final = 256 * 1024
_TEMPORARY: Final = ".tmp-"
_CLAIMS: Final = ".claims"
# The blob that is fetched, and the claim under which it will be here.
_PART: Final = re.compile(r"\.part-([0-9a-f]{64})-([a-z]+)-([0-9a-f]{64})")


class Incoming:
    """A blob that is being written. Leaving the context without `keep` leaves nothing; or, of one
    that is gone on with (`Blobs.resume`), what came, unless that was not what was announced.
    """

    def __init__(
        self,
        folder: Path,
        place: Callable[[str], Path],
        size_max: int,
        part: Path | None = None,
        ended: Callable[[Path], None] = lambda _: None,
    ) -> None:
        # How many bytes are here.
        self.size = 0
        self._place = place
        self._size_max = size_max
        self._leaves = part is not None
        self._ended = ended
        self._hash = hashlib.sha256()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if part is None:
                handle, name = tempfile.mkstemp(prefix=_TEMPORARY, dir=folder)
            else:
                handle, name = os.open(part, os.O_RDWR | os.O_CREAT, 0o600), str(part)
        except OSError as error:
            raise failed(folder, error) from error
        self._path = Path(name)
        self._file = os.fdopen(handle, "r+b")

    def go_on(self) -> None:
        """Have what an earlier transfer left, `size` bytes of it. Raises: Broken."""
        try:
            while chunk := self._file.read(_CHUNK):
                self.size += len(chunk)
                self._hash.update(chunk)
            if self.size > self._size_max:
                self._hash, self.size = hashlib.sha256(), 0
                self._file.seek(0)
                self._file.truncate()
        except OSError as error:
            self._leaves = False
            raise failed(self._path, error) from error

    def write(self, data: bytes) -> int:
        """Add bytes. Raises: Malformed beyond the size, Broken."""
        if self.size + len(data) > self._size_max:
            self._leaves = False
            raise Malformed(f"a blob has more than the {self._size_max} bytes it may have")
        self.size += len(data)
        self._hash.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            # A disk that is full is not kept full by what may never be gone on with.
            self._leaves = False
            raise failed(self._path, error) from error

    def keep(self, sha256: str | None = None, size: int | None = None) -> str:
        """Make it count; its name. Durable on return.

        Raises: Forged: it is not what was announced; nothing is kept. Broken: the disk refused.
        """
        name = self._hash.hexdigest()
        if (sha256 is not None and sha256 != name) or (size is not None and size != self.size):
            self._leaves = False
            raise Forged(
                f"The blob {sha256 or ''} arrived as other bytes ({name}, {self.size} bytes); "
                "fetch it again."
            )
        path = self._place(name)
        try:
            self._file.flush()
            sync_handle(self._file.fileno())
            self._file.close()
            path.parent.mkdir(parents=True, exist_ok=True)
            os.replace(self._path, path)
            sync_folder(path.parent)
        except OSError as error:
            raise failed(path, error) from error
        return name

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        # A disk that is full says so once more on closing; that was raised before.
        with contextlib.suppress(OSError):
            self._file.close()
        if not (self._leaves and 0 < self.size < self._size_max):
            self._path.unlink(missing_ok=True)
        self._ended(self._path)


class Blobs:
    """The blobs under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        # What is gone on with now: by one transfer at a time. Threads come here, too.
        self._under_way: set[Path] = set()
        self._lock = threading.Lock()

    def put(self, data: bytes) -> str:
        """Keep `data` and return its sha256; durable on return, putting twice is harmless.

        Raises: Broken: the disk refused.
        """
        name = hashlib.sha256(data).hexdigest()
        path = self._path(name)
        # A second put is the way a rotten blob is healed, so its bytes are looked at.
        if self.intact(name):
            return name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise failed(path.parent, error) from error
        write_file(path, data)
        return name

    def incoming(self, size_max: int = BLOB_BYTES_MAX) -> Incoming:
        """A blob to be written piece by piece. Raises: Broken."""
        return Incoming(self._folder, self._path, size_max)

    def resume(self, sha256: str, claim: str, size_max: int) -> Incoming:
        """The same for a blob that is to be here under this claim; `go_on` has what came before.

        While another one goes on with it, it begins anew. Raises: Broken.
        """
        path = self._folder / f".part-{sha256}-{claim.replace(' ', '-', 1)}"
        if not _PART.fullmatch(path.name):
            raise Malformed(f"{sha256[:80]!r} is not the sha256 of a blob of an entry.")
        with self._lock:
            if path in self._under_way:
                return self.incoming(size_max)
            self._under_way.add(path)
            self._drop_oldest({*self._under_way, path})
        try:
            return Incoming(self._folder, self._path, size_max, path, self._over)
        except Broken:
            self._over(path)
            raise

    def _over(self, path: Path) -> None:
        with self._lock:
            self._under_way.discard(path)

    def _drop_oldest(self, used: set[Path]) -> None:
        """Of what nobody goes on with so much may lie here, the newest."""
        found: list[tuple[int, Path]] = []
        for path in self._folder.glob(".part-*"):
            # It became whole meanwhile, or was dropped.
            with contextlib.suppress(FileNotFoundError):
                found += [(path.stat().st_mtime_ns, path)] * (path not in used)
        for _, path in sorted(found)[: -BLOB_PARTS_MAX or None]:
            path.unlink(missing_ok=True)

    def piece(self, sha256: str, at: int, size: int) -> bytes:
        """So many bytes of the blob from `at` on, unchecked. Raises: NotFound, Broken."""
        with self.open(sha256) as file:
            try:
                file.seek(at)
                return file.read(size)
            except OSError as error:
                raise unable(f"The blob {sha256} cannot be read ({error}).", error) from error

    def get(self, sha256: str) -> bytes:
        """Return the blob.

        Raises: NotFound: it is not here.
            Broken: it rotted on this disk; fetch it from another machine and `put` it again.
        """
        return b"".join(self.read(sha256))

    def read(self, sha256: str) -> Iterator[bytes]:
        """The blob piece by piece. What came counts only once the iteration has ended.

        Raises: NotFound, Broken as `get`; that it rotted only at the end.
        """
        path, found = self._path(sha256), hashlib.sha256()
        try:
            with path.open("rb") as file:
                while chunk := file.read(_CHUNK):
                    found.update(chunk)
                    yield chunk
        except FileNotFoundError as error:
            raise NotFound(f"The blob {sha256} is not on this machine.") from error
        except OSError as error:
            what = f"The blob {sha256} cannot be read ({error}); check the disk."
            raise unable(what, error) from error
        if found.hexdigest() != sha256:
            raise Broken(f"The blob {sha256} rotted on this disk; fetch it from another machine.")

    def open(self, sha256: str) -> BinaryIO:
        """The blob as a file, unchecked: for what was found `intact`. Raises: NotFound."""
        try:
            return self._path(sha256).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"The blob {sha256} is not on this machine.") from error
        except OSError as error:
            raise unable(f"The blob {sha256} cannot be read ({error}).", error) from error

    def has(self, sha256: str) -> bool:
        """Return whether the blob is here, without reading it."""
        return self._path(sha256).is_file()

    def intact(self, sha256: str) -> bool:
        """Return whether the blob is here, and what its name says."""
        try:
            for _ in self.read(sha256):
                pass
        except (NotFound, Broken):
            return False
        return True

    def drop(self, sha256: str) -> None:
        """Forget the blob and its claims; harmless when it is not here."""
        path = self._path(sha256)
        path.unlink(missing_ok=True)
        path.with_name(path.name + _CLAIMS).unlink(missing_ok=True)

    def claim(self, sha256: str, claim: str) -> None:
        """Remember under what this machine has the blob; durable on return."""
        path, known = self._path(sha256), self.claims(sha256)
        if claim in known:
            return
        # The newest are kept: whoever asks, asks for what a run has just yielded. So is the first,
        # which the last sweep has confirmed: those after it may turn out to be nothing.
        self._write_claims(path, [*known[:1], *known[1:][2 - BLOB_CLAIMS_MAX :], claim])

    def _write_claims(self, path: Path, claims: list[str]) -> None:
        write_file(path.with_name(path.name + _CLAIMS), json.dumps(claims).encode())

    def claims(self, sha256: str) -> tuple[str, ...]:
        """Under what this machine has the blob; nothing where that cannot be read.

        Raises: Exhausted: not now.
        """
        path = self._path(sha256)
        try:
            found = json.loads(path.with_name(path.name + _CLAIMS).read_bytes())
        except OSError as error:
            # No file is no claim; a shortage of descriptors is not: a sweep would remove the blob.
            if error.errno in USED_UP:
                raise Exhausted(f"The claims of {sha256} cannot be read ({error}).") from error
            return ()
        except ValueError:
            return ()
        return tuple(str(each) for each in found) if isinstance(found, list) else ()

    def sweep(self, named: Callable[[str, str], bool]) -> int:
        """Remove what was half written, and each blob without a claim that `named` confirms.

        What may be gone on with stays where `named` confirms its claim.

        For a start, before anything is written. Returns how many blobs went.
        """
        for path in self._folder.rglob(f"{_TEMPORARY}*"):
            path.unlink(missing_ok=True)
        for path in self._folder.glob(".part-*"):
            part = _PART.fullmatch(path.name)
            if part is None or not named(part[1], f"{part[2]} {part[3]}"):
                path.unlink(missing_ok=True)
        gone = 0
        for name in list(self):
            claims = self.claims(name)
            confirmed = [claim for claim in claims if named(name, claim)]
            if not confirmed:
                self.drop(name)
                gone += 1
            elif len(confirmed) < len(claims):
                self._write_claims(self._path(name), confirmed)
        return gone

    def __iter__(self) -> Iterator[str]:
        """Give the names of all blobs, in order."""
        for path in sorted(self._folder.glob("[0-9a-f][0-9a-f]/*")):
            name = path.parent.name + path.name
            if _NAME.fullmatch(name):
                yield name

    def _path(self, sha256: str) -> Path:
        # The name comes from a peer: anything but 64 digits could walk out of the folder.
        if not _NAME.fullmatch(sha256):
            raise Malformed(f"{sha256[:80]!r} is not the sha256 of a blob.")
        return self._folder / sha256[:2] / sha256[2:]
