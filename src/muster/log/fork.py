"""Two histories under one key: how that is proved, and how the place is found.

A fork proof holds, for one index, two different entries of one stream, each with its inclusion
proof under a seal of the stream's own key. The left siblings in both inclusion proofs cover all
entries before the index; that they are equal proves that this is the *first* difference, so
everyone who sees the proof rolls back to the same prefix, without having seen the other branch.

Nobody but the holder of the key can make such a pair, so a proof needs no trust in who brings it.
"""

from dataclasses import dataclass

import msgspec

from muster.errors import Forged, Malformed
from muster.log import canon, tree
from muster.log.seal import open_seal
from muster.log.stream import FleetId, StreamName
from muster.log.wire import MESSAGE_BYTES_MAX


class Branch(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One side: the seal (a signed note), the header at the index, its inclusion proof (hex)."""

    seal: str
    header: str
    proof: list[str]


class ForkProof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Both sides in the order of their header bytes, so that equal findings are equal bytes."""

    v: int
    stream: str
    index: int
    branches: tuple[Branch, Branch]


def encode_branch(branch: Branch) -> str:
    return canon.encode(msgspec.to_builtins(branch)).decode()


def decode_branch(text: str) -> Branch:
    """Raises: Malformed."""
    return canon.decode_as(text.encode(), Branch, "branch of a fork", size_max=MESSAGE_BYTES_MAX)


def make_fork(stream: StreamName, index: int, one: Branch, other: Branch) -> bytes:
    """The proof's bytes; check it with `open_fork` before you act on it."""
    first, second = sorted((one, other), key=lambda b: b.header)
    proof = ForkProof(1, str(stream), index, (first, second))
    return canon.encode(msgspec.to_builtins(proof))


def open_fork(raw: bytes, fleet: FleetId, public: bytes) -> ForkProof:
    """The proof in `raw`, checked against the stream's seal key `public`.

    Raises: Malformed; Forged where it does not show two entries at the first different index.
    """
    proof = canon.decode_as(raw, ForkProof, "fork proof", size_max=MESSAGE_BYTES_MAX)
    if proof.v != 1:
        raise Malformed(f"fork proof: version {proof.v} is not known here; update muster")
    stream = StreamName.parse(proof.stream)
    sides = [_open_branch(b, stream, proof.index, fleet, public) for b in proof.branches]
    (leaf_a, left_a), (leaf_b, left_b) = sides
    if leaf_a == leaf_b:
        raise Forged(f"fork proof of {proof.stream}: both branches hold the same entry")
    if left_a != left_b:
        raise Forged(
            f"fork proof of {proof.stream}: entry {proof.index} is not the first to differ"
        )
    return proof


def stream_of(raw: bytes) -> StreamName:
    """The stream a proof speaks of, unchecked: to find the key. Raises: Malformed."""
    proof = canon.decode_as(raw, ForkProof, "fork proof", size_max=MESSAGE_BYTES_MAX)
    return StreamName.parse(proof.stream)


def _open_branch(
    branch: Branch, stream: StreamName, index: int, fleet: FleetId, public: bytes
) -> tuple[bytes, list[bytes]]:
    seal = open_seal(branch.seal.encode(), fleet, public)
    if seal.stream != stream:
        raise Forged(f"fork proof of {stream}: a seal is of another stream")
    leaf = tree.leaf_hash(branch.header.encode())
    try:
        path = [bytes.fromhex(h) for h in branch.proof]
    except ValueError as error:
        raise Malformed(f"fork proof of {stream}: a hash is not hexadecimal") from error
    if not tree.verify_inclusion(leaf, index, seal.size, path, seal.root):
        raise Forged(f"fork proof of {stream}: entry {index} is not under its seal")
    lefts = tree.siblings_left(index, seal.size - 1)
    return leaf, [sibling for sibling, left in zip(path, lefts, strict=True) if left]


@dataclass(slots=True)
class Search:
    """Bisection for the first index at which our branch and a peer's differ.

    Invariant: the trees of `equal` entries agree, those of `differ` entries do not.
    """

    equal: int
    differ: int

    def probe(self) -> int | None:
        """The next size to compare, or None when `equal` is the index looked for."""
        return None if self.differ - self.equal == 1 else (self.equal + self.differ) // 2

    def learn(self, size: int, *, same: bool) -> None:
        if not self.equal < size < self.differ:
            return
        if same:
            self.equal = size
        else:
            self.differ = size
