"""What was erased is in no file of the store, and what was not is there as before."""

import random
from pathlib import Path

import apsw
import pytest
from tests.promise import proves
from tests.store.world import Machine, everything, job, note

from muster.store import slack
from muster.store.index import Document, Page, TextIndex
from muster.store.slack import Slack
from muster.store.store import MEMORY


def word(number: int) -> str:
    return f"canary-{number:05d}-"


def written(path: Path, count: int = 700) -> tuple[Machine, list[tuple[object, int, int]]]:
    """A machine with bodies of all sizes in streams that grew in turn, and where each lies."""
    a, draw = Machine(1, path), random.Random(5)
    streams = [a.journal, a.fleet, *(a.stream("fleet", at) for at in range(1, 5))]
    places = []
    for number in range(count):
        text = word(number) + "x" * draw.choice((10, 90, 400, 1_500, 6_000))
        stream = draw.choice(streams)
        if number % 7 == 0:
            a.write(stream, job(f"j{draw.randrange(40)}", "x" * draw.randrange(60)))
        (entry,) = a.write(stream, note(text))
        places.append((stream, entry.header.seq, number))
    return a, places


def erase(a: Machine, places: list[tuple[object, int, int]]) -> list[bytes]:
    for stream, seq, _ in places:
        with a.store.transaction():
            a.store.erase_body(stream, seq)  # type: ignore[arg-type]
    return [word(number).encode() for _, _, number in places]


def scrub(a: Machine, pages: int = 1 << 30) -> None:
    at = 1
    while at:
        at = a.store.scrub(at, pages)


def found(path: Path, words: list[bytes]) -> list[bytes]:
    """Which of the words stand in any file beside the database, and in it."""
    files = [each.read_bytes() for each in path.parent.iterdir()]
    return [each for each in words if any(each in data for data in files)]


@proves("store.erase")
@pytest.mark.parametrize("pages", [1 << 30, 64])
def test_what_was_erased_stands_in_no_file_once_it_was_scrubbed(tmp_path, pages):
    path = tmp_path / "log.db"
    a, places = written(path)
    words = erase(a, random.Random(6).sample(places, 250))
    assert a.store.has_copies
    a.store.idle()
    assert found(path, words), "without scrubbing SQLite leaves copies of some"
    before = everything(a.store)
    scrub(a, pages)
    assert found(path, words) == []
    assert not a.store.has_copies
    assert everything(a.store) == before
    # Whatever is written over them afterwards brings nothing back, and the file is sound.
    for number in range(300):
        a.write(random.Random(number).choice([a.journal, a.fleet]), note("later" + "y" * 300))
    a.store.idle()
    assert found(path, words) == []
    assert apsw.Connection(str(path)).pragma("integrity_check") == "ok"
    kept = everything(a.store)
    a.store.close()
    assert everything(a.opened()) == kept


def test_pages_that_are_kept_in_memory_do_not_bring_a_copy_back(tmp_path, monkeypatch):
    """The removal of one line of the scrubbing is seen by what is written afterwards."""
    path = tmp_path / "log.db"
    a, places = written(path)
    words = erase(a, places[::3])
    kept = [stream for stream, _, _ in places]
    [a.store.log.slice(stream, 0) for stream in dict.fromkeys(kept)]  # type: ignore[arg-type]
    scrub(a)
    rest = [each for each in places if each not in places[::3]]
    # It changes every page of the bodies once more.
    erase(a, rest[::2])
    a.store.idle()
    assert found(path, words) == []


def test_a_reader_that_holds_old_pages_puts_the_scrubbing_off(tmp_path):
    path = tmp_path / "log.db"
    a, places = written(path, 100)
    reader = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READONLY)
    a.store.idle()
    reader.execute("begin")
    reader.execute("select count(*) from entry").fetchall()
    words = erase(a, places[:20])
    a.store._database._connection.set_busy_timeout(1)
    assert a.store.scrub(1, 1 << 30) == 1
    assert a.store.has_copies
    reader.execute("rollback")
    scrub(a)
    assert found(path, words) == []
    reader.close()


def test_what_is_erased_while_it_goes_on_asks_for_another_round(tmp_path):
    path = tmp_path / "log.db"
    a, places = written(path, 300)
    erase(a, places[:3])
    at = a.store.scrub(1, 8)
    words = erase(a, places[3:6])
    while at:
        at = a.store.scrub(at, 8)
    assert a.store.has_copies
    scrub(a, 8)
    assert not a.store.has_copies
    assert found(path, words) == []


def test_in_memory_there_is_nothing_to_scrub():
    a = Machine(1, MEMORY)
    a.write(a.fleet, note("x"))
    with a.store.transaction():
        a.store.erase_body(a.fleet, 0)
    assert a.store.scrub(1, 10) == 0
    assert not a.store.has_copies


def spans(data: bytes) -> list[tuple[int, int]]:
    its = Slack(lambda size, at: data[at : at + size])
    return [span for number in range(1, its.pages + 1) for span in its.of(number)]


@proves("store.erase")
def test_of_any_file_only_bytes_are_unused_whose_loss_changes_nothing(tmp_path):
    for seed in range(12):
        draw, path = random.Random(seed), tmp_path / f"{seed}.db"
        c = apsw.Connection(str(path))
        c.pragma("page_size", draw.choice((512, 1024, 4096, 65_536)))
        c.execute("create table a(i integer primary key, b); create index ab on a(b)")
        c.execute("create table w(k, v, primary key(k)) without rowid")
        c.execute("create table gone(x)")
        c.execute("begin")
        for number in range(draw.randint(1, 150)):
            blob = draw.randbytes(draw.choice((3, 50, 700, 5_000, 20_000)))
            c.execute("insert or replace into a values(?, ?)", (draw.randrange(500), blob))
            c.execute("insert or replace into w values(?, ?)", (blob[:900], number))
            c.execute("insert into gone values(?)", (blob,))
        c.execute("delete from a where i % 3 = 0; drop table gone; commit")
        tables = [c.execute(f"select * from {t} order by 1").fetchall() for t in ("a", "w")]
        c.close()
        data = bytearray(path.read_bytes())
        unused = spans(bytes(data))
        assert unused
        for start, end in unused:
            data[start:end] = draw.randbytes(end - start)
        path.write_bytes(data)
        c = apsw.Connection(str(path))
        assert c.pragma("integrity_check") == "ok", seed
        assert [c.execute(f"select * from {t} order by 1").fetchall() for t in ("a", "w")] == tables
        c.execute("insert into a select i + 1000, b from a; delete from w where v % 2")
        assert c.pragma("integrity_check") == "ok", seed
        c.close()


def test_a_page_that_is_not_as_the_format_says_is_left_alone():
    draw = random.Random(1)
    for _ in range(2_000):
        page = bytearray(draw.randbytes(512))
        page[0] = draw.choice((2, 5, 10, 13, 0))
        for start, end in slack.unused(bytes(page), 512, 0):
            assert 8 <= start <= end <= 512
        for number, left in slack.overflowing(bytes(page), 512, 0):
            assert number >= 0
            assert left > 0


@proves("store.erase")
def test_what_left_the_index_of_texts_stands_in_none_of_its_files(tmp_path):
    draw, path = random.Random(3), tmp_path / "index.db"
    index = TextIndex(str(path))
    index.open(lambda _number: b"")
    for number in range(900):
        # Rows of several streams in turn: pages are divided in the middle.
        row = draw.randrange(6) << 40 | number
        text = f"canary{number:05d}x " + "some words " * draw.choice((1, 8, 40, 150))
        index.put(Page(number + 1, b"", [Document(row, "m", "fleet", number, True, "k", text)]))
    rows = [row for (row,) in index._there().query("select id from doc order by number")]
    gone = draw.sample(range(900), 300)
    index.put(Page(900, b"", gone=[rows[number] for number in gone]))
    words = [f"canary{number:05d}x".encode() for number in gone]
    assert index.has_copies
    index.close()
    assert found(path, words), "without scrubbing SQLite leaves copies of some"
    index = TextIndex(str(path))
    index.open(lambda _number: b"")
    assert index.has_copies, "also after a restart"
    at = 1
    while at:
        at = index.scrub(at, 64)
    assert found(path, words) == []
    assert not index.has_copies
    index.close()
    assert apsw.Connection(str(path)).pragma("application_id") == 0
    assert apsw.Connection(str(path)).pragma("integrity_check") == "ok"
    again = TextIndex(str(path))
    assert again.open(lambda _number: b"") == ""
    assert not again.has_copies
    kept = next(n for n in range(900) if n not in gone)
    assert again.find(f"canary{kept:05d}x", ["fleet"], 5).hits[0].number == kept
    assert again.find(f"canary{gone[0]:05d}x", ["fleet"], 5).hits == []
