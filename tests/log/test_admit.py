"""What becomes part of a stream, and what does not.

The stream has ten entries. `ours(n)` is a replica that holds the first n; `part(a, b, seal)` is a
segment of [a, b) under the seal over `seal` entries, with the proof that an honest sender adds.
"""

from dataclasses import replace

import pytest
from tests.log.material import (
    BUILD,
    FLEET_ID,
    OTHER_FLEET,
    SEAL,
    SEEN,
    STREAM,
    entries,
    entry,
    nodes,
    root,
    stream,
)
from tests.promise import proves

from muster.errors import Forged, Malformed, Refused
from muster.limits import SEGMENT_ENTRIES_MAX
from muster.log import admit as admits
from muster.log import tree
from muster.log.admit import Diverged, Gap, Nothing, StreamState, Taken, admit
from muster.log.seal import make_seal
from muster.log.segment import Segment
from muster.log.stream import JOURNAL
from muster.log.tree import Range

TEN = entries(10)
# The same writer told another machine something else from entry 6 on.
FORK = [*TEN[:6], *(entry(seq, b'{"other":%d}' % seq) for seq in range(6, 12))]


def seal(items, *, signer=SEAL, fleet=FLEET_ID, name=STREAM):
    return make_seal(fleet, name, len(items), root(items), signer)


def ours(size, *, frozen=False):
    after = Range()
    for each in TEN[:size]:
        after.append(each.id)
    return StreamState(STREAM, size, after, frozen)


def part(start, end, sealed=10, items=TEN):
    proof = tree.consistency_proof(nodes(items), end, sealed)
    return Segment(STREAM, start, tuple(items[start:end]), seal(items[:sealed]), tuple(proof))


def decide(state, segment, *, compare=True, fleet=FLEET_ID):
    before = state.range.encode()
    try:
        held = nodes(TEN[: state.size]) if compare else None
        return admit(state, segment, fleet, SEAL.public, held)
    finally:
        # Whatever was decided: the state is the caller's, and is not touched.
        assert state.range.encode() == before


@proves("log.admit-takes")
@pytest.mark.parametrize("held", [0, 1, 4, 7])
@pytest.mark.parametrize("sealed", [8, 9, 10])
def test_what_follows_is_taken_under_its_own_or_a_later_seal(held, sealed):
    found = decide(ours(held), part(held, 8, sealed))
    assert isinstance(found, Taken)
    assert (found.start, found.end, list(found.entries)) == (held, 8, TEN[held:8])
    assert found.after.root() == root(TEN[:8])
    assert found.seal == seal(TEN[:sealed])


@proves("log.admit-takes", "log.admit-duplicates")
@pytest.mark.parametrize("compare", [True, False])
def test_of_an_overlapping_segment_only_the_new_entries_are_taken(compare):
    found = decide(ours(5), part(2, 8), compare=compare)
    assert isinstance(found, Taken)
    assert list(found.entries) == TEN[5:8]


@proves("log.admit-duplicates")
@pytest.mark.parametrize("compare", [True, False])
@pytest.mark.parametrize(("held", "start", "end"), [(8, 3, 8), (8, 0, 5), (10, 0, 10), (5, 5, 5)])
def test_what_is_held_changes_nothing(held, start, end, compare):
    found = decide(ours(held), part(start, end), compare=compare)
    assert found == Nothing(STREAM, seal(TEN))


@proves("log.admit-gap")
def test_a_segment_beyond_what_is_held_says_where_to_ask_from():
    assert decide(ours(3), part(4, 8)) == Gap(STREAM, 3)


@proves("log.admit-signer")
def test_a_segment_sealed_by_another_key_is_refused():
    forged = replace(part(0, 10), seal=seal(TEN, signer=SEEN))
    with pytest.raises(Forged):
        decide(ours(0), forged)


@proves("log.admit-signer")
def test_a_segment_of_another_fleet_is_refused():
    with pytest.raises(Forged):
        decide(ours(0), part(0, 10), fleet=OTHER_FLEET)


@proves("log.admit-signer")
def test_a_segment_under_the_seal_of_another_stream_is_refused():
    journal = seal(TEN, name=stream(JOURNAL))
    with pytest.raises(Forged):
        decide(ours(0), replace(part(0, 10), seal=journal))


@proves("log.admit-signer")
def test_a_segment_under_a_note_that_is_no_seal_is_refused():
    with pytest.raises(Malformed):
        decide(ours(0), replace(part(0, 10), seal=b"nonsense"))


@proves("log.admit-signer")
@pytest.mark.parametrize(
    "wrong",
    [
        entry(3, name=stream(machine=BUILD)),
        entry(3, name=stream(JOURNAL)),
        entry(4),
    ],
    ids=["author", "stream", "order"],
)
def test_an_entry_from_elsewhere_is_refused_even_under_the_right_seal(wrong):
    items = [*TEN[:3], wrong, *TEN[4:]]
    with pytest.raises(Forged):
        decide(ours(0), part(0, 10, 10, items))


@proves("log.admit-seal")
def test_entries_beyond_their_seal_are_refused():
    segment = replace(part(0, 10), seal=seal(TEN[:9]))
    with pytest.raises(Forged):
        decide(ours(0), segment)


@proves("log.admit-seal", "log.admit-diverged")
@pytest.mark.parametrize("held", [0, 2])
def test_an_exchanged_entry_is_not_taken(held):
    items = [*TEN[:4], entry(4, b'{"evil":1}'), *TEN[5:]]
    segment = replace(part(held, 8, 10, items), seal=seal(TEN))
    assert isinstance(decide(ours(held), segment), Diverged)


@proves("log.admit-seal")
def test_an_exchanged_entry_under_a_seal_that_agrees_with_us_is_forged():
    items = [*TEN[:4], entry(4, b'{"evil":1}'), *TEN[5:]]
    segment = Segment(STREAM, 0, tuple(items[:8]), seal(TEN[:8]))
    with pytest.raises(Forged):
        decide(ours(8), segment)
    later = Segment(STREAM, 0, tuple(items[:8]), seal(TEN), part(0, 8).proof)
    with pytest.raises(Forged):
        decide(
            ours(6), replace(later, seal=seal(TEN[:8]), entries=(*items[:6], *TEN[6:8]), proof=())
        )


@proves("log.admit-seal", "log.admit-diverged")
@pytest.mark.parametrize("proof", [(), (b"\0" * 32,), part(0, 7).proof])
def test_a_seal_without_its_proof_takes_nothing(proof):
    found = decide(ours(0), replace(part(0, 8), proof=proof))
    assert isinstance(found, Diverged)


@proves("log.admit-diverged")
@pytest.mark.parametrize("held", [7, 8, 10])
def test_the_other_branch_of_a_fork_is_reported_with_the_place(held):
    found = decide(ours(held), part(4, 12, 12, FORK))
    assert isinstance(found, Diverged)
    assert (found.at, found.agreed) == (6, 6)
    assert found.seal == seal(FORK)


@proves("log.admit-diverged")
def test_a_fork_before_the_segment_is_reported_without_a_place():
    found = decide(ours(10), part(10, 12, 12, FORK))
    assert isinstance(found, Diverged)
    assert found.at is None


@proves("log.admit-diverged")
def test_a_fork_that_shares_all_we_hold_is_taken_for_it_is_all_we_know():
    found = decide(ours(6), part(6, 12, 12, FORK))
    assert isinstance(found, Taken)


@proves("log.admit-frozen")
def test_a_frozen_stream_does_not_grow():
    with pytest.raises(Refused, match="frozen"):
        decide(ours(5, frozen=True), part(5, 8))


@proves("log.admit-frozen")
def test_a_frozen_stream_is_still_filled_up_to_where_its_branches_part():
    state = replace(ours(3, frozen=True), common=6)
    assert isinstance(decide(state, part(3, 6, 12, FORK)), Taken)
    assert isinstance(decide(state, part(0, 3)), Nothing)
    with pytest.raises(Refused, match="frozen"):
        decide(state, part(3, 7))


@proves("log.admit-limits")
def test_a_segment_of_another_stream_is_refused():
    with pytest.raises(Refused, match="offered"):
        decide(replace(ours(0), name=stream(JOURNAL)), part(0, 8))


@proves("log.admit-limits")
def test_a_segment_with_too_many_entries_is_refused():
    huge = replace(part(0, 10), entries=(TEN[0],) * (SEGMENT_ENTRIES_MAX + 1))
    with pytest.raises(Refused, match="too many"):
        decide(ours(0), huge)


@proves("log.admit-signer", "log.admit-seal")
def test_each_safeguard_is_what_stops_its_attack(monkeypatch):
    """Taking one away lets its attack through: so the test above it proves something."""
    forged = replace(part(0, 10), seal=seal(TEN, signer=SEEN))
    monkeypatch.setattr(admits, "check_signer", lambda *_: None)
    assert isinstance(decide(ours(0), forged), Taken)
    monkeypatch.undo()
    exchanged = replace(part(0, 8, 8, FORK), seal=seal(TEN[:8]))
    monkeypatch.setattr(admits, "check_seal", lambda *_: True)
    assert isinstance(decide(ours(0), exchanged), Taken)
