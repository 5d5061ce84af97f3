"""Cutting what others wrote."""

import pytest
from tests.promise import proves

from muster.agent.lines import Splitter, Tail, cut, last_line


@proves("agent.bounded-output")
def test_a_text_within_its_bound_is_left_alone():
    assert cut("äöü", 6) == "äöü"


@proves("agent.bounded-output")
def test_a_cut_never_splits_a_character_and_says_how_much_is_gone():
    assert cut("äöü", 5) == "äö …[1 bytes cut]"


@proves("agent.bounded-output")
def test_lines_come_out_whole_however_the_bytes_come_in():
    splitter = Splitter()
    fed = [line for byte in b"one\ntwo\n\nthr" for line in splitter.feed(bytes([byte]))]
    assert fed == [(b"one", 0), (b"two", 0), (b"", 0)]
    assert list(splitter.rest()) == [(b"thr", 0)]
    assert list(splitter.rest()) == []


@proves("agent.bounded-output")
def test_a_long_line_keeps_its_beginning_and_counts_the_rest():
    splitter = Splitter(line_bytes_max=3)
    assert list(splitter.feed(b"abcdef")) == []
    assert list(splitter.feed(b"gh\nij\n")) == [(b"abc", 5), (b"ij", 0)]


@proves("agent.bounded-output")
def test_a_tail_keeps_the_end_and_says_that_something_is_missing():
    tail = Tail(bytes_max=4)
    tail.feed(b"ab")
    assert tail.text() == "ab"
    tail.feed(b"cdefgh")
    assert tail.text() == "[4 bytes cut]… efgh"


@proves("agent.shell")
@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\ntwo\n", "two"),
        ("\x1b[31mError: boom\x1b[0m\n\x1b[0m", "Error: boom"),
        ("boom\n\x1b]0;title\x07\n\x1b(B\x1b[?25h\n  \n", "boom"),
        ("10%\r50%\r100%", "100%"),
        ("boom\n\x00\x01\n", "boom"),
        ("\x1b[0m", ""),
        ("", ""),
    ],
)
def test_the_last_line_is_the_last_one_that_can_be_read(text, line):
    assert last_line(text) == line
