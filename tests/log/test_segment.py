"""Segments: entries with their seal, bounded and checked in form."""

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.log.material import STREAM, entries, entry, nodes, sealed, stream
from tests.promise import proves

from muster.errors import Forged, Malformed, Refused
from muster.limits import BODY_BYTES_MAX, SEGMENT_ENCODED_BYTES_MAX, SEGMENT_ENTRIES_MAX
from muster.log import canon, segment, tree
from muster.log.segment import Segment

TEN = entries(10)
PROOF = tuple(tree.consistency_proof(nodes(TEN), 7, 10))
PART = Segment(STREAM, 3, tuple(TEN[3:7]), sealed(TEN).note, PROOF)
RAW = segment.encode(PART)


def rebuilt(raw: bytes, **changes) -> bytes:
    """The segment with some header fields changed, canonically."""
    length = int.from_bytes(raw[:4], "big")
    head = canon.decode(raw[4 : 4 + length], "x", size_max=1 << 20) | changes
    frame = canon.encode(head)
    return len(frame).to_bytes(4, "big") + frame + raw[4 + length :]


@proves("log.segment-round-trip")
def test_a_segment_comes_back_from_its_bytes():
    assert segment.decode(RAW) == PART
    assert (PART.end, PART.note) == (7, sealed(TEN).note)


@proves("log.segment-round-trip")
def test_erased_and_empty_bodies_are_told_apart():
    mixed = (TEN[0].without_body(), entry(1, b""), TEN[2])
    again = segment.decode(segment.encode(Segment(STREAM, 0, mixed, sealed(TEN))))
    assert again.entries == mixed
    assert [each.body for each in again.entries] == [None, b"", TEN[2].body]


@proves("log.segment-round-trip")
def test_a_segment_without_entries_carries_a_seal_and_its_proof():
    witness = Segment(STREAM, 7, (), sealed(TEN).note, PROOF)
    assert segment.decode(segment.encode(witness)) == witness


@proves("log.segment-round-trip")
def test_a_seal_object_is_written_as_its_note():
    assert segment.encode(Segment(STREAM, 3, PART.entries, sealed(TEN), PROOF)) == RAW


@proves("log.segment-weighs")
def test_entries_within_the_weight_always_fit():
    whole = [entry(seq, bytes(9000), STREAM) for seq in range(40)]
    packed, left = [], SEGMENT_ENCODED_BYTES_MAX - segment.PROLOGUE_BYTES_MAX
    for each in whole:
        left -= segment.weight(each)
        if left < 0:
            break
        packed.append(each)
    raw = segment.encode(Segment(STREAM, 0, tuple(packed), sealed(whole), (bytes(32),) * 41))
    assert 0 < len(packed) < 40
    assert SEGMENT_ENCODED_BYTES_MAX - 30_000 < len(raw) <= SEGMENT_ENCODED_BYTES_MAX


@proves("log.segment-weighs")
def test_the_largest_entry_fits_alone():
    largest = entry(0, bytes(BODY_BYTES_MAX))
    one = Segment(STREAM, 0, (largest,), sealed([largest]))
    assert segment.decode(segment.encode(one)).entries == (largest,)


@proves("log.segment-bounded")
def test_a_segment_beyond_the_limits_is_neither_written_nor_read():
    many = tuple(entries(SEGMENT_ENTRIES_MAX + 1))
    with pytest.raises(Malformed, match="entries"):
        segment.encode(Segment(STREAM, 0, many, sealed(TEN)))
    large = tuple(entry(seq, bytes(BODY_BYTES_MAX)) for seq in range(4))
    with pytest.raises(Malformed, match="bytes"):
        segment.encode(Segment(STREAM, 0, large, sealed(TEN)))
    with pytest.raises(Malformed, match="bytes"):
        segment.decode(b"\x00\x0f\x00\x00" + b"[" * 1_000_000)
    with pytest.raises(Malformed, match="deeper"):
        segment.decode(b"\x00\x01\x00\x00" + b"[" * 100_000)
    rows = [[1, 0, -1]] * (SEGMENT_ENTRIES_MAX + 1)
    with pytest.raises(Malformed):
        segment.decode(rebuilt(RAW, entries=rows))


@proves("log.segment-strict")
@pytest.mark.parametrize(
    "changes",
    [
        {"start": 2},
        {"start": -1},
        {"start": 2**40 - 3},
        {"stream": "x"},
        {"stream": str(stream())[:-5] + "journal"},
        {"proof": ["00"]},
        {"proof": ["A" * 64]},
        {"proof": ["0" * 62 + "  "]},
        {"proof": ["0" * 64] * 42},
        {"entries": [[5, 0, -1]]},
        {"entries": []},
        {"entries": [[1, 1, -2]]},
        {"entries": [[1, 1]]},
        {"seal": 1},
        {"extra": 1},
    ],
)
def test_a_changed_header_is_refused(changes):
    with pytest.raises(Refused):
        segment.decode(rebuilt(RAW, **changes))


@proves("log.segment-strict")
@pytest.mark.parametrize("raw", [b"", b"\x00", RAW[:3], RAW[:50], RAW[:-1], RAW + b"\x00", RAW[1:]])
def test_a_cut_or_longer_segment_is_refused(raw):
    with pytest.raises(Malformed):
        segment.decode(raw)


@proves("log.segment-strict")
def test_entries_out_of_order_repeated_or_of_another_stream_are_forged():
    foreign = entries(10, stream(scope=STREAM.scope.__class__("journal")))
    for wrong in (TEN[4:2:-1], [TEN[3], TEN[3]], [TEN[3], TEN[5]], foreign[3:5]):
        raw = segment.encode(Segment(STREAM, 3, tuple(wrong), sealed(TEN)))
        with pytest.raises(Forged):
            segment.decode(raw)


@proves("log.segment-total")
@given(st.binary(max_size=200))
def test_arbitrary_bytes_raise_nothing_but_a_refusal(raw):
    for hostile in (raw, len(raw).to_bytes(4, "big") + raw):
        with pytest.raises(Refused):
            segment.decode(hostile)


@proves("log.segment-total")
@given(st.integers(0, 10**6), st.integers(1, 255))
def test_any_changed_byte_is_refused_or_reads_as_another_segment(place, change):
    changed = bytearray(RAW)
    changed[place % len(changed)] ^= change
    with contextlib.suppress(Refused):
        assert segment.decode(bytes(changed)) != PART
