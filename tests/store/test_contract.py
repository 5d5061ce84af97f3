"""What every store does, in a file or in memory."""

from dataclasses import replace
from typing import NamedTuple

import pytest
from tests.digest import tables_digest
from tests.promise import proves
from tests.store.world import (
    JOB,
    NOTE,
    NOW_MS,
    OWNER,
    Machine,
    Notes,
    Tasks,
    again,
    drop,
    everything,
    folds,
    job,
    jobs,
    note,
)

from muster.errors import Conflict, Forged, Malformed, NotFound
from muster.log import tree
from muster.log.admit import Taken, admit
from muster.log.clock import Stamp
from muster.log.entry import EntryId
from muster.log.fold import Gone, Table
from muster.log.seal import make_cosign, make_seal, open_seal
from muster.log.segment import Segment
from muster.log.stream import JOURNAL, StreamName, scope_to
from muster.store import folding
from muster.store.schema import DDL
from muster.store.sqlite import Database
from muster.store.store import MEMORY, Draft, Store
from muster.store.tree import StreamTree, Tiles

# --- appending -----------------------------------------------------------------------------


@proves("store.append-durable")
def test_what_was_appended_is_there_after_a_restart(machines):
    a = machines(1)
    entries = a.write(a.journal, job("x", "open"), note("hi"))
    a.write(a.fleet, job("x", "done"))
    before = everything(a.store)
    assert [e.header.seq for e in entries] == [0, 1]
    assert a.store.log.slice(a.journal, 0) == entries
    assert everything(again(a)) == before


@proves("store.atomic")
@pytest.mark.parametrize("when", ["before sealing", "after sealing", "after reading"])
def test_a_transaction_that_fails_leaves_nothing(machines, when):
    a = machines(1)
    a.write(a.journal, job("x", "open"), note("hi"))
    before = everything(a.store)
    with pytest.raises(LookupError), a.store.transaction():
        a.store.append(a.journal, [job("x", "lost"), drop("q")], NOW_MS + 50_000)
        lost = a.store.append(a.fleet, [job("y", "lost")] * 300, NOW_MS + 60_000)
        if when != "before sealing":
            a.store.seal_dirty(a.signer)
        if when == "after reading":
            assert len(a.store.tables.rows(JOB)) == 2
            assert a.store.log.root_at(a.fleet, 200)
        raise LookupError
    assert everything(a.store) == before
    assert [a.store.log.entry(each.id) for each in lost] == [None] * 300
    kept = a.write(a.fleet, *[note(str(at)) for at in range(300)])
    assert a.store.log.slice(a.fleet, 0) == kept
    assert tree.root_at(a.store.log.tree(a.fleet), 300) == a.store.log.state(a.fleet).range.root()
    (entry,) = a.write(a.journal, note("after"))
    assert entry.header.seq == 2
    assert entry.stamp < Stamp(NOW_MS + 50_000, 0)


@proves("store.atomic")
def test_a_bad_draft_adds_nothing(machines):
    a = machines(1)
    with a.store.transaction():
        with pytest.raises(Malformed):
            a.store.append(
                a.journal, [note("good"), Draft("bad kind", "muster", (), b"{}")], NOW_MS
            )
        assert a.store.log.size(a.journal) == 0
        a.store.append(a.journal, [note("good")], NOW_MS)
    assert a.store.log.size(a.journal) == 1


@proves("store.own-streams")
def test_another_machines_stream_cannot_be_appended_to(machines):
    a, b = machines(1), machines(2)
    with a.store.transaction(), pytest.raises(Conflict):
        a.store.append(b.fleet, [note("not mine")], NOW_MS)
    assert a.store.log.size(b.fleet) == 0


@proves("store.one-seal")
def test_a_commit_makes_one_seal_per_stream_that_grew(machines):
    a = machines(1)
    with a.store.transaction():
        for at in range(64):
            a.store.append(a.journal, [note(str(at))], NOW_MS)
        a.store.append(a.fleet, [note("x")], NOW_MS)
        seals = a.store.seal_dirty(a.signer)
    assert [(s.stream, s.size) for s in seals] == [(a.journal, 64), (a.fleet, 1)]
    for seal in seals:
        assert open_seal(seal.note, OWNER, a.signer.public) == seal
        assert seal.root == a.store.log.root_at(seal.stream, seal.size)
        assert a.store.log.seal_of(seal.stream) == seal
    with a.store.transaction():
        assert a.store.seal_dirty(a.signer) == []


@proves("store.one-seal")
def test_what_was_not_sealed_is_sealed_later(machines):
    a = machines(1)
    with a.store.transaction():
        a.store.append(a.journal, [note("x")], NOW_MS)
    store = again(a)
    if store.machine == a.id:
        with store.transaction():
            assert [s.size for s in store.seal_dirty(a.signer)] == [1]


@proves("store.clock")
def test_stamps_rise_across_restarts_and_past_others(machines):
    a, b = machines(1), machines(2)
    b.now_ms += 5_000
    (theirs,) = b.write(b.fleet, note("from the future"))
    (first,) = a.write(a.fleet, note("x"))
    a.pull(b, b.fleet)
    if a.path != MEMORY:
        again(a)
    (second,) = a.write(a.fleet, note("y"))
    assert first.stamp < theirs.stamp < second.stamp
    (third,) = a.write(a.journal, note("z"))
    assert second.stamp < third.stamp


# --- taking and serving ------------------------------------------------------------------------


@proves("store.take")
def test_taken_entries_give_the_same_entries_tables_and_root(machines):
    a, b = machines(1), machines(2)
    for at in range(300):
        a.write(a.fleet, job(f"j{at % 7}", str(at)), note("x" * at))
    b.pull(a, a.fleet)
    assert b.store.log.size(a.fleet) == 600
    assert b.store.log.root_at(a.fleet, 600) == a.store.log.root_at(a.fleet, 600)
    assert tables_digest(b.store) == tables_digest(a.store)
    assert [b.store.log.entry_at(a.fleet, n) for n in (0, 599)] == [
        a.store.log.entry_at(a.fleet, n) for n in (0, 599)
    ]


@proves("store.take-conflict")
def test_what_was_admitted_against_an_older_state_is_not_kept(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, note("x"), note("y"))
    segment = a.store.log.segment(a.fleet, 0)
    found = admit(b.store.log.state(a.fleet), segment, OWNER, a.signer.public)
    assert isinstance(found, Taken)
    b.pull(a, a.fleet)
    before = everything(b.store)
    with b.store.transaction(), pytest.raises(Conflict):
        b.store.take(found, NOW_MS)
    assert everything(b.store) == before


@proves("store.serves-sealed")
def test_what_is_not_sealed_is_not_served(machines):
    a = machines(1)
    with a.store.transaction():
        a.store.append(a.fleet, [note("x")], NOW_MS)
    assert a.store.log.segment(a.fleet, 0) is None
    a.write(a.fleet, note("y"))
    with a.store.transaction():
        a.store.append(a.fleet, [note("z")], NOW_MS)
    segment = a.store.log.segment(a.fleet, 0)
    assert (segment.end, segment.seal.size) == (2, 2)
    assert a.store.log.segment(a.fleet, 2) is None


@proves("store.serves-sealed")
def test_a_part_is_served_on_while_the_rest_is_missing(machines):
    """The writer may be gone before anyone has all of its entries."""
    a, b, c = machines(1), machines(2), machines(3)
    a.write(a.fleet, *[note("x" * 2000) for _ in range(300)])
    for _ in range(2):
        b.take(a, a.fleet)
    held = b.store.log.size(a.fleet)
    assert 0 < held < 300
    assert b.store.log.seal_of(a.fleet) is None
    assert b.store.log.latest_seal(a.fleet).size == 300
    again_b = again(b) if b.path != MEMORY else b.store
    assert again_b.log.latest_seal(a.fleet).size == 300
    c.pull(b, a.fleet)
    assert c.store.log.size(a.fleet) == held
    c.pull(a, a.fleet)
    assert c.store.log.seal_of(a.fleet).size == 300
    assert tables_digest(c.store) == tables_digest(a.store)


@proves("store.serves-sealed")
def test_a_seal_that_was_known_ahead_serves_once_its_entries_are_here(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, *[note("x")] * 8)
    witnessed = a.store.log.seal_of(a.fleet)
    a.write(a.fleet, *[note("y")] * 4)
    with b.store.transaction():
        b.store.put_seal(witnessed)
    entries = tuple(a.store.log.slice(a.fleet, 0)[:9])
    proof = tuple(a.store.log.consistency(a.fleet, 9, 12))
    assert b.take_segment(Segment(a.fleet, 0, entries, a.store.log.seal_of(a.fleet), proof), a)
    assert b.store.log.seal_of(a.fleet) == witnessed
    assert b.store.log.latest_seal(a.fleet).size == 12
    assert [b.store.log.segment(a.fleet, start).end for start in (0, 8)] == [9, 9]


@proves("store.serves-sealed")
def test_bodies_before_a_place_are_withheld(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, note("secret"), note("open"))
    assert b.take_segment(a.store.log.segment(a.fleet, 0, bodies_from=1), a)
    assert [e.body is None for e in b.store.log.slice(a.fleet, 0)] == [True, False]
    assert [row.text for row in b.store.tables.rows(NOTE)] == ["open"]
    assert b.store.tables.skipped()[0].reason == "no-body"


@proves("store.proofs")
@pytest.mark.parametrize("size", [1, 2, 255, 256, 257, 700])
def test_proofs_from_tiles_verify(machines, size):
    a = machines(1)
    entries = a.write(a.fleet, *[note(str(at)) for at in range(size)])
    store = a.store
    root = store.log.root_at(a.fleet, size)
    sizes = sorted({1, size // 3, size // 2, max(1, size - 1), size} - {0})
    for at in {0, size // 2, size - 1}:
        proof = store.log.inclusion(a.fleet, at, size)
        assert tree.verify_inclusion(entries[at].id, at, size, proof, root)
    for old in sizes:
        proof = store.log.consistency(a.fleet, old, size)
        assert tree.verify_consistency(old, size, store.log.root_at(a.fleet, old), root, proof)
    with pytest.raises(NotFound):
        store.log.root_at(a.fleet, size + 1)


@proves("store.proofs")
def test_tiles_of_tiles_give_the_root_of_the_range():
    database = Database(MEMORY)
    for statement in DDL.split(";\n"):
        database.execute(statement)
    tiles, after, leaves = Tiles(database), tree.Range(), []
    for at in range(257 * 256):
        leaves.append(tree.leaf_hash(at.to_bytes(4, "big")))
        after.append(leaves[-1])
        if len(leaves) == 256:
            tiles.complete(7, at // 256, leaves)
            leaves.clear()
        if at + 1 in (256, 65_536, 256 * 257):
            assert tree.root_at(StreamTree(tiles, 7), at + 1) == after.root()


@proves("store.entry-by-id")
def test_every_entry_is_found_by_its_id(machines, monkeypatch):
    monkeypatch.setattr("muster.store.entry_index.RUN_ENTRIES", 50)
    a, b = machines(1), machines(2)
    entries = [a.write(a.fleet, note(str(at)), job("x", str(at))) for at in range(70)]
    b.pull(a, a.fleet)
    stores = [a.store, b.store] if a.path == MEMORY else [again(a), again(b)]
    for store in stores:
        for pair in entries:
            assert [store.log.entry(e.id) for e in pair] == pair
        assert store.log.entry(EntryId(b"\0" * 32)) is None


@proves("store.entry-by-id")
def test_an_entry_is_found_before_it_is_committed(machines):
    a = machines(1)
    with a.store.transaction():
        (entry,) = a.store.append(a.fleet, [note("x")], NOW_MS)
        assert a.store.log.entry(entry.id) == entry
        assert [row.text for row in a.store.tables.rows(NOTE)] == ["x"]


# --- seals and cosigns ----------------------------------------------------------------------


@proves("store.kept-seals")
def test_of_the_seals_of_a_tile_the_newest_is_kept(machines):
    a = machines(1)
    for _ in range(130):
        a.write(a.fleet, *[note("x")] * 4)
    assert [s.size for s in a.store.log.seals(a.fleet)] == [256, 512, 520]
    assert a.store.log.seal_of(a.fleet).size == 520


@proves("store.kept-seals")
def test_a_seal_of_a_stream_that_is_not_held_is_witnessed(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, note("x"))
    old = a.store.log.seal_of(a.fleet)
    a.write(a.fleet, note("y"))
    new = a.store.log.seal_of(a.fleet)
    with b.store.transaction():
        assert b.store.put_seal(new)
        assert not b.store.put_seal(old)
        assert not b.store.put_seal(new)
    store = again(b)
    assert (store.log.size(a.fleet), store.log.seal_of(a.fleet)) == (0, None)
    assert store.log.latest_seal(a.fleet) == new


@proves("store.cosigns")
def test_of_the_cosigns_the_largest_is_kept(machines):
    a, b = machines(1), machines(2)

    def cosign(size, strength):
        root = a.store.log.root_at(a.fleet, size)
        return make_cosign(OWNER, a.fleet, size, root, b.id, strength, b.signer, size)

    a.write(a.fleet, note("x"), note("y"), note("z"))
    one, two, seen = cosign(1, "held"), cosign(2, "held"), cosign(1, "seen")
    with a.store.transaction():
        assert [a.store.put_cosign(each) for each in (one, two, seen, one, two)] == [
            True,
            True,
            True,
            False,
            False,
        ]
    store = again(a)
    assert sorted(store.log.cosigns(a.fleet), key=lambda c: c.size) == [seen, two]
    assert ((a.fleet, b.id, "held"), 2, two.note) in list(store.log.cosigned())


# --- folds -------------------------------------------------------------------------------------


@proves("store.fold-together", "store.poison")
def test_a_skip_takes_the_changes_of_its_entry_back(machines):
    a = machines(1)
    a.write(a.fleet, job("x", "open"), job("x", "half"), drop("nobody"), job("x", "done"))
    assert jobs(a) == [("x", "done", 2)]
    assert [(s.fold, s.seq, s.reason) for s in a.store.tables.skipped()] == [
        ("tasks", 1, "half-done"),
        ("tasks", 2, "no-such-job"),
    ]


@proves("store.poison")
@pytest.mark.parametrize("body", [b"", b"\xff", b"[]", b'{"text":1}', b'{"text":"mistake"}'])
def test_a_poison_entry_stops_nothing(machines, body):
    a, b = machines(1), machines(2)
    a.write(a.fleet, Draft("note.put", "muster", (), body), note("after"), job("x", "open"))
    b.pull(a, a.fleet)
    for machine in (a, b):
        assert [row.text for row in machine.store.tables.rows(NOTE)] == ["after"]
        assert jobs(machine) == [("x", "open", 1)]
        (skipped,) = machine.store.tables.skipped()
        assert (skipped.fold, skipped.seq) == ("notes", 0)
        assert skipped.reason in {"bad-body", "mistake-keyerror"}


class WildRow(NamedTuple):
    stream: StreamName
    id: str
    number: int
    raw: bytes


class OtherRow(NamedTuple):
    stream: StreamName
    id: str
    number: int
    raw: bytes


WILD = Table("wild", WildRow)


class Wild:
    """A fold that hands over whatever the test wants."""

    name = "wild"
    kinds = frozenset({"note.put"})
    tables = (WILD,)

    def __init__(self, changes):
        self.changes = changes

    def apply(self, entry, rows):
        return [change(rows.stream) for change in self.changes]


def row(*values, of=WildRow):
    return lambda stream: of(stream, *values)


@proves("store.bad-rows")
@pytest.mark.parametrize(
    "change",
    [
        row("x", 1.5, b""),
        row("x", True, b""),
        row("x", None, b""),
        row("x", 2**63, b""),
        row("x", 1, "text"),
        row(None, 1, b""),
        row("\ud800", 1, b""),
        row("x", 1, b"", of=OtherRow),
        lambda stream: WildRow(stream._replace(scope=JOURNAL), "x", 1, b""),
        lambda _stream: WildRow("x", "x", 1, b""),
        lambda stream: WildRow._make((stream, "x", 1, b""))[:2],
        lambda stream: Gone(WildRow(stream, "x", "text", b"")),
        Gone,
        lambda _stream: "nonsense",
    ],
)
def test_a_row_that_cannot_be_stored_is_skipped(change):
    good = row("good", 1, b"")
    a = Machine(1)
    a.store = Store(
        MEMORY,
        fleet=OWNER,
        machine=a.id,
        rng=a.random.randbytes,
        folds=[Wild([good, change]), Notes()],
    )
    a.write(a.fleet, note("x"))
    assert a.store.tables.rows(WILD) == []
    assert len(a.store.tables.rows(NOTE)) == 1
    assert [s.fold for s in a.store.tables.skipped()] == ["wild"]


@proves("store.bad-rows")
def test_more_changes_than_one_entry_may_make_are_skipped():
    many = [row(str(at), at, b"") for at in range(5000)]
    a = Machine(1)
    a.store = Store(MEMORY, fleet=OWNER, machine=a.id, rng=a.random.randbytes, folds=[Wild(many)])
    a.write(a.fleet, note("x"))
    assert [s.reason for s in a.store.tables.skipped()] == ["too-many-rows"]


@proves("store.rebuild")
def test_folding_again_gives_the_same_tables_and_history(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, *[job(f"j{at % 5}", str(at)) for at in range(40)], drop("j1"), drop("j9"))
    b.write(b.fleet, *[note(str(at)) for at in range(40)])
    a.pull(b, b.fleet)
    before = everything(a.store)
    assert list(a.store.rebuild())[-1] == (82, 82)
    assert everything(a.store) == before


@proves("store.as-of")
def test_a_table_can_be_asked_as_of_the_past(machines):
    a = machines(1)
    times = []
    for draft in (job("x", "open"), job("y", "open"), job("x", "done"), drop("y")):
        a.write(a.fleet, draft)
        times.append(a.now_ms)

    def shown(**when):
        return [(r.id, r.state) for r in a.store.tables.as_of(JOB, **when)]

    past = [
        [],
        [("x", "open")],
        [("x", "open"), ("y", "open")],
        [("x", "done"), ("y", "open")],
        [("x", "done")],
    ]
    assert [shown(admission=at) for at in range(-1, 4)] == past
    assert [shown(time_ms=at) for at in [NOW_MS, *times]] == past
    assert [a.store.log.admitted(a.fleet, at) for at in range(5)] == [
        *[(at, times[at]) for at in range(4)],
        None,
    ]


@proves("store.as-of")
def test_a_clock_set_back_does_not_reorder_the_past(machines):
    a = machines(1)
    a.write(a.fleet, note("x"))
    a.now_ms -= 10_000
    a.write(a.fleet, note("y"))
    assert a.store.log.admitted(a.fleet, 1) == (1, NOW_MS + 1)


@proves("store.new-fold")
def test_a_new_or_changed_fold_is_folded_from_the_first_entry(tmp_path):
    a = Machine(1, tmp_path / "log.db")
    a.write(a.fleet, note("x"), job("y", "open"), job("y", "done"))
    whole = tables_digest(a.store)

    def opened(*folds):
        a.store.close()
        a.store = Store(a.path, fleet=OWNER, machine=a.id, rng=a.random.randbytes, folds=folds)
        return a.store

    class Upper(Notes):
        version = 2

        def apply(self, entry, rows):
            return [r._replace(text=r.text.upper()) for r in super().apply(entry, rows)]

    assert [r.text for r in opened(Upper()).tables.rows(NOTE)] == ["X"]
    with pytest.raises(NotFound):
        a.store.tables.rows(JOB)
    a.write(a.fleet, job("y", "late"))
    assert [r.state for r in opened(Tasks(), Notes()).tables.rows(JOB)] == ["late"]
    assert tables_digest(a.store)["note"] == whole["note"]


class OddRow(NamedTuple):
    stream: StreamName
    order: str
    to: int
    group: str


class Odd(Wild):
    """A fold whose columns have the names of keywords, and whose table the test chooses."""

    def __init__(self, table="odd"):
        super().__init__([row("x", 1, "y", of=OddRow)])
        self.tables = (Table(table, OddRow, indexes=(("to",),)),)


def test_columns_may_have_the_names_of_keywords():
    a = Machine(1)
    fold = Odd()
    a.store = Store(MEMORY, fleet=OWNER, machine=a.id, rng=a.random.randbytes, folds=[fold])
    a.write(a.fleet, note("x"))
    (odd,) = fold.tables
    found = a.store.tables.rows(odd, to=1, order=("-group",))
    assert found == [OddRow(a.fleet, "x", 1, "y")]
    assert a.store.tables.as_of(odd, admission=0) == found
    list(a.store.rebuild())
    assert a.store.tables.rows(odd) == found


@proves("log.fold-rows")
def test_one_class_of_rows_is_of_one_table():
    fold = Wild([])
    fold.tables = (WILD, Table("wilder", WildRow))
    with pytest.raises(ValueError, match="cannot have the table wild"):
        Store(MEMORY, fleet=OWNER, machine=Machine(1).id, rng=bytes, folds=[fold])


@pytest.mark.parametrize("name", ["note", "entry", "admission", "fold"])
def test_a_fold_cannot_have_the_table_of_another_or_of_the_store(name):
    a = Machine(1)
    wanted = [*folds(), Odd(name)]
    with pytest.raises(ValueError, match=f"cannot have the table {name}"):
        Store(MEMORY, fleet=OWNER, machine=a.id, rng=a.random.randbytes, folds=wanted)


# --- forks and erasure --------------------------------------------------------------------------


def forked(machines):
    """`a` told `b` and `c` the same ten entries, then each something else."""
    a, b, c = machines(1), machines(2), machines(3)
    a.write(a.fleet, *[job(f"j{at % 3}", str(at)) for at in range(10)])
    b.pull(a, a.fleet)
    c.pull(a, a.fleet)
    prefix = tables_digest(b.store)
    twin = Machine(1, image=a.store.image())
    a.write(a.fleet, drop("j0"), job("j1", "ours"), job("j5", "ours"), drop("q"))
    twin.write(twin.fleet, job("j1", "theirs"))
    b.pull(a, a.fleet)
    c.pull(twin, a.fleet)
    return a, b, c, prefix


@proves("store.freeze")
def test_a_forked_stream_falls_back_to_its_common_prefix(machines):
    a, b, c, prefix = forked(machines)
    ours, theirs = b.store.log.slice(a.fleet, 10), c.store.log.slice(a.fleet, 10)
    for machine, other in ((b, theirs), (c, ours)):
        with machine.store.transaction():
            assert machine.store.freeze(a.fleet, 10, b"proof", machine.now_ms + 1, other)
            assert not machine.store.freeze(a.fleet, 10, b"again", machine.now_ms + 1)
        assert tables_digest(machine.store) == prefix
        assert machine.store.log.size(a.fleet) == 10
        assert machine.store.tables.skipped() == []
        before = everything(machine.store)
        list(machine.store.rebuild())
        assert everything(machine.store) == before
        store = again(machine)
        assert everything(store) == before
        assert (store.log.forks(), store.log.frozen_at(a.fleet)) == ([b"proof"], 10)
    assert b.store.log.entry_at(a.fleet, 10) == ours[0]
    assert b.store.log.entry(ours[0].id) is None
    assert len(b.store.tables.query("select * from branch")) == len(theirs)


@proves("store.admission-order")
@pytest.mark.parametrize("most", [1, 3, 100])
def test_what_was_taken_in_is_read_in_that_order_from_any_number_on(machines, most):
    a, b, _, _ = forked(machines)
    b.write(b.fleet, note("before"))
    with b.store.transaction():
        b.store.freeze(a.fleet, 10, b"proof", b.now_ms + 1)
    last = b.write(b.journal, note("after"), note("and more"))
    store = again(b)
    came = [store.log.entry_at(a.fleet, seq) for seq in range(14)]
    came += [store.log.entry_at(b.fleet, 0), *last]
    end = store.log.admissions
    # Cutting the stream back takes numbers of its own, which are nobody's.
    numbers = [*range(15), end - 2, end - 1]
    for since in (*range(17), end - 5, end - 2, end - 1, end):
        for until in sorted({since, 12, 15, 16, end - 1, end}):
            found, number = [], since
            while number < until:
                entries, number = store.log.admitted_since(number, until, most)
                assert len(entries) <= most
                found += entries
            assert found == [e for e, at in zip(came, numbers, strict=True) if since <= at < until]


@proves("store.freeze")
def test_a_frozen_stream_grows_no_more_and_is_served_up_to_the_fork(machines):
    a, b, _, prefix = forked(machines)
    with b.store.transaction():
        b.store.freeze(a.fleet, 8, b"proof", b.now_ms + 1)
    d = machines(4)
    with d.store.transaction():
        d.store.freeze(a.fleet, 8, b"proof", d.now_ms + 1)
    d.pull(b, a.fleet)
    assert d.store.log.size(a.fleet) == 8
    assert tables_digest(d.store) == tables_digest(b.store) != prefix
    with a.store.transaction():
        a.store.freeze(a.fleet, 8, b"proof", a.now_ms + 1)
        with pytest.raises(Conflict):
            a.store.append(a.fleet, [note("more")], a.now_ms)
        assert a.store.seal_dirty(a.signer) == []
    assert a.store.log.size(a.fleet) == 8


@proves("store.freeze", "store.as-of")
def test_the_past_of_a_frozen_stream_can_still_be_asked(machines):
    a, b, _, _ = forked(machines)
    before = b.store.tables.as_of(JOB, admission=13)
    with b.store.transaction():
        b.store.freeze(a.fleet, 10, b"proof", b.now_ms + 1)
    assert b.store.tables.as_of(JOB, admission=13) == before != b.store.tables.rows(JOB)
    assert b.store.tables.as_of(JOB, time_ms=b.now_ms + 1) == b.store.tables.rows(JOB)


@proves("store.freeze", "store.rebuild", "store.as-of")
def test_a_stream_that_is_cut_back_twice_has_the_same_past_after_a_rebuild():
    a, b = Machine(1), Machine(2)
    a.write(a.fleet, *[job(f"j{number}", "open") for number in range(12)])
    b.pull(a, a.fleet)
    for common in (8, 4):
        with b.store.transaction():
            b.store.freeze(a.fleet, common, b"proof", b.now_ms)
    pasts = [b.store.tables.as_of(JOB, admission=number) for number in (5, 11, 12, 1 << 21)]
    before = everything(b.store), b.store.tables.query("select * from job_hist")
    list(b.store.rebuild())
    assert (everything(b.store), b.store.tables.query("select * from job_hist")) == before
    assert [b.store.tables.as_of(JOB, admission=n) for n in (5, 11, 12, 1 << 21)] == pasts


@proves("store.freeze")
def test_what_came_in_the_transaction_that_cuts_a_stream_back_is_undone_as_well():
    a, b = Machine(1), Machine(2)
    a.write(a.fleet, *[job(f"j{number}", "open") for number in range(3)])
    b.pull(a, a.fleet)
    before = tables_digest(b.store)
    a.write(a.fleet, job("j1", "done"), drop("j2"))
    segment = a.store.log.segment(a.fleet, 3)
    taken = admit(
        b.store.log.state(a.fleet), segment, OWNER, a.signer.public, b.store.log.tree(a.fleet)
    )
    with b.store.transaction():
        b.store.take(taken, b.now_ms)
        b.store.freeze(a.fleet, 3, b"proof", b.now_ms)
    assert tables_digest(b.store) == before


@proves("store.freeze", "store.as-of")
def test_however_many_rows_a_cut_changes_the_past_keeps_each_of_them():
    """An admission has room for 4,096 changes, a cut for more: its numbers are as many."""
    a = Machine(1)
    a.write(
        a.fleet, note("an odd admission number"), *[job(f"j{at}", "open") for at in range(5_000)]
    )
    before = everything(a.store)
    with a.store.transaction():
        a.store.freeze(a.fleet, 1, b"proof", a.now_ms)
    assert a.store.tables.rows(JOB) == []
    (gone,) = a.store.tables.query("select count(*) from job_hist where gone = 1")
    assert gone == (5_000,)
    assert len(a.store.tables.as_of(JOB, admission=5_000)) == 5_000
    assert everything(a.store) != before


@proves("store.erase")
def test_an_erased_body_is_gone_and_every_proof_stays_valid(machines):
    a = machines(1)
    entries = a.write(a.fleet, note("keep"), note("a secret nobody may keep"), job("x", "open"))
    root = a.store.log.root_at(a.fleet, 3)
    with a.store.transaction():
        a.store.erase_body(a.fleet, 1)
    a.store.idle()
    store = again(a) if a.path != MEMORY else a.store
    erased = store.log.entry_at(a.fleet, 1)
    assert (erased.id, erased.body, erased.salt) == (entries[1].id, None, b"")
    assert [row.text for row in store.tables.rows(NOTE)] == ["keep"]
    proof = store.log.inclusion(a.fleet, 1, 3)
    assert tree.verify_inclusion(erased.id, 1, 3, proof, root)
    assert b"a secret nobody" not in store.image()
    with store.transaction(), pytest.raises(NotFound):
        store.erase_body(a.fleet, 3)


# --- the rest -----------------------------------------------------------------------------------


@proves("store.image")
def test_an_image_holds_what_was_committed():
    a = Machine(1)
    a.write(a.fleet, note("x"), job("y", "open"))
    image = a.store.image()
    before = everything(a.store)
    a.write(a.fleet, note("lost"))
    twin = Machine(1, image=image)
    assert everything(twin.store) == before
    twin.write(twin.fleet, note("other"))
    assert twin.store.log.size(twin.fleet) == 3


def test_rows_are_found_by_their_columns(machines):
    a = machines(1)
    a.write(a.fleet, job("x", "open"), job("y", "done"), job("z", "done"))
    a.write(a.journal, job("x", "done"))
    found = a.store.tables.rows(JOB, state="done", stream=a.fleet, order=("-id",), limit=5)
    assert [row.id for row in found] == ["z", "y"]
    assert found[0].stream == a.fleet
    assert a.store.tables.rows(JOB, stream=a.stream(scope_to(a.id))) == []
    assert len(a.store.tables.rows(JOB, limit=3)) == 3
    with pytest.raises(ValueError, match="no column"):
        a.store.tables.rows(JOB, nothing=1)
    with pytest.raises(ValueError, match="no column"):
        a.store.tables.rows(JOB, order=("-nothing",))
    with pytest.raises(NotFound):
        a.store.tables.rows(WILD)


def test_settings_are_remembered(machines):
    a = machines(1)
    with a.store.transaction():
        a.store.remember("incarnation", "0" * 32)
    store = again(a)
    assert (store.recall("incarnation"), store.recall("other")) == ("0" * 32, None)


def test_a_forged_segment_changes_nothing(machines):
    a, b = machines(1), machines(2)
    a.write(a.fleet, note("x"))
    before = everything(b.store)
    segment = a.store.log.segment(a.fleet, 0)
    forged = make_seal(OWNER, a.fleet, 1, segment.seal.root, b.signer)
    with pytest.raises(Forged):
        b.take_segment(replace(segment, seal=forged), a)
    assert everything(b.store) == before


@proves("store.cache-is-bounded")
def test_large_rows_stay_in_memory_only_up_to_so_many_bytes(machines, monkeypatch):
    """Twenty thousand texts of 32 KiB, which anybody may write, were kept at once."""
    monkeypatch.setattr(folding, "ROWS_CACHED_BYTES_MAX", 20_000)
    a = machines(1)
    cache = a.store.tables._table(JOB).cache
    a.write(a.journal, *(job(f"j{n}", "x" * 900) for n in range(20)))
    assert len(cache) == 20
    a.write(a.journal, *(job(f"k{n}", "x" * 900) for n in range(20)))
    assert cache == {}
    for _ in range(3):
        for number in range(20):
            assert a.store.tables.row(JOB, a.journal, f"j{number}").state == "x" * 900
        a.write(a.journal, note("what was read counts, too"))
    assert len(cache) <= 22
