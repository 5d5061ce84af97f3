"""The pieces of a far command's stream: whole however they come, and nothing but pieces."""

import random

import pytest
from tests.promise import proves

from muster.channel import strand
from muster.errors import Malformed


@proves("remote.exec-is-the-command")
@pytest.mark.parametrize("seed", range(20))
def test_pieces_come_whole_and_in_order_however_the_bytes_are_cut(seed):
    rng = random.Random(seed)
    said = [
        (rng.randrange(strand.SIZE + 1), rng.randbytes(rng.choice([0, 1, 7, 4000, 65536])))
        for _ in range(20)
    ]
    raw, heard, pieces = b"".join(strand.pack(*each) for each in said), [], strand.Splitter()
    while raw:
        size = rng.choice([1, 3, 5, 1000, 70000])
        heard += list(pieces.feed(raw[:size]))
        raw = raw[size:]
    assert heard == said


@proves("remote.exec-is-the-command")
@pytest.mark.parametrize(
    "raw", [b"\x07\0\0\0\0", b"\xff\0\0\0\0", b"\0\0\1\0\1", b"\1\xff\xff\xff\xff", b"GET / HTTP"]
)
def test_what_is_no_piece_is_refused_before_it_is_waited_for(raw):
    with pytest.raises(Malformed):
        list(strand.Splitter().feed(raw))


@proves("remote.tty-is-a-terminal")
def test_a_size_is_two_numbers_that_fit():
    for said, heard in (((24, 80), (24, 80)), ((0, -1), (1, 1)), ((10**9, 10**9), (65535, 65535))):
        ((name, piece),) = strand.Splitter().feed(strand.size(*said))
        assert (name, strand.size_in(piece)) == (strand.SIZE, heard)
    for odd in (b"", b"abc", b"abcde"):
        with pytest.raises(Malformed):
            strand.size_in(odd)
