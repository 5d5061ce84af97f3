"""Entries: written one way, read strictly, erasable."""

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.log.material import BUILD, SALT, STREAM, STUDIO, T, entry
from tests.promise import proves
from tests.work import calls

from muster.errors import Forged, Malformed, Refused
from muster.limits import BODY_BYTES_MAX, CAUSES_MAX, HEADER_BYTES_MAX
from muster.log import canon
from muster.log.clock import Stamp
from muster.log.entry import Entry, EntryId, compose, parse
from muster.log.stream import StreamName
from muster.log.tree import leaf_hash

IDS = st.lists(st.binary(min_size=32, max_size=32).map(EntryId), max_size=CAUSES_MAX)


def make(**changes) -> Entry:
    wanted = {
        "stream": STREAM,
        "seq": 7,
        "t": T,
        "kind": "task.settle",
        "actor": "claude@studio",
        "cause": [],
        "body": b"{}",
        "salt": SALT,
    } | changes
    return compose(**wanted)


def edit(**changes) -> bytes:
    """A canonical header with some fields changed by somebody who does not use `compose`."""
    return canon.encode(json.loads(make().raw) | changes)


@proves("log.entry-round-trip")
@given(st.integers(0, 2**40 - 1), st.integers(0, 2**53 - 1), st.integers(0, 99), IDS, st.binary())
def test_what_compose_writes_parse_reads(seq, ms, n, cause, body):
    written = make(seq=seq, t=Stamp(ms, n), cause=cause, body=body)
    read = parse(written.raw, written.salt, written.body)
    assert read == written
    assert read.id == leaf_hash(written.raw)
    assert list(read.causes) == cause
    assert (read.stream, read.stamp) == (STREAM, Stamp(ms, n))


@proves("log.entry-canonical")
@given(IDS)
def test_the_formatted_header_is_canonical_json(cause):
    raw = make(cause=cause).raw
    assert canon.encode(canon.decode(raw, "A header", size_max=HEADER_BYTES_MAX)) == raw


@proves("log.entry-body-bound")
@pytest.mark.parametrize(
    ("salt", "body"),
    [
        (SALT, b'{"text":"hellO"}'),
        (SALT, b'{"text":"hello"} '),
        (SALT, b""),
        (bytes(16), b'{"text":"hello"}'),
    ],
)
def test_another_body_or_salt_is_forged(salt, body):
    with pytest.raises(Forged):
        parse(entry().raw, salt, body)


@proves("log.entry-body-bound")
def test_moving_bytes_between_salt_and_body_is_refused():
    first = entry()
    joined = first.salt + (first.body or b"")
    with pytest.raises(Malformed):
        parse(first.raw, joined[:15], joined[15:])
    with pytest.raises(Malformed):
        parse(first.raw, joined[:17], joined[17:])


@proves("log.entry-erasable")
def test_an_erased_body_leaves_id_and_header_as_they_were():
    first = entry()
    erased = first.without_body()
    assert (erased.body, erased.salt, erased.id) == (None, b"", first.id)
    assert parse(first.raw, b"", None) == erased


@proves("log.entry-erasable")
def test_a_salt_that_outlives_its_body_is_refused():
    # With the salt kept, a low-entropy body could still be guessed from its hash.
    with pytest.raises(Malformed):
        parse(entry().raw, SALT, None)


@proves("log.entry-author-owns-stream")
def test_an_author_that_does_not_own_the_stream_is_forged():
    with pytest.raises(Forged):
        parse(edit(author=BUILD), b"", None)
    with pytest.raises(Forged):
        parse(edit(stream=f"{BUILD}/{STREAM.incarnation}/fleet"), b"", None)


@proves("log.entry-strict")
@pytest.mark.parametrize(
    "changes",
    [
        {"v": 2},
        {"v": True},
        {"seq": -1},
        {"seq": 2**40},
        {"seq": "7"},
        {"t": [1]},
        {"t": [1, 2, 3]},
        {"t": [-1, 0]},
        {"kind": "task"},
        {"kind": "Task.open"},
        {"kind": "task.open\n"},
        {"kind": "a." + "b" * 64},
        {"actor": ""},
        {"actor": "claude"},
        {"actor": "op:"},
        {"actor": "a b@studio"},
        {"actor": "a@" + "b" * 128},
        {"actor": "é@studio"},
        {"cause": ["00"]},
        {"cause": ["A" * 64]},
        {"cause": ["0" * 64] * (CAUSES_MAX + 1)},
        {"cause": None},
        {"stream": "x"},
        {"stream": f"{STUDIO}/{STREAM.incarnation}/other"},
        {"author": STUDIO.upper()},
        {"body": {"sha256": "0" * 64, "size": BODY_BYTES_MAX + 1}},
        {"body": {"sha256": "0" * 63, "size": 1}},
        {"body": {"sha256": "0" * 64, "size": 1, "x": 1}},
        {"body": {"sha256": "0" * 64}},
        {"extra": 1},
    ],
)
def test_a_header_that_compose_would_not_write_is_refused(changes):
    with pytest.raises(Refused):
        parse(edit(**changes), b"", None)


@proves("log.entry-strict")
@pytest.mark.parametrize(
    "respell",
    [
        lambda raw: raw + b"\n",
        lambda raw: b" " + raw,
        lambda raw: raw.replace(b'"seq":7', b'"seq":7.0'),
        lambda raw: raw.replace(b'"seq":7', b'"seq": 7'),
        lambda raw: raw.replace(b'"seq":7', b'"seq":7,"seq":7'),
        lambda raw: raw.replace(b"task.settle", b"task.\\u0073ettle"),
        lambda raw: raw.replace(b',"v":1', b""),
        lambda raw: b'{"v":1,' + raw[1:].replace(b',"v":1', b""),
    ],
)
def test_another_spelling_of_the_same_header_is_refused(respell):
    raw = make().raw
    assert respell(raw) != raw
    with pytest.raises(Malformed):
        parse(respell(raw), b"", None)


@proves("log.entry-strict")
@pytest.mark.parametrize(
    "changes",
    [
        {"seq": -1},
        {"seq": 2**40},
        {"t": Stamp(-1, 0)},
        {"kind": "task"},
        {"actor": 'x"@studio'},
        {"cause": [b"short"]},
        {"cause": [bytes(32)] * (CAUSES_MAX + 1)},
        {"body": bytes(BODY_BYTES_MAX + 1)},
        {"salt": b""},
        {"stream": StreamName(STUDIO, STREAM.incarnation, 'fleet","v":9')},
    ],
)
def test_compose_writes_nothing_that_parse_would_refuse(changes):
    with pytest.raises(Malformed):
        make(**changes)


@proves("log.entry-total")
@given(st.binary(max_size=300), st.binary(max_size=20), st.none() | st.binary(max_size=20))
def test_arbitrary_bytes_raise_nothing_but_a_refusal(raw, salt, body):
    with pytest.raises(Refused):
        parse(raw, salt, body)


@proves("log.entry-total")
@given(st.integers(0, 10_000), st.integers(1, 255))
def test_any_changed_byte_of_a_header_is_refused_or_changes_the_id(place, change):
    first = make()
    raw = bytearray(first.raw)
    raw[place % len(raw)] ^= change
    with contextlib.suppress(Refused):
        assert parse(bytes(raw), first.salt, first.body).id != first.id


@proves("log.entry-total")
def test_a_huge_or_deep_header_is_refused_at_once():
    for hostile in (b"[" * 1_000_000, b"[" * HEADER_BYTES_MAX, b'{"body":' * 500):
        with pytest.raises(Malformed):
            parse(hostile, b"", None)


@proves("log.entry-header-fits")
def test_the_longest_header_that_can_be_made_is_within_the_limit():
    longest = make(
        stream=StreamName.parse(f"{STUDIO}/{STREAM.incarnation}/g.{STUDIO}.{'x' * 32}"),
        seq=2**40 - 1,
        t=Stamp(2**53 - 1, 2**53 - 1),
        kind="a." + "b" * 62,
        actor="a@" + "b" * 126,
        cause=[EntryId(bytes(32))] * CAUSES_MAX,
        body=bytes(BODY_BYTES_MAX),
    )
    assert parse(longest.raw, longest.salt, longest.body) == longest


@proves("log.entry-fast")
@pytest.mark.parametrize("size", [0, 280, 60_000])
def test_composing_and_parsing_take_a_few_calls_however_long_the_body_is(size):
    first = entry(body=b'{"text":"%s"}' % (b"x" * size))
    assert calls(lambda: entry(body=first.body)) <= 25
    assert calls(lambda: parse(first.raw, first.salt, first.body)) <= 20


@proves("log.entry-body-bound")
def test_a_header_with_the_right_hash_and_another_size_is_forged():
    first = make(body=b"{}")
    digest = first.header.body.sha256
    with pytest.raises(Forged):
        parse(edit(body={"sha256": digest, "size": 3}), SALT, b"{}")
    assert parse(edit(body={"sha256": digest, "size": 2}), SALT, b"{}").body == b"{}"
