"""What a store holds of the log: streams, entries, proofs. Nothing here changes anything.

Rule 1: what a transaction has added is visible to its own reads, before the commit.
Rule 2: bytes are checked when they are read: an entry that rotted on the disk is reported and
        never served. It is healed by taking it from another machine.
Rule 3: only what a seal covers is served.
"""

from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from typing import Final

from muster.errors import Broken, Forged, NotFound, Refused
from muster.limits import SEGMENT_ENTRIES_MAX, SEGMENT_SLICE_BYTES, STREAMS_OF_MACHINE_MAX
from muster.log import entry as entries_of
from muster.log import tree as trees
from muster.log.admit import StreamState
from muster.log.entry import Entry
from muster.log.seal import Cosign, Seal
from muster.log.segment import Segment, weight
from muster.log.stream import MachineId, StreamName
from muster.store.contents import Contents
from muster.store.entry_index import KEY_BYTES
from muster.store.schema import SEQ_MASK, pack, unpack
from muster.store.sqlite import SqlValue, as_bytes, as_int
from muster.store.streams import Head
from muster.store.tree import StreamTree

# Receipts come for the sizes of the last moments, each of them from several machines.
ROOTS_KEPT: Final = 4_096

# Admission numbers that one page looks through for kinds: a few milliseconds.
ADMISSIONS_LOOKED: Final = 2_000

_ENTRY: Final = "select header, salt, body, id, hash from entry"
_ADMITTED: Final = """
select a.number + (e.id & 0xffffffffff) - a.start, e.header, e.salt, e.body, e.id, e.hash
from admission a cross join entry e
on e.id >= (a.stream << 40 | a.start) + max(0, ?1 - a.number)
and e.id < (a.stream << 40 | a.start) + min(a.entries, ?2 - a.number)
where a.number < ?2 and a.number >= coalesce(
  (select max(number) from admission where number <= ?1), 0)
and ({of_kinds}) order by a.number, e.id limit ?
"""


def _of_kinds(kinds: Collection[str]) -> tuple[str, list[bytes]]:
    """What headers of these kinds fulfil, in SQL, and its values.

    SQLite looks through the headers: to parse all of them costs twenty times as much. In a
    canonical header no text but a kind can hold these bytes, for its quotes are escaped.
    """
    needles = [b'"kind":"%s"' % kind.encode() for kind in sorted(kinds)]
    return " or ".join(["instr(header, ?)"] * len(needles)), needles


class LogReader:
    """See the rules at the top of this file."""

    def __init__(self, contents: Contents) -> None:
        self._contents = contents
        self._database, self._streams = contents.database, contents.streams
        self._tiles, self._admission = contents.tiles, contents.admission
        self._index, self._cache = contents.index, contents.cache
        self._cosigns = contents.cosigns

    # --- streams ---------------------------------------------------------------------------

    def streams(self) -> list[StreamName]:
        """Return every stream that something is known of, in the order it was learned."""
        return [head.name for head in self._streams.heads.values()]

    @property
    def stream_count(self) -> int:
        """Return how many they are; far cheaper than all of them."""
        return len(self._streams.heads)

    def knows(self, stream: StreamName) -> bool:
        """Return whether anything is here of a stream: entries, or a seal of it."""
        return stream in self._streams.heads

    def has_place(self, stream: StreamName) -> bool:
        """Return whether a stream may be kept: it is known, or its machine has few enough."""
        return self.knows(stream) or self._streams.counts[stream.machine] < STREAMS_OF_MACHINE_MAX

    def size(self, stream: StreamName) -> int:
        """Return how many entries count."""
        return self._streams.of(stream).size

    def state(self, stream: StreamName) -> StreamState:
        """Return what `admit` decides by; the range is a copy."""
        head = self._streams.of(stream)
        forked = head.frozen is not None
        return StreamState(stream, head.size, head.range.copy(), forked, head.frozen or 0)

    def frozen_at(self, stream: StreamName) -> int | None:
        """Return where a forked stream was cut back, None while it lives."""
        return self._streams.of(stream).frozen

    def seal_of(self, stream: StreamName) -> Seal | None:
        """Return the newest seal that covers nothing beyond what is held."""
        return self._streams.of(stream).tip

    def latest_seal(self, stream: StreamName) -> Seal | None:
        """Return the newest seal known, which may be ahead of what is held."""
        return self._streams.of(stream).latest

    def seals(self, stream: StreamName) -> list[Seal]:
        """Return the seals kept: the newest of each 256 entries."""
        head = self._streams.of(stream)
        return self._streams.seals(head, 0, SEQ_MASK, "and proof = x'' order by id")

    # --- entries ---------------------------------------------------------------------------

    def slice(
        self, stream: StreamName, start: int, bytes_max: int = SEGMENT_SLICE_BYTES
    ) -> list[Entry]:
        """Return entries from `start` that together weigh at most `bytes_max`, at least one."""
        head = self._streams.of(stream)
        if start >= head.size:
            return []
        found: list[Entry] = []
        room = bytes_max
        for entry in self.read(head.id, start, min(head.size - start, SEGMENT_ENTRIES_MAX)):
            room -= weight(entry)
            if room < 0 and found:
                break
            found.append(entry)
        return found

    def segment(
        self,
        stream: StreamName,
        start: int,
        bytes_max: int = SEGMENT_SLICE_BYTES,
        bodies_from: int = 0,
    ) -> Segment | None:
        """Return the next entries from `start` with a seal and the proof up to it.

        Entries before `bodies_from` go without their bodies. None: nothing here is sealed.
        """
        entries = self.slice(stream, start, bytes_max)
        if not entries:
            return None
        cover = self._cover(self._streams.of(stream), start, start + len(entries))
        if cover is None:
            return None
        end, seal, proof = cover
        sent = [
            entry.without_body() if entry.header.seq < bodies_from else entry
            for entry in entries[: end - start]
        ]
        return Segment(stream, start, tuple(sent), seal, proof)

    def _cover(
        self, head: Head, start: int, end: int
    ) -> tuple[int, Seal, tuple[bytes, ...]] | None:
        """Return the largest prefix in (start, end] that can be proved, with seal and proof."""
        seal = head.tip
        if (seal is None or seal.size < end) and head.frozen is not None:
            # The smallest over all of it, of what is stored here.
            kept = self._streams.seals(head, end, head.held, "and proof = x'' order by id limit 1")
            seal = kept[0] if kept else None
        if seal is not None and seal.size >= end:
            return end, seal, tuple(self.consistency(head.name, end, seal.size))
        ahead = self._streams.prefix_seal(head, start, end)
        tip = head.tip
        if tip is not None and tip.size > max(start, ahead[0] if ahead else 0):
            return tip.size, tip, ()
        return ahead

    def entry(self, entry_id: bytes | None) -> Entry | None:
        """Return the entry with this id, None when it is not held, counts no more or has none."""
        if not entry_id:
            return None
        return next((e for e in self._begins(entry_id, entry_id) if e.id == entry_id), None)

    def entries_like(self, text: str) -> Iterator[Entry]:
        """Give the entries that count whose ids begin with these hex digits, young ones first."""
        digits = text[: 2 * KEY_BYTES]
        low, high = (bytes.fromhex(digits.ljust(2 * KEY_BYTES, end)) for end in "0f")
        return (e for e in self._begins(low, high) if e.id.hex().startswith(text))

    def _begins(self, low: bytes, high: bytes) -> Iterator[Entry]:
        self._contents.settle()
        for row in self._index.rows(low, high):
            stream, seq = unpack(row)
            if seq < self._streams.by_id[stream].size:
                yield from self.read(stream, seq, 1)

    def entry_at(self, stream: StreamName, seq: int) -> Entry:
        """Return one entry, also one beyond the place where its stream was cut back.

        Raises: NotFound: the stream has no such entry here.
        """
        found = list(self.read(self._streams.of(stream).id, seq, 1))
        if not found:
            raise NotFound(f"The entry {seq} of {stream} is not on this machine.")
        return found[0]

    def entries_of(self, stream: StreamName, start: int, kinds: Collection[str]) -> list[Entry]:
        """Return the entries of these kinds from `start` on, also where the stream was cut back."""
        self._contents.settle()
        head = self._streams.of(stream)
        of_kinds, needles = _of_kinds(kinds)
        found = self._database.query(
            f"{_ENTRY} where id >= ? and id < ? and ({of_kinds}) order by id",
            (pack(head.id, start), pack(head.id, head.held), *needles),
        )
        return [self._parse(row) for row in found]

    def is_let_go(self, stream: StreamName, seq: int) -> bool:
        """Return whether the body of an entry was let go for its room."""
        sql = "select 1 from rest where entry = ?"
        return bool(self._database.query(sql, (pack(self._streams.of(stream).id, seq),)))

    def admitted(self, stream: StreamName, seq: int) -> tuple[int, int] | None:
        """Return the admission number and time (ms) of an entry, None when it is not held."""
        self._contents.settle()
        return self._admission.of(self._streams.of(stream).id, seq)

    @property
    def admissions(self) -> int:
        """The admission number that the next entry gets; between transactions, of what is there."""
        return self._admission.next

    def admissions_at(self, ms: int) -> int:
        """The admission number that the next entry had got at a time."""
        self._contents.settle()
        return self._admission.at(ms) + 1

    def admitted_since(self, since: int, until: int, most: int) -> tuple[list[Entry], int]:
        """Return the entries whose admission numbers are from `since` to before `until`.

        So many at most, also those that were cut back; and from which number on the next are read.
        """
        self._contents.settle()
        found: list[Entry] = []
        for run in self._admission.since(since) if since < until else ():
            at = max(0, since - run.number)
            count = min(run.entries - at, until - run.number - at, most - len(found))
            found += self.read(run.stream, run.start + at, count)
            if len(found) == most:
                return found, run.number + at + count
            if run.end >= until:
                break
        return found, until

    def admitted_of(
        self, kinds: Collection[str], since: int, until: int, most: int
    ) -> tuple[list[tuple[int, Entry]], list[tuple[StreamName, int]], int]:
        """Return the entries of these kinds from admission number `since` to before `until`.

        So many at most, each with its number; which streams were cut back meanwhile, and where; and
        from which number on the next are read. What rotted on the disk is left out.
        """
        self._contents.settle()
        self._admission.flush()
        end = min(until, since + ADMISSIONS_LOOKED)
        of_kinds, needles = _of_kinds(kinds)
        found = self._database.query(
            _ADMITTED.format(of_kinds=of_kinds), (since, end, *needles, most)
        )
        if len(found) == most:
            end = as_int(found[-1][0]) + 1
        elif since < end:
            # Where a stream was cut back, numbers are left out.
            last = next(self._admission.since(end - 1))
            end = end if last.entries else min(until, last.end)
        entries = []
        for number, *row in found:
            # What rotted is reported to whoever asks for that entry (rule 2).
            with suppress(Broken):
                entries.append((as_int(number), self._parse(tuple(row))))
        cut = self._database.query(
            "select stream, start from admission where entries = 0 and number >= ? and number < ?",
            (since, end),
        )
        cuts = [(self._streams.by_id[as_int(s)].name, as_int(start)) for s, start in cut]
        return entries, cuts, end

    def place(self, stream: StreamName, seq: int) -> int:
        """Return the row of an entry of a stream that is here: it sorts by stream and place."""
        return pack(self._streams.of(stream).id, seq)

    def at_place(self, row: int) -> Entry | None:
        """Return the entry of a row, None where none counts there any more."""
        stream, seq = unpack(row)
        head = self._streams.by_id.get(stream)
        return self.entry_at(head.name, seq) if head is not None and seq < head.size else None

    def read(self, stream: int, start: int, count: int) -> Iterator[Entry]:
        """Give entries of a stream by its number, also those that were cut back."""
        seq, end = start, start + count
        self._contents.settle()
        while seq < end:
            recent = self._cache.entries.get(pack(stream, seq))
            if recent is None:
                break
            yield recent
            seq += 1
        if seq < end:
            found = self._database.query(
                f"{_ENTRY} where id >= ? and id < ? order by id",
                (pack(stream, seq), pack(stream, end)),
            )
            yield from map(self._parse, found)

    def _parse(self, row: tuple[SqlValue, ...]) -> Entry:
        header, salt, body, number, written = row
        raw = None if body is None else as_bytes(body)
        try:
            entry = entries_of.parse(as_bytes(header), as_bytes(salt), raw)
            if entry.id != written:
                raise Forged("its header is not the one that was written here")
            return entry
        except Refused as error:
            stream, seq = unpack(as_int(number))
            raise Broken(
                f"The entry {seq} of {self._streams.by_id[stream].name} rotted on this disk "
                f"({error}); check the disk and take it from another machine."
            ) from error

    # --- proofs ----------------------------------------------------------------------------

    def tree(self, stream: StreamName) -> StreamTree:
        """Return the Merkle tree of all that is stored of the stream, as of now."""
        self._contents.settle()
        return StreamTree(self._tiles, self._streams.of(stream).id)

    def root_at(self, stream: StreamName, size: int) -> bytes:
        """Return the root over the first `size` entries. Raises: NotFound."""
        head = self._streams.of(stream)
        root = self._contents.roots.get((head.id, size))
        if root is not None:
            return root
        if head.size == size:
            root = head.range.root()
        else:
            self._check_held(head, size)
            root = trees.root_at(self.tree(stream), size)
        if len(self._contents.roots) >= ROOTS_KEPT:
            self._contents.roots.clear()
        self._contents.roots[head.id, size] = root
        return root

    def consistency(self, stream: StreamName, old: int, new: int) -> list[bytes]:
        """Return the proof that leads from the first `old` entries to the first `new`.

        Raises: NotFound: not that much is held.
        """
        if old in (0, new):
            return []
        self._check_held(self._streams.of(stream), new)
        return trees.consistency_proof(self.tree(stream), old, new)

    def inclusion(self, stream: StreamName, seq: int, size: int) -> list[bytes]:
        """Return the proof that entry `seq` is among the first `size`. Raises: NotFound."""
        self._check_held(self._streams.of(stream), size)
        return trees.inclusion_proof(self.tree(stream), seq, size)

    @staticmethod
    def _check_held(head: Head, size: int) -> None:
        if not 0 <= size <= head.held:
            raise NotFound(f"Of {head.name} {head.held} entries are here, not {size}.")

    # --- what others vouch for ---------------------------------------------------------------

    def forks(self) -> list[bytes]:
        """Return the evidence for every stream that forked."""
        found = self._database.query("select evidence from fork order by stream")
        return [row[0] for row in found if isinstance(row[0], bytes)]

    def cosigned(self) -> Iterable[tuple[tuple[StreamName, MachineId, str], int, bytes]]:
        """Give the newest cosign of every stream, machine and strength: key, size, note."""
        for head in list(self._streams.heads.values()):
            for each in self.cosigns(head.name):
                yield (each.stream, each.machine, each.strength), each.size, each.note

    def cosigns(self, stream: StreamName) -> list[Cosign]:
        """Return the newest cosign of every machine and strength."""
        return list(self._cosigns.of(self._streams.of(stream)).values())
