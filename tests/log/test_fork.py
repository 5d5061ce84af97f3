"""Two histories under one key: what proves them, and what does not."""

import pytest
from tests.log.drawn import branches
from tests.log.material import (
    FLEET_ID,
    OTHER_FLEET,
    SEAL,
    SEEN,
    STREAM,
    entry,
    nodes,
    root,
)
from tests.promise import proves

from muster.errors import Forged, Malformed
from muster.log import tree
from muster.log.fork import (
    Branch,
    Search,
    decode_branch,
    encode_branch,
    make_fork,
    open_fork,
    stream_of,
)
from muster.log.seal import make_seal
from muster.log.stream import JOURNAL, StreamName

DRAWN = branches("""
    ours    0 1 2 3 4 5 6 7 8 9
    theirs  0 1 2 3 4 5 a b c
""")
TEN, OTHER = DRAWN["ours"], DRAWN["theirs"]


def branch(items, index, *, signer=SEAL, fleet=FLEET_ID, name=STREAM):
    seal = make_seal(fleet, name, len(items), root(items), signer)
    proof = tree.inclusion_proof(nodes(items), index, len(items))
    return Branch(seal.note.decode(), items[index].raw.decode(), [h.hex() for h in proof])


def fork(index=6, one=None, other=None):
    return make_fork(STREAM, index, one or branch(TEN, index), other or branch(OTHER, index))


@proves("log.fork-proof")
def test_two_entries_at_one_place_under_two_seals_prove_a_fork():
    raw = fork()
    found = open_fork(raw, FLEET_ID, SEAL.public)
    assert (found.index, stream_of(raw)) == (6, STREAM)
    assert fork(6, branch(OTHER, 6), branch(TEN, 6)) == raw


@proves("log.fork-proof")
@pytest.mark.parametrize("size", range(1, 9))
def test_a_fork_is_proved_whatever_the_shape_of_the_trees(size):
    for at in range(size):
        changed = [*TEN[:at], entry(at, b'{"other":1}'), *TEN[at + 1 : size]]
        raw = make_fork(STREAM, at, branch(TEN, at), branch(changed, at))
        assert open_fork(raw, FLEET_ID, SEAL.public).index == at


@proves("log.fork-proof-forged")
@pytest.mark.parametrize(
    "raw",
    [
        fork(6, branch(TEN, 6), branch(TEN[:8], 6)),
        fork(7),
        fork(6, other=branch(OTHER, 6, signer=SEEN)),
        fork(6, other=branch(OTHER, 7)),
        fork(
            6, other=branch(OTHER, 6, name=StreamName(STREAM.machine, STREAM.incarnation, JOURNAL))
        ),
        fork(6, other=branch(OTHER, 6, fleet=OTHER_FLEET)),
    ],
    ids=[
        "same-entry",
        "not-the-first",
        "another-key",
        "another-place",
        "another-stream",
        "another-fleet",
    ],
)
def test_a_proof_that_shows_less_is_refused(raw):
    with pytest.raises(Forged):
        open_fork(raw, FLEET_ID, SEAL.public)


@proves("log.fork-proof-forged")
@pytest.mark.parametrize(
    "bent",
    [
        lambda raw: raw[:-1],
        lambda raw: raw.replace(b'"v":1', b'"v":2'),
        lambda raw: raw.replace(b'"index":6', b'"index":-1'),
        lambda raw: raw.replace(b'"index":6', b'"index":99'),
        lambda raw: raw.replace(b'"proof":["', b'"proof":["zz'),
        lambda raw: raw.replace(b"claude", b"mallet"),
    ],
)
def test_a_bent_proof_is_refused(bent):
    raw = bent(fork())
    assert raw != fork()
    with pytest.raises((Forged, Malformed)):
        open_fork(raw, FLEET_ID, SEAL.public)


@proves("log.fork-proof")
def test_a_branch_survives_its_journey():
    found = branch(TEN, 3)
    assert decode_branch(encode_branch(found)) == found


@proves("log.fork-search")
@pytest.mark.parametrize("size", [1, 2, 3, 10, 1000])
def test_the_first_difference_is_found_in_as_many_questions_as_its_binary_digits(size):
    for first in {0, 1, size // 2, size - 1} & set(range(size)):
        search, questions = Search(0, size), 0
        while (asked := search.probe()) is not None:
            # Trees of at most `first` entries are equal.
            search.learn(asked, same=asked <= first)
            questions += 1
        assert search.equal == first
        assert questions <= size.bit_length()


@proves("log.fork-search")
def test_an_answer_nobody_asked_for_changes_no_search():
    search = Search(2, 8)
    for size in (-1, 0, 2, 8, 99):
        search.learn(size, same=True)
        search.learn(size, same=False)
    assert (search.equal, search.differ) == (2, 8)


@proves("log.fork-proof")
def test_the_left_siblings_cover_exactly_what_lies_before():
    def left_siblings(index: int, size: int, path: list[bytes]) -> list[bytes]:
        lefts = tree.siblings_left(index, size - 1)
        return [sibling for sibling, left in zip(path, lefts, strict=True) if left]

    for size in range(1, 10):
        for index in range(size):
            path = tree.inclusion_proof(nodes(TEN[:size]), index, size)
            left = left_siblings(index, size, path)
            # The same entries lie before, whatever lies after.
            longer = left_siblings(index, 10, tree.inclusion_proof(nodes(TEN), index, 10))
            if index < size - 1 or size == 10:
                assert left == longer
