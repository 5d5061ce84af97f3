"""What this machine knows: what counts under a key, out of the rows of everybody's versions.

Rule 1: a question costs what concerns its key: the versions of it, what is over them, and what was
refuted of the same texts; never all that was ever written.
Rule 2: whether a person wrote a version is proven by the order that it cites (tasks/actor.py). What
is not proven counts as the machine's.
Rule 3: what counts is what was said where this machine reads now (speakers.py): nothing of a scope
that it has left, and nothing that was written into a thread by nobody of it.
"""

import re
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from muster.limits import (
    MEMORY_ALIKE_MAX,
    MEMORY_ALIKE_MIN,
    MEMORY_KEYS_LOOKED_MAX,
    MEMORY_OTHERS_READ_MAX,
    MEMORY_OTHERS_READ_MIN,
    MEMORY_PROOFS_MAX,
    MEMORY_PROOFS_MIN,
    MEMORY_VERSIONS_COUNTED_MAX,
    MEMORY_VERSIONS_COUNTED_MIN,
    MEMORY_VERSIONS_READ_MAX,
    MEMORY_VERSIONS_READ_MIN,
)
from muster.log.entry import Entry, EntryId
from muster.log.fold import R, Table
from muster.log.stream import FleetId, MachineId, StreamName
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
# Rows that are read at once of many ids or texts; what has more is read one by one.
_AMONG_MAX: Final = 500
# Shared by the machines, where there are very many: what is over one version, and erasures of it.
_OVER_ONE_MAX: Final = 8
_TOMBS_MAX: Final = 4
_LEAST: Final = 2
# What the proof of an order costs beside a row.
LOOKS_OF_PROOF: Final = 4
_HEX: Final = re.compile("[0-9a-f]{1,64}")

# Of each stream where there are very many.
_OF_STREAM_MIN: Final = 50


class Memory(Part):
    """What is known here."""

    name = "memory"

    def __init__(self, core: "Core") -> None:
        self._core = core
        # Rows that were read of what is known, ever: whoever asks much lets others have their turn.
        self.looks = 0

    @staticmethod
    def folds(fleet: FleetId) -> Sequence[Any]:  # noqa: ARG004 - as of every part
        return (MemoryFold(),)

    def records(self, key: str, until: int = EVERY_NUMBER) -> dict[RecordName, Record]:
        """What counts under a key, in each scope that this machine reads.

        `until` is an admission number: what counted before it was given. What was erased since is
        erased.
        """
        found = records(self._about(key, until, past=until != EVERY_NUMBER))
        return {name: record for name, record in found.items() if name.key == key}

    def history(self, key: str, until: int = EVERY_NUMBER) -> list[Version]:
        """Every version of a key, also those that were replaced; the oldest first."""
        every = (v for v in self._about(key, until, past=True) if v.key == key)
        return sorted(every, key=lambda each: (each.stamp, each.id))

    def standing(self, name: RecordName) -> list[Version]:
        """What stands under a key in a scope: see `state.standing`."""
        return standing(self._about(name.key), name)

    def _about(self, key: str, until: int = EVERY_NUMBER, *, past: bool = False) -> list[Version]:
        known = _Known(self._core, until)
        found = known.about(key, past=past)
        self.looks += known.looks
        return found

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
        read, most = speakers.is_read, MEMORY_ALIKE_MAX
        for over in tables.newest_of_each(OVER, most, read, target=version):
            if not speakers.counts(over.stream, over.seq):
                continue
            row = tables.row(VERSION, over.stream, over.seq)
            tomb = tables.row(ERASED, over.stream, over.seq)
            if "refuted" in (row and row.state, tomb and tomb.state):
                return True
        return False

    def newest_keys(self) -> list[str]:
        """Keys, by what was written of them last, the newest first.

        Where very much was written so many of each stream are looked at, and what is dated in our
        future was written when it came: nobody hides what others know by how it dates its own.
        """
        tables, streams = self._core.tables, self._core.log.streams()
        rows = tables.rows(VERSION, limit=MEMORY_KEYS_LOOKED_MAX + 1)
        if len(rows) > MEMORY_KEYS_LOOKED_MAX:
            share = max(MEMORY_KEYS_LOOKED_MAX // len(streams), _OF_STREAM_MIN)
            rows = [
                row
                for each in streams
                for row in tables.rows(VERSION, stream=each, order=("-seq",), limit=share)
            ]
        rows.sort(key=lambda row: (self._written_ms(row), row.id), reverse=True)
        return list(dict.fromkeys(row.key for row in rows if row.key))

    def _written_ms(self, row: VersionRow) -> int:
        if row.at_ms <= self._core.now.wall_ms:
            return row.at_ms
        came = self._core.log.admitted(row.stream, row.seq)
        return min(row.at_ms, came[1]) if came is not None else row.at_ms

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


def _newest(row: Any) -> int:
    """Where a row stands in what is read newest first."""
    return -int(row.seq)


def _machine(row: Any) -> MachineId:
    return MachineId(row.stream.machine)


class _Known:
    """The rows that a question is about, gathered from its key outwards.

    Of each machine so many at each step of that and no more, the newest: whoever writes much under
    a key crowds out only what it wrote itself. Of many machines less of each, so that a question
    costs the same however many of them do so: each has a share, which nobody else's words change.
    """

    def __init__(self, core: "Core", until: int = EVERY_NUMBER) -> None:
        self._core, self._until, self._speakers = core, until, Speakers(core)
        self._rows: dict[EntryId, VersionRow] = {}
        self._erased: dict[EntryId, list[ErasedRow]] = {}
        self._proofs = Counter[MachineId]()
        share = self._share
        self._others = share(MEMORY_OTHERS_READ_MAX, MEMORY_OTHERS_READ_MIN)
        self._alike = share(MEMORY_ALIKE_MAX, MEMORY_ALIKE_MIN)
        self._orders = share(MEMORY_PROOFS_MAX, MEMORY_PROOFS_MIN)
        # Rows that were read.
        self.looks = 0

    def _share(self, most: int, least: int) -> int:
        """What one machine of the fleet has of what is read."""
        return max(most // max(1, len(self._core.roster.machines)), least)

    def about(self, key: str, *, past: bool) -> list[Version]:
        """The versions of a key, so many of each machine, and all that decides which count."""
        bounds = MEMORY_VERSIONS_COUNTED_MAX, MEMORY_VERSIONS_COUNTED_MIN
        if past:
            bounds = MEMORY_VERSIONS_READ_MAX, MEMORY_VERSIONS_READ_MIN
        most = self._share(*bounds)
        # What agents write beside a person's rule, on the same machine, must not crowd it out.
        own = self._add(self._of(VERSION, most, also="order", key=key), 2 * most)
        own += self._add_targets(self._of(ERASED, most, key=key))
        above = self._add_over(own)
        prints = {row.print for row in map(self._rows.__getitem__, own) if row.print}
        prints |= {tomb.print for id in own for tomb in self._erased[id] if tomb.print}
        alike = self._add(self._among(VERSION, "print", prints, self._alike))
        alike += self._add_targets(self._among(ERASED, "print", prints, self._alike))
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
        places += [(tomb.stream, tomb.seq) for tomb in tombs]
        over: list[OverRow] = self._core.tables.at_places(OVER, places)
        self.looks += len(over)
        return versions(self._rows.values(), over, tombs, self._proof_of)

    def _proof_of(self, row: VersionRow | ErasedRow) -> Proof:
        """What a person ordered; of each machine so many are looked at, the newest first."""
        self._proofs[row.stream.machine] += 1
        if self._proofs[row.stream.machine] > self._orders:
            return UNPROVEN
        self.looks += LOOKS_OF_PROOF
        return proof_of(self._core, row)

    def _of(self, table: Table[R], most: int, **equals: Any) -> list[R]:
        found = self._core.tables.newest_of_each(table, most, self._speakers.is_read, **equals)
        self.looks += 1 + len(found)
        return found

    def _among(self, table: Table[R], column: str, values: Collection[bytes], most: int) -> list[R]:
        """Rows with any of these values: at once, or of each value where there are very many."""
        found = self._core.tables.with_any(table, column, values, _AMONG_MAX) if values else []
        if found is not None:
            self.looks += 1 + len(found)
            return sorted(found, key=_newest)
        rows, of_each = list[R](), Counter[MachineId]()

        def wanted(stream: StreamName) -> bool:
            return of_each[stream.machine] < _AMONG_MAX and self._speakers.is_read(stream)

        for value in sorted(values):
            equals: dict[str, Any] = {column: value}
            found = self._core.tables.newest_of_each(table, most, wanted, **equals)
            of_each.update(_machine(row) for row in found)
            self.looks += 1 + len(found)
            rows += found
        return sorted(rows, key=_newest)

    def _add(self, rows: Iterable[VersionRow], most: int = 0) -> list[EntryId]:
        """Take rows in, with their erasures; the ids of those that are new."""
        most = most or self._others
        fresh, of_each = list[EntryId](), Counter[MachineId]()
        for row in rows:
            machine = row.stream.machine
            if row.id not in self._rows and of_each[machine] < most and self._was_said(row):
                of_each[machine] += 1
                self._rows[row.id] = row
                self._erased[row.id] = []
                fresh.append(row.id)
        for tomb in self._among(ERASED, "target", fresh, self._share(_TOMBS_MAX, _LEAST)):
            if self._speakers.counts(tomb.stream, tomb.seq):
                self._erased[tomb.target].append(tomb)
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
        found, of_each = list[VersionRow](), Counter[MachineId]()
        for target, machine in dict.fromkeys((t.target, t.stream.machine) for t in tombs):
            if target in self._rows or of_each[machine] == self._others:
                continue
            of_each[machine] += 1
            self.looks += 1
            entry = self._core.log.entry(target)
            if entry is not None:
                row = self._core.tables.row(VERSION, entry.stream, entry.header.seq)
                found += [row] if row is not None else []
        return self._add(found)

    def _add_over(self, targets: Collection[EntryId]) -> list[EntryId]:
        """Take in what is over these: versions, and those whose erasure says that they were."""
        over: list[OverRow] = self._among(
            OVER, "target", targets, self._share(_OVER_ONE_MAX, _LEAST)
        )
        known = {(row.stream, row.seq) for row in self._rows.values()}
        places, of_each = list[tuple[StreamName, int]](), Counter[MachineId]()
        for stream, seq in dict.fromkeys((row.stream, row.seq) for row in over):
            if (stream, seq) not in known and of_each[stream.machine] < self._others:
                of_each[stream.machine] += 1
                places.append((stream, seq))
        tables = self._core.tables
        self.looks += len(places)
        found = tables.at_places(VERSION, places) if places else []
        tombs = tables.at_places(ERASED, places) if places else []
        return self._add(found) + self._add_targets(tombs)
