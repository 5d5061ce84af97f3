"""What a transaction did after a mark can be taken back, and nothing else with it."""

import pytest
from tests.promise import proves
from tests.store.world import JOB, NOW_MS, OWNER, again, drop, everything, job, note

from muster.log.clock import Stamp
from muster.log.seal import make_cosign
from muster.log.stream import scope_to


@proves("store.undo")
@pytest.mark.parametrize("read", [False, True])
def test_what_came_after_a_mark_is_taken_back_as_if_it_had_never_been(machines, read):
    a, b = machines(1), machines(2)
    a.write(a.journal, job("x", "open"), note("hi"))
    new = a.stream(scope_to(b.store.machine))
    with a.store.transaction():
        kept = a.store.append(a.fleet, [job("y", "kept")], NOW_MS + 1_000)
        mark = a.store.mark()
        lost = a.store.append(a.fleet, [job("y", "lost"), drop("y")] * 200, NOW_MS + 90_000)
        a.store.append(new, [note("a stream of its own")], NOW_MS + 90_000)
        a.store.remember("word", "lost")
        if read:
            assert a.store.tables.rows(JOB, id="y") == []
            assert a.store.log.entry(lost[0].id) == lost[0]
        a.store.undo(mark)
        assert a.store.log.size(a.fleet) == 1
        assert new not in a.store.log.streams()
        assert a.store.recall("word") is None
        assert [r.state for r in a.store.tables.rows(JOB, id="y")] == ["kept"]
        after = a.store.append(a.fleet, [note("after")], NOW_MS + 1_000)
        a.store.seal_dirty(a.signer)
    assert a.store.log.slice(a.fleet, 0) == [*kept, *after]
    assert after[0].stamp < Stamp(NOW_MS + 90_000, 0)
    assert after[0].stamp > kept[0].stamp, "what stayed of the transaction is earlier"
    assert [a.store.log.entry(each.id) for each in lost] == [None] * 400
    assert a.store.log.entry(kept[0].id) == kept[0]
    before = everything(a.store)
    assert b.take_segment(a.store.log.segment(a.fleet, 0), a)
    for _ in a.store.rebuild():
        pass
    assert everything(again(a)) == before


@proves("store.undo")
def test_what_others_vouched_for_outlasts_an_undoing(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, note("x"), note("y"))
    root = a.store.log.root_at(a.fleet, 2)
    heard = make_cosign(OWNER, a.fleet, 2, root, b.id, "held", b.signer, 2)
    with a.store.transaction():
        assert a.store.put_cosign(heard, may_wait=True)
    with a.store.transaction():
        before = a.store.mark()
        a.store.append(a.fleet, [note("refused")], NOW_MS)
        a.store.undo(before)
        a.store.append(a.fleet, [note("z")], NOW_MS)
        a.store.seal_dirty(a.signer)
    assert again(a).log.cosigns(a.fleet) == [heard]
