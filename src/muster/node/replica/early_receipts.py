"""Receipts of streams of which nothing is here yet: anybody may give them, about anything.

Rule 1: nothing of them is stored. What comes of a stream later shows that there is one; then they
are looked at as if they came now.
Rule 2: a link has so many of them, the oldest goes first, and all of them go with the link.
"""

from collections import deque

from muster.limits import HEARSAY_COSIGNS_MAX
from muster.log.stream import StreamName


class EarlyReceipts:
    """See the rules at the top of this file."""

    def __init__(self) -> None:
        self._links: dict[int, deque[tuple[StreamName, bytes]]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._links.values()))

    def keep(self, link: int, stream: StreamName, note: bytes) -> None:
        """Keep a note in mind, as far as there is place."""
        kept = self._links.setdefault(link, deque(maxlen=HEARSAY_COSIGNS_MAX))
        kept.append((stream, note))

    def of(self, stream: StreamName) -> list[tuple[int, bytes]]:
        """Every note about a stream, with the link that it came over; they are kept no more."""
        found = []
        for link, kept in self._links.items():
            mine = [note for about, note in kept if about == stream]
            if mine:
                found += [(link, note) for note in mine]
                rest = [each for each in kept if each[0] != stream]
                kept.clear()
                kept.extend(rest)
        return found

    def closed(self, link: int) -> None:
        """The link is gone, and with it what it said."""
        self._links.pop(link, None)
