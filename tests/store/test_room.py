"""A disk without room: nothing is lost, nothing is half written, and it goes on when there is room."""

import contextlib
import os
import resource
import signal

import apsw
import pytest
from tests.promise import proves
from tests.store.world import NOTE, NOW_MS, OWNER, Machine, everything, job, note

from muster.atomic_file import write_file
from muster.errors import Exhausted
from muster.log.admit import admit
from muster.log.seal import make_cosign
from muster.log.stream import scope_to


@contextlib.contextmanager
def full(path, room=0):
    """No file of this process grows beyond the database's log, as on a disk that is full."""
    size = os.stat(f"{path}-wal").st_size + room
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)


@pytest.fixture
def a(tmp_path):
    machine = Machine(1, tmp_path / "log.db")
    machine.write(machine.fleet, note("x"), job("y", "open"))
    yield machine
    machine.store.close()


@proves("store.full-disk")
def test_an_ordinary_transaction_without_room_leaves_nothing_and_the_next_one_counts(a):
    before = everything(a.store)
    with full(a.path), pytest.raises(Exhausted, match="full"):
        a.write(a.fleet, note("z" * 9_000))
    assert everything(a.store) == before
    a.write(a.fleet, note("after"))
    a.store.close()
    again = Machine(1, a.path)
    assert [r.text for r in again.store.tables.rows(NOTE)] == ["x", "after"]
    again.store.close()


@proves("store.full-disk")
def test_a_patient_transaction_waits_for_room_and_then_counts_as_it_was(a):
    other = Machine(2)
    new = a.stream(scope_to(other.id))
    other.write(other.fleet, note("theirs"))
    segment = other.store.log.segment(other.fleet, 0)
    mine = make_cosign(
        OWNER, a.fleet, 2, a.store.log.root_at(a.fleet, 2), a.id, "held", a.signer, 2
    )
    with full(a.path):
        with pytest.raises(Exhausted, match="full"), a.store.transaction(patient=True):
            kept = a.store.append(a.fleet, [note("z" * 9_000)], NOW_MS + 5)
            a.store.append(new, [job("y", "held")], NOW_MS + 6)
            state = a.store.log.state(other.fleet)
            taken = admit(state, segment, OWNER, other.signer.public, a.store.log.tree(other.fleet))
            a.store.take(taken, NOW_MS + 6)
            a.store.put_cosign(mine)
            a.store.remember("word", "kept")
            seals = a.store.seal_dirty(a.signer)
        for _ in range(3):
            with pytest.raises(Exhausted):
                a.store.recommit()
        # Its own reads see it; whoever opens the database does not.
        assert a.store.log.entry(kept[0].id) == kept[0]
        assert (a.store.log.size(a.fleet), a.store.log.size(other.fleet)) == (3, 1)
        assert a.store.log.seal_of(a.fleet) == next(s for s in seals if s.stream == a.fleet)
        assert a.store.recall("word") == "kept"
        seen = everything(a.store)
        # Nothing else is written meanwhile.
        for write in (
            lambda: a.store.append(a.fleet, [note("more")], NOW_MS + 7),
            lambda: a.store.remember("word", "other"),
            lambda: a.write(a.fleet, note("more")),
        ):
            with pytest.raises(Exhausted, match="goes on by itself"):
                write()
    assert a.store.waits
    a.store.recommit()
    assert not a.store.waits
    assert everything(a.store) == seen
    a.write(a.fleet, note("after"))
    a.store.close()
    again = Machine(1, a.path)
    assert again.store.log.size(a.fleet) == 4
    assert again.store.log.cosigns(a.fleet) == [mine]
    assert again.store.recall("word") == "kept"
    assert list(again.store.rebuild())
    again.store.close()


@proves("store.full-disk")
def test_a_machine_that_ends_while_it_waits_kept_what_it_had_told_and_no_more(a):
    with full(a.path):
        with pytest.raises(Exhausted), a.store.transaction(patient=True):
            a.store.append(a.fleet, [note("z" * 9_000)], NOW_MS + 5)
            a.store.seal_dirty(a.signer)
        a.store.close()
    again = Machine(1, a.path)
    assert again.store.log.size(a.fleet) == 2
    again.store.close()


@proves("store.full-disk")
def test_a_log_that_cannot_be_moved_for_want_of_room_spoils_no_commit(a, monkeypatch):
    monkeypatch.setattr("muster.store.sqlite.WAL_PAGES_BEFORE_CHECKPOINT", 0)
    asked = []

    class Full:
        """The connection, whose log cannot be moved into the database."""

        def __init__(self, real):
            self.real = real

        def wal_checkpoint(self, *_, **__):
            asked.append(1)
            raise apsw.FullError("database or disk is full")

        def __getattr__(self, name):
            return getattr(self.real, name)

    a.store._database._connection = Full(a.store._database._connection)
    for number in range(3):
        a.write(a.fleet, note(f"{number}"))
        assert len(asked) == number + 1
    assert a.store.log.size(a.fleet) == 5
    with pytest.raises(Exhausted):
        a.store.idle()
    a.write(a.fleet, note("on"))


@proves("store.full-disk")
def test_a_large_refold_still_fits_into_memory_and_answers_after_it(a):
    for number in range(20):
        a.write(a.fleet, note(f"{number}" * 2_000))
    before = everything(a.store)
    for _ in a.store.rebuild():
        pass
    assert everything(a.store) == before


@proves("store.full-disk")
def test_a_small_file_without_room_is_refused_as_passing_and_the_old_one_stays(tmp_path, a):
    path = tmp_path / "small"
    write_file(path, b"old")
    with full(a.path), pytest.raises(Exhausted):
        write_file(path, b"n" * 1_000_000)
    assert path.read_bytes() == b"old"
    assert not list(tmp_path.glob(".tmp-*"))
