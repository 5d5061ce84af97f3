"""One way to open a channel of every kind, so that one suite can hold all to one contract."""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvloop
from tests.channel import sshd
from tests.channel.authority import TestAuthority
from tests.channel.memory import Exchange, MemoryChannel

from muster.channel.base import Channel, Link, LinkTasks, Listener
from muster.channel.flow import PLAIN, RELAYED, Flow, Put, Terms
from muster.channel.http import HttpChannel, Timing
from muster.channel.ipc import IpcChannel
from muster.channel.relay import RelayChannel
from muster.channel.stream import Stream, splice
from muster.channel.tunnel import TunnelLink
from muster.errors import Refused, Unreachable

WAIT_S = 20.0


@dataclass
class Rig:
    """Two ends that can reach each other."""

    near: Channel
    far: Channel
    address: str
    peer: str = ""
    links: list[Link] = field(default_factory=list)

    async def listen(self, on_link: Callable[[Link], Awaitable[None]]) -> Listener:
        return await self.far.listen(self.address, on_link)

    @contextlib.asynccontextmanager
    async def connected(self) -> AsyncIterator[tuple[Link, Link]]:
        """A dialled link and its other end."""
        arrived: asyncio.Future[Link] = asyncio.get_running_loop().create_future()
        released = asyncio.Event()

        async def on_link(link: Link) -> None:
            arrived.set_result(link)
            await released.wait()

        listener = await self.listen(on_link)
        try:
            near = await self.near.dial(listener.address, peer=self.peer)
            try:
                yield near, await arrived
            finally:
                await near.close("test over")
        finally:
            released.set()
            await listener.close()


def memory_rig(_: Path) -> Rig:
    exchange = Exchange()
    return Rig(MemoryChannel(exchange, "aa"), MemoryChannel(exchange, "bb"), "b", peer="bb")


def ipc_rig(folder: Path) -> Rig:
    return Rig(IpcChannel(), IpcChannel(), str(folder / "run" / "sock"))


def http_rig(_: Path) -> Rig:
    authority = TestAuthority("fleet")
    (_, near), (far_id, far) = authority.issue("near"), authority.issue("far")
    return Rig(
        HttpChannel(near, authority.identify, Timing(close_s=0.5)),
        HttpChannel(far, authority.identify, Timing(close_s=0.5)),
        "127.0.0.1:0",
        peer=far_id,
    )


async def drained() -> None:
    """There is always room on this link."""
    await asyncio.sleep(0)


def crossed(terms: Terms = PLAIN) -> tuple[Flow, Flow]:
    """Two ends of a stream in one process: frames reach the other a turn of the loop later."""
    ends: list[Flow] = []

    def to(other: int) -> Put:
        return lambda kind, payload: loop.call_soon(ends[other].feed, kind, payload) and None

    loop = asyncio.get_running_loop()
    ends += [Flow(to(1), terms), Flow(to(0), terms)]
    return ends[0], ends[1]


class Middle:
    """Two relay channels and a machine between them, which joins their streams as ours does."""

    name = "relay"

    def __init__(self) -> None:
        authority = TestAuthority("fleet")
        (self.near_id, near), (self.far_id, far) = authority.issue("near"), authority.issue("far")
        self.near = RelayChannel(near, authority.identify)
        self.far = RelayChannel(far, authority.identify)
        self.hosting: LinkTasks | None = None
        self.proving: set[asyncio.Task[None]] = set()
        self.joined: set[asyncio.Task[None]] = set()

    async def dial(self, address: str, *, peer: str = "") -> Link:
        if self.hosting is None:
            raise Unreachable(f"nobody is at {address}")
        (here, one), (other, there) = crossed(RELAYED), crossed(RELAYED)
        joined = asyncio.create_task(splice(Stream(one, drained), Stream(other, drained)))
        near, far = self.near.open(here, serves=False), self.far.open(there, serves=True)
        self.joined.add(joined)
        joined.add_done_callback(self.joined.discard)
        task = asyncio.create_task(self._serve(far, self.hosting))
        self.proving.add(task)
        task.add_done_callback(self.proving.discard)
        await near.prove(peer or self.far_id)
        return near

    async def _serve(self, far: TunnelLink, hosting: LinkTasks) -> None:
        with contextlib.suppress(Unreachable, Refused):
            await far.prove(self.near_id)
            hosting.adopt(far)

    async def listen(self, address: str, on_link: Callable[[Link], Awaitable[None]]) -> "Middle":
        self.hosting, self.address = LinkTasks(on_link), address
        return self

    async def close(self) -> None:
        hosting, self.hosting = self.hosting, None
        if hosting is not None:
            await asyncio.gather(*self.proving)
            await hosting.close()
            await asyncio.gather(*self.joined)


def relay_rig(_: Path) -> Rig:
    middle = Middle()
    return Rig(middle, middle, "through the hub", peer=middle.far_id)


def ssh_rig(folder: Path) -> Rig:
    near, far, far_id = sshd.ends(folder, sshd.shared())
    return Rig(near, far, near.address, peer=far_id)


RIGS: dict[str, Callable[[Path], Rig]] = {
    "memory": memory_rig,
    "ipc": ipc_rig,
    "http": http_rig,
    "relay": relay_rig,
    "ssh": ssh_rig,
}
LOOPS: dict[str, Callable[[], asyncio.AbstractEventLoop]] = {
    "asyncio": asyncio.new_event_loop,
    "uvloop": uvloop.new_event_loop,
}


def run(
    scenario: Coroutine[Any, Any, None], loop: str = "asyncio", within_s: float = WAIT_S
) -> None:
    """Run one scenario, bounded in time, and fail on whatever the loop would only log."""
    complaints: list[str] = []

    async def bounded() -> None:
        asyncio.get_running_loop().set_exception_handler(
            lambda _, context: complaints.append(repr(context))
        )
        async with asyncio.timeout(within_s):
            await scenario

    with asyncio.Runner(loop_factory=LOOPS[loop]) as runner:
        runner.run(bounded())
    assert complaints == [], complaints


@contextlib.contextmanager
def short_folder() -> Any:
    """A private folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="m") as folder:
        yield Path(folder)
