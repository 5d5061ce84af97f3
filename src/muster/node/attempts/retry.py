"""What passes is waited for: a repository out of reach, a disk without room.

Rule: what an agent did is not thrown away because a hub restarts or a disk was full for a minute.
"""

import asyncio
import contextlib
import errno
import random
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from muster.channel.backoff import Backoff
from muster.errors import Conflict, Exhausted, MusterError, Unreachable

# Chosen arbitrarily: longer than a hub's restart or update, shorter than a person's patience.
REACH_S: Final = 600.0
_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
# What a machine is short of when an attempt fails that did nothing wrong.
SCARCE: Final = _FULL | {errno.EIO, errno.EROFS, errno.EMFILE, errno.ENFILE, errno.ENOMEM}

AWAY: Final = (Unreachable,)
NO_SPACE: Final = (Exhausted,)
# Where nobody else writes, also that a reference could not be written just now.
OWN_PLACE: Final = (Unreachable, Exhausted, Conflict)

T = TypeVar("T")


async def patiently(
    work: Callable[[], Awaitable[T]], passing: tuple[type[MusterError], ...], stop: asyncio.Event
) -> T:
    """`work`, and again while it meets what passes, until `stop`."""
    backoff = Backoff(random.SystemRandom().random)
    loop = asyncio.get_running_loop()
    end = loop.time() + REACH_S
    while True:
        try:
            return await work()
        except (MusterError, OSError) as error:
            short = isinstance(error, OSError) and error.errno in _FULL and Exhausted in passing
            if not (short or isinstance(error, passing)) or stop.is_set() or loop.time() > end:
                raise
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(backoff.failed() / 1000):
                await stop.wait()
