"""Erasing a body: what it costs, and that all is as if it had never been there."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.store.test_properties import BATCHES
from tests.store.world import NOTE, OWNER, Machine, Note, NoteRow, Notes, Tasks, everything, note

from muster.errors import NotFound
from muster.log.entry import Entry
from muster.log.fold import Rows, Table, body_as
from muster.log.stream import StreamName
from muster.store.store import Store

QUICK = settings(max_examples=40)


class LastRow(NamedTuple):
    stream: StreamName
    name: str
    text: str
    notes: int


LAST = Table("last", LastRow)


class Last:
    """What depends on more than one entry of the kind."""

    name = "last"
    tables = (LAST,)
    kinds = frozenset({"note.put"})

    def __init__(self) -> None:
        self.calls = 0

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        self.calls += 1
        text = body_as(entry, Note).text
        before = rows.get(LAST, "last")
        return [LastRow(rows.stream, "last", text, 1 + (before.notes if before else 0))]


class Counted(Notes):
    def __init__(self) -> None:
        self.calls = 0

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        self.calls += 1
        return super().apply(entry, rows)


class Noting(Machine):
    """A machine with the folds that are given."""

    def __init__(self, *folds: object, path: Path | str = ":memory:") -> None:
        self.folds = folds
        super().__init__(1, path)

    def opened(self, image: bytes | None = None) -> Store:
        return Store(
            self.path, fleet=OWNER, machine=self.id, rng=self.random.randbytes,
            folds=self.folds, image=image,
        )  # type: ignore[arg-type]  # fmt: skip


def erase(machine: Machine, stream: StreamName, seq: int) -> None:
    with machine.store.transaction():
        machine.store.erase_body(stream, seq)


@proves("store.erase-equals-rebuild")
@QUICK
@given(BATCHES, st.lists(st.integers(0, 1 << 20), min_size=1, max_size=5), st.integers(0, 30))
def test_after_an_erasure_all_is_as_if_every_entry_were_folded_again(batches, erased, cut):
    a = Noting(Tasks(), Notes(), Last())
    for at, batch in enumerate(batches):
        a.write(a.fleet if at % 3 else a.journal, *batch)
    for at in erased:
        stream = a.fleet if at % 2 and a.store.log.knows(a.fleet) else a.journal
        erase(a, stream, at % a.store.log.size(stream))
    if cut < a.store.log.size(a.journal):
        # What was cut away is erased as well.
        with a.store.transaction():
            a.store.freeze(a.journal, cut, b"proof", a.now_ms)
        erase(a, a.journal, cut)
    found = (everything(a.store), a.store.tables.query("select * from last_hist"))
    list(a.store.rebuild())
    assert (everything(a.store), a.store.tables.query("select * from last_hist")) == found


@proves("store.erase-equals-rebuild")
def test_an_erasure_folds_one_entry_where_its_rows_are_its_alone():
    notes, last = Counted(), Last()
    a = Noting(notes)
    a.write(a.fleet, *(note(f"n{at}") for at in range(300)))
    notes.calls = 0
    erase(a, a.fleet, 7)
    assert notes.calls == 1
    assert len(a.store.tables.rows(NOTE)) == 299
    assert a.store.tables.skipped()[0].reason == "no-body"
    b = Noting(notes, last)
    b.write(b.fleet, *(note(f"n{at}") for at in range(300)))
    notes.calls = last.calls = 0
    erase(b, b.fleet, 7)
    assert (notes.calls, last.calls) == (1, 300)
    assert b.store.tables.rows(LAST)[0].notes == 299


def test_a_row_of_another_entry_than_its_own_is_refused():
    class Wrong(Notes):
        def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
            return [NoteRow(rows.stream, 0, body_as(entry, Note).text)]

    a = Noting(Wrong())
    a.write(a.fleet, note("x"), note("y"))
    assert [row.text for row in a.store.tables.rows(NOTE)] == ["x"]
    assert [each.reason for each in a.store.tables.skipped()] == ["bad-row"]


def test_a_table_whose_rows_are_an_entrys_says_so_by_its_key():
    class Named(Notes):
        tables = (Table("last", LastRow, of_entry=True),)

    with pytest.raises(ValueError, match="of which entry"):
        Noting(Named())


class Kept(Notes):
    """Makes of what was kept what it would make of the body."""

    def __init__(self) -> None:
        self.calls = 0

    def apply(self, entry: Entry, rows: Rows) -> Iterable[NamedTuple]:
        self.calls += 1
        if entry.body is None and rows.rest is not None:
            return [NoteRow(rows.stream, entry.header.seq, rows.rest.decode())]
        return super().apply(entry, rows)


@proves("context.let-go-in-small-steps")
def test_to_let_a_body_go_folds_nothing_and_a_rebuild_makes_the_same_rows(tmp_path):
    fold = Kept()
    a = Noting(fold, path=tmp_path / "log.db")
    entries = a.write(a.fleet, *(note(f"text {n}") for n in range(20)))
    calls, root = fold.calls, a.store.log.root_at(a.fleet, 20)
    with a.store.transaction():
        a.store.let_go(a.fleet, 7, b"text 7")
    assert fold.calls == calls
    gone = a.store.log.entry_at(a.fleet, 7)
    assert (gone.id, gone.body, gone.salt) == (entries[7].id, None, b"")
    assert [a.store.log.is_let_go(a.fleet, n) for n in (6, 7)] == [False, True]
    for _ in a.store.rebuild():
        pass
    assert [row.text for row in a.store.tables.rows(NOTE)] == [f"text {n}" for n in range(20)]
    assert a.store.log.root_at(a.fleet, 20) == root
    # Erased for good, nothing is kept of it.
    erase(a, a.fleet, 7)
    assert not a.store.log.is_let_go(a.fleet, 7)
    assert len(a.store.tables.rows(NOTE)) == 19


def test_what_is_let_go_comes_back_with_a_transaction_that_fails(tmp_path):
    a = Noting(Kept(), path=tmp_path / "log.db")
    a.write(a.fleet, note("text"))
    with pytest.raises(RuntimeError), a.store.transaction():
        a.store.let_go(a.fleet, 0, b"text")
        raise RuntimeError
    assert a.store.log.entry_at(a.fleet, 0).body is not None
    assert not a.store.log.is_let_go(a.fleet, 0)
    with a.store.transaction(), pytest.raises(NotFound):
        a.store.let_go(a.fleet, 1, b"text")


@proves("store.older-home")
def test_a_database_of_before_that_has_no_place_for_what_is_kept_gets_one(tmp_path):
    a = Noting(Kept(), path=tmp_path / "log.db")
    a.write(a.fleet, note("text"))
    a.store._database.execute("drop table rest")
    a.store.close()
    b = Noting(Kept(), path=tmp_path / "log.db")
    with b.store.transaction():
        b.store.let_go(b.fleet, 0, b"text")
    assert b.store.log.is_let_go(b.fleet, 0)
