"""Whether a segment becomes part of a stream: the one gate for what other machines wrote.

Rule 1: the decision depends on the bytes and on what we hold, never on a clock or on policy.
Rule 2: what is held already is skipped by position, not by a window: a segment may arrive twice
        through three channels, a year apart.
Rule 3: a forged thing raises and changes nothing; a seal that is genuine and does not fit what we
        hold is `Diverged`, which may be a fork, and is for the caller to find out.
Rule 4: each safeguard is one function, so that the simulator can take it away and prove that the
        loss is noticed: `check_limits`, `check_signer`, `check_frozen`, `check_seal`.

Entries carry no signatures of their own. They count because the writer's seal does: our compact
range plus the new entries must give the root the seal signs, or one that the seal's consistency
proof leads from. `ours`, the tree of what we hold, lets overlapping entries be compared too.
"""

from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass

from muster.errors import Forged, Refused
from muster.limits import SEGMENT_ENTRIES_MAX
from muster.log.entry import Entry
from muster.log.seal import Seal, open_seal, peek_stream
from muster.log.segment import Segment
from muster.log.stream import FleetId, StreamName
from muster.log.tree import Range, Subtrees, root_at, verify_consistency


@dataclass(slots=True)
class StreamState:
    """A stream as we hold it; `range` is over its first `size` entries.

    A frozen stream may still be filled up to `common`, the last size its branches share.
    """

    name: StreamName
    size: int
    range: Range
    frozen: bool = False
    common: int = 0


@dataclass(frozen=True, slots=True)
class Taken:
    """The entries are genuine and follow ours: `entries` are the new ones, from `start`.

    `proof` leads from the tree after them to `seal`; it is empty when the seal ends with them.
    """

    stream: StreamName
    start: int
    entries: tuple[Entry, ...]
    after: Range
    seal: Seal
    proof: tuple[bytes, ...]

    @property
    def end(self) -> int:
        """The size of the stream with the new entries."""
        return self.start + len(self.entries)


@dataclass(frozen=True, slots=True)
class Nothing:
    """All of it is held already; `seal` is genuine and may be newer than ours."""

    stream: StreamName
    seal: Seal


@dataclass(frozen=True, slots=True)
class Gap:
    """The segment begins beyond what we hold: ask from `have`."""

    stream: StreamName
    have: int


@dataclass(frozen=True, slots=True)
class Diverged:
    """A genuine seal does not fit what we hold.

    `at` is the first entry known to differ, None when all that was compared is equal; `agreed`
    is the size up to which segment and store were compared and agree.
    """

    stream: StreamName
    segment: Segment
    seal: Seal
    at: int | None
    agreed: int


Admission = Taken | Nothing | Gap | Diverged


def admit(
    state: StreamState,
    segment: Segment,
    fleet: FleetId,
    public: bytes,
    ours: Subtrees | None = None,
) -> Admission:
    """Decide about `segment`; `public` is the seal key of the stream's machine.

    Raises: Refused: it is too large, of another stream, forged, or the stream is frozen.
    """
    check_limits(state, segment)
    # What the seal says, before anyone checked who signed it.
    stream = peek_stream(segment.note)
    _, size, sealed_root, _ = segment.note.split(b"\n", 3)
    seal = Seal(stream, int(size), b64decode(sealed_root), segment.note)
    check_signer(segment, seal, fleet, public)
    check_frozen(state, segment)
    if segment.start > state.size:
        return Gap(state.name, state.size)
    fresh = segment.entries[state.size - segment.start :]
    after = state.range
    if fresh:
        after = state.range.copy()
        for entry in fresh:
            after.append(entry.id)
    if segment.end >= state.size:
        root = after.root()
    elif ours is not None:
        root = root_at(ours, segment.end)
    else:
        return Nothing(state.name, seal)
    # The first position that both hold with different entries.
    held = segment.entries[: max(0, state.size - segment.start)] if ours is not None else ()
    differs = None
    for seq, entry in enumerate(held, segment.start):
        if ours is not None and ours.subtree(0, seq) != entry.id:
            differs = seq
            break
    if check_seal(segment.end, root, seal, segment.proof):
        if differs is not None:
            raise Forged(f"Entry {differs} of {state.name} arrived as another one than is sealed.")
        if fresh:
            return Taken(state.name, state.size, fresh, after, seal, segment.proof)
        return Nothing(state.name, seal)
    if ours is not None and seal.size <= state.size and root_at(ours, seal.size) == seal.root:
        raise Forged(f"A segment of {state.name} holds entries that its seal does not cover.")
    agreed = min(state.size, segment.end) if differs is None else differs
    return Diverged(state.name, segment, seal, differs, agreed)


def check_limits(state: StreamState, segment: Segment) -> None:
    """Refuse what no honest machine sends."""
    if segment.stream != state.name:
        raise Refused(f"A segment of {segment.stream} was offered to {state.name}.")
    if len(segment.entries) > SEGMENT_ENTRIES_MAX or segment.start < 0:
        raise Refused(f"A segment of {state.name} has {len(segment.entries)} entries: too many.")


def check_signer(segment: Segment, seal: Seal, fleet: FleetId, public: bytes) -> None:
    """Refuse what the stream's machine did not write: its seal, its author, its stream, its order.

    Raises: Forged: one of them is somebody else's.
    """
    open_seal(seal.note, fleet, public)
    if seal.stream != segment.stream:
        raise Forged(f"A segment of {segment.stream} carries the seal of {seal.stream}.")
    if seal.size < segment.end:
        raise Forged(f"A segment of {segment.stream} goes beyond its seal at {seal.size}.")
    machine, text = segment.stream.machine, str(segment.stream)
    for seq, entry in enumerate(segment.entries, segment.start):
        header = entry.header
        if header.author != machine or header.stream != text or header.seq != seq:
            raise Forged(f"A segment of {text} holds another entry at the place of {seq}.")


def check_frozen(state: StreamState, segment: Segment) -> None:
    """Refuse to let a forked stream grow, on either branch."""
    if state.frozen and segment.end > state.common:
        raise Refused(f"The stream {state.name} forked and is frozen for good.")


def check_seal(end: int, root: bytes, seal: Seal, proof: Sequence[bytes]) -> bool:
    """Whether the tree of `end` leaves under `root` is what the seal signs, or a prefix of it."""
    return verify_consistency(end, seal.size, root, seal.root, proof)
