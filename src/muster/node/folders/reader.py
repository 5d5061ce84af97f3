"""What became of a file on the disk since it was last seen, and whether it can be a version.

Rule 1: an event is a hint, and the signature decides: unchanged, nothing is read.
Rule 2: a file is read when nobody wrote it for `FRESH_MS`, and counts when nobody wrote it
meanwhile: what is half written is no version.
Rule 3: what has a key in it, or is too large, is not read into an entry: nobody takes that back.
"""

import hashlib
import os
from enum import Enum
from typing import Final, NamedTuple

from muster.context.kinds import holding
from muster.context.path import path_refusal
from muster.context.secret import Found, Search, find_doubtful, find_secret
from muster.limits import BLOB_BYTES_MAX, CONTEXT_ASK_BYTES, CONTEXT_INLINE_BYTES_MAX
from muster.node.folders.basis import Base
from muster.node.folders.disk import Disk
from muster.node.folders.onestep import InTheWay
from muster.node.folders.signature import Signature
from muster.node.host import clock
from muster.store.blobs import Blobs

# An editor and a copy write a file within this; measured, a shorter pause showed halves of files.
FRESH_MS: Final = 30
_CHUNK: Final = 256 * 1024


class Change(NamedTuple):
    """What a file is now, as fields of a version: no signature where it is gone."""

    path: str
    signature: Signature | None
    digest: bytes
    said_x: bool
    size: int
    fields: dict[str, object]


class Unfit(NamedTuple):
    """It cannot be a version."""

    why: str


class Soon(Enum):
    """It is being written: look again in `FRESH_MS`."""

    SOON = 0


class Reader:
    """See the rules at the top of this file; `large`: also what is larger than is usual."""

    def __init__(self, disk: Disk, blobs: Blobs, *, large: bool) -> None:
        self.disk, self._blobs, self._large = disk, blobs, large
        # Files that look as if they gave a password; by path, where.
        self.doubtful: dict[str, str] = {}
        # Since when files are gone that were asked for by `lines`.
        self._gone_ms: dict[str, int] = {}

    def look(self, path: str, base: Base | None) -> Change | Unfit | Soon | None:
        """What became of a file; None where it is as it was. Raises: NotThisFolder, OSError."""
        if why := path_refusal(path):
            return Unfit(f"its name {why}")
        return self.look_at(path, base)

    def look_at(self, path: str, base: Base | None) -> Change | Unfit | Soon | None:
        """As `look`, also of a file that nobody would call so."""
        try:
            with self.disk.near():
                return self._looked(path, base)
        except InTheWay as error:
            return Unfit(str(error))

    def _looked(self, path: str, base: Base | None) -> Change | Unfit | Soon | None:
        now = self.disk.signature(path)
        was = base.signature if base is not None else None
        if now is None and was is not None:
            # The folder that is held open may be one that was taken away since.
            now = self.disk.signature(path, anew=True)
            if now is not None:
                self.disk.leave()
        if now is None:
            gone: dict[str, object] = {"gone": 1}
            return Change(path, None, b"", False, 0, gone) if was is not None else None
        return None if now == was else self._read(path, now, base)

    def lines(self, path: str, most: int, *, ours: bool = False) -> tuple[list[str], bool]:
        """The lines of a file, none where it is gone, and whether they are sure to be all of them.

        They are not while somebody writes it, or has just taken it away; what is `ours` was put
        there whole. Of more than `most` bytes the first lines. Raises: InTheWay, NotThisFolder,
        OSError.
        """
        now, wall_ms = self.disk.signature(path), clock.read().wall_ms
        if now is None:
            since_ms = self._gone_ms.setdefault(path, clock.boot_ms())
            return [], clock.boot_ms() - since_ms >= FRESH_MS
        self._gone_ms.pop(path, None)
        try:
            with self.disk.open(path) as file, os.fdopen(os.dup(file), "rb") as reader:
                data = reader.read(most)
        except FileNotFoundError:
            return [], False
        if now.size > most:
            data = data[: data.rfind(b"\n") + 1]
        fresh = not ours and abs(wall_ms - now.mtime_ns // 1_000_000) < FRESH_MS
        is_sure = not fresh and self.disk.signature(path) == now
        return data.decode("utf-8", "replace").splitlines(), is_sure

    def _read(self, path: str, now: Signature, base: Base | None) -> Change | Unfit | Soon:
        age_ms = clock.read().wall_ms - now.mtime_ns // 1_000_000
        if abs(age_ms) < FRESH_MS:
            return Soon.SOON
        if now.size > BLOB_BYTES_MAX:
            return Unfit(f"it has more than {BLOB_BYTES_MAX >> 20} MiB")
        if now.size > CONTEXT_ASK_BYTES and not self._large:
            return Unfit("it has more than 1 MiB: `muster context add` with --large syncs it")
        found = self._content(path, now.size)
        if found is None or self.disk.signature(path) != now:
            return Soon.SOON
        if isinstance(found, Unfit):
            return found
        x = bool(now.x) and self.disk.keeps_x
        if (
            base is not None
            and base.signature is not None
            and bool(base.signature.x) == bool(now.x)
        ):
            # Nobody touched the bit, which may be another here than was said.
            x = base.said_x
        digest, fields = found
        return Change(path, now, digest, x, now.size, {**fields, "x": 1} if x else fields)

    def _content(self, path: str, size: int) -> tuple[bytes, dict[str, object]] | Unfit | None:
        """The digest of a file and its bytes as fields; None where it is gone or has more now."""
        if size > CONTEXT_ASK_BYTES:
            return self._large_content(path, size)
        data = self.disk.read(path, size)
        if data is None:
            return None
        if why := self._secret(path, data):
            return Unfit(why)
        if size > CONTEXT_INLINE_BYTES_MAX:
            name = self._blobs.put(data)
            return bytes.fromhex(name), {"blob": name, "size": size}
        return hashlib.sha256(data).digest(), {**holding(data)}

    def _large_content(
        self, path: str, size: int
    ) -> tuple[bytes, dict[str, object]] | Unfit | None:
        search = Search()
        with (
            self.disk.open(path) as file,
            os.fdopen(os.dup(file), "rb") as reader,
            self._blobs.incoming(size) as blob,
        ):
            while blob.size < size and (chunk := reader.read(min(_CHUNK, size - blob.size))):
                if (found := search.feed(chunk)) is not None:
                    return Unfit(_told(found))
                blob.write(chunk)
            if blob.size != size:
                return None
            name = blob.keep()
        return bytes.fromhex(name), {"blob": name, "size": size}

    def _secret(self, path: str, data: bytes) -> str:
        self.doubtful.pop(path, None)
        text = data.decode("utf-8", "replace")
        if (found := find_secret(text)) is not None:
            return _told(found)
        if (found := find_doubtful(text)) is not None:
            self.doubtful[path] = f"line {found.line} looks like {found.sort}"
        return ""


def _told(found: Found) -> str:
    return (
        f"line {found.line} has {found.sort}: take it out, or leave the file out (`muster context "
        "ignore`)"
    )
