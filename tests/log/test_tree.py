"""RFC 6962 trees against the RFC's own recursive definitions."""

from hashlib import sha256

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.log.material import Nodes
from tests.promise import proves

from muster.errors import Malformed
from muster.log import tree
from muster.log.tree import EMPTY_ROOT, Range

SIZE_MAX = 130
LEAVES = [tree.leaf_hash(b"leaf %d" % n) for n in range(SIZE_MAX)]
SIZES = st.integers(1, SIZE_MAX)
PAIRS = st.tuples(SIZES, SIZES).map(sorted)


def naive_root(leaves: list[bytes]) -> bytes:
    """MTH of RFC 6962, section 2.1, word for word."""
    if not leaves:
        return sha256(b"").digest()
    if len(leaves) == 1:
        return leaves[0]
    k = cut(len(leaves))
    return sha256(b"\x01" + naive_root(leaves[:k]) + naive_root(leaves[k:])).digest()


def naive_path(m: int, leaves: list[bytes]) -> list[bytes]:
    """PATH of RFC 6962, section 2.1.1."""
    if len(leaves) == 1:
        return []
    k = cut(len(leaves))
    if m < k:
        return [*naive_path(m, leaves[:k]), naive_root(leaves[k:])]
    return [*naive_path(m - k, leaves[k:]), naive_root(leaves[:k])]


def naive_subproof(m: int, leaves: list[bytes], whole: bool) -> list[bytes]:
    """SUBPROOF of RFC 6962, section 2.1.2."""
    n = len(leaves)
    if m == n:
        return [] if whole else [naive_root(leaves)]
    k = cut(n)
    if m <= k:
        return [*naive_subproof(m, leaves[:k], whole), naive_root(leaves[k:])]
    return [*naive_subproof(m - k, leaves[k:], False), naive_root(leaves[:k])]


def cut(n: int) -> int:
    k = 1
    while k * 2 < n:
        k *= 2
    return k


def nodes(size: int = SIZE_MAX) -> Nodes:
    it = Nodes()
    for leaf in LEAVES[:size]:
        it.append(leaf)
    return it


ALL = nodes()
ROOTS = [naive_root(LEAVES[:size]) for size in range(SIZE_MAX + 1)]


@proves("log.tree-rfc6962")
def test_every_root_up_to_130_leaves_is_the_rfcs():
    it = Range()
    assert it.root() == EMPTY_ROOT == ROOTS[0]
    for size, leaf in enumerate(LEAVES, 1):
        it.append(leaf)
        assert it.size == size
        assert it.root() == ROOTS[size] == tree.root_at(ALL, size)
    assert tree.root_at(ALL, 0) == EMPTY_ROOT


@proves("log.tree-rfc6962")
def test_the_known_roots_of_the_certificate_transparency_test_data():
    # The eight leaves and roots of certificate-transparency's merkle_tree_test.
    leaves = ["", "00", "10", "2021", "3031", "40414243", "5051525354555657"]
    leaves.append("606162636465666768696a6b6c6d6e6f")
    roots = [
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ]
    it = Range()
    for leaf, expected in zip(leaves, roots, strict=True):
        it.append(tree.leaf_hash(bytes.fromhex(leaf)))
        assert it.root().hex() == expected


@proves("log.tree-range-stored")
@given(st.integers(0, SIZE_MAX))
def test_a_range_comes_back_from_its_bytes_and_a_copy_is_its_own(size):
    it = Range()
    for leaf in LEAVES[:size]:
        it.append(leaf)
    other, stored = it.copy(), Range.decode(it.encode())
    other.append(LEAVES[0])
    assert stored.root() == it.root() == ROOTS[size]
    assert (it.size, stored.size, other.size) == (size, size, size + 1)


@proves("log.tree-range-stored")
@pytest.mark.parametrize(
    "raw", [b"", bytes(7), bytes(9), (3).to_bytes(8, "big") + bytes(32), b"\xff" * 8 + bytes(2048)]
)
def test_a_range_of_the_wrong_length_is_refused(raw):
    with pytest.raises(Malformed):
        Range.decode(raw)


@proves("log.tree-inclusion")
@given(PAIRS)
def test_the_inclusion_proof_is_the_rfcs_and_holds(pair):
    index, size = pair[0] - 1, pair[1]
    proof = tree.inclusion_proof(ALL, index, size)
    assert proof == naive_path(index, LEAVES[:size])
    assert tree.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size])


@proves("log.tree-consistency")
@given(PAIRS)
def test_the_consistency_proof_is_the_rfcs_and_holds(pair):
    old, new = pair
    proof = tree.consistency_proof(ALL, old, new)
    assert proof == naive_subproof(old, LEAVES[:new], True)
    assert tree.verify_consistency(old, new, ROOTS[old], ROOTS[new], proof)


@proves("log.tree-consistency")
@given(st.integers(0, SIZE_MAX))
def test_the_empty_tree_is_a_prefix_of_every_tree(new):
    assert tree.consistency_proof(ALL, 0, new) == []
    assert tree.verify_consistency(0, new, EMPTY_ROOT, ROOTS[new], [])
    assert not tree.verify_consistency(0, new, ROOTS[1], ROOTS[new], [])


def mutations(proof: list[bytes], place: int, bit: int) -> list[list[bytes]]:
    """Every way to spoil a proof: longer, shorter, swapped, one bit, one byte too few."""
    wrong = [[*proof, LEAVES[0]], [LEAVES[0], *proof]]
    if proof:
        at = place % len(proof)
        flipped = bytearray(proof[at])
        flipped[bit // 8] ^= 1 << bit % 8
        wrong += [
            proof[:-1],
            proof[1:],
            [*proof[:at], bytes(flipped), *proof[at + 1 :]],
            [*proof[:at], proof[at][:-1], *proof[at + 1 :]],
            [*proof[:at], proof[at], proof[at], *proof[at + 1 :]],
        ]
        if proof[::-1] != proof:
            wrong.append(proof[::-1])
    return wrong


@proves("log.tree-proofs-refused")
@settings(max_examples=200)
@given(PAIRS, st.integers(0, 20), st.integers(0, 255))
def test_a_spoiled_inclusion_proof_does_not_hold(pair, place, bit):
    index, size = pair[0] - 1, pair[1]
    proof = tree.inclusion_proof(ALL, index, size)
    for wrong in mutations(proof, place, bit):
        assert not tree.verify_inclusion(LEAVES[index], index, size, wrong, ROOTS[size])
    other = LEAVES[(index + 1) % SIZE_MAX]
    assert not tree.verify_inclusion(other, index, size, proof, ROOTS[size])
    assert not tree.verify_inclusion(LEAVES[index], index, size, proof, ROOTS[size - 1])
    for elsewhere in {-1, index - 1, index + 1, size, size + 1} - {index}:
        assert not tree.verify_inclusion(LEAVES[index], elsewhere, size, proof, ROOTS[size])


@proves("log.tree-proofs-refused")
@settings(max_examples=200)
@given(PAIRS, st.integers(0, 20), st.integers(0, 255))
def test_a_spoiled_consistency_proof_does_not_hold(pair, place, bit):
    old, new = pair
    proof = tree.consistency_proof(ALL, old, new)
    for wrong in mutations(proof, place, bit):
        assert not tree.verify_consistency(old, new, ROOTS[old], ROOTS[new], wrong)
    fork = naive_root([LEAVES[-1], *LEAVES[1:old]])
    assert not tree.verify_consistency(old, new, fork, ROOTS[new], proof)
    assert not tree.verify_consistency(old, new, ROOTS[old], fork, proof)
    if old != new:
        assert not tree.verify_consistency(new, old, ROOTS[new], ROOTS[old], proof)
        assert not tree.verify_consistency(-1, new, ROOTS[old], ROOTS[new], proof)


@proves("log.tree-proofs-refused")
def test_a_node_cannot_pass_for_a_leaf():
    left, right = LEAVES[0], LEAVES[1]
    assert tree.leaf_hash(left + right) != tree.node_hash(left, right) == ROOTS[2]
    assert tree.verify_inclusion(ROOTS[2], 0, 1, [], ROOTS[2])
    assert not tree.verify_inclusion(ROOTS[2], 0, 2, [], ROOTS[2])


class Recorder:
    """Answers like `ALL` and notes what was asked."""

    def __init__(self) -> None:
        self.asked = 0

    def subtree(self, level: int, index: int) -> bytes:
        self.asked += 1
        return ALL.subtree(level, index)


@proves("log.tree-logarithmic")
@given(PAIRS)
def test_a_proof_asks_for_few_subtrees(pair):
    old, new = pair
    asked = Recorder()
    tree.consistency_proof(asked, old, new)
    tree.inclusion_proof(asked, old - 1, new)
    tree.root_at(asked, new)
    assert asked.asked <= 2 * 2 * new.bit_length() + new.bit_length()


@proves("log.tree-proofs-refused")
def test_a_proof_that_ends_too_early_for_the_claimed_size_does_not_hold():
    proof = tree.consistency_proof(ALL, 2, 3)
    assert tree.verify_consistency(2, 3, ROOTS[2], ROOTS[3], proof)
    for claimed in (5, 8, 100):
        assert not tree.verify_consistency(2, claimed, ROOTS[2], ROOTS[3], proof)
    path = tree.inclusion_proof(ALL, 0, 3)
    for claimed in (5, 8, 100):
        assert not tree.verify_inclusion(LEAVES[0], 0, claimed, path, ROOTS[3])
