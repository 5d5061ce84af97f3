"""What this machine knows: what counts under a key, out of the rows of everybody's versions.

Rule 1: a question costs what concerns its key: the versions of it, what is over them, and what was
refuted of the same texts; never all that was ever written.
Rule 2: whether a person wrote a version is proven by the order that it cites (tasks/actor.py). What
is not proven counts as the machine's.
Rule 3: what counts is what was said where this machine reads now (speakers.py): nothing of a scope
that it has left, and nothing that was written into a thread by nobody of it.
"""

import re
from collections.abc import Iterable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from muster.limits import (
    MEMORY_ALIKE_MAX,
    MEMORY_KEYS_LOOKED_MAX,
    MEMORY_VERSIONS_READ_MAX,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import Table
from muster.log.stream import FleetId, StreamName
from muster.memory.fold import ERASED, OVER, VERSION, ErasedRow, MemoryFold, OverRow, VersionRow
from muster.memory.state import (
    TARGET,
    UNPROVEN,
    WHOLE,
    Proof,
    Record,
    RecordName,
    Version,
    may_erase,
    records,
    standing,
    versions,
)
from muster.node.part import Part
from muster.node.services.speakers import Speakers
from muster.node.tasks.actor import binds_all, said
from muster.store.index import EVERY_NUMBER

if TYPE_CHECKING:
    from muster.node.core import Core

# Entries of any kind that are looked at for one beginning: enough to know that it is not enough.
_ALIKE_MAX: Final = 1_000
_HEX: Final = re.compile("[0-9a-f]{1,64}")


class Memory(Part):
    """What is known here."""

    name = "memory"

    def __init__(self, core: "Core") -> None:
        self._core = core

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (MemoryFold(),)

    def records(self, key: str, until: int = EVERY_NUMBER) -> dict[RecordName, Record]:
        """What counts under a key, in each scope that this machine reads.

        `until` is an admission number: what counted before it was given. What was erased since is
        erased.
        """
        found = records(_Known(self._core, until).about(key))
        return {name: record for name, record in found.items() if name.key == key}

    def history(self, key: str, until: int = EVERY_NUMBER) -> list[Version]:
        """Every version of a key, also those that were replaced; the oldest first."""
        every = (v for v in _Known(self._core, until).about(key) if v.key == key)
        return sorted(every, key=lambda each: (each.stamp, each.id))

    def standing(self, name: RecordName) -> list[Version]:
        """What stands under a key in a scope: see `state.standing`."""
        return standing(_Known(self._core).about(name.key), name)

    def erased_by(self, version: EntryId) -> Entry | None:
        """The entry that erased a version and counts, None where it is not erased."""
        target = self._core.log.entry(version)
        for tomb in self._core.tables.rows(ERASED, target=version) if target is not None else ():
            if target is not None and is_erasure(self._core, tomb, target.stream):
                return self._core.log.entry_at(tomb.stream, tomb.seq)
        return None

    def is_refuted(self, version: EntryId) -> bool:
        """Whether somebody said, rightly or not, that a version is wrong."""
        tables, speakers = self._core.tables, Speakers(self._core)
        for over in tables.rows_of_each(OVER, MEMORY_ALIKE_MAX, ("-seq",), target=version):
            if not speakers.counts(over.stream, over.seq):
                continue
            row = tables.row(VERSION, over.stream, over.seq)
            tomb = tables.row(ERASED, over.stream, over.seq)
            if "refuted" in (row and row.state, tomb and tomb.state):
                return True
        return False

    def newest_keys(self) -> list[str]:
        """Keys, by what was written of them last, the newest first."""
        order, most = ("-at_ms", "-id"), MEMORY_KEYS_LOOKED_MAX
        rows = self._core.tables.rows(VERSION, order=order, limit=most)
        return list(dict.fromkeys(row.key for row in rows if row.key))

    def alike(self, text: str) -> list[Version]:
        """The versions whose ids begin like this: two, where there are several."""
        found: list[Version] = []
        if not _HEX.fullmatch(text):
            return found
        for looked, entry in enumerate(self._core.log.entries_like(text), 1):
            if entry.header.kind in ("memory.put", "memory.refute"):
                found += _Known(self._core).at(entry)
            if len(found) > 1 or looked > _ALIKE_MAX:
                break
        return found


def is_ordered(core: "Core", row: VersionRow | ErasedRow) -> bool:
    """Whether a person's order proves what a row says."""
    return said(core, core.log.entry_at(row.stream, row.seq)).trust == "person"


def proof_of(core: "Core", row: VersionRow | ErasedRow) -> Proof:
    """What a person's order proves of what a row says."""
    if not is_ordered(core, row):
        return UNPROVEN
    whole = isinstance(row, VersionRow) or binds_all(core, core.log.entry_at(row.stream, row.seq))
    return WHOLE if whole else TARGET


def is_erasure(core: "Core", tomb: ErasedRow, target: StreamName) -> bool:
    """Whether an erasure counts for what stands in that stream."""
    if not Speakers(core).speaks(tomb.stream, tomb.seq):
        return False
    return may_erase(tomb, target, ordered=bool(tomb.order) and is_ordered(core, tomb))


class _Known:
    """The rows that a question is about, gathered from its key outwards."""

    def __init__(self, core: "Core", until: int = EVERY_NUMBER) -> None:
        self._core, self._until, self._speakers = core, until, Speakers(core)
        self._rows: dict[EntryId, VersionRow] = {}
        self._erased: dict[EntryId, list[ErasedRow]] = {}
        self._over: list[OverRow] = []

    def about(self, key: str) -> list[Version]:
        """The versions of a key, and all that decides which of them count."""
        own = self._add(self._of(VERSION, key=key))
        own += self._add_targets(self._of(ERASED, key=key))
        above = self._add_over(own)
        prints = {row.print for row in map(self._rows.__getitem__, own) if row.print}
        prints |= {tomb.print for id in own for tomb in self._erased[id] if tomb.print}
        same = [row for p in sorted(prints) for row in self._of(VERSION, MEMORY_ALIKE_MAX, print=p)]
        alike = self._add(same)
        alike += self._add_targets(
            tomb for p in sorted(prints) for tomb in self._of(ERASED, MEMORY_ALIKE_MAX, print=p)
        )
        # What is over the same text may refute it; what is over that may end it.
        refuted = [*above, *self._add_over(alike)]
        self._add_over(refuted)
        return self._versions()

    def at(self, entry: Entry) -> list[Version]:
        """The version that an entry is; none where it could not be used."""
        row = self._core.tables.row(VERSION, entry.stream, entry.header.seq)
        self._add([row] if row is not None else [])
        return self._versions()

    def _versions(self) -> list[Version]:
        tombs = [tomb for each in self._erased.values() for tomb in each]
        places = [(row.stream, row.seq) for row in self._rows.values()]
        for stream, seq in [*places, *((tomb.stream, tomb.seq) for tomb in tombs)]:
            self._over += self._core.tables.rows(OVER, stream=stream, seq=seq)
        return versions(self._rows.values(), self._over, tombs, partial(proof_of, self._core))

    def _of(
        self, table: Table[Any], most: int = MEMORY_VERSIONS_READ_MAX, **equals: Any
    ) -> list[Any]:
        return self._core.tables.rows_of_each(table, most, ("-seq",), **equals)

    def _add(self, rows: Iterable[VersionRow]) -> list[EntryId]:
        """Take rows in, with their erasures; the ids of those that are new."""
        fresh = []
        for row in rows:
            if row.id not in self._rows and self._was_said(row):
                self._rows[row.id] = row
                found = self._of(ERASED, target=row.id)
                self._erased[row.id] = [t for t in found if self._speakers.counts(t.stream, t.seq)]
                fresh.append(row.id)
        return fresh

    def _was_said(self, row: VersionRow) -> bool:
        """Whether it was said to us, and was here at the moment that is asked about."""
        if not self._speakers.counts(row.stream, row.seq):
            return False
        if self._until == EVERY_NUMBER:
            return True
        found = self._core.log.admitted(row.stream, row.seq)
        return found is not None and found[0] < self._until

    def _add_targets(self, tombs: Iterable[ErasedRow]) -> list[EntryId]:
        found = []
        for tomb in tombs:
            entry = self._core.log.entry(tomb.target)
            if entry is not None:
                row = self._core.tables.row(VERSION, entry.stream, entry.header.seq)
                found += [row] if row is not None else []
        return self._add(found)

    def _add_over(self, targets: Iterable[EntryId]) -> list[EntryId]:
        """Take in what is over these: versions, and those whose erasure says that they were."""
        found: list[VersionRow] = []
        tombs: list[ErasedRow] = []
        for target in targets:
            for over in self._of(OVER, target=target):
                row = self._core.tables.row(VERSION, over.stream, over.seq)
                tomb = self._core.tables.row(ERASED, over.stream, over.seq)
                found += [row] if row is not None else []
                tombs += [tomb] if tomb is not None else []
        return self._add(found) + self._add_targets(tombs)
