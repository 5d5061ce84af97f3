"""What counts of a set of versions: a view, never stored.

Rule 1: it is a function of the set. No clock decides anything: times only order what is shown.
Rule 2: a version is gone where a known one of no lower rank is over it. An agent may object to what
        a person wrote, and never replace it.
Rule 3: what is refuted stays refuted: as long as a refutation stands, the same text counts as
        refuted under every key, unless its writer had read the refutation, or ranks higher.
Rule 4: an erased version is what its erasure restates, on every machine, whoever has its body yet;
        it counts no more than it did, or its erasure would replace what it never could.
Rule 5: whom a version does not reach, it does not change: what one scope says, others do not see.

    active     one text, though several may have written it
    conflict   several texts: nobody had read the other's, and nothing is merged by itself
    disputed   a text beside a refutation of this key
    refuted    nothing but what is refuted
    erased     nothing but what is erased
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Literal, NamedTuple

from muster.log.entry import EntryId
from muster.log.stream import FLEET, JOURNAL, Scope, StreamName
from muster.memory.fold import ErasedRow, OverRow, State, VersionRow
from muster.memory.kinds import MACHINE, OUTSIDE, PERSON

RecordState = Literal["active", "conflict", "disputed", "refuted", "erased"]


class Version(NamedTuple):
    """One version, as far as it matters for what counts."""

    id: EntryId
    stream: StreamName
    key: str
    state: State
    rank: int
    stamp: tuple[int, int]
    print: bytes
    over: frozenset[EntryId]


class RecordName(NamedTuple):
    """What is known under one key in one scope."""

    scope: Scope
    key: str


class Record(NamedTuple):
    """`heads` are the versions that nobody replaced: the first is shown, the others beside it."""

    state: RecordState
    heads: tuple[Version, ...]


def versions(
    rows: Iterable[VersionRow],
    over: Iterable[OverRow],
    erased: Iterable[ErasedRow],
    is_ordered: Callable[[VersionRow | ErasedRow], bool],
) -> list[Version]:
    """The versions that rows of counting streams tell of.

    `is_ordered` says whether a person's order proves the row, whose `order` it cites.
    """
    targets: dict[tuple[StreamName, int], list[EntryId]] = {}
    for each in over:
        targets.setdefault((each.stream, each.seq), []).append(each.target)
    gone: dict[EntryId, list[ErasedRow]] = {}
    for tomb in erased:
        gone.setdefault(tomb.target, []).append(tomb)
    found = []
    for row in rows:
        tombs = [
            (tomb, PERSON if tomb.order and is_ordered(tomb) else MACHINE)
            for tomb in gone.get(row.id, ())
        ]
        tombs = [
            (tomb, rank)
            for tomb, rank in tombs
            if may_erase(tomb, row.stream, ordered=rank == PERSON)
        ]
        if tombs:
            over_all = [targets.get((tomb.stream, tomb.seq), ()) for tomb, _ in tombs]
            found.append(_erased(row, tombs, frozenset(chain.from_iterable(over_all))))
            continue
        rank = MACHINE
        if row.origin:
            rank = OUTSIDE
        elif row.order and is_ordered(row):
            rank = PERSON
        names = frozenset(targets.get((row.stream, row.seq), ()))
        stamp = (row.at_ms, row.at_n)
        found.append(Version(row.id, row.stream, row.key, row.state, rank, stamp, row.print, names))
    return found


def may_erase(tomb: ErasedRow, target: StreamName, *, ordered: bool) -> bool:
    """Whether an erasure counts: it is of its target's own machine or ordered by a person, and all
    who may know the target may know of it.
    """
    return reaches(tomb.stream, target) and (ordered or tomb.stream.machine == target.machine)


def _erased(
    row: VersionRow, tombs: list[tuple[ErasedRow, int]], over: frozenset[EntryId]
) -> Version:
    """What all its erasures together leave of a version."""
    first = max(tombs, key=lambda each: (each[1], each[0].stream, each[0].seq))[0]
    state: State = "refuted" if any(tomb.state == "refuted" for tomb, _ in tombs) else "erased"
    print_ = max(tomb.print for tomb, _ in tombs)
    rank, stamp = max(min(tomb.rank, most) for tomb, most in tombs), (row.at_ms, row.at_n)
    return Version(row.id, row.stream, first.key, state, rank, stamp, print_, over)


def records(known: Iterable[Version]) -> Mapping[RecordName, Record]:
    """What counts, by scope and key. An erased version without a key is under none."""
    by_id = {each.id: each for each in known}
    gone = _gone(by_id)
    bans = _bans(by_id, gone)
    heads: dict[RecordName, list[Version]] = {}
    for each in by_id.values():
        if each.id not in gone and each.key:
            heads.setdefault(RecordName(each.stream.scope, each.key), []).append(each)
    return {name: _record(those, bans) for name, those in heads.items()}


def standing(known: Iterable[Version], name: RecordName) -> list[Version]:
    """The versions of a record that nobody replaced, also what is refuted and what refutes it: who
    is over all of them ends whatever was disputed. The first is shown first.
    """
    by_id = {each.id: each for each in known}
    gone = _gone(by_id)
    left = [
        each
        for each in by_id.values()
        if each.id not in gone and (each.stream.scope, each.key) == name
    ]
    return _ordered(left)


def _gone(by_id: Mapping[EntryId, Version]) -> set[EntryId]:
    return {
        target
        for each in by_id.values()
        for target in each.over
        if (old := by_id.get(target)) is not None
        and each.rank >= old.rank
        and reaches(each.stream, old.stream)
    }


def _ordered(heads: Iterable[Version]) -> list[Version]:
    return sorted(heads, key=lambda each: (each.rank, each.stamp, each.id), reverse=True)


def reaches(writer: StreamName, reader: StreamName) -> bool:
    """Whether whoever may read the one stream reads the other as well.

    What is private reaches what its own machine keeps private, a group's its members' own notes.
    """
    if writer.scope in (FLEET, reader.scope):
        return writer.scope != JOURNAL or writer.machine == reader.machine
    return reader.scope == JOURNAL and writer.scope != JOURNAL


def _bans(by_id: Mapping[EntryId, Version], gone: set[EntryId]) -> dict[bytes, list[Version]]:
    """The refutations that stand, by the prints of what they are over."""
    bans: dict[bytes, list[Version]] = {}
    for each in by_id.values():
        if each.state == "refuted" and each.id not in gone:
            prints = {by_id[target].print for target in each.over if target in by_id}
            for print_ in prints - {b""}:
                bans.setdefault(print_, []).append(each)
    return bans


def _is_banned(version: Version, bans: Mapping[bytes, list[Version]]) -> bool:
    return any(
        each.rank >= version.rank
        and each.id not in version.over
        and reaches(each.stream, version.stream)
        for each in bans.get(version.print, ())
    )


def _record(heads: list[Version], bans: Mapping[bytes, list[Version]]) -> Record:
    heads = _ordered(heads)
    active = [v for v in heads if v.state == "active" and not _is_banned(v, bans)]
    if not active:
        wrong = [v for v in heads if v.state != "erased"]
        return Record("refuted" if wrong else "erased", tuple(wrong or heads))
    if len({v.print for v in active}) > 1:
        return Record("conflict", tuple(active))
    if any(v.state == "refuted" for v in heads):
        return Record("disputed", tuple(active))
    return Record("active", tuple(active))
