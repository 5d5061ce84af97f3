"""Versions of files become rows, and what cannot be used is skipped with a reason."""

import base64
from hashlib import sha256

import pytest
from tests.context.world import ALICE, Stream
from tests.promise import proves

from muster.context.fold import AT, LET_GO, OVER, PASSED, TOP, VERSION, file_print
from muster.context.kinds import (
    ContextAt,
    ContextPassed,
    ContextPut,
    ContextReplaced,
    LetGo,
    check_put,
    held,
    holding,
    rest_of,
)
from muster.errors import Malformed
from muster.limits import (
    CONTEXT_INLINE_BYTES_MAX,
    CONTEXT_KEPT_MAX,
    CONTEXT_REPLACED_MAX,
    CONTEXT_STREAMS_MAX,
)
from muster.log import canon
from muster.log.kind import KINDS
from muster.log.stream import JOURNAL, Scope


def test_a_version_becomes_a_row_with_the_hash_of_its_bytes_and_none_of_them():
    a = Stream(ALICE)
    first = a.put("n.md", "one secret word")
    a.put("n.md", "", [first, first], b64=base64.b64encode(b"\xff\x00").decode(), x=1)
    one, two = a.rows.every(VERSION)
    assert one.sha256 == sha256(b"one secret word").digest()
    assert (one.size, two.size, two.x) == (15, 2, 1)
    assert (one.targets, two.targets) == (frozenset(), {first})
    assert "secret" not in repr([one, two])


def test_what_is_gone_and_what_another_version_has_have_no_hash_of_their_own():
    a = Stream(ALICE)
    first = a.put("n.md", "one")
    a.put("m.md", same=first.hex())
    a.put("n.md", over=[first], gone=1)
    _, same, gone = a.rows.every(VERSION)
    assert (same.sha256, same.same) == (b"", first)
    assert (gone.sha256, gone.absent) == (b"", 1)


def test_a_blob_is_named_by_its_hash_and_size():
    a = Stream(ALICE)
    a.put("big.bin", blob="ab" * 32, size=50_000)
    (row,) = a.rows.every(VERSION)
    assert (row.sha256, row.size, row.blob) == (b"\xab" * 32, 50_000, 1)


def test_of_a_machine_s_versions_only_those_are_on_top_that_none_of_its_own_is_over():
    a = Stream(ALICE)
    over, other = a.put("n.md", "0"), a.put("m.md", "other")
    for n in range(20):
        over = a.put("n.md", f"{n + 1}", [over, other])
    assert {row.id for row in a.rows.every(TOP)} == {over, other}, "of another file is over nothing"
    assert len(a.rows.every(OVER)) == 40


def test_what_a_machine_says_of_its_disk_is_one_row_the_last():
    a = Stream(ALICE)
    a.append(ContextAt("notes", "1" * 64))
    a.append(ContextAt("notes", "2" * 64), at_ms=2000)
    (row,) = a.rows.every(AT)
    assert (row.folder, row.root, row.at_ms) == ("notes", b"\x22" * 32, 2000)


ID = "1" * 64
BAD = {
    "path": ContextPut("notes", "../x"),
    "folder": ContextPut("No Folder", "x"),
    "folder above": ContextPut("a..b", "x"),
    "two ways": ContextPut("notes", "x", text="a", b64="YQ=="),
    "gone with bytes": ContextPut("notes", "x", text="a", gone=1),
    "gone and run": ContextPut("notes", "x", gone=1, x=1),
    "no base64": ContextPut("notes", "x", b64="?"),
    "no id": ContextPut("notes", "x", ["zz"]),
    "no same": ContextPut("notes", "x", same="zz"),
    "no blob": ContextPut("notes", "x", blob="zz", size=1),
    "blob without a size": ContextPut("notes", "x", blob=ID),
    "size without a blob": ContextPut("notes", "x", size=9),
    "huge blob": ContextPut("notes", "x", blob=ID, size=2**40),
    "over too many": ContextPut("notes", "x", [f"{n:064x}" for n in range(17)]),
    "too long": ContextPut("notes", "x", text="x" * (CONTEXT_INLINE_BYTES_MAX + 1)),
    "root": ContextAt("notes", "zz"),
}


@proves("context.bad-ones-are-skipped")
@pytest.mark.parametrize("name", BAD)
def test_a_version_that_cannot_be_used_is_skipped_with_a_reason(name):
    a = Stream(ALICE)
    a.append(BAD[name])
    assert a.skipped == ["bad-context"]
    assert a.rows.every(VERSION) == a.rows.every(AT) == []


@proves("context.bad-ones-are-skipped")
@pytest.mark.parametrize("scope", [JOURNAL, Scope(f"to.{ALICE}")])
def test_what_is_neither_the_fleets_nor_a_groups_is_no_version(scope):
    a = Stream(ALICE, scope)
    a.put("n.md", "one")
    assert a.skipped == ["wrong-scope"]
    group = Stream(ALICE, Scope(f"g.{ALICE}.plans"))
    group.put("n.md", "one")
    assert not group.skipped


@pytest.mark.parametrize(
    "data",
    [
        b"", b"text\r\n", b"\xff\xfe", b"\0" * CONTEXT_INLINE_BYTES_MAX, "é\u2028\n".encode() * 5000,
        b"\x01" * 40_000, b'"\\' * 20_000, b"\xff" * CONTEXT_INLINE_BYTES_MAX,
    ],
    ids=range(8),
)  # fmt: skip
def test_any_bytes_stand_in_an_entry_and_come_out_as_they_were(data):
    a = Stream(ALICE)
    body = check_put(ContextPut("notes", "n", **holding(data)))
    assert held(body) == data
    a.append(body)
    (row,) = a.rows.every(VERSION)
    assert row.sha256 == sha256(data).digest()


def test_more_than_stands_in_an_entry_is_refused():
    with pytest.raises(Malformed, match="do not stand in an entry"):
        check_put(ContextPut("notes", "n", **holding(b"\xff" * (CONTEXT_INLINE_BYTES_MAX + 1))))


def test_a_field_that_is_not_known_refuses_the_whole_version():
    assert KINDS["context.put"].unknown == KINDS["context.at"].unknown == "refuse"


def test_what_a_disk_needs_no_more_is_one_row_the_last():
    a = Stream(ALICE)
    streams = {f"{'b' * 64}/{'2' * 32}": 7, f"{'a' * 64}/{'1' * 32}": 3}
    a.append(ContextPassed("notes", {}, ended=1))
    a.append(ContextPassed("notes", streams, ["2" * 64, "1" * 64]), at_ms=2000)
    (row,) = a.rows.every(PASSED)
    assert (row.sizes, row.ended, row.at_ms) == (streams, 0, 2000)
    assert row.kept.split() == ["1" * 64, "2" * 64]


def test_what_is_said_again_is_on_top_no_more_and_is_no_version():
    a = Stream(ALICE)
    first, other = a.put("n.md", "0"), a.put("m.md", "other")
    a.append(ContextReplaced("notes", "n.md", [first.hex(), other.hex(), first.hex()]))
    assert {row.id for row in a.rows.every(TOP)} == {other}, "of another file is over nothing"
    assert [row.target for row in a.rows.every(OVER)] == sorted([first, other])
    assert len(a.rows.every(VERSION)) == 2


def test_what_a_version_had_is_a_row_when_its_machine_lets_it_go():
    a = Stream(ALICE)
    some = [LetGo("1" * 64, "2" * 64), LetGo("3" * 64, "4" * 64, 1)]
    a.append(ContextReplaced("notes", "n.md", let_go=some))
    rows = a.rows.every(LET_GO)
    assert [(row.id.hex(), row.sha256.hex(), row.x) for row in rows] == [
        ("1" * 64, "2" * 64, 0),
        ("3" * 64, "4" * 64, 1),
    ]
    assert {row.file for row in rows} == {file_print("notes", "n.md")}
    assert not a.rows.every(VERSION)


@proves("context.bad-ones-are-skipped")
@pytest.mark.parametrize(
    "body",
    [
        ContextPassed("../notes"),
        ContextPassed("notes", {"no stream": 1}),
        ContextPassed("notes", {f"{'b' * 64}/{'2' * 32}": -1}),
        ContextPassed("notes", {f"{n:064x}/{'2' * 32}": 1 for n in range(CONTEXT_STREAMS_MAX + 1)}),
        ContextPassed("notes", {}, ["short"]),
        ContextPassed("notes", {}, ["1" * 64] * (CONTEXT_KEPT_MAX + 1)),
        ContextReplaced("../notes", "n.md", ["1" * 64]),
        ContextReplaced("notes", "../n.md", ["1" * 64]),
        ContextReplaced("notes", "n.md", []),
        ContextReplaced("notes", "n.md", ["short"]),
        ContextReplaced("notes", "n.md", ["1" * 64] * (CONTEXT_REPLACED_MAX + 1)),
        ContextReplaced("notes", "n.md", [], [LetGo("short", "1" * 64)]),
        ContextReplaced("notes", "n.md", [], [LetGo("1" * 64, "short")]),
        ContextReplaced(
            "notes", "n.md", [], [LetGo("1" * 64, "2" * 64)] * (CONTEXT_REPLACED_MAX + 1)
        ),
    ],
)
def test_what_a_disk_cannot_have_said_is_skipped(body):
    a = Stream(ALICE)
    a.append(body)
    assert a.skipped == ["bad-context"]
    assert not a.rows.held


@proves("context.let-go-changes-nothing-that-counts")
@pytest.mark.parametrize(
    "put",
    [
        ContextPut("notes", "N.md", ["2" * 64, "1" * 64, "2" * 64], "one word", x=1),
        ContextPut("notes", "n.bin", b64=base64.b64encode(b"\xff\x00").decode()),
        ContextPut("notes", "big.bin", ["1" * 64], blob="ab" * 32, size=50_000),
    ],
)
def test_what_is_kept_of_a_version_makes_the_same_rows_without_its_bytes(put):
    a, b = Stream(ALICE), Stream(ALICE)
    a.append(put)
    (row,) = a.rows.every(VERSION)
    b.rows.rest = canon.encode(rest_of(put, row.sha256, row.size))
    assert b"one word" not in b.rows.rest
    b.append(put, body=False)
    assert b.rows.held == a.rows.held


def test_what_is_kept_and_is_rotten_is_skipped():
    a = Stream(ALICE)
    a.rows.rest = b"{}"
    a.append(ContextPut("notes", "n.md"), body=False)
    assert a.skipped == ["bad-context"]
