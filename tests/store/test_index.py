"""The index of texts, whatever became of its file, and whatever somebody asks it."""

import os
import random
from pathlib import Path

import pytest
from tests.promise import proves

from muster.errors import Broken
from muster.store import query
from muster.store.index import Document, Page, TextIndex
from muster.store.sqlite import Database

FLEET = "fleet"
ENTRY = b"\x07" * 32
WORDS = ["alpha", "beta", "gamma", "delta", "epsilon", "zeta", "eta", "theta", "iota", "kappa"]


def before(number: int) -> bytes:
    return ENTRY


def document(row: int, text: str, key: str = "k", **more) -> Document:
    said = {"kind": "memory", "scope": FLEET, "number": row, "live": True, **more}
    return Document(row, said["kind"], said["scope"], said["number"], said["live"], key, text,
                    said.get("tags", ""))  # fmt: skip


def filled(path: str, *texts: str) -> TextIndex:
    index = TextIndex(path)
    index.open(before)
    index.put(Page(len(texts), ENTRY, [document(n, text) for n, text in enumerate(texts)]))
    return index


def rows(index: TextIndex, text: str, *, scopes=(FLEET,), most: int = 10, **more) -> list[int]:
    return [hit.row for hit in index.find(text, scopes, most, **more).hits]


@pytest.fixture
def path(tmp_path):
    return str(tmp_path / "index.db")


# --- the file ------------------------------------------------------------------------------


def cut_short(path):
    os.truncate(path, 4096)


def empty(path):
    os.truncate(path, 0)


def overwrite(path):
    with open(path, "r+b") as file:
        file.write(b"no database at all, and quite long enough to look like one" * 200)


def of_version(number):
    def change(path):
        database = Database(path, derived=True)
        database.execute(f"pragma user_version = {number}")
        database.close()

    return change


def of_another_log(path):
    database = Database(path, derived=True)
    database.execute("update cursor set before = x'ffff'")
    database.close()


def lose_table(path):
    database = Database(path, derived=True)
    database.execute("drop table cursor")
    database.close()


@proves("memory.index-is-derived")
@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (os.unlink, "absent"),
        (cut_short, "damaged"),
        (empty, "older"),
        (overwrite, "damaged"),
        (of_version(99), "newer"),
        (of_version(0), "older"),
        (of_another_log, "other-log"),
        (lose_table, "damaged"),
    ],
)
def test_an_index_that_is_not_to_be_trusted_is_made_anew_and_says_why(path, spoil, why):
    filled(path, "the port is 7447").close()
    spoil(path)
    index = TextIndex(path)
    assert index.open(before) == why
    assert index.cursor == 0
    index.put(Page(1, ENTRY, [document(3, "the port is 7450")]))
    assert rows(index, "port") == [3]


@proves("memory.index-is-derived")
@pytest.mark.parametrize(
    ("spoil", "why"), [(os.unlink, "absent"), (cut_short, "cut-short"), (empty, "cut-short")]
)
def test_what_happens_to_the_file_while_it_is_open_is_noticed_with_the_next_look(path, spoil, why):
    index = filled(path, *[f"word{n} and some more text" for n in range(2_000)])
    index.close()
    index = TextIndex(path)
    assert index.open(before) == ""
    assert index.cursor == 2_000
    spoil(path)
    assert index.open(before) == why
    assert rows(index, "word7") == []
    index.put(Page(1, ENTRY, [document(3, "word7")]))
    assert rows(index, "word7") == [3]


@proves("memory.index-is-derived")
def test_a_whole_one_of_this_log_goes_on_where_it_was(path):
    filled(path, "the port is 7447", "the host is build").close()
    index = TextIndex(path)
    assert index.open(before) == ""
    assert index.cursor == 2
    assert rows(index, "port") == [0]
    assert os.stat(path).st_mode & 0o077 == 0


@proves("memory.index-is-derived")
def test_a_folder_in_its_way_is_said_and_left_alone(path):
    os.mkdir(path)
    with pytest.raises(Broken, match="move it away"):
        TextIndex(path).open(before)
    assert os.path.isdir(path)


@proves("memory.index-is-derived")
def test_what_was_not_committed_whole_is_not_there(path):
    index = filled(path, "the port is 7447")
    bad = document(2, "half of a page")._replace(number="no number")
    with pytest.raises(Broken):
        index.put(Page(9, ENTRY, [document(1, "first of a page"), bad]))
    index.close()
    index = TextIndex(path)
    assert index.open(before) == ""
    assert index.cursor == 1
    assert rows(index, "page") == []


# --- what leaves it ------------------------------------------------------------------------


def on_disk(path: str, word: bytes) -> bool:
    return any(word in each.read_bytes() for each in Path(path).parent.iterdir())


@proves("memory.index-forgets")
def test_what_leaves_takes_its_words_off_the_disk(path):
    draw = random.Random(1)
    texts = [" ".join(draw.choices(WORDS, k=30)) for _ in range(400)]
    index = filled(path, *texts)
    for number in range(3):
        secret = f"qqzz{number}secretword"
        row = 1_000 + number
        index.put(Page(400, ENTRY, [document(row, f"alpha {secret} beta", key=f"k/{secret}")]))
        assert on_disk(path, secret.encode())
        assert rows(index, secret) == [row]
        index.put(Page(400, ENTRY, gone=[row]))
        assert rows(index, secret) == []
        assert not on_disk(path, secret.encode())
        assert not on_disk(path, f"qqzz{number}".encode())
    assert len(rows(index, "alpha", most=1_000)) > 100


@proves("memory.index-forgets")
def test_a_stream_that_is_cut_back_leaves_with_all_beyond_the_cut(path):
    index = filled(path, *[f"alpha {word}" for word in WORDS])
    index.put(Page(10, ENTRY, cut=[(4, 8)]))
    assert sorted(rows(index, "alpha", most=99)) == [0, 1, 2, 3, 8, 9]
    assert not on_disk(path, WORDS[5].encode())


@proves("memory.index-forgets")
def test_what_is_said_to_be_erased_and_is_there_yet_is_looked_at_again(path):
    index = filled(path, "alpha", "beta", "gamma")
    index.put(Page(3, ENTRY, doubted=[0, 2, 77]))
    assert (index.doubted(-1, 9), index.doubted(0, 9), index.doubted(-1, 1)) == ([0, 2], [2], [0])
    index.put(Page(3, ENTRY, gone=[0]))
    assert index.doubted(-1, 9) == [2]


# --- questions -----------------------------------------------------------------------------


@proves("memory.questions-are-words")
@pytest.mark.parametrize(
    "text",
    [
        "alpha NEAR(beta gamma, 1)", "alpha*", '"alpha', 'alpha" OR "beta', "key:alpha", "{key text} : x",
        "- alpha", "^alpha", "alpha AND", "NOT", "( alpha", "alpha + beta", "text: alpha OR NOT",
        "\0alpha\0", "\ud800alpha", "日本語 alpha", "the of and", "'; drop table doc; --", "?1 :x @y $z",
        "alpha" + "\u0301" * 500, "x" * 4_000,
    ],
)  # fmt: skip
def test_what_somebody_types_is_words_and_nothing_else(path, text):
    index = filled(path, "alpha beta", "gamma delta", "the of and")
    found = rows(index, text)
    assert (0 in found) == ("alpha" in text), found
    assert rows(index, "gamma") == [1]


@proves("memory.questions-are-words")
def test_a_star_a_column_and_an_operator_find_what_has_these_words(path):
    index = filled(path, "near and far", "alphabet", "key to success")
    assert rows(index, "alpha*") == []
    assert rows(index, "NEAR") == [0]
    assert rows(index, "key:zzz") == [2]


@proves("memory.questions-are-words")
def test_a_question_costs_what_its_rarest_words_are_in():
    words = [(f"w{n}", f"w{n}") for n in range(200)]
    counts = {f"w{n}": 10 * (n + 1) for n in range(200)}
    asked = query.match(query.telling(words), counts.__getitem__)
    rare, _, every = asked.partition(") AND (")
    found = [counts[word.strip('("')] for word in rare.split(" OR ")]
    assert sum(found) <= query.RARE_RECORDS_MAX
    assert len(found) > 10
    assert every.count(" OR ") + 1 == query.WORDS_ASKED_MAX
    # One word alone is asked, however many have it.
    assert query.match([("a", "a")], lambda _stem: 90_000) == '"a"'
    common = {"a": 90_000, "b": 5, "c": 4_000}
    three = query.match([(each, each) for each in common], common.__getitem__)
    assert three == '("b") AND ("b" OR "c")', "what nearly all have is not counted anew"
    assert query.match([("a", "a")], lambda _stem: 0) == ""


@proves("memory.questions-are-words")
def test_only_so_many_words_of_a_question_are_looked_up():
    looked = []
    query.match(
        query.telling((f"w{n}", f"w{n}") for n in range(10_000)), lambda s: looked.append(s) or 0
    )
    assert len(looked) == query.WORDS_LOOKED_MAX


def test_a_sentence_is_asked_by_the_words_that_tell_and_by_its_others_where_it_has_no_more(path):
    index = filled(path, "the tests are in tests/", "what is where", "the port of the build")
    assert rows(index, "where do the tests live")[0] == 0
    assert rows(index, "the") == [2, 0] or rows(index, "the") == [0, 2]
    assert rows(index, "TESTING") == [0]
    assert rows(index, "pörts") == [2]


def test_a_key_counts_more_than_a_text_and_what_is_replaced_comes_last(path):
    index = TextIndex(path)
    index.open(before)
    index.put(
        Page(4, ENTRY, [
            document(0, "the port of something", key="other"),
            document(1, "something else of the same length", key="main/port"),
            document(2, "port", key="port", live=False),
            document(3, "nothing", key="x", tags="repo:main"),
        ])
    )  # fmt: skip
    assert rows(index, "port") == [1, 0, 2]
    assert rows(index, "port", replaced=True) == [2, 1, 0]
    index.put(Page(4, ENTRY, replaced=[1]))
    assert rows(index, "port") == [0, 2, 1]
    assert rows(index, "port", until=1) == [0]
    assert rows(index, "port", kind="run") == []
    assert rows(index, "port", scopes=()) == []
    assert rows(index, "nothing", tags=("repo:main",)) == [3]
    assert rows(index, "nothing", tags=('x" OR "repo',)) == []
    assert rows(index, "nothing", tags=("#",)) in ([], [3])


def test_what_stands_around_the_words_is_a_line_and_no_longer_than_that(path):
    index = filled(path, "alpha beta gamma")
    found = index.find("beta alpha", (FLEET,), 1)
    assert index.excerpt(found, "one\n\n\ttwo alpha three") == "one two alpha three"
    assert index.excerpt(found, "nothing of it") == "nothing of it"
    assert index.excerpt(found, "") == ""
    many = " ".join(f"w{n}" for n in range(100))
    assert index.excerpt(found, f"{many} alpha w w w w beta {many}") == (
        "…w96 w97 w98 w99 alpha w w w w beta " + " ".join(f"w{n}" for n in range(20)) + "…"
    )
    assert len(index.excerpt(found, "alpha " + "x" * 5_000)) == 300
    assert len(index.excerpt(found, "\u0301" * 50_000)) <= 300
    assert index.excerpt(found, "é" * 20_000 + " alpha").startswith("é")
