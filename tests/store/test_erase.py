"""Erasing a body: what it costs, and that all is as if it had never been there."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tests.promise import proves
from tests.store.test_properties import BATCHES
from tests.store.world import NOTE, OWNER, Machine, Note, NoteRow, Notes, Tasks, everything, note

from muster.log.entry import Entry
from muster.log.fold import Rows, Table, body_as
from muster.log.stream import StreamName
from muster.store.store import Store

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


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
