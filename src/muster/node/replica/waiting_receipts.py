"""Receipts that wait: those that we await, those that come too early, those that claim too much.

Rule 1: who waits until others hold so much of a stream is told once, by receipts alone, those that
are here and those that come.
Rule 2: of a stream of which nothing is here yet anybody may give receipts, about anything. Nothing
of them is stored; when something of it comes, they are looked at as if they came now. A link has so
many of them, the oldest goes first, and all of them go with the link.
Rule 3: a receipt over more than we hold of our own stream is a hint that we were set back, and no
proof: its cosigner may have made the size up. Going on after it could write a second history, so it
costs one new incarnation. Who saw an entry of ours saw our seal, and shows it: that is proof
(replication.py). Whoever claimed what was never proven costs no second one. Its claims count again
when what it claimed then is here.
"""

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

from muster.limits import EARLY_RECEIPTS_MAX
from muster.log.seal import Cosign
from muster.log.stream import MachineId, StreamName
from muster.node.replica.membership import Membership
from muster.store.store import Store

_KEPT: Final = "claim-"


class _Waiting(NamedTuple):
    size: int
    machines: set[MachineId]
    then: Callable[[], None]


class Awaited:
    """Who waits until other machines hold so much of a stream of ours."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._waiting: dict[StreamName, list[_Waiting]] = {}

    def when_held(
        self, stream: StreamName, size: int, machines: set[MachineId], then: Callable[[], None]
    ) -> Callable[[], None]:
        """Call `then` once, when all of `machines` have receipted `size` entries of `stream`.

        What is given back ends the waiting, for whoever gave it up.
        """
        for cosign in self._store.log.cosigns(stream):
            if cosign.strength == "held" and cosign.size >= size:
                machines.discard(cosign.machine)
        if not machines:
            then()
            return lambda: None
        waits = _Waiting(size, machines, then)
        self._waiting.setdefault(stream, []).append(waits)
        return lambda: self._forget(stream, waits)

    def _forget(self, stream: StreamName, waits: _Waiting) -> None:
        left = [each for each in self._waiting.get(stream, ()) if each is not waits]
        if left:
            self._waiting[stream] = left
        else:
            self._waiting.pop(stream, None)

    def settle(self, cosign: Cosign) -> None:
        """A receipt came."""
        waiting = self._waiting.get(cosign.stream)
        if not waiting or cosign.strength != "held":
            return
        left = []
        for each in waiting:
            if each.size <= cosign.size:
                each.machines.discard(cosign.machine)
            if each.machines:
                left.append(each)
            else:
                each.then()
        if left:
            self._waiting[cosign.stream] = left
        else:
            del self._waiting[cosign.stream]


class EarlyReceipts:
    """What was said of streams of which nothing is here."""

    def __init__(self) -> None:
        self._links: dict[int, deque[tuple[StreamName, bytes]]] = {}

    def keep(self, link: int, stream: StreamName, note: bytes) -> None:
        """Keep a note in mind, as far as there is place."""
        empty = deque[tuple[StreamName, bytes]](maxlen=EARLY_RECEIPTS_MAX)
        self._links.setdefault(link, empty).append((stream, note))

    def of(self, stream: StreamName) -> list[tuple[int, bytes]]:
        """Every note about a stream, with the link that it came over; they are kept no more."""
        found = []
        for link, kept in self._links.items():
            found += [(link, note) for about, note in kept if about == stream]
            rest = [each for each in kept if each[0] != stream]
            kept.clear()
            kept.extend(rest)
        return found

    def closed(self, link: int) -> None:
        """The link is gone, and with it what it said."""
        self._links.pop(link, None)


class Claims:
    """The newest claim that may count, and those that were followed."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.newest: Cosign | None = None

    def heard(self, cosign: Cosign) -> None:
        """Another machine signed a receipt over more than there is."""
        kept = str(self._store.recall(_KEPT + cosign.machine) or "")
        size, _, stream = kept.partition(" ")
        if not kept or self._store.log.size(StreamName.parse(stream)) >= int(size):
            self.newest = cosign

    def follow(self, membership: Membership) -> tuple[StreamName, str] | None:
        """The stream that ends for a claim about it, and why; its claimant is remembered."""
        claim = self.newest
        if claim is None or claim.stream.incarnation != membership.incarnation:
            return None
        self._store.remember(_KEPT + claim.machine, f"{claim.size} {claim.stream}")
        name = membership.name_of(claim.machine)
        return claim.stream, f"{name} claims to have seen more of our stream than we hold"
