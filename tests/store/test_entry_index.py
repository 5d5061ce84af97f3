"""How much is asked to find an entry, and that all of it is found wherever it lies."""

import pytest
from tests.promise import proves

from muster.store.admission_order import AdmissionOrder
from muster.store.entry_index import KEY_BYTES, EntryIndex
from muster.store.schema import pack, prepare
from muster.store.sqlite import MEMORY, Database

RUNS = 6
RUN = 500


class Counted(Database):
    """A database that counts what it is asked."""

    asked = 0

    def query(self, sql, bindings=()):
        self.asked += 1
        return super().query(sql, bindings)


@pytest.fixture
def database(monkeypatch):
    monkeypatch.setattr("muster.store.entry_index.RUN_ENTRIES", RUN)
    database = Counted(MEMORY)
    prepare(database)
    yield database
    database.close()


def entry_id(number):
    return (number * 0x9E3779B97F4A7C15 % 2**64).to_bytes(8, "big") + bytes(24)


def filled(database, ids):
    order = AdmissionOrder(database)
    directory = EntryIndex(database, order)
    for at in range(0, len(ids), RUN):
        database.begin()
        directory.begin()
        batch = ids[at : at + RUN]
        order.add(0, 1, at, len(batch))
        directory.put(pack(1, at), batch)
        order.flush()
        directory.flush()
        database.commit()
    return directory


def rows(directory, entry_id):
    return directory.rows(entry_id, entry_id)


def asked(database, directory, entry_id):
    before = database.asked
    next(rows(directory, entry_id), None)
    return database.asked - before


@proves("store.entry-young")
def test_a_young_entry_is_found_with_one_question_and_an_old_one_with_no_more(database):
    ids = [entry_id(number) for number in range(RUNS * RUN)]
    directory = filled(database, ids)
    assert asked(database, directory, ids[-1]) <= 2, "its run is read once, and then itself"
    assert asked(database, directory, ids[-2]) == 1
    assert next(rows(directory, ids[0])) == pack(1, 0)
    assert asked(database, directory, ids[1]) == 1, "five runs were passed over in memory"
    assert asked(database, directory, entry_id(10**9)) == 0


@proves("store.entry-young")
def test_runs_that_are_too_many_for_the_memory_are_asked_of_the_disk(database, monkeypatch):
    monkeypatch.setattr("muster.store.entry_index.RUNS_KNOWN_MAX", 2)
    ids = [entry_id(number) for number in range(RUNS * RUN)]
    directory = filled(database, ids)
    assert next(rows(directory, ids[0])) == pack(1, 0)
    assert len(directory._known) == 2
    assert asked(database, directory, ids[0]) == RUNS - 2
    database.begin()
    directory._order.add(0, 1, RUNS * RUN, RUN)
    directory.put(pack(1, RUNS * RUN), [entry_id(-number) for number in range(1, RUN + 1)])
    directory._order.flush()
    directory.flush()
    database.commit()
    assert [next(rows(directory, each)) for each in ids] == [pack(1, n) for n in range(RUNS * RUN)]
    assert len(directory._known) == 2


@proves("store.entry-young")
def test_one_lookup_learns_few_runs_and_those_after_it_the_rest(database, monkeypatch):
    """The first lookup of an old one of a million entries read all runs: a step of 140 ms."""
    monkeypatch.setattr("muster.store.entry_index.RUNS_PER_LOOKUP", 2)
    ids = [entry_id(number) for number in range(RUNS * RUN)]
    directory = filled(database, ids)
    assert len(directory._known) == RUNS, "what it wrote itself it need not learn"
    # As after a start.
    directory.load()
    for learned in (2, 4, 6, 6):
        assert next(rows(directory, ids[0])) == pack(1, 0)
        assert len(directory._known) == learned


@proves("store.entry-by-id")
def test_every_row_of_ids_that_begin_alike_is_given_the_newest_first(database):
    alike = [bytes(4) + number.to_bytes(4, "big") + bytes(24) for number in range(RUN)]
    ids = [*alike, *(bytes(32) for _ in range(3)), *map(entry_id, range(1, 2 * RUN)), bytes(32)]
    directory = filled(database, ids)
    assert sorted(rows(directory, bytes(32))) == [
        pack(1, seq) for seq, each in enumerate(ids) if each[:KEY_BYTES] == bytes(KEY_BYTES)
    ]
    assert next(rows(directory, bytes(32))) == pack(1, len(ids) - 1)
    assert [next(rows(directory, each)) for each in alike[1:]] == [
        pack(1, n) for n in range(1, RUN)
    ]


@proves("store.entry-by-id")
def test_a_key_that_lies_across_two_others_or_in_a_row_is_no_find(database, monkeypatch):
    monkeypatch.setattr("muster.store.entry_index.RUN_ENTRIES", 100)
    # All of it is one chunk, and nothing is known of it in memory.
    monkeypatch.setattr("muster.store.entry_index.RUNS_KNOWN_MAX", 0)
    ids = [entry_id(number) for number in range(100)]
    directory = filled(database, ids)
    row = pack(1, 3).to_bytes(8, "big")
    for key in (row, ids[3][4:KEY_BYTES] + row[:4]):
        assert list(rows(directory, key + bytes(24))) == []
    assert list(rows(directory, ids[3])) == [pack(1, 3)]


@proves("store.entry-by-id")
def test_a_run_that_was_taken_back_is_forgotten(database):
    ids = [entry_id(number) for number in range(2 * RUN)]
    directory = filled(database, ids[:RUN])
    assert next(rows(directory, ids[0])) == pack(1, 0)
    database.begin()
    directory.begin()
    directory._order.add(0, 1, RUN, RUN)
    directory.put(pack(1, RUN), ids[RUN:])
    directory._order.flush()
    directory.flush()
    assert next(rows(directory, ids[-1])) == pack(1, 2 * RUN - 1)
    database.rollback()
    directory._order.load()
    directory.forget()
    assert list(rows(directory, ids[-1])) == []
    assert next(rows(directory, ids[0])) == pack(1, 0)


@proves("store.entry-begins")
@pytest.mark.parametrize("known", [0, 128])
def test_ids_that_begin_with_these_digits_are_found_wherever_they_lie(database, monkeypatch, known):
    monkeypatch.setattr("muster.store.entry_index.RUNS_KNOWN_MAX", known)
    ids = [entry_id(number) for number in range(3 * RUN + 100)]
    directory = filled(database, ids)
    for number in (0, 1, RUN + 7, 3 * RUN + 50):
        for digits in (1, 2, 5, 8, 11, 15):
            low, high = (
                bytes.fromhex(ids[number].hex()[:digits].ljust(16, end)) for end in ("0", "f")
            )
            wanted = [pack(1, n) for n, each in enumerate(ids) if low <= each[:KEY_BYTES] <= high]
            assert sorted(directory.rows(low, high)) == wanted
    assert list(directory.rows(b"\xff" * 8, b"\xff" * 8)) == []
