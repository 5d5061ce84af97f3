"""Whether nobody needs the bytes of a version of a context file any more.

The rules are those of `retention`.
"""

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from muster.context.fold import VERSION, VersionRow
from muster.limits import (
    CONTEXT_BESIDE_MAX,
    CONTEXT_KEPT_NEWEST,
    CONTEXT_LET_GO_BYTES_MIN,
    CONTEXT_LET_GO_READ_MAX,
)
from muster.log.entry import EntryId
from muster.log.stream import StreamName
from muster.node.services.context import Contexts, Place
from muster.node.services.heads import Heads, passed_name

if TYPE_CHECKING:
    from muster.node.core import Core

# Versions of one stream that are read at once.
_PAGE: Final = 20


class Disk(NamedTuple):
    """What the disk of a machine needs no more, as it said last."""

    sizes: Mapping[str, int]
    kept: frozenset[str]

    def has_passed(self, row: VersionRow, by: Iterable[tuple[StreamName, int]]) -> bool:
        """Whether it was made of something else when one of these was here, and is now."""
        if row.id.hex() in self.kept:
            return False
        return any(self.sizes.get(passed_name(stream), 0) > seq for stream, seq in by)


class Judgment:
    """What is known of a folder's versions in one step."""

    def __init__(self, core: "Core", place: Place, disks: list[Disk], until_ms: int) -> None:
        self._core, self._place, self._disks = core, place, disks
        # What is replaced since then may go.
        self._until_ms = until_ms
        self.heads = Heads(core, place.scope, place.folder)
        # The heads of the file that was asked for last.
        self.counting = frozenset[EntryId]()
        self._newest: dict[str, tuple[int, int, EntryId] | None] = {}
        # How much may have been read when a row is judged.
        self._room = 0
        self._last: dict[tuple[str, str, StreamName], int] = {}

    @property
    def read(self) -> int:
        """Rows that were read for it."""
        return self.heads.read

    def only_content(self, name: str) -> str | None:
        """The path that is this one, folded, where its heads are one content; None without."""
        part = self._core.part(Contexts)
        rows = self.heads.of(name)
        self.counting = frozenset(row.id for row in rows)
        one = len({(row.path, *part.version(row).content) for row in rows}) == 1
        return rows[0].path if one else None

    def newest(self, name: str) -> tuple[int, int, EntryId] | None:
        """The stamp before which a version is none of the newest; None where there are no more."""
        if name not in self._newest:
            found = self.heads.newest(name, CONTEXT_KEPT_NEWEST)
            self._newest[name] = found[-1] if len(found) == CONTEXT_KEPT_NEWEST else None
        return self._newest[name]

    def last(self, name: str, path: str, stream: StreamName) -> int:
        """The number of the newest version of a path in a stream, -1 where there is none."""
        key = (name, path, stream)
        if key not in self._last:
            found = self._core.tables.rows(
                VERSION, order=("-seq",), limit=1,
                folder=self._place.folder, folded=name, stream=stream, path=path,
            )  # fmt: skip
            self._last[key] = found[0].seq if found else -1
        return self._last[key]

    def page(self, name: str, stream: StreamName, after: int) -> list[VersionRow]:
        """The next versions of a stream."""
        return self._core.tables.rows(
            VERSION, order=("seq",), limit=_PAGE, above={"seq": after},
            folder=self._place.folder, folded=name, stream=stream,
        )  # fmt: skip

    def is_past(self, row: VersionRow, since: tuple[int, int, EntryId]) -> bool:
        """Whether nobody needs the bytes of a version that is none of the newest."""
        if row.absent or row.same or row.size < CONTEXT_LET_GO_BYTES_MIN:
            return False
        if self._core.log.is_let_go(row.stream, row.seq) or not self._is_replaced(row):
            return False
        self._room = self.read + CONTEXT_LET_GO_READ_MAX
        also = self.heads.with_same(row.id, CONTEXT_BESIDE_MAX)
        return len(also) < CONTEXT_BESIDE_MAX and all(
            self._is_over(each, row.folded, since) for each in also
        )

    def _is_over(self, row: VersionRow, name: str, since: tuple[int, int, EntryId]) -> bool:
        """Whether nobody needs a version that has the bytes of another one."""
        if row.folder != self._place.folder or self.read > self._room:
            return False
        if not self._is_replaced(row):
            return False
        newest = since if row.folded == name else self.newest(row.folded)
        return newest is not None and stamp(row) < newest

    def _is_replaced(self, row: VersionRow) -> bool:
        """Whether it is replaced since so long, and on every disk."""
        by = self.heads.replacers(row)
        admitted = (self._core.log.admitted(*each) for each in by)
        is_old = any(each is not None and each[1] <= self._until_ms for each in admitted)
        return is_old and all(disk.has_passed(row, by) for disk in self._disks)


def stamp(row: VersionRow) -> tuple[int, int, EntryId]:
    return row.at_ms, row.at_n, row.id
