"""What holds for whatever happens, tried on generated worlds."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.digest import tables_digest
from tests.promise import proves
from tests.store.world import JOB, Machine, drop, job, note

from muster.log import canon, tree
from muster.store.store import Draft

NAMES = st.sampled_from(["x", "y", "z"])
STATES = st.sampled_from(["open", "done", "half"])
DRAFTS = st.one_of(
    st.builds(job, NAMES, STATES),
    st.builds(drop, NAMES),
    st.builds(note, st.sampled_from(["a", "mistake", "é"])),
    st.builds(
        lambda kind, body: Draft(kind, "muster", (), body),
        st.sampled_from(["note.put", "job.set", "other.kind"]),
        st.one_of(
            st.binary(max_size=20),
            st.sampled_from([canon.encode({"text": 1}), canon.encode([]), b'{"text":"\\ud800"}']),
        ),
    ),
)
BATCHES = st.lists(st.lists(DRAFTS, min_size=1, max_size=6), min_size=1, max_size=6)
# Each example opens databases, which takes some milliseconds.
QUICK = settings(max_examples=30)


def history(machine):
    return [machine.store.tables.query(f"select * from {name}_hist") for name in ("job", "note")]


@proves("store.rebuild", "store.poison")
@QUICK
@given(BATCHES)
def test_whatever_was_written_folding_again_gives_the_same(batches):
    a = Machine(1)
    for batch in batches:
        a.write(a.fleet, *batch)
    assert a.store.log.size(a.fleet) == sum(map(len, batches))
    before = (tables_digest(a.store), history(a), a.store.tables.skipped())
    list(a.store.rebuild())
    assert (tables_digest(a.store), history(a), a.store.tables.skipped()) == before
    again = Machine(1, image=a.store.image())
    assert tables_digest(again.store) == before[0]


@proves("store.order-free", "store.take")
@QUICK
@given(BATCHES, BATCHES, st.lists(st.booleans(), max_size=12), st.integers(1, 5))
def test_in_whatever_order_streams_arrive_the_tables_are_the_same(ones, others, turns, size):
    a, b, c, d = (Machine(number) for number in range(1, 5))
    for batch in ones:
        a.write(a.fleet, *batch)
    for batch in others:
        b.write(b.fleet, *batch)
    for turn in turns:
        writer = a if turn else b
        start = c.store.log.size(writer.fleet)
        # A few entries at a time, sometimes some that are held already.
        segment = writer.store.log.segment(writer.fleet, max(0, start - 1), bytes_max=size * 900)
        if segment is not None:
            c.take_segment(segment, writer)
    for reader in (c, d):
        reader.pull(b, b.fleet)
        reader.pull(a, a.fleet)
        for writer in (a, b):
            only = [writer.fleet]
            assert tables_digest(reader.store, only) == tables_digest(writer.store, only)
    assert tables_digest(c.store) == tables_digest(d.store)
    list(c.store.rebuild())
    assert tables_digest(c.store) == tables_digest(d.store)


@proves("store.freeze")
@QUICK
@given(BATCHES, BATCHES, st.data())
def test_a_stream_cut_back_is_as_if_the_rest_had_never_come(first, second, data):
    a, b, c = (Machine(number) for number in range(1, 4))
    for batch in [*first, *second]:
        a.write(a.fleet, *batch)
    a.write(a.journal, *first[0])
    total = a.store.log.size(a.fleet)
    common = data.draw(st.integers(0, total))
    b.pull(a, a.fleet)
    with b.store.transaction():
        b.store.freeze(a.fleet, common, b"proof", b.now_ms)
    short = a.store.log.slice(a.fleet, 0)[:common]
    with c.store.transaction():
        c.store.freeze(a.fleet, common, b"proof", c.now_ms)
    c.pull(b, a.fleet)
    assert c.store.log.slice(a.fleet, 0) == b.store.log.slice(a.fleet, 0) == short
    assert tables_digest(c.store) == tables_digest(b.store)
    assert c.store.log.root_at(a.fleet, common) == tree.root_at(a.store.log.tree(a.fleet), common)
    before = tables_digest(b.store), history(b)
    list(b.store.rebuild())
    assert (tables_digest(b.store), history(b)) == before


@proves("store.atomic")
@QUICK
@given(BATCHES, st.lists(DRAFTS, max_size=300))
def test_a_transaction_that_fails_is_as_if_it_had_never_begun(batches, lost):
    a, twin = Machine(1), Machine(1)
    for batch in batches:
        before = a.random.getstate()
        with pytest.raises(LookupError), a.store.transaction():
            a.store.append(a.fleet, lost, a.now_ms)
            a.store.seal_dirty(a.signer)
            a.store.tables.rows(JOB)
            raise LookupError
        a.random.setstate(before)
        a.write(a.fleet, *batch)
        twin.write(twin.fleet, *batch)
    assert a.store.log.slice(a.fleet, 0) == twin.store.log.slice(twin.fleet, 0)
    assert tables_digest(a.store) == tables_digest(twin.store)
    assert history(a) == history(twin)
    assert a.store.log.seals(a.fleet) == twin.store.log.seals(twin.fleet)
