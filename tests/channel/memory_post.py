"""A mailbox inside one process: it keeps the contract of every post, and does the worst of it.

Packets of a writer come in any order, late, and again until they are acknowledged; the place can be
away.
"""

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice

from muster.channel.base import Packet
from muster.channel.turn import in_turn
from muster.errors import Exhausted, Malformed, Unreachable
from muster.limits import PACKET_BYTES_MAX, POST_TAKEN_MAX

Shuffle = Callable[[list[Packet]], None]


@dataclass
class Place:
    """Where the packets lie, by the machine that they are for."""

    boxes: dict[str, dict[str, bytes]] = field(default_factory=dict)
    # Who left a packet; of none of the fleet where this does not say it.
    writers: dict[str, str] = field(default_factory=dict)
    room: int = 1 << 30
    away: bool = False
    number: int = 0
    # Of each machine that waits for news.
    bells: dict[str, asyncio.Event] = field(default_factory=dict)

    def check(self) -> None:
        if self.away:
            raise Unreachable("the place of this post is not there now; try again later")


class MemoryPost:
    """What one machine does at a place."""

    name = "memory-post"

    def __init__(self, place: Place, machine: str, shuffle: Shuffle = lambda _: None) -> None:
        self._place = place
        self._machine = machine
        self._shuffle, self._after = shuffle, ""
        self._closed = False

    async def put(self, packet: bytes, *, to: str) -> None:
        if len(packet) > PACKET_BYTES_MAX:
            raise Malformed(f"a packet has {len(packet)} bytes; the limit is {PACKET_BYTES_MAX}")
        place = self._place
        place.check()
        if len(packet) > place.room:
            raise Exhausted("the place of this post is full")
        place.room -= len(packet)
        place.number += 1
        place.boxes.setdefault(to, {})[str(place.number)] = packet
        place.writers[str(place.number)] = self._machine
        if to in place.bells:
            place.bells[to].set()

    async def take(self, most: int = POST_TAKEN_MAX) -> list[Packet]:
        self._place.check()
        box = self._place.boxes.get(self._machine, {})
        packets = [Packet(name, body) for name, body in box.items()]
        self._shuffle(packets)
        waiting: dict[str, list[Packet]] = {}
        for each in packets:
            waiting.setdefault(self._place.writers.get(each.id, ""), []).append(each)
        last = waiting.pop("", [])
        found = list(islice(in_turn(waiting, self._after, last), most))
        self._after = found[-1][0] if found else ""
        return [each for _, each in found]

    async def ack(self, ids: Sequence[str]) -> None:
        self._place.check()
        box = self._place.boxes.get(self._machine, {})
        for name in ids:
            self._place.room += len(box.pop(name, b""))

    async def news(self, *, urgent: bool) -> None:
        bell = self._place.bells.setdefault(self._machine, asyncio.Event())
        if not self._closed and not self._place.boxes.get(self._machine):
            await bell.wait()
        bell.clear()

    async def close(self) -> None:
        self._closed = True
        if self._machine in self._place.bells:
            self._place.bells[self._machine].set()
