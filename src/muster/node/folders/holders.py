"""Versions that have the bytes of files on this disk: a copy names one instead of its bytes.

Rule: only what is on the disk, or was a moment ago: of that the others are told that it is needed
yet (`nameable`). Of what was replaced longer ago every machine may have let the bytes go.
"""

from collections.abc import Mapping
from typing import Any, Final

from muster.context.kinds import ContextPut
from muster.limits import CONTEXT_OVER_MAX
from muster.log.entry import EntryId
from muster.node.folders.basis import Base
from muster.node.folders.reader import Change
from muster.node.host import clock
from muster.node.services.context import Place

# Far more than a folder takes to be renamed. What is replaced in it is to fit into what is said.
MOMENT_MS: Final = 300_000
_FORGOTTEN_AT: Final = 10_000
# Shorter ones are said again rather than named.
_SAME_BYTES_MIN: Final = 200


class Holders:
    """See the rule at the top of this file; `bases` are the files as they are known."""

    def __init__(self, bases: Mapping[str, Base]) -> None:
        self._bases = bases
        self._paths: dict[bytes, dict[str, None]] = {}
        self._digests: dict[str, bytes] = {}
        # What was on the disk, and until when it may be named.
        self._left: dict[bytes, tuple[EntryId, int]] = {}
        self._was: dict[str, EntryId] = {}
        for path in bases:
            self.look(path)

    def look(self, path: str) -> None:
        """A file may be another one than before."""
        base, was = self._bases.get(path), self._digests.pop(path, None)
        holder = self._was.pop(path, None)
        if was is not None and holder is not None:
            self._paths[was].pop(path, None)
            if not self._paths[was]:
                del self._paths[was]
            if len(self._left) >= _FORGOTTEN_AT:
                self._left.clear()
            self._left[was] = (holder, clock.boot_ms() + MOMENT_MS)
        if base is not None and base.signature is not None and base.holder:
            self._paths.setdefault(base.digest, {})[path] = None
            self._digests[path], self._was[path] = base.digest, base.holder

    def body(self, place: Place, change: Change, over: frozenset[EntryId]) -> ContextPut:
        """A version of what a file is now, over these."""
        fields: dict[str, Any] = dict(change.fields)
        holder = self.of(change.digest)
        if holder and change.signature is not None and change.size >= _SAME_BYTES_MIN:
            fields = {"same": holder.hex(), **({"x": 1} if change.said_x else {})}
        # More than one version can name would make none: what is left out stays beside it.
        named = sorted(each.hex() for each in over)[:CONTEXT_OVER_MAX]
        return ContextPut(place.folder, change.path, named, **fields)

    @property
    def nameable(self) -> frozenset[EntryId]:
        """What was on the disk, and may be named yet."""
        now_ms = clock.boot_ms()
        return frozenset(holder for holder, until_ms in self._left.values() if now_ms < until_ms)

    def of(self, digest: bytes) -> EntryId | None:
        """A version with these bytes; None where none may be named."""
        for path in self._paths.get(digest, ()):
            base = self._bases.get(path)
            if base is not None and base.signature is not None and base.digest == digest:
                return base.holder or None
        holder, until_ms = self._left.get(digest, (None, 0))
        return holder if clock.boot_ms() < until_ms else None
