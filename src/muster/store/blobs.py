"""Blobs: bytes too large for an entry, in a folder, each under its sha256.

Rule 1: a blob that `put` returned for is durable and whole.
Rule 2: every read is checked against the name; a rotten blob is reported, never returned.
Rule 3: a hash is not a capability: who may read is decided above, by the entry that names it.

The folder is spread over 256 folders by the first two digits, so that no listing grows huge.
"""

import hashlib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from muster.errors import Broken, Forged, Malformed, NotFound
from muster.store.durable import write_file

_NAME: Final = re.compile(r"[0-9a-f]{64}")


class Blobs:
    """The blobs under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def put(self, data: bytes, sha256: str | None = None) -> str:
        """Keep `data` and return its sha256; durable on return, putting twice is harmless.

        Raises: Forged: `sha256` was given and `data` is something else; nothing is kept.
            Broken: the disk refused.
        """
        name = hashlib.sha256(data).hexdigest()
        if sha256 is not None and sha256 != name:
            raise Forged(f"The blob {sha256} arrived as other bytes ({name}); fetch it again.")
        path = self._path(name)
        if self._intact(path, name):
            return name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise Broken(f"The blob folder {path.parent} cannot be made ({error}).") from error
        write_file(path, data)
        return name

    def get(self, sha256: str) -> bytes:
        """Return the blob.

        Raises: NotFound: it is not here.
            Broken: it rotted on this disk; fetch it from another machine and `put` it again.
        """
        path = self._path(sha256)
        try:
            data = path.read_bytes()
        except FileNotFoundError as error:
            raise NotFound(f"The blob {sha256} is not on this machine.") from error
        except OSError as error:
            raise Broken(f"The blob {sha256} cannot be read ({error}); check the disk.") from error
        if hashlib.sha256(data).hexdigest() != sha256:
            raise Broken(f"The blob {sha256} rotted on this disk; fetch it from another machine.")
        return data

    def has(self, sha256: str) -> bool:
        """Return whether the blob is here, without reading it."""
        return self._path(sha256).is_file()

    def drop(self, sha256: str) -> None:
        """Forget the blob; harmless when it is not here."""
        self._path(sha256).unlink(missing_ok=True)

    def __iter__(self) -> Iterator[str]:
        """Give the names of all blobs, in order."""
        for path in sorted(self._folder.glob("[0-9a-f][0-9a-f]/*")):
            name = path.parent.name + path.name
            if _NAME.fullmatch(name):
                yield name

    def _intact(self, path: Path, name: str) -> bool:
        # A second put is the way a rotten blob is healed, so its bytes are looked at.
        try:
            return hashlib.sha256(path.read_bytes()).hexdigest() == name
        except OSError:
            return False

    def _path(self, sha256: str) -> Path:
        # The name comes from a peer: anything but 64 digits could walk out of the folder.
        if not _NAME.fullmatch(sha256):
            raise Malformed(f"{sha256[:80]!r} is not the sha256 of a blob.")
        return self._folder / sha256[:2] / sha256[2:]
