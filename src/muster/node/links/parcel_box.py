"""What is to be left for one machine at one place, until it lies there.

Rule 1: it is bounded: what finds no room is dropped, and offered again by who keeps the streams.
Rule 2: what is quick goes before what is much, and pieces of blobs go when nothing else does.
"""

import asyncio
from collections import deque
from typing import Protocol

from muster.fleet.parcel import FRAME, ITEM_HEAD_BYTES, Item
from muster.limits import LANE_BYTES_MAX, PARCEL_ASIDES_MAX, PARCEL_BYTES_MAX, PARCEL_ITEMS_MAX
from muster.log.pace import Pace
from muster.node.core import Core
from muster.node.counter import DECLARED

DECLARED[__name__] = {
    "parcels-without-room": "Something for a mailbox was dropped: too much waits for it.",
}


class Shelf(Protocol):
    """The place of a box: it leaves what is in there. `met` says who was met there."""

    name: str
    pace: Pace
    core: Core
    met: set[str]

    def leave(self, box: "ParcelBox") -> None: ...


class ParcelBox:
    """What is to be left for one machine at one place; used as the outbox of a link."""

    def __init__(self, place: Shelf, number: int, peer: str) -> None:
        self.place, self.number, self.peer = place, number, peer
        self._quick: deque[bytes] = deque()
        self._bulk: deque[bytes] = deque()
        # The newest count: of what is asked again and again the rest is no loss.
        self._asides: deque[Item] = deque(maxlen=PARCEL_ASIDES_MAX)
        # A segment is said while there is room for a byte: see `_has_room` of log/post.py.
        self._most = self._room = place.pace.flight_bytes + LANE_BYTES_MAX
        # Of a blob: it goes when nothing else does, and the next one is read when it went.
        self._part: Item | None = None
        self._part_went = asyncio.Event()
        self.busy = False

    def __bool__(self) -> bool:
        return bool(self._quick or self._bulk or self._asides or self._part)

    @property
    def waiting(self) -> int:
        """So many bytes are still to be said."""
        return self._most - self._room

    def put(self, frame: bytes, *, bulk: bool) -> None:
        if len(frame) > self._room:
            self.place.core.counters["parcels-without-room"] += 1
            return
        self._room -= len(frame)
        (self._bulk if bulk else self._quick).append(frame)

    def put_aside(self, aside: Item) -> None:
        """Leave something that is not about the streams, and of which nobody waits to hear."""
        self._asides.append(aside)
        self.release()

    async def put_part(self, part: Item) -> None:
        """Leave a piece of a blob, once the one before it went."""
        while self._part is not None:
            self._part_went.clear()
            await self._part_went.wait()
        self._part = part
        self.release()

    def release(self) -> None:
        """Leave it as soon as what was before it lies there."""
        if not self.busy:
            self.busy = True
            self.place.leave(self)

    def clear(self) -> None:
        """Forget what waits: nobody is to have it."""
        for queue in (self._quick, self._bulk, self._asides):
            queue.clear()
        self._part = None
        self._part_went.set()
        self._room = self._most

    def items(self) -> list[Item]:
        """What goes into the next parcel."""
        found = list(self._asides)
        self._asides.clear()
        left = PARCEL_BYTES_MAX - sum(len(each.body) + ITEM_HEAD_BYTES for each in found)
        # One item more says that names are read (posts.py).
        while (queue := self._quick or self._bulk) and len(found) < PARCEL_ITEMS_MAX - 1:
            left -= len(queue[0]) + ITEM_HEAD_BYTES
            if left < 0:
                break
            found.append(Item(FRAME, queue.popleft()))
            self._room += len(found[-1].body)
        part = None if self._quick or self._bulk else self._part
        if part is not None and len(part.body) + ITEM_HEAD_BYTES <= left:
            found.append(part)
            self._part = None
            self._part_went.set()
        return found
