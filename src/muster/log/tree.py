"""RFC 6962 Merkle trees: roots, inclusion and consistency.

Rule 1: hashes only; what a leaf says is none of this file's business.
Rule 2: the writer appends to a compact `Range` (the O(log n) hashes of complete subtrees);
proofs are generated from whatever can answer `Subtrees`, so no tree is ever held in memory.
Rule 3: verifying needs neither; it returns a plain bool and accepts exactly one proof.

    leaf  = SHA-256(0x00 || header)          node = SHA-256(0x01 || left || right)

The subtree (level, index) covers the leaves [index * 2^level, (index + 1) * 2^level).
"""

from collections.abc import Sequence
from hashlib import sha256
from typing import Final, Protocol

from muster.errors import Malformed
from muster.limits import STREAM_SIZE_MAX

HASH_BYTES: Final = 32
EMPTY_ROOT: Final = sha256(b"").digest()


def leaf_hash(raw: bytes) -> bytes:
    """Return the hash of a leaf; the prefix keeps leaves and nodes apart."""
    return sha256(b"\x00" + raw).digest()


def node_hash(left: bytes, right: bytes) -> bytes:
    """Return the hash of an inner node."""
    return sha256(b"\x01" + left + right).digest()


class Range:
    """The compact form of the tree over leaves [0, size): all that appending needs."""

    __slots__ = ("_stack", "size")

    def __init__(self) -> None:
        self.size = 0
        # Roots of the complete subtrees, widest first: one for each bit set in `size`.
        self._stack: list[bytes] = []

    def append(self, leaf: bytes) -> None:
        """Add one leaf hash."""
        size = self.size
        stack = self._stack
        self.size = size + 1
        while size & 1:
            leaf = sha256(b"\x01" + stack.pop() + leaf).digest()
            size >>= 1
        stack.append(leaf)

    def root(self) -> bytes:
        """Return the RFC 6962 root of the leaves so far."""
        return _fold(self._stack)

    def copy(self) -> "Range":
        """Return an independent copy, so that a trial append can be dropped."""
        other = Range()
        other.size = self.size
        other._stack = self._stack.copy()
        return other

    def encode(self) -> bytes:
        """Return u64 size and the hashes, for storing."""
        return self.size.to_bytes(8, "big") + b"".join(self._stack)

    @staticmethod
    def decode(raw: bytes) -> "Range":
        """Return the range that `encode` wrote. Raises: Malformed."""
        size = int.from_bytes(raw[:8], "big")
        if len(raw) != 8 + HASH_BYTES * size.bit_count() or size > STREAM_SIZE_MAX:
            raise Malformed("A stored Merkle range does not have the length its size asks for.")
        it = Range()
        it.size = size
        it._stack = [raw[at : at + HASH_BYTES] for at in range(8, len(raw), HASH_BYTES)]
        return it


class Subtrees(Protocol):
    """Whatever knows the hashes of complete subtrees: a table, or a test's list."""

    def subtree(self, level: int, index: int) -> bytes:
        """Return the hash over leaves [index * 2^level, (index + 1) * 2^level)."""
        ...


def root_at(subtrees: Subtrees, size: int) -> bytes:
    """Return the root of the first `size` leaves."""
    return _span(subtrees, 0, size)


def inclusion_proof(subtrees: Subtrees, index: int, size: int) -> list[bytes]:
    """Return the proof that leaf `index` is in the tree of `size` leaves."""
    assert 0 <= index < size
    return _siblings(subtrees, index, size)[1]


def verify_inclusion(
    leaf: bytes, index: int, size: int, proof: Sequence[bytes], root: bytes
) -> bool:
    """Whether `leaf` is number `index` of the `size` leaves under `root` (RFC 9162, 2.1.3.2)."""
    if not 0 <= index < size or any(len(each) != HASH_BYTES for each in proof):
        return False
    lefts, node = siblings_left(index, size - 1), leaf
    if len(proof) != len(lefts):
        return False
    for sibling, left in zip(proof, lefts, strict=True):
        node = node_hash(sibling, node) if left else node_hash(node, sibling)
    return node == root


def siblings_left(index: int, last: int) -> list[bool]:
    """Of each sibling on the way up from leaf `index`, whether it lies left (RFC 9162, 2.1.3.2).

    `last` is the index of the last leaf. What lies left covers exactly the leaves [0, index).
    """
    lefts: list[bool] = []
    while last:
        lefts.append(bool(index & 1) or index == last)
        while lefts[-1] and index and not index & 1:
            index >>= 1
            last >>= 1
        index >>= 1
        last >>= 1
    return lefts


def consistency_proof(subtrees: Subtrees, old: int, new: int) -> list[bytes]:
    """Return the proof that the tree of `old` leaves is a prefix of the one of `new`.

    It is empty when `old` is 0 or equals `new`: there is nothing to prove.
    """
    assert 0 <= old <= new
    if old in (0, new):
        return []
    start, proof = _siblings(subtrees, old - 1, new, old)
    # The verifier knows the old root; it is only sent when it is not the whole old tree.
    return [_span(subtrees, start, old), *proof] if start else proof


def _siblings(subtrees: Subtrees, index: int, end: int, stop: int = 0) -> tuple[int, list[bytes]]:
    """Where the subtree around `index` starts, and the hashes beside its way up to [0, end).

    That subtree is the leaf itself, or the one that ends at `stop`.
    """
    start, found = 0, list[bytes]()
    while end - start > 1 and end != stop:
        # The largest power of two below the width: where RFC 6962 cuts.
        middle = start + (1 << (end - start - 1).bit_length() - 1)
        if index < middle:
            found.append(_span(subtrees, middle, end))
            end = middle
        else:
            found.append(_span(subtrees, start, middle))
            start = middle
    return start, found[::-1]


def verify_consistency(
    old: int, new: int, old_root: bytes, new_root: bytes, proof: Sequence[bytes]
) -> bool:
    """Whether the tree (old, old_root) is a prefix of (new, new_root) (RFC 9162, 2.1.4.2)."""
    if old == new:
        return not proof and old_root == new_root
    if old == 0:
        return not proof and old_root == EMPTY_ROOT
    if not 0 < old < new or not proof or any(len(each) != HASH_BYTES for each in proof):
        return False
    fn, sn = old - 1, new - 1
    while fn & 1:
        fn >>= 1
        sn >>= 1
    # A complete old tree is itself the first node; it need not be sent.
    first, *path = [old_root, *proof] if old & (old - 1) == 0 else proof
    lefts, old_node, new_node = siblings_left(fn, sn), first, first
    if len(path) != len(lefts):
        return False
    for sibling, left in zip(path, lefts, strict=True):
        old_node = node_hash(sibling, old_node) if left else old_node
        new_node = node_hash(sibling, new_node) if left else node_hash(new_node, sibling)
    return old_node == old_root and new_node == new_root


def _span(subtrees: Subtrees, start: int, end: int) -> bytes:
    """Return the hash over [start, end), where `start` is aligned to the widest subtree in it."""
    parts: list[bytes] = []
    while start < end:
        level = (end - start).bit_length() - 1
        parts.append(subtrees.subtree(level, start >> level))
        start += 1 << level
    return _fold(parts)


def _fold(parts: Sequence[bytes]) -> bytes:
    if not parts:
        return EMPTY_ROOT
    node = parts[-1]
    for left in parts[-2::-1]:
        node = sha256(b"\x01" + left + node).digest()
    return node
