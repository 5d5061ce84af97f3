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

from muster.channel.base import Link, LinkOptions, LinkTasks, OnLink, Own, gone
from muster.channel.frame import check_size, short_reason
from muster.channel.framed import FramedLink
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


class MemoryLink(FramedLink):
    """One end of a pair."""

    channel = NAME

    def __init__(self, peer: str, faults: Faults | None) -> None:
        super().__init__()
        self.peer = peer
        self._faults = faults
        self._far: MemoryLink
        self._under_way: deque[bytes | str] = deque()

    async def send_all(self, frames: Sequence[bytes]) -> None:
        check_size(*frames)
        for frame in frames:
            await super().send_all((frame,))

    @property
    def ready(self) -> bool:
        return self._may_write.is_set() and self.ended is None

    def send_all_nowait(self, frames: Sequence[bytes]) -> None:
        with contextlib.suppress(Unreachable):
            super().send_all_nowait(frames)

    def _write(self, frames: Sequence[bytes]) -> None:
        for frame in frames:
            if self._faults is not None and self._faults.draw() < self._faults.loss:
                self.lose("a seeded fault")
                raise Unreachable(gone(NAME, "a seeded fault"))
            self.counters.count_out((frame,))
            self._carry(bytes(frame))

    def _carry(self, item: bytes | str) -> None:
        """Put a frame, or the reason of the close, on its way; the order is kept."""
        if len(self._under_way) + 1 >= LINK_UNREAD_FRAMES_MAX or self._far.full:
            self._may_write.clear()
        self._under_way.append(item)
        if self._faults is not None and self._faults.schedule is not None:
            self._faults.schedule(self._faults.draw() * self._faults.delay_s_max, self._deliver)
        else:
            self._deliver()

    def _deliver(self) -> None:
        # The k-th callback delivers the k-th frame: random delays cannot reorder.
        if not self._under_way:
            return
        item = self._under_way.popleft()
        if isinstance(item, str):
            self._far.end(item)
            return
        self._far._arrive(item)
        self._check_room()

    def _check_room(self) -> None:
        if self._far.full or len(self._under_way) >= LINK_UNREAD_FRAMES_MAX:
            self._may_write.clear()
        else:
            self._may_write.set()

    def _on_room(self) -> None:
        self._far._check_room()

    def lose(self, reason: str) -> None:
        """Cut the link on both sides; what was under way is gone."""
        for end in (self, self._far):
            end._under_way.clear()
            end.end(reason)

    async def close(self, reason: str) -> None:
        if self.ended is None:
            self.cut(short_reason(reason))
            self._carry(short_reason(reason))
            self._may_write.set()
        # One turn of the loop, as with every real channel: a task that waits gets to run.
        await asyncio.sleep(0)


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

    @property
    def listens(self) -> bool:
        return self.owner.exchange.listeners.get(self.address) is self

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
