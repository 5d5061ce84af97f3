"""Links inside one process, for tests and for the simulator.

Rule 1: it keeps the same contract as the real channels, and the same suite checks it.
Rule 2: faults come from a seed and a scheduler that the caller brings; there is no clock here.

A link loses no single frame, because TCP does not: what can happen is a delay and the end of
the whole link, with everything that was still under way. `Faults` says how often.
"""

import asyncio
import contextlib
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from muster.channel.base import Link, LinkOptions, LinkStatistics, LinkTasks, OnLink, Own, gone
from muster.channel.frame import check_size, short_reason
from muster.channel.inbox import Inbox
from muster.channel.tls import Credentials
from muster.errors import Conflict, Denied, Unreachable
from muster.limits import LINK_UNREAD_FRAMES_MAX

NAME: Final = "memory"

Schedule = Callable[[float, Callable[[], None]], object]


@dataclass(frozen=True, slots=True)
class Faults:
    """What goes wrong. `draw` returns a number in [0, 1), such as `Random(seed).random`."""

    draw: Callable[[], float]
    # The chance, for each frame sent, that the link is lost with it.
    loss: float = 0.0
    # Each frame takes up to this long; order is kept.
    delay_s_max: float = 0.0
    # Called as schedule(delay_s, callback); needed for a delay, such as `loop.call_later`.
    schedule: Schedule | None = None


class MemoryLink:
    """One end of a pair."""

    channel: Final = NAME

    def __init__(self, peer: str, faults: Faults | None) -> None:
        self.peer = peer
        self._faults = faults
        self._far: MemoryLink
        self._inbox = Inbox(NAME, self._on_room)
        self._under_way: deque[bytes | str] = deque()
        self._counters = LinkStatistics(asyncio.get_running_loop().time())
        self._room = asyncio.Event()
        self._room.set()

    async def send(self, frame: bytes) -> None:
        check_size(frame)
        await self._wait_room()
        self._hand_over(frame)
        if not self._room.is_set():
            await self._wait_room()

    async def send_all(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            check_size(frame)
        for frame in frames:
            await self.send(frame)

    @property
    def ready(self) -> bool:
        return self._room.is_set() and self._inbox.ended is None

    def send_all_nowait(self, frames: Sequence[bytes]) -> None:
        assert self.ready, "somebody else is sending, or the link is gone"
        for frame in frames:
            check_size(frame)
        with contextlib.suppress(Unreachable):
            for frame in frames:
                self._hand_over(frame)

    def _hand_over(self, frame: bytes) -> None:
        if self._faults is not None and self._faults.draw() < self._faults.loss:
            self.lose("a seeded fault")
            raise Unreachable(gone(NAME, "a seeded fault"))
        self._counters.count_out(len(frame))
        self._carry(bytes(frame))

    async def _wait_room(self) -> None:
        while not self._room.is_set():
            await self._room.wait()
        if (reason := self._inbox.ended) is not None:
            raise Unreachable(gone(NAME, reason))

    def _carry(self, item: bytes | str) -> None:
        """Put a frame, or the reason of the close, on its way; the order is kept."""
        if len(self._under_way) + 1 >= LINK_UNREAD_FRAMES_MAX or self._far._inbox.full:
            self._room.clear()
        self._under_way.append(item)
        if self._faults is not None and self._faults.schedule is not None:
            self._faults.schedule(self._faults.draw() * self._faults.delay_s_max, self._arrive)
        else:
            self._arrive()

    def _arrive(self) -> None:
        # The k-th callback delivers the k-th frame: random delays cannot reorder.
        if not self._under_way:
            return
        item = self._under_way.popleft()
        if isinstance(item, str):
            self._far._ended(item)
            return
        self._far._inbox.put(item)
        self._check_room()

    def _check_room(self) -> None:
        if self._far._inbox.full or len(self._under_way) >= LINK_UNREAD_FRAMES_MAX:
            self._room.clear()
        else:
            self._room.set()

    def _on_room(self) -> None:
        self._far._check_room()

    def _ended(self, reason: str) -> None:
        self._inbox.end(reason)
        self._room.set()

    def lose(self, reason: str) -> None:
        """Cut the link on both sides; what was under way is gone."""
        for end in (self, self._far):
            end._under_way.clear()
            end._ended(reason)

    async def receive(self) -> bytes:
        frame = await self._inbox.get()
        self._counters.count_in(len(frame))
        return frame

    async def close(self, reason: str) -> None:
        if self._inbox.ended is None:
            self._inbox.cut(short_reason(reason))
            self._carry(short_reason(reason))
            self._room.set()
        # One turn of the loop, as with every real channel: a task that waits gets to run.
        await asyncio.sleep(0)

    def statistics(self) -> dict[str, float]:
        return self._counters.as_dict()


def pair(
    near: str = "", far: str = "", faults: Faults | None = None
) -> tuple[MemoryLink, MemoryLink]:
    """Two connected ends: the first belongs to `near` and sees `far`, the second the reverse."""
    one, two = MemoryLink(far, faults), MemoryLink(near, faults)
    one._far, two._far = two, one
    return one, two


class MemoryListener:
    """Made by `MemoryChannel.listen`."""

    def __init__(self, address: str, owner: "MemoryChannel", on_link: OnLink) -> None:
        self.address = address
        self.owner = owner
        self.hosting = LinkTasks(on_link)

    async def close(self) -> None:
        self.owner.exchange.listeners.pop(self.address, None)
        await self.hosting.close()


@dataclass(slots=True)
class Exchange:
    """What the machines of one process share: who listens where."""

    listeners: dict[str, MemoryListener] = field(default_factory=dict)


class MemoryChannel:
    """One machine's access to an exchange; the address is any text."""

    name: Final = NAME

    def __init__(self, exchange: Exchange, machine: str = "", faults: Faults | None = None) -> None:
        self.exchange = exchange
        self.machine = machine
        self._faults = faults

    async def dial(self, address: str, *, peer: str = "") -> Link:
        await asyncio.sleep(0)
        listener = self.exchange.listeners.get(address)
        if listener is None:
            raise Unreachable(f"nobody listens at {address}; try later")
        if peer not in ("", listener.owner.machine):
            raise Denied(f"{address} is not machine {peer}; ask the roster for its address")
        near, far = pair(self.machine, listener.owner.machine, self._faults)
        listener.hosting.adopt(far)
        return near

    def renew(self, credentials: Credentials) -> None:
        """Nothing is shown here: who listens where is all the proof there is."""

    async def listen(self, address: str, on_link: OnLink) -> MemoryListener:
        if address in self.exchange.listeners:
            raise Conflict(f"somebody listens at {address} already; choose another address")
        listener = MemoryListener(address, self, on_link)
        self.exchange.listeners[address] = listener
        return listener


# --- as a channel of the list: this file, and one line in `CHANNELS` ------------------------------

PROCESS: Final = Exchange()


class Options(LinkOptions, frozen=True, forbid_unknown_fields=True):
    """`[channel.memory]`."""


def open_channel(_options: Options, own: Own) -> MemoryChannel:
    """A machine's access to what all machines of this process share."""
    return MemoryChannel(PROCESS, own.machine)
