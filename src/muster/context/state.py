"""What counts of the versions of one file: a view, never stored.

Rule 1: it is a function of the set. Current are the versions that nobody is over; the first of them
is on every disk, and the others stay: nothing is lost, and no clock decides what is replaced.
Rule 2: first is what is not gone, then the later stamp, then the greater id. So an edit beats a
deletion, and every machine has the same bytes.
Rule 3: two texts that come from a common one are merged, in the order of their ids, so that every
machine makes the same bytes. Where the merge is not clean both stay, until somebody ends it.
Rule 4: only what its writer may write there counts: whoever asks judges, and gives no other.
Rule 5: of two paths that some disk takes for one the earlier has the name, on every machine.
"""

import heapq
from collections.abc import Callable, Iterable, Mapping
from hashlib import sha256
from typing import NamedTuple

from muster.limits import CONTEXT_ANCESTORS_MAX, CONTEXT_OVER_MAX
from muster.log.entry import EntryId
from muster.log.fold import NO_ENTRY


class Version(NamedTuple):
    """One version of a file, as far as it matters for what counts.

    `digest` is the SHA-256 of its bytes; empty where it is gone, or where nobody has them.
    """

    id: EntryId
    path: str
    digest: bytes
    size: int
    gone: bool
    x: bool
    stamp: tuple[int, int]
    over: frozenset[EntryId]

    @property
    def content(self) -> tuple[bytes, bool, bool]:
        """Equal for versions that make the same file."""
        return self.digest, self.gone, self.x


class Merge(NamedTuple):
    """Two heads to be made one, `first` with the lesser id, and what both come from."""

    first: Version
    base: Version
    second: Version


class File(NamedTuple):
    """What counts of a path: the first of its heads is on the disks. `since`: its first version."""

    path: str
    heads: tuple[Version, ...]
    since: tuple[tuple[int, int], EntryId] = ((0, 0), NO_ENTRY)

    @property
    def winner(self) -> Version:
        return self.heads[0]

    @property
    def made_of(self) -> frozenset[EntryId]:
        """The heads that a disk has which has the winner: all of the same bytes."""
        return frozenset(h.id for h in self.heads if h.content == self.winner.content)

    @property
    def is_conflict(self) -> bool:
        """Whether several contents are left; a deletion beside an edit is none."""
        return len({head.content for head in self.heads if not head.gone}) > 1


def files(known: Iterable[Version]) -> dict[str, File]:
    """What counts, by path. Only versions of the same path replace each other."""
    paths: dict[str, dict[EntryId, Version]] = {}
    for each in known:
        paths.setdefault(each.path, {})[each.id] = each
    found = (_file(path, versions) for path, versions in paths.items())
    return {each.path: each for each in found if each is not None}


def _file(path: str, versions: Mapping[EntryId, Version]) -> File | None:
    replaced = {target for each in versions.values() for target in each.over}
    heads = [each for id, each in versions.items() if id not in replaced]
    if not heads:
        # Ids are hashes, so nobody can write such a circle; and nobody has to rely on it.
        return None
    return file_of(path, heads)._replace(since=min((v.stamp, v.id) for v in versions.values()))


def file_of(path: str, heads: Iterable[Version]) -> File:
    """What counts of a path whose heads these are."""
    first = sorted(heads, key=lambda v: (not v.gone, v.stamp, v.id), reverse=True)
    return File(path, tuple(first))


def named(found: Iterable[File]) -> File | None:
    """Of files whose paths some disk takes for one: the one that has the name, if any is there."""
    live = [each for each in found if not each.winner.gone]
    return min(live, key=lambda each: each.since, default=None)


def merge_of(file: File, look: Callable[[EntryId], Version | None]) -> Merge | None:
    """The next two heads to merge, where they have an ancestor in common; None for none.

    More than two contents become one pair by pair. `look` gives a version of the path, where it is
    known. Who comes of whom is looked for from the newest on, so far as `CONTEXT_ANCESTORS_MAX`:
    what went on apart for longer is no merge, and stays a conflict.
    """
    alive = [each for each in sorted(file.heads, key=lambda v: v.id) if not each.gone]
    contents: dict[tuple[bytes, bool, bool], Version] = {}
    for each in alive:
        contents.setdefault(each.content, each)
    # So many at a time: one version names no more, and who writes more heads makes nobody slow.
    heads = [each for each in list(contents.values())[:CONTEXT_OVER_MAX] if each.digest]
    if len(heads) < 2:
        return None
    reached: dict[EntryId, frozenset[int]] = {}
    todo: list[tuple[tuple[int, int], bytes, Version]] = []

    def reach(version: Version, by: frozenset[int]) -> None:
        known = reached.get(version.id, frozenset())
        if not by <= known:
            reached[version.id] = known | by
            # The newest is looked at first: all that comes of it was looked at before.
            stamp = (-version.stamp[0], -version.stamp[1])
            heapq.heappush(todo, (stamp, bytes(255 - byte for byte in version.id), version))

    for n, head in enumerate(heads):
        reach(head, frozenset({n}))
    for _ in range(CONTEXT_ANCESTORS_MAX):
        if not todo:
            return None
        at = heapq.heappop(todo)[2]
        by = reached[at.id]
        if len(by) > 1 and not at.gone and at.digest:
            first, second = sorted(by)[:2]
            return Merge(heads[first], at, heads[second])
        for id in sorted(at.over):
            if (below := look(id)) is not None:
                reach(below, by)
    return None


def root_of(disk: Mapping[str, tuple[bytes, bool]]) -> bytes:
    """The SHA-256 of a folder: its paths in order, each with its digest and whether it is `x`."""
    total = sha256()
    for path, (digest, x) in sorted(disk.items()):
        total.update(path.encode() + b"\0" + digest + (b"x" if x else b"-"))
    return total.digest()
