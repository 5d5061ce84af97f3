"""What a client of a NATS server waits for, and what it is told then."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, NamedTuple, TypeVar, cast

T = TypeVar("T")

# What JetStream answers where there is no room: by its own bounds, by those of the mailbox.
FULL: Final = frozenset({10023, 10028, 10047, 10077})
EXISTS: Final = frozenset({10058, 10013, 10148})
# An account that may not make streams says so in this way.
NOT_OURS: Final = 10039
_STORE_FAILED: Final = 10077


def is_full(code: int | None, said: object) -> bool:
    """Whether it is this mailbox that has no room, and not the server or its disk."""
    return code == _STORE_FAILED and "maximum bytes" in str(said)


class Came(NamedTuple):
    """What was pulled: `id` is its place in the mailbox, `reply` where it is acknowledged.

    `sender` is whose subject it came by: at a server of the fleet nobody has another one's.
    """

    id: str
    body: bytes
    reply: str
    sender: str


class End(asyncio.Event):
    """The end of a connection, and what is waited for until then."""

    def __init__(self) -> None:
        super().__init__()
        self.waiting: set[asyncio.Timeout] = set()

    def set(self) -> None:
        if not self.is_set():
            super().set()
            for each in self.waiting:
                each.reschedule(asyncio.get_running_loop().time())


async def unless(end: asyncio.Event, otherwise: Exception, work: Coroutine[Any, Any, T]) -> T:
    """What the work returns. Raises: `otherwise` as soon as it ended."""
    waiting = [asyncio.ensure_future(work), asyncio.ensure_future(end.wait())]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if not waiting[0].done():
            raise otherwise
        return cast("T", waiting[0].result())
    finally:
        for each in waiting:
            each.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)


def setting(gone: asyncio.Event) -> Callable[[], Awaitable[None]]:
    """What a client calls when its connection ended."""

    async def closed() -> None:
        gone.set()

    return closed
