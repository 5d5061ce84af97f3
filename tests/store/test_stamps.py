"""Within a stream stamps rise, or what they are on counts for nothing."""

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.digest import tables_digest
from tests.promise import proves
from tests.store.world import NOTE, Machine, everything, note

from muster.log.clock import Stamp
from muster.store import folding

QUICK = settings(max_examples=40)
# As a hostile writer dates its entries, each after the start or the erasure before it.
DATES = st.lists(st.tuples(st.integers(1, 9), st.integers(0, 2)), min_size=1, max_size=12)


def dated(machine: Machine, dates: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Write a note under each of these stamps; those that are later than all before them."""
    latest, rising = (-1, 0), []
    for ms, n in dates:
        # The store gives the stamp after its own.
        machine.store._stamp = Stamp(ms, n - 1)
        with machine.store.transaction():
            (entry,) = machine.store.append(machine.fleet, [note(f"{ms}.{n}")], 0)
            machine.store.seal_dirty(machine.signer)
        assert entry.header.t == (ms, n)
        if (ms, n) > latest:
            latest = (ms, n)
            rising.append(entry.header.seq)
    return rising


def shown(machine: Machine) -> list[int]:
    return [row.seq for row in machine.store.tables.rows(NOTE)]


@proves("store.stamps-rise")
@QUICK
@given(DATES, DATES, st.integers(0, 30), st.integers(1, 4))
def test_only_what_is_dated_after_all_before_it_makes_rows(first, second, erased, size):
    a, b = Machine(1), Machine(2)
    rising = dated(a, first)
    a = Machine(1, image=a.store.image())
    # After a start: the latest stamp is no longer in memory.
    whole = dated(Machine(1), first + second)
    dated(a, second)
    count = len(first) + len(second)
    assert shown(a) == whole
    assert rising == [seq for seq in whole if seq < len(first)]
    while b.take(a, a.fleet, size):
        b = Machine(2, image=b.store.image())
    assert shown(b) == whole
    for machine in (a, b):
        told = [(each.seq, each.reason) for each in machine.store.tables.skipped()]
        late = [seq for seq in range(count) if seq not in whole]
        assert told == [(seq, "stamp-not-later") for seq in late]
        with machine.store.transaction():
            machine.store.erase_body(a.fleet, erased % count)
        before = (everything(machine.store), tables_digest(machine.store))
        list(machine.store.rebuild())
        assert (everything(machine.store), tables_digest(machine.store)) == before


@proves("store.stamps-rise")
def test_a_stamp_that_was_taken_back_is_no_latest_one():
    a = Machine(1)
    dated(a, [(1, 0)])
    with a.store.transaction():
        mark = a.store.mark()
        a.store._stamp = Stamp(9, 0)
        a.store.append(a.fleet, [note("gone")], 0)
        a.store.tables.rows(NOTE)
        a.store.undo(mark)
        a.store.seal_dirty(a.signer)
    assert dated(a, [(2, 0)]) == [1]
    assert shown(a) == [0, 1]


@proves("store.stamps-rise", "store.older-home")
def test_a_home_that_knew_of_no_such_stamps_is_folded_anew(monkeypatch):
    a = Machine(1)
    with monkeypatch.context() as before:
        before.setattr(folding, "_GIVEN", 1)
        before.setattr(folding, "_BEFORE_ALL", (-1, 0))
        before.setattr(folding.Folding, "_latest_before", lambda *_: (-1, 0))
        a = Machine(1)
        dated(a, [(5, 0)])
        dated(a, [(3, 0)])
        a.store._database.execute("drop table backdated")
        assert shown(a) == [0, 1]
    again = Machine(1, image=a.store.image())
    assert shown(again) == [0]
