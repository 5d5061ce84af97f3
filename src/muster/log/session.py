"""What a machine knows of one peer's replicas: a session per peer, a lane per stream in it.

Rule 1: everything here is bookkeeping of what was said and heard; sync.py decides what to say.
Rule 2: it lives as long as a link to that process of the peer. What must outlive it is a cosign,
and lies in the store.
Rule 3: what a peer says makes it grow by a bound. A lane of a stream of which nothing is here yet
is a claim; there are so many of them, and a claim that is never made good is dropped.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from muster.log.proofs import Proofs
from muster.log.seal import Seal
from muster.log.segment import Segment
from muster.log.stream import MachineId, StreamName

# A witness is shown a stream's seal at most this often: the exposure window's floor.
WITNESS_MS: Final = 500
# What was said and not answered within this is said again, and the next answer waited for as long.
RETRY_MS: Final = 3_000


class Replica(Protocol):
    """What the sync needs of a store; every call reads."""

    def streams(self) -> Iterable[StreamName]: ...
    def knows(self, stream: StreamName) -> bool: ...
    def has_place(self, stream: StreamName) -> bool: ...
    def size(self, stream: StreamName) -> int: ...
    def seal_of(self, stream: StreamName) -> Seal | None: ...
    def latest_seal(self, stream: StreamName) -> Seal | None: ...
    def root_at(self, stream: StreamName, size: int) -> bytes: ...
    def consistency(self, stream: StreamName, old: int, new: int) -> list[bytes]: ...
    def segment(
        self, stream: StreamName, start: int, bytes_max: int, bodies_from: int
    ) -> Segment | None: ...
    def cosigned(self) -> Iterable[tuple[tuple[StreamName, MachineId, str], int, bytes]]: ...


class Outgoing(NamedTuple):
    """One thing to send on `link`: `bulk` waits behind everything that is not."""

    link: int
    raw: bytes
    bulk: bool


@dataclass(slots=True)
class Lane:
    """One stream towards one peer; sizes in entries."""

    has: int = 0
    # What the peer last said it holds: asked for until it came, from one peer after the other.
    claims: int = 0
    sent: int = 0
    sent_ms: int = 0
    # Since when the peer owes a receipt of what was sent, whatever was sent since.
    owes_ms: int = 0
    flight_bytes: int = 0
    # Over which link the last of it was sent.
    over: int = 0
    serve: bool = False
    # We asked the peer not to send it: it comes another way.
    declined: bool = False
    # The peer asked us not to tell it of growth.
    quiet: bool = False
    # When the peer said so, and whether it may have for want of our receipt.
    claimed_ms: int = 0
    unanswered: bool = False
    shown: int = 0
    shown_ms: int = -WITNESS_MS
    # Over which link, and how far it had come, when it was said that nothing answers what was sent
    # of it, or asked for: it is said once, for a peer may have no place for it.
    missed_sent: tuple[int, int] = (0, 0)
    missed_asked: tuple[int, int] = (0, 0)
    # A witness's lane only: how much of the stream its *seen* cosigns cover.
    witnessed: int = 0


@dataclass(slots=True)
class Session:
    # The path over which we speak; what the peer says may come over any of them.
    link: int
    peer: MachineId
    # Every live link to the peer, the oldest first, and the machine in its middle: "" for none.
    paths: dict[int, str] = field(default_factory=dict)
    # What each of them costs: of two that work the cheaper one is spoken over.
    costs: dict[int, int] = field(default_factory=dict)
    # Which process of the peer it is, by its own word; "" where it does not say.
    process: str = ""
    greeted: bool = False
    # Paths over which the peer has not said yet what it holds.
    fresh: set[int] = field(default_factory=set)
    # When the peer last said anything, over whichever path; when that was an answer to what we had
    # said over ours, or we moved to another; and how long the next answer is waited for.
    heard_ms: int = 0
    answered_ms: int = 0
    patience_ms: int = 0
    # Which of them carry.
    proofs: Proofs = field(default_factory=Proofs)
    # Nothing that we said of late was answered.
    unanswered: bool = False
    refreshed_ms: int = 0
    # Whether the peer compares sums (refresh.py); when it last showed one that is ours as well; and
    # how much of what differs was looked into since the refresh.
    compares: bool = False
    compared_ms: int | None = None
    looked_into: int = 0
    # How much of its own streams, where they are only witnessed here, the peer knows that we saw.
    showed: dict[StreamName, int] = field(default_factory=dict)
    # Which stream is told anew next, by its place among all.
    turn: int = 0
    retried_ms: int = 0
    lanes: dict[StreamName, Lane] = field(default_factory=dict)
    cosigns: dict[tuple[StreamName, MachineId, str], int] = field(default_factory=dict)
    # How often each claim was asked for.
    claims: dict[StreamName, int] = field(default_factory=dict)
    # Lanes that would have been sent more in this step, had it not been enough for one.
    late: dict[StreamName, None] = field(default_factory=dict)

    @property
    def through(self) -> str:
        """The machine in the middle of the path, "" where it is a link of our own."""
        return self.paths[self.link]

    def best(self) -> int:
        """The path that is best to speak over (proofs.py, rule 3)."""
        costs = {link: (bool(by), self.costs[link]) for link, by in self.paths.items()}
        best = self.proofs.best(costs, costs)
        return self.link if best is None else best

    def other(self) -> int | None:
        """The best of the other paths that are proven to carry."""
        believed = {link: (bool(by), self.costs[link]) for link, by in self.paths.items()
                    if link != self.link and self.proofs.is_believed(link)}  # fmt: skip
        return self.proofs.best(believed, believed)

    def answered(self, link: int, now_ms: int) -> None:
        """The peer answered what we said over the present path; over `link` the answer came."""
        self.answered_ms, self.patience_ms, self.unanswered = now_ms, RETRY_MS, False
        if link == self.link:
            self.proofs.prove(link, now_ms)

    def lane(self, stream: StreamName) -> Lane:
        lane = self.lanes.get(stream)
        if lane is None:
            lane = self.lanes[stream] = Lane()
        return lane
