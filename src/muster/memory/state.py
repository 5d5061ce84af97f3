"""What counts of a set of versions: a view, never stored.

Rule 1: it is a function of the set. No clock decides anything: times only order what is shown.
Rule 2: a version is gone where a known one of no lower rank is over it. An agent may object to what
        a person wrote, and never replace it.
Rule 3: what is refuted stays refuted: as long as a refutation stands, the same text counts as
        refuted under every key, unless its writer had read the refutation, or ranks higher.
Rule 4: an erased version is what its erasures restate, on every machine, whoever has its body yet;
        it counts no more than it did, or its erasure would replace what it never could. What one
        restates is a person's word only where their order says all of it (ordered.py); else it is
        a machine's. Each erasure counts for itself: none lends its rank to what another says.
Rule 5: whom a version does not reach, it does not change: what one scope says, others do not see.

    active     one text, though several may have written it
    conflict   several texts: nobody had read the other's, and nothing is merged by itself
    disputed   a text beside a refutation of this key
    refuted    nothing but what is refuted
    erased     nothing but what is erased
"""

from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Final, Literal, NamedTuple

from muster.log.entry import EntryId
from muster.log.stream import FLEET, JOURNAL, Scope, StreamName
from muster.memory.fold import ErasedRow, OverRow, State, VersionRow
from muster.memory.kinds import MACHINE, OUTSIDE, PERSON

# What an order proves: nothing, of an erasure what it names as its target, or all that a row says.
Proof = Literal[0, 1, 2]
UNPROVEN: Final = 0
TARGET: Final = 1
WHOLE: Final = 2

RecordState = Literal["active", "conflict", "disputed", "refuted", "erased"]


class Claim(NamedTuple):
    """What one erasure restates of a version, and the rank of whose word that is."""

    rank: int
    word: int
    state: State
    print: bytes
    over: frozenset[EntryId]


class Version(NamedTuple):
    """One version, as far as it matters for what counts; of an erased one all that is claimed."""

    id: EntryId
    stream: StreamName
    key: str
    state: State
    rank: int
    stamp: tuple[int, int]
    print: bytes
    over: frozenset[EntryId]
    claims: tuple[Claim, ...] = ()


Bans = dict[bytes, list[tuple[Version, int]]]


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
    proof_of: Callable[[VersionRow | ErasedRow], Proof],
) -> list[Version]:
    """The versions that rows of counting streams tell of.

    `proof_of` says what a person's order, which the row cites, proves of it.
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
            (tomb, proof_of(tomb) if tomb.order else UNPROVEN) for tomb in gone.get(row.id, ())
        ]
        claims = [
            (tomb, _claim(tomb, proof, targets))
            for tomb, proof in tombs
            if may_erase(tomb, row.stream, ordered=proof != UNPROVEN)
        ]
        if claims:
            found.append(_erased(row, claims))
            continue
        rank = MACHINE
        if row.origin:
            rank = OUTSIDE
        elif row.order and proof_of(row):
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


def _claim(
    tomb: ErasedRow, proof: Proof, targets: Mapping[tuple[StreamName, int], list[EntryId]]
) -> Claim:
    # What is private to a machine is its own to tell of: nobody else's is changed by it.
    word = PERSON if proof == WHOLE or tomb.stream.scope == JOURNAL else MACHINE
    over = frozenset(targets.get((tomb.stream, tomb.seq), ()))
    return Claim(min(tomb.rank, word), word, tomb.state, tomb.print, over)


def _erased(row: VersionRow, claims: list[tuple[ErasedRow, Claim]]) -> Version:
    """What all its erasures together leave of a version."""
    tomb, first = max(claims, key=lambda each: (each[1].word, each[0].stream, each[0].seq))
    every = tuple(claim for _, claim in claims)
    state: State = "refuted" if any(claim.state == "refuted" for claim in every) else "erased"
    rank, stamp = max(claim.rank for claim in every), (row.at_ms, row.at_n)
    over = frozenset(chain.from_iterable(claim.over for claim in every))
    return Version(row.id, row.stream, tomb.key, state, rank, stamp, first.print, over, every)


def _claims(version: Version) -> tuple[Claim, ...]:
    """What is said of a version: by itself, with its own bytes for proof, or by its erasures."""
    own = Claim(version.rank, PERSON, version.state, version.print, version.over)
    return version.claims or (own,)


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
        for claim in _claims(each)
        for target in claim.over
        if (old := by_id.get(target)) is not None
        and claim.rank >= old.rank
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


def _bans(by_id: Mapping[EntryId, Version], gone: set[EntryId]) -> Bans:
    """The refutations that stand, by the prints of what they are over.

    Each with the rank with which it bans: no more than that of whoever says which print it was.
    """
    bans: Bans = {}
    standing = (each for each in by_id.values() if each.id not in gone)
    refuting = (
        (each, claim)
        for each in standing
        if each.state == "refuted"
        for claim in _claims(each)
        if claim.state == "refuted"
    )
    for each, claim in refuting:
        prints: dict[bytes, int] = {}
        for was in (w for t in claim.over if t in by_id for w in _claims(by_id[t])):
            prints[was.print] = max(prints.get(was.print, 0), min(claim.rank, was.word))
        for print_, rank in prints.items():
            if print_:
                bans.setdefault(print_, []).append((each, rank))
    return bans


def _is_banned(version: Version, bans: Bans) -> bool:
    return any(
        rank >= version.rank
        and each.id not in version.over
        and reaches(each.stream, version.stream)
        for each, rank in bans.get(version.print, ())
    )


def _record(heads: list[Version], bans: Bans) -> Record:
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
