"""What is known becomes rows, and no row holds a text."""

import pytest
from tests.memory.world import ALICE, BOB, ORDER, Stream
from tests.promise import proves

from muster import limits
from muster.log.kind import bodies_of
from muster.log.stream import Scope
from muster.memory import kinds
from muster.memory.fold import ERASED, OVER, VERSION, MemoryFold
from muster.memory.kinds import MemoryErase, MemoryPut, MemoryRefute
from muster.memory.print import text_print

ID = "ab" * 32
PRINTS = [
    "1f2eaf24eb7858df47c3cdcc00fdc342",
    "e802814a83aa02d9fcdfadabcd15f3ca",
    "bb0e34ea60bef3bdbd52488bf0ae5b8f",
]


def test_the_kinds_are_these():
    assert list(bodies_of(kinds.__name__)) == [
        "memory.put", "memory.refute", "memory.erase", "memory.read"
    ]  # fmt: skip


@proves("memory.rows-hold-no-text")
def test_a_version_is_a_row_that_says_who_when_and_over_what_and_not_its_text():
    stream = Stream(ALICE)
    first = stream.put("main/port", "The port is 7447.", who="person", at_ms=50)
    second = stream.put("main/port", "It is 7450.", [first, first], tags=["repo:main", "net"])
    row = stream.rows.get(VERSION, 1)
    assert (row.id, row.key, row.state, row.tags) == (
        second,
        "main/port",
        "active",
        "repo:main net",
    )
    assert stream.rows.get(VERSION, 0).order == ORDER
    assert [(each.seq, each.target) for each in stream.rows.every(OVER)] == [(1, first)]
    assert not any(b"7450" in repr(held).encode() for held in stream.rows.held.values())


@proves("memory.bad-ones-are-skipped")
@pytest.mark.parametrize(
    "body",
    [
        MemoryPut("", "text"),
        MemoryPut("../etc", "text\x00", over=["zz"]),
        MemoryPut("a b", "text"),
        MemoryPut("k" * 201, "text"),
        MemoryPut("k\u202e", "text"),
        MemoryPut("k\u200b", "text"),
        MemoryPut('k"', "text"),
        MemoryPut("k", "  \n"),
        MemoryPut("k", "x" * (limits.MEMORY_TEXT_BYTES_MAX + 1)),
        MemoryPut("k", "text", over=[ID] * (limits.MEMORY_OVER_MAX + 1)),
        MemoryPut("k", "text", about=["run"]),
        MemoryPut("k", "text", tags=["two words"]),
        MemoryPut("k", "text", tags=["t"] * (limits.MEMORY_TAGS_MAX + 1)),
        MemoryPut("k", "text", source="s" * (limits.MEMORY_LINE_CHARS_MAX + 1)),
        MemoryRefute("k", [], "wrong"),
        MemoryRefute("k", [ID], " "),
        MemoryRefute("k", [ID], "r" * (limits.MEMORY_REASON_BYTES_MAX + 1)),
        MemoryErase("x"),
        MemoryErase(ID, print="ab"),
        MemoryErase(ID, key="a b"),
        MemoryErase(ID, reason="r" * (limits.MEMORY_LINE_CHARS_MAX + 1)),
    ],
)
def test_what_cannot_be_used_is_skipped_with_a_reason_and_changes_nothing(body):
    stream = Stream(ALICE)
    stream.append(body)
    assert stream.skipped == ["bad-memory"]
    assert stream.rows.held == {}


@proves("memory.bad-ones-are-skipped")
def test_what_is_no_body_of_its_kind_is_skipped():
    stream = Stream(ALICE)
    stream.append_raw("memory.put", b'{"key":"k","text":"t","rank":2}', "muster", [], 1)
    stream.append_raw("memory.erase", b"{}", "muster", [], 1)
    assert stream.skipped == ["bad-body", "bad-body"]


@proves("memory.erased-leaves-no-word")
def test_an_erased_version_is_a_row_of_its_header_alone():
    stream = Stream(ALICE)
    first = stream.put("secret/key", "the word is swordfish", who="person")
    stream.lose_body(0)
    row = stream.rows.get(VERSION, 0)
    assert (row.id, row.key, row.state, row.actor) == (first, "", "erased", "op:alice")
    assert (row.print, row.bytes, row.at_ms) == (b"", 0, 1000)


def test_an_erasure_is_a_row_that_restates_what_its_target_was():
    stream = Stream(ALICE)
    first, second = stream.put("k", "text"), stream.put("k", "other")
    stream.append(MemoryErase(second.hex(), rank=2, key="k", over=[first.hex()], print="ab" * 16))
    row = stream.rows.get(ERASED, 2)
    assert (row.target, row.key, row.rank, row.print) == (second, "k", 2, b"\xab" * 16)
    assert [(each.seq, each.target) for each in stream.rows.every(OVER)] == [(2, first)]


@proves("memory.refuted-stays-refuted")
@pytest.mark.parametrize(
    "other",
    [
        "use  NPM",
        "use npm.",
        '"Use npm"',
        "- use npm",
        "Use\u200b npm",
        "\uff55se npm",
        "use npm\n",
        # A joiner, fillers, a variant, a tag, what is ignorable and not assigned, a braille blank.
        "us\u034fe npm",
        "use n\u3164pm",
        "u\u115fse n\uffa0pm",
        "use npm\ufe0f",
        "use n\U000e0100pm",
        "us\U000e0041e npm",
        "use \u2065npm",
        "use\u2800npm",
    ],
)
def test_the_print_of_a_text_is_the_same_for_other_case_blanks_edges_and_what_nobody_sees(other):
    assert text_print(other) == text_print("use npm")


@proves("memory.refuted-stays-refuted")
def test_what_nobody_sees_keeps_no_marks_from_their_letter():
    assert text_print("caf\u0065\u034f\u0301") == text_print("caf\u00e9")
    assert text_print("\u1112\u034f\u1161\u11ab") == text_print("\ud55c")


@proves("memory.refuted-stays-refuted")
def test_prints_are_the_ones_that_other_machines_make():
    # Whoever changes these gives the fold another version, and other machines another answer.
    prints = [
        text_print(each).hex() for each in ("use npm", "Stra\u00dfe 7!", "na\u00efve \u2800 x")
    ]
    assert prints == PRINTS
    assert MemoryFold.version == 3


def test_other_texts_have_other_prints():
    texts = [
        "use npm",
        "use pnpm",
        "usenpm",
        "use 2 npm",
        "npm use",
        "!",
        "?",
        "--no-lto",
        "no lto",
    ]
    assert len({text_print(each) for each in texts}) == len(texts)


@proves("memory.bad-ones-are-skipped")
def test_what_is_said_to_one_machine_alone_is_no_memory():
    stream = Stream(ALICE, Scope(f"to.{BOB}"))
    stream.put("k", "told to one alone")
    assert (stream.skipped, stream.rows.held) == (["wrong-scope"], {})


@proves("memory.bad-ones-are-skipped")
def test_marks_that_are_dear_to_order_are_refused():
    stream = Stream(ALICE)
    stream.put("k", "a" + "\u0315" * 16 + "\u0300" * 15)
    stream.put("k", "Vie\u0302\u0323t")
    # Nor with what is taken out before they are ordered in between.
    stream.put("k", "a" + ("\u0315" * 9 + "\u0300" * 9 + "\u034f\u200d") * 2)
    assert stream.skipped == ["bad-memory"] * 2
